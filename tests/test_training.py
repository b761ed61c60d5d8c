"""Wrong options of trained strategies are named before anything is trained."""

import pytest

from promptsearch.errors import StrategyError
from promptsearch.strategy import find_strategy, make_strategy
from promptsearch.testing.planted import planted_objective


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("p_tuning", {"batch": 0}, "'batch' must be at least 1, got 0"),
        ("p_tuning", {"interval": 0}, "'interval' must be at least 1, got 0"),
        ("p_tuning", {"patience": -1}, "'patience' must be at least 0, got -1"),
        ("p_tuning", {"hidden": 1}, "'hidden' must be at least 2, got 1"),
        ("prompt_tuning", {"rate": 0.0}, "'rate' must be a number above 0, got 0.0"),
        ("prompt_tuning", {"rate": float("inf")}, "'rate' must be a number above 0, got inf"),
        ("prompt_tuning", {"text": ""}, "'text' is empty"),
        ("prefix_tuning", {"text": ""}, "'text' is empty"),
        ("prefix_tuning", {"hidden": 0}, "'hidden' must be at least 1, got 0"),
        ("prefix_tuning", {"rate": 0.0}, "'rate' must be a number above 0, got 0.0"),
    ],
)
def test_wrong_options_are_named(name, options, complaint):
    with pytest.raises(StrategyError, match=f"^{complaint}"):
        make_strategy(name, find_strategy(name), planted_objective(), 0, options)
