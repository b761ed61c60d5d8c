"""The tiny models are real models of their architectures, and the tokenizer a real tokenizer."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from promptsearch import UnknownName
from promptsearch.testing.tiny import ARCHITECTURES, WORDS, tiny_model, tiny_tokenizer
from promptsearch.testing.tiny_masked import MASKED_ARCHITECTURES, masked_tokenizer
from promptsearch.testing.tiny_tokenizers import tokenizer_of

TOKENIZER = tiny_tokenizer()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_scores_text_and_prompts_make_a_difference(architecture):
    model, tokenizer = tiny_model(architecture)
    assert not model.training and model.dtype == torch.float32
    with torch.no_grad():
        logits = [
            model(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
            for text in ("It was good", "The capital is")
        ]
    assert torch.isfinite(logits[0]).all()
    assert (logits[0].log_softmax(-1) - logits[1].log_softmax(-1)).abs().max() > 0.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_seed_draws_the_weights_and_the_global_generator_stays(architecture):
    before = torch.get_rng_state()
    one, same, other = (
        tiny_model(architecture, seed=seed)[0].get_input_embeddings().weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_and_width_are_as_asked_and_embeddings_outnumber_tokens(architecture):
    model, tokenizer = tiny_model(architecture, layers=3, width=48)
    assert model.config.num_hidden_layers == 3
    assert model.get_input_embeddings().weight.shape == (512, 48)
    assert len(tokenizer) < 512


def test_gemma_begins_texts_with_a_token_of_its_own_and_slides_a_window():
    model, tokenizer = tiny_model("gemma3")
    assert tokenizer("good").input_ids[0] == tokenizer.bos_token_id
    assert set(model.config.layer_types) == {"sliding_attention", "full_attention"}
    assert tiny_model("llama")[1]("good").input_ids[0] != tokenizer.bos_token_id


def test_llama_groups_keys_and_values():
    config = tiny_model("llama")[0].config
    assert config.num_key_value_heads < config.num_attention_heads


def test_a_model_can_be_saved_and_loaded(tmp_path):
    model, tokenizer = tiny_model("qwen3")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("It was good", return_tensors="pt").input_ids
    assert torch.equal(ids, tokenizer("It was good", return_tensors="pt").input_ids)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("word", WORDS)
def test_common_words_are_single_tokens(word):
    assert len(TOKENIZER(word).input_ids) == 1


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_round_trips(text):
    assert (
        TOKENIZER.decode(
            TOKENIZER(text, split_special_tokens=True).input_ids, clean_up_tokenization_spaces=False
        )
        == text
    )


@pytest.mark.parametrize(
    "make",
    [
        tiny_tokenizer,
        *(partial(masked_tokenizer, name) for name in MASKED_ARCHITECTURES),
        *(partial(tokenizer_of, kind) for kind in ("first", "unigram", "wordpiece")),
    ],
    ids=["tiny", *MASKED_ARCHITECTURES, "first", "unigram", "wordpiece"],
)
def test_a_tokenizer_is_the_same_each_time(make):
    assert make().get_vocab() == make().get_vocab()


def test_chats_have_a_template():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Good?"}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>Be brief.<|end|><|user|>Good?<|end|><|assistant|>"
    ids = TOKENIZER(text).input_ids
    assert (
        ids[0] in TOKENIZER.convert_tokens_to_ids(["<|system|>"]) and TOKENIZER.eos_token_id in ids
    )


def test_another_architecture_is_refused_with_a_suggestion():
    with pytest.raises(
        UnknownName, match=r"unknown architecture 'gemma2'\. Did you mean 'gemma3'\?"
    ):
        tiny_model("gemma2")


def test_another_kind_of_tokenizer_is_refused_with_a_suggestion():
    with pytest.raises(UnknownName, match=r"unknown tokenization 'frist'\. Did you mean 'first'\?"):
        tokenizer_of("frist")
