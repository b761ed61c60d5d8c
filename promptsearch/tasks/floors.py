"""What a task is worth without a language model: bars that a prompt should pass.

Nothing here reads a test label but to score what was answered before.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from promptsearch.errors import TaskError
from promptsearch.tasks.answered import generated
from promptsearch.tasks.examples import Example
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered
from promptsearch.tasks.task import Task

#: The names of the bars, as reports show them.
FREQUENT, CLASSIFIER, GUESS, COPY = (
    "the most frequent answer of the search split",
    "TF-IDF + logistic regression",
    "a guess",
    "a copy of the input",
)
T = TypeVar("T")


def majority(task: Task) -> float:
    """The share of the test split of which the most frequent right answer is one.

    Options that differ by row have nothing but their places in common, which are counted then.
    """
    test = task.splits["test"].examples
    answers = Counter(
        answer
        for example in test
        for answer in ({str(example.choice)} if task.options_by_row else set(example.right))
    )
    return max(answers.values()) / len(test)


def floors(task: Task) -> dict[str, float]:
    """The test metric of answers that no language model gave, by what gave them.

    For choices, logistic regression on TF-IDF weights of words and pairs of words, trained on the
    search split (scikit-learn's, with its defaults). For options that differ by row, a guess among
    them. For text answers, the input copied. Where the metric is no mean over rows, and `majority`
    not comparable with it, also the most frequent answer of the search split. What cannot be
    measured is left out: a metric that is the study's own code, or whose library is missing.

    Args:
        task: The task.
    """
    search, test = (task.splits[split].examples for split in ("search", "test"))
    if ":" in task.metric:
        return {}
    try:
        metric = find_metric(task.metric, task.metrics.get(task.metric, {}))
        found = _answered(task, search, test)
        if metric.mean:
            found.pop(FREQUENT, None)
        scores = {bar: measured(metric, rows).score for bar, rows in found.items() if rows}
    except TaskError:  # a library is missing, or the metric needs more than answers
        return {}
    if metric.name == "accuracy" and task.options_by_row:
        scores[GUESS] = sum(1 / len(example.options or ()) for example in test) / len(test)
    return scores


def _answered(
    task: Task, search: Sequence[Example], test: Sequence[Example]
) -> dict[str, list[Answered]]:
    """The rows of the test split as each bar answers them; none where it cannot."""
    if task.options_by_row:
        return {}
    if task.choices is None:
        most = _frequent([answer for example in search for answer in example.right])
        return {
            FREQUENT: generated(test, [most] * len(test)),
            COPY: generated(test, list(map(_text, test))),
        }
    most_frequent = _frequent([example.choice for example in search])
    return {
        FREQUENT: _chosen(test, task.choices, [most_frequent] * len(test)),
        CLASSIFIER: _chosen(test, task.choices, _classified(search, test)),
    }


def _frequent(answers: Sequence[T]) -> T:
    """The most frequent one, the first of these."""
    return Counter(answers).most_common(1)[0][0]


def _text(example: Example) -> str:
    return " ".join(example.fields.values())


def _classified(search: Sequence[Example], test: Sequence[Example]) -> list[int | None]:
    """What a classifier of words answers; empty where there is nothing to tell apart."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = [example.choice for example in search]
    if len(set(labels)) < 2:
        return []
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    classifier = make_pipeline(words, LogisticRegression(max_iter=1000))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(list(map(_text, search)), labels)
    except ValueError:  # no text holds a word
        return []
    return [int(place) for place in classifier.predict(list(map(_text, test)))]


def _chosen(
    test: Sequence[Example], choices: Sequence[str], given: Sequence[int | None]
) -> list[Answered]:
    """Rows with the choices that were given, none where none were."""
    return [
        Answered(
            output=choices[place or 0].strip(),
            references=(example.answer.strip(),),
            fields=example.fields,
            label=example.choice,
            prediction=place,
            # Certain, for metrics of probabilities.
            probabilities=tuple(float(i == place) for i in range(len(choices))),
        )
        for example, place in zip(test, given, strict=False)
    ]
