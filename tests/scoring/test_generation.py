"""Answers that the engine generates, token by token against `generate` of transformers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from promptsearch import LanguageModel, PromptedModel
from promptsearch.models.causal.passes import CausalPasses
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import TunedPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.ending import Ending
from promptsearch.scoring.layout import lay_out, slots_of
from promptsearch.scoring.protocol import price_of_generation
from promptsearch.scoring.ready import compile_prompts
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Example, Split
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_task

#: Kind -> template and length of the prompt, before, behind and around the input.
KINDS = {
    "hard": ("{prompt} {text} It was{answer}", 3),
    "text": ("{text}: {prompt} It was{answer}", 1),
    "soft": ("The movie {text} {prompt} It was{answer}", 4),
    "prefix": ("{prompt} {text} It was{answer}", 5),
    "weights": ("{prompt} {text} It was{answer}", 2),
    "tuned": ("{prompt} {text} is{answer}", 2),
}
TEXTS = (
    "good film",
    "I hate the story",
    "a very good movie and a funny story of the capital city of France",
    "bad",
    "the capital",
)
#: Ways to generate, by name.
WAYS = {
    "greedy": Decoding(12),
    "beams": Decoding(12, beams=3),
    "long": Decoding(20, beams=5, length_penalty=2.0),
    "short": Decoding(12, beams=4, length_penalty=-1.0),
}


@pytest.fixture(scope="module", params=["seldom", "often"])
def ending(request, lm, make_saved):
    """The model of each architecture, with tokens that end a text: its own, or many.

    Many are some of the vocabulary, and what the model writes in its sixth step.
    """
    model, tokenizer = tiny_model(lm.name)
    if request.param == "often":
        saved = make_saved(lm, "hard", KINDS["hard"][0], None, 3)
        sixth = [written.answers[0][5:] for written in ours(lm, saved, TEXTS, Decoding(6))]
        ends = {token for tokens in sixth for token in tokens} | set(range(0, 512, 7))
        model.generation_config.eos_token_id = sorted(ends)
    return LanguageModel(model, tokenizer, name=f"{lm.name} {request.param}")


def split_of(texts=TEXTS):
    return Split("probe", tuple(Example(i, {"text": t}, " x", None) for i, t in enumerate(texts)))


def engine_of(lm, saved, texts=TEXTS, **changes):
    return Engine(lm, dataclasses.replace(saved.template, **changes), split_of(texts), None)


def theirs(lm, saved, fields, decoding):
    """What transformers writes after one row, with the model's weights as they are now."""
    prompt, template = saved.prompt, saved.template
    slots = slots_of(template, lm, prompt) if template.kind in ("slots", "tuned") else None
    segments = lay_out(template, lm, Example(0, fields, "", None), None, slots).segments
    embed = lm.model.get_input_embeddings()
    parts = [embed(torch.tensor(segment, dtype=torch.long)) for segment in segments]
    if isinstance(prompt, (SoftPrompt, TunedPrompt)):
        vectors = prompt.vectors.split([slot.length for slot in template.slots])
        for i, part in enumerate(vectors):
            parts.insert(2 * i + 1, part)
    elif slots:
        for i, ids in enumerate(slots):
            parts.insert(2 * i + 1, embed(torch.tensor(ids, dtype=torch.long)))
    row, given = torch.cat(parts)[None], {}
    if isinstance(prompt, PrefixPrompt):
        cache = DynamicCache(
            [(k[None], v[None]) for k, v in prompt.keys_values.permute(1, 2, 3, 0, 4)],
            config=lm.model.config,
        )
        if decoding.beams > 1:
            cache.batch_repeat_interleave(decoding.beams)
        given = {"past_key_values": cache}
        # `generate` cuts off as much of its input as the cache holds.
        row = torch.cat([row.new_zeros(1, len(prompt.keys_values), row.shape[2]), row], 1)
    found = lm.model.generate(
        inputs_embeds=row,
        attention_mask=torch.ones(row.shape[:2], dtype=torch.long),
        max_new_tokens=decoding.tokens,
        num_beams=decoding.beams,
        length_penalty=decoding.length_penalty,
        early_stopping=False,
        do_sample=False,
        eos_token_id=sorted(lm.ends),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **given,
    )
    ids = found.sequences[0].tolist()
    end = next((i for i, token in enumerate(ids) if token in lm.ends), len(ids) - 1)
    return tuple(ids[: end + 1]), found


def ours(lm, saved, texts, decoding):
    library = compile_prompts(lm, [(saved.prompt, saved.template)])
    rows = [library.prompts[0].row(lm, {"text": text}) for text in texts]
    starts = [Start(row, decoding.tokens, decoding.seeds(str(i))) for i, row in enumerate(rows)]
    with lm.changed(saved.prompt.parts.weights or {}):
        return go_on(lm, starts, library, Ending(lm).reached, decoding)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(ending, make_saved, kind, way):
    decoding, (template, length) = WAYS[way], KINDS[kind]
    saved = make_saved(ending, kind, template, None, length)
    for text, written in zip(TEXTS, ours(ending, saved, TEXTS, decoding), strict=True):
        with torch.inference_mode(), ending.changed(saved.prompt.parts.weights or {}):
            expected, found = theirs(ending, saved, {"text": text}, decoding)
        (answer,) = written.answers
        if answer == expected:
            assert written.ended == (answer[-1] in ending.ends,)
            continue
        # Only what transformers itself all but weighs the same may differ.
        assert decoding.beams == 1
        step = next(i for i, (a, b) in enumerate(zip(answer, expected, strict=False)) if a != b)
        best = found.scores[step][0].topk(2).values
        assert float(best[0] - best[1]) < 1e-4


@pytest.mark.parametrize("way", ["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_tokens_below_a_prefix_of_the_top_layers_are_those_of_transformers(
    name, way, make_saved, hidden_below
):
    """Its own attention is told to hide a whole prefix from the layers below."""
    lm, decoding = LanguageModel(*tiny_model(name), name=name), WAYS[way]
    whole = make_saved(lm, "prefix", KINDS["prefix"][0], None, 5)
    top = dataclasses.replace(whole, prompt=PrefixPrompt(whole.prompt.keys_values[:, -1:]))
    found = [written.answers[0] for written in ours(lm, top, TEXTS, decoding)]
    with torch.inference_mode(), hidden_below(lm, 1, 5):
        assert found == [theirs(lm, whole, {"text": text}, decoding)[0] for text in TEXTS]
    assert found != [written.answers[0] for written in ours(lm, whole, TEXTS, decoding)]


def test_many_ends_are_met(ending, make_saved):
    """Else the test above would say nothing about ends."""
    saved = make_saved(ending, "hard", KINDS["hard"][0], None, 3)
    came = {
        way: any(written.ended[0] for written in ours(ending, saved, TEXTS, decoding))
        for way, decoding in WAYS.items()
    }
    if ending.name.endswith("often"):
        assert came.pop("greedy")
        assert any(came.values())


KINDS_OF_ENGINE = [*KINDS, "gated", "gated heads"]


@pytest.mark.parametrize("kind", KINDS_OF_ENGINE)
def test_the_engine_writes_what_a_user_of_the_prompt_gets(lm, make_saved, kind):
    template, length = KINDS.get(kind, ("{prompt} {text} It was{answer}", 3))
    saved = make_saved(lm, kind, template, None, length)
    engine = engine_of(lm, saved)
    found = engine.generate([saved.prompt], np.array([3, 0, 2, 0]), Decoding(7))
    rows = [{"text": TEXTS[i]} for i in (3, 0, 2, 0)]
    assert [text for (text,) in found.texts[0]] == PromptedModel(lm, saved).generate(rows, 7)
    assert not found.failures
    for (came,), tokens in zip(found.ended[0], found.tokens[0], strict=True):
        assert (tokens == 7) or (came and 1 <= tokens < 7)


@pytest.mark.parametrize("way", ["greedy", "beams", "drawn"])
def test_an_answer_does_not_depend_on_the_other_rows(lm, make_saved, way):
    decoding = WAYS.get(way, Decoding(9, temperature=1.0, samples=3))
    prompts = [make_saved(lm, "prefix", KINDS["prefix"][0], None, 5, seed=i) for i in range(3)]
    engine = engine_of(lm, prompts[0], TEXTS * 2)
    some = [saved.prompt for saved in prompts]
    together = engine.generate(some, np.arange(10), decoding)
    for i, prompt in enumerate(some):
        for e in (0, 2, 9):
            alone = engine.generate([prompt], np.array([e]), decoding)
            assert together.texts[i][e] == alone.texts[0][0]
            assert together.ended[i][e] == alone.ended[0][0]
            assert together.tokens[i, e] == alone.tokens[0, 0]


@pytest.mark.parametrize("way", ["greedy", "beams", "drawn"])
def test_rows_that_are_computed_whole_say_the_same(lm, make_saved, way, monkeypatch):
    decoding = WAYS.get(way, Decoding(9, temperature=1.0, samples=3))
    saved = make_saved(lm, "hard", KINDS["hard"][0], None, 3)
    expected = ours(lm, saved, TEXTS, decoding)
    monkeypatch.setitem(lm.passes.__dict__, "trees", False)
    assert ours(lm, saved, TEXTS, decoding) == expected


def test_rows_that_end_leave_and_the_others_go_on(lm, make_saved):
    saved = make_saved(lm, "hard", KINDS["hard"][0], None, 3)
    whole = ours(lm, saved, TEXTS, Decoding(12))
    library = compile_prompts(lm, [(saved.prompt, saved.template)])
    rows = [library.prompts[0].row(lm, {"text": text}) for text in TEXTS]
    limits = [3, 12, 1, 7, 12]
    starts = [Start(row, limit) for row, limit in zip(rows, limits, strict=True)]
    found, computed = go_on(lm, starts, library, lambda ids: False, Decoding(12))
    for limit, mine, all_of_it in zip(limits, found, whole, strict=True):
        assert mine.answers[0] == all_of_it.answers[0][:limit]
        assert mine.tokens == limit
    assert computed == sum(len(row.ids) for row in rows) + sum(limits) - len(limits)


def test_samples_differ_and_come_from_their_own_seeds(tiny, make_saved):
    saved = make_saved(tiny, "hard", KINDS["hard"][0], None, 3)
    engine = engine_of(tiny, saved)
    four = engine.generate([saved.prompt], np.arange(5), Decoding(8, temperature=1.0, samples=4))
    two = engine.generate([saved.prompt], np.arange(5), Decoding(8, temperature=1.0, samples=2))
    other = Decoding(8, temperature=1.0, samples=2, seed=1)
    assert [texts[:2] for texts in four.texts[0]] == two.texts[0]
    assert len({text for texts in four.texts[0] for text in texts}) > 15
    assert engine.generate([saved.prompt], np.arange(5), other).texts != two.texts
    assert four.tokens.tolist() == [[32] * 5]


def test_a_text_ends_an_answer(tiny, make_saved):
    saved = make_saved(tiny, "hard", KINDS["hard"][0], None, 3)
    free = engine_of(tiny, saved).generate([saved.prompt], np.arange(5), Decoding(12))
    whole = free.texts[0][0][0]
    stop = whole[3:5]
    found = engine_of(tiny, saved, end=stop).generate([saved.prompt], np.arange(5), Decoding(12))
    for (before,), (text,), (came,), tokens in zip(
        free.texts[0], found.texts[0], found.ended[0], found.tokens[0], strict=True
    ):
        assert text == before.partition(stop)[0]
        assert came == (stop in before)
        assert (tokens < 12) or not came or before.endswith(stop)
    assert found.ended[0][0] == (True,)


def test_an_answer_stops_where_the_context_does(lm, make_saved, monkeypatch):
    saved = make_saved(lm, "hard", KINDS["hard"][0], None, 3)
    engine = engine_of(lm, saved)
    rows = (engine.tail(np.arange(5)) + engine.lead(np.arange(5)) + 3).tolist()
    room = 4
    monkeypatch.setattr(CausalPasses, "context", max(rows) + room)
    found = engine.generate([saved.prompt], np.arange(5), Decoding(9))
    assert found.tokens[0].tolist() == [min(9, max(rows) + room - row) for row in rows]
    assert not found.failures
    monkeypatch.setattr(CausalPasses, "context", max(rows))
    found = engine.generate([saved.prompt], np.arange(5), Decoding(9))
    longest = rows.index(max(rows))
    assert found.failures == {
        0: f"probe example {longest} has {max(rows)} tokens with its prompt, but the model reads "
        f"at most {max(rows)} with the answer: shorten it (it is never cut silently)"
    }
    assert found.texts == [[()] * 5]
    assert found.ended == [[()] * 5]
    assert not found.tokens.any()


def test_a_text_prompt_that_is_too_long_fails_and_the_others_do_not(tiny, make_saved):
    saved = make_saved(tiny, "text", KINDS["text"][0], None, 1)
    engine = engine_of(tiny, saved)
    prompts = [TextPrompt("The movie " * 400), saved.prompt]
    found = engine.generate(prompts, np.arange(2), Decoding(4))
    assert list(found.failures) == [0]
    assert "at most 512" in found.failures[0]
    assert found.texts[0] == [(), ()]
    assert all(len(texts) == 1 for texts in found.texts[1])


@pytest.mark.parametrize("way", ["greedy", "beams", "drawn"])
def test_what_is_not_finite_is_a_failure(make_saved, way):
    lm = LanguageModel(*tiny_model("llama"), name="tiny")
    decoding = WAYS.get(way, Decoding(9, temperature=1.0, samples=3))
    saved = make_saved(lm, "prefix", KINDS["prefix"][0], None, 5)
    broken = PrefixPrompt(torch.full((5, *lm.prefix_shape), torch.inf))
    found = engine_of(lm, saved).generate([broken, saved.prompt], np.arange(3), decoding)
    assert found.failures == {
        0: f"what the model computes under prompt {broken.key} on probe example 0 is not finite"
    }
    assert found.texts[0] == [(), (), ()]
    assert all(found.texts[1])


def test_prompts_are_made_ready_in_passes_that_the_device_takes(llama, monkeypatch):
    task = tiny_task("{prompt} {text} It was {answer}", None)
    drawn = np.random.default_rng(0).choice(llama.words, (20, 5)).tolist()
    given = [(HardPrompt(ids), task.template.bind(5)) for ids in drawn]
    whole = compile_prompts(llama, given)
    sizes, real = [], llama.passes.hidden
    monkeypatch.setattr(
        llama.passes,
        "hidden",
        lambda embedded, forest: sizes.append(len(embedded)) or real(embedded, forest),
    )
    monkeypatch.setitem(PASS_TOKENS, "cpu", 16)
    parts = compile_prompts(llama, given)
    assert len(sizes) > 1 and max(sizes) <= 16
    for one, other in zip(whole.prompts, parts.prompts, strict=True):
        assert torch.allclose(one.trunk.on("cpu"), other.trunk.on("cpu"), atol=1e-5)


def test_the_price_is_what_is_read_and_what_is_written(tiny, make_saved):
    saved = make_saved(tiny, "hard", KINDS["hard"][0], None, 3)
    engine, ids = engine_of(tiny, saved), np.arange(5)
    read = sum(len(tiny.encode(f" {text} It was")) + 3 for text in TEXTS)
    decoding = Decoding(6, beams=2)
    found = engine.generate([saved.prompt], ids, decoding)
    assert price_of_generation(engine, 3, ids, found.tokens[0]) == read + int(found.tokens.sum())
    assert price_of_generation(engine, 3, ids, decoding.most) == read + 5 * 12
    assert (found.tokens <= decoding.most).all()


def test_changed_weights_are_taken_back(lm, make_saved):
    saved = make_saved(lm, "weights", KINDS["weights"][0], None, 2)
    plain = make_saved(lm, "hard", KINDS["hard"][0], None, 3)
    before = ours(lm, plain, TEXTS, Decoding(5))
    engine_of(lm, saved).generate([saved.prompt], np.arange(5), Decoding(5))
    assert ours(lm, plain, TEXTS, Decoding(5)) == before
