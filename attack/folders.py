"""Damaged folders of finished and of interrupted studies.

They are read by `report`, and by `compare`, which goes on in them.
"""

from __future__ import annotations

import errno
import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.damage import (
    copy_of,
    damage_bytes,
    damage_file,
    damage_json,
    damage_lines,
    edit,
    to_text,
)
from attack.lab import Lab

COMPARE = ["compare", "study.yaml", "--out", "study"]


def numbers(folder: Path) -> dict[str, Any]:
    """What a study says that it found: all that may not change, for each finished run.

    The keys are the runs' folders.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*/seed*/result.json")):
        if not path.is_file():
            continue
        data = json.loads(path.read_text("utf-8"))
        if data.get("status") != "done":
            continue
        own = {
            key: data[key]
            for key in (
                "task",
                "strategy",
                "label",
                "seed",
                "options",
                "budget",
                "spent",
                "winner",
                "length",
                "dtype",
            )
        }
        for split, keys in {
            "search": ("loss", "loss_fp32"),
            "select": ("loss", "metric", "losses"),
            "test": ("loss", "metric", "losses", "correct", "predictions", "labels"),
        }.items():
            own |= {f"{split}.{key}": data[split].get(key) for key in keys}
        ledger = {
            key: data["ledger"][key]
            for key in ("budget", "forward", "backward", "proposer", "pool", "brought")
        }
        found[str(path.parent.relative_to(folder))] = own | {"ledger": ledger}
    path = folder / "study.json"
    if path.is_file():
        data = json.loads(path.read_text("utf-8"))
        found["study.json"] = {
            key: data.get(key) for key in ("budget", "score_on", "dtype", "max_seconds", "race")
        } | {
            name: [task.get(key) for key in ("metric", "splits", "choices", "majority", "template")]
            for name, task in data["tasks"].items()
        }
    return found


def differs(undisturbed: dict[str, Any]) -> Callable[[Path, Sequence[Ran]], str | None]:
    """Say where a study that ended well says something else than the undisturbed one."""

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[-1].code != 0:
            return None
        try:
            found = numbers(folder / "study")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"exit 0, though the folder cannot be read: {error!r}"[:200]
        for name, own in found.items():
            for key, value in own.items():
                right = undisturbed.get(name, {}).get(key)
                if value != right:
                    return (
                        f"exit 0 with {name}, {key} = {str(value)[:60]}, undisturbed "
                        f"{str(right)[:60]}"
                    )
        return None

    return judge


def _case(
    lab: Lab,
    row: str,
    source: Path,
    harm: Callable[[Path], str],
    commands: list[list[str]],
    **more: Any,
) -> Case:
    case = Case(row, "", commands, judge=differs(numbers(lab.finished / "study")), **more)

    def prepare(folder: Path) -> None:
        copy_of(source / "study", folder / "study")
        if (source / "cache").exists() and more.get("env") is None:
            copy_of(source / "cache", folder / "cache")
        (folder / "study.yaml").write_bytes((source / "study.yaml").read_bytes())
        case.what = harm(folder)

    case.prepare = prepare
    return case


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in (folder / "study").glob(pattern)
        if path.is_file() and ".leases" not in path.parts
    )


def _harm(
    rng: random.Random, pattern: str, way: Callable[[Path, random.Random], str]
) -> Callable[[Path], str]:
    def harm(folder: Path) -> str:
        path = rng.choice(_files(folder, pattern) or [folder / "study.yaml"])
        return f"{path.relative_to(folder)}: {way(path, rng)}"

    return harm


def _commands(rng: random.Random) -> list[list[str]]:
    return rng.choice([[["report", "study"]], [COMPARE]])


def results(rng: random.Random, lab: Lab) -> Case:
    """Values of result.json."""
    return _case(
        lab,
        "7 damaged files",
        lab.finished,
        _harm(rng, "d/*/seed0/result.json", damage_json),
        _commands(rng),
    )


def study_json(rng: random.Random, lab: Lab) -> Case:
    """Values of study.json."""
    return _case(
        lab, "7 damaged files", lab.finished, _harm(rng, "study.json", damage_json), _commands(rng)
    )


def logs(rng: random.Random, lab: Lab) -> Case:
    """Lines of logs of an interrupted study."""
    return _case(
        lab,
        "7 damaged files",
        rng.choice(lab.interrupted),
        _harm(rng, "d/*/seed0/*.jsonl", damage_lines),
        [COMPARE],
    )


def run_json(rng: random.Random, lab: Lab) -> Case:
    """Values of run.json and prompt.json of an interrupted study."""
    return _case(
        lab,
        "12 types and depth",
        rng.choice(lab.interrupted),
        _harm(rng, "d/*/seed0/**/*.json", damage_json),
        [COMPARE],
    )


def deep(rng: random.Random, lab: Lab) -> Case:
    """A JSON file that is 100,000 deep, as a whole or in one place."""
    from attack.damage import DEEP, Raw, paths

    def way(path: Path, rng: random.Random) -> str:
        lines = (
            path.read_text("utf-8").splitlines()
            if path.suffix == ".jsonl"
            else [path.read_text("utf-8")]
        )
        i = rng.randrange(len(lines))
        data = json.loads(lines[i])
        place = rng.choice(paths(data))
        if place:
            holder = data
            for step in place[:-1]:
                holder = holder[step]
            holder[place[-1]] = Raw(DEEP)
            lines[i] = to_text(data)
        else:
            lines[i] = DEEP
        path.write_text("\n".join(lines) + "\n")
        return f"line {i} deep at {'.'.join(map(str, place)) or 'the top'}"

    source = rng.choice([lab.finished, *lab.interrupted])
    return _case(lab, "12 types and depth", source, _harm(rng, "**/*.json*", way), _commands(rng))


def content(rng: random.Random, lab: Lab) -> Case:
    """Bytes of any file."""
    source = rng.choice([lab.finished, *lab.interrupted])
    commands = [COMPARE] if source != lab.finished else _commands(rng)
    return _case(
        lab, "11 damaged or unreadable", source, _harm(rng, "**/*", damage_bytes), commands
    )


def place(rng: random.Random, lab: Lab) -> Case:
    """Something else in the place of any file."""
    source = rng.choice([lab.finished, *lab.interrupted])
    return _case(lab, "10 every OSError", source, _harm(rng, "**/*", damage_file), _commands(rng))


def failing(rng: random.Random, lab: Lab) -> Case:
    """A disk that is full from some moment on, or rights that are not there.

    Afterwards, with room again, the numbers are the same.
    """
    number = rng.choice(
        [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.EDQUOT]
    )
    event = rng.choice(
        [
            "write",
            "fsync",
            "os.rename",
            "os.mkdir",
            "read",
            "os.truncate",
            "os.remove",
            "os.listdir",
        ]
    )
    trap = {"event": event, "at": rng.choice([1, 2, 3, 5, 9, 17, 40]), "errno": number}
    if event == "read":
        trap["name"] = rng.choice(
            [
                "result.json",
                "study.json",
                "evaluations",
                "state",
                "prompt.json",
                "run.json",
                "study.yaml",
            ]
        )
    source = rng.choice([lab.finished, *lab.interrupted, lab.interrupted[0]])
    what = f"{errno.errorcode[number]} at {event} number {trap['at']} {trap.get('name', '')}"
    first = rng.choice([COMPARE, COMPARE, ["report", "study"]])
    return _case(
        lab, "10 every OSError", source, lambda folder: what, [first, COMPARE], traps=[trap]
    )


def cache(rng: random.Random, lab: Lab) -> Case:
    """A score cache with other scores, other bytes, or no cache."""

    def harm(folder: Path) -> str:
        import shutil

        file = next((folder / "cache").glob("*.sqlite"))
        for name in ("-wal", "-shm"):
            file.with_name(file.name + name).unlink(missing_ok=True)
        shutil.rmtree(folder / "study")
        if rng.random() < 0.3:
            return f"cache: {damage_bytes(file, rng)}"
        what = ""
        with sqlite3.connect(file) as db:
            for name, text in db.execute("select name, content from scores").fetchall():
                data = json.loads(text)
                if not what or rng.random() < 0.3:
                    what, data = edit(data, rng)
                db.execute("update scores set content = ? where name = ?", (to_text(data), name))
        db.close()
        return f"cache: {what} and more"

    return _case(lab, "3 cache", _plain_cache(lab), harm, [COMPARE])


def _plain_cache(lab: Lab) -> Path:
    """The finished study, its cache written back into one file."""
    file = next((lab.finished / "cache").glob("*.sqlite"))
    db = sqlite3.connect(file)
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    return lab.finished


def strangers(rng: random.Random, lab: Lab) -> Case:
    """A folder that names a module, wherever a file of it may: reading it runs nothing."""
    import re

    def harm(folder: Path) -> str:
        told = []
        for path in _files(folder, "**/*.json*"):
            if path.suffix == ".jsonl":
                continue
            data = json.loads(path.read_text("utf-8"))
            text = json.dumps(data)
            for pattern in (
                r'("metric": )"[a-z_0-9]+"',
                r'("strategy": )"\w+"',
                r'("name": )"random"',
            ):
                if rng.random() < 0.8:
                    text = re.sub(pattern, r'\1"canary_of_attack:f"', text)
            if text != json.dumps(data):
                path.write_text(text)
                told.append(path.name)
        return f"canary_of_attack:f in {', '.join(sorted(set(told)))}"

    run = f"study/d/{rng.choice(['random', 'prompt_tuning'])}/seed0"
    commands: list[list[str]] = rng.choice(
        [
            [["report", "study"]],
            [["report", "study"]],
            [["verify", run]],
            [["export", run, "--to", "json", "--out", "new"]],
            [["apply", run]],
        ]
    )
    case = _case(
        lab,
        "1 strangers' results run nothing",
        lab.finished,
        harm,
        commands,
        stdin=b'{"text": "good film"}\n',
    )
    case.judge = lambda folder, ran: None
    return case


def parts(rng: random.Random, lab: Lab) -> Case:
    """Files that dead processes left: they are swept, or at least not in the way."""

    def harm(folder: Path) -> str:
        below = [path for path in (folder / "study").rglob("*") if path.is_dir()] + [
            folder / "study"
        ]
        for path in rng.sample(below, min(3, len(below))):
            (path / f".result.json.{rng.choice([1, 999999, 4194304])}.part").write_text("half")
        return "files of dead processes"

    case = _case(lab, "15 leftovers", rng.choice([lab.finished, *lab.interrupted]), harm, [COMPARE])
    same = case.judge

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        left = [
            path for path in (folder / "study").rglob(".*.part") if ".1.part" not in path.name
        ]  # process 1 lives
        return (
            f"{left[0].name} of a dead process is left"
            if left and ran[-1].code == 0
            else same(folder, ran)
        )

    case.judge = judge
    return case


MAKERS = (
    results,
    logs,
    study_json,
    failing,
    run_json,
    place,
    content,
    deep,
    cache,
    strangers,
    parts,
    results,
    logs,
    failing,
)
