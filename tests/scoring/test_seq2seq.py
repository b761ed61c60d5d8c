"""Encoder-decoder models in the engine, held against the forward of transformers, row by row."""

import copy

import numpy as np
import pytest
import torch

from promptsearch.errors import ModelError, PromptError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.protocol import price_of
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny_seq2seq import SEQ2SEQ_ARCHITECTURES, tiny_seq2seq
from promptsearch.testing.tiny_task import tiny_engine

TEMPLATE = "{prompt:2} {text} with {prompt:1}: {answer}"
EVERYTHING = np.arange(12)
#: Nats that float32 may be off for a scored token, far above what is seen.
NEAR = 1e-5


@pytest.fixture(scope="module", params=SEQ2SEQ_ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_seq2seq(request.param), name=request.param)


@pytest.fixture(scope="module")
def bart():
    return LanguageModel(*tiny_seq2seq("bart", layers=1), name="bart")


def hard(lm, count, length=3, seed=0):
    rng = np.random.default_rng(seed)
    return [HardPrompt(rng.choice(lm.words, length).tolist()) for _ in range(count)]


def row_of(lm, engine, prompt, example):
    """The encoder's row, from the words of its texts alone."""
    text = engine.examples([example])[0].fields["text"]
    begun = lm.decode(prompt.ids[:2], begins=True) + f" {text} with" + lm.decode(prompt.ids[2:])
    return lm.tokenizer(begun + ":").input_ids


def beginning(lm):
    """How transformers begins the decoder's row of an answer."""
    return [lm.model.config.decoder_start_token_id, *([0] if lm.name == "bart" else [])]


def told(lm, row, answer):
    """The log-probability of an answer by transformers' own forward."""
    begun = beginning(lm)
    with torch.inference_mode():
        logits = lm.model(
            input_ids=torch.tensor([row]),
            decoder_input_ids=torch.tensor([[*begun, *answer[:-1]]]),
        ).logits[0]
    nats = logits.double().log_softmax(-1)[len(begun) - 1 :]
    return sum(float(nats[i, token]) for i, token in enumerate(answer))


def answer_of(lm, text):
    return lm.tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("answers", [("bad", "good"), ("bad movie", "good", "bad story")])
def test_choices_are_those_of_transformers(lm, answers):
    engine = tiny_engine(lm, TEMPLATE, answers)
    prompts = hard(lm, 2)
    scores = engine.score(prompts, EVERYTHING)
    for i, prompt in enumerate(prompts):
        for example in engine.examples(EVERYTHING):
            row = row_of(lm, engine, prompt, example.id)
            nats = [told(lm, row, answer_of(lm, text)) for text in answers]
            wanted = torch.tensor(nats, dtype=torch.float64).log_softmax(0)
            assert scores.losses[i, example.id] == pytest.approx(
                -float(wanted[example.choice]), abs=NEAR * 6
            )


def test_text_answers_have_their_end(lm):
    engine = tiny_engine(lm, TEMPLATE, None)
    (prompt,) = hard(lm, 1)
    losses = engine.score([prompt], EVERYTHING).losses[0]
    for example in engine.examples(EVERYTHING):
        answer = [*answer_of(lm, example.answer.strip()), lm.tokenizer.eos_token_id]
        wanted = told(lm, row_of(lm, engine, prompt, example.id), answer)
        assert losses[example.id] == pytest.approx(-wanted, abs=NEAR * len(answer))


def test_all_answers_share_what_the_encoder_read_of_their_input(lm):
    (prompt,) = hard(lm, 1)
    two, three = (
        tiny_engine(lm, TEMPLATE, answers)
        for answers in (("bad movie", "good"), ("bad movie", "good", "the story"))
    )
    scores = two.score([prompt], EVERYTHING)
    more = len(answer_of(lm, "the story")) - 1
    assert three.score([prompt], EVERYTHING).computed == scores.computed + more * 12
    assert two.predict([prompt], EVERYTHING).tokens == scores.computed
    assert not two.lead(EVERYTHING).any() and (two.readings(EVERYTHING) == 1).all()
    # As on a causal model, the price counts the last token of an answer, which is not read.
    assert price_of(two, 3, EVERYTHING) == scores.computed + 2 * 12


def written(lm, engine, prompt, example, way):
    """The ids that transformers itself writes."""
    begun, row = beginning(lm), torch.tensor([row_of(lm, engine, prompt, example)])
    ids = lm.model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        decoder_input_ids=torch.tensor([begun]),
        max_new_tokens=way.tokens,
        num_beams=way.beams,
        do_sample=False,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
    )
    return ids[0, len(begun) :].tolist()


@pytest.mark.parametrize("way", [Decoding(6), Decoding(6, beams=3)], ids=["greedy", "beams"])
def test_generated_answers_are_those_of_transformers(lm, way):
    engine = tiny_engine(lm, TEMPLATE, None)
    (prompt,) = hard(lm, 1)
    found = engine.generate([prompt], EVERYTHING, way).texts[0]
    for e in EVERYTHING:
        ids = written(lm, engine, prompt, e, way)
        assert found[e] == (lm.tokenizer.decode(ids, skip_special_tokens=True),)
    assert len(set(found)) > 2


def test_rows_that_end_early_leave_the_others_as_they_are(lm):
    engine, way = tiny_engine(lm, TEMPLATE, None), Decoding(6)
    (prompt,) = hard(lm, 1)
    second = [written(lm, engine, prompt, e, way)[1] for e in EVERYTHING]
    # A token that ends a text: some answers have it as their second one, and some do not.
    ends = [lm.tokenizer.eos_token_id, second[0]]
    model = copy.deepcopy(lm.model)
    model.generation_config.eos_token_id = ends
    ending = LanguageModel(model, lm.tokenizer, name=lm.name)
    found = tiny_engine(ending, TEMPLATE, None).generate([prompt], EVERYTHING, way)
    for e in EVERYTHING:
        ids = written(ending, engine, prompt, e, way)
        text = lm.tokenizer.decode([i for i in ids if i not in ends], skip_special_tokens=True)
        assert found.texts[0][e] == (text,)
        assert found.tokens[0, e] == len(ids)
    assert found.tokens.min() < found.tokens.max()


def test_answers_drawn_of_the_smallest_nucleus_are_greedy_ones(lm):
    engine = tiny_engine(lm, TEMPLATE, None)
    prompts = hard(lm, 1)
    drawn = engine.generate(prompts, EVERYTHING, Decoding(5, temperature=1.0, top_p=1e-6))
    greedy = engine.generate(prompts, EVERYTHING, Decoding(5))
    assert drawn.texts == greedy.texts


def test_vectors_of_tokens_are_these_tokens(lm):
    engine = tiny_engine(lm, TEMPLATE)
    (prompt,) = hard(lm, 1)
    soft = SoftPrompt(lm.vocabulary[torch.tensor(prompt.ids)])
    losses = engine.score([prompt, soft], EVERYTHING).losses
    assert np.abs(losses[0] - losses[1]).max() < NEAR
    numbers = soft.vectors.clone().requires_grad_()
    loss = engine.loss(numbers, EVERYTHING)
    assert float(loss.detach()) == pytest.approx(losses[1].mean(), abs=NEAR)
    (gradient,) = torch.autograd.grad(loss, numbers)
    step = torch.randn(numbers.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    with torch.no_grad():
        moved = float(engine.loss(soft.vectors + step, EVERYTHING)) - float(
            engine.loss(soft.vectors - step, EVERYTHING)
        )
    assert moved / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05, abs=1e-4)


def test_a_prefix_of_words_is_what_these_words_are_in_front(lm):
    """Keys and values of a row's first tokens, behind which the others are as they were."""
    engine = tiny_engine(lm, "{prompt:2} {text}: {answer}", ("bad movie", "good"), kind="prefix")
    numbers = engine.keys_values(hard(lm, 1, 2)[0].ids).requires_grad_()
    loss = engine.loss(numbers, EVERYTHING)
    (gradient,) = torch.autograd.grad(loss, numbers)
    # Encoder, cross-attention and decoder, keys and values: all of them are read.
    assert bool((gradient.abs().amax((3, 4)) > 0).all())
    scores = engine.score([PrefixPrompt(numbers.detach())] * 2, EVERYTHING)
    assert float(loss.detach()) == pytest.approx(scores.losses.mean(), abs=NEAR)
    layers = engine.prefix_layers
    assert layers == (3 * layers[1], layers[1])


def test_prefixes_of_the_decoder_alone_stand_before_the_answer_only(lm):
    """transformers gives its own decoder the same past keys and values."""
    from transformers import DynamicCache, EncoderDecoderCache

    engine = tiny_engine(lm, "{prompt:2} {text}: {answer}", ("bad movie", "good"), kind="prefix")
    _, layers = engine.prefix_layers
    shape = (2, layers, *engine.prefix_shape[1:])
    prefix = PrefixPrompt(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    losses = engine.score([prefix], EVERYTHING).losses[0]
    for example in engine.examples(EVERYTHING[:4]):
        row, nats, begun = engine.layout(example.id).join(((),)), [], beginning(lm)
        for text in ("bad movie", "good"):
            answer = answer_of(lm, text)
            past = [
                (k[None].transpose(1, 2), v[None].transpose(1, 2))
                for k, v in prefix.keys_values.permute(1, 2, 0, 3, 4)
            ]
            with torch.inference_mode():
                logits = lm.model(
                    input_ids=torch.tensor([row]),
                    decoder_input_ids=torch.tensor([[*begun, *answer[:-1]]]),
                    past_key_values=EncoderDecoderCache(DynamicCache(past), DynamicCache()),
                ).logits[0, len(begun) - 1 :]
            nats.append(logits.double().log_softmax(-1)[range(len(answer)), answer].sum())
        wanted = torch.stack(nats).log_softmax(0)
        assert losses[example.id] == pytest.approx(-float(wanted[example.choice]), abs=NEAR * 4)
    written = engine.generate([prefix], EVERYTHING, Decoding(4))
    assert (
        written.texts
        != engine.generate(
            [PrefixPrompt(engine.keys_values((5, 6)))], EVERYTHING, Decoding(4)
        ).texts
    )
    with pytest.raises(PromptError, match="different layers are scored in calls of"):
        engine.score([prefix, PrefixPrompt(engine.keys_values((5, 6)))], EVERYTHING)


def test_what_does_not_fit_is_refused(bart):
    with pytest.raises(TemplateError, match="the decoder of 'bart' writes at most 256"):
        tiny_engine(bart, TEMPLATE, (" ".join(["good"] * 300), "bad"))
    long = " ".join(["good film"] * 200)
    rows = [{"text": f"{long} {i}", "label": i % 2} for i in range(24)]
    with pytest.raises(TemplateError, match="the model reads at most 256"):
        tiny_engine(bart, TEMPLATE, rows=rows)
    with pytest.raises(ModelError, match="'bart' is an encoder-decoder one and takes no gated"):
        tiny_engine(bart, TEMPLATE, kind="gated")
    with pytest.raises(TemplateError, match="an encoder-decoder model, which takes part in no"):
        render(Template.parse([{"user": "{prompt}"}, {"assistant": "It was {answer}"}]), bart)


@pytest.mark.parametrize("part", ["config", "generation_config"])
def test_an_answer_begins_with_the_token_that_the_model_forces_upon_it(part):
    """As mBART's does, whose tokenizer puts the language that is read before a text."""
    model, tokenizer = tiny_seq2seq("bart", layers=1)
    getattr(model, part).forced_bos_token_id = 40
    lm = LanguageModel(model, tokenizer)
    start = list(lm.passes.start)
    model.config.forced_bos_token_id = None  # transformers looks in the other place alone
    model.generation_config.forced_bos_token_id = 40
    ids = torch.tensor([[*lm.lead, 20, 30, *lm.tokens.close]])
    written = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, num_beams=1)
    assert written[0, :2].tolist() == start


def test_a_model_that_does_not_say_how_its_decoder_begins_is_refused():
    model, tokenizer = tiny_seq2seq("t5", layers=1)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="'t5' does not say with which token its decoder begins"):
        LanguageModel(model, tokenizer, name="t5")
