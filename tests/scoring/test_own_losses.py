"""The losses of a prompt's own tokens: by hand, with their gradient, where they exist and paid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch.errors import StrategyError
from promptsearch.models import LanguageModel
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.search.books import books_of
from promptsearch.search.objective import Objective
from promptsearch.testing.families import FAMILIES
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_engine

LLAMA, GEMMA = (
    LanguageModel(*tiny_model(name, layers=1, width=16), name=name) for name in ("llama", "gemma3")
)
TARGETS = {3: 7, 1: 9}  # in any order
IN_FRONT = "{prompt} {text} It was {answer}"


def vectors_of(lm, length=4):
    generator = torch.Generator().manual_seed(0)
    near = lm.vocabulary[torch.tensor(lm.words[:length])].float()
    return (near + 0.1 * torch.randn(near.shape, generator=generator)).requires_grad_()


@pytest.mark.parametrize("lm", [LLAMA, GEMMA], ids=["llama", "gemma3"])  # gemma3 leads with a token
@pytest.mark.parametrize(
    ("template", "before", "length"),
    [
        (IN_FRONT, [""], 4),
        ("Is it good?{prompt} {text} It was {answer}", ["Is it good?"], 4),
        ("It{prompt} is{prompt} {text} It was {answer}", ["It", " is"], 2),
    ],
)
def test_they_are_what_the_model_says_of_the_row_up_to_the_prompt(lm, template, before, length):
    engine = tiny_engine(lm, template, length=length)
    numbers = vectors_of(lm)
    found = engine.teaching.own_losses(numbers, TARGETS)
    parts, places = [lm.vocabulary[torch.tensor(lm.lead, dtype=torch.int64)]], []
    for slot, (text, rows) in enumerate(zip(before, numbers.split(length), strict=True)):
        ids = lm.encode(text, begins=not slot)
        parts.append(lm.vocabulary[torch.tensor(ids, dtype=torch.int64)])
        begin = sum(map(len, parts))
        places += range(begin, begin + length)
        parts.append(rows)
    row = torch.cat(parts)
    nats = lm.model(inputs_embeds=row[None]).logits[0].log_softmax(-1)
    expected = torch.stack([-nats[places[place] - 1, token] for place, token in TARGETS.items()])
    assert torch.allclose(found, expected, atol=1e-5) and engine.teaching.own_price(4) == len(row)
    gradients = [torch.autograd.grad(each.sum(), numbers)[0] for each in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].norm() > 1e-4
    assert not gradients[0][3].any(), "what stands behind all targets has no say"


@pytest.mark.parametrize(
    ("family", "template", "kind", "reason"),
    [
        ("masked", IN_FRONT, "slots", "a masked language model, which predicts no token"),
        ("encoder-decoder", IN_FRONT, "slots", "an encoder-decoder model, which predicts no token"),
        ("causal", "{text} {prompt} was {answer}", "slots", "put the prompt in front of the input"),
        ("causal", IN_FRONT, "prefix", "prefixes have no tokens of their own"),
    ],
)
def test_where_there_are_none_the_reason_is_said(family, template, kind, reason):
    engine = tiny_engine(LanguageModel(*FAMILIES[family](), name=family), template, kind=kind)
    with pytest.raises(StrategyError, match=reason):
        engine.teaching.own_price(3)


def test_they_are_charged_for_the_prompt_alone_forward_and_backward():
    engine = tiny_engine(GEMMA, IN_FRONT, length=4)
    space = PromptSpace(GEMMA.words, 4, GEMMA.decode, embeddings=lambda: GEMMA.vocabulary)
    halves = np.split(np.arange(12), 2)
    objective = Objective(engine, space, Ledger(1_000), scored=halves[0], training=halves[1])
    numbers = vectors_of(GEMMA)
    assert objective.teaching.own_price(4) == 5  # and the token that leads it
    found = objective.teaching.own_losses(numbers, TARGETS)
    assert torch.equal(found, engine.teaching.own_losses(numbers, TARGETS))
    ledger = books_of(objective).ledger
    assert (ledger.forward, ledger.backward, ledger.computed) == (5, 5, 10)


@pytest.mark.parametrize("targets", [{0: 7}, {4: 7}, {1: -1}, {1: 10**6}])
def test_places_and_ids_that_the_prompt_does_not_have_are_refused(targets):
    objective = PlantedScorer("separable").objective(1_000)
    with pytest.raises(StrategyError, match="expected places from 1 to 3 in the prompt and ids"):
        objective.teaching.own_losses(torch.zeros(4, 8), targets)
    assert not objective.ledger.spent
