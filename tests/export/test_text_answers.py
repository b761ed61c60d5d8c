"""Prompts in use answer with a text up to its end, the one that was trained and scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, PromptedModel, Task, compare, load_prompt
from promptsearch.errors import PromptError, StudyError
from promptsearch.export import FORMATS, SavedPrompt, export_run, verify
from promptsearch.export.saved import write_saved
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import tiny_model

FACTS = {"Croatia": "Zagreb", "France": "Paris", "Port of": "Port of Spain"}
ANYWAY = (
    "{prompt} The capital of {name} is {answer}",
    "{prompt} The capital of {name} is {answer}\n",
)
CHAT = [{"user": "{prompt} The capital of {name}?"}, {"assistant": "{answer}"}]


def facts(template, lm, kind):
    bound = render(Template.parse(template), lm).bind(4).taking(kind)
    examples = tuple(
        Example(i, {"name": name}, bound.answer_text(capital), None)
        for i, (name, capital) in enumerate(FACTS.items())
    )
    return bound, Split("search", examples)


def trained(lm, template):
    """Weights that know the facts, after some steps of Adam, and their scores."""
    bound, split = facts(template, lm, "weights")
    engine = Engine(lm, bound, split, None)
    numbers = {n: t.clone().requires_grad_() for n, t in engine.weights.tensors.items()}
    optimizer = torch.optim.Adam(numbers.values(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = engine.loss(numbers, np.arange(len(FACTS)))
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    prompt = Weights({name: tensor.detach() for name, tensor in numbers.items()})
    scores = engine.score([prompt], np.arange(len(FACTS)))
    saved = SavedPrompt(
        prompt=prompt,
        template=bound,
        choices=None,
        decoding=Decoding(tokens=12),
        about={"model": lm.facts},
        probe=split.examples,
        losses=tuple(scores.losses[0].tolist()),
    )
    return saved, scores


@pytest.mark.parametrize("template", [*ANYWAY, CHAT], ids=["token", "line", "chat"])
def test_apply_gives_the_answers_that_were_learned_and_nothing_behind(tmp_path, template):
    lm = LanguageModel(*tiny_model("llama"), name="tiny")
    saved, scores = trained(lm, template)
    assert scores.metric.all(), "the facts were learned, and their ends"
    rows = [{"name": name} for name in FACTS]
    assert [row["answer"] for row in saved.apply(rows, lm)] == list(FACTS.values())
    (tmp_path / "a").mkdir()
    write_saved(saved, lm, tmp_path / "a")
    again = load_prompt(tmp_path / "a")
    assert [row["answer"] for row in again.apply(rows, lm)] == list(FACTS.values())
    assert (again.decoding, again.template) == (saved.decoding, saved.template)
    model = PromptedModel(lm, again)
    assert [text.strip() for text in model.generate(rows)] == list(FACTS.values())
    given = [{"name": name, "answer": answer} for name, answer in FACTS.items()]
    assert model.score(given) == pytest.approx(scores.losses[0], abs=1e-5)


def test_without_an_end_in_the_loss_it_would_go_on(tmp_path):
    """What the sentence behind teaches: the same answers, and no end."""
    lm = LanguageModel(*tiny_model("llama"), name="tiny")
    saved, _ = trained(lm, "{prompt} The capital of {name} is {answer}. The")
    open_ended = replace(saved, template=replace(saved.template, end=""))
    rows = [{"name": name} for name in FACTS]
    said = [row["answer"] for row in open_ended.apply(rows, lm)]
    assert [text.partition(". The")[0] for text in said] == list(FACTS.values())
    assert all(len(text) > len(fact) for text, fact in zip(said, FACTS.values(), strict=True))
    assert [row["answer"] for row in saved.apply(rows, lm)] == list(FACTS.values())


def saved_text(lm, template, **changes):
    bound, split = facts(template, lm, "slots")
    examples = tuple(replace(e, also=(" Rome",) * (e.id % 2)) for e in split.examples)
    prompt = TextPrompt("Answer with one word.")
    losses = Engine(lm, bound, Split("search", examples), None).score([prompt], np.arange(3)).losses
    return SavedPrompt(
        prompt=prompt,
        template=bound,
        choices=None,
        about={"model": lm.facts},
        probe=examples,
        losses=tuple(losses[0].tolist()),
        **changes,
    )


@pytest.mark.parametrize("to", ["json", "text", "kv", "peft", "vllm"])
@pytest.mark.parametrize("template", [*ANYWAY, CHAT], ids=["token", "line", "chat"])
def test_every_format_scores_answers_with_their_ends_and_all_references(lm, tmp_path, template, to):
    saved = saved_text(lm, template, decoding=Decoding(tokens=7))
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    folder = export_run(tmp_path / "best", to, tmp_path / to, model=lm)
    assert verify(folder, lm).same
    assert FORMATS[to].score(saved, lm, folder) == pytest.approx(saved.losses, abs=1e-5)
    name = "prompt.json" if to == "json" else "certificate.json"
    data = json.loads((folder / name).read_text())
    assert data["end_token"] == saved.template.end_token == "<|end|>"
    assert data["decoding"]["tokens"] == 7 and data["probe"][1]["also"] == [" Rome"]
    data["end_token"] = "<|pad|>"
    (folder / name).write_text(json.dumps(data))
    assert verify(folder, lm).same == bool(saved.template.end), "the stored end is what counts"
    data.pop("end_token")
    (folder / name).write_text(json.dumps(data))
    with pytest.raises(PromptError, match="whose text answers had no end"):
        verify(folder, lm)


def test_a_later_tokenizer_changes_nothing(tmp_path):
    model, tokenizer = tiny_model("llama")
    lm = LanguageModel(model, tokenizer, name="tiny")
    saved = saved_text(lm, CHAT)
    (tmp_path / "a").mkdir()
    write_saved(saved, lm, tmp_path / "a")
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|pad|>{% endfor %}"
    tokenizer.eos_token = "<|pad|>"
    assert verify(tmp_path / "a", LanguageModel(model, tokenizer, name="tiny")).same


@pytest.mark.parametrize("normalise", ["none", "bytes"])
def test_options_of_rows_are_chosen_in_use(lm, tmp_path, normalise):
    bound, split = facts(ANYWAY[0], lm, "slots")
    options = (" Zagreb", " Paris", " Port of Spain")
    examples = tuple(
        replace(e, options=options[: 2 + e.id % 2], answer=options[e.id % 2], choice=e.id % 2)
        for e in split.examples
    )
    prompt = TextPrompt("Answer with one word.")
    engine = Engine(lm, bound, Split("search", examples), None, normalise=normalise)
    scores = engine.score([prompt], np.arange(3))
    saved = SavedPrompt(
        prompt=prompt,
        template=bound,
        choices=None,
        options="cities",
        normalise=normalise,
        about={"model": lm.facts},
        probe=examples,
        losses=tuple(scores.losses[0].tolist()),
    )
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    for to in ("json", "kv", "text"):
        assert verify(export_run(tmp_path / "best", to, tmp_path / to, model=lm), lm).same
    rows = [
        {**e.fields, "cities": [o.strip() for o in e.options], "answer": e.answer.strip()}
        for e in examples
    ]
    again = load_prompt(tmp_path / "json")
    assert PromptedModel(lm, again).score(rows) == pytest.approx(scores.losses[0], abs=1e-5)
    for row, choices in zip(again.apply(rows, lm), scores.choices[0], strict=True):
        shares = np.exp(choices[~np.isnan(choices)])
        assert list(row["probabilities"].values()) == pytest.approx(shares, abs=1e-5)
        assert row["answer"] == options[int(shares.argmax())].strip()
    for cities in (None, ["one"], ["a", "a"], [["a"], "b"], ["", "a"]):
        with pytest.raises(PromptError, match="input 1: .*'cities'"):
            list(again.apply([{"name": "x", "cities": cities}], lm))


@pytest.mark.parametrize("normalise", ["none", "characters"])
def test_a_study_of_multiple_choice_is_applied_as_it_was_reported(tiny, tmp_path, normalise):
    """On the rows of the data as they are: the export knows the field that lists their answers."""
    cities = ["Zagreb", "Paris", "Port of Spain", "Rome"]
    data = [
        {"name": f"{n} {i}", "asked": {"cities": cities[: 2 + i % 3]}, "right": i % 2}
        for i in range(8)
        for n in FACTS
    ]
    task = Task.from_rows(
        data,
        template=ANYWAY[0],
        label="right",
        answers={"field": "asked.cities"},
        splits={"search": 8, "select": 8, "test": 8},
        normalise=normalise,
        name="choices",
    )
    given = {"budget": 6_000, "seeds": 1, "score_on": 4, "length": 2}
    strategies = ["random", {"prompt_tuning": {"interval": 2, "batch": 4, "rate": 0.1}}]
    results = compare(
        {**given, "strategies": strategies}, out=tmp_path / "s", model=tiny, task=task
    )
    assert not results.failed and len(results.runs) == 2
    tests = {e.fields["name"]: e for e in task.splits["test"].examples}
    rows = [row for row in data if row["name"] in tests]
    for run in results.runs:
        saved = load_prompt(tmp_path / "s" / "choices" / run.label / "seed0")
        assert saved.options == "asked.cities" and saved.normalise == normalise
        assert verify(tmp_path / "s" / "choices" / run.label / "seed0", tiny).same
        said = [row["answer"] for row in saved.apply(rows, tiny)]
        right = [s == tests[row["name"]].answer.strip() for s, row in zip(said, rows, strict=True)]
        assert np.mean(right) == run.test.metric


def capitals(template, splits):
    data = [{"name": f"{n} {i}", "capital": c} for i in range(8) for n, c in FACTS.items()]
    return Task.from_rows(data, template=template, label="capital", splits=splits, name="capitals")


def test_a_study_of_before_is_not_extended(tiny, tmp_path):
    """Its answers had no end: its losses mean something else."""
    given = {"budget": 4_000, "seeds": 1, "score_on": 4, "length": 2, "strategies": ["random"]}
    task = capitals(ANYWAY[0], {"search": 8, "select": 8, "test": 8})
    results = compare(given, out=tmp_path / "s", model=tiny, task=task)
    path = tmp_path / "s" / "study.json"
    assert results.study.tasks["capitals"].end == "<|end|>"
    from promptsearch.records.sealed import read_record, write_record

    data = read_record(path, "study", "")
    data["tasks"]["capitals"].pop("end")
    write_record(path, "study", data)
    with pytest.raises(
        StudyError, match="the end of an answer was not scored, now it is '<|end|>'"
    ):
        compare({**given, "seeds": 2}, out=tmp_path / "s", model=tiny, task=task)
    lined = capitals(ANYWAY[1], {"search": 8, "select": 8, "test": 8})
    results = compare(given, out=tmp_path / "l", model=tiny, task=lined)
    assert results.study.tasks["capitals"].end == "\n"
