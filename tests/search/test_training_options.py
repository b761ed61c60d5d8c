"""What trained strategies share stands in each one's signature, docstring and options."""

from __future__ import annotations

import inspect

import pytest

from promptsearch import Objective, TrainedStrategy
from promptsearch.search.listing import known_strategies
from promptsearch.search.options import Count, options_of
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.search.training_options import Rate
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.testing.planted import planted_objective

SHARED = ("rate", "batch", "accumulate", "interval", "patience", "steps", "clip")
TRAINED = [
    name for name in sorted(known_strategies()) if issubclass(find_strategy(name), TrainedStrategy)
]


@pytest.mark.parametrize("name", TRAINED)
def test_signature_and_docstring_are_complete(name):
    strategy = find_strategy(name)
    parameters = inspect.signature(strategy).parameters
    assert list(parameters)[:2] == ["objective", "seed"] and set(SHARED) < set(parameters)
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    doc = inspect.getdoc(strategy)
    assert "training:" not in doc
    for option in SHARED:
        assert doc.count(f"\n    {option}: ") == 1, option
    assert all(len(line) <= 100 for line in doc.splitlines())


def test_all_of_them_are_found():
    assert len(TRAINED) == 18


class Slow(PromptTuning):
    """Has another default and another text for a shared option.

    Args:
        objective: Scores prompts.
        seed: Seeds it.
        rate: Its own.
        interval: Many steps.
        **training: All others.

    Raises:
        StrategyError: Never.
    """

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.5, interval: Count = 99, **training
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, interval=interval, **training)


def test_its_own_default_and_text_come_first():
    options = {option.name: option for option in options_of(Slow)}
    assert sorted(options) == sorted(SHARED)
    assert (options["interval"].default, options["interval"].text) == (99, "Many steps.")
    assert options["batch"].default == 16 and options["batch"].type == "int from 1 to 100,000"
    assert inspect.getdoc(Slow).endswith("Raises:\n    StrategyError: Never.")


class Whole(TrainedStrategy):
    """Takes no `**training`, as strategies did before there was such a thing.

    Args:
        objective: Scores prompts.
        seed: Seeds it.
        rate: How fast.
    """

    def __init__(self, objective, *, seed: int, rate: float = 0.1) -> None:
        super().__init__(objective, seed=seed, rate=rate, batch=4, interval=2, patience=3)

    def encoder(self, generator):
        return PromptTuning.encoder(PromptTuning(self.objective, seed=self.seed), generator)


def test_without_training_it_has_what_it_names():
    assert [option.name for option in options_of(Whole)] == ["rate"]
    made = make_strategy("whole", Whole, planted_objective(), 0, {"rate": 0.2})
    assert made.training.rate == 0.2 and len(made.ask()) == 1
