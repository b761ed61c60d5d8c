"""Studies through a chat template.

Prompts of every kind beside each other, long texts among them, and their exports.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import LanguageModel, PromptedModel, Task, compare, load_prompt
from promptsearch.errors import ExportError, PromptError, StudyError
from promptsearch.export import FORMATS, export_run, verify
from promptsearch.export.saved import write_saved
from promptsearch.scoring.chat_template import render
from promptsearch.study.arena import Arena
from promptsearch.study.config import config_schema, parse_config
from promptsearch.study.forecast import forecast
from promptsearch.testing.tiny import tiny_model

CHAT = [{"system": "Task: {prompt:2}"}, {"user": "{text}"}, {"assistant": "It was {answer}"}]
#: As Llama's and Gemma's: a token of its own first, contents stripped.
BEGINS = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LONG = (
    "You are given one line of a film review. Say whether the film was good or bad, and "
    "nothing else. "
) * 3
TOO_LONG = "good movie " * 600
STRATEGIES = [
    {"manual": {"prompts": [LONG, "good?"]}},
    {"exemplars": {"shots": 2}},
    "random",
    {"prompt_tuning": {"interval": 2, "batch": 4}},
    {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 8}},
    {"llama_adapter": {"interval": 2, "batch": 4}},
]
KINDS = {  # what can hold a prompt in the first message
    "hard": ("json", "kv", "peft", "text", "vllm"),
    "text": ("json", "kv", "peft", "text", "vllm"),
    "soft": ("json", "kv", "peft", "vllm"),
    "prefix": ("json", "kv", "peft"),
    "gated": ("json", "peft"),
    "weights": ("json", "peft"),
    "tuned": ("json",),
}
CASES = [(kind, to) for kind, formats in KINDS.items() for to in formats]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A tiny chat model, loaded from a folder as cards load it."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = BEGINS
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


def task(template=CHAT):
    parts = ["good film", "the story", "I hate", "capital"]
    rows = [
        {"text": " ".join(parts[i % 4 :] * (1 + i % 3)) + f" {i}\n", "label": i % 2}
        for i in range(120)
    ]
    splits = {"search": 40, "select": 16, "test": 20}
    return Task.from_rows(
        rows,
        template=template,
        label="label",
        answers={0: "bad", 1: "good"},
        splits=splits,
        name="chat",
    )


def study(strategies, **changes):
    return {
        "name": "s",
        "model": "a-model",
        "task": "capitals",
        "budget": 15_000,
        "seeds": 1,
        "length": 2,
        "score_on": 8,
        **changes,
    } | {"strategies": strategies}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, lm):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "promptsearch.study.study.cache_folder", lambda: tmp_path_factory.mktemp("cache")
        )
        folder = tmp_path_factory.mktemp("study")
        compare(study(STRATEGIES), out=folder, model=lm, task=task())
    return folder


def lines_of(folder, label):
    return [
        json.loads(line)
        for line in (folder / "chat" / label / "seed0" / "evaluations.jsonl")
        .read_text()
        .splitlines()
    ]


def test_prompts_of_every_kind_and_length_run_beside_each_other(finished, lm):
    for row in STRATEGIES:
        label = row if isinstance(row, str) else next(iter(row))
        result = json.loads((finished / "chat" / label / "seed0" / "result.json").read_text())
        assert result["status"] == "done" and result["spent"] <= 30_000
        saved = load_prompt(finished / "chat" / label / "seed0")
        assert saved.template.messages and saved.template.marks and saved.verify(lm) < 1e-5
        found = list(saved.apply([{"text": "good film"}, {"text": "<|end|> bad"}], lm))
        assert {row["answer"] for row in found} <= {"good", "bad"}
    about = json.loads((finished / "study.json").read_text())["tasks"]["chat"]
    assert about["template"] == (
        "<|begin|><|system|>\nTask: {prompt:2}<|end|>\n<|user|>\n{text}<|end|>\n<|assistant|>\n"
        "It was {answer}"
    )


def test_a_text_is_charged_its_own_length(finished, lm):
    line = next(line for line in lines_of(finished, "manual") if line["stage"] == "search")
    assert not line["failures"]
    lengths = [len(lm.encode(" " + text.strip())) for text in (LONG, "good?")]
    assert lengths[0] > 20 * 2, "far longer than the slot of the hard prompts"
    given = task()
    arena = Arena.build(
        replace(given, template=render(given.template, lm)), lm, lm.dtype, 2, lm.words, 8
    )
    context, lead = (
        int(arena.searching.context(np.arange(8)).sum()),
        int(arena.searching.lead(np.arange(8)).sum()),
    )
    assert len(line["prompts"]) == 3, "the empty one, too"
    assert line["ledger"]["forward"] == 3 * context + 8 * sum(lengths) + lead


def test_a_text_that_fits_some_examples_only_fails_with_its_reason_and_the_run_goes_on(
    lm, tmp_path
):
    given = task()
    compare(
        study(
            [{"manual": {"prompts": [TOO_LONG, "good movie " * 226, "good?"], "empty": False}}],
            budget=400_000,
        ),
        out=tmp_path,
        model=lm,
        task=given,
    )
    folder = tmp_path / "chat" / "manual" / "seed0"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done" and len(result["winner"]["text"]) < len(TOO_LONG)
    first = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])
    assert list(first["failures"]) == ["0"]
    assert "the model reads at most 512" in first["failures"]["0"]


def test_a_study_of_nothing_but_too_long_a_text_fails_with_the_reason(lm, tmp_path):
    compare(
        study([{"manual": {"prompts": [TOO_LONG], "empty": False}}]),
        out=tmp_path,
        model=lm,
        task=task(),
    )
    result = json.loads((tmp_path / "chat" / "manual" / "seed0" / "result.json").read_text())
    assert result["status"] == "failed" and "the model reads at most 512" in result["error"]


def test_plan_and_schema_know_messages(lm):
    found = forecast(parse_config(study(STRATEGIES[:3])), lm, task())
    assert "<|user|>\n{text}<|end|>" in found.tasks[0].template and not any(
        run.error for run in found.runs
    )
    template = config_schema()["$defs"]["TaskConfig"]["properties"]["template"]
    assert {"type": "string"} in [
        {"type": kind.get("type")} for kind in template["oneOf"]
    ] and "system" in json.dumps(template)


def test_wrong_messages_in_a_study_file_are_named():
    data = {
        "data": {"path": "x.csv"},
        "label": "y",
        "splits": {"search": 1, "select": 1, "test": 1},
    }
    for messages, complaint in (
        ([{"robot": "{prompt}"}, {"assistant": "{answer}"}], "template.*robot"),
        ([{"user": 3}, {"assistant": "{answer}"}], "template.*3"),
        ([{"user": "a", "system": "b"}], "template.*"),
        (5, "template is 5"),
    ):
        with pytest.raises(StudyError, match=complaint):
            parse_config({**study(["random"]), "task": {**data, "template": messages}})
    good = parse_config({**study(["random"]), "task": {**data, "template": CHAT}})
    assert parse_config(good.model_dump()) == good


@pytest.mark.parametrize(("kind", "to"), CASES)
def test_every_format_holds_a_prompt_of_a_chat(
    lm, make_saved, tmp_path, monkeypatch, capsys, kind, to
):
    saved = make_saved(lm, kind, CHAT, (" bad", " good"), 2)
    best = tmp_path / "best"
    best.mkdir()
    write_saved(saved, lm, best)
    again = load_prompt(best)
    assert again.template == saved.template and again.verify(lm) < 1e-6
    folder = export_run(best, to, tmp_path / to, model=lm)
    assert verify(folder, lm).same
    assert FORMATS[to].score(saved, lm, folder) == pytest.approx(saved.losses, abs=1e-5)
    if to == "vllm":
        return
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Position ids are not supported")
        exec(compile(code, "README.md", "exec"), {})
    shares = [
        float(number)
        for number in re.findall(r"0\.\d+(?:e-\d+)?|\d\.\d+e-\d+", capsys.readouterr().out)
    ]
    expected = PromptedModel(lm, saved).choose([saved.probe[0].fields])[0].probabilities
    assert shares == pytest.approx(list(expected.values()), abs=1e-5)


def test_text_exports_hold_the_messages(lm, make_saved, tmp_path):
    saved = make_saved(lm, "text", [{"system": "{{ {prompt}"}, *CHAT[1:]], (" bad", " good"), 2)
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    folder = export_run(tmp_path / "best", "text", tmp_path / "text", model=lm)
    messages = json.loads((folder / "messages.json").read_text())
    text = "What is the answer? The movie was very good"
    assert messages == [
        {"role": "system", "content": f"{{{{ {text}"},
        {"role": "user", "content": "{text}"},
        {"role": "assistant", "content": "It was"},
    ]
    (folder / "messages.json").write_text(json.dumps(messages[1:]))
    assert not verify(folder, lm).same
    (folder / "messages.json").write_text("[1]")
    with pytest.raises(PromptError, match=r"messages\.json is missing or damaged"):
        verify(folder, lm)


def test_the_chat_template_of_the_day_changes_no_export(lm, make_saved, tmp_path):
    saved = make_saved(lm, "text", CHAT, (" bad", " good"), 2)
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lm.tokenizer, "chat_template", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
        )
        assert load_prompt(tmp_path / "best").verify(lm) < 1e-6, "what it wrote stays in the file"
        with pytest.raises(ExportError, match="away from what was measured"):
            export_run(tmp_path / "best", "text", tmp_path / "text", model=lm)
    data = json.loads((tmp_path / "best" / "prompt.json").read_text())
    (tmp_path / "best" / "prompt.json").write_text(json.dumps({**data, "marks": data["marks"][1:]}))
    with pytest.raises(PromptError, match="damaged: 2 marks for 3 messages"):
        load_prompt(tmp_path / "best")


def test_a_text_that_fits_no_example_costs_nothing_under_a_small_budget(lm, tmp_path):
    compare(
        study([{"manual": {"prompts": [TOO_LONG, "good?"], "empty": False}}]),
        out=tmp_path,
        model=lm,
        task=task(),
    )
    result = json.loads((tmp_path / "chat" / "manual" / "seed0" / "result.json").read_text())
    assert result["status"] == "done" and result["winner"]["text"].strip() == "good?"
