"""Calls of a stranger's code.

What the code raises becomes an error that names it, and what it changes in its surroundings is put
back.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch

from promptsearch.errors import (
    EndpointDown,
    FileError,
    PromptSearchError,
    RecordError,
    StrategyError,
)

#: How many characters of a stranger's message are shown.
_SHOWN = 500


@contextmanager
def strangers_code(what: str) -> Iterator[None]:
    """A context in which a stranger's code runs.

    Whatever the code raises becomes an error of its run, even an exit of the interpreter. Errors of
    the library pass through; those that would end a whole study pass only where the core itself
    raised them.

    Args:
        what: The beginning of the message, such as "Mine.ask failed".

    Raises:
        StrategyError: The code raised something that is no error of the library, or raised an
            error that ends a study.
    """
    before = _surroundings()
    try:
        yield
    except PromptSearchError as error:
        if not isinstance(error, (RecordError, FileError, EndpointDown)) or _raised_by_the_core(
            error.__traceback__
        ):
            raise
        raise StrategyError(f"{what}: {type(error).__name__}: {_message(error)}") from error
    except KeyboardInterrupt:  # Ctrl-C stays the user's
        raise
    except BaseException as error:  # the code may raise anything
        raise StrategyError(f"{what}: {type(error).__name__}: {_message(error)}") from error
    finally:
        _put_back(before)


@contextmanager
def same_generators() -> Iterator[None]:
    """A context that may use the global random generators, and leaves them as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.cuda.set_rng_state_all(cards)


def _surroundings() -> dict[str, Any]:
    """The settings that the library's numbers and files depend on and that any code may change."""
    return {
        "folder": _folder(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "errors": np.geterr(),
        "warnings": list(warnings.filters),
    }


def _put_back(before: dict[str, Any]) -> None:
    now = _surroundings()
    for name, value in before.items():
        if now[name] != value:
            _SETTERS[name](value)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _back_to(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _on(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _filter(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever its stub says
    with warnings.catch_warnings():
        pass  # tells the module that its filters have changed


_SETTERS: dict[str, Callable[[Any], Any]] = {
    "folder": _back_to,
    "dtype": torch.set_default_dtype,
    "device": _on,
    "gradients": torch.set_grad_enabled,
    "threads": torch.set_num_threads,
    "precision": torch.set_float32_matmul_precision,
    "deterministic": lambda given: torch.use_deterministic_algorithms(given[0], warn_only=given[1]),
    "errors": lambda errors: np.seterr(**errors),
    "warnings": _filter,
}


def _message(error: BaseException) -> str:
    """The message of an error, cut short; a stranger's error may fail even at giving one."""
    try:
        return str(error)[:_SHOWN]
    except Exception:  # its own `__str__` raised
        return "(its message cannot be read)"


def _raised_by_the_core(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame is the library's, not a strategy's."""
    module = ""
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return module.startswith("promptsearch.") and not module.startswith("promptsearch.strategies.")
