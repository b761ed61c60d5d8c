"""Prices against floating-point operations that torch counts, and what is set aside."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from promptsearch.models.flops import flops_of
from promptsearch.models.weight_parts import weights_of
from promptsearch.records.ledger import Ledger
from promptsearch.scoring.kinds import adds_of, passes_of
from promptsearch.scoring.protocol import price_of
from promptsearch.search.books import books_of
from promptsearch.search.loop import search
from promptsearch.search.prices import Prices
from promptsearch.strategies.llm_evolution import LLMEvolution
from promptsearch.strategies.llm_proposed import LLMProposed
from promptsearch.strategies.manual import Manual
from promptsearch.strategies.pez import PEZ
from promptsearch.strategies.reflect import Reflect
from promptsearch.testing.counted import RANK, adapted, plain, shaped, trained
from promptsearch.testing.planted import PlantedScorer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT, on transformers 5

LAYERS, ROWS, TOKENS = 4, 16, 30
PLACES = {"soft": "slots", "prefix": "prefix", "gated": "gated", "lora": "weights"}


@pytest.fixture(scope="module")
def model():
    return shaped(LAYERS)


def numbers_of(kind, length, model):
    """The numbers of a prompt, as far as prices look at them: by form and shape."""
    if kind == "lora":
        maps = weights_of(model).maps
        return {
            f"{name}.lora_{part}": torch.empty(shape, device="meta")
            for name, (into, out) in maps.items()
            if name.endswith(("q_proj", "v_proj"))
            for part, shape in (("A", (RANK, into)), ("B", (out, RANK)))
        }
    if kind == "gated":
        return torch.empty(length, adapted(LAYERS), 1), torch.empty(adapted(LAYERS), 1)
    return torch.empty(length, 1)


def scorer_of(kind, model):
    """A scorer of rows that are all as long, under a template of a kind."""
    each = np.full(ROWS, TOKENS)
    return SimpleNamespace(
        adds=lambda length: adds_of(PLACES[kind], length, flops_of(model)),
        lead=lambda ids: 0 * ids,
        context=lambda ids: each[ids],
        readings=lambda ids: np.ones_like(ids),
    )


@pytest.mark.parametrize(
    ("kind", "length"),
    [*((kind, n) for kind in ("soft", "prefix", "gated") for n in (5, 200)), ("lora", 0)],
)
def test_a_step_costs_what_it_computes(model, kind, length):
    """Within a tenth of what plain passes of other libraries take, in tokens of a plain pass."""
    scorer, ledger, ids = scorer_of(kind, model), Ledger(), np.arange(ROWS)
    sizes = SimpleNamespace(gated_shape=(LAYERS, 1, 1), weights=weights_of(model))
    white_box = SimpleNamespace(
        step_context=lambda ids, visit: scorer.context(ids).astype(float),
        passes=lambda numbers: passes_of(numbers, sizes),
    )
    prices = Prices(scorer, ledger, ids, lambda lengths: 0, 1)
    numbers = numbers_of(kind, length, model)
    prices.charge_step(numbers, ids, white_box, 0)
    token = plain(model, ROWS, TOKENS).forward / (ROWS * TOKENS)
    found = trained(kind, length, ROWS, TOKENS, LAYERS)
    assert ledger.forward * token == pytest.approx(found.forward, rel=0.1)
    assert ledger.backward * token == pytest.approx(found.backward, rel=0.1)
    assert ledger.spent * token == pytest.approx(found.forward + found.backward, rel=0.1)
    if kind != "lora":
        assert ledger.forward == price_of(scorer, length, ids), "as the loss alone"


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (PEZ, {"batch": 8}),
        (LLMProposed, {}),
        (LLMProposed, {"method": "opro"}),
        (LLMEvolution, {}),
        (LLMEvolution, {"algorithm": "de"}),
        (Reflect, {}),
    ],
)
def test_a_budget_is_spent(strategy, options):
    """Words that were scored before cost nothing, and of texts only the best are selected among."""
    source = PlantedScorer("separable", examples=64)

    def reserve(lengths):
        return sum(32 * (8 + length) for length in lengths)

    objective = source.objective(40_000, reserve=reserve)
    search(strategy(objective, seed=0, **options))
    selection = reserve([objective.length(each.prompt) for each in objective.ranking])
    assert 0.95 <= (objective.ledger.spent + selection) / 40_000 <= 1


def test_given_texts_that_were_too_dear_are_told_where_nothing_is_left_to_propose():
    source = PlantedScorer("separable", length=2)
    prompts = ["w1 w2", "w3 w3 " * 60 + "w3", "w4 w5"]
    objective = source.objective(source.budget(4))
    reason = search(Manual(objective, seed=0, prompts=prompts))
    assert reason == "nothing left to propose, and 1 were too dear for the budget"
    assert {each.prompt.texts[0] for each in objective.ranking} == {"", "w1 w2", "w4 w5"}


def test_what_is_set_aside_follows_from_the_lengths_of_the_best():
    ranking = [
        SimpleNamespace(prompt=SimpleNamespace(key=str(i), own=length))
        for i, length in enumerate([9, 1, 4, 30])
    ]
    scorer = SimpleNamespace(length=lambda prompt: prompt.own)

    def reserve(lengths):
        assert lengths == sorted(lengths, reverse=True) and 0 < len(lengths) <= 5
        return sum(place * length for place, length in enumerate(lengths, 1))

    prices = Prices(scorer, Ledger(1_000), np.arange(4), reserve, 5, ranking=ranking)
    assert prices.set_aside(99) == 30 + 2 * 9 + 3 * 4 + 4 * 1 == 64
    assert prices.left(99, 4) == 1_000 - 64 and prices.left(2, 5) == 1_000 - (60 + 4 * 2 + 5 * 1)
    assert prices.left(20, 9) == 1_000 - (30 + 20 * (2 + 3 + 4 + 5)), "the longest of nine"
    alone = Prices(scorer, Ledger(1_000), np.arange(4), reserve, 5)
    assert alone.set_aside(6) == 6 and alone.left(6, 4) == 1_000 - 6 * 10


def test_what_a_search_in_float32_has_scored_is_not_paid_twice():
    source, other = PlantedScorer("separable"), PlantedScorer("separable")
    objective = source.objective()
    prompts = list(source.space.sample(np.random.default_rng(0), 4))
    losses = objective.evaluate(prompts).losses
    books = books_of(objective)
    spent, computed = books.ledger.spent, books.ledger.computed

    def again(scorer, ids=source.scored):
        return books.calls.stage("rescore", "search", scorer, prompts[1:], ids, charged=True)

    assert again(source)["losses"] == losses[1:].tolist()
    assert (books.ledger.spent, books.ledger.computed) == (spent, computed)
    again(other)  # as one in another dtype
    assert books.ledger.spent == spent + objective.price(prompts[1:])
    again(source, source.scored[:2])
    assert books.ledger.spent > spent + objective.price(prompts[1:])
