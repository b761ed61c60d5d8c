"""Scores: losses, right or wrong, log-probabilities of choices, and their form in a log line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Why a prompt was left out whose price was more than what was left.
UNPAID = "it costs more than what was left of the budget"

Floats = NDArray[np.float64]
ExampleIds = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """What a scorer found.

    Args:
        losses: Nats, shape `(prompts, examples)`; NaN in the rows of failed prompts.
        metric: 1 where the answer is right, else 0, shape `(prompts, examples)`; NaN likewise.
        choices: Log-probabilities, normalised over the choices, shape `(prompts, examples,
            choices)`; NaN likewise; None for text answers. Where the number of choices differs by
            example, NaN stands behind those of an example that has fewer, as null in a log line.
        computed: Tokens that went through the LM.
        failures: Prompt index -> reason.
        generated: Tokens that were generated to find them, and are charged as those read are.
        followed: The metric that takes the place of the loss: `losses` are then minus what each
            example adds to it; empty for nats.
    """

    losses: Floats
    metric: Floats
    choices: Floats | None
    computed: int
    failures: dict[int, str] = field(default_factory=dict)
    generated: int = 0
    followed: str = ""


@dataclass(frozen=True)
class Generated:
    """The answers that a scorer generated.

    Args:
        texts: For each prompt and each example, its answers up to their end: one, or as many as are
            drawn. The empty tuple stands for a prompt that failed.
        ended: Whether each of them came to its end before its last token, in the same form.
        tokens: The number of tokens that were generated, ends and those of all beams among them,
            shape `(prompts, examples)`; 0 likewise.
        computed: Tokens that went through the LM.
        failures: Prompt index -> reason.
    """

    texts: list[list[tuple[str, ...]]]
    ended: list[list[tuple[bool, ...]]]
    tokens: ExampleIds
    computed: int
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What the objective tells of the prompts of one ask.

    Where the search follows a metric, its loss is minus the metric, so that lower stays better.

    Args:
        values: What to rank by, lower is better, shape `(prompts,)`: the mean loss; +inf for a
            failed prompt.
        losses: Nats, or minus what each example adds to the metric that is followed, shape
            `(prompts, examples)`; NaN = not scored, nothing else.
        metric: 1 right, 0 wrong, NaN not scored, shape `(prompts, examples)`.
        choices: Log-probabilities over the choices, shape `(prompts, examples, choices)`, NaN where
            an example has fewer; None for text answers.
        examples: The ids of the examples, shape `(examples,)`, the same for all prompts.
        failures: Prompt index -> reason.
        price: Tokens charged.
        computed: Tokens that the engine really ran.
    """

    values: Floats
    losses: Floats
    metric: Floats
    choices: Floats | None
    examples: ExampleIds
    failures: dict[int, str]
    price: int
    computed: int

    @staticmethod
    def of(rows: Sequence[Row], ids: ExampleIds, price: int, computed: int) -> Evaluation:
        """The evaluation of prompts, of their rows on the same examples."""
        choices = [row.choices for row in rows if row.choices is not None]
        return Evaluation(
            values=np.array([row.value for row in rows]),
            losses=np.stack([row.losses for row in rows]),
            metric=np.stack([row.metric for row in rows]),
            choices=None if len(choices) < len(rows) else np.stack(choices),
            examples=ids.copy(),
            failures={i: row.failure for i, row in enumerate(rows) if row.failure},
            price=price,
            computed=computed,
        )

    @property
    def unpaid(self) -> int:
        """The number of prompts that were left out since they cost more than what was left."""
        return list(self.failures.values()).count(UNPAID)


@dataclass(frozen=True)
class Row:
    """One prompt's scores on one group of examples."""

    losses: Floats  # (examples,)
    metric: Floats  # (examples,)
    choices: Floats | None  # (examples, choices)
    failure: str | None
    # What to rank by: the mean loss, or a race's estimate of it; +inf for a failed prompt.
    value: float

    @property
    def complete(self) -> bool:
        """Whether all examples were scored."""
        return bool(np.isfinite(self.losses).all())

    @staticmethod
    def filled(rows: Sequence[Row | None]) -> list[Row]:
        """Rows on the same examples, with one that was not paid in each place without a row."""
        known = next(row for row in rows if row is not None)
        nothing = np.full_like(known.losses, np.nan)
        choices = None if known.choices is None else np.full_like(known.choices, np.nan)
        unpaid = Row(nothing, nothing, choices, UNPAID, float("inf"))
        return [unpaid if row is None else row for row in rows]

    @staticmethod
    def joined(rows: Sequence[Row | None]) -> Scores | None:
        """The scores in rows on the same examples; None where a row is missing or not complete."""
        whole = [row for row in rows if row is not None and row.complete]
        if len(whole) < len(rows):
            return None
        choices = [row.choices for row in whole if row.choices is not None]
        return Scores(
            np.stack([row.losses for row in whole]),
            np.stack([row.metric for row in whole]),
            np.stack(choices) if choices else None,
            computed=0,
        )


def not_finite(losses: Floats, choices: Floats | None) -> tuple[str, int, float] | None:
    """The first score of a prompt that is no finite number; None where all are.

    Args:
        losses: Its losses, shape `(examples,)`.
        choices: Its log-probabilities, shape `(examples, choices)`, as in `Scores`.

    Returns:
        What it is, the place of its example, and its value.
    """
    found = {"loss": losses}
    if choices is not None:  # the minimum passes over what an example does not have
        found["least log-probability of a choice"] = np.fmin.reduce(choices, axis=-1)
    for noun, values in found.items():
        if (odd := np.flatnonzero(~np.isfinite(values))).size:
            return noun, int(odd[0]), float(values[odd[0]])
    return None


def clear_failed(
    failures: Iterable[int], losses: Floats, metric: Floats, choices: Floats | None
) -> None:
    """Take out all that was found of prompts that failed, in place: NaN stands in their rows.

    Args:
        failures: The places of these prompts.
        losses: As in `Scores`.
        metric: As in `Scores`.
        choices: As in `Scores`.
    """
    for i in failures:
        losses[i] = metric[i] = np.nan
        if choices is not None:
            choices[i] = np.nan


def scores_to_json(scores: Scores, values: Floats | None = None) -> dict[str, Any]:
    """Scores as they stand in a log line: six decimals, null for what was not scored.

    What is told is read from the line, so that a replayed run sees the same numbers to the last
    digit.

    Args:
        scores: The scores of one line's prompts.
        values: What a race ranks them by, shape `(prompts,)`; None without a race: the mean loss.
    """

    def rows(table: Floats) -> list[Any]:
        return [_row_to_json(row) for row in table]

    return {
        "losses": rows(scores.losses),
        "metric": rows(scores.metric),
        "choices": None if scores.choices is None else rows(scores.choices),
        "failures": {str(i): reason for i, reason in scores.failures.items()},
        "computed": scores.computed,
        **({"generated": scores.generated} if scores.generated else {}),
        **({"followed": scores.followed} if scores.followed else {}),
        **(
            {}
            if values is None
            else {"values": _row_to_json(np.where(np.isinf(values), np.nan, values))}
        ),
    }


def _row_to_json(row: Floats) -> list[Any] | None:
    """Six decimals; null for each NaN, and for a row of nothing else."""
    missing = np.isnan(row)
    rounded = np.round(row, 6)
    return (
        None
        if missing.all()
        else list(
            (np.where(missing, np.array(None), rounded) if missing.any() else rounded).tolist()
        )
    )


def scores_from_json(data: dict[str, Any]) -> Scores:
    """Scores without failures, as `scores_to_json` gave them."""

    def table(rows: Any) -> Floats:
        return np.asarray(rows, dtype=np.float64)

    choices = None if data["choices"] is None else table(data["choices"])
    more = {"generated": data.get("generated", 0), "followed": data.get("followed", "")}
    return Scores(table(data["losses"]), table(data["metric"]), choices, data["computed"], **more)


def generated_to_json(found: Generated) -> dict[str, Any]:
    """Generated answers as they stand in a log line, null for a prompt that failed."""

    def rows(table: list[list[tuple[Any, ...]]]) -> list[Any]:
        return [
            None if i in found.failures else [list(drawn) for drawn in row]
            for i, row in enumerate(table)
        ]

    ended = [[tuple(map(int, drawn)) for drawn in row] for row in found.ended]
    return {
        "texts": rows(found.texts),
        "ended": rows(ended),
        "generated": int(found.tokens.sum()),
        "failures": {str(i): reason for i, reason in found.failures.items()},
        "computed": found.computed,
    }


def rounded(scores: Scores) -> Scores:
    """Scores as they will come back from a log line or the cache."""
    choices = None if scores.choices is None else np.round(scores.choices, 6)
    return replace(
        scores,
        losses=np.round(scores.losses, 6),
        metric=np.round(scores.metric, 6),
        choices=choices,
    )


def rows_of(line: dict[str, Any], examples: int) -> list[Row]:
    """The rows of a log line, one a prompt."""
    shape = next((np.shape(row) for row in line["choices"] or [] if row is not None), None)

    def row(values: Any, size: tuple[int, ...]) -> Floats:
        return np.full(size, np.nan) if values is None else np.asarray(values, dtype=np.float64)

    found = []
    for i in range(len(line["prompts"])):
        losses = row(line["losses"][i], (examples,))
        # A race that the budget ends before its first look leaves some out.
        unpaid = UNPAID if line["losses"][i] is None else None
        value = (
            losses.mean()
            if np.isfinite(losses).all() or not line.get("values")
            else line["values"][i]
        )
        found.append(
            Row(
                losses=losses,
                metric=row(line["metric"][i], (examples,)),
                choices=None if shape is None else row(line["choices"][i], shape),
                failure=line["failures"].get(str(i), unpaid),
                value=float("inf") if value is None or np.isnan(value) else float(value),
            )
        )
    return found
