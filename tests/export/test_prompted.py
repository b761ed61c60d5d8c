"""Batches in which every row names its own prompt, against transformers' own forward.

That one goes row by row and without a cache.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from promptsearch import LanguageModel, PromptedModel, SoftPrompt
from promptsearch.errors import ModelError, PromptError, UnknownName
from promptsearch.export import SavedPrompt
from promptsearch.models.causal.passes import CausalPasses
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.weights import TunedPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, slots_of
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import tiny_model

WORDS, SENTENCES = (" bad", " good"), (" very bad", " good", " not so good")
#: Name -> kind, template, choices, length: one of each kind, in front, behind and around the input,
#: of different lengths.
KINDS = {
    "hard": ("hard", "{prompt} {text} It was{answer}", WORDS, 3),
    "text": ("text", "{prompt}: {text}. It was{answer}", SENTENCES, 1),
    "soft": ("soft", "{prompt} {text} It was{answer}", WORDS, 20),  # longer than Gemma's window
    "behind": ("soft", "The movie {text} {prompt} It was{answer}", SENTENCES, 4),
    "anchors": ("hard", "{prompt:2} capital {prompt:1} {text} is {prompt:1}{answer}", WORDS, 1),
    "prefix": ("prefix", "{text} {prompt} It was{answer}", SENTENCES, 5),
    "gated": ("gated", "{text} {prompt} It was{answer}", SENTENCES, 5),
    "gated heads": ("gated heads", "{prompt} {text} It was{answer}", WORDS, 2),
    "free": ("soft", "{prompt} {text} is{answer}", None, 6),
    "free prefix": ("prefix", "{prompt} {text} is{answer}", None, 2),
    "free gated": ("gated heads", "{prompt} {text} is{answer}", None, 3),
}
TEXTS = (
    "good film",
    "I hate the story",
    "a very good movie and a funny story of the capital city of France",
    "bad",
)
CHOOSING = [name for name, (_, _, choices, _) in KINDS.items() if choices]


def saved_prompts(lm, make_saved):
    return {name: make_saved(lm, *rest, seed=i) for i, (name, rest) in enumerate(KINDS.items())}


@pytest.fixture(scope="module")
def prompts(lm, make_saved):
    return saved_prompts(lm, make_saved)


@pytest.fixture(scope="module")
def model(lm, prompts):
    return PromptedModel(lm, prompts)


def mixed(names):
    return [{"prompt": name, "text": text} for text in TEXTS for name in names]


def plain(lm, saved, fields, attending_to, more=()):
    """Logits of a row and what follows it, by transformers alone.

    From embeddings, or with a cache of its own.
    """
    segments = lay_out(saved.template, lm, Example(0, fields, "", None), None).segments
    parts = [torch.tensor(segment, dtype=torch.long) for segment in (*segments, more)]
    parts = [lm.model.get_input_embeddings()(part) for part in parts]
    cache = None
    if isinstance(saved.prompt, PrefixPrompt):
        layers = [
            (keys[None], values[None])
            for keys, values in saved.prompt.keys_values.permute(1, 2, 3, 0, 4)
        ]
        cache = DynamicCache(layers, config=lm.model.config)
    elif saved.template.kind in ("slots", "tuned"):
        if isinstance(saved.prompt, SoftPrompt | TunedPrompt):
            slots = saved.prompt.vectors.split([slot.length for slot in saved.template.slots])
        else:
            ids = slots_of(saved.template, lm, saved.prompt)
            slots = [
                lm.model.get_input_embeddings()(torch.tensor(slot, dtype=torch.long))
                for slot in ids
            ]
        for i, slot in enumerate(slots):
            parts.insert(2 * i + 1, slot)
    beside = (
        attending_to(lm, saved.prompt) if isinstance(saved.prompt, GatedPrompt) else nullcontext()
    )
    with torch.no_grad(), beside:
        return lm.model(inputs_embeds=torch.cat(parts)[None], past_key_values=cache).logits[0]


def expected(lm, saved, fields, answers, attending_to):
    """Log-probabilities of answers, each by a pass of its own."""
    found = []
    for text in answers:
        ids = lm.encode(text)
        rows = plain(lm, saved, fields, attending_to, ids)[-len(ids) - 1 : -1].log_softmax(-1)
        found.append(rows[range(len(ids)), ids].sum())
    return torch.stack(found)


def test_a_mixed_batch_chooses_what_transformers_would_row_by_row(lm, model, prompts, attending_to):
    rows = mixed(CHOOSING)
    for row, choice in zip(rows, model.choose(rows), strict=True):
        saved = prompts[row["prompt"]]
        shares = expected(lm, saved, row, saved.choices, attending_to).softmax(0)
        assert list(choice.probabilities) == [text.strip() for text in saved.choices]
        assert list(choice.probabilities.values()) == pytest.approx(shares.tolist(), abs=1e-5)
        assert choice.answer == saved.choices[int(shares.argmax())].strip()


@pytest.mark.parametrize("kind", ["weights", "tuned"])
@pytest.mark.parametrize("before", ["{prompt} {text}", "The movie {prompt} {text} {prompt:2}"])
def test_changed_weights_answer_alone_as_transformers_would_with_them(
    lm, make_saved, attending_to, kind, before
):
    tuned = {"weights": make_saved(lm, kind, f"{before} It was{{answer}}", SENTENCES)}
    free = {"weights": make_saved(lm, kind, f"{before} is{{answer}}", None)}
    rows = mixed(["weights"])
    with lm.changed(tuned["weights"].prompt.weights):
        shares = [
            expected(lm, tuned["weights"], row, SENTENCES, attending_to).softmax(0).tolist()
            for row in rows
        ]
    with lm.changed(free["weights"].prompt.weights):
        texts = []
        for row in rows:
            ids: list[int] = []
            while len(ids) < 8 and (not ids or ids[-1] not in lm.ends):
                ids.append(int(plain(lm, free["weights"], row, attending_to, ids)[-1].argmax()))
            texts.append(
                lm.tokenizer.decode([i for i in ids if i not in lm.ends], skip_special_tokens=True)
            )
    model = PromptedModel(lm, tuned)
    for choice, share in zip(model.choose(rows), shares, strict=True):
        assert list(choice.probabilities.values()) == pytest.approx(share, abs=1e-5)
    assert PromptedModel(lm, free).generate(rows, 8) == texts
    lm.check_unchanged()


@pytest.mark.parametrize("kind", ["weights", "tuned"])
def test_changed_weights_share_no_batch(llama, make_saved, kind):
    tuned = make_saved(llama, kind, "{prompt} {text} It was{answer}", WORDS)
    hard = make_saved(llama, "hard", "{prompt} {text} It was{answer}", WORDS)
    with pytest.raises(
        PromptError,
        match="'tuned' changes the model's weights, so nothing else can share a batch with it",
    ):
        PromptedModel(llama, {"hard": hard, "tuned": tuned})


def test_scores_are_losses_of_the_objective_and_do_not_depend_on_the_batch(lm, model, prompts):
    rows = [
        {**row, "answer": (prompts[row["prompt"]].choices or ("", " Paris"))[1]}
        for row in mixed(KINDS)
    ]
    together = model.score(rows)
    assert together == pytest.approx(np.concatenate([model.score([row]) for row in rows]), abs=1e-5)
    assert together[::-1] == pytest.approx(model.score(rows[::-1]), abs=1e-5)
    for row, loss in zip(rows, together, strict=True):
        saved = prompts[row["prompt"]]
        right = (saved.choices or (" Paris",))[1 if saved.choices else 0]
        example = Example(0, {"text": row["text"]}, right, 1 if saved.choices else None)
        scores = Engine(lm, saved.template, Split("one", (example,)), saved.choices).score(
            [saved.prompt], np.arange(1)
        )
        assert loss == pytest.approx(scores.losses[0, 0], abs=1e-5)


def test_generation_with_a_cache_is_generation_without(lm, model, prompts, attending_to):
    """20 tokens: beyond Gemma's window of 16."""
    rows = mixed(KINDS)
    together = model.generate(rows, 20)
    for row, text in zip(rows, together, strict=True):
        ids: list[int] = []
        while len(ids) < 20 and (not ids or ids[-1] not in lm.ends):
            ids.append(int(plain(lm, prompts[row["prompt"]], row, attending_to, ids)[-1].argmax()))
        assert text == lm.tokenizer.decode(
            [i for i in ids if i not in lm.ends], skip_special_tokens=True
        )
    assert len(set(together)) > len(rows) // 2
    assert [model.generate([row], 20)[0] for row in rows[:8]] == together[:8]


def test_a_model_whose_rows_share_nothing_does_the_same(make_saved, monkeypatch):
    lm = LanguageModel(*tiny_model("llama"), name="llama")
    prompts = {
        name: p
        for name, p in saved_prompts(lm, make_saved).items()
        if KINDS[name][0] in ("hard", "text", "soft")
    }
    rows = mixed(prompts)
    model = PromptedModel(lm, prompts)
    texts, chosen = (
        model.generate(rows, 8),
        model.choose([row for row in rows if row["prompt"] in CHOOSING]),
    )
    alone = LanguageModel(*tiny_model("llama"), name="llama")
    monkeypatch.setitem(alone.__dict__, "trees", False)
    model = PromptedModel(alone, prompts)
    assert model.generate(rows, 8) == texts
    for ours, theirs in zip(
        model.choose([row for row in rows if row["prompt"] in CHOOSING]), chosen, strict=True
    ):
        assert list(ours.probabilities.values()) == pytest.approx(
            list(theirs.probabilities.values()), abs=1e-5
        )


def test_prompts_are_computed_once_and_a_batch_is_one_pass(llama, make_saved, monkeypatch):
    passes = []
    hidden = CausalPasses.hidden
    monkeypatch.setattr(
        CausalPasses,
        "hidden",
        lambda self, e, forest: passes.append(len(e)) or hidden(self, e, forest),
    )
    prompts = {
        name: p
        for name, p in saved_prompts(llama, make_saved).items()
        if name in ("hard", "text", "soft", "prefix", "gated")
    }
    passes.clear()
    model = PromptedModel(llama, prompts)
    assert len(passes) == 1  # all prompts, in one pass
    model.choose(mixed(prompts)[:8])
    assert len(passes) == 2
    own = [len(llama.encode(f" {row['text']} It was")) for row in mixed(prompts)[:8]]
    assert passes[1] < 2 * sum(
        own
    )  # inputs and answers; the prompts' 3 + 9 + 20 + 5 tokens are not among them
    model.choose(mixed(prompts)[8:])
    assert len(passes) == 3


def test_more_rows_than_a_pass_takes(model, monkeypatch):
    rows = mixed(CHOOSING)
    whole = model.choose(rows)
    monkeypatch.setitem(PASS_TOKENS, "cpu", 30)
    for a, b in zip(model.choose(rows), whole, strict=True):
        assert list(a.probabilities.values()) == pytest.approx(
            list(b.probabilities.values()), abs=1e-5
        )


def test_an_empty_input_is_read_from_the_prompts_last_token(lm, make_saved, attending_to):
    for kind in ("hard", "soft"):
        saved = make_saved(lm, kind, "{prompt}{text}{answer}", WORDS)
        (choice,) = PromptedModel(lm, saved).choose([{"text": ""}])
        shares = expected(lm, saved, {"text": ""}, WORDS, attending_to).softmax(0)
        assert list(choice.probabilities.values()) == pytest.approx(shares.tolist(), abs=1e-5)


def test_nothing_but_a_prefix_predicts_nothing(llama):
    template = Template.parse("{prompt}{text}{answer}").bind(3).taking("prefix")
    saved = SavedPrompt(
        prompt=PrefixPrompt(torch.randn(3, *llama.prefix_shape)), template=template, choices=WORDS
    )
    with pytest.raises(PromptError, match="input 1: no token stands before the answer"):
        PromptedModel(llama, saved).choose([{"text": ""}])


def test_apply_answers_a_stream_in_its_order(model, prompts, monkeypatch):
    monkeypatch.setattr("promptsearch.export.prompted.TOGETHER", 3)
    rows = [{**row, "id": i} for i, row in enumerate(mixed(KINDS))]
    found = list(model.apply(iter(rows)))
    assert [row["id"] for row in found] == list(range(len(rows)))
    for row in found:
        if prompts[row["prompt"]].choices is None:
            assert (
                row["answer"] == model.generate([row])[0].split("\n")[0].strip()
                and "probabilities" not in row
            )
        else:
            assert row["answer"] == model.choose([row])[0].answer
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_generation_stops_before_a_text(llama, make_saved):
    saved = make_saved(llama, "soft", *KINDS["free"][1:])
    model = PromptedModel(llama, saved)
    (whole,) = model.generate([{"text": "good film"}], 20)
    stop = whole[len(whole) // 2 :][:3]
    assert model.generate([{"text": "good film"}], 20, stop=stop) == [whole.partition(stop)[0]]


def test_generation_ends_with_the_text_and_with_the_context(
    llama, make_saved, monkeypatch, attending_to
):
    saved = make_saved(llama, "soft", *KINDS["free"][1:])
    (whole,) = PromptedModel(llama, saved).generate([{"text": "good film"}], 12)
    ids = [int(plain(llama, saved, {"text": "good film"}, attending_to)[-1].argmax())]
    ids.append(int(plain(llama, saved, {"text": "good film"}, attending_to, ids)[-1].argmax()))
    lm = LanguageModel(*tiny_model("llama"), name="llama")
    monkeypatch.setitem(lm.__dict__, "ends", frozenset(ids[1:]))
    first = lm.tokenizer.decode(ids[:1])
    assert whole.startswith(first) and PromptedModel(lm, saved).generate(
        [{"text": "good film"}], 12
    ) == [first]
    room = len(saved.prompt.vectors) + len(llama.encode(" good film is")) + 2
    monkeypatch.setattr(LanguageModel, "context", room)
    (short,) = PromptedModel(llama, saved).generate([{"text": "good film"}], 12)
    assert whole.startswith(short) and 0 < len(short) < len(whole)
    with pytest.raises(PromptError, match=f"input 1 has .* but the model reads at most {room}"):
        PromptedModel(llama, saved).generate([{"text": "good film " * 5}], 12)


@pytest.mark.parametrize("ask", ["score", "choose", "apply", "generate"])
def test_what_is_not_finite_is_no_answer(make_saved, ask):
    """A float16 ends at 65504, which what some models compute goes beyond."""
    model, tokenizer = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight *= 1e6
    lm = LanguageModel(model, tokenizer)
    model = PromptedModel(lm, make_saved(lm, "hard", *KINDS["text"][1:3], 1), dtype="float16")
    rows = [{"text": "good film", "answer": "good"}]
    with pytest.raises(PromptError, match="input 1: .* is not finite in float16: set dtype to"):
        list(getattr(model, ask)(rows))


def test_bfloat16_is_near(llama, make_saved):
    prompts = saved_prompts(llama, make_saved)
    exact, half = PromptedModel(llama, prompts), PromptedModel(llama, prompts, dtype="bfloat16")
    for a, b in zip(exact.choose(mixed(CHOOSING)), half.choose(mixed(CHOOSING)), strict=True):
        assert list(a.probabilities.values()) == pytest.approx(
            list(b.probabilities.values()), abs=0.15
        )


# What is refused.


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"text": "a"}, PromptError, "input 1 names no prompt: expected one of hard, "),
        (
            {"prompt": "hrad", "text": "a"},
            UnknownName,
            "unknown prompt 'hrad'. Did you mean 'hard'",
        ),
        (
            {"prompt": "hard", "body": "a"},
            PromptError,
            "input 1 lacks the field 'text'; it has prompt, body",
        ),
        (
            {"prompt": "free", "text": "a"},
            PromptError,
            "input 1: its prompt has no answers to choose from",
        ),
    ],
)
def test_a_wrong_row_is_named(model, row, error, message):
    with pytest.raises(error, match=message):
        model.choose([row])


def test_a_wrong_answer_is_named(model):
    with pytest.raises(PromptError, match="input 1 lacks the field 'answer'"):
        model.score([{"prompt": "hard", "text": "a"}])
    with pytest.raises(UnknownName, match="unknown answer 'goood'. Did you mean 'good'"):
        model.score([{"prompt": "hard", "text": "a", "answer": "goood"}])
    with pytest.raises(PromptError, match="input 1: its answer is empty"):
        model.score([{"prompt": "free", "text": "a", "answer": ""}])


def test_a_prompt_for_another_model_says_what_differs(llama, make_saved):
    saved = make_saved(llama, "soft", *KINDS["soft"][1:])
    for other, what in (
        ({"width": 48}, "width 32; 'other' has 48"),
        ({"layers": 3}, "layers 2; 'other' has 3"),
        ({"seed": 1}, "with hash"),
    ):
        with pytest.raises(ModelError, match=what):
            PromptedModel(LanguageModel(*tiny_model("llama", **other), name="other"), {"a": saved})
    loose = dataclasses.replace(saved, about={})
    with pytest.raises(PromptError, match="is for a model with width 32; this one has 48"):
        PromptedModel(LanguageModel(*tiny_model("llama", width=48)), loose)
    with pytest.raises(ModelError, match="hand the model over"):
        loose.model()
    with pytest.raises(PromptError, match="expected at least one prompt"):
        PromptedModel(llama, {})


def test_a_prompt_that_does_not_fill_its_slots_is_named(llama, make_saved):
    saved = make_saved(llama, "hard", "{prompt:2} capital {prompt:1} {text}{answer}", WORDS)
    wrong = dataclasses.replace(saved, prompt=HardPrompt(saved.prompt.ids[:2]))
    with pytest.raises(
        PromptError, match=r"has 2 tokens, but the slots of the template .* take 2 \+ 1"
    ):
        PromptedModel(llama, wrong)
