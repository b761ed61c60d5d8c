"""Masked models in the engine, held against the forward of transformers, row by row."""

import numpy as np
import pytest
import torch
from transformers import LongformerConfig, LongformerForMaskedLM, MPNetConfig, MPNetForMaskedLM

from promptsearch.errors import ModelError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.rows import rows_of
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.protocol import price_of, price_of_generation
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny_masked import (
    MASKED_ARCHITECTURES,
    PACKED_ARCHITECTURES,
    masked_tokenizer,
    tiny_masked,
)
from promptsearch.testing.tiny_task import tiny_engine

AROUND = "{prompt:2} {text} It was {answer}, and {prompt:1} the story."
EVERYTHING = np.arange(12)
#: Nats that float32 may be off for a scored token, far above what is seen.
NEAR = 1e-5


@pytest.fixture(scope="module", params=MASKED_ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_masked(request.param), name=request.param)


@pytest.fixture(scope="module")
def bert():
    return LanguageModel(*tiny_masked("bert"), name="bert")


def hard(lm, count, length=3, seed=0):
    rng = np.random.default_rng(seed)
    return [HardPrompt(rng.choice(lm.words, length).tolist()) for _ in range(count)]


def masked_ids(lm, engine, prompt, example, answer, two=2):
    """A row with masks for an answer, from the words of its texts alone, and the first mask."""
    text = engine.examples([example])[0].fields["text"]
    words = lm.decode(prompt.ids[:two]), lm.decode(prompt.ids[two:])
    begun = lm.encode(words[0], begins=True) if lm.name == "bert" else list(prompt.ids[:two])
    before = [*lm.lead, *begun, *lm.encode(f" {text} It was")]
    behind = [*lm.encode(", and"), *prompt.ids[two:], *lm.encode(" the story.")]
    masks = [lm.tokens.mask] * len(answer)
    return [*before, *masks, *behind, *lm.tokens.close], len(before)


def told(lm, ids, at, answer):
    """The log-probability of an answer by transformers' own forward."""
    with torch.inference_mode():
        logits = lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[at + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize(
    "answers", [("bad", "good"), ("bad movie", "good", "the story"), ("bad", "the story", "good")]
)
def test_choices_are_those_of_transformers(lm, answers):
    engine = tiny_engine(lm, AROUND, answers)
    prompts = hard(lm, 3)
    scores = engine.score(prompts, EVERYTHING)
    for i, prompt in enumerate(prompts):
        for example in engine.examples(EVERYTHING):
            nats = []
            for text in answers:
                answer = lm.encode(f" {text}")
                nats.append(told(lm, *masked_ids(lm, engine, prompt, example.id, answer), answer))
            wanted = torch.tensor(nats, dtype=torch.float64).log_softmax(0)
            assert scores.losses[i, example.id] == pytest.approx(
                -float(wanted[example.choice]), abs=NEAR * 6
            )


def test_text_answers_are_summed_and_have_no_end(lm):
    engine = tiny_engine(lm, AROUND, None)
    (prompt,) = hard(lm, 1)
    losses = engine.score([prompt], EVERYTHING).losses[0]
    for example in engine.examples(EVERYTHING):
        answer = lm.encode(example.answer)
        wanted = told(lm, *masked_ids(lm, engine, prompt, example.id, answer), answer)
        assert losses[example.id] == pytest.approx(-wanted, abs=NEAR * len(answer))


def test_pseudo_log_likelihood_masks_one_token_at_a_time(lm):
    engine = tiny_engine(lm, AROUND.replace("{answer}", "{answer:pll}"), None)
    (prompt,) = hard(lm, 1)
    losses = engine.score([prompt], EVERYTHING).losses[0]
    lengths = set()
    for example in engine.examples(EVERYTHING):
        answer = lm.encode(example.answer)
        lengths.add(len(answer))
        ids, at = masked_ids(lm, engine, prompt, example.id, answer)
        whole = [*ids[:at], *answer, *ids[at + len(answer) :]]
        wanted = 0.0
        for i, token in enumerate(answer):
            row = [*whole[: at + i], lm.tokens.mask, *whole[at + i + 1 :]]
            wanted += told(lm, row, at + i, [token])
        assert losses[example.id] == pytest.approx(-wanted, abs=NEAR * len(answer))
    assert lengths > {1}


def test_a_row_does_not_depend_on_its_neighbours(lm):
    engine = tiny_engine(lm, AROUND, ("bad movie", "good"))
    prompts = hard(lm, 4)
    together = engine.score(prompts, EVERYTHING).losses
    alone = [
        [float(engine.score([p], np.array([e])).losses[0, 0]) for e in EVERYTHING] for p in prompts
    ]
    assert np.abs(together - np.array(alone)).max() < NEAR * 4


def test_vectors_of_tokens_are_these_tokens(lm):
    engine = tiny_engine(lm, AROUND)
    (prompt,) = hard(lm, 1)
    soft = SoftPrompt(lm.embeddings[torch.tensor(prompt.ids)])
    losses = engine.score([prompt, soft], EVERYTHING).losses
    assert np.abs(losses[0] - losses[1]).max() < NEAR
    numbers = soft.vectors.clone().requires_grad_()
    loss = engine.loss(numbers, EVERYTHING)
    assert float(loss.detach()) == pytest.approx(losses[1].mean(), abs=NEAR)
    (gradient,) = torch.autograd.grad(loss, numbers)
    step = torch.randn(numbers.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
    with torch.no_grad():
        moved = float(engine.loss(soft.vectors + step, EVERYTHING)) - float(
            engine.loss(soft.vectors - step, EVERYTHING)
        )
    assert moved / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05, abs=1e-4)


def test_a_prefix_is_seen_by_all_tokens(lm):
    """Keys and values as the model makes them of words in front, with the row in sight of both."""
    if lm.name not in PACKED_ARCHITECTURES:
        with pytest.raises(ModelError, match="takes no prefix: its attention cannot be exchanged"):
            lm.prefix_shape  # noqa: B018 - a property that refuses
        return
    engine = tiny_engine(lm, "{prompt:2} {text} It was {answer}.", kind="prefix")
    shape = engine.prefix_shape
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(2, *shape, generator=generator).requires_grad_()
    loss = engine.loss(numbers, EVERYTHING)
    (gradient,) = torch.autograd.grad(loss, numbers)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    again = engine.score([PrefixPrompt(numbers.detach())], EVERYTHING).losses
    assert float(loss.detach()) == pytest.approx(again.mean(), abs=NEAR)
    # Keys that no query likes, and values of nothing: only the positions have moved.
    far = numbers.detach().clone()
    far[:, :, 1] = 0
    assert not np.allclose(engine.score([PrefixPrompt(far)], EVERYTHING).losses, again)
    # What stands in the top layer alone is that of the top layer.
    top = [PrefixPrompt(each.detach()[:, -1:]) for each in (numbers, far)]
    losses = engine.score(top, EVERYTHING).losses
    assert not np.allclose(losses[0], losses[1]) and not np.allclose(losses[0], again)


@pytest.mark.parametrize(
    "answers", [("bad movie", "good", "story"), ("good", "bad movie", "story")]
)
def test_each_length_of_answers_is_read_and_charged_once(bert, answers):
    engine = tiny_engine(bert, AROUND, answers)
    (prompt,) = hard(bert, 1)
    scores = engine.score([prompt], EVERYTHING)
    assert engine.readings(EVERYTHING).tolist() == [2] * 12
    assert scores.computed == price_of(engine, 3, EVERYTHING)
    assert engine.predict([prompt], EVERYTHING).tokens == scores.computed
    assert not engine.lead(EVERYTHING).any()
    trained = engine.step_context(EVERYTHING).sum() + 3 * len(EVERYTHING)
    assert trained == scores.computed


@pytest.mark.parametrize("answer", ["{answer}", "{answer:pll}"])
def test_masks_are_filled_with_the_most_probable_plain_tokens(lm, answer):
    engine = tiny_engine(lm, AROUND.replace("{answer}", answer), None)
    prompts = hard(lm, 2)
    for tokens in (1, 2):
        found = engine.generate(prompts, EVERYTHING, Decoding(tokens))
        for i, prompt in enumerate(prompts):
            for e in EVERYTHING:
                ids, at = masked_ids(lm, engine, prompt, e, [0] * tokens)
                with torch.inference_mode():
                    logits = lm.model(input_ids=torch.tensor([ids])).logits[0, at : at + tokens]
                    logits[:, [i for i in range(480) if i not in lm.plain]] = float("-inf")
                assert found.texts[i][e] == (lm.decode(logits.argmax(-1).tolist()),)
        assert (found.tokens == tokens).all()
        assert found.computed == price_of_generation(engine, 3, EVERYTHING, tokens) * len(prompts)


def test_masks_that_memory_does_not_hold_are_filled_in_halves(bert, monkeypatch):
    prompts, real, most = hard(bert, 2), bert.passes.hidden, 60
    expected = tiny_engine(bert, AROUND, None).generate(prompts, EVERYTHING, Decoding(2))

    def small(embedded, forest):
        if len(embedded) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(embedded, forest)

    monkeypatch.setattr(bert.passes, "hidden", small)
    found = tiny_engine(bert, AROUND, None).generate(prompts, EVERYTHING, Decoding(2))
    assert found.texts == expected.texts and found.computed == expected.computed
    most = 0
    with pytest.raises(ModelError, match=r"does not hold one row of \d+ tokens"):
        tiny_engine(bert, AROUND, None).generate(prompts, EVERYTHING, Decoding(2))


def test_no_special_token_is_filled_in():
    model, tokenizer = tiny_masked("bert")
    with torch.no_grad():
        model.get_output_embeddings().bias[list(tokenizer.added_tokens_decoder)] += 100
    lm = LanguageModel(model, tokenizer)
    found = tiny_engine(lm, AROUND, None).generate(hard(lm, 1), EVERYTHING, Decoding(1))
    assert all(text.strip() for (text,) in found.texts[0])


def test_an_answer_of_more_tokens_than_fit_is_refused(bert):
    answers = (" ".join(["good"] * 300), "bad")
    with pytest.raises(TemplateError, match="has 3.. tokens with a prompt .* at most 256"):
        tiny_engine(bert, "{prompt} {text} It was {answer}.", answers)


def test_gated_prompts_and_messages_are_refused(bert):
    with pytest.raises(ModelError, match="'bert' is a masked one and takes no gated prompt"):
        tiny_engine(bert, AROUND, kind="gated")
    with pytest.raises(TemplateError, match="a masked language model, which takes part in no chat"):
        render(Template.parse([{"user": "{prompt}"}, {"assistant": "It was {answer}"}]), bert)


def test_a_tokenizer_without_a_mask_token_is_refused():
    model, tokenizer = tiny_masked("bert")
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="'bert' has no mask token"):
        LanguageModel(model, tokenizer, name="bert")


def test_a_head_that_asks_for_more_than_states_gets_none():
    """Longformer's body returns what no other does."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LongformerConfig(
        vocab_size=480, num_attention_heads=4, attention_window=8, pad_token_id=0, **sizes
    )
    tokenizer = masked_tokenizer("bert")
    lm = LanguageModel(LongformerForMaskedLM(config).eval(), tokenizer, name="longformer")
    lm.check()
    assert np.isfinite(tiny_engine(lm, AROUND).score(hard(lm, 1), EVERYTHING).losses).all()


def test_positions_behind_padding_leave_shorter_rows_for_mpnet():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = MPNetConfig(vocab_size=480, num_attention_heads=4, max_position_embeddings=34, **sizes)
    lm = LanguageModel(MPNetForMaskedLM(config), masked_tokenizer("bert"), name="mpnet")
    assert lm.context == 32
    lm.check()
    row = torch.tensor(lm.words[:1] * 32)
    packed = lm.passes.hidden(lm.passes.embed(row), rows_of([32], lm.device))
    with torch.inference_mode():
        theirs = lm.model.base_model(input_ids=row[None]).last_hidden_state[0]
    assert torch.allclose(packed, theirs, atol=1e-5)
