"""One input of an attack, what came of it, and what that is called."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What may come of an input, the worst first; all but the last are faults.
OUTCOMES = (
    "code run",
    "secret",
    "traceback",
    "hang",
    "died",
    "contradiction",
    "escape",
    "silent",
    "clear",
)
#: A module of this name lies in every case's folder, and writes the file when it is imported.
CANARY, SUNG = "canary_of_attack", "CANARY_SANG"
#: Control characters that a terminal obeys; line ends and tabs are not among them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass
class Ran:
    """What a command did.

    Args:
        argv: Its words.
        code: Its exit code; below 0 for a signal that ended it.
        hang: Whether it was ended because it did not get on.
        out: What it wrote to standard output.
        err: To standard error.
        seconds: On the clock.
    """

    argv: list[str]
    code: int
    hang: bool
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self.out + self.err


Judge = Callable[[Path, Sequence[Ran]], str | None]


@dataclass
class Case:
    """An input.

    Args:
        row: The fault of `reliability.md` or the kind that it belongs to.
        what: It in a few words.
        commands: Run one after the other, each a list of words.
        prepare: Fills the folder.
        judge: Says what is contradictory about what came; None where nothing is.
        env: Of the commands.
        stdin: Given to them.
        traps: See `host.py`; of the first command.
        signals: To send to the first command: seconds after its start, number.
        secrets: Texts that nobody may see again.
        each: Instead of `traps` and `signals`, those of each command in turn, which it may die of.
        trusted: Whether the commands may run the canary.
        close: Ends what was started for it.
    """

    row: str
    what: str
    commands: list[list[str]]
    prepare: Callable[[Path], None] = lambda folder: None
    judge: Judge = lambda folder, ran: None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    traps: Sequence[Mapping[str, Any]] = ()
    signals: Sequence[tuple[float, int]] = ()
    each: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[tuple[float, int]]]] = ()
    secrets: Sequence[str] = ()
    trusted: bool = False
    close: Callable[[], None] = lambda: None


def outcome(case: Case, folder: Path, ran: Sequence[Ran]) -> tuple[str, str]:
    """What came of a case: one of `OUTCOMES`, and the line that shows it."""
    said = "".join(each.said for each in ran)
    if (folder / SUNG).exists() and not case.trusted:
        return "code run", "a module that a file names was imported"
    if case.secrets and (seen := _told(case.secrets, said, folder)):
        return "secret", seen
    for each in ran:
        if "Traceback (most recent call last)" in each.said:
            return "traceback", _last_line(each.said)
    for each in ran:
        if each.hang:
            return "hang", f"after: {_last_line(each.said)}"
        if each.code < 0 and not case.each:
            return "died", f"by signal {-each.code}, after: {_last_line(each.said)}"
    if wrong := case.judge(folder, ran):
        return "contradiction", wrong
    if found := _CONTROL.search(said):
        line = (
            next(line for line in said.splitlines() if _CONTROL.search(line))
            if found[0] not in "\x1c\x1d\x1e\x85"
            else said
        )
        return "escape", repr(line[:160])
    for each in ran:
        if each.code not in (0, 1, 2, 129, 130, 143) and not (case.each and each.code == -9):
            return "silent", f"exit code {each.code}"
        twice = len(case.signals) > 1 and each.code > 128  # the second one ends it without a word
        if each.code and each.code != -9 and not twice and not each.said.strip():
            return "silent", f"exit code {each.code} without a word"
    return "clear", f"exit {', '.join(str(each.code) for each in ran)}: {_last_line(ran[-1].said)}"


def _told(secrets: Sequence[str], said: str, folder: Path) -> str | None:
    for secret in secrets:
        if secret in said:
            return "on the terminal"
        for path, _, names in os.walk(folder):
            for name in names:
                file = Path(path) / name
                if (
                    file.is_file()
                    and not file.is_symlink()
                    and secret.encode() in file.read_bytes()
                ):
                    return f"in {file.relative_to(folder)}"
    return None


def _last_line(text: str) -> str:
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not line.startswith("For further information")
    ]
    return _CONTROL.sub("?", lines[-1].strip()[:200]) if lines else "nothing"
