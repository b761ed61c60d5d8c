"""Where searches for words and texts begin: at the winner of another run, whatever its kind."""

from __future__ import annotations

import pytest

from promptsearch import HardPrompt, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.plugins import find_strategy
from promptsearch.testing.planted import PlantedScorer

WORDS = ["coordinate", "genetic", "evolution", "bayesian", "gcg", "autoprompt"]
TEXTS = ["grips", "joint", "llm_proposed", "llm_evolution", "reflect", "verbalizer"]


def started(name, start, **options):
    scorer = PlantedScorer("separable", pool=20, length=4)
    objective = scorer.objective()
    objective.start = start
    return find_strategy(name)(objective, seed=0, **options)


def pool():
    return PlantedScorer("separable", pool=20, length=4).space.pool.tolist()


@pytest.mark.parametrize("name", WORDS)
def test_a_search_for_words_begins_at_words_and_at_texts(name):
    first, second, *_ = pool()
    wanted = HardPrompt([first, second] * 2)
    assert find_strategy(name).starts_from >= {HardPrompt, TextPrompt}
    for start in (wanted, TextPrompt(f"w{first} w{second}")):
        asked = list(started(name, start).ask())
        assert asked[0] == wanted and asked.count(wanted) == 1
    size = len(started(name, None).ask())
    assert len(asked) == size
    outside = next(i for i in range(48) if i not in pool())
    with pytest.raises(StrategyError, match=rf"not in the pool of 20: 'w{outside}'"):
        list(started(name, TextPrompt(f"w{outside}")).ask())


@pytest.mark.parametrize("name", TEXTS)
def test_a_search_for_texts_begins_at_a_text(name):
    assert find_strategy(name).starts_from == {TextPrompt}
    solved = "the example number 3 no\n"
    assert TextPrompt(solved) in list(started(name, TextPrompt([solved, ""])).ask())
    for texts in ([""], ["  "], ["a", "b"]):
        with pytest.raises(StrategyError, match="expected a text for the first slot to start from"):
            started(name, TextPrompt(texts))
    with pytest.raises(StrategyError, match="at 'prompts' and at the run that 'start' names"):
        started(name, TextPrompt("a"), prompts=["b"])
