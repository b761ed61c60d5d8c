"""The examples in the docstrings of strategies run as they stand there."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["bayesian", "bdpl", "genetic"])
def test_the_example_at_the_top_of_the_file_runs(name):
    result = doctest.testmod(importlib.import_module(f"promptsearch.strategies.{name}"))
    assert result.attempted >= 4 and result.failed == 0
