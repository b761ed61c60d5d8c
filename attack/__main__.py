"""`python -m attack`: every kind of input, what came of each, and the table of all tries so far."""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from attack import counts
from attack.case import Case
from attack.lab import Host, Lab

ROOT = Path(__file__).parents[1]
#: Kind -> how many inputs make a whole attack; each is a module of this package.
KINDS = {
    "study_files": 720,
    "protocols": 480,
    "harness": 120,
    "command_lines": 320,
    "data": 240,
    "models": 84,
    "strategies": 100,
    "folders": 320,
    "exports": 320,
    "servers": 320,
    "kills": 68,  # chains, of three kills each
}


def main() -> None:
    """Attack with what is named, or all; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m attack", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=KINDS,
        metavar="KIND",
        help=f"of {', '.join(KINDS)}; left out: all",
    )
    parser.add_argument("--count", type=int, help="inputs of each kind; left out: a whole attack")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs")
    parser.add_argument(
        "--input",
        type=int,
        metavar="N",
        help="run this input of the kind alone, and show all that it says",
    )
    parser.add_argument(
        "--against",
        type=Path,
        default=ROOT,
        help="another checkout to attack, with its own .venv or ours",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument(
        "--lab", type=Path, help="a folder to keep what attacks start from, for the next time"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the folder of the counts, such as results/reliability; left out: none are kept",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attack-") as aside:
        lab = Lab((given.lab or Path(aside) / "lab").resolve(), given.against.resolve())
        if given.input is not None:
            _show(lab, given.only[0], given.seed, given.input)
            return
        faults = 0
        for kind in given.only or KINDS:
            number = given.count or KINDS[kind]
            begin = time.monotonic()
            found = run(lab, kind, number, given.seed, given.jobs)
            known = counts.counted(
                kind, found, given.seed, round(time.monotonic() - begin), given.against.resolve()
            )
            faults += counts.show(kind, known)
            if given.out:
                counts.keep(given.out, kind, known)
    sys.exit(1 if faults else 0)


def make(lab: Lab, kind: str, seed: int, number: int) -> Case:
    """An input of a kind: the same for the same seed and number."""
    module, rng = (
        importlib.import_module(f"attack.{kind}"),
        random.Random(f"{kind} {seed} {number}"),
    )
    case: Case = (
        module.killed(rng, lab, number)
        if kind == "kills"
        else module.MAKERS[number % len(module.MAKERS)](rng, lab)
    )
    return case


def run(lab: Lab, kind: str, number: int, seed: int, jobs: int) -> list[dict[str, Any]]:
    """Attack with the first inputs of a kind: what came of each, in order."""
    free: SimpleQueue[Host] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(jobs):
            free.put(stack.enter_context(lab.host()))
        if kind in ("folders", "exports", "command_lines"):  # made before there are threads
            _ = lab.finished, lab.interrupted, lab.exports
        elif kind == "kills":
            kills = importlib.import_module("attack.kills")
            _ = [kills.undisturbed(lab, i) for i in range(min(number, len(kills.ROWS)))]
        elif kind == "strategies":
            _ = importlib.import_module("attack.strategies").undisturbed(lab)
        elif kind == "servers":
            _ = [
                importlib.import_module("attack.servers").undisturbed(lab, chat)
                for chat in (False, True)
            ]

        def one(i: int) -> dict[str, Any]:
            host = free.get()
            try:
                case = make(lab, kind, seed, i)
                came, line, ran = host.attack(case, lab.folder / "cases" / f"{kind}-{i}")
            finally:
                free.put(host)
            seconds = sum(each.seconds for each in ran)
            found = {
                "input": i,
                "row": case.row,
                "what": case.what,
                "outcome": came,
                "line": line,
                "seconds": round(seconds, 2),
            }
            if came != "clear":
                print(f"{kind} {i} [{case.row}] {case.what[:100]!r}: {came}: {line}", flush=True)
            counts.clear(lab.folder / "cases" / f"{kind}-{i}")
            return found

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, range(number)))


def _show(lab: Lab, kind: str, seed: int, number: int) -> None:
    """Run one input, and show all that it says."""
    case = make(lab, kind, seed, number)
    folder = Path(tempfile.mkdtemp(prefix=f"attack-{kind}-{number}-"))
    with lab.host() as host:
        came, line, ran = host.attack(case, folder)
    print(f"{kind} {number} [{case.row}] {case.what}\nfolder: {folder}")
    for each in ran:
        print(
            f"$ promptsearch {' '.join(each.argv)[:2000]}\n"
            f"{each.out}{each.err}exit {each.code}, {each.seconds} s"
        )
    print(f"{came}: {line}")


if __name__ == "__main__":
    main()
