"""What the records of a run say twice, in one file or in several, must agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np

from promptsearch.printable import brief
from promptsearch.records.measured import ExamplesRecord
from promptsearch.records.metrics import RIGHT_OR_WRONG, SAME, check_metrics, same
from promptsearch.records.run import RunRecord, SettingsRecord
from promptsearch.records.study import StudyRecord, TaskRecord
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows

#: The loss in nats below which the right answer is the most probable one, without a tie.
_CERTAIN = math.log(2) - 1e-4


def check_study(study: StudyRecord) -> None:
    """See that what a study's file holds of its rows and splits can be looked up.

    Args:
        study: The study as its `study.json` has it.

    Raises:
        ValueError: It cannot; the message says where.
    """
    rows = study.settings.get("strategies", [])
    if not isinstance(rows, list):
        raise ValueError(f"settings.strategies: expected a list, got {brief(rows)}")
    for at, row in enumerate(rows):
        where, given = f"settings.strategies.{at}", None
        if isinstance(row, dict) and len(row) == 1:
            given = next(iter(row.values()))
        if not isinstance(given, dict):
            raise ValueError(f"{where}: expected one name with its options, got {brief(row)}")
        if not isinstance(given.get("label"), str):
            raise ValueError(f"{where} has no label")
        seeds = given.get("seeds")
        if seeds is not None and (type(seeds) is not int or seeds < 1):
            raise ValueError(f"{where}: expected a whole number of seeds, got {brief(seeds)}")
    for name, task in study.tasks.items():
        for split in ("search", "select", "test"):
            if split not in task.splits:
                raise ValueError(f"tasks.{name}.splits has no '{split}'")


def check_run(run: RunRecord, study: StudyRecord) -> None:
    """See that a finished run does not contradict itself or the settings of its study.

    Args:
        run: The run as its `result.json` has it.
        study: Its study.

    Raises:
        ValueError: It contradicts itself or them; the message says where.
    """
    if run.seed not in study.seeds:
        raise ValueError(f"its seed {run.seed} is none of the study's")
    if run.spent != run.ledger.spent:
        raise ValueError(f"spent is {run.spent}, and its ledger adds up to {run.ledger.spent}")
    if run.ledger.budget != run.budget:
        raise ValueError(f"its budget is {run.budget}, and that of its ledger {run.ledger.budget}")
    if run.ledger.left < 0:
        raise ValueError(f"it spent {run.spent} tokens of a budget of {run.budget}")
    ranked = pays_as_ranked(run.budget, study.budget, control=bool(run.control))
    if run.start is None and not run.reference and not ranked:
        raise ValueError(f"its budget is {run.budget}, and that of the study {study.budget}")
    same("gap", run.gap, run.test.loss - run.search.loss_fp32)
    _check_curve(run)
    task = study.tasks[run.task]
    check_scores("select", run.select, task, task.splits["select"].size)
    check_scores("test", run.test, task, task.splits["test"].size)


def pays_as_ranked(budget: int | None, study: int, *, control: bool) -> bool:
    """Whether a run has the budget of what is ranked: the study's; a control may have less.

    To lose to one that had less is no better for a search.

    Args:
        budget: What the run may spend, in LM tokens; None for no limit.
        study: The study's budget.
        control: Whether the run is one of a control.
    """
    return budget == study or (control and budget is not None and budget < study)


def check_settings(run: RunRecord, settings: SettingsRecord) -> None:
    """See that a run is the one that its `run.json` announced.

    Args:
        run: The run as its `result.json` has it.
        settings: The settings in `run.json`.

    Raises:
        ValueError: It is another one; the message says in what it differs.
    """
    announced = asdict(settings)
    for key, value in asdict(run.told(settings.length)).items():
        if announced[key] != value:
            raise ValueError(f"its {key} is {value!r}, and that in run.json {announced[key]!r}")


def check_scores(name: str, score: ExamplesRecord, task: TaskRecord, size: int) -> None:
    """See that loss and metric on a split are those of its examples.

    Args:
        name: The split's name.
        score: The scores on the split.
        task: The split's task.
        size: The number of examples in the split.

    Raises:
        ValueError: They are not; the message says where.
    """
    for key in ("losses", "correct", "predictions", "labels", "shares", "outputs", "probabilities"):
        values = getattr(score, key)
        if values is not None and len(values) != size:
            raise ValueError(
                f"{name}.{key} has {len(values)} entries, the {name} split {size} examples"
            )
    same(f"{name}.loss", score.loss, float(np.mean(score.losses)))
    if min(score.losses) < -SAME:
        raise ValueError(f"{name}.losses has {min(score.losses)}, below 0")
    if not set(score.correct) <= {0, 1}:
        raise ValueError(f"{name}.correct has other values than 0 and 1")
    if (score.predictions is None) != (score.labels is None) or (
        score.labels is not None and task.kind != "choices"
    ):
        raise ValueError(f"{name} has predictions or labels that the task does not have")
    if score.labels is not None and score.predictions is not None:
        choices = task.options or len(task.choices or ())
        _check_answers(name, score, score.predictions, score.labels, choices)
    if score.metrics:
        check_metrics(name, score, task, size)
    elif score.metric is None:
        generated = task.kind == "text" and (name != "test" or score.metric_failed)
        if not generated and (":" not in task.metric or not score.metric_failed):
            raise ValueError(f"{name}.metric is missing, and nothing says why")
    elif task.metric in RIGHT_OR_WRONG:
        same(f"{name}.metric", score.metric, float(np.mean(score.correct)))
    elif task.metric in ("balanced_accuracy", "f1") and score.labels is not None:
        # Others need more than is recorded, or are a stranger's code, which is not run here.
        rows = choice_rows(score.labels, score.predictions or ())
        same(f"{name}.metric", score.metric, find_metric(task.metric).of(rows))


def _check_answers(
    name: str,
    score: ExamplesRecord,
    predictions: Sequence[int],
    labels: Sequence[int],
    choices: int,
) -> None:
    for key, values in (("predictions", predictions), ("labels", labels)):
        if not all(0 <= value < choices for value in values):
            raise ValueError(f"{name}.{key} has {max(values)}, and the task {choices} choices")
    for i, (right, said, label, loss) in enumerate(
        zip(score.correct, predictions, labels, score.losses, strict=True)
    ):
        tied = (
            _CERTAIN < loss < math.log(choices) + 1e-4
        )  # then rounding may tell the one, and not the other
        if (said == label) != bool(right) and not tied:
            raise ValueError(f"{name}.correct contradicts prediction and label of example {i}")


def _check_curve(run: RunRecord) -> None:
    tokens, losses = [point[0] for point in run.curve], [point[1] for point in run.curve]
    shown = [point[0] for point in run.select_curve]
    if any(a > b for a, b in pairwise(shown)) or (shown and shown[-1] > run.spent):
        raise ValueError("its select_curve goes back, or on after what was spent")
    if (
        any(a > b for a, b in pairwise(tokens))
        or any(a < b for a, b in pairwise(losses))
        or (tokens and tokens[-1] > run.spent)
    ):
        raise ValueError("its curve goes back, or on after what was spent")
    if losses and run.search.loss < losses[-1] - SAME:
        raise ValueError(
            f"search.loss is {run.search.loss}, less than the least of its curve, {losses[-1]}"
        )
