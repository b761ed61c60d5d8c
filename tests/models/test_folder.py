"""Folders that are no model, or not whole: one clear message, nothing executed, and no waiting."""

import json
import os
import shutil

import pytest
import torch
import transformers

from promptsearch import LanguageModel
from promptsearch.errors import ModelError
from promptsearch.models import folder
from promptsearch.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "m")


def configured(path, **changes):
    given = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({k: v for k, v in given.items() if v is not None}))


def refused(path):
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": "abc"}, "vocab_size as 'abc': expected a whole number from 1 to"),
        ({"num_hidden_layers": -1}, "num_hidden_layers as '-1'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers as '0'"),
        ({"num_hidden_layers": 10**9}, "from 1 to 1,000"),
        ({"vocab_size": 10**12}, "vocab_size as '1000000000000'"),
        ({"hidden_size": 31.5}, "hidden_size as '31.5'"),
        ({"text_config": {"num_hidden_layers": True}}, "num_hidden_layers as 'True'"),
        ({"num_attention_heads": 0}, "cannot load the model"),
        ({"num_attention_heads": float("inf")}, "num_attention_heads as 'inf'"),
        ({"model_type": None}, "model_type"),
        ({"model_type": 7}, "model type `7`"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings"),
        ({"hidden_act": "zap"}, "zap"),
        (
            {"num_hidden_layers": 4},
            "its files lack the weights model.layers.2.* and 15 more of a LlamaForCausalLM",
        ),
        ({"hidden_size": 64}, "its weights have other sizes than its configuration says"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}},
            "needs Python code that lies beside it",
        ),
    ],
)
def test_configurations_with_wrong_values(copy, changes, said):
    import re

    (copy / "own.py").write_text("raise SystemExit('executed')")
    configured(copy, **changes)
    assert re.search(said, refused(copy))


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"a": '])
def test_configurations_that_are_none(copy, content):
    (copy / "config.json").write_bytes(content)
    refused(copy)


def test_weights_that_are_missing_cut_or_elsewhere(copy):
    weights, index = copy / "model.safetensors", copy / "model.safetensors.index.json"
    content = weights.read_bytes()
    for some in (b"", content[:100], content[:-100]):
        weights.write_bytes(some)
        refused(copy)
    weights.unlink()
    assert "there are no weights in it" in refused(copy)
    torch.save({}, copy / "pytorch_model.bin")
    assert "its weights are a pickle (pytorch_model.bin), which can run code" in refused(copy)
    (copy.parent / "other.safetensors").write_bytes(content)
    index.write_text(
        json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "../other.safetensors"}})
    )
    assert "names 2 files that are not in it, ../other.safetensors for instance" in refused(copy)
    for damaged in ("[1", "[]", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(damaged)
        assert "is damaged" in refused(copy)


def test_a_tokenizer_that_is_missing_or_damaged(copy):
    (copy / "tokenizer.json").write_text('{"a": 1}')
    assert "cannot load the tokenizer" in refused(copy)
    for path in copy.glob("tokenizer*"):
        path.unlink()
    assert "cannot load the tokenizer" in refused(copy)


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_is_named_and_its_base_is_not_loaded(copy, whole, beside, monkeypatch):
    monkeypatch.setattr(transformers, "AutoModelForCausalLM", None)
    if not beside:
        for path in copy.iterdir():
            path.unlink()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(whole),
        "r": 2,
        "task_type": "CAUSAL_LM",
    }
    (copy / "adapter_config.json").write_text(json.dumps(config))
    assert (
        "it is an adapter of PEFT, not a model: load it with peft, call merge_and_unload()"
        in refused(copy)
    )


def test_files_that_never_end_are_not_opened(copy):
    (copy / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(copy / "generation_config.json")
    assert "'generation_config.json' in it is no plain file" in refused(copy)


def test_models_of_other_kinds_are_named(tmp_path):
    small = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    speech = transformers.WhisperConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=4,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    )
    models = {
        "its encoder reads no text (whisper)": transformers.WhisperForConditionalGeneration(speech),
        "of a BertForMaskedLM": transformers.BertForSequenceClassification(
            transformers.BertConfig(**small)
        ),
        "it is no language model (vit)": transformers.ViTModel(
            transformers.ViTConfig(**{k: v for k, v in small.items() if k != "vocab_size"})
        ),
        "LlamaForCausalLM": transformers.LlamaModel(transformers.LlamaConfig(**small)),
    }
    for said, model in models.items():
        model.save_pretrained(tmp_path / "m")
        assert said in refused(tmp_path / "m")
        shutil.rmtree(tmp_path / "m")


def test_numbers_that_models_really_have_pass(copy):
    configured(copy, num_nextn_predict_layers=0, num_mem_heads=0)
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(
        text.replace('"hidden_size"', '"n_head": null, "hidden_size"')
    )
    folder.check_files({"pretrained_model_name_or_path": str(copy)})
    LanguageModel.load(str(copy)).check(gradients=True)


def test_a_folder_is_found_below_the_users_own(copy, monkeypatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    assert LanguageModel.load("~/m").name == str(copy.resolve())
    with pytest.raises(ModelError, match="there is no such file or folder"):
        LanguageModel.load("~/other")
