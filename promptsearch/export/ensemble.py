"""Ensembles: the winners of a row's seeds answer together.

Lester et al. 2021, arXiv:2104.08691, section 6. Each prompt says how probable each choice is, and
the mean decides. The folder of a row, `STUDY/TASK/STRATEGY`, lists its members: the runs below it,
each with an export of its own. A slim record lists them by its runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import PromptError
from promptsearch.export.prompted import TOGETHER, Choice, PromptedModel, answered
from promptsearch.export.saved import SavedPrompt, load_prompt
from promptsearch.export.winners import PROMPT
from promptsearch.files import exists
from promptsearch.models import LanguageModel
from promptsearch.records.load import STUDY, load_results


@dataclass(frozen=True)
class Ensemble:
    """Found prompts that answer together.

    Args:
        members: The prompts, at least two, of one task.

    Raises:
        PromptError: There are fewer, they have other choices than each other, or answers are text.
    """

    members: tuple[SavedPrompt, ...]

    def __post_init__(self) -> None:
        """Check that their probabilities have a mean."""
        if len(self.members) < 2:
            raise PromptError(f"an ensemble needs at least two members, got {len(self.members)}")
        if any(member.text for member in self.members):
            raise PromptError(
                "the members of an ensemble average how probable each choice is, but the answers "
                "of these are text: use one of them"
            )
        if len({(member.choices, member.options) for member in self.members}) > 1:
            raise PromptError(
                "the members of an ensemble must have the same answers to choose from"
            )

    def apply(
        self, rows: Iterable[Mapping[str, Any]], model: LanguageModel | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer a stream of inputs.

        Args:
            rows: Mappings from field name to value, each with all fields of the template.
            model: The LM, if it is loaded already.

        Yields:
            Each row with `answer` and `probabilities` added, the mean over the members.

        Raises:
            PromptError: A row lacks a field.
        """
        lm = self.members[0].model(model)
        # Changed weights answer alone, so each member has a model of its own around the same LM.
        models = [PromptedModel(lm, member) for member in self.members]
        stream, first = iter(rows), 1
        while some := list(islice(stream, TOGETHER)):
            told = zip(*(each.choose(some, first=first) for each in models), strict=True)
            first += len(some)
            for row, choices in zip(some, told, strict=True):
                yield answered(row, _mean(choices))


def _mean(choices: Sequence[Choice]) -> Choice:
    """The answer that several give together."""
    names = list(choices[0].probabilities)
    shares = np.mean([[choice.probabilities[name] for name in names] for choice in choices], axis=0)
    return Choice(names[int(shares.argmax())], dict(zip(names, shares.tolist(), strict=True)))


def is_row(folder: Path) -> bool:
    """Whether a folder is where a study keeps the runs of a row: `STUDY/TASK/STRATEGY`."""
    folder = folder.absolute()
    if len(folder.parts) < 4 or exists(folder / PROMPT):
        return False
    return exists(folder.parents[1] / STUDY)


def load_ensemble(folder: Path | str) -> Ensemble:
    """Load the winners of all finished runs of a row.

    Args:
        folder: The row's folder, `STUDY/TASK/STRATEGY`, or where it would be beside a slim record.

    Raises:
        PromptError: There are fewer than two, or one of them has no export.
        RecordError: The study's files are damaged.
    """
    folder = Path(folder).absolute()
    task, label = folder.parts[-2:]
    runs = load_results(folder.parents[1]).runs
    seeds = [run.seed for run in runs if (run.task, run.label) == (task, label)]
    return Ensemble(tuple(load_prompt(folder / f"seed{seed}") for seed in seeds))
