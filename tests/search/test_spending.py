"""What a search pays beside its proposals: how that counts, and how a search ends there."""

import contextlib

import pytest

from promptsearch import Access, State, Strategy
from promptsearch.records.log import RunLog
from promptsearch.search.loop import search
from promptsearch.testing.planted import PlantedScorer


def scorer():
    return PlantedScorer("separable", pool=4, length=2, examples=12)


def killing():
    """Ends the process, as Ctrl-C does."""
    raise KeyboardInterrupt


class Repeats(Strategy):
    """Proposes the same prompt again and again, and reads a row at some of its tells."""

    access = Access.LOGITS
    reads, told = (3,), 0

    def ask(self):
        return [self.objective.space.prompt((0, 1))]

    def tell(self, prompts, evaluation):
        self.told += 1
        if self.told in self.reads:
            self.objective.states([[]])

    def state(self):
        return State({}, {"told": self.told})

    def restore(self, state):
        self.told = state.data["told"]


def test_free_proposals_between_which_something_is_paid_do_not_end_a_search(monkeypatch):
    monkeypatch.setattr("promptsearch.search.books.FREE_PROPOSALS", 4)
    strategy = Repeats(scorer().objective(150), seed=0)
    strategy.reads = range(2, 999, 2)
    assert search(strategy).startswith("1 tokens are wanted") and strategy.told > 8


@pytest.mark.parametrize("kill", range(1, 9))
def test_free_proposals_are_counted_on_after_a_kill(kill, tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.search.books.FREE_PROPOSALS", 5)
    monkeypatch.setattr("promptsearch.search.loop.SAVING_SHARE", 1e9)  # at every chance
    whole = Repeats(scorer().objective(), seed=0)
    assert search(whole).startswith("5 proposals in a row") and whole.told == 3 + 4
    killed = Repeats(scorer().objective(log=RunLog(tmp_path)), seed=0)
    ask = killed.ask
    killed.ask = lambda: killing() if killed.told == kill - 1 else ask()
    with contextlib.suppress(KeyboardInterrupt):
        search(killed, tmp_path)
    again = Repeats(scorer().objective(log=RunLog(tmp_path)), seed=0)
    search(again, tmp_path)
    assert again.told == whole.told
    assert again.objective.ledger.spent == whole.objective.ledger.spent


class Learns(Strategy):
    """Proposes one prompt after the other, and reads a long row when it is told of its scores."""

    access = Access.LOGITS
    step = 0

    def ask(self):
        self.step += 1
        return [self.objective.space.prompt(divmod(self.step - 1, 4))]

    def tell(self, prompts, evaluation):
        self.objective.states([[1] * 40])


@pytest.mark.parametrize("kill", [None, 1, 2])
def test_a_budget_that_ends_in_a_tell_ends_the_search_there_again_after_a_kill(kill, tmp_path):
    budget = 3 * scorer().budget(1) + 2 * 41
    strategy = Learns(scorer().objective(budget, log=RunLog(tmp_path)), seed=0)
    told = strategy.tell
    if kill:
        strategy.tell = lambda *given: killing() if strategy.step == kill else told(*given)
        with pytest.raises(KeyboardInterrupt):
            search(strategy)
    again = Learns(scorer().objective(budget, log=RunLog(tmp_path)), seed=0)
    assert search(again).startswith("41 tokens are wanted and 0 are set aside")
    assert again.step == len(again.objective.log.lines) == len(again.objective.ranking) == 3
