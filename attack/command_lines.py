"""Hostile command lines: words, options and inputs of every command.

Places for output, and signals, too.
"""

from __future__ import annotations

import errno
import json
import random
import signal
from collections.abc import Sequence
from pathlib import Path

from attack.case import Case, Ran
from attack.damage import DEEP, RAW, copy_of, damage_file
from attack.exports import _numbers
from attack.lab import Lab
from attack.study_files import SCALARS, finite

STRANGE = (
    "",
    " ",
    "-",
    "--",
    "-x",
    "=",
    "a=b=c",
    "\x1b[31mx",
    "\x1b]0;owned\x07",
    "a\nb",
    "..",
    "/dev/zero",
    "/dev/stdin",
    "/etc/passwd",
    "a" * 5000,
    "a" * 300,
    "é" * 200,
    "\udcff\udcfe",
    "canary_of_attack:f",
    "nothing:f",
    "~",
    "*",
    "0",
    "-1",
    "1e9",
    "nan",
    "None",
    "{}",
    "[]",
    "\u202egnp",
)
COMMANDS = (
    "compare",
    "plan",
    "search",
    "report",
    "export",
    "verify",
    "strategies",
    "bench-strategies",
    "tasks",
    "apply",
    "schema",
    "version",
)


def _study(lab: Lab, row: str, what: str, commands: list[list[str]]) -> Case:
    def prepare(folder: Path) -> None:
        (folder / "study.yaml").write_text(json.dumps(lab.study()))

    return Case(row, what, commands, prepare, finite)


def words(rng: random.Random, lab: Lab) -> Case:
    """Words that no command expects, in its places and behind its options."""
    command = rng.choice(COMMANDS)
    options = [
        "--out",
        "--set",
        "--model",
        "--key",
        "--task",
        "--study",
        "--option",
        "--to",
        "--input",
        "--on",
        "--table",
        "--seeds",
        "--jobs",
    ]
    argv = [command]
    for _ in range(rng.choice([0, 1, 1, 2])):
        argv.append(rng.choice([*STRANGE, "study.yaml", "d.jsonl", "."]))
    for _ in range(rng.choice([0, 1, 2])):
        argv += [rng.choice([*options, "--quiet", "--nothing"]), rng.choice(STRANGE)]
    argv = [word.replace("\0", "") for word in argv]
    case = _study(lab, "13 command lines", repr(argv)[:150], [argv])
    case.trusted = "canary_of_attack:f" in argv and command in (
        "search",
        "strategies",
        "bench-strategies",
        "compare",
        "plan",
    )
    return case


def sets(rng: random.Random, lab: Lab) -> Case:
    """`--set` with keys and values that are none, deep or without bound."""
    keys = [
        "budget",
        "length",
        "seeds",
        "model",
        "strategies",
        "strategies.0",
        "strategies.-1",
        "strategies.9" * 50,
        "task.template",
        "a" + ".b" * 5000,
    ]
    keys += [
        "task.splits.search",
        "task.answers.0",
        "",
        ".",
        "..",
        "\x1b[31m",
        "memory",
        "pool",
        "race",
        "dtype",
        "device",
        "strategies.1.random.batch",
        "٣",
    ]
    values = [
        *SCALARS,
        *RAW.values(),
        "10" * 15,
        "1000000",
        "[" * 3000,
        "{a: " * 1000,
        "10000000000000000000000000000000",
    ]
    assignment = f"{rng.choice(keys)}={rng.choice(values)}"[:100_000]
    command = rng.choice(
        [
            ["compare", "study.yaml", "--out", "out"],
            ["plan", "study.yaml"],
            ["search", "random", "--study", "study.yaml", "--out", "out"],
        ]
    )
    return _study(
        lab,
        "13 command lines",
        f"{command[0]} --set {assignment[:80]!r}",
        [[*command, "--set", assignment]],
    )


def options(rng: random.Random, lab: Lab) -> Case:
    """`--option` and numbers of the benches without bound."""
    value = rng.choice(
        [*SCALARS, *(RAW[name] for name in sorted(RAW)), "10" * 15, "-5", "[1, 2]", "{a: 1}"]
    )
    key = rng.choice(
        [
            "batch",
            "length",
            "label",
            "budget",
            "seed",
            "nothing",
            "start",
            "",
            "\x1b[31m",
            "batch.x",
        ]
    )
    argv = [
        "search",
        "random",
        "--study",
        "study.yaml",
        "--out",
        "out",
        "-o",
        f"{key}={value}"[:100_000],
    ]
    if rng.random() < 0.4:
        number = rng.choice(["10" * 15, "0", "-1", "1e3", "x", "1000000000", ""])
        option = rng.choice(["--seeds", "--pool", "--length", "--evaluations", "--jobs"])
        argv = [
            "bench-strategies",
            "random",
            "--on",
            rng.choice(["separable", "pairwise", "nothing"]),
            option,
            number,
            "--seeds",
            "1",
            "--evaluations",
            "5",
        ]
        if option in ("--seeds", "--evaluations"):
            argv = [*argv[:4], option, number]
    return _study(lab, "13 command lines", repr(argv)[:150], [argv])


def outs(rng: random.Random, lab: Lab) -> Case:
    """Places for output that are files, devices, pipes, links, or names that no disk takes."""
    import os

    out = rng.choice(
        [
            "out",
            "a/b/c",
            "/proc/x",
            "/dev/null",
            "/dev/full",
            "/sys/x",
            "a" * 300,
            "é" * 200,
            "out\n",
            "/" + "x/" * 2500,
            "d.jsonl",
            "d.jsonl/x",
            "",
        ]
    )
    way = rng.choice(
        [
            "nothing",
            "a file",
            "a FIFO",
            "a link to nowhere",
            "a link to itself",
            "a full folder",
            "a file named study.json",
        ]
    )
    command = rng.choice(
        [
            ["compare", "study.yaml", "--out", out],
            ["export", "run", "--to", "json", "--out", out],
            [
                "bench-strategies",
                "random",
                "--on",
                "separable",
                "--seeds",
                "1",
                "--evaluations",
                "5",
                "--out",
                out,
            ],
        ]
    )
    case = _study(lab, "10 every OSError", f"{command[0]} --out {out[:40]!r}, {way}", [command])
    prepare = case.prepare

    def prepared(folder: Path) -> None:
        prepare(folder)
        copy_of(lab.finished / "study/d/random/seed0", folder / "run")
        if way == "a file":
            (folder / "out").write_text("mine")
        elif way == "a FIFO":
            os.mkfifo(folder / "out")
        elif way == "a link to nowhere":
            (folder / "out").symlink_to("nowhere/x")
        elif way == "a link to itself":
            (folder / "out").symlink_to("out")
        elif way == "a full folder":
            (folder / "out/d/random/seed0").mkdir(parents=True)
            (folder / "out/d/random/seed0/evaluations.jsonl").write_text("mine")
        elif way == "a file named study.json":
            (folder / "out").mkdir()
            (folder / "out/study.json").write_text("mine")

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        file = folder / "out"
        if way == "a file" and out == "out" and (not file.is_file() or file.read_text() != "mine"):
            return "a file of the user's was written over"
        return finite(folder, ran)

    case.prepare, case.judge = prepared, judge
    return case


def inputs(rng: random.Random, lab: Lab) -> Case:
    """Inputs of `apply`: lines, values and encodings."""
    row = rng.choice(
        [
            *('{"text": ' + raw + "}" for raw in RAW.values()),
            '{"text": null}',
            '{"text": 3}',
            '{"text": [1]}',
            '{"text": {"a": 1}}',
            '{"text": true}',
            '{"text": ""}',
            '{"text": "a", "text": "b"}',
            '{"other": 1}',
            "[]",
            "3",
            "null",
            "{",
            "",
            DEEP,
            '{"text": "' + "good " * 5000 + '"}',
            '{"text": "a", "answer": "x", "prompt": 3}',
            '{"text": "a", "x": ' + DEEP + "}",
            '{"text": "a", "\\u001b[31m": "x"}',
            '{"text": "\\u001b[31m"}',
        ]
    )
    text = ("\n".join(['{"text": "good"}', row, '{"text": "bad"}']) + "\n").encode(
        "utf-8", "surrogatepass"
    )
    text = rng.choice(
        [
            text,
            text,
            b"\xef\xbb\xbf" + text,
            text.decode("utf-8", "replace").encode("utf-16"),
            text.replace(b"\n", b"\r\n"),
            text[:-1],
            text + b"\xff",
        ]
    )
    argv = rng.choice(
        [
            ["apply", "run"],
            ["apply", "run", "--input", "in.jsonl"],
            ["apply", "a=run", "b=run"],
            ["apply", "run", "--input", "nothing.jsonl"],
        ]
    )
    case = Case(
        "4 inputs of apply",
        f"{' '.join(argv)}: {row[:60]!r} {text[:3]!r}",
        [argv],
        judge=_numbers,
        stdin=text,
    )

    def prepare(folder: Path) -> None:
        copy_of(
            lab.finished / "study/d" / rng.choice(["random", "prompt_tuning"]) / "seed0",
            folder / "run",
        )
        (folder / "in.jsonl").write_bytes(text)
        if rng.random() < 0.1:
            case.what += f" in {damage_file(folder / 'in.jsonl', rng)}"

    case.prepare = prepare
    return case


def full(rng: random.Random, lab: Lab) -> Case:
    """Commands on disks that are full or may not be written, and without room for the cache."""
    number = rng.choice([errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EIO])
    event = rng.choice(["write", "fsync", "os.rename", "os.mkdir", "read", "os.listdir"])
    command = rng.choice(
        [
            ["compare", "study.yaml", "--out", "out"],
            ["plan", "study.yaml"],
            ["export", "run", "--to", "peft", "--out", "out"],
            ["verify", "run"],
            ["apply", "run", "--input", "d.jsonl"],
            [
                "bench-strategies",
                "random",
                "--on",
                "separable",
                "--seeds",
                "1",
                "--evaluations",
                "5",
                "--out",
                "out",
            ],
        ]
    )
    case = _study(
        lab, "10 every OSError", f"{command[0]}, {errno.errorcode[number]} at {event}", [command]
    )
    prepare = case.prepare

    def prepared(folder: Path) -> None:
        prepare(folder)
        copy_of(lab.finished / "study/d/random/seed0", folder / "run")

    case.prepare = prepared
    case.traps = [{"event": event, "at": rng.choice([1, 1, 2, 4, 8]), "errno": number}]
    return case


def signals(rng: random.Random, lab: Lab) -> Case:
    """Signals, once and twice: the same quiet end, and the rest is done by the next call.

    The exit code is 128 plus the signal's number.
    """
    number = rng.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    begin = rng.choice([0.02, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2])
    times = rng.choice([[begin], [begin], [begin, begin + 0.01], [begin, begin + 0.15]])
    command = rng.choice(
        [
            ["compare", "study.yaml", "--out", "out"],
            ["compare", "study.yaml", "--out", "out"],
            ["plan", "study.yaml"],
        ]
    )
    case = _study(
        lab,
        "15 signals",
        f"{signal.Signals(number).name} at {times}, {command[0]}",
        [command, ["compare", "study.yaml", "--out", "out"]],
    )

    def prepare(folder: Path) -> None:
        (folder / "study.yaml").write_text(
            json.dumps(
                lab.study(
                    budget=6000, strategies=[{"random": {"batch": 4}}, "prompt_tuning", "optuna"]
                )
            )
        )

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[0].code not in (0, 128 + number):
            return f"exit {ran[0].code} for {signal.Signals(number).name}: expected {128 + number}"
        return finite(folder, ran)

    case.prepare, case.judge = prepare, judge
    case.signals = [(at, int(number)) for at in times]
    return case


MAKERS = (words, sets, options, outs, inputs, full, signals, words)
