"""What every family of models must keep: laws, resume and planted objectives, on tiny models.

One more family is one more line in `promptsearch.testing.families.FAMILIES`.
"""

import numpy as np
import pytest
import torch

from promptsearch import compare
from promptsearch.export import load_prompt
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring.protocol import price_of
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.search import loop
from promptsearch.search.bill import check_bill
from promptsearch.search.books import books_of
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.coordinate import Coordinate
from promptsearch.strategies.gcg import GCG
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.strategies.rlprompt import RLPrompt
from promptsearch.strategies.verbalizer import Verbalizer
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES, TEMPLATE, PlantedAnswers
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.searched import random_search
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

EVERYTHING = np.arange(12)
MODELS = {name: LanguageModel(*made(), name=name) for name, made in FAMILIES.items()}


@pytest.fixture(params=MODELS)
def lm(request):
    return MODELS[request.param]


# Laws of scoring.


def prompts_of(lm, kind):
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    if kind == "prefix":
        shape = (3, *lm.prefix_shape)
        return [PrefixPrompt(0.3 * torch.randn(shape, generator=generator)) for _ in range(3)]
    ids = rng.choice(lm.words, (3, 3))
    near = lm.vocabulary[torch.tensor(ids[0])] + 0.1 * torch.randn(
        3, lm.embeddings.shape[1], generator=generator
    )
    return [*map(HardPrompt, ids), SoftPrompt(near), TextPrompt("Is it good?"), TextPrompt("")]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [(("bad", "good"), "slots"), (("bad movie", "good"), "prefix"), (None, "slots")],
    ids=["one token", "several", "texts"],
)
def test_a_loss_does_not_depend_on_packing_order_or_neighbours(lm, answers, kind, monkeypatch):
    prompts = prompts_of(lm, kind)
    engine = tiny_engine(lm, TEMPLATE, answers, kind=kind)
    together = engine.score(prompts, EVERYTHING).losses
    near = 1e-5 * 4  # an answer has at most three tokens and its end

    alone = [[engine.score([p], np.array([e])).losses[0, 0] for e in EVERYTHING] for p in prompts]
    assert np.abs(together - np.array(alone)).max() < near

    mixed = np.random.default_rng(1).permutation(EVERYTHING)
    assert np.abs(engine.score(prompts[::-1], mixed).losses[::-1] - together[:, mixed]).max() < near

    monkeypatch.setitem(PASS_TOKENS, "cpu", 16)
    small = tiny_engine(lm, TEMPLATE, answers, kind=kind)
    assert np.abs(small.score(prompts, EVERYTHING).losses - together).max() < near

    if kind == "slots":  # each row by itself, padded, in the model's own attention
        for name in ("trees", "packs"):
            monkeypatch.setitem(vars(lm.passes), name, False)
        padded = tiny_engine(lm, TEMPLATE, answers, kind=kind)
        assert np.abs(padded.score(prompts, EVERYTHING).losses - together).max() < near


@pytest.mark.parametrize("kind", ["slots", "prefix"])
def test_a_gradient_is_that_of_the_loss_which_is_scored(lm, kind):
    engine = tiny_engine(lm, TEMPLATE, kind=kind)
    *_, prompt = [each for each in prompts_of(lm, kind) if each.as_numbers is not None]
    numbers = prompt.as_numbers.clone().requires_grad_()
    loss = engine.loss(numbers, EVERYTHING)
    scored = engine.score([prompt], EVERYTHING).losses.mean()
    assert float(loss.detach()) == pytest.approx(scored, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, numbers)
    step = 1e-2 * torch.randn(numbers.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ends = [float(engine.loss(numbers + sign * step, EVERYTHING)) for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.02)


@pytest.mark.parametrize("kind", ["slots", "prefix"])
def test_all_that_was_asked_is_charged_once_and_no_more_is_computed(lm, kind):
    prompts = [each for each in prompts_of(lm, kind) if each.length == 3]
    searched = PlantedAnswers(lm, length=3, pool=len(lm.words), kind=kind)
    engine = searched.engine
    price = len(prompts) * price_of(engine, 3, EVERYTHING) + int(engine.lead(EVERYTHING).sum())
    predicted = engine.predict(prompts, EVERYTHING).tokens
    assert 0 < engine.score(prompts, EVERYTHING).computed <= predicted <= price
    objective = searched.objective()
    objective.evaluate(prompts, EVERYTHING)
    ledger = books_of(objective).ledger
    assert (ledger.spent, ledger.forward) == (price, price) and ledger.computed <= price
    objective.evaluate(prompts, EVERYTHING)
    assert ledger.spent == price, "what is known already is free"
    check_bill(ledger, books_of(objective).log.lines, engine, EVERYTHING, 3)


# Studies: resume and exports.

STRATEGIES = [
    {"manual": {"prompts": ["good movie?"]}},
    "random",
    {"prompt_tuning": {"interval": 2, "batch": 4}},
    {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 4}},
    {"lora": {"interval": 2, "batch": 4}},
    {"verbalizer": {"prompts": ["good movie?"], "words": 1}},
]


@pytest.mark.usefixtures("unreported")
def test_a_killed_study_ends_with_the_same_numbers_and_its_winners_leave_with_their_losses(
    lm, tmp_path, killed_at
):
    given = {"name": "s", "model": "given", "task": "capitals", "length": 2, "seeds": 1}
    given |= {"budget": 2_000, "score_on": 4, "strategies": STRATEGIES}

    def work(folder):
        compare(given, out=folder, model=lm, task=tiny_task(TEMPLATE))

    work(tmp_path / "whole")
    deaths = 0
    while killed_at(3 + 9 * deaths, lambda: work(tmp_path / "killed")):
        deaths += 1
    work(tmp_path / "killed")
    assert deaths > 2
    whole, killed = (without_times(results_of(tmp_path / name)) for name in ("whole", "killed"))
    assert whole == killed and len(whole) == len(STRATEGIES)
    for name, result in whole.items():
        assert result["export"] is None, result["export"]
        assert result["spent"] <= result["budget"]
        assert load_prompt(tmp_path / "killed" / name).verify(lm) < 1e-5


def test_states_of_rows_do_not_depend_on_the_rows_beside_them(lm):
    engine, words = PlantedAnswers(lm, pool=20).engine, [int(i) for i in lm.words[:3]]
    rows = [words[:t] for t in range(4)]
    states = engine.states(rows)
    alone = torch.cat([engine.states([row]) for row in rows])
    assert states.dtype == torch.float32 and torch.allclose(states, alone, atol=1e-5)
    assert torch.cdist(states, states).fill_diagonal_(1).min() > 0.01
    if lm.family.name == "causal":
        ids = torch.tensor([[*(lm.lead[:1] or (lm.end,)), *words]])
        theirs = lm.model(ids, output_hidden_states=True).hidden_states[-1][0]
        assert torch.allclose(states, theirs, atol=1e-5)


# Planted objectives.


@pytest.mark.parametrize(
    ("strategy", "options"),
    [(Coordinate, {}), (PromptTuning, {"interval": 4, "batch": 4, "rate": 0.1})],
    ids=["words", "vectors"],
)
def test_searches_beat_random_where_a_prompt_decides_the_answers(lm, strategy, options):
    found, floor = [], []
    for seed in range(3):
        searched = PlantedAnswers(lm, seed=seed, pool=60, length=3)
        objective = searched.objective(searched.budget(60))
        loop.search(make_strategy(strategy.__name__, strategy, objective, seed, options))
        found.append(objective.ranking[0].value)
        floor.append(random_search(searched, 60, seed))
    assert all(np.array(found) < floor), (found, floor)


# The conformance suite of strategies, on a model of each family.

#: What meets a model in ways of its own: words, by gradients, states and logits, and vectors.
#: Prefixes and weights are killed in the study above.
MEETING = {
    GCG: {"batch": 4},
    PromptTuning: {"interval": 2, "batch": 4},
    RLPrompt: {"batch": 4},
    Verbalizer: {"prompts": ["good movie?"], "words": 1, "keep": 1},
}


class OnAFamily(StrategyConformance):
    planted = None
    few = 6
    # What no model makes harder.
    test_every_option_is_documented = None
    test_finds_the_best_of_a_hundred_prompts = None
    test_beats_random_on_its_planted_objective = None
    test_says_what_it_beats_random_on = None
    # No prompt fails on these models.
    test_goes_on_where_prompts_fail = None
    # Runs are killed before, in and behind a line in another one.
    test_a_run_killed_after_every_evaluation_reaches_the_same_end = None

    def searched(self, kind="separable", *, pool=100, length=4, failing=0.0):
        return PlantedAnswers(self.lm, pool=pool, length=length)


for strategy, options in MEETING.items():
    for family, lm_of in MODELS.items():
        name = f"Test{strategy.__name__}On{family.title().replace('-', '')}"
        own = {"strategy": strategy, "options": options, "lm": lm_of}
        globals()[name] = type(name, (OnAFamily,), own)
