"""Each test of the suite finds the sinner that it is there to find."""

import inspect
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from promptsearch import Access, HardPrompt, Objective, Prompt, SoftPrompt, State, Strategy
from promptsearch.errors import BudgetExhausted, PromptSearchError
from promptsearch.search.books import books_of
from promptsearch.testing.conformance import StrategyConformance


class Honest(Strategy):
    """Samples, and mutates the best; beats random on the planted objective `separable`.

    Args:
        objective: As always.
        seed: As always.
        batch: Prompts in each ask.
    """

    def __init__(self, objective: Objective, *, seed: int, batch: int = 8) -> None:
        super().__init__(objective, seed=seed)
        self.rng, self.batch = np.random.default_rng(seed), batch

    def ask(self) -> Sequence[Prompt]:
        space, ranking = self.objective.space, self.objective.ranking
        if not ranking:
            return space.sample(self.rng, self.batch)
        rows = np.tile(space.indices(ranking[0].prompt), (self.batch, 1))
        rows[np.arange(self.batch), self.rng.integers(space.length, size=self.batch)] = (
            self.rng.integers(len(space.pool), size=self.batch)
        )
        return [space.prompt(row) for row in rows]


class TestHonest(StrategyConformance):
    strategy = Honest


class Undocumented(Honest):
    """Does not say what batch is."""


class Index(Honest):
    """Mixes up indices and token ids."""

    def ask(self):
        return [
            HardPrompt(self.rng.integers(len(self.objective.space.pool), size=4)) for _ in range(8)
        ]


class Infinite(Strategy):
    """Proposes vectors that are no numbers."""

    proposes = frozenset({SoftPrompt})

    def ask(self):
        return [SoftPrompt(torch.full((4, 8), torch.inf))]


class Greedy(Honest):
    """Stops with an error when the budget is over."""

    def ask(self):
        if self.objective.affordable(4) < 1:
            raise (
                BudgetExhausted("this is fine")
                if self.objective.ledger.spent
                else ValueError("this is not")
            )
        return super().ask()


class Demanding(Honest):
    """Never ends in a space that it has seen: draws until it finds eight new prompts."""

    def ask(self):
        found = dict.fromkeys(super().ask())
        if self.objective.space.size < 8:
            raise RuntimeError("would go on for ever")
        return list(found)


class Global(Honest):
    """Draws from numpy's global generator."""

    def ask(self):
        return [
            self.objective.space.prompt(np.random.randint(len(self.objective.space.pool), size=4))
            for _ in range(8)
        ]


class Unseeded(Honest):
    """Has one stream whatever the seed."""

    def __init__(self, objective, *, seed):
        super().__init__(objective, seed=0)


class Scribbler(Honest):
    """Writes into what it is told."""

    def tell(self, prompts, evaluation):
        evaluation.losses[:] = 0


class Shuffler(Honest):
    """Sorts the prompts that it is told."""

    def tell(self, prompts, evaluation):
        prompts.sort(key=lambda prompt: prompt.key)


class Vandal(Honest):
    """Changes the LM's embeddings."""

    def tell(self, prompts, evaluation):
        self.objective.embeddings.mul_(2)


class Burglar(Honest):
    """Keeps the books, which it found by the module that hides them."""

    def __init__(self, objective, *, seed):
        super().__init__(objective, seed=seed)
        self.spare = {"scores": lambda: books_of(objective)}
        self.found = [self.spare["scores"]()]


class Fragile(Honest):
    """Cannot bear a failed prompt."""

    def tell(self, prompts, evaluation):
        assert np.isfinite(evaluation.values).all()


class Trained(Strategy):
    """Gradient descent with a state as it should be."""

    access = Access.GRADIENTS
    proposes = frozenset({SoftPrompt})

    def __init__(self, objective, *, seed):
        super().__init__(objective, seed=seed)
        self.rng = np.random.default_rng(seed)
        self.vectors = torch.nn.Parameter(
            torch.from_numpy(self.rng.normal(0, 0.1, (objective.space.length, 8))).float()
        )

    def ask(self):
        loss = self.objective.loss(self.vectors, self.objective.minibatch(self.rng, 4))
        (gradient,) = torch.autograd.grad(loss, self.vectors)
        with torch.no_grad():
            self.vectors -= 0.05 * gradient
        return [SoftPrompt(self.vectors)]

    def state(self):
        return State({"vectors": self.vectors.clone()}, {"rng": self.rng.bit_generator.state})

    def restore(self, state):
        self.vectors.data = state.tensors["vectors"]
        self.rng.bit_generator.state = state.data["rng"]


class Forgetful(Trained):
    """Saves a state and does not take it back, so its training is paid twice."""

    def restore(self, state):
        pass


class Half(Trained):
    """Forgets its generator: other minibatches than without the kill."""

    def restore(self, state):
        self.vectors.data = state.tensors["vectors"]


class Halfway(Honest):
    """Never looks at the upper half of the pool."""

    def ask(self):
        space = self.objective.space
        return [
            space.prompt(self.rng.integers(max(1, len(space.pool) // 2), size=space.length))
            for _ in range(8)
        ]


class Chance(Honest):
    """Is random search; claims to beat it on separable."""

    def ask(self):
        return self.objective.space.sample(self.rng, 8)


class Silent(Honest):
    """Makes no claim."""


class Peeking(Honest):
    """Takes a gradient, and says that it needs scores only."""

    def ask(self):
        self.objective.token_gradient(self.objective.space.sample(self.rng, 1)[0], [20])
        return super().ask()


class Secretive(Honest):
    """Has words written, and does not say so."""

    def ask(self):
        self.objective.proposer.generate(["w1 w2\n"], seed=self.seed, max_tokens=4)
        return super().ask()


class TestTrained(StrategyConformance):
    strategy = Trained
    planted = None
    few = 24


KILLED = "test_a_killed_run_goes_on_as_if_nothing_had_happened"
EVERY = "test_a_run_killed_after_every_evaluation_reaches_the_same_end"


@pytest.mark.parametrize(
    ("sinner", "test"),
    [
        (Undocumented, "test_every_option_is_documented"),
        (Index, "test_proposes_what_it_says"),
        (Infinite, "test_proposes_what_it_says"),
        (Peeking, "test_proposes_what_it_says"),
        (Secretive, "test_proposes_what_it_says"),
        (Greedy, "test_ends_in_good_order_within_any_budget"),
        (Demanding, "test_ends_where_there_is_one_prompt_only"),
        (Global, "test_same_seed_same_run"),
        (Unseeded, "test_the_seed_matters_unless_deterministic"),
        (Scribbler, "test_takes_what_it_is_told_as_read_only"),
        (Shuffler, "test_takes_what_it_is_told_as_read_only"),
        (Vandal, "test_takes_what_it_is_told_as_read_only"),
        (Burglar, "test_reaches_the_lm_and_the_examples_by_its_objective_alone"),
        (Fragile, "test_goes_on_where_prompts_fail"),
        (Forgetful, KILLED),
        (Forgetful, EVERY),
        (Half, KILLED),
        (Half, EVERY),
        (Halfway, "test_finds_the_best_of_a_hundred_prompts"),
        (Chance, "test_beats_random_on_its_planted_objective"),
        (Silent, "test_says_what_it_beats_random_on"),
    ],
)
def test_the_suite_finds(sinner, test, tmp_path, monkeypatch):
    class Suite(StrategyConformance):
        strategy = sinner

    arguments = {"tmp_path": tmp_path, "monkeypatch": monkeypatch, "share": 0.0}
    method = getattr(Suite(), test)
    wanted = {name: arguments[name] for name in inspect.signature(method).parameters}
    # An assertion of the suite, or an error of the core.
    with pytest.raises((AssertionError, PromptSearchError, pytest.fail.Exception)):
        method(**wanted)


def test_searches_of_other_access_need_not_find_the_best_of_a_hundred():
    class White(Honest):
        access = Access.GRADIENTS

    class Suite(StrategyConformance):
        strategy = White

    with pytest.raises(pytest.skip.Exception):
        Suite().test_finds_the_best_of_a_hundred_prompts()


def test_references_need_not_beat_random():
    class Reference(Chance):
        searches = False

    class Suite(StrategyConformance):
        strategy = Reference

    for test in ("test_beats_random_on_its_planted_objective", "test_says_what_it_beats_random_on"):
        with pytest.raises(pytest.skip.Exception):
            getattr(Suite(), test)()
