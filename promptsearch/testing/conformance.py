"""The tests that every strategy must pass, for pytest: subclass, name the strategy, and run.

    from promptsearch.testing.conformance import StrategyConformance

    class TestMine(StrategyConformance):
        strategy = Mine
        options = {"batch": 4}

No LM is needed: the tests run on planted objectives, unless `searched` gives a tiny LM.
"""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats

from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.trained import TrainedPrompt
from promptsearch.records.log import RunLog
from promptsearch.records.scores import Evaluation
from promptsearch.search import books, loop
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options, options_of
from promptsearch.search.plugins import make_strategy
from promptsearch.search.strategy import Access, Ask, Strategy
from promptsearch.study.settings.strategy import ROW_KEYS
from promptsearch.testing.doors import doors
from promptsearch.testing.landscape import Kind
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.rerun import DyingLog, Killed, Trace, trace
from promptsearch.testing.searched import Searched, random_search


class StrategyConformance:
    """The suite; pytest runs subclasses whose names begin with `Test`."""

    #: What is tested.
    strategy: ClassVar[type[Strategy]]
    #: Its options, as in a study file.
    options: ClassVar[Mapping[str, Any]] = {}
    #: The planted objective on which it beats random, which its docstring or its module's names;
    #: None skips the test.
    planted: ClassVar[Kind | None] = "separable"
    #: Evaluations that the budget buys where it must beat random, and in the other tests.
    evaluations: ClassVar[int] = 300
    few: ClassVar[int] = 60
    #: Planted objectives, each with a seed of its own, over which it is compared with random.
    seeds: ClassVar[int] = 8

    def start(self, objective: Objective, seed: int) -> Prompt | None:
        """The winner of the run that it starts from; to be overridden where it starts from one.

        Args:
            objective: The objective that the prompt must fit.
            seed: The seed of that run, the same as the strategy's.
        """
        return None

    def searched(
        self, kind: Kind = "separable", *, pool: int = 100, length: int = 4, failing: float = 0.0
    ) -> Searched:
        """What it searches in most tests; to be overridden for a tiny LM in its place.

        Args:
            kind: As for `PlantedScorer`, like the others.
            pool: Tokens in the pool.
            length: Tokens in a prompt.
            failing: Share of prompts that fail.
        """
        return PlantedScorer(kind, pool=pool, length=length, failing=failing)

    @pytest.fixture(autouse=True)
    def _in_haste(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """No kill here loses what was written, so nothing waits for the disk.

        One test watches the library's code, which takes longer than scores without an LM.
        """
        monkeypatch.setattr(os, "fsync", lambda file: None)
        if request.function.__name__ != "test_proposes_what_it_says":
            monkeypatch.setattr(books, "Guard", lambda: SimpleNamespace(check=lambda: None))

    def test_every_option_is_documented(self) -> None:
        """`promptsearch strategies NAME` shows these texts; some names belong to the study file."""
        for option in options_of(self.strategy):
            assert option.name not in ROW_KEYS, (
                f"'{option.name}' is a key that the core reads: give the option of {self._name} "
                "another name"
            )
            assert option.text, (
                f"the option '{option.name}' is missing under Args: in the docstring of "
                f"{self._name}"
            )

    def test_proposes_what_it_says(self) -> None:
        """Only the kinds of `proposes`, all finite, with no more than `access` and a proposer.

        It replaces nothing of the library meanwhile.
        """
        scorer = self.searched("separable")
        objective = scorer.objective(
            scorer.budget(self.few), white_box=self.strategy.access is not Access.SCORES
        )
        strategy = self._make(objective)
        asked = _spy(strategy)
        loop.search(strategy)
        assert asked, f"{self._name} proposed nothing"
        assert all(type(prompt) in self.strategy.proposes for prompt in asked)
        pool = set(scorer.space.pool.tolist())
        for words in HardPrompt.among(asked):
            assert len(words.ids) == scorer.space.length and set(words.ids) <= pool
        for numbers in TrainedPrompt.among(asked):
            assert all(torch.isfinite(tensor).all() for tensor in numbers.tensors.values())
        said = self.strategy.asks_proposer(check_options(self._name, self.strategy, self.options))
        assert said or not objective.ledger.proposer, f"{self._name}.asks_proposer() is wrong"

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.5, 10.3])
    def test_ends_in_good_order_within_any_budget(self, share: float) -> None:
        """The run ends with a reason and without an error, however little it may spend.

        That is as many tokens as `share` evaluations cost.
        """
        scorer = self.searched("separable")
        objective = scorer.objective(int(share * scorer.budget(1)), reserve=lambda lengths: 28)
        assert loop.search(self._make(objective))
        assert objective.ledger.left >= (28 if objective.ledger.spent else 0)

    def test_ends_where_there_is_one_prompt_only(self) -> None:
        """A space of a single prompt."""
        scorer = self.searched("separable", pool=1, length=1)
        assert self._run(scorer, self.few).ranking

    def test_same_seed_same_run(self) -> None:
        """All randomness comes from the seed: the global generators make no difference."""
        runs = []
        for number in (0, 1):
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(number)
            runs.append(self._run(self.searched("pairwise"), self.few))
        assert runs[0] == runs[1], f"{self._name} draws from a global generator"

    def test_the_seed_matters_unless_deterministic(self) -> None:
        """Two seeds propose different prompts, unless a strategy does not look at the seed."""
        runs = [self._run(self.searched("pairwise"), self.few, seed=seed) for seed in (0, 1)]
        assert (runs[0] == runs[1]) == self.strategy.deterministic

    def test_takes_what_it_is_told_as_read_only(self) -> None:
        """Arrays that are told, the pool and the embeddings belong to the core."""
        scorer = self.searched("separable")
        objective = scorer.objective(scorer.budget(self.few))
        strategy = self._make(objective)
        tell = strategy.tell

        def tell_read_only(prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
            for array in (
                evaluation.values,
                evaluation.losses,
                evaluation.metric,
                evaluation.examples,
            ):
                array.setflags(write=False)
            before = list(prompts)
            tell(prompts, evaluation)
            assert list(prompts) == before, (
                f"{self._name}.tell changed the prompts that it was told"
            )

        strategy.tell = tell_read_only  # type: ignore[method-assign]
        loop.search(strategy)
        same = torch.equal(objective.embeddings, scorer.embeddings)
        assert same, f"{self._name} changed the LM's embeddings, of which it has a copy"

    def test_reaches_the_lm_and_the_examples_by_its_objective_alone(self) -> None:
        """Nothing that it holds leads to scorers, books, files or other splits.

        Attributes, closures and containers are followed.
        """
        scorer = self.searched("separable")
        objective = scorer.objective(scorer.budget(self.few))
        strategy = self._make(objective)
        loop.search(strategy)
        assert not (found := doors(strategy)), (
            f"{self._name} holds what belongs to the core: {found[0]}"
        )

    def test_goes_on_where_prompts_fail(self) -> None:
        """Failed prompts have the value +inf; half of all prompts fail here."""
        result = self._run(self.searched("separable", failing=0.5), self.few)
        assert result.lines
        assert all(np.isfinite(value) for value, _ in result.ranking)

    def test_a_killed_run_goes_on_as_if_nothing_had_happened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may be killed before, during and after the writing of a log line.

        The saved state is a fresh one, or one that lags behind.
        """
        scorer = self.searched("pairwise")
        whole = self._run(scorer, self.few)
        stateless = self._make(scorer.objective()).state() is None
        last = len(whole.lines) - 1
        # A state that is always fresh finds the log at its own line or one line ahead, one that
        # was saved once finds it more lines ahead; without a state all lines are replayed.
        fresh = {(0, "half"), (last // 2, "half"), (last // 2, "after"), (last, "before")}
        lagging = {(min(1, last), "after"), (last // 2, "after")}
        for share, kills in ((1e9, fresh), (1e-9, set() if stateless else lagging)):
            monkeypatch.setattr(loop, "SAVING_SHARE", share)
            for at, how in sorted(kills):
                folder = tmp_path / f"{share}-{at}-{how}"
                folder.mkdir()
                self._run_and_kill(scorer, self.few, folder, at, how)
                resumed = self._run(scorer, self.few, log=RunLog(folder), folder=folder)
                assert resumed == whole, (
                    f"killed {how} line {at} was written, {self._name} went on differently"
                )

    def test_a_run_killed_after_every_evaluation_reaches_the_same_end(self, tmp_path: Path) -> None:
        """Each process gets one more evaluation done."""
        scorer = self.searched("pairwise")
        few = self.few // 2
        whole = self._run(scorer, few)
        for at in range(len(whole.lines)):
            self._run_and_kill(scorer, few, tmp_path, at, "after")
        assert self._run(scorer, few, log=RunLog(tmp_path), folder=tmp_path) == whole

    def test_finds_the_best_of_a_hundred_prompts(self) -> None:
        """A scores-only search that cannot solve a separable space of 100 prompts cannot search.

        A search for hard prompts finds the best one. Vectors between the words are infinitely many,
        so one that searches these has to come near: the words of a random prompt lose about a nat
        to the best one.
        """
        if not self.strategy.searches or self.strategy.access is not Access.SCORES:
            pytest.skip("for searches that see scores only")
        near = 1e-5 if HardPrompt in self.strategy.proposes else 0.05
        for seed in range(3):
            scorer = PlantedScorer("separable", seed=seed, pool=10, length=2)
            best, _ = self._run(scorer, 1_000, seed=seed).ranking[0]
            assert best == pytest.approx(scorer.optimum_value, abs=near), (
                f"{self._name}, seed {seed}"
            )

    def test_beats_random_on_its_planted_objective(self) -> None:
        """Same budgets, same objectives; a paired permutation test at the 5 percent level."""
        if self.planted is None or not self.strategy.searches:
            pytest.skip("it does not claim to search better than random")
        found, floor = np.array(
            [self._compare(seed) for seed in range(self.seeds)]
        ).T  # (seeds,) each, nats
        p = stats.permutation_test(
            (found, floor),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            alternative="less",
            vectorized=True,
        ).pvalue
        assert p < 0.05, (
            f"{self._name} is not better than random on the planted objective {self.planted}: on "
            f"average {found.mean():.3f} nats above the optimum, random {floor.mean():.3f}, "
            f"p = {p:.2f} over {self.seeds} seeds"
        )

    def test_says_what_it_beats_random_on(self) -> None:
        """The claim stands where a reader finds it."""
        if self.planted is None or not self.strategy.searches:
            pytest.skip("it does not claim to search better than random")
        module = inspect.getmodule(self.strategy)
        said = f"{inspect.getdoc(self.strategy)} {module.__doc__ if module else ''}"
        assert self.planted in said, (
            f"the docstring of {self._name} or of its module should name {self.planted}"
        )

    # How it is run.

    @property
    def _name(self) -> str:
        return self.strategy.__name__

    def _make(self, objective: Objective, seed: int = 0) -> Strategy:
        objective.start = self.start(objective, seed)
        return make_strategy(self._name, self.strategy, objective, seed, self.options)

    def _run(
        self,
        scorer: Searched,
        evaluations: int,
        seed: int = 0,
        log: RunLog | None = None,
        folder: Path | None = None,
    ) -> Trace:
        objective = scorer.objective(
            scorer.budget(evaluations), log=log, finalists=self.strategy.finalists
        )
        reason = loop.search(self._make(objective, seed), folder)
        return trace(objective, reason)

    def _run_and_kill(
        self, scorer: Searched, evaluations: int, folder: Path, at: int, how: str
    ) -> None:
        try:
            self._run(scorer, evaluations, log=DyingLog(folder, at, how), folder=folder)
        except Killed:
            return
        pytest.fail(
            f"{self._name} ended before evaluation {at}, which it reaches without kills: is work "
            "paid twice after a kill?"
        )

    def _compare(self, seed: int) -> tuple[float, float]:
        """Nats above the optimum that the strategy and random reach."""
        assert self.planted is not None
        scorer = PlantedScorer(self.planted, seed=seed)
        found = self._run(scorer, self.evaluations, seed)
        floor = _floor(self.planted, seed, self.evaluations)
        return found.ranking[0][0] - scorer.optimum_value, floor - scorer.optimum_value


@cache
def _floor(planted: Kind, seed: int, evaluations: int) -> float:
    """The loss that random reaches, the same for whatever is compared with it, in nats."""
    return random_search(PlantedScorer(planted, seed=seed), evaluations, seed)


def _spy(strategy: Strategy) -> list[Prompt]:
    """A list that fills with all that the strategy proposes."""
    asked: list[Prompt] = []
    ask = strategy.ask

    def listen() -> Sequence[Prompt] | Ask:
        proposal = ask()
        asked.extend(proposal.prompts if isinstance(proposal, Ask) else proposal)
        return proposal

    strategy.ask = listen  # type: ignore[method-assign]
    return asked
