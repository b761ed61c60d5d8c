"""The fuzzer of `make attack`: same inputs for the same seed, what it calls what came.

And a few inputs of each kind.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `attack` is run from the checkout, and is in no wheel

from attack import counts, damage, servers, tasks  # noqa: E402
from attack.__main__ import KINDS, make  # noqa: E402
from attack.case import CANARY, SUNG, Case, Ran, outcome  # noqa: E402
from promptsearch.study.drafting.draft import draft  # noqa: E402

#: The task -> what its study file says of its kind.
WRITTEN = {
    "reviews": "Is the comment favourable? Answer no or yes.",
    "continents": '"South America": "South America"',
    "few rows": "1: positive",
    "quiz": "Choose the right answer to the question.",
    "verbs": "metric: exact_match",
    "facts": "metric: bleu",
}


class Lab:
    """Stands in for the lab: no model, no studies."""

    def __init__(self, folder: Path) -> None:
        from attack.lab import Lab as Real

        (folder / "llama").mkdir()
        (folder / "llama/config.json").write_text("{}")
        (folder / "llama/model.safetensors").touch()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / "llama" / name).write_text('{"model": {"vocab": {}, "merges": []}}')
        self.folder, self.finished, self.interrupted, self.exports = folder, folder, [folder], {}
        self.study = Real.study.__get__(self)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def ran(code=0, out="", err="", hang=False):
    return Ran(["compare"], code, hang, out, err, 0.1)


@pytest.mark.parametrize(
    "kind", ["study_files", "protocols", "harness", "data", "models", "strategies"]
)
def test_the_same_seed_gives_the_same_inputs(kind, lab, tmp_path):
    for number in range(10):
        texts = []
        for again in ("a", "b"):
            folder = tmp_path / f"{kind}{number}{again}"
            folder.mkdir()
            case = make(lab, kind, 0, number)
            case.prepare(folder)
            texts.append(
                [
                    (p.name, p.read_bytes())
                    for p in sorted(folder.rglob("*"))
                    if p.is_file() and p.suffix != ".parquet"
                ]
            )
            shutil.rmtree(folder)
        assert texts[0] == texts[1], case.what
        assert case.row and case.commands


@pytest.mark.parametrize("given", tasks.GIVEN, ids=lambda given: given.name)
def test_a_study_of_each_kind_is_drafted_of_its_file(given, tmp_path):
    given.write(tmp_path / given.file)
    text = draft(tmp_path / given.file, tmp_path / "study.yaml").text
    assert WRITTEN[given.name] in text and "prompts: [" in text


def test_every_fault_has_a_generator():
    rows = "".join(path.read_text() for path in (ROOT / "attack").glob("*.py"))
    for number in range(1, 16):
        assert f'"{number} ' in rows, number
    assert set(KINDS) <= {path.stem for path in (ROOT / "attack").glob("*.py")}


@pytest.mark.parametrize(
    ("runs", "called"),
    [
        ([ran(2, err="error: no")], "clear"),
        ([ran(1, err="Traceback (most recent call last):\n  x\nValueError: x")], "traceback"),
        ([ran(-9, hang=True)], "hang"),
        ([ran(-15)], "died"),
        ([ran(2, err="error: \x1b[31mx")], "escape"),
        ([ran(2)], "silent"),
        ([ran(70, err="x")], "silent"),
        ([ran(0, out="key-of-mine")], "secret"),
        ([ran(0), ran(0, out="told")], "contradiction"),
    ],
)
def test_what_came_has_a_name(runs, called, tmp_path):
    case = Case(
        "x",
        "x",
        [],
        secrets=["key-of-mine"],
        judge=lambda _, ran: "other numbers" if ran[-1].out == "told" else None,
    )
    assert outcome(case, tmp_path, runs)[0] == called


def test_code_that_ran_and_secrets_in_files_are_seen(tmp_path):
    (tmp_path / "x.json").write_text("key-of-mine")
    assert outcome(Case("x", "x", [], secrets=["key-of-mine"]), tmp_path, [ran()])[0] == "secret"
    (tmp_path / SUNG).touch()
    assert outcome(Case("x", "x", []), tmp_path, [ran()])[0] == "code run"
    assert CANARY


def test_edits_change_one_place_and_may_be_no_json_that_python_writes():
    data = {"a": [1, 2.5, True], "b": {"c": "x"}}
    found = [damage.edit(data, random.Random(seed)) for seed in range(200)]
    assert data == {"a": [1, 2.5, True], "b": {"c": "x"}}
    assert (
        sum(damage.to_text(new) != json.dumps(data) for _, new in found) > 190
    )  # a value may be replaced by itself


def test_the_honest_server_answers_as_the_api_does():
    answer = servers.honest({"prompt": "a good film", "echo": True})
    found = answer["choices"][0]["logprobs"]
    assert "".join(found["tokens"]) == "a good film" and found["token_logprobs"][0] is None
    assert (
        len(found["tokens"])
        == len(found["token_logprobs"])
        == len(found["top_logprobs"])
        == answer["usage"]["prompt_tokens"]
    )


def test_counts_keep_the_first_of_faults_that_look_alike(tmp_path):
    one = {
        "row": "7 x",
        "what": "w",
        "outcome": "traceback",
        "line": "KeyError: 'a'",
        "seconds": 1.0,
    }
    found = [
        {**one, "input": 0},
        {**one, "input": 1, "line": "KeyError: 'b'"},
        {**one, "input": 2, "outcome": "clear"},
    ]
    known = counts.counted("folders", found, 0, 3, tmp_path)
    assert known["outcomes"] == {"traceback": 2, "clear": 1}
    assert [(fault["input"], fault["alike"]) for fault in known["faults"]] == [(0, 2)]
    counts.keep(tmp_path, "folders", known)
    assert "| folders | 3 | 1 |" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "counts.json").read_text())["folders"]["inputs"] == 3
