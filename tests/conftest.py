"""What several tests share: a tiny study that runs in seconds, and a cache of its own for each test."""

from __future__ import annotations

import pytest
import torch

from promptsearch.model import LanguageModel
from promptsearch.task import Task
from promptsearch.testing.tiny import tiny_model

torch.set_num_threads(1)  # tests run in parallel, and numbers must not depend on how many there are


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test sees the user's cache or another test's; a downloaded model may stay where it is."""
    monkeypatch.setattr("promptsearch.study.cache_folder", lambda: tmp_path_factory.mktemp("cache"), raising=False)


@pytest.fixture(scope="session")
def tiny():
    """A tiny Llama."""
    return LanguageModel(*tiny_model("llama"), name="tiny-llama")


@pytest.fixture(scope="session")
def films():
    """A task of choice with a little structure."""
    parts = ["good film", "the story", "I hate", "capital"]
    rows = [{"text": " ".join(parts[i % 4 :] * (1 + i % 3)) + f" {i}", "label": i % 2} for i in range(120)]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 40, "select": 16, "test": 20},
        name="films",
    )
