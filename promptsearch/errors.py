"""Every exception that a user can meet.

One base class, so that `except PromptSearchError` catches what the library says about bad input,
and nothing else: a bug of ours stays a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PromptSearchError(Exception):
    """What was expected, what came, what to do: the message alone should be enough."""


class TemplateError(PromptSearchError):
    """A template cannot be read, or does not fit its data, tokenizer or prompt."""


class TaskError(PromptSearchError):
    """A task's data, splits, answers or metric are wrong."""


class FieldError(TaskError):
    """A row of the data lacks a field, or holds a value there that has no text."""


class ModelError(PromptSearchError):
    """A language model cannot be found, loaded or used."""


class EndpointError(ModelError):
    """A server refused a request, or answered with something else than its protocol says."""


class EndpointDown(EndpointError):
    """A server cannot be reached at all, or lets nobody in: nothing that is left to do can be done."""


class PromptError(PromptSearchError):
    """A prompt has the wrong kind, length or tokens, or its file is damaged."""


class StrategyError(PromptSearchError):
    """A strategy cannot be loaded, has wrong options, or broke the contract of ask and tell."""


class Tampered(StrategyError):
    """A strategy changed what is not its own: nothing that its run wrote is believed, and the run's log is not kept.

    Args:
        message: What was changed, and what to do.
        mended: Whether all is as it was again, so that other runs can go on.
    """

    def __init__(self, message: str, *, mended: bool = True) -> None:
        super().__init__(message)
        self.mended = mended


class OptionError(StrategyError):
    """An option of a strategy has a wrong type or value, or is missing.

    Args:
        text: The message.
        option: Its name; empty where several do not fit together.
    """

    def __init__(self, text: str, option: str = "") -> None:
        super().__init__(text)
        self.option = option


class StudyError(PromptSearchError):
    """A study file or a study's folder is wrong."""


class RecordError(PromptSearchError):
    """A log or another file of a run is damaged."""


class FileError(PromptSearchError):
    """A file or folder cannot be read or written: the disk is full, a right is missing, something else stands in its place.

    Args:
        message: What happened, what is safe, what to do.
        everywhere: Whether other files beside it would fail alike.
    """

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class ExportError(PromptSearchError):
    """A prompt cannot be held exactly by the wanted format."""


class BudgetExhausted(PromptSearchError):
    """The next piece of work costs more than is left. Ends a run in good order, never an error of the user."""


class Diverged(PromptSearchError):
    """A loss or a gradient is no finite number any more. Ends a run in good order, with the best prompt scored before."""


class NothingUsable(PromptSearchError):
    """A proposer gave no usable prompt, time and again. Ends a run in good order, with the best prompt scored before."""


class UnknownName(PromptSearchError):
    """A name that is not in a list of names.

    Args:
        kind: What the name names, in the singular: `strategy`, `task`, `option`.
        name: What was given.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        names = sorted(known)
        close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        name = name if len(name) <= 100 else f"{name[:97]}..."
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}.")
