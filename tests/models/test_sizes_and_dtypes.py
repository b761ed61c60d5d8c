"""Sizes and dtypes that differ: right, or said at the start.

Embeddings of another size than the tokenizer, and states of another dtype than the head.
"""

import numpy as np
import pytest
import torch
import transformers

from promptsearch import LanguageModel, Task
from promptsearch.errors import ModelError
from promptsearch.models.causal.forward import Forward
from promptsearch.study.config import parse_config
from promptsearch.study.prepare import prepare
from promptsearch.testing.tiny import tiny_model


def films(text="good film"):
    rows = [{"text": f"{text} {i}", "label": i % 2} for i in range(40)]
    answers, sizes = {0: " very bad", 1: " very good"}, {"search": 16, "select": 8, "test": 8}
    template = "{prompt} {text} It was{answer}"
    return Task.from_rows(
        rows, template=template, label="label", answers=answers, splits=sizes, name="films"
    )


def study(**more):
    config = {
        "model": "given",
        "task": "films",
        "budget": 90_000,
        "seeds": 1,
        "score_on": 8,
        "length": 2,
        "strategies": ["random"],
    }
    return parse_config(config | more)


def test_a_token_without_an_embedding_is_named_before_anything_is_scored():
    model, tokenizer = tiny_model("llama")
    words = LanguageModel(model, tokenizer).words
    kept = sorted(words)[len(words) // 2]
    model.resize_token_embeddings(kept)
    lm = LanguageModel(model, tokenizer, "small")
    assert (
        lm.rows == kept
        and max(lm.words) < kept
        and max(lm.plain) < kept
        and len(lm.words) < len(words)
    )
    (word,) = (lm.decode([i]) for i in [max(words)])
    with pytest.raises(
        ModelError, match=f"holds the token '{word}' .*'small' has embeddings of {kept} tokens only"
    ):
        prepare(study(), lm, films(f"a{word}"))
    with pytest.raises(ModelError, match=f"the text '{word}' holds the token"):
        prepare(study(pool=[word]), lm, films("a"))


def test_a_pool_holds_no_row_beyond_the_tokenizer(tiny):
    assert len(tiny.embeddings) > len(tiny.tokenizer)
    assert max(tiny.plain) < len(tiny.tokenizer)


@pytest.fixture(scope="module")
def mamba():
    _, tokenizer = tiny_model("llama")
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=8
    )
    return LanguageModel(transformers.MambaForCausalLM(config), tokenizer, "mamba")


def test_last_states_of_another_dtype_than_the_head_are_scored_and_trained_on(mamba):
    half = mamba.to(torch.bfloat16)
    forward = Forward(half.model)
    states = forward.rows(forward.embed(torch.tensor([[5, 6]])))[0]
    assert states.dtype == torch.float32 != half.dtype, "as Mamba's are, else this shows nothing"
    half.check(gradients=True)
    rows = [{"prompt_tuning": {"batch": 2}}, "random"]
    prepared = prepare(study(dtype="bfloat16", strategies=rows), mamba, films())
    arena = prepared.arena(prepared.tasks[0])
    ids = arena.scored
    (prompt,) = arena.space.sample(np.random.default_rng(0), 1)
    fast, exact = (
        scorer.score([prompt], ids).losses for scorer in (arena.searching, arena.exact["search"])
    )
    assert abs(fast - exact).max() < 0.05
    vectors = mamba.vocabulary[list(prompt.ids)].clone().requires_grad_()
    arena.searching.loss(vectors, ids[:2]).backward()
    assert vectors.grad.isfinite().all() and vectors.grad.abs().max() > 0


def test_a_dtype_that_a_model_cannot_be_computed_in_is_named_at_the_start(mamba, monkeypatch):
    model, tokenizer = tiny_model("llama")
    lm = LanguageModel(model, tokenizer, "odd")
    half = lm.to(torch.bfloat16)
    forward = half.model.forward

    def broken(**given):
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr(half.model, "forward", broken)
    with pytest.raises(
        ModelError,
        match=r"'odd' .* cannot be computed in bfloat16: expected m1 .* Set dtype to float32",
    ):
        prepare(study(dtype="bfloat16"), lm, films())
    prepare(study(dtype="float32"), lm, films())
    monkeypatch.setattr(
        half.model,
        "forward",
        lambda **given: type(out := forward(**given))(logits=out.logits * float("nan")),
    )
    with pytest.raises(
        ModelError,
        match="cannot be computed in bfloat16: its numbers are not finite. Set dtype to float32",
    ):
        prepare(study(dtype="bfloat16"), lm, films())


def test_a_model_whose_words_see_those_behind_them_is_none_that_reads_from_left_to_right():
    model, tokenizer = tiny_model("llama")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    model.config._attn_implementation = "sdpa"
    forward = model.forward

    def both_ways(input_ids):
        size = input_ids.shape[1]
        return forward(input_ids=input_ids, attention_mask=torch.zeros(1, 1, size, size))

    model.forward = both_ways
    with pytest.raises(ModelError, match="lets words see those behind them, as encoders do"):
        LanguageModel(model, tokenizer).check()
