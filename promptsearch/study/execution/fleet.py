"""What the processes of a study have to have in common: model, tokenizer, data, dtype and code.

Each process shows its own before it makes a run. Numbers of other code, or of another torch, may
differ in more than their last digits, and would stand beside each other in one table.
"""

from __future__ import annotations

from collections.abc import Mapping

from promptsearch.errors import StudyError
from promptsearch.records.provenance import versions
from promptsearch.study.draws import hash_of_split
from promptsearch.study.prepare import Prepared

#: The digits of a hash that people are shown.
_DIGITS = 12


def shown_by(prepared: Prepared) -> dict[str, str]:
    """What this process makes runs with: hashes and versions by name.

    Args:
        prepared: The study as it is here.
    """
    found = {
        "model": prepared.exact.hash,
        "tokenizer": prepared.lm.tokenizer_hash,
        "dtype": str(prepared.dtype).removeprefix("torch."),
    }
    for task in prepared.tasks:
        for name in task.splits:
            split = hash_of_split(task, name, prepared.config)
            found[f"{name} split of {task.name}"] = split
    return found | versions()


def in_words(shown: Mapping[str, str]) -> str:
    """What a process shows, on one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in shown.items())


def differing(wanted: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, str]:
    """What a process has otherwise than it should be; what only one of them tells is left out.

    Args:
        wanted: What the study was begun with.
        shown: What the process has.
    """
    return {name: shown[name] for name in wanted if shown.get(name, wanted[name]) != wanted[name]}


def check_alike(
    wanted: Mapping[str, str], shown: Mapping[str, str], who: str, mixed: bool
) -> dict[str, str]:
    """Refuse a process that would make runs with something else, unless that is wanted.

    Args:
        wanted: What the study was begun with.
        shown: What the process has.
        who: The process, for the message.
        mixed: Whether it may take part all the same.

    Returns:
        What it has otherwise, which is to be recorded where it makes a run.

    Raises:
        StudyError: There is something, and it may not take part.
    """
    others = differing(wanted, shown)
    if others and not mixed:
        told = ", ".join(
            f"{name} {_short(value)} instead of {_short(wanted[name])}"
            for name, value in others.items()
        )
        raise StudyError(
            f"{who} is not like the process that began this study: it has {told}. Give all "
            "processes the same, name another folder with --out, or say --mixed, which records it"
        )
    return others


def _short(value: str) -> str:
    """A hash by its first digits; names with spaces, such as those of processors, are whole."""
    return value if " " in value else value[:_DIGITS]
