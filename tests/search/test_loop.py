"""The loop: what a stranger's strategy does wrong is named.

A search that time ended is not gone on with.
"""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from promptsearch import Access, Ask, SoftPrompt, State, Strategy
from promptsearch.errors import StrategyError
from promptsearch.records.log import RunLog
from promptsearch.records.sealed import sealed_line, unseal
from promptsearch.search.alike import ENOUGH, was_blind
from promptsearch.search.books import books_of
from promptsearch.search.loop import search
from promptsearch.search.ranking import FINALISTS
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


class Many(Strategy):
    """Proposes more prompts than are enough to see that all are alike."""

    step = 0

    def ask(self):
        self.step += 1
        if self.step > ENOUGH + 8:
            return []
        return [self.objective.space.prompt([0, self.step])]


class Asks(Walks):
    """Returns what the test says, made from a good prompt."""

    def ask(self):
        return self.answer(super().ask())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda prompts: None, "Asks.ask returned NoneType; expected a list of prompts"),
        (
            lambda prompts: (p for p in prompts),
            "Asks.ask returned generator; expected a list of prompts",
        ),
        (lambda prompts: prompts[0], "Asks.ask returned HardPrompt; expected a list of prompts"),
        (
            lambda prompts: Ask(prompts, [99]),
            r"ids of search examples, whole numbers from 0 to 11, got \[99\]",
        ),
        (lambda prompts: Ask(prompts, [-1]), r"whole numbers from 0 to 11, got \[-1\]"),
        (lambda prompts: Ask(prompts, []), r"whole numbers from 0 to 11, got \[\]"),
        (lambda prompts: Ask(prompts, 3), "whole numbers from 0 to 11, got 3"),
        (lambda prompts: Ask(prompts, [0.5]), r"whole numbers from 0 to 11, got \[0.5\]"),
        (lambda prompts: Ask(prompts, [[0], [1, 2]]), "whole numbers from 0 to 11: ValueError: "),
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
    with pytest.raises(
        StrategyError, match="Keeps.state failed: TypeError: .*not JSON serializable"
    ):
        search(strategy, tmp_path)
    search(Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0), tmp_path)
    with pytest.raises(StrategyError, match="Keeps.restore failed: NotImplementedError"):
        search(Keeps(scorer().objective(log=RunLog(tmp_path)), seed=0), tmp_path)


class Counts(Walks):
    """Goes on from its state, and counts its asks in this process."""

    asked = 0

    def ask(self):
        self.asked += 1
        return super().ask()

    def state(self):
        return State(
            {"t": torch.arange(3.0)}, {"step": self.step, "infinite": float("inf"), "large": 2**127}
        )

    def restore(self, state):
        assert state.tensors["t"].tolist() == [0, 1, 2] and state.data["large"] == 2**127
        self.step = state.data["step"]


def killing():
    """Ends the process, as Ctrl-C does: `exit` in a strategy fails its run alone."""
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a search that was killed after its 9th evaluation, and how it should end."""
    monkeypatch.setattr("promptsearch.search.loop.SAVING_SHARE", 1e9)  # at every chance
    whole = scorer().objective(log=RunLog())
    search(Counts(whole, seed=0))
    killed = Counts(scorer().objective(log=RunLog(tmp_path)), seed=0)
    killed.tell = lambda prompts, evaluation: killed.step == 9 and killing()
    with pytest.raises(KeyboardInterrupt):
        search(killed, tmp_path)
    return tmp_path, whole


def go_on(folder):
    """Ends the search in `folder`."""
    strategy = Counts(scorer().objective(log=RunLog(folder)), seed=0)
    search(strategy, folder)
    return strategy


def test_a_whole_state_is_gone_on_from(stopped):
    folder, whole = stopped
    again = go_on(folder)
    assert again.asked == 17 - 8 and again.objective.ledger.spent == whole.ledger.spent


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(flipped(path.read_bytes(), -1)),
        lambda path: path.write_bytes(
            flipped(path.read_bytes(), path.read_bytes().index(b"evaluations") + 16)
        ),
        lambda path: path.write_bytes(save({"t": torch.zeros(1)}, metadata={"state": "{}"})),
        lambda path: path.write_bytes(
            save({"t": torch.zeros(1)}, metadata={"state": "[" * 100_000})
        ),
        lambda path: path.write_bytes(save({"t": torch.zeros(1)})),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        lambda path: write(
            path.with_name("evaluations.jsonl"), lines(path.with_name("evaluations.jsonl"))[:5]
        ),
        lambda path: path.with_name("evaluations.jsonl").unlink(),
    ],
)
def test_a_state_that_cannot_be_used_costs_time_and_no_number(stopped, damage):
    folder, whole = stopped
    damage(folder / "state.safetensors")
    again = go_on(folder)
    assert again.asked == 17, "it began anew"
    assert again.objective.ledger.spent == whole.ledger.spent
    assert [r.value for r in again.objective.ranking] == [r.value for r in whole.ranking]
    assert len(again.objective.log.lines) == 16


def test_what_is_wrong_with_a_state_is_told(stopped, caplog):
    folder, _ = stopped
    (folder / "state.safetensors").write_bytes(b"?")
    go_on(folder)
    assert (
        "is not used: it is damaged" in caplog.text and "its numbers stay the same" in caplog.text
    )


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def write(path, content):
    path.write_bytes(b"".join(content))


@pytest.mark.parametrize("counted", [True, False])
def test_a_search_that_time_ended_ends_there_again_after_a_kill_during_selection(counted, tmp_path):
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
    if not counted:  # as logs of old are
        path = tmp_path / "evaluations.jsonl"
        old = [unseal(json.loads(line)) for line in lines(path)]
        write(path, [sealed_line({k: v for k, v in line.items() if k != "asks"}) for line in old])
    again = scorer().objective(log=RunLog(tmp_path))
    books_of(again).seconds = 1e6
    assert search(Walks(again, seed=0)) == "the run's 1e+06 seconds are over"
    assert len(again.log.lines) == 3 and again.ledger.spent == whole.ledger.spent


class Trains(Strategy):
    """Trains before each ask, and proposes the same words each time, which are free."""

    access = Access.GRADIENTS
    late = 0
    step = 0

    def ask(self):
        self.step += 1
        if self.step == self.late:
            books_of(self.objective).seconds = -1.0
        rows = self.objective.embeddings[:2].clone().requires_grad_()
        self.objective.loss(rows, self.objective.training[:2])
        return [self.objective.space.prompt((0, 1))] if self.step < 9 else []

    def state(self):
        return State({}, {"step": self.step}) if self.saved else None

    def restore(self, state):
        self.step = state.data["step"]


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("late", [2, 5, 0])
def test_a_search_ends_at_the_same_free_ask_after_a_kill_during_selection(late, saved, tmp_path):
    def run(late):
        objective = scorer().objective(log=RunLog(tmp_path))
        books = books_of(objective)
        books.seconds = 1e6
        strategy = Trains(objective, seed=0)
        strategy.late, strategy.saved = late, saved
        search(strategy, tmp_path)
        best = [item.prompt for item in books.ranking]
        books.calls.stage("rescore", "search", scorer(), best, books.scored, charged=True)
        return objective.ledger.spent, strategy.step

    assert run(late) == run(0)


class Climbs(Strategy):
    """Proposes vectors, each other ones, and can go on."""

    proposes = frozenset({SoftPrompt})
    step = 0

    def ask(self):
        self.step += 1
        return (
            [SoftPrompt(torch.full((2, 8), (self.step * 7 % 40) / 40))] if self.step <= 40 else []
        )

    def state(self):
        return State({}, {"step": self.step})

    def restore(self, state):
        self.step = state.data["step"]


def files(folder):
    return {path.name.partition(".")[0] for path in (folder / "finalists").iterdir()}


def test_beside_a_state_lie_the_numbers_of_the_best_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.search.loop.SAVING_SHARE", 1e9)  # at every chance
    given = scorer().objective(log=RunLog(tmp_path))
    search(Climbs(given, seed=0), tmp_path)
    assert (
        files(tmp_path) == {item.prompt.key for item in given.ranking}
        and len(given.ranking) == FINALISTS
    )
    again = scorer().objective(log=RunLog(tmp_path))
    search(Climbs(again, seed=0), tmp_path)
    assert again.finalists() == given.finalists()
    path = next((tmp_path / "finalists").iterdir())
    for damage in (
        path.unlink,
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(path.read_bytes()[:-4] + b"abcd"),
    ):
        damage()
        third = scorer().objective(log=RunLog(tmp_path))
        search(Climbs(third, seed=0), tmp_path)
        assert third.finalists() == given.finalists()


def test_without_a_state_no_numbers_are_written(tmp_path):
    class Forgets(Climbs):
        """Is replayed from the log."""

        def state(self):
            return None

    given = scorer().objective(log=RunLog(tmp_path))
    search(Forgets(given, seed=0), tmp_path)
    assert len(given.finalists()) == FINALISTS and not (tmp_path / "finalists").exists()


class Zero(PlantedScorer):
    """Scores all prompts by a metric that is 0, as long as no answer is right."""

    followed = "exact_match"

    def score(self, prompts, examples):
        scores = super().score(prompts, examples)
        return replace(scores, losses=-np.zeros_like(scores.losses), followed=self.followed)


class ServedZero(Zero):
    """The same behind a server, which shows nothing but scores."""

    white_box = None


class Nats(Zero):
    """Losses that are all 0."""

    followed = ""


@pytest.mark.parametrize(("kind", "blind"), [(Zero, False), (ServedZero, True), (Nats, True)])
def test_a_metric_that_is_0_for_all_prompts_ends_no_search_of_a_model_that_is_loaded_here(
    kind, blind
):
    objective = kind("separable", pool=100, length=2).objective()
    strategy = Many(objective, seed=0)
    reason = search(strategy)
    assert was_blind(reason) and "(0 on each)" in reason, "it is said in any case"
    assert ("The search ended because: nothing left to propose" in reason) != blind
    assert strategy.step == (ENOUGH if blind else ENOUGH + 9)
