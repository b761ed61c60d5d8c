"""A judge: a language model that is asked of each answer whether it will do.

Judges agree with people on some questions and not on others (arXiv:2601.07648), so a judge is
pinned by its signature, its agreement with labels is measured on a sample, and it is never the only
metric of a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol, Self

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.printable import brief
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed

#: A field in a question, also one within a field; not a word in two pairs of braces.
_FIELD = re.compile(r"(?<!\{)\{(\w+(?:\.\w+)*)\}(?!\})")
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class Asked(Protocol):
    """A language model that is asked; whoever hands it in charges its tokens."""

    @property
    def signature(self) -> str:
        """Which model it is, and how it is asked, in one word."""
        ...

    def answers(self, requests: Sequence[str]) -> list[str]:
        """The model's answer to each request.

        Args:
            requests: The whole texts of the requests.
        """
        ...


class Judge(Metric):
    """The share of answers that a language model says yes to.

    Args:
        question: What it is asked, with {output} and any of {reference} and the row's fields in it;
            it should ask for yes or no. What stands in two pairs of braces stays as it is.
    """

    name = "judge"
    answers = "any"
    mean = True
    alone = False

    def __init__(self, *, question: str) -> None:
        if "{output}" not in question:
            raise TaskError("the judge's question lacks {output}, which stands for the answer")
        self.question = question
        #: The model that is asked; None before one is handed in.
        self.asked: Asked | None = None

    @property
    def signature(self) -> str:
        """Says which model is asked, and what."""
        what = sha256(self.question.encode()).hexdigest()[:12]
        return signed(self.name, model=self.asked.signature if self.asked else "?", question=what)

    def over(self, asked: Asked) -> Self:
        """The same metric with this model to ask.

        Args:
            asked: The model.
        """
        self.asked = asked
        return self

    def check(self, rows: Sequence[Answered]) -> None:
        """Refuse rows that lack a field that the question names."""
        for row in rows:
            self.request(row)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """1 where the model says yes, 0 where it says no."""
        if self.asked is None:
            raise TaskError(f"the metric '{self.name}' has no model to ask: hand it in by `over`")
        said = self.asked.answers([self.request(row) for row in rows])
        return np.array([[_verdict(number, text)] for number, text in enumerate(said)])

    def request(self, row: Answered) -> str:
        """What the model is asked of a row.

        Args:
            row: The row.

        Raises:
            UnknownName: The question names a field that the row does not have.
        """
        given = {**row.fields, "reference": row.references[0], "output": row.output}

        def filled(found: re.Match[str]) -> str:
            if found[1] not in given:
                raise UnknownName("field", found[1], given)
            return given[found[1]]

        return _FIELD.sub(filled, self.question)


class Agreement(NamedTuple):
    """How a judge agrees with labels.

    Args:
        share: The share of rows on which they agree.
        kappa: Cohen's kappa: 0 for agreement by chance, 1 for full agreement; NaN where both always
            say the same one thing.
        rows: The number of rows.
    """

    share: float
    kappa: float
    rows: int


def agreement(judged: Sequence[float], labels: Sequence[float]) -> Agreement:
    """The agreement of a judge with people, or with another metric, on the same rows.

    Args:
        judged: What the judge said, 1 or 0 each.
        labels: What is right, 1 or 0 each.
    """
    one, other = np.asarray(judged, dtype=float), np.asarray(labels, dtype=float)
    share = float((one == other).mean())
    chance = float(one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean()))
    kappa = (share - chance) / (1 - chance) if chance < 1 else float("nan")
    return Agreement(share, kappa, len(one))


def _verdict(number: int, text: str) -> float:
    found = _VERDICT.match(text)
    if found is None:
        raise TaskError(f"the judge said neither yes nor no of row {number + 1}: {brief(text)}")
    return float(found.group(1).lower() == "yes")
