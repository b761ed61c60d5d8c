"""A finished study, called again: told from what its folder holds, without its model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from promptsearch import LanguageModel, compare
from promptsearch.report import load_results
from promptsearch.study.config import load_config
from promptsearch.study.finished import FINISHED, is_finished, made_of, note_finished
from promptsearch.testing.tiny import tiny_model

ROWS = [
    {"text": f"a {word} movie number {n}", "label": word}
    for n in range(10)
    for word in ("good", "bad")
]
SETTINGS = {
    "name": "done",
    "model": "./model",
    "task": {
        "name": "done",
        "data": {"path": "rows.jsonl"},
        "template": "{prompt} {text} It was{answer}",
        "label": "label",
        "answers": {"good": " good", "bad": " bad"},
        "splits": {"search": 8, "select": 4, "test": 4},
    },
    "length": 2,
    "budget": 3000,
    "seeds": 1,
    "score_on": 4,
    "strategies": [{"manual": {"prompts": ["good movie?"], "empty": False}}, "random"],
}
#: Runs a command, and says what it imported.
COMMAND = """
import sys
from promptsearch.cli import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    print(ended.code)
print([m for m in ("torch", "transformers", "datasets", "pandas", "matplotlib") \
if m in sys.modules])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with model, data, study file and, in `out`, the finished study."""
    home = tmp_path_factory.mktemp("made")
    for part in tiny_model("llama"):
        part.save_pretrained(home / "model")
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (home / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    compare(home / "study.yaml", out=home / "out")
    return home


@pytest.fixture
def home(made, tmp_path):
    """A copy of it that may be changed; where it was made, it would be finished."""
    shutil.copytree(made, tmp_path / "home")  # the times of files are copied, too
    config = load_config(tmp_path / "home" / "study.yaml")
    note_finished(load_results(tmp_path / "home" / "out"), config, made_of(config))
    assert is_finished(tmp_path / "home" / "out", config)
    return tmp_path / "home"


def test_a_finished_study_is_shown_without_torch(made):
    command = [sys.executable, "-c", COMMAND, "compare", "study.yaml", "--out", "out"]
    before = {path: path.read_bytes() for path in (made / "out").rglob("*.*") if path.is_file()}
    done = subprocess.run(command, cwd=made, capture_output=True, text=True)
    *shown, imported = done.stdout.splitlines()
    assert imported == "[]", done.stderr
    assert any(line.startswith("random") for line in shown) and shown[-1] == "0"
    assert "all runs were made in an earlier call" in done.stderr
    assert before == {p: p.read_bytes() for p in (made / "out").rglob("*.*") if p.is_file()}


def _touched(path):
    os.utime(path, ns=(0, 0))


def _removed(path):
    path.unlink()


@pytest.mark.parametrize(
    ("changed", "how"),
    [
        ("rows.jsonl", _touched),
        ("model/model.safetensors", _touched),
        ("model/config.json", _touched),
        ("out/report.html", _removed),
        ("out/done/random/seed0/result.json", _removed),
        ("out/done/random/seed0/best/prompt.json", _removed),
        ("out/finished.json", lambda path: path.write_text(path.read_text().replace("0", "1"))),
    ],
    ids=["data", "weights", "config", "report", "run", "export", "note"],
)
def test_whatever_was_changed_is_looked_at(home, changed, how):
    how(home / changed)
    assert not is_finished(home / "out", load_config(home / "study.yaml"))


def test_what_was_changed_while_the_study_ran_is_looked_at(home):
    config = load_config(home / "study.yaml")
    compare(config, out=home / "new", progress=lambda _: _touched(home / "rows.jsonl"))
    assert not is_finished(home / "new", config)


def test_another_study_on_the_same_folder_is_made(home, monkeypatch):
    config = load_config(home / "study.yaml", ["seeds=2"])
    assert not is_finished(home / "out", config)
    found = compare(config, out=home / "out")
    assert {(run.label, run.seed) for run in found.runs} == {
        ("manual", 0),
        ("random", 0),
        ("random", 1),
    }
    monkeypatch.setattr(LanguageModel, "load", None)
    assert compare(config, out=home / "out") == found


def test_a_study_of_what_may_change_out_of_sight_is_always_looked_at(home):
    changes = {
        "the Hub's data": ["task.data={hub: owner/name}"],
        "a model of the Hub": ["model=owner/name"],
        "a proposer of the Hub": ["proposer=owner/name"],
        "a server": ["model={endpoint: 'http://127.0.0.1:1', model: m, tokenizer: ./model}"],
        "somebody's metric": ["task.metric=mine:measure"],
    }
    for what, overrides in changes.items():
        config = load_config(home / "study.yaml", overrides)
        note_finished(load_results(home / "out"), config, made_of(config))
        assert not (home / "out" / FINISHED).exists(), what
    failed = home / "out" / "done" / "random" / "seed0" / "result.json"
    failed.unlink()
    config = load_config(home / "study.yaml")
    note_finished(load_results(home / "out"), config, made_of(config))
    assert not (home / "out" / FINISHED).exists()
