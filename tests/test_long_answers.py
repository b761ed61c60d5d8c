"""Choices of many tokens: the best prompt of a study is not lost to what float32 cannot hold."""

from __future__ import annotations

import json
import random

import pytest
import yaml
from typer.testing import CliRunner

from promptsearch import Task, compare
from promptsearch.cli import app
from promptsearch.export import verify

SHORT = (" a weak evening at the pictures", " a strong evening at the pictures")
LONG = (
    (
        f"{SHORT[0]}, and the reviewer would rather have stayed at home with a book, a blanket, "
        "two cats and the crossword from"
    ),
    (
        f"{SHORT[1]}, and the reviewer has already rung three cousins, one dentist and a retired "
        "ferry captain to say that they must"
    ),
)


def reviews():
    """24 short ones, all different."""
    rng = random.Random(3)
    parts = (
        "plot",
        "cast",
        "script",
        "score",
        "pacing",
        "lighting",
        "ending",
        "humour",
        "dialogue",
        "camera work",
    )
    words = (
        ("dull", "weak", "tired", "clumsy", "flat"),
        ("bright", "strong", "fresh", "deft", "rich"),
    )
    found: dict[str, int] = {}
    while len(found) < 24:
        y = rng.randrange(2)
        first, second = (
            f"the {rng.choice(parts)} {verb} {rng.choice(words[y])}" for verb in ("was", "felt")
        )
        found[f"{first} and {second}"] = y
    return [{"text": text, "label": label} for text, label in found.items()]


@pytest.mark.parametrize("answers", [SHORT, LONG])
def test_a_run_keeps_its_export(tiny, tmp_path, answers):
    task = Task.from_rows(
        reviews(),
        template="{prompt} {text}. It was{answer}",
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": 8, "select": 8, "test": 8},
        name="films",
    )
    soft = {"prompt_tuning": {"interval": 4, "batch": 4, "rate": 0.05}}
    given = {"budget": 20_000, "length": 2, "seeds": 3, "strategies": ["random", soft]}
    results = compare(given | {"name": "s"}, out=tmp_path, model=tiny, task=task)
    assert (
        len(results.runs) == 6
        and not results.failed
        and not any(run.export for run in results.runs)
    )
    for run in results.runs:
        assert verify(tmp_path / "films" / run.label / f"seed{run.seed}", tiny).same


@pytest.mark.real
def test_so_does_one_of_the_real_model(tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews()))
    given = {
        "name": "long-choices",
        "model": "smollm2-135m-instruct",
        "task": {
            "data": {"path": "data.jsonl"},
            "template": "{prompt} {text}. It was{answer}",
            "label": "label",
            "answers": dict(enumerate(LONG)),
            "splits": {"search": 4, "select": 4, "test": 4},
        },
        "length": 2,
        "pool": 500,
        "budget": 3_000,
        "dtype": "float32",
        "seeds": 1,
        "strategies": ["random", "prompt_tuning"],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(given))
    found = CliRunner().invoke(
        app, ["compare", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--quiet"]
    )
    assert found.exit_code == 0 and "no export" not in found.output
    runs = {
        strategy: next((tmp_path / "out").glob(f"*/{strategy}/seed0"))
        for strategy in ("random", "prompt_tuning")
    }
    for strategy, to in (
        ("random", "vllm"),
        ("prompt_tuning", "peft"),
    ):
        out = tmp_path / to
        command = ["export", str(runs[strategy]), "--to", to, "--out", str(out)]
        assert CliRunner().invoke(app, command).exit_code == 0, to
