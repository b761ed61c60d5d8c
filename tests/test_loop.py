"""The loop: what a stranger's strategy does wrong is named; a search that time ended is not gone on with."""

import pytest
import torch

from promptsearch import Ask, SoftPrompt, State, Strategy
from promptsearch.books import books_of
from promptsearch.errors import RecordError, StrategyError
from promptsearch.loop import search
from promptsearch.records import RunLog
from promptsearch.testing.planted import PlantedScorer


def scorer():
    return PlantedScorer("separable", pool=4, length=2, examples=12)


class Walks(Strategy):
    """Proposes one prompt after the other."""

    step = 0

    def ask(self):
        self.step += 1
        if self.step > 16:
            return []
        return [self.objective.space.prompt(divmod(self.step - 1, 4))]


class Asks(Walks):
    """Returns what the test says, made from a good prompt."""

    def ask(self):
        return self.answer(super().ask())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda prompts: None, "Asks.ask returned NoneType; expected a list of prompts"),
        (lambda prompts: (p for p in prompts), "Asks.ask returned generator; expected a list of prompts"),
        (lambda prompts: prompts[0], "Asks.ask returned HardPrompt; expected a list of prompts"),
        (lambda prompts: Ask(prompts, [99]), r"ids of search examples, whole numbers from 0 to 11, got \[99\]"),
        (lambda prompts: Ask(prompts, [-1]), r"whole numbers from 0 to 11, got \[-1\]"),
        (lambda prompts: Ask(prompts, []), r"whole numbers from 0 to 11, got \[\]"),
        (lambda prompts: Ask(prompts, 3), "whole numbers from 0 to 11, got 3"),
        (lambda prompts: Ask(prompts, [0.5]), r"whole numbers from 0 to 11, got \[0.5\]"),
    ],
)
def test_an_ask_that_is_none_is_named(answer, complaint):
    strategy = Asks(scorer().objective(), seed=0)
    strategy.answer = answer
    with pytest.raises(StrategyError, match=complaint):
        search(strategy)
    assert strategy.objective.ledger.spent == 0


class Keeps(Walks):
    """Saves a state."""

    data = {"x": 1}

    def state(self):
        return State({"t": torch.zeros(1)}, self.data)


def test_a_state_that_cannot_be_saved_or_taken_back_is_named(tmp_path):
    strategy = Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0)
    strategy.data = {"x": object()}
    with pytest.raises(StrategyError, match="Keeps.state failed: TypeError: .*not JSON serializable"):
        search(strategy, tmp_path)
    search(Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0), tmp_path)
    with pytest.raises(StrategyError, match="Keeps.restore failed: NotImplementedError"):
        search(Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0), tmp_path)


def test_a_state_file_without_books_is_damaged(tmp_path):
    from safetensors.torch import save_file

    search(Walks(scorer().objective(200, log=RunLog(tmp_path)), seed=0))
    save_file({"t": torch.zeros(1)}, tmp_path / "state.safetensors", metadata={"state": "{}"})
    with pytest.raises(RecordError, match="state.safetensors is damaged"):
        search(Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0), tmp_path)


def test_a_search_that_time_ended_ends_there_again_after_a_kill_during_selection(tmp_path):
    class Slow(Walks):
        """Loses its time at the fourth prompt."""

        def ask(self):
            if self.step == 3 and not self.objective.log.replaying:
                books_of(self.objective).seconds = -1.0
            return super().ask()

    log = RunLog(tmp_path)
    whole = scorer().objective(log=log)
    assert search(Slow(whole, seed=0)) == "the run's -1 seconds are over"
    log.append({**log.lines[-1], "n": 3, "stage": "rescore"})
    again = scorer().objective(log=RunLog(tmp_path))
    books_of(again).seconds = 1e6
    assert search(Walks(again, seed=0)) == "the run's 1e+06 seconds are over"
    assert len(again.log.lines) == 3 and again.ledger.spent == whole.ledger.spent


class Climbs(Strategy):
    """Proposes vectors, each other ones, and can go on."""

    proposes = frozenset({SoftPrompt})
    step = 0

    def ask(self):
        self.step += 1
        return [SoftPrompt(torch.full((2, 8), (self.step * 7 % 40) / 40))] if self.step <= 40 else []

    def state(self):
        return State({}, {"step": self.step})

    def restore(self, state):
        self.step = state.data["step"]


def files(folder):
    return {path.name.partition(".")[0] for path in (folder / "finalists").iterdir()}


def test_beside_a_state_lie_the_numbers_of_the_best_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.loop._SAVING_SHARE", 1e9)  # at every chance
    given = scorer().objective(log=RunLog(tmp_path))
    search(Climbs(given, seed=0), tmp_path)
    assert files(tmp_path) == {item.prompt.key for item in given.ranking} and len(given.ranking) == 10
    again = scorer().objective(log=RunLog(tmp_path))
    search(Climbs(again, seed=0), tmp_path)
    assert again.finalists() == given.finalists()
    next((tmp_path / "finalists").iterdir()).unlink()
    third = scorer().objective(log=RunLog(tmp_path))
    search(Climbs(third, seed=0), tmp_path)
    with pytest.raises(RecordError, match="the numbers of one of the best prompts are missing"):
        third.finalists()


def test_without_a_state_no_numbers_are_written(tmp_path):
    class Forgets(Climbs):
        """Is replayed from the log."""

        def state(self):
            return None

    given = scorer().objective(log=RunLog(tmp_path))
    search(Forgets(given, seed=0), tmp_path)
    assert len(given.finalists()) == 10 and not (tmp_path / "finalists").exists()
