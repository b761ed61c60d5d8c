"""The loop of ask and tell, and the checkpoints from which a killed search goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import safetensors
import safetensors.torch
from numpy.typing import ArrayLike

from promptsearch.alike import Alike
from promptsearch.books import Books, books_of
from promptsearch.calling import strangers_code
from promptsearch.errors import BudgetExhausted, Diverged, NothingUsable, RecordError, StrategyError
from promptsearch.files import write_aside
from promptsearch.prompt import Prompt
from promptsearch.strategy import Ask, State, Strategy

#: A state is saved when this share of the working time would go into saving, at most.
_SAVING_SHARE = 0.05
#: Prompts in one ask, at most.
MOST_PROMPTS = 1_000_000


def search(strategy: Strategy, folder: Path | None = None) -> str:
    """Ask, score, tell, until something ends it: the budget, nothing left to propose, divergence, or scores that are all alike.

    Args:
        strategy: Fresh from its constructor; its objective's log decides whether it starts or goes on.
        folder: Where the strategy's state is kept; None keeps none.

    Returns:
        Why the search ended, for the record.

    Raises:
        StrategyError: The strategy broke the contract or failed.
        RecordError: The log does not fit what the strategy proposes.
    """
    books = books_of(strategy.objective)  # now: what a strategy calls its objective later makes no difference
    proposes = type(strategy).proposes
    checkpoint = _Checkpoint(folder / "state.safetensors", books) if folder else None
    if checkpoint and books.log.replaying:
        checkpoint.load(strategy)
    alike = Alike()
    while True:
        try:
            prompts, examples = _ask(strategy, proposes)
            if not prompts:
                return alike.reason("nothing left to propose")
            evaluation = books.evaluate(prompts, examples)
        except (BudgetExhausted, Diverged, NothingUsable) as end:
            alike.look(books.log.lines)
            return alike.reason(str(end))
        alike.look(books.log.lines)
        if alike.blind:
            return alike.reason("")
        with _named(strategy, "tell"):
            strategy.tell(prompts, evaluation)
        if checkpoint and not books.log.replaying:
            checkpoint.save(strategy)


def _ask(strategy: Strategy, proposes: Collection[type]) -> tuple[list[Prompt], ArrayLike | None]:
    name = type(strategy).__name__
    with _named(strategy, "ask"):
        asked = strategy.ask()
        prompts, examples = (asked.prompts, asked.examples) if isinstance(asked, Ask) else (asked, None)
        if not isinstance(prompts, Sequence):
            raise StrategyError(f"{name}.ask returned {type(prompts).__name__}; expected a list of prompts, or an Ask with one")
        if (count := len(prompts)) > MOST_PROMPTS:
            raise StrategyError(f"{name}.ask returned {count:,} prompts; at most {MOST_PROMPTS:,} may be asked for at once")
        for prompt in prompts:
            if type(prompt) not in proposes:
                kinds = ", ".join(sorted(kind.__name__ for kind in proposes))
                raise StrategyError(f"{name}.ask returned {type(prompt).__name__}; the class says that it proposes {kinds}")
        return list(prompts), examples


def _named(strategy: Strategy, method: str) -> AbstractContextManager[None]:
    """Within, a strategy's method runs; whatever it raises becomes an error that names it."""
    return strangers_code(f"{type(strategy).__name__}.{method} failed")


class _Checkpoint:
    """One file with a strategy's state and the run's books, replaced whole; the numbers of the best few lie beside it."""

    def __init__(self, path: Path, books: Books) -> None:
        self._path = path
        self._books = books
        self._next = 0.0

    def load(self, strategy: Strategy) -> None:
        """Restore the state, if there is one; later lines of the log are then replayed onto it."""
        if not self._path.exists():
            return
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                about = json.loads(file.metadata()["state"])
                books, data = about["books"], about["data"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{self._path} is damaged ({error}): delete the run's folder to make the run again") from error
        self._books.recover(books)
        with _named(strategy, "restore"):
            strategy.restore(State(tensors, data))

    def save(self, strategy: Strategy) -> None:
        """Save the state, unless the last time was only just now."""
        begin = time.monotonic()
        if begin < self._next:
            return
        with _named(strategy, "state"):
            state = strategy.state()
            if state is None:
                return
            about = json.dumps({"data": dict(state.data), "books": self._books.to_json()})
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
            content = safetensors.torch.save(tensors, metadata={"state": about})
        best = [item.prompt for item in self._books.ranking]
        self._books.log.keep(best)
        write_aside(self._path, content)
        self._books.log.keep_only(best)
        end = time.monotonic()
        self._next = end + (end - begin) / _SAVING_SHARE
