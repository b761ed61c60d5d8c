"""PEZ.

The conformance suite, its step against a plain loop, and the mistakes of the released code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import HardPrompt, SoftPrompt
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.strategies.pez import PEZ
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class TestPEZ(StrategyConformance):
    strategy = PEZ
    options = {"batch": 4, "interval": 1}
    planted = "separable"
    seeds = 5
    few = 30


class TestFromVectors(StrategyConformance):
    strategy = PEZ
    options = {"batch": 4, "interval": 1}
    seeds = 5
    few = 30

    def start(self, objective, seed):
        generator = torch.Generator().manual_seed(seed)
        return SoftPrompt(
            0.1
            * torch.randn(
                objective.space.length, objective.embeddings.shape[1], generator=generator
            )
        )


def made(scorer=None, start=None, evaluations=200, **options):
    scorer = scorer or PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(evaluations))
    objective.start = start
    return scorer, PEZ(objective, seed=0, **{"batch": 4, "interval": 1, **options})


def iterate(strategy):
    return strategy.module.vectors.detach().clone()


def test_the_iterate_is_never_lost_to_its_projection():
    """Trap: the released loop for LMs copies the projected tensor back.

    So steps smaller than a word's cell are lost.
    """
    scorer, strategy = made(rate=1e-4)
    (first,) = strategy.ask()
    strategy.tell([first], strategy.objective.evaluate([first]))
    start = iterate(strategy)
    moves = []
    for _ in range(6):
        (prompt,) = strategy.ask()
        assert prompt == first, "steps of this size leave the words as they are"
        moves.append(float((iterate(strategy) - start).norm()))
    assert all(b > a > 0 for a, b in zip(moves, moves[1:], strict=False)), "and add up"


def test_a_step_is_that_of_a_plain_loop():
    """Project, take the gradient at the projection, apply it to the iterate.

    Written out with torch alone.
    """
    scorer, strategy = made(rate=0.02)
    words = scorer.embeddings[torch.from_numpy(scorer.space.pool.copy())]
    free = iterate(strategy).requires_grad_()
    optimizer = torch.optim.AdamW([free], weight_decay=0.0)
    rng = np.random.default_rng(0)
    strategy.tell(prompts := strategy.ask(), strategy.objective.evaluate(prompts))
    for step in range(10):
        (prompt,) = strategy.ask()
        unit = torch.nn.functional.normalize
        projected = (
            words[(unit(free.detach(), dim=-1) @ unit(words, dim=-1).T).argmax(-1)]
            .clone()
            .requires_grad_()
        )
        ids = strategy.objective.minibatch(rng, 4)
        (gradient,) = torch.autograd.grad(scorer.loss(projected, ids), projected)
        free.grad = gradient
        torch.nn.utils.clip_grad_norm_([free], 1.0)
        optimizer.param_groups[0]["lr"] = 0.02 * strategy.schedule(step)
        optimizer.step()
        assert torch.allclose(iterate(strategy), free.detach(), atol=1e-6)
        best = (unit(free.detach(), dim=-1) @ unit(words, dim=-1).T).argmax(-1)
        assert prompt == scorer.space.prompt(best.numpy())


def test_no_special_token_is_a_neighbour():
    """Trap: among all embeddings, the nearest one may be a token that no prompt may hold."""
    scorer = PlantedScorer("separable")
    outside = [
        i for i in range(len(scorer.embeddings)) if i not in set(scorer.space.pool.tolist())
    ][:4]
    start = SoftPrompt(scorer.embeddings[outside])
    _, strategy = made(scorer, start)
    asked = [strategy.ask()[0]]
    assert set(asked[0].ids) <= set(scorer.space.pool.tolist())


def test_words_are_scored_as_words_not_as_their_embeddings():
    """Trap: the released code reports the accuracy of the embeddings beside the decoded words."""
    scorer = PlantedScorer(
        "separable", noise=0.5
    )  # hard prompts are worse than their embeddings here
    objective = scorer.objective(scorer.budget(40))
    loop.search(PEZ(objective, seed=0, batch=4, interval=1))
    assert len(objective.ranking) > 3
    for item in objective.ranking:
        assert isinstance(item.prompt, HardPrompt)
        assert item.value == pytest.approx(
            scorer.score([item.prompt], scorer.scored).losses.mean(), abs=1e-6
        )
        if item.prompt != scorer.optimum:  # which alone is as good as its embeddings
            vectors = scorer.embeddings[list(item.prompt.ids)]
            assert item.value > float(scorer.loss(vectors, scorer.scored)) + 0.01


def test_starts_at_words_exactly():
    scorer = PlantedScorer("separable")
    assert made(scorer, scorer.optimum)[1].ask() == [scorer.optimum]
    word = scorer.space.pool[3]
    assert made(scorer, text=f"w{word}")[1].ask() == [HardPrompt([word] * 4)]


def test_starts_at_the_vectors_of_another_run():
    scorer = PlantedScorer("separable")
    start = SoftPrompt(scorer.embeddings[list(scorer.optimum.ids)] * 1.01)
    _, strategy = made(scorer, start)
    assert torch.equal(iterate(strategy), start.vectors) and strategy.ask() == [scorer.optimum]
    with pytest.raises(StrategyError, match="give one of them"):
        made(scorer, start, text="w1")


def test_refuses_tokens_outside_the_pool_by_name():
    scorer = PlantedScorer("separable")
    outside = next(i for i in range(200) if i not in set(scorer.space.pool.tolist()))
    with pytest.raises(StrategyError, match=f"not in the pool of 100: 'w{outside}'"):
        made(scorer, text=f"w{outside}")


def test_a_state_holds_the_iterate_and_no_words_of_the_pool():
    _, strategy = made()
    tensors = strategy.state().tensors
    assert tensors["encoder.vectors"].shape == (4, 8) and not any(
        "words" in name for name in tensors
    )
