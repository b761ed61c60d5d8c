"""The append-only log of a run, and reading it back.

One line of `evaluations.jsonl` is one call of the scorer: which prompts on which examples, every
loss, and the ledger after it. A run that was killed is replayed from these lines: the strategy
proposes again what it proposed before (same seed), and the scores come from the log instead of the
LM.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptsearch.errors import FileError, PromptError, RecordError
from promptsearch.files import append, cut, exists, opened, remove, shown
from promptsearch.plain.json import parse_json
from promptsearch.prompts.kinds import TRAINED, prompt_from_json
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.ledger import BILL
from promptsearch.records.log_line import check_evaluation, check_proposal, scored_examples
from promptsearch.records.sealed import damaged, sealed_line, unseal

#: The most bytes of a log, and of one line in it.
_LARGEST, _LONGEST = 1 << 36, 1 << 29
#: What to do where a log is damaged.
_REMEDY = "restore the file, or delete it alone and run the study again: its scores are made anew"
#: What to do where a log is whole, but a strategy does not do again what it tells of.
_OTHER_CODE = "go on with the code that wrote it, or run the study into another folder with --out"
Check = Callable[[Mapping[str, Any], Mapping[str, Any] | None], None]


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole lines of a log, and the number of bytes that they take.

    A last line without its line end is what a kill leaves: it is dropped. Any other damage is an
    error.

    Raises:
        RecordError: A line is no evaluation, is out of order, or contradicts itself; the message
            names file and line.
        FileError: The file cannot be read.
    """
    return _read_lines(path, "evaluation", check_evaluation, _REMEDY)


def _read_lines(
    path: Path, what: str, check: Check, remedy: str
) -> tuple[list[dict[str, Any]], int]:
    if not exists(path):
        return [], 0
    lines: list[dict[str, Any]] = []
    size = 0
    with opened(path, _LARGEST) as file:
        while (raw := file.readline(_LONGEST)).endswith(b"\n") or len(raw) == _LONGEST:
            try:
                if len(raw) == _LONGEST:
                    raise ValueError(f"it has {_LONGEST:,} bytes or more")
                line = unseal(parse_json(raw))
                if line["n"] != len(lines):
                    raise ValueError(f"its number is {line['n']!r}")
                check(line, lines[-1] if lines else None)
            except (ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
                raise RecordError(
                    f"{shown(path)}, line {len(lines) + 1}: this is not {what} number {len(lines)} "
                    f"of the run ({_reason(error)}): the log is damaged: {remedy}"
                ) from error
            lines.append(line)
            size += len(raw)
    return lines, size


def _reason(error: Exception) -> str:
    return str(error)[:200] if type(error) is ValueError else repr(error)[:200]


def _drop_half_a_line(path: Path, size: int) -> None:
    """Cut a log after its whole lines, so that the next one begins where they end."""
    if exists(path) and path.stat().st_size > size:
        cut(path, size)


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
            remedy = f"restore the file, or delete the run's folder {folder} to make the run again"
            lines, size = _read_lines(self._path, "proposal", check_proposal, remedy)
            self._queue.extend(lines)
            _drop_half_a_line(self._path, size)

    def check(self, count: int) -> None:
        """See that there are `count` old calls.

        Raises:
            RecordError: There are fewer.
        """
        if count > len(self._queue):
            raise RecordError(
                f"it covers {count} proposals, but {self._path} holds {len(self._queue)}"
            )

    def skip(self, count: int) -> None:
        """Pass over the first `count` old calls, whose effects a saved state holds already."""
        for _ in range(count):
            self._queue.popleft()
        self.count += count

    def replay(self, request: str) -> dict[str, Any] | None:
        """The next old call, if there is one.

        Args:
            request: The name of what is asked now.

        Raises:
            RecordError: The old call asked something else: the strategy is not deterministic, or
                the code changed.
        """
        if not self._queue:
            return None
        line = self._queue.popleft()
        if line["request"] != request:
            raise RecordError(
                f"proposal {line['n']} of {self._path} answers another request than the run makes "
                "now. A strategy must ask the same again from the same seed and the same scores: "
                f"{_OTHER_CODE}"
            )
        self.count += 1
        return line

    def append(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write one call, and give it back as it will be read back."""
        line = {"n": self.count, **line}
        self.count += 1
        if self._path is not None:
            append(self._path, sealed_line(line))
        return line


class RunLog:
    """The log of one run: appends new evaluations, hands back old ones in order.

    Args:
        folder: The run's folder; None keeps the log in memory (for tests of strategies).

    Raises:
        RecordError: The log on disk is damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        #: Evaluations that the search asked for in time, also those that needed no line.
        self.asks = 0
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
        """Whether an earlier process had ended the search: the next line is of a later stage."""
        return bool(self._queue) and self._queue[0]["stage"] != "search"

    @property
    def seconds(self) -> float:
        """Working time of the run in seconds, over all processes that worked on it."""
        return self._before + time.monotonic() - self._start

    def over(self, limit: float | None) -> bool:
        """Whether the search ends here for its time: now, or as an earlier process ended it.

        Args:
            limit: The seconds that the run may work; None for any number.
        """
        if limit is None:
            return False
        if self.replaying:
            return self.searched and self._queue[0].get("asks") == self.asks
        return self.seconds > limit

    def ahead(self, count: int) -> list[dict[str, Any]]:
        """The first `count` old lines, which stay where they are.

        Raises:
            RecordError: There are fewer.
        """
        if count > len(self._queue):
            raise RecordError(
                f"it covers {count} evaluations, but the log holds {len(self._queue)}"
            )
        return list(self._queue)[:count]

    def skip(self, count: int) -> None:
        """Pass over the first `count` old lines, whose effects a saved state holds already."""
        for _ in range(count):
            self._lines.append(self._queue.popleft())

    def replay(self, stage: str, keys: Sequence[str]) -> dict[str, Any] | None:
        """The next old line, if there is one.

        Raises:
            RecordError: The old line is about other prompts: the strategy is not deterministic, or
                the code changed.
        """
        if not self._queue:
            return None
        line = self._queue.popleft()
        if line["stage"] != stage or [p["key"] for p in line["prompts"]] != list(keys):
            raise RecordError(
                f"evaluation {line['n']} of {self._folder}/evaluations.jsonl is about other "
                "prompts than the run proposes now. A strategy must propose the same again from "
                f"the same seed and the same scores: {_OTHER_CODE}"
            )
        self._lines.append(line)
        return line

    def check(
        self, line: Mapping[str, Any], examples: int, ledger: Mapping[str, Any] | None = None
    ) -> None:
        """See that an old line tells of a call as the run makes it.

        Args:
            line: As it was handed back.
            examples: How many its prompts are scored on.
            ledger: What the run has charged with this call; None where a line shows what was
                charged before.

        Raises:
            RecordError: It has more or fewer losses, or another bill.
        """
        found, what = scored_examples(line), ""
        if found not in (None, examples) or line.get("seen", 0) > examples:
            what = f"{found} losses a prompt, and the run has {examples} examples"
        bill = line["ledger"]
        for kind, tokens in (ledger or bill).items():
            if kind in BILL and bill[kind] != tokens:
                what = f"{bill[kind]} {kind} tokens on its bill, and the run has {tokens}"
        if what:
            raise damaged(
                Path(f"{self._folder}/evaluations.jsonl"),
                f"line {line['n'] + 1} has {what}",
                _REMEDY,
            )

    def append(self, line: dict[str, Any]) -> None:
        """Write one evaluation: a single write of a whole line, flushed to disk."""
        seconds = round(self.seconds, 3)
        line = {"n": len(self._lines), **line, "asks": self.asks, "seconds": seconds}
        self._lines.append(line)
        if self._folder is not None:
            append(self._folder / "evaluations.jsonl", sealed_line(line))

    def keep(self, prompts: Sequence[Prompt]) -> None:
        """Keep the numbers of the best few trained prompts, for a state that is about to be saved.

        The state covers their lines, which name them by key. Prompts of later lines need no file:
        they are proposed again.
        """
        if self._folder is not None:
            for prompt in prompts:
                path = self._numbers(prompt.key)
                if prompt.trained and not exists(path):
                    prompt.save(path.parent)

    def keep_only(self, prompts: Sequence[Prompt]) -> None:
        """Delete the numbers of all others: the state that counted on them has been replaced."""
        if self._folder is not None:
            kept = {self._numbers(prompt.key).name for prompt in prompts}
            for path in (self._folder / "finalists").glob("*"):
                if path.name not in kept:
                    remove(path)

    def prompt(self, data: dict[str, Any]) -> Prompt | None:
        """The prompt that a line names.

        None for a trained prompt whose numbers were not kept, or are damaged.
        """
        if data["kind"] not in TRAINED:
            return prompt_from_json(data)
        if self._folder is None or not exists(path := self._numbers(data["key"])):
            return None
        try:
            return prompt_from_json(data, path.parent)
        except (PromptError, FileError):
            return None

    def _numbers(self, key: str) -> Path:
        """Where the numbers of a trained prompt are kept."""
        assert self._folder is not None
        return self._folder / "finalists" / f"{key}.safetensors"
