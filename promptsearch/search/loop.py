"""The loop of ask and tell, and the checkpoints from which a killed search goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.errors import (
    BudgetExhausted,
    Diverged,
    FileError,
    NothingUsable,
    RecordError,
    StrategyError,
)
from promptsearch.files import exists, opened, write_aside
from promptsearch.plain.json import parse_json
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.sealed import seal, unseal
from promptsearch.search.alike import Alike
from promptsearch.search.books import Books, books_of
from promptsearch.search.calling import strangers_code
from promptsearch.search.strategy import Ask, State, Strategy

log = logging.getLogger(__name__)

#: The most bytes that a state's file may have.
_LARGEST = 1 << 40
#: The share of the working time that may go into saving states, at most.
SAVING_SHARE = 0.05
#: The most prompts that one ask may return.
MOST_PROMPTS = 1_000_000


def search(strategy: Strategy, folder: Path | None = None) -> str:
    """Ask, score and tell, until something ends the search.

    A search ends when the budget or the time is spent, when nothing is left to propose, when
    training diverges, or when scores are all alike, see `Alike`.

    Args:
        strategy: The strategy, fresh from its constructor; its objective's log decides whether it
            starts or goes on.
        folder: Where the strategy's state is kept; None keeps none.

    Returns:
        Why the search ended, for the record.

    Raises:
        StrategyError: The strategy broke the contract or failed.
        RecordError: The log does not fit what the strategy proposes.
    """
    # The books are fetched now, so that it makes no difference what a strategy calls its objective
    # later.
    books = books_of(strategy.objective)
    proposes = type(strategy).proposes
    checkpoint = _Checkpoint(folder / "state.safetensors", books) if folder else None
    if checkpoint and books.log.replaying:
        checkpoint.load(strategy)
    alike = Alike(served=books.scorer.white_box is None)
    while True:
        try:
            prompts, examples = _ask(strategy, proposes)
            if not prompts:
                left_out = f", and {books.unpaid} were too dear for the budget" * bool(books.unpaid)
                return alike.reason(f"nothing left to propose{left_out}")
            evaluation = books.evaluate(prompts, examples)
            alike.look(books.log.lines)
            if alike.blind:
                return alike.reason("")
            with _named(strategy, "tell"):  # it may ask more of the model, and pay for that
                strategy.tell(prompts, evaluation)
        except (BudgetExhausted, Diverged, NothingUsable) as end:
            alike.look(books.log.lines)
            return alike.reason(str(end))
        if checkpoint and not books.log.replaying:
            checkpoint.save(strategy)


def _ask(strategy: Strategy, proposes: Collection[type]) -> tuple[list[Prompt], ArrayLike | None]:
    name = type(strategy).__name__
    with _named(strategy, "ask"):
        asked = strategy.ask()
        prompts, examples = (
            (asked.prompts, asked.examples) if isinstance(asked, Ask) else (asked, None)
        )
        if not isinstance(prompts, Sequence):
            raise StrategyError(
                f"{name}.ask returned {type(prompts).__name__}; "
                "expected a list of prompts, or an Ask with one"
            )
        if (count := len(prompts)) > MOST_PROMPTS:
            raise StrategyError(
                f"{name}.ask returned {count:,} prompts; "
                f"at most {MOST_PROMPTS:,} may be asked for at once"
            )
        for prompt in prompts:
            if type(prompt) not in proposes:
                kinds = ", ".join(sorted(kind.__name__ for kind in proposes))
                raise StrategyError(
                    f"{name}.ask returned {type(prompt).__name__}; "
                    f"the class says that it proposes {kinds}"
                )
        return list(prompts), examples


def _named(strategy: Strategy, method: str) -> AbstractContextManager[None]:
    """A context for a strategy's method; whatever that raises becomes an error that names it."""
    return strangers_code(f"{type(strategy).__name__}.{method} failed")


class _Checkpoint:
    """One file with a strategy's state and the run's books, which is always replaced as a whole.

    The numbers of the best few prompts lie beside it. The log alone is enough to go on, so that a
    state which is missing, damaged, unreadable or ahead of its log costs time and nothing else: the
    strategy starts from its seed, trains again what it had trained, and takes the scores from the
    log.
    """

    def __init__(self, path: Path, books: Books) -> None:
        self._path = path
        self._books = books
        self._next = 0.0

    def load(self, strategy: Strategy) -> None:
        """Restore the state, if there is one that can be used.

        The log's later lines are then replayed onto it.
        """
        if not exists(self._path):
            return
        try:
            books, state = self._read()
            self._books.recover(books)
        except (FileError, RecordError) as error:
            log.warning(
                "%s is not used: %s. The run goes on from its log, and its numbers stay the same",
                self._path,
                error,
            )
            self._books.log.keep_only([])
            return
        with _named(strategy, "restore"):
            strategy.restore(state)
        self._books.listener(self._books)

    def _read(self) -> tuple[dict[str, Any], State]:
        try:
            with (
                opened(self._path, _LARGEST),
                safetensors.safe_open(self._path, framework="pt") as file,
            ):
                about = unseal(parse_json(file.metadata()["state"]))
                # The file is no dictionary, and cannot be iterated over.
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["tensors"] != _digest(tensors):
                raise ValueError("its tensors were changed")
            data = json.loads(about["data"])
        except (
            safetensors.SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            raise RecordError(f"it is damaged ({error})") from error
        return about["books"], State(tensors, data)

    def save(self, strategy: Strategy) -> None:
        """Save the state, unless it was last saved too short a time ago."""
        begin = time.monotonic()
        if begin < self._next:
            return
        with _named(strategy, "state"):
            state = strategy.state()
            if state is None:
                return
            tensors = {
                name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()
            }
            # The data are a text of their own: a strategy's numbers may be infinite, or have 128
            # bits.
            data = json.dumps(dict(state.data))
            about = seal(
                {"data": data, "books": self._books.to_json(), "tensors": _digest(tensors)}
            )
            content = safetensors.torch.save(tensors, metadata={"state": json.dumps(about)})
        best = [item.prompt for item in self._books.ranking]
        self._books.log.keep(best)
        write_aside(self._path, content)
        self._books.log.keep_only(best)
        end = time.monotonic()
        self._next = end + (end - begin) / SAVING_SHARE


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A name for the content of tensors on the CPU: 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
