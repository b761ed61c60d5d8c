"""The range test finds the rate that a loss stands."""

import numpy as np
import pytest

from promptsearch.errors import Diverged
from promptsearch.search.learning_rate import RATES, find_rate


class Bowl:
    """Steps of sign descent, as Adam's first ones are, in a bowl of some width."""

    def __init__(self, width, start=1.0):
        self.width, self.at, self.rates = width, start * width * np.ones(8), []

    def __call__(self, rate):
        loss = float(np.mean((self.at / self.width) ** 2))
        if loss > 1e6:
            raise Diverged("too far")
        self.at = self.at - rate * np.sign(self.at)
        self.rates.append(rate)
        return loss


@pytest.mark.parametrize("width", [1e-3, 1e-2, 1e-1])
def test_the_rate_follows_the_width_of_the_bowl(width):
    rate, seen = find_rate(Bowl(width))
    assert width / 20 < rate < width
    assert min(loss for _, loss in seen) < 0.3


def test_the_losses_are_those_after_the_step_of_each_rate():
    bowl = Bowl(0.1)
    _, seen = find_rate(bowl)
    assert [rate for rate, _ in seen] == bowl.rates[: len(seen)]
    assert seen[0][1] == pytest.approx((1 - RATES[0] / 0.1) ** 2)


def test_it_ends_where_the_loss_is_ruined():
    bowl = Bowl(1e-3)
    find_rate(bowl)
    assert max(bowl.rates) < 0.1, "rates far beyond cost nothing"


def test_a_loss_that_diverges_ends_it():
    def step(rate):
        if rate > 1e-3:
            raise Diverged("nan")
        return 1.0 - rate

    rate, seen = find_rate(step)
    assert rate < 1e-3 and len(seen) > 2


def test_a_loss_that_diverges_at_once_leaves_the_lowest_rate():
    def step(rate):
        raise Diverged("nan")

    assert find_rate(step) == (float(f"{RATES[0] / 3:.2g}"), [])
