"""Ways to damage what is right: bytes of a file, values of JSON, the file itself."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEP = "[" * 100_000 + "]" * 100_000
#: Values that no reader expects, as JSON texts where `json` could not write them.
RAW = {
    "deep": DEEP,
    "huge": "9" * 5000,
    "nan": "NaN",
    "infinity": "-Infinity",
    "overflow": "1e999",
    "surrogate": '"\\ud83d"',
    "escape": '"\\u001b]0;owned\\u0007\\u001b[31m"',
    "c1": '"\\u009b31m"',
    "nul": '"a\\u0000b"',
}
PLAIN: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1.5,
    10**30,
    -(10**400),
    "",
    "x",
    "../../etc",
    "a" * 5000,
    [],
    {},
    [[]],
    [None],
)
PLAIN += ({"kind": "x"}, [1, "a", None], "canary_of_attack:f", 1e308, -7)


def hostile(rng: random.Random) -> tuple[str, Any]:
    """A value that no reader expects, and what to call it; `Raw` where it is JSON text."""
    if rng.random() < 0.35:
        name = rng.choice(sorted(RAW))
        return name, Raw(RAW[name])
    value = rng.choice(PLAIN)
    return repr(value)[:40], value


class Raw(str):
    """JSON text that stands for itself."""


def to_text(data: Any, indent: int | None = None) -> str:
    """JSON with raw parts."""
    raws: list[str] = []

    def stand_in(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(value)
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: stand_in(one) for key, one in value.items()}
        return [stand_in(one) for one in value] if isinstance(value, list) else value

    import sys

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        text = json.dumps(stand_in(data), indent=indent, ensure_ascii=False)
    finally:
        sys.set_int_max_str_digits(limit)
    for i, raw in enumerate(raws):
        text = text.replace(f'"@raw{i}@"', raw)
    return text


def paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a JSON value, its own among them."""
    found = [path]
    if isinstance(data, dict):
        for key, value in data.items():
            found += paths(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data[:6]):  # of long lists, the beginning stands for all
            found += paths(value, (*path, i))
    return found


def edit(data: Any, rng: random.Random, path: tuple[Any, ...] | None = None) -> tuple[str, Any]:
    """One place of a JSON value changed: what was done, and the new value."""
    data = json.loads(json.dumps(data))
    path = path if path is not None else rng.choice(paths(data)[1:])
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    last, name = path[-1], ".".join(map(str, path))
    value = holder[last]
    ways = ["replace"] * 5 + ["delete", "add"]
    if isinstance(value, bool):
        ways += ["flip"] * 3
    elif isinstance(value, (int, float)):
        ways += ["nudge"] * 3
    elif isinstance(value, list) and value:
        ways += ["shorten", "lengthen"]
    way = rng.choice(ways)
    if way == "replace":
        what, holder[last] = hostile(rng)
        return f"{name} = {what}", data
    if way == "delete":
        del holder[last]
        return f"{name} left out", data
    if way == "flip":
        holder[last] = not value
    elif way == "nudge":
        holder[last] = value + (1 if isinstance(value, int) else 0.37 * abs(value) + 0.01)
    elif way == "shorten":
        holder[last] = value[:-1]
    elif way == "lengthen":
        holder[last] = [*value, value[0]]
    else:
        key, (what, new) = "unknown\x1b[31mkey", hostile(rng)
        if isinstance(holder, dict):
            holder[key] = new
        else:
            holder.append(new)
        return f"{name} beside an unknown key of {what}", data
    return f"{name}: {way}", data


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Other bytes in a file."""
    content = path.read_bytes()
    place = rng.randrange(max(1, len(content)))
    ways: dict[str, Callable[[], bytes]] = {
        "cut": lambda: content[:place],
        "empty": lambda: b"",
        "a bit flipped": lambda: (
            content[:place]
            + bytes([content[place] ^ (1 << rng.randrange(8))])
            + content[place + 1 :]
        ),
        "garbage": lambda: rng.randbytes(300),
        "zeros": lambda: bytes(len(content)),
        "a mark in front": lambda: b"\xef\xbb\xbf" + content,
        "twice": lambda: content * 2,
        "UTF-16": lambda: content.decode("latin-1").encode("utf-16"),
        "deep JSON": lambda: DEEP.encode(),
        "null": lambda: b"null\n",
        "a list": lambda: b"[]\n",
        "a text": lambda: b'"x"\n',
        "a hole of zeros inside": lambda: (
            content[: place // 2] + bytes(16) + content[place // 2 + 16 :]
        ),
    }
    way = rng.choice(sorted(ways))
    path.write_bytes(ways[way]() if content else b"x")
    return way


def damage_file(path: Path, rng: random.Random) -> str:
    """Something else in the place of a file."""
    way = rng.choice(
        [
            "missing",
            "a folder",
            "a FIFO",
            "a link to /dev/zero",
            "a link to itself",
            "a link to /dev/full",
            "unreadable",
        ]
    )
    if (
        way == "unreadable"
    ):  # a file that everybody may read, where the user is root: a broken link is refused to all
        path.unlink()
        path.symlink_to(path.with_name("nowhere"))
        return "a broken link"
    path.unlink()
    if way == "a folder":
        path.mkdir()
        (path / "x").write_text("x")
    elif way == "a FIFO":
        os.mkfifo(path)
    elif way == "a link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif way == "a link to /dev/full":
        path.symlink_to("/dev/full")
    elif way == "a link to itself":
        path.symlink_to(path.name)
    return way


def damage_lines(path: Path, rng: random.Random) -> str:
    """A line of a log changed, lost, doubled or moved."""
    lines = path.read_text("utf-8").splitlines()
    if not lines:
        return "nothing to change"
    i = rng.randrange(len(lines))
    way = rng.choice(["edit"] * 6 + ["one loss", "drop", "double", "swap", "no end"])
    if way == "edit":
        what, new = edit(json.loads(lines[i]), rng)
        lines[i] = to_text(new)
        way = f"line {i}, {what}"
    elif way == "one loss":
        data = json.loads(lines[i])
        if not data.get("losses"):
            return "nothing to change"
        data["losses"][0] = data["losses"][0][:1]
        lines[i], way = json.dumps(data), f"line {i} with one loss"
    elif way == "drop":
        del lines[i]
        way = f"line {i} dropped"
    elif way == "double":
        lines.insert(i, lines[i])
    elif way == "swap":
        lines[i - 1], lines[i] = lines[i], lines[i - 1]
    path.write_text(
        "\n".join(lines) + ("" if way == "no end" else "\n"), "utf-8", errors="surrogatepass"
    )
    return way


def damage_json(path: Path, rng: random.Random) -> str:
    """A value in a JSON file changed."""
    what, new = edit(json.loads(path.read_text("utf-8")), rng)
    path.write_text(to_text(new, 1), "utf-8", errors="surrogatepass")
    return what


def copy_of(folder: Path, to: Path) -> Path:
    """A copy of a folder."""
    shutil.copytree(folder, to, symlinks=True)
    return to
