"""Exports: each format gives the measured losses, or is refused with the reason.

Each is loaded through its own path.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
import transformers

from promptsearch import (
    HardPrompt,
    LanguageModel,
    SoftPrompt,
    Task,
    TextPrompt,
    compare,
    load_prompt,
)
from promptsearch.errors import ExportError, ModelError, PromptError, UnknownName
from promptsearch.export import export_run, verify
from promptsearch.export.saved import write_saved
from promptsearch.models.attention.forest import chains
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, slots_of
from promptsearch.scoring.ready import embedded
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import saved_from

pytestmark = pytest.mark.usefixtures("unreported")

FRONT = "{prompt:3} {text} It was {answer}"
ANCHORS = "{prompt:2} movie {prompt:1} {text} It was {answer}"
BEHIND = "{text} {prompt:3} It was {answer}"
ROWS = [
    {"text": f"good film {i} I hate the story"[i % 5 :].strip(), "label": i % 2} for i in range(40)
]


def saved_prompt(lm, template, kind, answers=("bad", "very good")):
    task = Task.from_rows(
        ROWS,
        template=template,
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": 8, "select": 8, "test": 8},
    )
    bound = task.template.bind(3)
    ids = np.random.default_rng(0).choice(lm.words, size=bound.length)
    prompt = {
        "hard": HardPrompt(ids),
        "soft": SoftPrompt(lm.vocabulary[torch.tensor(ids)] + 0.02),
        "text": TextPrompt(["good movie?", "and"][: len(bound.slots)]),
    }[kind]
    return saved_from(lm, prompt, task, bound)


def engine(lm, saved):
    return Engine(lm, saved.template, Split("probe", saved.probe), saved.choices)


def write(saved, lm, folder):
    folder.mkdir()
    write_saved(saved, lm, folder)
    return folder


@pytest.mark.parametrize("template", [FRONT, ANCHORS, BEHIND])
@pytest.mark.parametrize("kind", ["hard", "soft", "text"])
def test_json_holds_every_prompt_exactly(lm, template, kind, tmp_path):
    saved = saved_prompt(lm, template, kind)
    again = load_prompt(write(saved, lm, tmp_path / "a"))
    assert (
        again.prompt == saved.prompt
        and again.template == saved.template
        and again.choices == saved.choices
    )
    assert again.verify(lm) < 1e-6


@pytest.mark.parametrize("template", [FRONT, ANCHORS])
@pytest.mark.parametrize("kind", ["hard", "soft", "text"])
def test_a_front_prompt_loads_through_peft_with_equal_logits(lm, template, kind, tmp_path):
    import peft

    saved = saved_prompt(lm, template, kind)
    folder = export_run(write(saved, lm, tmp_path / "a"), "peft", tmp_path / "peft", model=lm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        wrapped = peft.PeftModel.from_pretrained(lm.model, str(folder)).eval()
    example = saved.probe[2]
    text = lm.encode(saved.template.fill(example.fields)[-1])
    whole = embedded(lm, saved.prompt, saved.template, example.fields)
    with torch.inference_mode():
        theirs = wrapped(input_ids=torch.tensor([text])).logits[0]
        ours = lm.passes.logits(lm.passes.hidden(whole, chains([len(whole)], lm.device)))
    assert theirs.shape == ours.shape and (theirs - ours).abs().max() < 1e-5


def test_peft_is_refused_where_it_cannot_be_exact(lm, tmp_path):
    folder = write(saved_prompt(lm, BEHIND, "soft"), lm, tmp_path / "a")
    with pytest.raises(
        ExportError, match="the input stands before a slot: export it as json or vllm"
    ):
        export_run(folder, "peft", tmp_path / "b", model=lm)
    assert not (tmp_path / "b").exists()


def test_vectors_go_to_peft_for_a_model_without_heads(tmp_path):
    tokenizer = tiny_model("llama")[1]
    config = transformers.MambaConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=1, state_size=4
    )
    mamba = LanguageModel(transformers.MambaForCausalLM(config), tokenizer, "mamba")
    folder = write(saved_prompt(mamba, FRONT, "soft"), mamba, tmp_path / "a")
    assert verify(export_run(folder, "peft", tmp_path / "b", model=mamba), mamba).same


def test_an_error_in_peft_is_told_and_leaves_no_folder(lm, tmp_path, monkeypatch):
    import peft

    def fail(model, folder):
        raise KeyError("x")

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", fail)
    folder = write(saved_prompt(lm, FRONT, "soft"), lm, tmp_path / "a")
    with pytest.raises(ExportError, match=r"PEFT fails with this model \(KeyError: 'x'\)"):
        export_run(folder, "peft", tmp_path / "b", model=lm)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_whatever_ends_an_export_it_leaves_no_folder(lm, tmp_path, monkeypatch, error):
    def fail(*given):
        raise error

    monkeypatch.setattr("promptsearch.export.write_card", fail)
    folder = write(saved_prompt(lm, FRONT, "soft"), lm, tmp_path / "a")
    with pytest.raises(error):
        export_run(folder, "json", tmp_path / "b", model=lm)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("template", [FRONT, ANCHORS, BEHIND])
@pytest.mark.parametrize("kind", ["hard", "text"])
def test_text_gives_the_tokens_back(lm, template, kind, tmp_path):
    saved = saved_prompt(lm, template, kind)
    folder = export_run(write(saved, lm, tmp_path / "a"), "text", tmp_path / "b", model=lm)
    example = saved.probe[1]
    whole = (folder / "template.txt").read_text().format(**example.fields) + saved.choices[0]
    layout = lay_out(saved.template, lm, example, saved.choices)
    assert [*lm.lead, *lm.encode(whole)] == [
        *layout.join(slots_of(saved.template, lm, saved.prompt)),
        *layout.answers[0],
    ]


def test_a_soft_prompt_is_no_text(lm, tmp_path):
    folder = write(saved_prompt(lm, FRONT, "soft"), lm, tmp_path / "a")
    with pytest.raises(ExportError, match="no text holds it exactly"):
        export_run(folder, "text", tmp_path / "b", model=lm)


def test_an_export_that_scores_differently_is_not_written(lm, tmp_path):
    saved = saved_prompt(lm, FRONT, "hard")
    folder = write(saved, lm, tmp_path / "a")
    data = json.loads((folder / "prompt.json").read_text())
    data["probe"][3]["loss"] += 0.01
    (folder / "prompt.json").write_text(json.dumps(data))
    for to in ("json", "text", "peft", "kv", "vllm"):
        with pytest.raises(ExportError, match="nats per scored token away from what was measured"):
            export_run(folder, to, tmp_path / to, model=lm)
        assert not (tmp_path / to).exists()


def test_wrong_exports_are_named(lm, tmp_path, monkeypatch):
    folder = write(saved_prompt(lm, FRONT, "hard"), lm, tmp_path / "a")
    with pytest.raises(UnknownName, match="unknown export format 'pefft'. Did you mean 'peft'"):
        export_run(folder, "pefft", tmp_path / "b", model=lm)
    with pytest.raises(ExportError, match="is not empty"):
        export_run(folder, "json", folder, model=lm)
    other = LanguageModel(*tiny_model("llama", seed=5), name="other")
    with pytest.raises(ModelError, match="A prompt belongs to the weights"):
        export_run(folder, "json", tmp_path / "c", model=other)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(
        ExportError, match=r"needs the package peft: pip install 'promptsearch-kit\[peft\]'"
    ):
        export_run(folder, "peft", tmp_path / "d", model=lm)


def test_apply_answers_choices_like_the_engine(lm, tmp_path):
    saved = saved_prompt(lm, ANCHORS, "soft")
    rows = [{**e.fields, "id": e.id} for e in saved.probe]
    found = list(saved.apply(rows, lm))
    scores = engine(lm, saved).score([saved.prompt], np.arange(8))
    for row, nats in zip(found, scores.choices[0], strict=True):
        assert row["answer"] == saved.choices[int(nats.argmax())].strip()
        assert list(row["probabilities"].values()) == pytest.approx(np.exp(nats), abs=1e-5)
    with pytest.raises(PromptError, match="input 2 lacks the field 'text'; it has body"):
        list(saved.apply([rows[0], {"body": "x"}], lm))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_apply_generates_what_exact_match_counts(lm, tmp_path, kind):
    data = [{"text": f"good film {i}", "label": ["good", "Paris"][i % 2]} for i in range(30)]
    task = Task.from_rows(
        data,
        template=FRONT,
        label="label",
        splits={"search": 8, "select": 8, "test": 8},
        name="words",
    )
    strategy = {
        "hard": "random",
        "soft": {"prompt_tuning": {"interval": 4, "batch": 4, "rate": 0.05}},
    }[kind]
    given = {"budget": 4_000, "seeds": 1, "score_on": 4, "strategies": [strategy]}
    compare(given, out=tmp_path / "s", model=lm, task=task)
    run = next((tmp_path / "s").rglob("result.json")).parent
    saved = load_prompt(run)
    tests = task.splits["test"].examples
    answers = [row["answer"] for row in saved.apply([e.fields for e in tests], lm)]
    assert len(answers) == len(tests)
    right = json.loads((run / "result.json").read_text())["test"]["correct"]
    for answer, example, correct in zip(answers, tests, right, strict=True):
        assert (answer == example.answer.strip()) == bool(correct)
