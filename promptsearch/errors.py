"""Every exception that a user can meet.

All have one base class, so that `except PromptSearchError` catches what the library says about bad
input, and nothing else: a bug of ours stays a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PromptSearchError(Exception):
    """An error whose message is enough: it says what was expected, what came and what to do."""


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
    """A server cannot be reached at all, or lets nobody in, so that no work left can be done."""


class PromptError(PromptSearchError):
    """A prompt has the wrong kind, length or tokens, or its file is damaged."""


class StrategyError(PromptSearchError):
    """A strategy cannot be loaded, has wrong options, or broke the contract of ask and tell."""


class Tampered(StrategyError):
    """A strategy changed what is not its own.

    Nothing that its run wrote is believed, and the run's log is not kept.

    Args:
        message: What was changed, and what to do.
        mended: Whether the change was undone, so that other runs can go on.
    """

    def __init__(self, message: str, *, mended: bool = True) -> None:
        super().__init__(message)
        self.mended = mended


class OptionError(StrategyError):
    """An option of a strategy has a wrong type or value, or is missing.

    Args:
        text: The message.
        option: The option's name; empty where several options do not fit together.
    """

    def __init__(self, text: str, option: str = "") -> None:
        super().__init__(text)
        self.option = option


class StudyError(PromptSearchError):
    """A study file or a study's folder is wrong."""


class RecordError(PromptSearchError):
    """A log or another file of a run is damaged."""


class FileError(PromptSearchError):
    """A file or folder cannot be read or written.

    The disk is full, a right is missing, or something else stands in its place.

    Args:
        message: What happened, what is safe, and what to do.
        everywhere: Whether other files beside it would fail in the same way.
    """

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class ExportError(PromptSearchError):
    """A format cannot hold a prompt exactly."""


class BudgetExhausted(PromptSearchError):
    """The next piece of work costs more than is left of the budget.

    It ends a run in good order and is never an error of the user.
    """


class Diverged(PromptSearchError):
    """A loss or a gradient is no finite number any more.

    It ends a run in good order, with the best prompt scored before.
    """


class NothingUsable(PromptSearchError):
    """Time and again a proposer gave no usable prompt, or training no lower loss.

    It ends a run in good order, with the best prompt scored before.
    """


class UnknownName(PromptSearchError):
    """A name that is not in a list of names.

    Args:
        kind: The kind of thing that is named, in the singular: `strategy`, `task`, `option`.
        name: The name that was given.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        names = sorted(known)
        close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        name = name if len(name) <= 100 else f"{name[:97]}..."
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}.")
