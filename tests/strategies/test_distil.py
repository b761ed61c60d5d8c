"""Distil: the conformance suite, what teaches, what is learned, and what is paid for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch import PrefixPrompt, SoftPrompt, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.search.books import books_of
from promptsearch.strategies.distil import Distil, DistilPrefix
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class Taught(StrategyConformance):
    """The planted prompt teaches, with other words around it."""

    options = {"interval": 2, "batch": 4}

    def start(self, objective, seed):
        ids = PlantedScorer("separable", seed=seed).optimum.ids
        return TextPrompt(" ".join(f"w{i}" for i in (*ids, *range(8))))


class TestVectors(Taught):
    strategy = Distil
    options = {"interval": 2, "batch": 4, "rate": 0.05}


class TestPrefix(Taught):
    strategy = DistilPrefix


class TestExemplars(StrategyConformance):
    strategy = Distil
    options = {"interval": 2, "batch": 4, "shots": 2}
    planted = None  # examples of a planted landscape are no good teacher
