"""Ensembles of the seeds: what the report says of one, by hand and by its use."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import LanguageModel, PromptedModel, Task, compare, load_prompt
from promptsearch.cli import prompts as cli
from promptsearch.errors import PromptError
from promptsearch.export.ensemble import Ensemble, is_row, load_ensemble
from promptsearch.records.load import load_results
from promptsearch.records.slim import write_slim
from promptsearch.report.ensembles import cells, ensemble_of, together
from promptsearch.report.summary import summarise
from promptsearch.testing.families import FAMILIES

#: The answers of a task of two choices, and of one of three.
ANSWERS = {"two": ("bad", "good"), "three": ("very bad", "good", "capital")}


@pytest.fixture(scope="module")
def small():
    return LanguageModel(*FAMILIES["causal"](), name="small")


@pytest.fixture(scope="module", params=ANSWERS)
def study(request, small, tmp_path_factory):
    """A row of three seeds: its folder, the task, and what was found."""
    answers = ANSWERS[request.param]
    texts = ["good film", "the story", "I hate", "capital", "a movie"]
    task = Task.from_rows(
        [{"text": f"{texts[i % 5]} {i}", "label": i % len(answers)} for i in range(60)],
        template="{prompt} {text} It was {answer}",
        label="label",
        answers=dict(enumerate(answers)),
        metric="balanced_accuracy",
        splits={"search": 16, "select": 8, "test": 24},
        name="films",
    )
    given = {"name": "s", "budget": 9_000, "score_on": 4, "seeds": 3, "length": 2}
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        results = compare(given | {"strategies": ["random"]}, out=out, model=small, task=task)
    return out / "films" / "random", task, results


def test_the_report_says_what_the_members_answer_together(study, small):
    folder, task, results = study
    (summary,) = summarise(results)
    ((row, found),) = together(summary)
    examples = task.splits["test"].examples
    rows = [dict(e.fields) for e in examples]
    told = list(load_ensemble(folder).apply(rows, small))
    members = [load_prompt(folder / f"seed{seed}") for seed in range(3)]
    alone = [list(each.apply(rows, small)) for each in members]
    recalls = {}
    for place, (example, row_told) in enumerate(zip(examples, told, strict=True)):
        names = list(row_told["probabilities"])
        mean = np.mean([[each[place]["probabilities"][n] for n in names] for each in alone], axis=0)
        np.testing.assert_allclose(list(row_told["probabilities"].values()), mean, atol=2e-6)
        assert row_told["answer"] == names[int(mean.argmax())]
        right = row_told["answer"] == example.answer.strip()
        recalls.setdefault(example.choice, []).append(right)
    answered = [{**row, "answer": e.answer} for row, e in zip(rows, examples, strict=True)]
    own = [PromptedModel(small, member).score(answered) for member in members]
    assert found.loss == pytest.approx(-np.log(np.exp(-np.array(own)).mean(0)).mean(), abs=1e-5)
    assert found.metric == pytest.approx(np.mean([np.mean(some) for some in recalls.values()]))
    label, count, *numbers = cells(row, found)
    assert (label, count) == ("random", "3") and numbers[0] == f"{found.metric:.3f}"
    assert found.loss <= row.loss.mean, "the mean of probabilities has no higher loss than theirs"


def test_a_slim_record_has_the_same_ensembles(study, tmp_path):
    folder, _, results = study
    (tmp_path / "study.json").write_bytes((folder.parents[1] / "study.json").read_bytes())
    write_slim(results.runs, "the command", tmp_path)
    kept = load_results(tmp_path)
    assert kept.runs == results.runs
    found = [together(*summarise(each))[0][1] for each in (results, kept)]
    assert found[0] == found[1]


def test_a_rows_folder_is_applied_as_an_ensemble(study, small, monkeypatch, capsys, tmp_path):
    folder, task, _ = study
    assert is_row(folder) and not is_row(folder / "seed0") and not is_row(folder.parent)
    monkeypatch.setattr(LanguageModel, "load", lambda *_: small)
    inputs = tmp_path / "inputs.jsonl"
    rows = [dict(e.fields) for e in task.splits["test"].examples[:3]]
    inputs.write_text("\n".join(map(json.dumps, rows)))
    cli.apply([str(folder)], str(inputs), "small")
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert written == list(load_ensemble(folder).apply(rows, small))


def test_an_older_record_tells_the_loss_alone_where_there_are_more_choices(study):
    _, task, results = study
    runs, info = results.runs, results.study.tasks["films"]
    old = [replace(run.test, probabilities=None) for run in runs]
    found, now = ensemble_of(old, info), ensemble_of([run.test for run in runs], info)
    assert found.loss == now.loss
    assert found.metric == (now.metric if len(task.choices) == 2 else None)
    assert ensemble_of([replace(each, labels=None) for each in old], info) is None


def test_a_tie_of_the_members_is_wrong(study):
    """Whichever place the right answer has: one that is as probable as another was not found."""
    _, task, results = study
    one, info = results.runs[0].test, replace(results.study.tasks["films"], metric="accuracy")
    labels = tuple(place % 3 for place in range(6))
    tied = [((0.1, 0.3, 0.6),) * 6, ((0.3, 0.6, 0.1),) * 6, ((0.6, 0.1, 0.3),) * 6]
    tests = [
        replace(one, labels=labels, probabilities=table, losses=(1.1,) * 6, metrics=())
        for table in tied
    ]
    assert ensemble_of(tests, info).metric == 0
    clear = replace(tests[0], probabilities=((0.1, 0.2, 0.7),) * 6)
    assert ensemble_of([*tests, clear], info).metric == pytest.approx(1 / 3)


def test_what_cannot_answer_together_is_refused(study, small, make_saved):
    members = [make_saved(small, "text", "{prompt} {text} It was{answer}", c) for c in _SETS]
    with pytest.raises(PromptError, match="at least two members, got 1"):
        Ensemble((members[0],))
    with pytest.raises(PromptError, match="must have the same answers to choose from"):
        Ensemble((members[0], members[1]))
    with pytest.raises(PromptError, match="the answers of these are text"):
        Ensemble((members[2], members[2]))


def test_a_wrong_input_is_counted_from_the_first_of_all(small, make_saved, monkeypatch):
    monkeypatch.setattr("promptsearch.export.ensemble.TOGETHER", 2)
    member = make_saved(small, "text", "{prompt} {text} It was{answer}", _SETS[0])
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c"}, {"body": "d"}]
    with pytest.raises(PromptError, match="input 4 lacks the field 'text'"):
        list(Ensemble((member, member)).apply(rows, small))


_SETS = ((" bad", " good"), (" bad", " capital"), None)
