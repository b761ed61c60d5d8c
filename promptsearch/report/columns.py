"""What the columns of the report mean, in all of its forms."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.records.ledger import MOST_CACHED
from promptsearch.records.study import StudyRecord
from promptsearch.report import ensembles, papers, projection, sizes, training
from promptsearch.report.notation import percent
from promptsearch.report.summary import TaskSummary

#: Column of the table of a task -> what it shows, in one line.
_ALWAYS = {
    "test metric": (
        "mean over seeds and test examples, with its 95 % interval over the choice of both, as far "
        "as the seeds show what can happen; higher is better"
    ),
    "test loss": "mean nats per test example in fp32, with its 95 % interval; lower is better",
    "gap": (
        "test loss minus the winner's fp32 loss on the search examples: what selection flattered, "
        "in nats"
    ),
    "regret": (
        "search loss above that of the reference, which searched the same space with a budget of "
        "its own, in nats; blank where the prompts are no hard prompts of its length"
    ),
    "tokens": (
        "LM tokens charged to a run, mean over seeds, and their share of the budget; with those of "
        "the run that it started from (brought), which that run's budget allowed"
    ),
    "seconds": "wall-clock time of a run, mean over seeds",
    "access": (
        "what the strategy needs of the LM: scores (black box), logits of all words, gradients "
        "(white box) or weights"
    ),
    "prompt": (
        "of the seed with the least loss on the select split; ␣ is a space at an end or one of "
        "several, ⏎ a line break, | parts the slots; of a soft prompt the nearest word of each "
        "vector with its cosine; others are near no words"
    ),
}
#: What the column of a study shows where prices are known.
_COST = (
    "the most that the charged tokens of a run cost, mean over seeds, in the currency of the prices"
)
#: What the column of a study shows where the sizes of its models are known.
_FLOPS = (
    "the floating-point operations that the charged tokens stand for, mean over seeds: 2N each for "
    "the model's N weights without embeddings (Kaplan et al. 2020), whatever the engine saved"
)


#: What is said of the seconds of a study besides where runs found their scores in the cache.
_CACHED = (
    f"; left out are runs that found more than {percent(MOST_CACHED)} of their tokens in the cache "
    "of scores, and – stands where no others are left"
)


def columns(study: StudyRecord, tasks: Sequence[TaskSummary]) -> dict[str, str]:
    """The columns with what they show in a study.

    Args:
        study: The study's record.
        tasks: All of its tasks.
    """
    shown = dict(_ALWAYS)
    if not all(run.timed for task in tasks for row in task.rows for run in row.runs):
        shown["seconds"] += _CACHED
    if any(task.counted for task in tasks):
        shown["FLOPs"] = _FLOPS
    if any(task.priced for task in tasks):
        shown["cost"] = _COST
    if study.model.served:  # in the server's own arithmetic
        shown["test loss"] = shown["test loss"].replace(" in fp32", "")
        shown["gap"] = shown["gap"].replace("fp32 ", "")
        if study.model.served.get("scores") == "errors":
            shown["test loss"] = (
                "share of test examples for which the model wrote another text than the answer, "
                "with its 95 % interval; lower is better"
            )
            shown["gap"] = shown["gap"].replace(", in nats", "")
    if any(not task.scale.higher_is_better for task in tasks):
        shown["test metric"] += ", beside ↓ a lower one"
    if study.select_by == "metric":
        shown["prompt"] = shown["prompt"].replace("the least loss", "the best metric")
    shown |= ensembles.COLUMNS | sizes.COLUMNS | projection.COLUMNS | training.COLUMNS
    return shown | papers.columns(tasks)
