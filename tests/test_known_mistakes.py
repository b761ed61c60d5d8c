"""Mistakes that passed review in released prompt search.

Each has a test that would have caught it.

What is named in brackets is the system in whose code it was found. The strategies that implement
the same methods have tests of their own beside these; here is what the core promises to all of
them.
"""

import numpy as np
import pytest
import torch

from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.cache import ScoreCache
from promptsearch.records.scores import Scores
from promptsearch.scoring import Engine
from promptsearch.scoring.answers import choice_scores
from promptsearch.scoring.joints import broken_joint
from promptsearch.scoring.layout import lay_out
from promptsearch.search.listing import known_strategies
from promptsearch.search.loop import search
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.search.race import race
from promptsearch.search.strategy import Access, Strategy
from promptsearch.testing.planted import PlantedScorer, planted_objective

#: That search for words by their scores, and need nothing else.
SEARCHES = [
    name
    for name in sorted(known_strategies())
    if (found := find_strategy(name)).searches
    and not found.reference
    and found.access is Access.SCORES
    and HardPrompt in found.proposes
]


def test_ties_counted_as_correct():
    """[RLPrompt, ClaPS] The rival was found by masking every class of an equal probability.

    That is, of the same probability as the right one.
    """
    scores = torch.tensor([[0.3, 0.3], [0.3, 0.3001], [0.3001, 0.3], [-40.0, -40.0]])
    _, correct, _ = choice_scores(scores, torch.zeros(4, dtype=torch.long))
    assert correct.tolist() == [False, False, True, False]


def test_double_softmax():
    """[ClaPS] Probabilities went into a cross-entropy that expects logits.

    .999 gave 0.31 and .001 gave 1.31 nats.
    """
    probabilities = torch.tensor([[0.999, 0.001], [0.001, 0.999]])
    losses, _, choices = choice_scores(probabilities.log(), torch.zeros(2, dtype=torch.long))
    np.testing.assert_allclose(losses, [0.0010005, 6.9077553], rtol=1e-4)
    losses, _, _ = choice_scores(
        choices, torch.zeros(2, dtype=torch.long)
    )  # normalising again changes nothing
    np.testing.assert_allclose(losses, [0.0010005, 6.9077553], rtol=1e-4)


def test_lost_iterate():
    """[PEZ for LMs] The free vectors were overwritten by their projection.

    So steps within a word's cell never added up.
    """
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(60))
    strategy = make_strategy(
        "pez", find_strategy("pez"), objective, 0, {"rate": 1e-4, "batch": 4, "interval": 1}
    )
    vectors = []
    for _ in range(4):
        prompts = strategy.ask()
        strategy.tell(prompts, objective.evaluate(prompts))
        vectors.append(
            next(
                tensor.clone()
                for name, tensor in strategy.state().tensors.items()
                if name.startswith("encoder")
            )
        )
    moved = [float((tensor - vectors[0]).norm()) for tensor in vectors]
    assert all(b > a for a, b in zip(moved, moved[1:], strict=False))


def test_alias_of_the_live_tensor():
    """[BDPL] The best prompt was kept by reference, and changed with every later step."""
    live = torch.ones(2, 3)
    prompt = SoftPrompt(live)
    key = prompt.key
    live.zero_()
    assert prompt.vectors.eq(1).all() and SoftPrompt(torch.ones(2, 3)).key == key


@pytest.mark.parametrize("name", SEARCHES)
def test_unevaluated_best(name):
    """[ClaPS, BDPL] What was reported had been put together after the scoring.

    It was never scored itself.
    """
    scorer = PlantedScorer("pairwise", noise=0.1)
    objective = scorer.objective(scorer.budget(60))
    search(make_strategy(name, find_strategy(name), objective, 0, {}))
    best = objective.ranking[0]
    proposed = {
        data["key"]
        for line in objective.log.lines
        if line["examples"] == "score_on"
        for data in line["prompts"]
    }
    assert best.prompt.key in proposed
    assert best.value == pytest.approx(
        float(scorer.score([best.prompt], objective.scored).losses.mean()), abs=1e-5
    )


def test_never_sampled_is_zero():
    """[APE] A prompt without a single score had the score 0.

    That beat every mean log-probability.
    """
    scorer = PlantedScorer("separable", failing=0.5)
    objective = scorer.objective(scorer.budget(20))
    found = objective.evaluate(scorer.space.sample(np.random.default_rng(0), 12))
    assert found.failures and all(
        found.values[i] == np.inf and np.isnan(found.losses[i]).all() for i in found.failures
    )
    assert {item.prompt.key for item in objective.ranking}.isdisjoint(
        scorer.space.sample(np.random.default_rng(0), 12)[i].key for i in found.failures
    )


def test_mask_on_the_wrong_axis():
    """[promptolution] The mask over candidates was laid on the list of blocks."""
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(1, 0.1, (3, 64)), rng.normal(5, 0.1, (4, 64))])[
        rng.permutation(7)
    ]

    def score(who, ids):
        part = losses[np.ix_(who, ids)]
        return Scores(part, part < 1, None, part.size)

    found = race(7, np.arange(64), None, score, lambda who, ids, later: list(who)).scores.losses
    assert found.shape == (7, 64)
    dropped = np.isnan(found).any(1)
    assert dropped[losses.mean(1) > 3].all() and not dropped.all()
    np.testing.assert_array_equal(found[~np.isnan(found)], losses[~np.isnan(found)])


def test_cache_without_split(tiny, films, tmp_path):
    """[GEPA #424] Two examples had one score between them.

    They were example 3 of the training split and example 3 of the validation split.
    """
    template, ids = films.template.bind(1), np.arange(4)
    prompt = HardPrompt([tiny.words[0]])
    engines = [
        Engine(tiny, template, films.splits[name], films.choices)
        for name in ("search", "select", "test")
    ]
    names = {ScoreCache.name(engine.signature, [prompt.key], ids) for engine in engines}
    assert len(names) == 3


def test_means_over_different_examples():
    """[APE, DSPy, promptolution] Prompts were ranked by their means.

    They had been scored on different subsamples.
    """
    objective = planted_objective()
    rng = np.random.default_rng(0)
    easy, hard = objective.space.sample(rng, 2)
    assert (
        objective.evaluate([easy], objective.training[:1]).examples.tolist()
        == objective.training[:1].tolist()
    )
    assert not objective.ranking  # whatever its mean is
    objective.evaluate([hard])
    assert [item.prompt for item in objective.ranking] == [hard]


def test_tokens_that_the_text_does_not_give_back(tiny, films):
    """[RLPrompt, nanoGCG] What was optimised as tokens was used as text.

    The tokenizer cuts that another way.
    """
    template, example = films.template.bind(2), films.splits["search"].examples[0]
    layout = lay_out(template, tiny, example, films.choices)
    whole = next(i for i in tiny.words if len(tiny.decode([i]).strip()) > 3)
    parts = [tiny.encode(text)[0] for text in (tiny.decode([whole])[:2], tiny.decode([whole])[2:])]
    fault = broken_joint(template, tiny, example, layout, HardPrompt(parts), films.choices)
    assert fault is not None and "is cut into" in fault
    assert (
        broken_joint(template, tiny, example, layout, HardPrompt([whole, whole]), films.choices)
        is None
    )


def test_an_error_scored_as_zero():
    """[DSPy, GEPA #456] Whatever an evaluation raised became a score of 0, and was cached."""

    class Broken(Strategy):
        def ask(self):
            return [HardPrompt([10**9])]

    with pytest.raises(Exception, match="not in the pool|has 4 tokens"):
        search(Broken(planted_objective(), seed=0))


def test_special_tokens_in_the_pool(tiny):
    """[PEZ, nanoGCG] Added tokens could be part of a prompt.

    So could the padding of the embedding table.
    """
    special = set(tiny.tokenizer.added_tokens_decoder)
    assert not special & set(tiny.words) and max(tiny.words) < len(tiny.tokenizer)
    assert not special & set(PromptSpace(tiny.words, 2).pool.tolist())
