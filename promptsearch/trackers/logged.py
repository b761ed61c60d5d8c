"""What a tracker has logged of each run, so that a study that goes on logs nothing twice.

A number is noted before it is logged: where a process is killed between the two, one number is
missing, and none stands there twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

from promptsearch.errors import FileError
from promptsearch.files import exists, read, write_json
from promptsearch.plain.json import parse_json

#: The folder of a study that holds these notes.
TRACKED = ".tracked"
#: The most bytes of a note.
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Note:
    """What is logged of a run.

    Args:
        known: What the tracker finds the run by; empty before it was opened.
        step: The last step that was logged, in LM tokens.
        ended: Whether its end was logged.
    """

    known: str = ""
    step: int = -1
    ended: bool = False


class Logged:
    """The notes of one tracker on a study's runs, each in a file of its own.

    Processes that make shares of a study write notes on runs of their own only.

    Args:
        folder: The study's folder.
        tracker: The tracker's name.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        self._folder = folder / TRACKED / quote(tracker, safe="")
        self._notes: dict[str, Note] = {}

    def __getitem__(self, run: str) -> Note:
        """The note on a run; one that cannot be read counts as none."""
        if run not in self._notes:
            self._notes[run] = self._read(run)
        return self._notes[run]

    def note(self, run: str, **changed: str | int | bool) -> None:
        """Change what is noted on a run.

        Args:
            run: Its name.
            changed: What changes of its `Note`.

        Raises:
            FileError: The note cannot be written.
        """
        self._notes[run] = replace(self[run], **changed)  # type: ignore[arg-type]
        write_json(self._path(run), asdict(self._notes[run]))

    def _read(self, run: str) -> Note:
        path = self._path(run)
        if not exists(path):
            return Note()
        try:
            told = parse_json(read(path, _LONGEST))
            return Note(str(told["known"]), int(told["step"]), bool(told["ended"]))
        except (FileError, ValueError, KeyError, TypeError):
            return Note()

    def _path(self, run: str) -> Path:
        return self._folder / f"{quote(run, safe='')}.json"
