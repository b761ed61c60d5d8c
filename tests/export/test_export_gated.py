"""Gated prompts on their way out and in.

Our files in PEFT, PEFT's files here, equal logits in both directions (law 1).
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from promptsearch import GatedPrompt, LanguageModel, PromptedModel, Task, compare, load_prompt
from promptsearch.errors import ExportError, PromptError
from promptsearch.export import export_run, read_peft
from promptsearch.export.saved import write_saved
from promptsearch.scoring import Engine
from promptsearch.scoring.forward import entering, run_above
from promptsearch.scoring.tree import grow
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny import tiny_model, tiny_tokenizer
from promptsearch.testing.tiny_task import saved_from

TEMPLATE = "{text} {prompt:3} It was {answer}"
ROWS = [
    {"text": f"good film {i} I hate the story"[i % 5 :].strip(), "label": i % 2} for i in range(40)
]
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def from_config(config, name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return LanguageModel(model, tiny_tokenizer(), name)


def make_lm(name):
    if name == "mistral":
        return from_config(MistralConfig(**SIZES, sliding_window=16), name)
    return LanguageModel(*tiny_model(name, layers=3), name=name)


@pytest.fixture(scope="module", params=["llama", "mistral", "gpt2"])
def lm(request):
    return make_lm(request.param)


@pytest.fixture(scope="module")
def llama():
    return make_lm("llama")


def make_prompt(lm, layers=2, form="layer", length=3):
    _, heads, width = lm.gated_shape
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(layers, heads if form == "head" else 1, generator=generator)
    return GatedPrompt(torch.randn(length, layers, width, generator=generator), gates)


def saved_prompt(lm, prompt, answers=("bad", "very good")):
    task = Task.from_rows(
        ROWS,
        template=TEMPLATE,
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": 8, "select": 8, "test": 8},
    )
    bound = task.template.bind(3).taking("gated")
    return saved_from(lm, prompt, task, bound)


def write(saved, lm, folder):
    folder.mkdir()
    write_saved(saved, lm, folder)
    return folder


def ours(lm, prompt, ids):
    """All logits of a row beside a gated prompt, by the engine's way through the model."""
    with torch.inference_mode():
        adaption = lm.passes.adaption([(prompt.vectors, prompt.gates)])
        trees = [grow([ids])]
        states, _ = run_above(lm, trees, entering(lm, adaption.first, trees, 512), adaption)
        return lm.passes.logits(states)


def through_peft(name, folder):
    """A model of its own: PEFT changes the modules of the one that it is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        return peft.PeftModel.from_pretrained(make_lm(name).model, str(folder)).eval()


def row(
    lm, text="the good story was very good indeed, and the capital of France is Paris"
):  # longer than Mistral's window
    return [*lm.lead, *lm.encode(text)]


@pytest.mark.parametrize("form", ["head", "layer"])
def test_json_holds_a_gated_prompt_exactly(lm, form, tmp_path):
    saved = saved_prompt(lm, make_prompt(lm, form=form))
    again = load_prompt(write(saved, lm, tmp_path / "a"))
    assert (
        again.prompt == saved.prompt
        and again.template == saved.template
        and again.choices == saved.choices
    )
    assert again.verify(lm) < 1e-6
    found = list(again.apply([e.fields for e in saved.probe], lm))
    scores = Engine(lm, saved.template, Split("probe", saved.probe), saved.choices).score(
        [saved.prompt], np.arange(8)
    )
    for given, nats in zip(found, scores.choices[0], strict=True):
        assert list(given["probabilities"].values()) == pytest.approx(np.exp(nats), abs=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_loads_through_peft_with_equal_logits_and_text(lm, layers, tmp_path):
    saved = saved_prompt(lm, make_prompt(lm, layers))
    folder = export_run(write(saved, lm, tmp_path / "a"), "peft", tmp_path / "peft", model=lm)
    wrapped, ids = through_peft(lm.name, folder), row(lm)
    with torch.inference_mode():
        theirs = wrapped(input_ids=torch.tensor([ids])).logits[0]
    mine = ours(lm, saved.prompt, ids)
    assert theirs.shape == mine.shape and (theirs - mine).abs().max() < 1e-5
    with torch.inference_mode():
        assert (theirs - lm.model(input_ids=torch.tensor([ids])).logits[0]).abs().max() > 0.01, (
            "the prompt matters"
        )
    assert read_peft(folder, lm) == saved.prompt
    ids = [*lm.lead, *lm.encode(saved.template.segments[-1].format(text="the good story"))]
    (mine,) = PromptedModel(lm, saved).generate([{"text": "the good story"}], 12)
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
    }
    grown = wrapped.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)[
        0, len(ids) :
    ]
    assert lm.tokenizer.decode(grown, skip_special_tokens=True) == mine != ""


def test_what_peft_trained_loads_here_with_equal_logits(lm, tmp_path):
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=5, adapter_layers=2)
        made = peft.get_peft_model(make_lm(lm.name).model, config)
        for name, parameter in made.named_parameters():
            if name.endswith("adaption_gate"):
                parameter.data.normal_()
        made.save_pretrained(str(tmp_path))
    prompt = read_peft(tmp_path, lm)
    assert (
        isinstance(prompt, GatedPrompt)
        and tuple(prompt.vectors.shape) == (5, 2, 32)
        and tuple(prompt.gates.shape) == (2, 1)
    )
    ids = row(lm)
    with torch.inference_mode():
        theirs = through_peft(lm.name, tmp_path)(input_ids=torch.tensor([ids])).logits[0]
    assert (theirs - ours(lm, prompt, ids)).abs().max() < 1e-5


def test_an_export_leaves_the_model_as_it_was(lm, tmp_path):
    before, names = (
        lm.model(input_ids=torch.tensor([row(lm)])).logits,
        [name for name, _ in lm.model.named_modules()],
    )
    folder = write(saved_prompt(lm, make_prompt(lm)), lm, tmp_path / "a")
    data = json.loads((folder / "prompt.json").read_text())
    export_run(folder, "peft", tmp_path / "peft", model=lm)
    data["probe"][3]["loss"] += 0.01
    (folder / "prompt.json").write_text(json.dumps(data))
    with pytest.raises(ExportError, match="nats per scored token away from what was measured"):
        export_run(folder, "peft", tmp_path / "other", model=lm)
    assert not (tmp_path / "other").exists()
    assert [name for name, _ in lm.model.named_modules()] == names
    assert torch.equal(lm.model(input_ids=torch.tensor([row(lm)])).logits, before)


def test_a_run_leaves_what_it_measured(llama, tmp_path):
    data = [{"text": f"good film {i}", "label": ["good", "Paris"][i % 2]} for i in range(30)]
    splits = {"search": 8, "select": 8, "test": 8}
    task = Task.from_rows(data, template=TEMPLATE, label="label", splits=splits, name="words")
    rows = [
        {"llama_adapter": {"interval": 4, "batch": 4, "gate": gate, "label": gate, "layers": 2}}
        for gate in ("head", "layer")
    ]
    compare(
        {"budget": 6_000, "seeds": 1, "score_on": 4, "strategies": rows},
        out=tmp_path / "s",
        model=llama,
        task=task,
    )
    for gate, numbers in (("head", 3 * 2 * 32 + 2 * 4), ("layer", 3 * 2 * 32 + 2)):
        folder = tmp_path / "s" / "words" / gate / "seed0"
        result, saved = json.loads((folder / "result.json").read_text()), load_prompt(folder)
        assert result["stored"] == result["trainable"] == numbers and result["length"] == 3
        assert result["winner"]["text"].startswith(
            "[3 vectors in each of the top 2 layers, gates up to "
        )
        tests = task.splits["test"].examples
        answers = saved.apply([e.fields for e in tests], llama)
        for found, example, correct in zip(answers, tests, result["test"]["correct"], strict=True):
            assert not correct or found["answer"].startswith(example.answer.strip())
    export_run(folder, "peft", tmp_path / "peft", model=llama)


# What is refused, and why.


def test_gates_of_heads_are_refused_with_the_formats_that_hold_them(llama, tmp_path):
    folder = write(saved_prompt(llama, make_prompt(llama, form="head")), llama, tmp_path / "a")
    with pytest.raises(
        ExportError,
        match=(
            "a gate for each head, and PEFT's ADAPTION_PROMPT holds one for each layer: export it "
            "as json"
        ),
    ):
        export_run(folder, "peft", tmp_path / "peft", model=llama)
    with pytest.raises(
        ExportError,
        match="no text can stand for a gated prompt, .*: export it as json, or as peft with one",
    ):
        export_run(folder, "text", tmp_path / "text", model=llama)
    for to in ("kv", "vllm"):
        with pytest.raises(ExportError, match="can stand for a gated prompt"):
            export_run(folder, to, tmp_path / to, model=llama)
    assert export_run(folder, "json", tmp_path / "json", model=llama)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: make_lm("qwen3"),
            "PEFT adapts the attention of llama, mistral, gpt2 only, and this is a qwen3",
        ),
        (
            lambda: make_lm("gemma3"),
            "PEFT adapts the attention of llama, mistral, gpt2 only, and this is a gemma3_text",
        ),
        (
            lambda: from_config(LlamaConfig(**SIZES, attention_bias=True), "biased"),
            "adds the bias of the output projection a second",
        ),
        (
            lambda: from_config(LlamaConfig(**SIZES, head_dim=16), "wide"),
            "here 4 of 16 are not the width",
        ),
    ],
)
def test_models_that_peft_does_not_adapt_as_it_should_are_refused_both_ways(
    make, reason, llama, tmp_path
):
    lm = make()
    folder = write(saved_prompt(lm, make_prompt(lm)), lm, tmp_path / "a")
    with pytest.raises(ExportError, match=f"does not hold this prompt exactly: .*{reason}"):
        export_run(folder, "peft", tmp_path / "peft", model=lm)
    theirs = export_run(
        write(saved_prompt(llama, make_prompt(llama)), llama, tmp_path / "b"),
        "peft",
        tmp_path / "c",
        model=llama,
    )
    with pytest.raises(PromptError, match=reason):
        read_peft(theirs, lm)


@pytest.fixture
def folder(llama, tmp_path):
    return export_run(
        write(saved_prompt(llama, make_prompt(llama)), llama, tmp_path / "a"),
        "peft",
        tmp_path / "peft",
        model=llama,
    )


def test_a_folder_for_another_model_says_what_differs(folder, llama):
    deep, wide = (
        LanguageModel(*tiny_model("llama", layers=n, width=w), name="other")
        for n, w in ((4, 32), (3, 48))
    )
    with pytest.raises(
        PromptError,
        match=(
            r"adapts the layers \[1, 2\], and says 2 of them; expected the last ones of the 4 "
            "layers"
        ),
    ):
        read_peft(folder, deep)
    with pytest.raises(
        PromptError,
        match=r"expected a prompt of shape \(1, 3, 48\), 3 vectors of the width of 'other'",
    ):
        read_peft(folder, wide)


def test_a_damaged_folder_is_named(folder, llama):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "adapter_layers": 3}))
    with pytest.raises(PromptError, match="and says 3 of them"):
        read_peft(folder, llama)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {
            name: tensor
            for name, tensor in tensors.items()
            if not name.endswith("2.self_attn.adaption_gate")
        },
        path,
    )
    with pytest.raises(PromptError, match="at layer 2; expected a prompt of shape .* and a gate"):
        read_peft(folder, llama)
    save_file({**tensors, "prompt_embeddings": torch.zeros(1)}, path)
    with pytest.raises(
        PromptError, match="holds prompt_embeddings, which is no part of an adaption prompt"
    ):
        read_peft(folder, llama)
