"""Nearest tokens: the conformance suite, and each projection against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from promptsearch import HardPrompt, SoftPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.options import check_options
from promptsearch.strategies.nearest_tokens import NearestTokens, combinations
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


def vectors(objective, seed, scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    return SoftPrompt(
        scale
        * torch.randn(objective.space.length, objective.embeddings.shape[1], generator=generator)
    )


class TestNearestTokens(StrategyConformance):
    strategy = NearestTokens
    planted = None

    def start(self, objective, seed):
        return vectors(objective, seed)


def asked(scorer, start, **options):
    objective = scorer.objective()
    objective.start = start
    return NearestTokens(objective, seed=0, **options).ask()


def test_the_first_three_are_nearest_by_cosine_distance_and_dot_product():
    scorer = PlantedScorer("separable")
    words = scorer.embeddings[torch.from_numpy(scorer.space.pool.copy())].numpy()

    def nearest(start):
        every = []
        for vector in start.vectors.numpy():
            dots = [float(np.dot(word, vector)) for word in words]
            cosines = [dot / np.linalg.norm(word) for dot, word in zip(dots, words, strict=True)]
            distances = [float(np.linalg.norm(word - vector)) for word in words]
            every.append((np.argmax(cosines), np.argmin(distances), np.argmax(dots)))
        return [scorer.space.prompt(row) for row in zip(*every, strict=True)]

    starts = [vectors(scorer.objective(), seed) for seed in range(20)]
    telling = [start for start in starts if len(set(nearest(start))) == 3]
    assert telling, "the three measures differ"
    for start in telling:
        assert asked(scorer, start)[:3] == nearest(start)


def test_then_come_combinations_of_the_nearest_in_the_order_of_their_cosines():
    scorer = PlantedScorer("separable", pool=20, length=3)
    start = vectors(scorer.objective(), 1)
    words = scorer.embeddings[torch.from_numpy(scorer.space.pool.copy())]
    cosines = torch.nn.functional.cosine_similarity(
        start.vectors[:, None], words[None], dim=-1
    ).numpy()
    near = [np.argsort(-row)[:2] for row in cosines]
    every = sorted(
        itertools.product(*near), key=lambda row: -sum(cosines[i, t] for i, t in enumerate(row))
    )
    expected = [scorer.space.prompt(row) for row in every]
    found = asked(scorer, start, nearest=2, tries=100)
    assert [prompt for prompt in found if prompt in set(expected)] == expected
    assert len(set(found)) == len(found) <= 8 + 2


@settings(deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 3)),
        elements=st.integers(0, 5).map(float),
    )
)
def test_combinations_are_all_of_them_by_falling_sum(values):
    values = -np.sort(-values, axis=1)
    found = list(combinations(values))
    sums = [sum(values[i, c] for i, c in enumerate(choice)) for choice in found]
    assert sums == sorted(sums, reverse=True)
    assert sorted(map(tuple, found)) == sorted(
        itertools.product(range(values.shape[1]), repeat=len(values))
    )


def test_a_prompt_of_words_comes_back():
    scorer = PlantedScorer("separable")
    start = SoftPrompt(scorer.embeddings[list(scorer.optimum.ids)])
    assert asked(scorer, start, tries=1) == [scorer.optimum]


def test_no_special_token_is_a_neighbour():
    """Trap: the nearest of all embeddings may be a token that no prompt may hold."""
    scorer = PlantedScorer("separable")
    outside = [
        i for i in range(len(scorer.embeddings)) if i not in set(scorer.space.pool.tolist())
    ][:4]
    found = asked(scorer, SoftPrompt(scorer.embeddings[outside]))
    assert found and all(set(prompt.ids) <= set(scorer.space.pool.tolist()) for prompt in found)


@pytest.mark.parametrize("start", [None, HardPrompt([1, 2, 3, 4])])
def test_needs_a_soft_prompt_to_start_from(start):
    with pytest.raises(StrategyError, match=r"start: \{run: LABEL\}"):
        asked(PlantedScorer("separable"), start)


@pytest.mark.parametrize("option", ["nearest", "tries"])
def test_refuses_options_out_of_range(option):
    with pytest.raises(StrategyError, match=f"'{option}' must be at least 1, got 0"):
        check_options("nearest_tokens", NearestTokens, {option: 0})
