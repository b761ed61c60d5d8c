"""A study that several processes can make: its model and data lie in a folder."""

from __future__ import annotations

import json

import pytest
import yaml

from promptsearch import compare
from promptsearch.study.config import load_config, parse_config
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.tiny import tiny_model

STRATEGIES = [
    {"random": {"batch": 4}},
    {"manual": {"prompts": ["good movie?"]}},
    {"prompt_tuning": {"interval": 2, "batch": 4, "start": {"run": "random"}}},
    {"black_box_tuning": {"dimensions": 4}},
]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with a tiny model, data and a study file of seven runs."""
    home = tmp_path_factory.mktemp("home")
    for part in tiny_model("llama"):
        part.save_pretrained(home / "model")
    rows = [
        {"text": f"a {word} movie number {n}", "label": word}
        for n in range(20)
        for word in ("good", "bad")
    ]
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "name": "several",
        "model": "./model",
        "task": {
            "name": "several",
            "data": {"path": "rows.jsonl"},
            "template": "{prompt} {text} It was{answer}",
            "label": "label",
            "answers": {"good": " good", "bad": " bad"},
            "splits": {"search": 16, "select": 8, "test": 8},
        },
        "length": 2,
        "budget": 4000,
        "score_on": 4,
        "seeds": 2,
        "memory": "1MB",
        "strategies": STRATEGIES,
    }
    (home / "study.yaml").write_text(yaml.safe_dump(settings))
    return home


@pytest.fixture(scope="session")
def alone(home, tmp_path_factory):
    """The results of one process with one thread."""
    folder = tmp_path_factory.mktemp("alone")
    compare(load_config(home / "study.yaml", ["threads=1"]), out=folder)
    return without_times(results_of(folder))


@pytest.fixture(scope="session")
def study(home):
    """Makes the study with some of its keys changed."""

    def changed(**changes):
        settings = yaml.safe_load((home / "study.yaml").read_text())
        return parse_config({**settings, **changes}, folder=home)

    return changed
