"""The calibration error, by hand and against its definition over bins."""

import numpy as np
import pytest

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows, measured


def by_definition(labels, probabilities, bins):
    """Equation 3 of Guo et al., bin by bin."""
    sure, said = probabilities.max(1), probabilities.argmax(1)
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            gap = abs((said == labels)[inside].mean() - sure[inside].mean())
            total += inside.mean() * gap
    return total


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_it_is_the_definition(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], size=200)
    labels = rng.integers(3, size=200)
    rows = choice_rows(labels, probabilities.argmax(1), probabilities)
    found = measured(find_metric("calibration_error", {"bins": bins}), rows)
    assert found.score == pytest.approx(by_definition(labels, probabilities, bins))
    again = found.score_of(found.statistics[:50].sum(0), 50)
    assert again == pytest.approx(by_definition(labels[:50], probabilities[:50], bins))


def test_a_probability_between_two_bins_belongs_to_the_lower_one():
    rows = choice_rows([0, 1, 0, 0], [0, 0, 0, 0], [[0.75, 0.25]] * 2 + [[0.5, 0.5]] * 2)
    found = measured(find_metric("calibration_error", {"bins": 4}), rows)
    assert (found.statistics != 0).sum(0).tolist() == [0, 2, 2, 0]
    assert found.score == pytest.approx((abs(0.75 - 1 + 0.75) + abs(0.5 - 1) * 2) / 4)


def test_a_model_that_is_as_sure_as_it_is_right_has_none():
    rows = choice_rows([0, 1, 0, 0], [0, 0, 0, 0], [[0.75, 0.25]] * 4)
    assert find_metric("calibration_error").of(rows) == pytest.approx(0)


def test_probabilities_are_needed():
    with pytest.raises(TaskError, match="needs the probabilities"):
        measured(find_metric("calibration_error"), choice_rows([0], [0]))
