"""Weights in 8 or 4 bits: the same in search, training, report and export, or refused by name.

What computes on such weights runs where torchao and bitsandbytes are installed (`make quantised`).
"""

import numpy as np
import pytest
import torch
import transformers

from promptsearch import LanguageModel, compare
from promptsearch.errors import ModelError, StudyError
from promptsearch.export import export_run, load_prompt, verify
from promptsearch.models.device import pick_dtype
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.load import load_results
from promptsearch.scoring.scorer import make_scorer
from promptsearch.study.config import parse_config
from promptsearch.study.prepare import prepare
from promptsearch.testing.tiny import tiny_model

# Both packages load code that warns of what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}
TRAINED = {"interval": 2, "batch": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama in a folder, of rows that are whole blocks of nf4."""
    folder = tmp_path_factory.mktemp("tiny")
    for part in tiny_model("llama", width=64):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=PACKAGES)
def kept(request, folder):
    """The same with its weights in few bits."""
    pytest.importorskip(PACKAGES[request.param])
    return LanguageModel.load(f"{folder}:quantise={request.param}", device="cpu")


def weights_by_hand(scheme, weight):
    """A weight as the paper or the documentation of the scheme rounds it."""
    if scheme == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127.5
        return (weight * (1 / scale)).round().clamp(-128, 127) * scale
    # QLoRA, appendix E: the values of NF4.
    levels = torch.tensor(
        [
            *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
            *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
            *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
            *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
            *(0.7229568362236023, 1.0),
        ]
    )
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - levels).abs().argmin(-1)
    return (levels[nearest] * scale).reshape(weight.shape)


def losses(lm, task, examples=None):
    split = task.splits["search"]
    scorer = make_scorer(lm, task.template.bind(2), split, task.choices)
    ids = np.arange(len(split)) if examples is None else np.array(examples)
    prompts = [HardPrompt(np.array(lm.words[i : i + 2])) for i in (0, 9)]
    return scorer.score(prompts, ids).losses


def test_losses_are_those_of_the_rounded_weights_in_float32(kept, folder, films):
    model, tokenizer = tiny_model("llama", width=64)
    for layer in model.model.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = weights_by_hand(kept.quantised, module.weight.data)
    wanted = losses(LanguageModel(model, tokenizer, "by hand"), films)
    plain = losses(LanguageModel(*tiny_model("llama", width=64), "plain"), films)
    assert np.abs(losses(kept, films) - wanted).max() < 2e-5 < np.abs(plain - wanted).max()
    assert kept.dtype == torch.float32 and kept.parameters == model.num_parameters()


def test_a_loss_does_not_depend_on_what_is_beside_it(kept, films):
    together = losses(kept, films)
    alone = np.concatenate([losses(kept, films, [i]) for i in range(4)], axis=1)
    assert np.abs(together[:, :4] - alone).max() < 2e-5


def test_whatever_is_written_to_the_weights_is_seen_and_mended(kept):
    before, seen = kept.hash, kept.integrity.checksum
    assert before != LanguageModel(*tiny_model("llama", width=64)).hash
    weight = kept.model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        (weight.qdata if kept.quantised == "int8" else weight.data)[0] += 1
    with pytest.raises(ModelError, match=f"their hash was {before}"):
        kept.check_unchanged()
    assert kept.integrity.checksum != seen
    assert kept.integrity.restore() and kept.integrity.checksum == seen


def test_a_copy_in_another_dtype_shares_the_rounded_weights(kept, films):
    half = kept.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    own, other = (
        dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
        for model in (kept.model, half.model)
    )
    assert own is other
    assert 1e-5 < np.abs(losses(half, films) - losses(kept, films)).max() < 0.1
    half.check(gradients=True)


def test_weights_that_were_saved_rounded_are_loaded_as_they_are(kept, tmp_path):
    kept.model.save_pretrained(tmp_path)
    kept.tokenizer.save_pretrained(tmp_path)
    for name in (str(tmp_path), f"{tmp_path}:quantise={kept.quantised}"):
        again = LanguageModel.load(name, device="cpu")
        assert again.hash == kept.hash and again.name == f"{tmp_path}:quantise={kept.quantised}"
    (other,) = set(PACKAGES) - {kept.quantised}
    pytest.importorskip(PACKAGES[other])
    with pytest.raises(ModelError, match=f"saved in {kept.quantised}, and not in {other}"):
        LanguageModel.load(f"{tmp_path}:quantise={other}", device="cpu")


@pytest.fixture(scope="module")
def found(kept, films, tmp_path_factory):
    """A study on such a model, which its name tells how to load."""
    rows = ["random", {"prompt_tuning": TRAINED}, {"prefix_tuning": {**TRAINED, "hidden": 8}}]
    config = study(kept.name, strategies=rows, dtype="float32", device="cpu")
    out = tmp_path_factory.mktemp("study")
    compare(config, out=out, task=films)
    return load_results(out)


def study(model, **more):
    given = {
        "task": "films",
        "budget": 30_000,
        "seeds": 1,
        "score_on": 8,
        "length": 2,
        "strategies": ["random"],
    }
    return parse_config({"model": model, **given, **more})


def test_prompts_are_searched_trained_and_exported_in_the_same_weights(found, kept):
    scheme = kept.quantised
    assert found.study.model.hash == kept.hash
    assert f":quantise={scheme}@" in found.study.signature
    page = (found.folder / "report.md").read_text("utf-8")
    assert f"selected and tested in float32 with the weights of the layers in {scheme}" in page
    for run in found.runs:
        assert f"|weights:{scheme}|" in run.signature
        prompt = load_prompt(found.folder / "films" / run.label / "seed0")
        assert prompt.verify() < 1e-4  # the model is loaded again, by its name
        assert prompt.about["model"]["hash"] == kept.hash


def test_the_verifier_refuses_the_model_with_its_full_weights(found, folder):
    prompt = load_prompt(found.folder / "films" / "random" / "seed0")
    with pytest.raises(ModelError, match="A prompt belongs to the weights"):
        prompt.verify(LanguageModel.load(str(folder), device="cpu"))


@pytest.mark.parametrize("label", ["prompt_tuning", "prefix_tuning"])
@pytest.mark.parametrize("to", ["peft", "kv"])
def test_other_libraries_load_the_export_on_the_same_weights(found, kept, tmp_path, label, to):
    if to == "peft":
        pytest.importorskip("peft")
    export_run(found.folder / "films" / label / "seed0", to, tmp_path / to, model=kept)
    assert verify(tmp_path / to, kept).same
    card = (tmp_path / to / "README.md").read_text("utf-8")
    assert f"with the weights of its layers in {kept.quantised}" in card
    assert f"LanguageModel.load({kept.name!r})" in card


def test_strategies_that_train_weights_are_refused_with_those_that_work(kept, films):
    with pytest.raises(StudyError, match="'lora' trains the model's weights, but .*those strat"):
        prepare(study("given", strategies=["random", "lora"]), kept, films)
    with pytest.raises(ModelError, match="cannot be changed: take the model with its full weights"):
        _ = kept.weights


def test_weights_that_round_their_input_are_refused(folder):
    """LLM.int8() moves the loss of a row by what is beside it."""
    pytest.importorskip("bitsandbytes")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)
    )
    with pytest.raises(ModelError, match="not known to give a row the same loss whatever is besid"):
        LanguageModel(model, tiny_model("llama")[1])


def test_maps_that_bitsandbytes_computes_wrongly_are_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    for part in tiny_model("llama", width=32):
        part.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="q_proj reads 32 numbers, which are no multiple of 64"):
        LanguageModel.load(f"{tmp_path}:quantise=nf4", device="cpu")


def test_names_and_what_is_lacking_are_said(folder, monkeypatch):
    with pytest.raises(ModelError, match=r"'m:quantise=8bit': expected m:quantise=int8 or m:quant"):
        LanguageModel.load("m:quantise=8bit")
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(ModelError, match=r"needs the package torchao: pip install .*\[quantised\]"):
        LanguageModel.load(f"{folder}:quantise=int8")
    with pytest.raises(ModelError, match=r"a \.gguf file is unpacked, and not kept in nf4"):
        gguf = folder / "m.gguf"
        gguf.touch()
        LanguageModel.load(f"{gguf}:quantise=nf4")


def test_nothing_is_trained_in_float16(tiny, films, caplog):
    cpu = torch.device("cpu")
    assert pick_dtype("float16", cpu) == torch.float16
    with pytest.raises(StudyError, match="'prompt_tuning' trains, and float16 rounds small grad"):
        prepare(study("given", dtype="float16", strategies=["prompt_tuning"]), tiny, films)
    arenas = prepare(study("given", dtype="float16", strategies=["random"]), tiny, films).arenas
    (arena,) = arenas.values()
    prompts = arena.samples(np.random.default_rng(0), 4)
    half, exact = (
        s.score(prompts, arena.scored).losses for s in (arena.searching, arena.exact["search"])
    )
    assert 0 < np.abs(half - exact).max() < 0.01


def test_a_model_that_was_unpacked_as_it_was_loaded_keeps_all_its_weights():
    model, tokenizer = tiny_model("llama")
    model.quantization_method = transformers.utils.quantization_config.QuantizationMethod.GPTQ
    assert LanguageModel(model, tokenizer).quantised == ""


def test_a_model_that_does_not_fit_is_told_what_would(folder, monkeypatch):
    def full(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(ModelError, match="does not fit into the memory of 'cpu'.*:quantise=nf4, w"):
        LanguageModel.load(str(folder), device="cpu")


# What only a GPU shows; none of it has run on one yet.

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.gpu
@no_gpu
def test_a_gpu_gives_the_losses_of_the_cpu(kept, films):
    there = LanguageModel.load(kept.name, device="cuda")
    assert there.hash == kept.hash and there.device.type == "cuda"
    assert np.abs(losses(there, films) - losses(kept, films)).max() < 1e-3
    together, alone = losses(there, films), losses(there, films, [1])
    assert np.abs(together[:, 1:2] - alone).max() < 1e-4
    there.check(gradients=True)
    there.to(torch.bfloat16).check(gradients=True)


@pytest.mark.gpu
@no_gpu
def test_a_gpu_searches_in_float16(folder, films):
    lm = LanguageModel.load(str(folder), device="cuda")
    (arena,) = prepare(study("given", dtype="float16"), lm, films).arenas.values()
    prompts = arena.samples(np.random.default_rng(0), 4)
    half = arena.searching.score(prompts, arena.scored).losses
    assert 0 < np.abs(half - arena.exact["search"].score(prompts, arena.scored).losses).max() < 0.01
