"""Choices of many tokens: the best prompt of a study is not lost to what float32 cannot hold."""

from __future__ import annotations

import random

import pytest

from promptsearch import Task, compare
from promptsearch.export import export_run, verify

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


def films(answers, size):
    """A task of choice between two long answers, with so many examples a split."""
    return Task.from_rows(
        reviews(),
        template="{prompt} {text}. It was{answer}",
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": size, "select": size, "test": size},
        name="films",
    )


@pytest.mark.parametrize("answers", [SHORT, LONG])
def test_a_run_keeps_its_export(tiny, tmp_path, answers):
    task = films(answers, 8)
    soft = {"prompt_tuning": {"interval": 4, "batch": 4, "rate": 0.05}}
    given = {"budget": 20_000, "length": 2, "seeds": 2, "strategies": ["random", soft]}
    results = compare(given | {"name": "s"}, out=tmp_path, model=tiny, task=task)
    assert (
        len(results.runs) == 4
        and not results.failed
        and not any(run.export for run in results.runs)
    )
    for run in results.runs:
        assert verify(tmp_path / "films" / run.label / f"seed{run.seed}", tiny).same


@pytest.mark.real
def test_so_does_one_of_the_real_model(real, tmp_path):
    given = {"name": "long-choices", "length": 2, "pool": 500, "budget": 3_000, "seeds": 1}
    given |= {"dtype": "float32", "strategies": ["random", "prompt_tuning"]}
    results = compare(given, out=tmp_path / "out", model=real, task=films(LONG, 4))
    assert len(results.runs) == 2 and not any(run.export for run in results.runs)
    for strategy, to in (("random", "vllm"), ("prompt_tuning", "peft")):
        export_run(tmp_path / "out/films" / strategy / "seed0", to, tmp_path / to, model=real)
