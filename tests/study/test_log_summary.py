"""What is read off the log of a search, races included."""

import numpy as np
import pytest

from promptsearch.search.loop import search
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.study.log_summary import search_losses
from promptsearch.testing.planted import PlantedScorer


@pytest.mark.parametrize("race", [False, True])
def test_a_loss_that_jumped_is_seen_also_where_a_race_stopped_short_of_it(race):
    objective = PlantedScorer("separable", examples=256).objective(200_000, race=race)
    strategy = PromptTuning(objective, seed=0, batch=8, interval=1, steps=12, rate=30.0)
    strategy.schedule = lambda step: 1.0
    search(strategy)
    losses = search_losses(objective.log)
    assert len(losses) == 13 and np.isfinite(losses).all()
    assert max(losses) > losses[0]
    dropped = [None in row for line in objective.log.lines for row in line["losses"]]
    assert any(dropped) == race
