"""GCG: the conformance suite, and a step against brute force on a real architecture.

And the mistakes of released code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import Ask, HardPrompt
from promptsearch.errors import StrategyError
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring import Engine
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.strategies.gcg import GCG
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class TestGCG(StrategyConformance):
    strategy = GCG
    options = {"batch": 4}
    planted = "separable"


class TestGCGWithABuffer(StrategyConformance):
    strategy = GCG
    options = {"batch": 4, "buffer": 4, "momentum": 0.4}
    planted = "pairwise"
    seeds = 5


class TestFromAWinner(StrategyConformance):
    strategy = GCG
    options = {"batch": 4}
    seeds = 5

    def start(self, objective, seed):
        return objective.space.sample(np.random.default_rng([seed, 5]), 1)[0]


def made(scorer=None, **options):
    scorer = scorer or PlantedScorer("separable")
    return scorer, GCG(scorer.objective(), seed=0, **{"batch": 4, "merge": 0, **options})


def step(strategy):
    """One ask and its tell."""
    asked = strategy.ask()
    prompts, examples = (asked.prompts, asked.examples) if isinstance(asked, Ask) else (asked, None)
    strategy.tell(prompts, evaluation := strategy.objective.evaluate(prompts, examples))
    return asked, evaluation


def swaps(space, prompt):
    """All prompts that differ from one in one token."""
    return [
        HardPrompt([*prompt.ids[:i], int(token), *prompt.ids[i + 1 :]])
        for i in range(space.length)
        for token in space.pool
        if token != prompt.ids[i]
    ]


@pytest.fixture
def real(tiny, films):
    """An objective over a tiny Llama, with a pool small enough to try all exchanges."""
    template = films.template.bind(3)
    scorer = Engine(tiny, template, films.splits["search"], films.choices)
    space = PromptSpace(tiny.words[::9], 3, tiny.decode)
    return lambda: Objective(
        scorer, space, Ledger(None), scored=np.arange(20), training=np.arange(20, 40)
    )


def test_a_step_equals_a_plain_reference_step(real, tiny, films):
    """One-hot autograd and the top tokens by transformers alone.

    The best of them by brute force is the next prompt.
    """
    objective = real()
    space = objective.space
    strategy = GCG(objective, seed=0, width=10_000, top=4, batch=6, merge=0)
    (present,), _ = step(strategy)
    asked, _ = step(strategy)
    # The reference.
    weight = tiny.model.get_input_embeddings().weight.detach()
    hot = (
        torch.nn.functional.one_hot(torch.tensor(present.ids), len(weight)).float().requires_grad_()
    )

    def row_loss(example, slots):
        before, after = tiny.encode(""), tiny.encode(f" {example.fields['text']} It was")
        first = [tiny.encode(choice)[0] for choice in (" bad", " good")]
        embedded = torch.cat([weight[before], slots @ weight, weight[after]])
        logits = tiny.model(inputs_embeds=embedded[None]).logits[0, -1]
        return -logits[first].log_softmax(0)[example.choice]

    examples = objective.examples(asked.examples)
    loss = torch.stack([row_loss(example, hot) for example in examples]).mean()
    (gradient,) = torch.autograd.grad(loss, hot)
    expected = set()
    for i, token in enumerate(present.ids):
        pool = [t for t in space.pool.tolist() if t != token]
        best = sorted(pool, key=lambda t, i=i: float(gradient[i, t]))[:4]
        expected |= {HardPrompt([*present.ids[:i], t, *present.ids[i + 1 :]]) for t in best}
    assert (
        asked.prompts[0] == present
        and set(asked.prompts[1:]) == expected
        and len(asked.prompts) == 13
    )
    with torch.no_grad():
        eye = torch.eye(len(weight))
        losses = {
            p: float(torch.stack([row_loss(e, eye[list(p.ids)]) for e in examples]).mean())
            for p in asked.prompts
        }
    assert strategy.buffer == [min(asked.prompts, key=losses.__getitem__)]


def test_the_best_of_all_single_exchanges_is_among_the_tokens_of_the_largest_gradient(real):
    """Against brute force over every exchange.

    The gradient's tokens are better than as many random ones.
    """
    objective = real()
    strategy = GCG(objective, seed=0, width=10_000, top=8, batch=20, merge=0)
    (present,), _ = step(strategy)
    asked, evaluation = step(strategy)
    every = objective.evaluate(swaps(objective.space, present), asked.examples).values
    assert evaluation.values[1:].mean() < every.mean()
    assert (every < evaluation.values[1:].min()).mean() < 0.02


def test_the_best_prompt_is_never_replaced_by_a_worse_one():
    """Trap: without a buffer, the released code goes on from each step's best candidate.

    It does so even where that one is worse.
    """
    scorer, strategy = made()
    strategy.buffer = [scorer.optimum]
    for _ in range(20):
        step(strategy)
        assert strategy.buffer == [scorer.optimum]


@pytest.mark.parametrize("buffer", [1, 3])
def test_candidates_are_compared_with_the_buffer_on_the_same_examples(buffer):
    """Trap: losses of different minibatches do not compare.

    So what is kept is scored again with the candidates.
    """
    _, strategy = made(buffer=buffer)
    kept = list(strategy.buffer)
    for _ in range(10):
        asked, evaluation = step(strategy)
        if isinstance(asked, Ask):
            assert list(asked.prompts[: len(kept)]) == kept
            order = np.argsort(evaluation.values, kind="stable")
            assert strategy.buffer == [asked.prompts[i] for i in order[:buffer]]
        kept = list(strategy.buffer)
    assert len(kept) == buffer


def test_goes_on_where_every_candidate_is_kept_already():
    """Trap: with no candidate left the released code fails."""
    scorer = PlantedScorer("separable", pool=2, length=1)
    _, strategy = made(scorer, buffer=4)
    for _ in range(6):
        step(strategy)
    assert set(strategy.buffer) == set(scorer.space.prompt([i]) for i in (0, 1))


def test_candidates_differ_in_one_token_and_are_all_different_and_of_the_pool():
    scorer, strategy = made(width=40, top=30)
    pool = set(scorer.space.pool.tolist())
    for _ in range(10):
        asked, _ = step(strategy)
        if isinstance(asked, Ask):
            present, *others = asked.prompts
            assert len(set(others)) == len(others) == 40
            assert all(
                sum(a != b for a, b in zip(p.ids, present.ids, strict=True)) == 1
                and set(p.ids) <= pool
                for p in others
            )


def test_tokens_are_drawn_from_the_best_half_of_a_small_pool_at_most():
    _, strategy = made(PlantedScorer("separable", pool=10), top=100)
    assert strategy.top == 5


def test_every_new_best_prompt_is_scored_on_all_of_score_on():
    _, strategy = made()
    for _ in range(20):
        before = strategy.buffer[0]
        asked, _ = step(strategy)
        if strategy.buffer[0] != before:
            assert isinstance(asked, Ask) and strategy.ask() == strategy.buffer[:1]


def test_starts_from_a_text_or_a_winner():
    scorer = PlantedScorer("separable")
    word = scorer.space.pool[3]
    assert made(scorer, text=f"w{word}")[1].ask() == [HardPrompt([word] * 4)]
    outside = next(i for i in range(200) if i not in set(scorer.space.pool.tolist()))
    with pytest.raises(StrategyError, match=f"not in the pool of 100: 'w{outside}'"):
        made(scorer, text=f"w{outside}")
    objective = scorer.objective()
    objective.start = scorer.optimum
    assert GCG(objective, seed=0).ask() == [scorer.optimum]


def changed(prompt, present):
    """Position -> the token that stands there instead."""
    pairs = zip(prompt.ids, present.ids, strict=True)
    return {i: new for i, (new, old) in enumerate(pairs) if new != old}


@pytest.mark.parametrize(("buffer", "most"), [(1, 7), (1, 2), (3, 7)])
def test_the_best_exchanges_are_joined_one_after_the_other(buffer, most):
    """Against the exchanges sorted by hand, each at a position of its own.

    They are scored on the examples of the step, and the best prompts of both asks go on.
    """
    _, strategy = made(PlantedScorer("separable", length=6), width=60, buffer=buffer, merge=most)
    step(strategy)
    kept = list(strategy.buffer)
    asked, evaluation = step(strategy)
    present, loss = asked.prompts[0], evaluation.values[0]
    best = {}  # position -> token, the best exchange first
    for i in np.argsort(evaluation.values, kind="stable"):
        if i >= len(kept) and evaluation.values[i] < loss:
            for place, token in changed(asked.prompts[i], present).items():
                best.setdefault(place, token)
    joined = [dict(list(best.items())[: n + 1]) for n in range(1, len(best))][:most]
    assert len(joined) >= 2 and strategy.buffer == kept
    merged, values = step(strategy)
    assert [changed(prompt, present) for prompt in merged.prompts] == joined
    assert merged.examples == list(asked.examples)
    every = [*asked.prompts, *merged.prompts]
    order = np.argsort([*evaluation.values, *values.values], kind="stable")
    assert strategy.buffer == [every[i] for i in order[:buffer]]
    assert len(changed(strategy.buffer[0], present)) > 1  # on a separable objective they add up


def test_a_step_without_two_better_exchanges_is_not_merged():
    scorer, strategy = made(merge=7)
    strategy.buffer = [scorer.optimum]
    for _ in range(6):
        asked, _ = step(strategy)
        assert not isinstance(asked, Ask) or asked.prompts[0] == scorer.optimum


def test_where_there_are_fewer_examples_than_in_a_minibatch_each_is_paid_once():
    _, strategy = made(PlantedScorer("separable", examples=24), batch=16)
    step(strategy)
    asked, _ = step(strategy)
    assert sorted(asked.examples) == list(range(12, 24))


def test_momentum_takes_tokens_from_the_mean_of_the_gradients():
    """Against the mean by hand; the present gradient alone names others."""
    _, strategy = made(width=10_000, top=5, momentum=0.8)
    objective, mean, told = strategy.objective, None, 0
    for _ in range(12):
        asked, _ = step(strategy)
        if not isinstance(asked, Ask):
            continue
        present = asked.prompts[0]
        own = objective.space.indices(present)
        gradient = objective.token_gradient(present, asked.examples).numpy()
        mean = gradient if mean is None else 0.8 * mean + 0.2 * gradient

        def named(by, own=own, present=present):
            rows = [
                [t for t in np.argsort(row) if t != o][:5] for row, o in zip(by, own, strict=True)
            ]
            places = [(i, objective.space.pool[t]) for i, row in enumerate(rows) for t in row]
            return {
                HardPrompt([*present.ids[:i], int(t), *present.ids[i + 1 :]]) for i, t in places
            }

        assert set(asked.prompts[1:]) == named(mean)
        told += named(mean) != named(gradient)
    assert told


@pytest.mark.parametrize("option", ["width", "top", "batch", "buffer"])
def test_refuses_options_out_of_range(option):
    with pytest.raises(StrategyError, match=f"'{option}' must be at least 1, got 0"):
        check_options("gcg", GCG, {option: 0})


def test_where_each_minibatch_is_all_examples_no_prompt_is_paid_on_them_twice():
    _, strategy = made(PlantedScorer("separable", examples=24), batch=16, buffer=2)
    for _ in range(12):
        step(strategy)
    lines = [x for x in strategy.objective.log.lines if x["examples"] != "score_on"]
    keys = [prompt["key"] for line in lines for prompt in line["prompts"]]
    assert len(lines) > 3 and len(keys) == len(set(keys))
