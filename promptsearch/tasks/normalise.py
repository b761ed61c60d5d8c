"""The length by which the log-probability of an answer to choose from is divided.

A longer answer is less probable than a shorter one, whatever it says. So scores of multiple choice
are often compared per token, per byte or per character (Brown et al. 2020, arXiv:2005.14165,
section 2.4). `bytes` is what lm-evaluation-harness calls `acc_bytes`, and `characters` its
`acc_norm`: the length is that of the answer's text, without the space that the template puts before
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from promptsearch.tasks.template import Template

#: What an answer's log-probability is divided by: nothing, or its number of these.
Normalise = Literal["none", "tokens", "bytes", "characters"]
#: All of them.
NORMALISES: tuple[Normalise, ...] = get_args(Normalise)


def answer_lengths(
    normalise: Normalise, template: Template, texts: Sequence[str], count: Callable[[str], int]
) -> list[int]:
    """The numbers by which the log-probabilities of answers are divided, at least 1 each.

    Args:
        normalise: The unit of length.
        template: The template, which may put a space before answers.
        texts: The answers, as they stand behind the template.
        count: Gives the number of a text's tokens.
    """
    if normalise == "none":
        return [1] * len(texts)
    if normalise == "tokens":
        return [max(1, count(text)) for text in texts]
    space = " " if template.answer_space else ""
    bare = [text.removeprefix(space) for text in texts]
    return [max(1, len(text.encode() if normalise == "bytes" else text)) for text in bare]
