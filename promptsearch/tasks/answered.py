"""Examples with the answers that a model gave, as metrics see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.examples import Example
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


@dataclass(frozen=True)
class Reader:
    """What tells the answers of a task, and what a metric says of each.

    Args:
        choices: The task's choices; None for text answers, and where the choices differ by row.
        metric: The metric.
        decoding: The way in which text answers are generated.
    """

    choices: tuple[str, ...] | None
    metric: Metric
    decoding: Decoding = Decoding()  # noqa: RUF009 - it cannot be changed


def generated(examples: Sequence[Example], texts: Sequence[str]) -> list[Answered]:
    """Examples with generated answers.

    Args:
        examples: The examples.
        texts: The answer to each of them, up to its end.
    """
    return [
        Answered(
            output=text.strip(),
            references=_stripped(example.right),
            fields=example.fields,
        )
        for example, text in zip(examples, texts, strict=True)
    ]


def chosen(
    examples: Sequence[Example],
    choices: Sequence[str],
    nats: Floats | None,
    right: Sequence[float],
) -> list[Answered]:
    """Examples with chosen answers.

    Args:
        examples: The examples.
        choices: The task's choices, for examples that have no options of their own.
        nats: Log-probabilities over the choices, shape `(examples, choices)`, NaN behind the last
            option of an example; None where no more is known than right and wrong.
        right: 1 where the answer is right, else 0, shape `(examples,)`.
    """
    rows = []
    said: int | None
    probabilities: tuple[float, ...]
    for place, example in enumerate(examples):
        texts = example.options or choices
        said, probabilities = example.choice if right[place] else None, ()
        if nats is not None:
            own = nats[place, : len(texts)]
            said = _said(own, example.choice, right[place])
            probabilities = tuple(np.exp(own).tolist())
        rows.append(
            Answered(
                output="" if said is None else texts[said].strip(),
                references=_stripped(example.references),
                fields=example.fields,
                label=example.choice,
                prediction=said,
                probabilities=probabilities,
            )
        )
    return rows


def as_if_answered(examples: Sequence[Example], choices: Sequence[str] | None) -> list[Answered]:
    """Examples as if they had been answered, to try metrics on before anything is scored.

    All texts are right. Among answers to choose from, each third row of a right answer is wrong.

    Args:
        examples: The examples.
        choices: The task's choices; None for text answers, and where the choices differ by row.
    """
    if not examples or examples[0].choice is None:
        return generated(examples, [example.answer for example in examples])
    sizes = [len(example.options or choices or ()) for example in examples]
    nats, right = np.full((len(examples), max(sizes)), np.nan), np.ones(len(examples))
    met: Counter[int | None] = Counter()
    for place, (example, size) in enumerate(zip(examples, sizes, strict=True)):
        met[example.choice] += 1
        right[place] = met[example.choice] % 3 != 0
        said = ((example.choice or 0) + (not right[place])) % size
        nats[place, :size] = np.log(0.5 / size + 0.5 * (np.arange(size) == said))
    return chosen(examples, choices or (), nats, right.tolist())


def _said(nats: Floats, label: int | None, right: float) -> int:
    """The place of the answer given: the most probable one.

    Rounding may have made two of them the same: whether the right one was given is known.
    """
    if right and label is not None:
        return label
    others = [place for place in range(len(nats)) if place != label]
    return max(others, key=lambda place: (nats[place], -place))


def _stripped(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)
