"""Hostile study files, read by `compare` and `plan`.

Each is refused in a moment, or runs, and then every number that it says is a number.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.damage import DEEP, PLAIN, Raw, damage_bytes, damage_file, edit, hostile, paths, to_text
from attack.lab import Lab

COMPARE = ["compare", "study.yaml", "--out", "out"]


def finite(folder: Path, ran: Sequence[Ran]) -> str | None:
    """A study that ended well says numbers, and losses are not below 0.

    A metric that failed has no value; the command names it. Where the loss selects among texts,
    none are generated but on the test split, and there is no metric either.
    """
    if ran[-1].code != 0:
        return None
    for path in sorted((folder / "out").glob("*/*/seed*/result.json")):
        data = json.loads(path.read_text("utf-8"))
        if data["status"] == "done":
            for split in ("search", "select", "test"):
                for name in ("loss", "metric"):
                    value = data[split].get(name, 0.0)
                    unwritten = split != "test" and data[split].get("outputs") is None
                    failed = "failed" in ran[-1].said
                    if name == "metric" and value is None and (failed or unwritten):
                        continue
                    if (
                        not isinstance(value, (int, float))
                        or not math.isfinite(value)
                        or (name == "loss" and value < 0)
                    ):
                        return (
                            f"exit 0 with {split}.{name} = {value!r} in "
                            f"{path.parent.relative_to(folder)}"
                        )
            if data["spent"] > data["budget"]:
                return (
                    f"exit 0 with {data['spent']} of {data['budget']} tokens spent in "
                    f"{path.parent.relative_to(folder)}"
                )
    return None


def _case(
    row: str,
    what: str,
    text: str | bytes,
    commands: list[list[str]] | None = None,
    name: str = "study.yaml",
) -> Case:
    def prepare(folder: Path) -> None:
        (folder / name).write_bytes(
            text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        )

    return Case(row, what, commands or [[*COMPARE[:1], name, *COMPARE[2:]]], prepare, finite)


def _full(lab: Lab) -> dict[str, Any]:
    """A study with every key that a file may have."""
    return lab.study(
        task={**lab.study()["task"], "name": "d", "metric": "accuracy"},
        name="s",
        pool={"words": 50},
        race=False,
        seeds=[0],
        device="cpu",
        memory="1GB",
        max_seconds=20.0,
        proposer={"model": str(lab.folder / "llama"), "chat": False},
        strategies=[
            {"manual": {"label": "hand", "prompts": ["The"]}},
            {"random": {"label": "luck", "batch": 4, "length": 2, "budget": 1500}},
            {"optuna": {"batch": 4, "sampler": "tpe"}},
            {"prompt_tuning": {"lr": 0.1, "batch": 4}},
        ],
    )


def edited(rng: random.Random, lab: Lab) -> Case:
    """One value replaced, left out, or beside an unknown key."""
    what, data = edit(_full(lab), rng)
    return _case("13 study files", what, to_text(data))


def edited_twice(rng: random.Random, lab: Lab) -> Case:
    """Two values of a plain study changed."""
    first, data = edit(lab.study(), rng)
    second, data = (
        edit(data, rng) if not any(isinstance(x, Raw) for x in _values(data)) else ("", data)
    )
    return _case("13 study files", f"{first}; {second}", to_text(data))


def _values(data: Any) -> list[Any]:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    return [data, *(value for one in inner for value in _values(one))]


SCALARS = (
    *(
        "6_",
        "1__0",
        "_1",
        "-_",
        "+",
        "0x1F",
        "0o17",
        "1e3_0",
        "1_0.5e",
        ".",
        "-.",
        "1.e",
        "-.inf",
        ".nan",
        "1:30",
        "=",
        "<<",
        "~",
        "!!",
        "!",
    ),
    *(
        "!!int abc",
        "!!int ''",
        "!!bool maybe",
        "!!timestamp x",
        "!!timestamp 2024-99-99",
        "!!float x",
        "!!binary '###'",
        "!!set {a}",
    ),
    *(
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!null x",
        "!!str [a]",
        "!!map x",
        "!!seq x",
        "!!python/object/apply:os.system [x]",
    ),
    *(
        "!<tag:yaml.org,2002:int> x",
        "!canary_of_attack 1",
        "!!python/name:canary_of_attack.f",
        "9" * 5000,
        "-" + "9" * 5000,
    ),
    *(
        "1e99999",
        "'\\x1b[31m'",
        '"\\x1b[31m"',
        '"\\ud83d"',
        '"\\0"',
        "&a *a",
        "*nowhere",
        "? x",
        "{? [a]: b}",
        "|\n  x\n y",
        '"' + "a" * 100_000 + '"',
    ),
)


def scalars(rng: random.Random, lab: Lab) -> Case:
    """Values that YAML reads in a way of its own, anywhere."""
    data = _full(lab) if rng.random() < 0.5 else lab.study()
    place = rng.choice(paths(data)[1:])
    holder = data
    for step in place[:-1]:
        holder = holder[step]
    scalar = rng.choice(SCALARS)
    holder[place[-1]] = Raw(f" {scalar} ")
    return _case("13 YAML's values", f"{'.'.join(map(str, place))}: {scalar[:60]}", to_text(data))


def numbers(rng: random.Random, lab: Lab) -> Case:
    """Numbers without bound, wherever a number may stand."""
    data = _full(lab)
    for row in (
        {"black_box_tuning": {"population": 4}},
        {"genetic": {"population": 4}},
        {"evolution": {}},
        {"beam": {"width": 2}},
        {"bdpl": {"batch": 4}},
        {"gcg": {"batch": 4}},
        {"lora": {"rank": 2}},
    ):
        data["strategies"].append(row)
    where = rng.choice(
        [
            p
            for p in paths(data)[1:]
            if isinstance(_at(data, p), (int, float)) and not isinstance(_at(data, p), bool)
        ]
        + [("seeds",), ("length",), ("memory",), ("pool",)]
    )
    number = rng.choice(
        [
            10**30,
            10**9,
            1_000_000,
            10**15,
            2**63,
            2**64,
            -(2**63),
            0,
            -1,
            1e-300,
            1e300,
            0.5,
            10**400,
            50_000,
        ]
    )
    holder = _at(data, where[:-1])
    holder[where[-1]] = Raw(str(number) if number != 10**400 else "1" + "0" * 400)
    if where[0] == "strategies":
        data["strategies"] = [data["strategies"][where[1]]]  # type: ignore[call-overload]
    command = ["plan", "study.yaml"] if rng.random() < 0.3 else COMPARE
    return _case(
        "13 numbers without bound",
        f"{'.'.join(map(str, where))} = {str(number)[:32]} ({command[0]})",
        to_text(data),
        [command],
    )


def _at(data: Any, path: Sequence[Any]) -> Any:
    for step in path:
        data = data[step]
    return data


def bombs(rng: random.Random, lab: Lab) -> Case:
    """Aliases within aliases, nesting, long files."""
    plain = to_text(lab.study(), 1)
    kind = rng.choice(
        [
            "aliases",
            "alias keys",
            "nested",
            "nested flow",
            "many keys",
            "long line",
            "merge",
            "many strategies",
            "wide aliases",
        ]
    )
    depth = rng.choice([9, 20, 30, 60])
    if kind == "aliases":
        lines = [
            "a0: &a0 [x, x, x, x, x, x, x, x, x]",
            *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)),
        ]
        text = "\n".join([*lines, ""]) + "model: x\nbudget: 1\n" + f"strategies: *a{depth - 1}\n"
    elif kind == "wide aliases":
        size = rng.choice([2000, 5000])
        wide = [
            ", ".join([name] * count) for name, count in (("x", size), ("*a", size), ("*b", 500))
        ]
        text = "a: &a [{}]\nb: &b [{}]\nstrategies: [{}]\nmodel: x\n".format(*wide)
    elif kind == "alias keys":
        text = "a: &a {k: 1}\n? *a\n: 1\n"
    elif kind == "nested":
        text = "model:\n" + "".join(f"{' ' * i}-\n" for i in range(1, 50 * depth))
    elif kind == "nested flow":
        text = (
            "model: " + DEEP[: 1000 * depth]
            if rng.random() < 0.5
            else "model: " + "{a: " * (500 * depth)
        )
    elif kind == "many keys":
        text = plain[:-1] + "," + ",".join(f'"k{i}": {i}' for i in range(20_000)) + "}"
    elif kind == "long line":
        text = f"model: {'x' * 5_000_000}\n"
    elif kind == "merge":
        text = "a: &a {budget: 1}\n<<: *a\nmodel: x\n"
    else:
        text = to_text(
            lab.study(budget=0, strategies=[{"random": {"label": f"r{i}"}} for i in range(20_000)])
        )
    return _case("13 aliases and nesting", f"{kind}, {depth}", text)


TEMPLATES = (
    *(
        "{prompt:999999999999999999999} {text}{answer}",
        "{prompt:5000} {text} {answer}",
        "{prompt:0}{text}{answer}",
        "{prompt:-1}{text}{answer}",
    ),
    *(
        "{prompt" * 2000,
        "{prompt}" * 5000 + "{text}{answer}",
        "{text}" * 5000 + "{prompt}{answer}",
        "{",
        "}",
        "{}",
        "{answer}{prompt}",
        "{{}}",
    ),
    *(
        "{prompt} {text!r} {answer}",
        "{prompt} {text.__class__} {answer}",
        "{prompt} {text[0]} {answer}",
        "{prompt:>9} {text:>99999999} {answer}",
    ),
    *(
        "{prompt} {text} {answer} {answer}",
        "",
        " ",
        "\x1b[31m{prompt} {text}{answer}",
        "{prompt}\ud83d{text}{answer}",
        "{prompt} {\x1b[2J} {answer}",
    ),
    *(
        "{prompt}{prompt:3}{text}{answer}",
        "{prompt:{text}}{answer}",
        "{prompt:1e9}{text}{answer}",
        "{prompt:٣}{text}{answer}",
        "{prompt:3_}{text}{answer}",
    ),
    *(
        "a" * 1_000_000 + "{prompt}{text}{answer}",
        "{prompt: 3 }{text}{answer}",
        "{prompt:+3}{text}{answer}",
        "{prompt}{text:{text:{text}}}{answer}",
    ),
)


def templates(rng: random.Random, lab: Lab) -> Case:
    """Templates with slots without end, fields of formats or half braces.

    Also messages of strange shapes.
    """
    data = lab.study()
    given: Any = rng.choice(TEMPLATES)
    if rng.random() < 0.3:
        given = rng.choice(
            [
                [{"user": given}],
                [{"user": "{prompt} {text}"}, {"assistant": given}],
                [{given: "x"}],
                [[given]],
                [{}],
                [None],
                [{"user": "{prompt} {text}"}] * 5000,
                {"user": given},
                [{"user": "{prompt}"}, {"tool": "{text}"}],
                [{"user": None}],
            ]
        )
    data["task"]["template"] = given
    return _case("13 templates", repr(given)[:80], to_text(data))


METRICS = {
    "raises": "def f(a, b):\n    raise ValueError('\\x1b[31mno\\x1b[0m')\n",
    "exits": "import sys\ndef f(a, b):\n    sys.exit(3)\n",
    "exits at import": "import sys\nsys.exit(3)\n",
    "nan": "def f(a, b):\n    return float('nan')\n",
    "infinite": "def f(a, b):\n    return float('inf')\n",
    "text": "def f(a, b):\n    return 'good'\n",
    "none": "def f(a, b):\n    return None\n",
    "list": "def f(a, b):\n    return [1.0]\n",
    "array": "import numpy\ndef f(a, b):\n    return numpy.array([0.5, 0.5])\n",
    "tensor": "import torch\ndef f(a, b):\n    return torch.tensor(0.5)\n",
    "complex": "def f(a, b):\n    return 1j\n",
    "bool": "def f(a, b):\n    return True\n",
    "huge": "def f(a, b):\n    return 10**400\n",
    "one argument": "def f(a):\n    return 1.0\n",
    "no function": "f = 3\n",
    "class": "class f:\n    pass\n",
    "syntax": "def f(:\n",
    "recursion": "def f(a, b):\n    return f(a, b)\n",
    "keyboard": "def f(a, b):\n    raise KeyboardInterrupt\n",
    "base": "class E(BaseException):\n    pass\ndef f(a, b):\n    raise E('x')\n",
    "sometimes": (
        "n = [0]\ndef f(a, b):\n    n[0] += 1\n    if n[0] > 2: raise ZeroDivisionError('late')\n"
        "    return 0.5\n"
    ),
    "changes": "def f(a, b):\n    b[:] = a\n    return 1.0\n",
    "import error": "import nothing_of_this_name\n",
    "surrogate": "def f(a, b):\n    raise ValueError('\\ud83d')\n",
}


def metrics(rng: random.Random, lab: Lab) -> Case:
    """Metrics that raise, return something else, end the program."""
    name = rng.choice(sorted(METRICS))
    data = lab.study()
    data["task"]["metric"] = (
        "mine_of_attack:f"
        if rng.random() < 0.9
        else rng.choice(["nothing:f", "os:system", ":", "a:", ":b", "json:loads"])
    )
    case = _case("13 metrics", f"{name}: {data['task']['metric']}", to_text(data))
    prepare = case.prepare

    def prepared(folder: Path) -> None:
        prepare(folder)
        (folder / "mine_of_attack.py").write_text(METRICS[name])

    case.prepare = prepared
    return case


STRATEGIES = (
    "adapter autoprompt bayesian bdpl beam black_box_tuning coordinate distil evolution exemplars "
    "exhaustive fine_tuning gcg genetic grips llama_adapter llm_evolution llm_proposed lora "
    "manual nearest_tokens optuna p_tuning pez prefix_tuning prompt_tuning prune random reflect "
    "rlprompt"
)
OPTIONS = (
    "batch lr steps population width method sampler prompts init rank temperature keep examples "
    "seed label length budget start trials candidates sigma optimizer schedule layers gate table "
    "dimension topk retries"
)


def options(rng: random.Random, lab: Lab) -> Case:
    """Options of every strategy with values that they do not take."""
    own = {}
    for key in rng.sample(OPTIONS.split(), rng.choice([1, 1, 2])):
        _, own[key] = hostile(rng)
    name = rng.choice(STRATEGIES.split())
    return _case(
        "13 options",
        f"{name}: {str(own)[:90]}",
        to_text(lab.study(strategies=[{name: own}, "manual" if name != "manual" else "random"])),
    )


def names(rng: random.Random, lab: Lab) -> Case:
    """Names of strategies, tasks, models, keys: paths, escapes, modules, very long."""
    name = rng.choice(
        [
            "\x1b]0;owned\x07",
            "../../../tmp/x",
            "/etc/passwd",
            "a" * 300,
            "a" * 100_000,
            "con\x00trol",
            "\ud83d",
            "nothing:f",
            "canary:",
            ":",
            "\x9b31m",
            "\u202egnp",
            "canary_of_attack:nothing",
            "os:getcwd",
            "canary_of_attack:f",
            ".",
            "..",
            "~",
            "-",
            "",
            " ",
            "é" * 200,
        ]
    )
    data = lab.study()
    where = rng.choice(
        [
            "model",
            "strategy",
            "label",
            "task",
            "task name",
            "key",
            "study name",
            "answer",
            "field",
            "data",
            "pool",
            "start",
            "device",
        ]
    )
    if where in ("model", "task", "pool", "device"):
        data[where] = name
    elif where == "strategy":
        data["strategies"] = [name, {name: {}}]
    elif where == "label":
        data["strategies"][1]["random"]["label"] = name
    elif where == "task name":
        data["task"]["name"] = name
    elif where == "key":
        data[name] = 1
    elif where == "study name":
        data["name"] = name
    elif where == "answer":
        data["task"]["answers"] = {"0": name, "1": "good"}
    elif where == "field":
        data["task"]["label"] = name
    elif where == "data":
        data["task"]["data"] = rng.choice(
            [{"path": name}, {"hub": name}, {"path": name + ".csv"}, {"path": name + ".parquet"}]
        )
    elif where == "start":
        data["strategies"].append({"prompt_tuning": {"start": {"run": name}}})
    case = _case("15 names and escapes", f"{where}: {name[:40]!r}", to_text(data))
    case.trusted = "canary_of_attack" in name  # the user's own file may name modules
    return case


def bytes_of(rng: random.Random, lab: Lab) -> Case:
    """Bytes that are no study file, under every ending."""
    name = rng.choice(["study.yaml", "study.yml", "study.json", "study.toml", "study.txt"])
    case = _case("13 study files", name, to_text(lab.study(), 1), name=name)
    prepare = case.prepare

    def prepared(folder: Path) -> None:
        prepare(folder)
        case.what = (
            f"{name}: {(damage_file if rng.random() < 0.3 else damage_bytes)(folder / name, rng)}"
        )

    case.prepare = prepared
    return case


def toml(rng: random.Random, lab: Lab) -> Case:
    """TOML with values that YAML does not have, and deep ones."""
    value = rng.choice(
        [
            "1979-05-27",
            "07:32:00",
            "1979-05-27T07:32:00Z",
            "inf",
            "nan",
            "[[]]",
            "{a = 1}",
            "'\\u001b'",
            '"\\u001b[31m"',
            "[" * 5000 + "]" * 5000,
            "{a = " * 3000 + "1" + "}" * 3000,
            "9" * 5000,
            "1e400",
            "0x" + "f" * 400,
            '"""x"""',
            "true",
        ]
    )
    key = rng.choice(
        [
            "budget",
            "model",
            "length",
            "strategies",
            "task",
            "seeds",
            "name",
            "unknown",
            '"\\u001b[31m"',
            "a.b.c",
        ]
    )
    head = {
        "budget": "1500",
        "model": json.dumps(str(lab.folder / "llama")),
        "strategies": '["random"]',
        "task": '"capitals"',
    } | {key: value}
    return _case(
        "13 study files",
        f"TOML {key} = {value[:40]}",
        "\n".join(f"{k} = {v}" for k, v in head.items()),
        name="study.toml",
    )


def data_keys(rng: random.Random, lab: Lab) -> Case:
    """The task's own keys: answers, splits, aliases, data."""
    data = lab.study()
    key = rng.choice(["answers", "splits", "aliases", "data", "label", "metric"])
    value = rng.choice(
        [
            *PLAIN,
            {"0": "bad", "1": "bad"},
            {"0": "", "1": " "},
            {"0": "bad", "1": " bad"},
            {"0": None},
            {"search": 10**9},
            {"x": 1},
            {"search": 8, "select": 0, "test": -1},
            {"path": "/dev/zero"},
            {"path": "/dev/stdin"},
            {"path": "."},
            {"path": "../" * 500},
            {"path": "d.jsonl", "hub": "x"},
            {"path": ["d.jsonl"]},
            {"bad": ["x"]},
            {"hub": "../x"},
            {str(i): str(i) for i in range(5000)},
        ]
    )
    data["task"][key] = value
    return _case("13 study files", f"task.{key} = {str(value)[:60]}", to_text(data))


MAKERS = (
    edited,
    numbers,
    scalars,
    options,
    bombs,
    templates,
    metrics,
    names,
    edited_twice,
    bytes_of,
    toml,
    data_keys,
)
