"""The loop of ask and tell, and the checkpoints from which a killed search goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.errors import BudgetExhausted, Diverged, FileError, NothingUsable, PromptSearchError, RecordError, StrategyError
from promptsearch.files import exists, opened, write_aside
from promptsearch.plain_json import parse_json
from promptsearch.prompt import Prompt
from promptsearch.sealed import seal, unseal
from promptsearch.strategy import Ask, State, Strategy

log = logging.getLogger(__name__)

#: Bytes of a state, at most.
_LARGEST = 1 << 40
#: A state is saved when this share of the working time would go into saving, at most.
_SAVING_SHARE = 0.05


def search(strategy: Strategy, folder: Path | None = None) -> str:
    """Ask, score, tell, until the budget is spent, nothing is left to propose, training diverged, or a proposer failed.

    Args:
        strategy: Fresh from its constructor; its objective's log decides whether it starts or goes on.
        folder: Where the strategy's state is kept; None keeps none.

    Returns:
        Why the search ended, for the record.

    Raises:
        StrategyError: The strategy broke the contract or failed.
        RecordError: The log does not fit what the strategy proposes.
    """
    objective = strategy.objective
    checkpoint = _Checkpoint(folder / "state.safetensors") if folder else None
    if checkpoint and objective.log.replaying:
        checkpoint.load(strategy)
    while True:
        try:
            prompts, examples = _ask(strategy)
            if not prompts:
                return "nothing left to propose"
            evaluation = objective.evaluate(prompts, examples)
        except (BudgetExhausted, Diverged, NothingUsable) as end:
            return str(end)
        with _named(strategy, "tell"):
            strategy.tell(prompts, evaluation)
        if checkpoint and not objective.log.replaying:
            checkpoint.save(strategy)


def _ask(strategy: Strategy) -> tuple[Sequence[Prompt], ArrayLike | None]:
    name = type(strategy).__name__
    with _named(strategy, "ask"):
        asked = strategy.ask()
    prompts, examples = (asked.prompts, asked.examples) if isinstance(asked, Ask) else (asked, None)
    if not isinstance(prompts, Sequence):
        raise StrategyError(f"{name}.ask returned {type(prompts).__name__}; expected a list of prompts, or an Ask with one")
    for prompt in prompts:
        if type(prompt) not in strategy.proposes:
            kinds = ", ".join(sorted(kind.__name__ for kind in strategy.proposes))
            raise StrategyError(f"{name}.ask returned {type(prompt).__name__}; the class says that it proposes {kinds}")
    return prompts, examples


@contextmanager
def _named(strategy: Strategy, method: str) -> Iterator[None]:
    """Whatever a strategy's method raises becomes an error that names it."""
    try:
        yield
    except PromptSearchError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise StrategyError(f"{type(strategy).__name__}.{method} failed: {type(error).__name__}: {error}") from error


class _Checkpoint:
    """One file with a strategy's state and the objective's books, replaced whole; the numbers of the best few lie beside it.

    The log alone is enough to go on. So a state that is missing, damaged, unreadable or ahead of its log costs time, and no
    more: the strategy starts from its seed, trains again what it had trained, and takes the scores from the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0

    def load(self, strategy: Strategy) -> None:
        """Restore the state, if there is one that can be used; later lines of the log are then replayed onto it."""
        if not exists(self._path):
            return
        try:
            books, state = self._read()
            strategy.objective.recover(books)
        except (FileError, RecordError) as error:
            log.warning("%s is not used: %s. The run goes on from its log, and its numbers stay the same", self._path, error)
            strategy.objective.log.keep_only([])
            return
        with _named(strategy, "restore"):
            strategy.restore(state)

    def _read(self) -> tuple[dict[str, Any], State]:
        try:
            with opened(self._path, _LARGEST), safetensors.safe_open(self._path, framework="pt") as file:
                about = unseal(parse_json(file.metadata()["state"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if about["tensors"] != _digest(tensors):
                raise ValueError("its tensors were changed")
            data = json.loads(about["data"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise RecordError(f"it is damaged ({error})") from error
        return about["books"], State(tensors, data)

    def save(self, strategy: Strategy) -> None:
        """Save the state, unless the last time was only just now."""
        begin = time.monotonic()
        if begin < self._next:
            return
        with _named(strategy, "state"):
            state = strategy.state()
            if state is None:
                return
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
            books = strategy.objective.books()
            # As a text of its own: a strategy's numbers may be infinite, or of 128 bits.
            about = seal({"data": json.dumps(dict(state.data)), "books": books, "tensors": _digest(tensors)})
        best = [item.prompt for item in strategy.objective.ranking]
        strategy.objective.log.keep(best)
        write_aside(self._path, safetensors.torch.save(tensors, metadata={"state": json.dumps(about)}))
        strategy.objective.log.keep_only(best)
        end = time.monotonic()
        self._next = end + (end - begin) / _SAVING_SHARE


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Names the content of tensors on the CPU: 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
