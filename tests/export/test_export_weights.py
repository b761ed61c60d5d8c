"""Changed weights on their way out and in.

json holds all, PEFT low-rank ones, scales, norms and biases, in both directions (law 1).
"""

from __future__ import annotations

import copy
import json
import re
import warnings

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import save_file

from promptsearch import LanguageModel, Task, Weights, load_prompt
from promptsearch.errors import ExportError, PromptError
from promptsearch.export import export_run, read_peft, verify
from promptsearch.export.saved import write_saved
from promptsearch.scoring import Engine
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import saved_from

TEMPLATE = "{text} {prompt:3} It was {answer}"
ROWS = [
    {"text": f"good film {i} I hate the story"[i % 5 :].strip(), "label": i % 2} for i in range(40)
]

#: The tiny models for which PEFT knows where its weights go, by type.
_KNOWN_TO_PEFT = {
    "LORA": ("llama", "gpt2", "gemma3", "qwen3"),
    "IA3": ("llama", "gpt2", "gemma3", "qwen3"),
    "LN_TUNING": ("llama", "gpt2", "gemma3", "qwen3"),
    "BEFT": ("llama", "gemma3", "qwen3"),
}


def adapters(lm):
    generator, found, width = torch.Generator().manual_seed(0), {}, lm.weights.width
    for place in [place for parts in lm.weights.parts for place in parts]:
        for part, shape in {
            "down": (3, width),
            "down_bias": (3,),
            "up": (width, 3),
            "up_bias": (width,),
        }.items():
            found[f"{place}.adapter_{part}"] = 0.3 * torch.randn(shape, generator=generator)
    return Weights(found)


def everything(lm):
    return Weights({name: 1.1 * tensor for name, tensor in lm.weights.tensors.items()})


def saved_weights(lm, prompt, answers=("bad", "very good")):
    choices = None if answers is None else dict(enumerate(answers))
    rows = ROWS if answers else [{**row, "label": "good"} for row in ROWS]
    task = Task.from_rows(
        rows,
        template=TEMPLATE,
        label="label",
        answers=choices,
        splits={"search": 8, "select": 8, "test": 8},
    )
    bound = task.template.bind(3).taking("weights")
    facts = {
        "name": lm.name,
        "source": lm.name,
        "hash": lm.hash,
        "tokenizer_hash": lm.tokenizer_hash,
    }
    return saved_from(lm, prompt, task, bound, {"model": facts})


def write(saved, lm, folder):
    folder.mkdir()
    write_saved(saved, lm, folder)
    return folder


def ours(lm, prompt, ids):
    with lm.changed(prompt.tensors), torch.inference_mode():
        return lm.model(input_ids=torch.tensor([ids])).logits[0]


def through_peft(lm, folder):
    model, _ = tiny_model(lm.name)  # peft changes the model that it is given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, str(folder)).eval()


@pytest.mark.parametrize("make", [adapters, everything])
def test_json_holds_them_exactly(lm, make, tmp_path):
    check_json(saved_weights(lm, make(lm)), lm, tmp_path / "a")


def check_json(saved, lm, folder):
    again = load_prompt(write(saved, lm, folder))
    assert (
        again.prompt == saved.prompt
        and again.template == saved.template
        and again.choices == saved.choices
    )
    assert again.verify(lm) < 1e-6
    lm.check_unchanged()


@pytest.mark.parametrize("form", ["low rank", "scales", "norms", "biases"])
def test_weights_load_through_peft_with_equal_logits(lm, form, draw_weights, tmp_path):
    saved = saved_weights(lm, draw_weights(lm, form))
    check_json(saved, lm, tmp_path / "a")
    if form == "biases" and lm.name == "gpt2":
        with pytest.raises(ExportError, match="of weights, PEFT holds .*, and these are others"):
            export_run(tmp_path / "a", "peft", tmp_path / "peft", model=lm)
        return
    folder = export_run(tmp_path / "a", "peft", tmp_path / "peft", model=lm)
    lm.check_unchanged()
    assert not hasattr(lm.model, "peft_config")
    ids = [
        *lm.lead,
        *lm.encode("the good story was very good indeed, and the capital of France is Paris"),
    ]
    with torch.inference_mode():
        theirs = through_peft(lm, folder)(input_ids=torch.tensor([ids])).logits[0]
    mine = ours(lm, saved.prompt, ids)
    assert (theirs - mine).abs().max() < 1e-5 * theirs.abs().max().clamp_min(1)
    assert (mine - ours(lm, Weights({}), ids)).abs().max() > 0.01
    assert read_peft(folder, lm) == saved.prompt


def made_by_peft(lm, config, folder):
    """A model in PEFT whose numbers, drawn at random, it saved to a folder."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = peft.get_peft_model(tiny_model(lm.name)[0], config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.ndim == 1:
                    parameter += torch.randn(parameter.shape)
        model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, lora_alpha=16, init_lora_weights=False),
        peft.LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, use_rslora=True),
        peft.LoraConfig(r=4, lora_alpha=3, init_lora_weights=False, target_modules="all-linear"),
        peft.IA3Config(init_ia3_weights=False),
        peft.LNTuningConfig(),
        peft.BeftConfig(init_weights=False),
    ],
    ids=["lora", "rslora", "all-linear", "ia3", "norms", "biases"],
)
def test_what_peft_made_loads_here_with_equal_logits(lm, config, tmp_path):
    if lm.name not in _KNOWN_TO_PEFT[config.peft_type]:
        return
    config = copy.deepcopy(config)
    config.task_type = "CAUSAL_LM"
    model = made_by_peft(lm, config, tmp_path)
    prompt = read_peft(tmp_path, lm)
    ids = [*lm.lead, *lm.encode("the good story was very good")]
    with torch.inference_mode():
        theirs = model(input_ids=torch.tensor([ids])).logits[0]
    assert (theirs - ours(lm, prompt, ids)).abs().max() < 1e-4 * theirs.abs().max()


def test_no_module_that_a_folder_names_is_imported(llama, draw_weights, tmp_path, monkeypatch):
    """PEFT itself imports `megatron_core`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strange_core.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    folder = export_run(
        write(saved_weights(llama, draw_weights(llama, "low rank")), llama, tmp_path / "a"),
        "peft",
        tmp_path / "peft",
        model=llama,
    )
    config = json.loads((folder / "adapter_config.json").read_text())
    strange = {
        "megatron_config": {"tensor_model_parallel_size": 1},
        "megatron_core": "strange_core",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **strange}))
    with pytest.raises(PromptError, match="megatron_config = .*, which is not known here"):
        verify(folder, llama)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "loftq"},
        {"alora_invocation_tokens": [4, 5]},
        {"arrow_config": {"top_k": 2}},
        {"monteclora_config": {}},
    ],
    ids=str,
)
def test_lora_that_does_something_else_is_refused(llama, draw_weights, tmp_path, option):
    saved = saved_weights(llama, draw_weights(llama, "low rank"))
    folder = export_run(write(saved, llama, tmp_path / "a"), "peft", tmp_path / "peft", model=llama)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **option}))
    ((name, value),) = option.items()
    told = re.escape(f"{name} = {value}, which is not known here")
    with pytest.raises(PromptError, match=told):
        read_peft(folder, llama)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(PromptError, match=r"has shape \(2, 64\) in this model, got \(2, 32\)"):
        read_peft(folder, LanguageModel(*tiny_model("llama", width=64)))


@pytest.mark.parametrize(
    ("form", "name", "shape"),
    [
        ("scales", "base_model.model.model.layers.0.self_attn.k_proj.ia3_q", (16, 1)),
        ("scales", "base_model.model.model.layers.0.self_attn.k_proj.ia3_l", (4, 4)),
        ("norms", "base_model.model.model.norm.weight", (32,)),
        ("biases", "base_model.model.model.layers.0.mlp.up_proj.beft_bias", (64,)),
    ],
)
def test_tensors_that_belong_to_no_such_folder_are_named(
    llama, draw_weights, form, name, shape, tmp_path
):
    folder = export_run(
        write(saved_weights(llama, draw_weights(llama, form)), llama, tmp_path / "a"),
        "peft",
        tmp_path / "peft",
        model=llama,
    )
    save_file({name: torch.ones(shape)}, folder / "adapter_model.safetensors")
    with pytest.raises(PromptError, match=f"{name} of shape .*, which is no part of"):
        read_peft(folder, llama)


@pytest.mark.parametrize("make", [adapters, everything])
def test_what_no_other_format_holds_is_refused_with_the_reason(llama, make, tmp_path):
    folder = write(saved_weights(llama, make(llama)), llama, tmp_path / "a")
    with pytest.raises(ExportError, match="of weights, PEFT holds .*, and these are others"):
        export_run(folder, "peft", tmp_path / "b", model=llama)
    assert not (tmp_path / "b").exists()
    for to, what in {"text": "text", "kv": "keys and values", "vllm": "embeddings"}.items():
        with pytest.raises(
            ExportError,
            match=f"no {what} can stand for changed weights: export them as json, or as peft",
        ):
            export_run(folder, to, tmp_path / to, model=llama)
        assert not (tmp_path / to).exists()


@pytest.mark.parametrize(
    ("to", "what"),
    {
        "text": "text",
        "kv": "keys and values",
        "vllm": "embeddings",
        "peft": "virtual tokens",
    }.items(),
)
def test_vectors_with_changed_weights_leave_as_json_only(llama, make_saved, to, what, tmp_path):
    """Vectors alone would be a file that loads, and scores otherwise."""
    folder = write(
        make_saved(llama, "tuned", "{prompt} {text} It was{answer}", (" bad", " good")),
        llama,
        tmp_path / "a",
    )
    complaint = (
        f"no {what} can stand for the changed weights that a tuned prompt has beside its "
        "vectors.*: export it as json$"
    )
    with pytest.raises(ExportError, match=complaint):
        export_run(folder, to, tmp_path / "b", model=llama)
    assert not (tmp_path / "b").exists()


def test_ranks_that_differ_are_refused(llama, draw_weights, tmp_path):
    name = "model.layers.0.self_attn.k_proj"
    into, out = llama.weights.maps[name]
    low = draw_weights(llama, "low rank")
    more = {f"{name}.lora_A": torch.ones(3, into), f"{name}.lora_B": torch.ones(out, 3)}
    folder = write(saved_weights(llama, Weights({**low.tensors, **more})), llama, tmp_path / "a")
    with pytest.raises(ExportError, match=r"low-rank weights of one rank, and these have \[2, 3\]"):
        export_run(folder, "peft", tmp_path / "b", model=llama)


def test_apply_answers_with_the_changed_weights(lm):
    saved = saved_weights(lm, everything(lm))
    found = list(saved.apply([e.fields for e in saved.probe], lm))
    scores = Engine(lm, saved.template, Split("probe", saved.probe), saved.choices).score(
        [saved.prompt], np.arange(8)
    )
    for row, nats in zip(found, scores.choices[0], strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(np.exp(nats), abs=1e-5)


def test_apply_writes_what_the_changed_model_writes(lm):
    saved = saved_weights(lm, everything(lm), answers=None)
    (row,) = saved.apply([saved.probe[0].fields], lm)
    ids = [*lm.lead, *lm.encode(f"{saved.probe[0].fields['text']} It was")]
    with lm.changed(saved.prompt.tensors), torch.inference_mode():
        theirs = lm.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=32,
            do_sample=False,
            pad_token_id=0,
        )
    assert (
        row["answer"]
        == lm.tokenizer.decode(theirs[0, len(ids) :], skip_special_tokens=True)
        .split("\n")[0]
        .strip()
    )
