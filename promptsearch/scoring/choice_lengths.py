"""The lengths by which log-probabilities of answers to choose from are divided."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.scoring.answer_ids import options_of
from promptsearch.scoring.split_layout import SplitLayout
from promptsearch.tasks.normalise import Normalise, answer_lengths
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template


def choice_lengths(
    normalise: Normalise,
    template: Template,
    lm: LanguageModel,
    split: Split,
    choices: Sequence[str] | None,
    layout: SplitLayout,
) -> Tensor | None:
    """The lengths by which log-probabilities of answers to choose from are divided.

    Args:
        normalise: The unit of length.
        template: The template, which may put a space before answers.
        lm: The model, which counts tokens.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        layout: The layouts of the examples.

    Returns:
        Shape `(examples, options)`, 0 where an example has fewer answers; None where nothing is
        divided and all have as many, and for text answers.
    """
    most = layout.options
    some = any(len(each.answers) < most for each in layout.layouts)
    if not most or not (some or normalise != "none"):
        return None
    table = torch.zeros(len(split), most, dtype=torch.float64)
    for row, example in zip(table, split.examples, strict=True):
        options = options_of(example, choices) or ()
        found = answer_lengths(normalise, template, options, lm.count_answer)
        row[: len(found)] = torch.tensor(found, dtype=torch.float64)
    return table
