"""The append-only log of a run, and reading it back.

One line of `evaluations.jsonl` is one call of the scorer: which prompts on which examples, every loss, and the
ledger after it. A run that was killed is replayed from these lines: the strategy proposes again what it proposed
before (same seed), and the scores come from the log instead of the LM.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from promptsearch.errors import RecordError
from promptsearch.prompt import TRAINED, Prompt, TrainedPrompt, prompt_from_json, save_trained

#: The order in which a run passes through its stages.
STAGES = ("search", "rescore", "select", "empty", "test")
#: What every line holds.
_KEYS = {"n", "stage", "examples", "prompts", "losses", "metric", "choices", "failures", "computed", "ledger", "seconds"}


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole lines of a log, and the number of bytes that they take.

    A last line without its line end is what a kill leaves: it is dropped. Any other damage is an error.

    Raises:
        RecordError: A line is no evaluation or is out of order; names file and line.
    """

    def intact(line: Any) -> bool:
        whole = line["stage"] in STAGES and len(line["prompts"]) == len(line["losses"])
        return bool(whole and line["seconds"] >= 0 and line.keys() >= _KEYS)

    return _read_lines(path, "evaluation", intact)


def _read_lines(path: Path, what: str, intact: Callable[[Any], bool]) -> tuple[list[dict[str, Any]], int]:
    if not path.exists():
        return [], 0
    lines, size = [], 0
    for number, raw in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json.loads(raw)
            good = line["n"] == number - 1 and intact(line)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise RecordError(
                f"{path}, line {number}: this is not {what} number {number - 1} of the run: the log was damaged. "
                "Restore the file, or delete the run's folder to make the run again."
            )
        lines.append(line)
        size += len(raw) + 1
    return lines, size


def _drop_half_a_line(path: Path, size: int) -> None:
    """Cut a log after its whole lines, so that the next one begins where they end."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _append_line(path: Path, line: dict[str, Any]) -> None:
    """A single write of a whole line, flushed to disk."""
    with path.open("ab") as file:
        file.write(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


class ProposalLog:
    """What a proposer wrote in one run: appends new calls, hands back old ones in order.

    Args:
        folder: The run's folder; None keeps the log in memory.

    Raises:
        RecordError: The log on disk is damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / "proposals.jsonl"
        self._queue: deque[dict[str, Any]] = deque()
        #: Calls that the present run has seen, replayed ones included.
        self.count = 0
        if self._path is not None:
            lines, size = _read_lines(self._path, "proposal", _is_proposal)
            self._queue.extend(lines)
            _drop_half_a_line(self._path, size)

    def skip(self, count: int) -> None:
        """Pass over the first `count` old calls, whose effects a saved state holds already."""
        if count > len(self._queue):
            raise RecordError(
                f"the saved state covers {count} proposals, but {self._path} holds {len(self._queue)}: it was damaged. "
                "Restore it, or delete the run's folder to make the run again."
            )
        for _ in range(count):
            self._queue.popleft()
        self.count += count

    def replay(self, request: str) -> dict[str, Any] | None:
        """The next old call, if there is one.

        Args:
            request: Names what is asked now.

        Raises:
            RecordError: The old call asked something else: the strategy is not deterministic, or the code changed.
        """
        if not self._queue:
            return None
        line = self._queue.popleft()
        if line["request"] != request:
            raise RecordError(
                f"proposal {line['n']} of {self._path} answers another request than the run makes now. A strategy must ask the "
                "same again from the same seed and the same scores; delete the run's folder to make the run again."
            )
        self.count += 1
        return line

    def append(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write one call, and give it back as it will be read back."""
        line = {"n": self.count, **line}
        self.count += 1
        if self._path is not None:
            _append_line(self._path, line)
        return line


def _is_proposal(line: Any) -> bool:
    texts = isinstance(line["texts"], list) and all(isinstance(text, str) for text in line["texts"])
    return texts and isinstance(line["request"], str) and isinstance(line["price"], int) and line["price"] >= 0


class RunLog:
    """The log of one run: appends new evaluations, hands back old ones in order.

    Args:
        folder: The run's folder; None keeps the log in memory (for tests of strategies).

    Raises:
        RecordError: The log on disk is damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        #: What a proposer wrote.
        self.proposals = ProposalLog(folder)
        self._lines: list[dict[str, Any]] = []
        self._queue: deque[dict[str, Any]] = deque()
        self._before = 0.0
        if folder is not None:
            lines, size = read_log(folder / "evaluations.jsonl")
            self._queue.extend(lines)
            if lines:
                self._before = float(lines[-1]["seconds"])
            _drop_half_a_line(folder / "evaluations.jsonl", size)
        self._start = time.monotonic()

    @property
    def lines(self) -> Sequence[dict[str, Any]]:
        """The evaluations that the present run has seen, replayed ones included."""
        return self._lines

    @property
    def replaying(self) -> bool:
        """Whether evaluations of an earlier, killed process are still to be handed back."""
        return bool(self._queue)

    @property
    def searched(self) -> bool:
        """Whether the search of an earlier process had ended: the next old line belongs to a later stage."""
        return bool(self._queue) and self._queue[0]["stage"] != "search"

    @property
    def seconds(self) -> float:
        """Working time of the run in seconds, over all processes that worked on it."""
        return self._before + time.monotonic() - self._start

    def skip(self, count: int) -> Iterator[dict[str, Any]]:
        """Hand over the first `count` old lines, whose effects a saved state holds already."""
        if count > len(self._queue):
            raise RecordError(
                f"the saved state of {self._folder} covers {count} evaluations, but the log holds {len(self._queue)}: it was "
                "damaged. Restore it, or delete the run's folder to make the run again."
            )
        for _ in range(count):
            self._lines.append(self._queue.popleft())
            yield self._lines[-1]

    def replay(self, stage: str, keys: Sequence[str]) -> dict[str, Any] | None:
        """The next old line, if there is one.

        Raises:
            RecordError: The old line is about other prompts: the strategy is not deterministic, or the code changed.
        """
        if not self._queue:
            return None
        line = self._queue.popleft()
        if line["stage"] != stage or [p["key"] for p in line["prompts"]] != list(keys):
            raise RecordError(
                f"evaluation {line['n']} of {self._folder}/evaluations.jsonl is about other prompts than the run proposes now. "
                "A strategy must propose the same again from the same seed and the same scores; delete the run's folder "
                "to make the run again."
            )
        self._lines.append(line)
        return line

    def append(self, line: dict[str, Any]) -> None:
        """Write one evaluation: a single write of a whole line, flushed to disk."""
        line = {"n": len(self._lines), **line, "seconds": round(self.seconds, 3)}
        self._lines.append(line)
        if self._folder is not None:
            _append_line(self._folder / "evaluations.jsonl", line)

    def keep(self, prompts: Sequence[Prompt]) -> None:
        """Keep the numbers of the best few, those that are trained, for a state that is about to be saved.

        The state covers their lines, which name them by key. Prompts of later lines need no file: they are proposed again.
        """
        if self._folder is not None:
            for prompt in prompts:
                if isinstance(prompt, TrainedPrompt) and not (path := self._numbers(prompt.key)).exists():
                    save_trained(prompt, path)

    def keep_only(self, prompts: Sequence[Prompt]) -> None:
        """Delete the numbers of all others: the state that counted on them has been replaced."""
        if self._folder is not None:
            kept = {self._numbers(prompt.key).name for prompt in prompts}
            for path in (self._folder / "finalists").glob("*"):
                if path.name not in kept:
                    path.unlink()

    def prompt(self, data: dict[str, Any]) -> Prompt | None:
        """The prompt that a line names; None for a trained prompt whose numbers were not kept."""
        if data["kind"] not in TRAINED:
            return prompt_from_json(data)
        if self._folder is None or not (path := self._numbers(data["key"])).exists():
            return None
        return prompt_from_json(data, path.parent)

    def _numbers(self, key: str) -> Path:
        """Where the numbers of a trained prompt are kept."""
        assert self._folder is not None
        return self._folder / "finalists" / f"{key}.safetensors"
