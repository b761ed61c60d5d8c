"""Prefixes in the engine, and their gradient.

Against the model's own forward with the same keys and values in its cache (law 3).
"""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from promptsearch.errors import ModelError, PromptError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring import sharing as plan
from promptsearch.scoring.joints import check_joints
from promptsearch.scoring.layout import lay_out
from promptsearch.tasks.task import Task
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import ROWS, SPLITS, tiny_engine

FRONT, BEHIND = "{prompt} {text} It was {answer}", "{text} {prompt} It was {answer}"
EVERYTHING = np.arange(12)
make_engine = partial(tiny_engine, answers=("bad", "very good indeed"), kind="prefix")
LENGTH = 3


def make_prefixes(lm, length=LENGTH, count=3):
    """Of the scale of real keys and values, and unlike any word's."""
    generator = torch.Generator().manual_seed(0)
    return [
        PrefixPrompt(torch.randn(length, *lm.prefix_shape, generator=generator))
        for _ in range(count)
    ]


def cache(lm, prefix):
    return DynamicCache(
        [(keys[None], values[None]) for keys, values in prefix.keys_values.permute(1, 2, 3, 0, 4)],
        config=lm.model.config,
    )


def plain(lm, engine, example, prefix):
    """Summed log-probability of each answer.

    The whole text below the model's own cache, one row at a time.
    """
    layout = engine.layout(example.id)
    found = []
    for answer in layout.answers:
        ids = torch.tensor([[*layout.segments[1], *answer]])
        with torch.inference_mode():
            logits = lm.model(input_ids=ids, past_key_values=cache(lm, prefix)).logits[0].double()
        steps = logits[-len(answer) - 1 : -1].log_softmax(-1)
        found.append(sum(float(step[token]) for step, token in zip(steps, answer, strict=True)))
    return found, max(map(len, layout.answers))


@pytest.mark.parametrize("length", [1, LENGTH, 20])  # Gemma's windows are 16 tokens wide
@pytest.mark.parametrize(
    ("template", "answers"), [(FRONT, ("bad", "good")), (BEHIND, ("bad", "very good indeed"))]
)
def test_losses_are_those_of_the_models_own_cache(lm, template, answers, length):
    engine = make_engine(lm, template, answers=answers, length=length)
    prefixes = make_prefixes(lm, length)
    scores = engine.score(prefixes, EVERYTHING)
    assert not scores.failures
    for p, prefix in enumerate(prefixes):
        for example in engine.examples(EVERYTHING):
            found, tokens = plain(lm, engine, example, prefix)
            expected = torch.tensor(found).log_softmax(-1)
            assert (
                abs(scores.losses[p, example.id] + float(expected[example.choice])) < 1e-5 * tokens
            )
            assert np.abs(scores.choices[p, example.id] - expected.numpy()).max() < 1e-5 * tokens


def test_text_answers_too(lm):
    engine = make_engine(lm, answers=None)
    prefixes = make_prefixes(lm)
    losses = engine.score(prefixes, EVERYTHING).losses
    for p, prefix in enumerate(prefixes):
        for example in engine.examples(EVERYTHING):
            found, tokens = plain(lm, engine, example, prefix)
            assert abs(losses[p, example.id] + found[0]) < 1e-5 * tokens


def test_the_keys_and_values_of_words_are_worth_the_words(lm):
    """A front prompt compiles to a prefix exactly.

    What it leaves in the cache does not depend on the input.
    """
    task = Task.from_rows(
        ROWS, template=FRONT, label="label", answers={0: "bad", 1: "good"}, splits=SPLITS
    )
    words = np.random.default_rng(0).choice(lm.words, size=LENGTH)
    rows = [
        [
            *words,
            *lay_out(task.template.bind(LENGTH).taking("prefix"), lm, e, task.choices).segments[1],
        ]
        for e in task.splits["search"].examples
    ]
    engine = make_engine(lm, answers=("bad", "good"))
    found = engine.score([PrefixPrompt(engine.keys_values(words.tolist()))], EVERYTHING).choices[0]
    for ids, nats in zip(rows, found, strict=True):
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
        expected = logits[[lm.encode(f" {answer}")[0] for answer in ("bad", "good")]].log_softmax(
            -1
        )
        assert np.abs(nats - expected.numpy()).max() < 1e-5


def test_a_loss_does_not_depend_on_batch_order_or_padding(lm, monkeypatch):
    prefixes = make_prefixes(lm)
    together = make_engine(lm).score(prefixes, EVERYTHING).losses
    order = np.random.default_rng(1).permutation(12)
    assert (
        np.abs(make_engine(lm).score(prefixes[::-1], order).losses[::-1] - together[:, order]).max()
        < 1e-5
    )
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (
        np.abs(make_engine(lm, memory=0).score(prefixes, EVERYTHING).losses - together).max() < 1e-5
    )


def test_the_training_loss_is_the_scored_loss_and_its_gradient_is_right(lm):
    engine, examples = make_engine(lm, answers=None), np.array([3, 0, 5])
    rows = make_prefixes(lm)[0].keys_values.clone().requires_grad_()
    loss = engine.loss(rows, examples)
    assert loss.item() == pytest.approx(
        engine.score([PrefixPrompt(rows)], examples).losses.mean(), abs=1e-5
    )
    (gradient,) = torch.autograd.grad(loss, rows)
    for place in range(
        3
    ):  # in a random direction, and in the keys and the values of one token at one layer
        direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(place))
        if place:
            kept = torch.zeros_like(direction)
            kept[place, -1, place - 1] = direction[place, -1, place - 1]
            direction = kept
        direction /= direction.norm()
        step = 2e-2
        ahead, behind = (
            float(engine.loss(rows.detach() + s * step * direction, examples)) for s in (1, -1)
        )
        assert (ahead - behind) / (2 * step) == pytest.approx(
            float((gradient * direction).sum()), rel=0.05, abs=1e-3
        )
    reached = gradient.flatten(3).abs().sum(-1) > 0  # (length, layers, 2)
    assert reached.all(), "keys and values of every token at every layer get a gradient"


def test_gradients_do_not_depend_on_how_the_rows_are_packed(llama, monkeypatch):
    def gradient():
        rows = make_prefixes(llama)[0].keys_values.clone().requires_grad_()
        make_engine(llama).loss(rows, EVERYTHING).backward()
        return rows.grad

    together = gradient()
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (gradient() - together).abs().max() < 1e-6


def test_the_price_is_the_prefix_and_the_whole_row_wherever_the_slots_were(lm):
    for template in (FRONT, BEHIND):
        engine = make_engine(lm, template)
        example = engine.examples(np.array([5]))[0]
        text = lm.encode((" " if template == FRONT else "") + f"{example.fields['text']} It was")
        answers = sum(len(lm.encode(f" {answer}")) for answer in ("bad", "very good indeed"))
        assert engine.lead(np.array([5]))[0] == 0
        assert engine.context(np.array([5]))[0] == len(lm.lead) + len(text) + answers
        assert engine.length(make_prefixes(lm)[0]) == LENGTH


def test_nothing_of_a_prefix_is_computed_and_the_plan_knows(llama):
    rows = [
        {**row, "text": f"{'abcdefghijklmnopqrstuvwxyz'[i]} {row['text']}"}
        for i, row in enumerate(ROWS)
    ]  # nothing to share
    engine, prefixes = make_engine(llama, answers=("bad", "good"), rows=rows), make_prefixes(llama)
    computed = engine.score(prefixes, EVERYTHING).computed
    assert computed <= 3 * (engine.context(EVERYTHING) - 2).sum()
    assert engine.predict(prefixes, EVERYTHING).tokens == pytest.approx(computed, rel=0.1)
    assert engine.kept == (0, 0)


def test_bfloat16_is_near(llama):
    prefixes = make_prefixes(llama)
    exact, fast = (
        make_engine(model).score(prefixes, EVERYTHING).losses
        for model in (llama, llama.to(torch.bfloat16))
    )
    assert 0 < np.abs(exact - fast).max() < 0.3


def test_each_kind_of_prompt_under_its_own_template_only(llama):
    engine, prefix = make_engine(llama), make_prefixes(llama)[0]
    for prompt in (HardPrompt(llama.words[:LENGTH]), SoftPrompt(llama.vocabulary[:LENGTH])):
        with pytest.raises(
            PromptError,
            match=f"under this template prefixes are scored, got a {type(prompt).__name__}",
        ):
            engine.score([prefix, prompt], EVERYTHING)
    assert (
        "prefixes are scored, got a TextPrompt"
        in engine.score([TextPrompt("good"), prefix], EVERYTHING).failures[0]
    )
    task = Task.from_rows(
        ROWS, template=FRONT, label="label", answers={0: "bad", 1: "good"}, splits=SPLITS
    )
    slots = Engine(llama, task.template.bind(LENGTH), task.splits["search"], task.choices)
    with pytest.raises(
        PromptError,
        match="under this template prompts that fill slots are scored, got a PrefixPrompt",
    ):
        slots.score([prefix], EVERYTHING)


@pytest.mark.parametrize(
    "change", [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, -1)]
)
def test_a_prefix_of_another_length_or_model_is_refused(llama, change):
    shape = [size + more for size, more in zip((LENGTH, *llama.prefix_shape), change, strict=True)]
    engine = make_engine(llama)
    with pytest.raises(
        PromptError, match=r"has shape \(3, 2, 2, 2, 8\) under this template and model, got \("
    ):
        engine.score([PrefixPrompt(torch.zeros(shape))], EVERYTHING)
    with pytest.raises(
        PromptError, match=r"has shape \(3, 2, 2, 2, 8\) under this template and model, got \("
    ):
        engine.loss(torch.zeros(shape), EVERYTHING)


def test_a_row_that_is_longer_with_its_prefix_than_the_context_is_named(llama):
    with pytest.raises(
        TemplateError,
        match=(
            r"example \d+ has 5\d\d tokens with a prompt of 500, but the model reads at most 512: "
            "shorten the prompt"
        ),
    ):
        make_engine(llama, length=500)


def test_an_answer_with_nothing_but_the_prefix_before_it_is_refused(llama):
    rows = [{"text": "", "label": 0}, *ROWS[1:]]
    with pytest.raises(TemplateError, match=r"no text stands before the answer of \w+ example \d+"):
        for name in SPLITS:
            task = Task.from_rows(
                rows,
                template="{prompt}{text}{answer}",
                label="label",
                answers={0: " bad", 1: " good"},
                splits=SPLITS,
            )
            Engine(
                llama, task.template.bind(LENGTH).taking("prefix"), task.splits[name], task.choices
            )


def test_a_model_whose_rows_cannot_begin_with_given_keys_takes_no_prefix():
    model, tokenizer = tiny_model("llama")
    model.config.layer_types = ["chunked_attention", "full_attention"]
    with pytest.raises(ModelError, match="takes no prefix: its rows cannot begin with given keys"):
        make_engine(LanguageModel(model, tokenizer))


def test_an_answer_that_does_not_join_with_the_text_below_a_prefix_is_named(llama):
    """With a word in the slot it joins; with nothing there, " c" + "apital" are one token."""
    data = [{"text": f"{i} c", "label": i % 2} for i in range(24)]
    task = Task.from_rows(
        data,
        template="{text}{prompt}{answer}",
        label="label",
        answers={0: "apital", 1: "good"},
        splits=SPLITS,
    )
    with pytest.raises(
        TemplateError,
        match="does not join with its answers without a prompt on the search split: in example 0",
    ):
        template, space = task.template.bind(2).taking("prefix"), PromptSpace(llama.words, 2)
        check_joints(template, llama, task.splits["search"], task.choices, space)


def test_not_finite_prefixes_are_failures(llama):
    bad, good = (
        PrefixPrompt(torch.full((LENGTH, *llama.prefix_shape), float("nan"))),
        make_prefixes(llama)[0],
    )
    scores = make_engine(llama).score([bad, good], EVERYTHING)
    assert list(scores.failures) == [0] and np.isfinite(scores.losses[1]).all()


# A prefix of the top-most layers only.


def test_layers_below_a_prefix_of_the_top_ones_do_not_see_it(lm, hidden_below):
    """Against the model's own attention, which is told to hide a whole prefix there."""
    engine = make_engine(lm)
    whole = make_prefixes(lm)
    some = [PrefixPrompt(prefix.keys_values[:, -1:]) for prefix in whole]
    scores = engine.score(some, EVERYTHING)
    with hidden_below(lm, 1, LENGTH):
        for p, prefix in enumerate(whole):
            for example in engine.examples(EVERYTHING[:4]):
                found, tokens = plain(lm, engine, example, prefix)
                nats = torch.tensor(found).log_softmax(-1)[example.choice]
                assert abs(scores.losses[p, example.id] + float(nats)) < 1e-5 * tokens
    assert np.abs(engine.score(whole, EVERYTHING).losses - scores.losses).max() > 1e-2
    with pytest.raises(PromptError, match="expected those of one number of layers"):
        engine.score([whole[0], some[0]], EVERYTHING)


def test_no_gradient_crosses_the_layers_below_a_prefix_of_the_top_ones(llama):
    engine, rows = make_engine(llama), make_prefixes(llama)[0].keys_values
    top = rows[:, -1:].clone().requires_grad_()
    loss = engine.loss(top, EVERYTHING)
    assert loss.item() == pytest.approx(engine.score([PrefixPrompt(top)], EVERYTHING).losses.mean())
    (gradient,) = torch.autograd.grad(loss, top)
    assert (gradient.flatten(3).abs().sum(-1) > 0).all()
    assert engine.passes(top) == (1.0, 0.5) and engine.passes(rows) == (1.0, 1.0)
