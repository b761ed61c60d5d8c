"""Replicas: processes that hold the study's model beside this one, and score chunks of its asks.

They are started at the first ask that takes a second or more, and take a chunk whenever they are
free, as this process does. A shorter ask is scored here, in the same chunks. A replica that dies is
replaced, and its chunk scored by whoever is free: an ask is charged as a whole, and told as a
whole.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from promptsearch.errors import FileError, PromptSearchError, StudyError
from promptsearch.files import failing, remove
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Scores
from promptsearch.scoring.scorer import SplitScorer
from promptsearch.study.execution.child import Child
from promptsearch.study.execution.fleet import differing
from promptsearch.study.execution.processes import on_gpu
from promptsearch.study.execution.scores_wire import read_scores
from promptsearch.study.execution.spread import Spread
from promptsearch.study.execution.wire import Order, made_error
from promptsearch.study.share import check_room, cores

log = logging.getLogger(__name__)

#: So many replicas may die in a study; this process then goes on without those that are missing.
DEATHS = 3
#: The seconds of work from which an ask is shared.
WORTH = 1.0
#: The most numbers of the prompts of a chunk that leaves this process: more take longer to send
#: than to score.
_NUMBERS = 1 << 22

Part = tuple[Sequence[Prompt], ExampleIds]


@dataclass(eq=False)
class _Ask:
    """An ask that is being scored.

    Args:
        name: What its scorer is called.
        parts: The prompts and examples of each chunk.
        left: The places of the chunks that anybody may take.
        mine: The places of those that stay in this process.
        found: The scores of each chunk, or what it failed with.
    """

    name: str
    parts: Sequence[Part]
    left: deque[int]
    mine: deque[int]
    found: dict[int, Scores | PromptSearchError] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether all chunks are scored."""
        return len(self.found) == len(self.parts)


class Replicas:
    """Processes that score chunks together.

    Args:
        order: What each replica is told at its start.
        count: How many processes score, with this one; 1: this one alone.
        shown: What this process has, and each replica must have, see `fleet.py`.
    """

    def __init__(self, order: Order, count: int, shown: Mapping[str, str]) -> None:
        self._order, self._count, self._shown = order, count, shown
        self._folder: Path | None = None  # where the numbers of trained prompts are handed over
        self._changed = threading.Condition()
        self._starting: set[Child] = set()
        # What each replica that is ready works on: an ask, and the place of a chunk in it.
        self._has: dict[Child, tuple[_Ask, int] | None] = {}
        self._ask: _Ask | None = None
        self._seconds: float | None = None  # what the last chunk took in this process
        self._started = self._deaths = 0
        self._over = False

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._over = True
        for child in [*self._has, *self._starting]:
            child.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the replicas, and wait until they have their model, as far as they can be had."""
        with self._changed:
            self._begin()
            self._changed.wait_for(lambda: not self._starting)

    def scored(self, name: str, scorer: SplitScorer, parts: Sequence[Part]) -> list[Scores]:
        """The scores of each part, see `promptsearch.scoring.chunks.Hands`."""
        ask = _Ask(name, parts, deque(), deque(range(len(parts))))
        if self._seconds is None:  # what a chunk takes is not known yet
            self._score(scorer, ask, ask.mine.popleft())
        if self._count > 1 and (self._seconds or 0.0) * len(ask.mine) >= WORTH:
            self._share(ask)
        try:
            while (at := self._next(ask)) is not None:
                self._score(scorer, ask, at)
        finally:
            with self._changed:
                self._ask = None
            if self._folder is not None:
                for path in self._folder.iterdir():
                    remove(path)
        return [_good(ask.found[at]) for at in range(len(parts))]

    def _score(self, scorer: SplitScorer, ask: _Ask, at: int) -> None:
        """Score a chunk in this process; one before it may fail, too."""
        begin = time.monotonic()
        found: Scores | PromptSearchError
        try:
            found = scorer.score(*ask.parts[at])
        except PromptSearchError as error:
            found = error
        self._seconds = time.monotonic() - begin
        with self._changed:
            ask.found[at] = found

    def _share(self, ask: _Ask) -> None:
        """Let replicas have the chunks of an ask that may leave this process."""
        with self._changed:
            leave = {at for at in ask.mine if _leaves(ask.parts[at])}
            ask.left.extend(at for at in ask.mine if at in leave)
            ask.mine = deque(at for at in ask.mine if at not in leave)
            self._ask = ask
            self._begin()
            for child in self._has:
                self._give(child)

    def _next(self, ask: _Ask) -> int | None:
        """The chunk that this process scores next; None when all are scored."""
        with self._changed:
            # A replica may die, and leave its chunk.
            self._changed.wait_for(lambda: ask.mine or ask.left or ask.done)
            return None if ask.done else (ask.mine or ask.left).popleft()

    # What follows is called by whoever holds the condition.

    def _begin(self) -> None:
        """Start the replicas that are missing."""
        missing = self._count - 1 - len(self._has) - len(self._starting)
        if self._folder is None:
            with failing(Path(tempfile.gettempdir()), "write"):
                self._folder = Path(tempfile.mkdtemp(prefix="promptsearch-"))
        for _ in range(missing if self._deaths < DEATHS else 0):
            self._started += 1  # this process has the first GPU
            environment = on_gpu(self._started)
            child = Child(self._order, environment, "promptsearch.study.execution.replica")
            self._starting.add(child)
            child.listen(partial(self._hear, child))

    def _give(self, child: Child) -> None:
        """Give a replica that is free the next chunk, where there is one."""
        ask = self._ask
        if ask is None or not ask.left or self._has[child] is not None:
            return
        at = ask.left.popleft()
        prompts, examples = ask.parts[at]
        assert self._folder is not None
        try:
            for prompt in prompts:
                prompt.save(self._folder)
        except FileError as error:  # for whoever asks, which may be another thread
            ask.found[at] = error
            return
        self._has[child] = ask, at
        told = {
            "scorer": ask.name,
            "folder": str(self._folder),
            "prompts": [prompt.to_json() for prompt in prompts],
            "examples": examples.tolist(),
        }
        child.tell("score", told)

    # What follows is called in the thread that hears a replica.

    def _hear(self, child: Child, kind: str, content: Any) -> None:
        with self._changed:
            if self._over:
                return
            try:
                if kind == "died":
                    self._bury(child)
                    return
                try:
                    self._take(child, kind, content)
                except (KeyError, ValueError, TypeError):  # it is no replica that is well
                    child.kill()
            finally:  # whatever happens, nobody waits for a chunk that nobody scores
                self._changed.notify_all()

    def _take(self, child: Child, kind: str, content: Any) -> None:
        """Take what a replica says, and give it more to do."""
        if kind == "failed" or (kind == "ready" and differing(self._shown, content)):
            self._deaths = DEATHS  # another would be no better
            said = content["message"] if kind == "failed" else "it has other code, data or model"
            log.warning("no replica can start (%s): this process scores alone", said)
            self._starting.discard(child)
            child.kill()  # its model takes room
            return
        if kind == "ready":
            self._starting.discard(child)
        elif (had := self._has[child]) is not None:
            ask, at = had
            error = content["error"]
            ask.found[at] = made_error(error) if error else read_scores(content["scores"])
        self._has[child] = None
        self._give(child)

    def _bury(self, child: Child) -> None:
        """Replace a replica that died; others score its chunk."""
        had = self._has.pop(child, None)
        self._starting.discard(child)
        if had is not None:
            ask, at = had
            ask.left.appendleft(at)
        self._deaths += 1
        if self._deaths <= DEATHS:
            log.warning("a replica died %s: its chunk is scored again", child.last_words())
        child.end()
        if self._ask is not None:
            self._begin()
            for other in self._has:
                self._give(other)


def check_replicas(lm: TextModel, memory: int, replicas: int, spread: Spread) -> None:
    """See that so many processes can score an ask together.

    Args:
        lm: The LM that each of them loads.
        memory: What each of them takes for keys and values, in bytes.
        replicas: How many there are, the process that makes the runs among them.
        spread: Which processes make the runs.

    Raises:
        StudyError: They cannot.
    """
    if lm.served is not None:
        raise StudyError(
            f"'replicas: {replicas}' spreads the work of a model that is loaded here, and "
            f"'{lm.name}' is behind an endpoint: requests go out side by side as it is, say how "
            "many with 'parallel' beside the endpoint"
        )
    if spread.ray is not None:
        raise StudyError(
            f"'replicas: {replicas}' starts processes on one machine, and --ray makes runs on "
            "others: leave one of them out"
        )
    beside = replicas * max(1, spread.workers)
    if lm.device.type == "cpu" and replicas > 1 and beside * torch.get_num_threads() > cores():
        workers = f", in each of {spread.workers} workers," if spread.workers > 1 else ""
        raise StudyError(
            f"'replicas: {replicas}'{workers} of {torch.get_num_threads()} threads each want "
            f"{beside * torch.get_num_threads()} cores, and this process may use {cores()}: take "
            "fewer, which changes no number"
        )
    if replicas > 1:
        check_room(lm, memory, beside)


def _leaves(part: Part) -> bool:
    """Whether a replica may score a chunk: what its prompts hold is soon sent."""
    return sum(prompt.numbers for prompt in part[0]) <= _NUMBERS


def _good(found: Scores | PromptSearchError) -> Scores:
    if isinstance(found, PromptSearchError):
        raise found
    return found
