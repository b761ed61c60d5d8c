"""The gradient with respect to tokens.

Against one-hot vectors through the model's own forward, and finite differences.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch.errors import BudgetExhausted, StrategyError
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out
from promptsearch.search.objective import Objective
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_task import tiny_task

TEMPLATES = (
    "{prompt:3} {text} It was {answer}",
    "{text} {prompt:3} It was {answer}",
    "{prompt:2} movie {prompt:1} {text} is {answer}",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request):
    return request.param, LanguageModel(*tiny_model(request.param))


def real(lm, template, answers=("bad", "good movie"), budget=None, dtype=torch.float32):
    task = tiny_task(template, answers)
    scorer = Engine(lm.to(dtype), task.template.bind(1), task.splits["search"], task.choices)
    space = PromptSpace(lm.words[::7], 3, lm.decode)
    ids = np.arange(12)
    return Objective(scorer, space, Ledger(budget), scored=ids[:4], training=ids[4:]), task


def one_hot_gradient(architecture, lm, task, prompt, ids):
    """The mean loss's gradient, shape (length, vocabulary).

    One-hot vectors times the weights, row by row, without the engine.
    """
    weight = lm.model.get_input_embeddings().weight.detach()
    scale = weight.shape[1] ** 0.5 if architecture == "gemma3" else 1.0
    size = len(weight)
    hot = torch.nn.functional.one_hot(torch.tensor(prompt.ids), size).float().requires_grad_()
    template = task.template.bind(1)
    slots = hot.split([slot.length for slot in template.slots])
    total = torch.zeros(())
    for i in ids:
        example = task.splits["search"].examples[i]
        layout = lay_out(template, lm, example, task.choices)
        sums = []
        for answer in layout.answers:
            parts = [
                torch.nn.functional.one_hot(
                    torch.tensor(layout.segments[0], dtype=torch.long), size
                ).float()
            ]
            for slot, segment in zip(slots, layout.segments[1:], strict=True):
                parts += [
                    slot,
                    torch.nn.functional.one_hot(
                        torch.tensor(segment, dtype=torch.long), size
                    ).float(),
                ]
            parts.append(torch.nn.functional.one_hot(torch.tensor(answer), size).float())
            row = torch.cat(parts)
            logits = (
                lm.model(inputs_embeds=(scale * (row @ weight))[None]).logits[0].log_softmax(-1)
            )
            places = torch.arange(len(row) - len(answer) - 1, len(row) - 1)
            sums.append(logits[places, torch.tensor(answer)].sum())
        total = total - torch.stack(sums).log_softmax(0)[example.choice]
    (gradient,) = torch.autograd.grad(total / len(ids), hot)
    return gradient


@pytest.mark.parametrize("template", TEMPLATES)
def test_is_the_gradient_of_one_hot_vectors_through_the_models_own_forward(made, template):
    architecture, lm = made
    given, task = real(lm, template)
    prompt = given.space.sample(np.random.default_rng(0), 1)[0]
    ids = given.training[:3]
    found = given.token_gradient(prompt, ids)
    expected = one_hot_gradient(architecture, lm, task, prompt, ids)[
        :, torch.from_numpy(given.space.pool.copy())
    ]
    assert found.shape == (3, len(given.space.pool))
    assert expected.abs().max() > 1e-5
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_leaves_no_trace_and_is_charged_as_a_loss_is(made):
    _, lm = made
    given, _ = real(lm, TEMPLATES[0])
    prompt = given.space.sample(np.random.default_rng(0), 1)[0]
    found = given.token_gradient(prompt, given.training[:3])
    other, _ = real(lm, TEMPLATES[0])
    other.loss(other.embeddings[list(prompt.ids)].float(), other.training[:3])
    assert given.ledger == other.ledger and given.ledger.backward > 0
    assert not found.requires_grad and all(weight.grad is None for weight in lm.model.parameters())


def test_works_in_bfloat16(made):
    _, lm = made
    (exact, _), (rough, _) = real(lm, TEMPLATES[0]), real(lm, TEMPLATES[0], dtype=torch.bfloat16)
    prompt = exact.space.sample(np.random.default_rng(0), 1)[0]
    one, two = (each.token_gradient(prompt, each.training[:3]) for each in (exact, rough))
    assert two.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("kind", ["separable", "pairwise", "plateau"])
def test_is_what_finite_differences_give_on_planted_objectives(kind):
    scorer = PlantedScorer(kind)
    given = scorer.objective()
    space, ids = given.space, given.training[:5]
    # Near the planted prompt: elsewhere a plateau is flat.
    prompt = space.prompt([*space.indices(scorer.optimum)[:-1], 7])
    found = given.token_gradient(prompt, ids)
    rows = given.embeddings[list(prompt.ids)].double()
    for place, token in ((0, 3), (1, 50), (3, 99)):
        way = torch.zeros_like(rows)
        way[place] = given.embeddings[space.pool[token]] - rows[place]
        up, down = (float(scorer.loss(rows + step * way, ids)) for step in (1e-4, -1e-4))
        own = int(space.indices(prompt)[place])
        assert found[place, token] - found[place, own] == pytest.approx(
            (up - down) / 2e-4, rel=1e-3, abs=1e-6
        )


def test_refuses_a_prompt_outside_the_space_and_what_it_cannot_pay():
    scorer = PlantedScorer("separable")
    given = scorer.objective(10)
    stranger = next(i for i in range(1000) if i not in set(given.space.pool.tolist()))
    with pytest.raises(StrategyError, match="not in the pool"):
        given.token_gradient(HardPrompt([stranger] * 4), given.training[:2])
    with pytest.raises(BudgetExhausted):
        given.token_gradient(scorer.optimum, given.training)
    assert given.ledger.spent == 0
