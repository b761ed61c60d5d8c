"""Prefixes on their way out and in.

Our files in PEFT, PEFT's files here, equal logits in both directions (law 1).
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import peft
import pytest
import torch

from promptsearch import (
    LanguageModel,
    PrefixPrompt,
    PromptedModel,
    SoftPrompt,
    Task,
    compare,
    load_prompt,
)
from promptsearch.errors import ExportError, PromptError
from promptsearch.export import export_run, read_peft
from promptsearch.export.saved import write_saved
from promptsearch.models.attention.forest import chains
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.scoring import Engine
from promptsearch.scoring.forward import run
from promptsearch.scoring.layout import lay_out_input
from promptsearch.scoring.tree import grow
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import saved_from

WORDS = (" bad", " good")
FRONT, BEHIND = "{prompt:3} {text} It was {answer}", "{text} {prompt:3} It was {answer}"
ROWS = [
    {"text": f"good film {i} I hate the story"[i % 5 :].strip(), "label": i % 2} for i in range(40)
]


def make_prefix(lm, length=3, seed=0):
    return PrefixPrompt(
        torch.randn(length, *lm.prefix_shape, generator=torch.Generator().manual_seed(seed))
    )


def saved_prefix(lm, template=FRONT, answers=("bad", "very good"), layers=None):
    task = Task.from_rows(
        ROWS,
        template=template,
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": 8, "select": 8, "test": 8},
    )
    bound, prompt = task.template.bind(3).taking("prefix"), make_prefix(lm)
    if layers is not None:
        prompt = PrefixPrompt(prompt.keys_values[:, -layers:])
    return saved_from(lm, prompt, task, bound)


def write(saved, lm, folder):
    folder.mkdir()
    write_saved(saved, lm, folder)
    return folder


def ours(lm, prefix, ids):
    """All logits of a row below a prefix, by the engine's way through the model."""
    with torch.inference_mode():
        trunk = KeysValues((prefix.keys_values.flatten(1),))
        states, _ = run(lm, [grow([ids], len(trunk))], [trunk], None)
        return lm.passes.logits(states)


def through_peft(lm, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        return peft.PeftModel.from_pretrained(lm.model, str(folder)).eval()


def row(lm, text):
    return [*lm.lead, *lm.encode(text)]


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_json_holds_a_prefix_exactly(lm, template, tmp_path):
    saved = saved_prefix(lm, template)
    again = load_prompt(write(saved, lm, tmp_path / "a"))
    assert (
        again.prompt == saved.prompt
        and again.template == saved.template
        and again.choices == saved.choices
    )
    assert again.verify(lm) < 1e-6


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_a_prefix_loads_through_peft_with_equal_logits_and_text(lm, template, tmp_path):
    saved = saved_prefix(lm, template)
    folder = export_run(write(saved, lm, tmp_path / "a"), "peft", tmp_path / "peft", model=lm)
    wrapped = through_peft(lm, folder)
    ids = row(
        lm, "the good story was very good indeed, and the capital of France is Paris"
    )  # longer than Gemma's window
    with torch.inference_mode():
        theirs = wrapped(input_ids=torch.tensor([ids])).logits[0]
    mine = ours(lm, saved.prompt, ids)
    assert theirs.shape == mine.shape and (theirs - mine).abs().max() < 1e-5
    assert read_peft(folder, lm) == saved.prompt


def test_cartridges_are_put_one_behind_the_other_by_peft_and_read_here(llama, tmp_path):
    """Two of ours make one of PEFT's, which is the longer prefix here."""
    parts = []
    for name in ("a", "b"):
        saved = saved_prefix(llama)
        parts.append(write(saved, llama, tmp_path / name))
        export_run(parts[-1], "cartridge", tmp_path / f"{name}-peft", model=llama)
    peft.tuners.cartridge.utils.compose_cartridge_adapters(
        [tmp_path / "a-peft", tmp_path / "b-peft"], output_path=tmp_path / "both"
    )
    prefix = read_peft(tmp_path / "both", llama)
    one = saved.prompt.keys_values
    assert torch.equal(prefix.keys_values, torch.cat([one, one]))
    ids = row(llama, "the good story was very good indeed")
    with torch.inference_mode():
        theirs = through_peft(llama, tmp_path / "both")(input_ids=torch.tensor([ids])).logits[0]
    assert (theirs - ours(llama, prefix, ids)).abs().max() < 1e-5


def test_what_peft_trained_loads_here_with_equal_logits(lm, tmp_path):
    """A prefix of PEFT's own, made by its network and saved by it."""
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=5,
        prefix_projection=True,
        encoder_hidden_size=16,
        init_weights=None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        made = peft.get_peft_model(LanguageModel(*tiny_model(lm.name), name=lm.name).model, config)
        made.save_pretrained(str(tmp_path))
    prefix = read_peft(tmp_path, lm)
    assert isinstance(prefix, PrefixPrompt) and tuple(prefix.keys_values.shape) == (
        5,
        *lm.prefix_shape,
    )
    ids = row(lm, "the good story was very good")
    with torch.inference_mode():
        theirs = through_peft(lm, tmp_path)(input_ids=torch.tensor([ids])).logits[0]
    assert (theirs - ours(lm, prefix, ids)).abs().max() < 1e-5
    assert theirs.std() > 0.1


def test_vectors_of_peft_load_here_with_equal_logits(llama, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        peft.get_peft_model(LanguageModel(*tiny_model("llama")).model, config).save_pretrained(
            str(tmp_path)
        )
    soft = read_peft(tmp_path, llama)
    assert isinstance(soft, SoftPrompt)
    whole = torch.cat(
        [soft.vectors, llama.passes.embed(torch.tensor(llama.encode("the good story")))]
    )
    with torch.inference_mode():
        theirs = through_peft(llama, tmp_path)(
            input_ids=torch.tensor([llama.encode("the good story")])
        ).logits[0]
        mine = llama.passes.logits(llama.passes.hidden(whole, chains([len(whole)], llama.device)))
    assert (theirs - mine).abs().max() < 1e-5


@pytest.fixture(scope="module")
def gemma():
    """Its tokenizer begins texts with a token of its own."""
    return LanguageModel(*tiny_model("gemma3"), name="gemma3")


def test_vectors_of_peft_stand_before_the_token_that_begins_texts(gemma, make_saved, tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = peft.get_peft_model(LanguageModel(*tiny_model("gemma3")).model, config)
        made.save_pretrained(str(tmp_path))
    prefix, probe = read_peft(tmp_path, gemma), make_saved(gemma, "hard", FRONT, WORDS).probe
    bound = saved_prefix(gemma).template
    engine = Engine(gemma, bound, Split("probe", probe), WORDS)
    mine = engine.score([prefix], np.arange(len(probe))).choices[0]
    first = [gemma.encode(word)[0] for word in WORDS]
    wrapped = through_peft(gemma, tmp_path)
    for example, nats in zip(probe, mine, strict=True):
        ids = lay_out_input(bound, gemma, example.fields).segments[-1]
        assert ids[:1] == gemma.lead
        with torch.inference_mode():
            logits = wrapped(input_ids=torch.tensor([ids])).logits[0, -1]
        assert nats == pytest.approx(logits[first].log_softmax(-1).tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_our_own_vectors_come_back_without_the_token_that_begins_texts(
    gemma, make_saved, kind, tmp_path
):
    saved = make_saved(gemma, kind, FRONT, WORDS)
    run = write(saved, gemma, tmp_path / "a")
    soft = read_peft(export_run(run, "peft", tmp_path / "peft", model=gemma), gemma)
    engine = Engine(gemma, saved.template, Split("probe", saved.probe), WORDS)
    found = engine.score([soft], np.arange(len(saved.probe))).losses[0]
    assert found == pytest.approx(saved.losses, abs=1e-5)
    cartridge = export_run(run, "cartridge", tmp_path / "cartridge", model=gemma)
    with pytest.raises(PromptError, match="and '<.begin.>' would stand behind it here"):
        read_peft(cartridge, gemma)


def test_peft_generates_what_we_generate(lm, tmp_path):
    saved = saved_prefix(lm)
    folder = export_run(write(saved, lm, tmp_path / "a"), "peft", tmp_path / "peft", model=lm)
    ids = [*lm.lead, *lm.encode(saved.template.segments[-1].format(text="the good story"))]
    (mine,) = PromptedModel(lm, saved).generate([{"text": "the good story"}], 20)
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
    }
    theirs = through_peft(lm, folder).generate(
        **inputs, max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    assert lm.tokenizer.decode(theirs[0, len(ids) :], skip_special_tokens=True) == mine != ""


def test_apply_answers_with_a_prefix(lm, tmp_path):
    saved = saved_prefix(lm)
    found = list(saved.apply([e.fields for e in saved.probe], lm))
    engine = Engine(lm, saved.template, Split("probe", saved.probe), saved.choices)
    scores = engine.score([saved.prompt], np.arange(8))
    for given, nats in zip(found, scores.choices[0], strict=True):
        assert given["answer"] == saved.choices[int(nats.argmax())].strip()
        assert list(given["probabilities"].values()) == pytest.approx(np.exp(nats), abs=1e-5)


def test_a_run_of_prefix_tuning_leaves_what_it_measured_and_generates_what_exact_match_counts(
    llama, tmp_path
):
    data = [{"text": f"good film {i}", "label": ["good", "Paris"][i % 2]} for i in range(30)]
    task = Task.from_rows(
        data,
        template=BEHIND,
        label="label",
        splits={"search": 8, "select": 8, "test": 8},
        name="words",
    )
    strategy = {"prefix_tuning": {"interval": 4, "batch": 4, "reparametrise": False}}
    compare(
        {"budget": 20_000, "seeds": 1, "score_on": 4, "strategies": [strategy]},
        out=tmp_path / "s",
        model=llama,
        task=task,
    )
    run_folder = next((tmp_path / "s").rglob("result.json")).parent
    result, saved = json.loads((run_folder / "result.json").read_text()), load_prompt(run_folder)
    assert result["stored"] == saved.prompt.keys_values.numel() and result["length"] == 3
    assert result["winner"]["text"] == "[keys and values of 3 tokens in 2 layers]"
    tests = task.splits["test"].examples
    for found, example, correct in zip(
        saved.apply([e.fields for e in tests], llama), tests, result["test"]["correct"], strict=True
    ):
        assert (found["answer"] == example.answer.strip()) == bool(correct)
    export_run(run_folder, "peft", tmp_path / "peft", model=llama)


def test_a_prefix_is_no_text(llama, tmp_path):
    folder = write(saved_prefix(llama), llama, tmp_path / "a")
    with pytest.raises(
        ExportError, match="a prefix prompt is numbers, and no text holds it exactly"
    ):
        export_run(folder, "text", tmp_path / "b", model=llama)


def test_a_prefix_of_the_top_layers_is_held_by_json_alone(llama, make_saved, tmp_path):
    folder = write(saved_prefix(llama, layers=1), llama, tmp_path / "a")
    again = load_prompt(export_run(folder, "json", tmp_path / "json", model=llama))
    assert again.verify(llama) < 1e-6
    rows = [{**e.fields, "answer": e.answer.strip()} for e in again.probe]
    assert np.abs(PromptedModel(llama, again).score(rows) - again.losses).max() < 1e-5
    for to in ("peft", "kv", "cartridge"):
        with pytest.raises(ExportError, match="all 2 layers, and this prefix stands in the top 1"):
            export_run(folder, to, tmp_path / to, model=llama)
    with pytest.raises(PromptError, match="cannot share a batch"):
        PromptedModel(llama, {"top": again, "all": saved_prefix(llama)})
    hard = make_saved(llama, "hard", FRONT.replace(":3", ""), (" bad", " good"))
    both = PromptedModel(llama, {"top": again, "hard": hard})
    for name, saved in (("top", again), ("hard", hard)):
        rows = [{**e.fields, "answer": e.answer.strip(), "prompt": name} for e in saved.probe]
        assert np.abs(both.score(rows) - np.array(saved.losses)).max() < 1e-5


def test_an_export_that_scores_differently_is_not_written(llama, tmp_path):
    folder = write(saved_prefix(llama), llama, tmp_path / "a")
    data = json.loads((folder / "prompt.json").read_text())
    data["probe"][3]["loss"] += 0.01
    (folder / "prompt.json").write_text(json.dumps(data))
    for to in ("json", "peft", "kv"):
        with pytest.raises(ExportError, match="nats per scored token away from what was measured"):
            export_run(folder, to, tmp_path / to, model=llama)
        assert not (tmp_path / to).exists()


# What is refused on the way in.


@pytest.fixture
def folder(llama, tmp_path):
    return export_run(
        write(saved_prefix(llama), llama, tmp_path / "a"), "peft", tmp_path / "peft", model=llama
    )


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_another_type_is_named(folder, llama):
    edit(folder, peft_type="VERA")
    complaint = (
        "is of the type VERA; expected PROMPT_TUNING, P_TUNING, PREFIX_TUNING, CARTRIDGE, "
        "ADAPTION_PROMPT, IA3, LN_TUNING, BEFT or LORA"
    )
    with pytest.raises(PromptError, match=complaint):
        read_peft(folder, llama)


def test_a_pickle_is_never_read(folder, llama):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(
        PromptError, match="holds a pickle, adapter_model.bin, which could run code"
    ):
        read_peft(folder, llama)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_or_missing_file_is_named(folder, llama, file):
    (folder / file).write_bytes((folder / file).read_bytes()[:50])
    with pytest.raises(PromptError, match="is no PEFT folder of a prompt, or is damaged"):
        read_peft(folder, llama)
    (folder / file).unlink()
    with pytest.raises(PromptError, match="is no PEFT folder of a prompt, or is damaged"):
        read_peft(folder, llama)


def test_a_prefix_for_another_model_says_what_differs(folder, llama):
    with pytest.raises(PromptError, match="is for a model of 2 layers; 'deep' has 3"):
        read_peft(folder, LanguageModel(*tiny_model("llama", layers=3), name="deep"))
    with pytest.raises(
        PromptError, match="has 64 numbers a token; 'wide' takes 2 x 2 x 3 x 8 = 96"
    ):
        read_peft(folder, LanguageModel(*tiny_model("llama", width=48), name="wide"))
    edit(folder, num_virtual_tokens=4)
    with pytest.raises(PromptError, match=r"holds numbers of shape \(3, 64\) for 4 virtual tokens"):
        read_peft(folder, llama)


def test_a_damaged_prefix_is_found_by_its_key(llama, tmp_path):
    folder = write(saved_prefix(llama), llama, tmp_path / "a")
    numbers = next(folder.glob("*.safetensors"))
    numbers.write_bytes(numbers.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(PromptError, match="does not have the content that its key names"):
        load_prompt(folder)
