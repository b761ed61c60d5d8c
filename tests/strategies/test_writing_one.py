"""The example in the folder's docstring is a strategy that passes the suite."""

import inspect
import re
import sys
import textwrap
from types import ModuleType

import promptsearch.strategies
from promptsearch.testing.conformance import StrategyConformance

HEADER = """
from collections.abc import Sequence
import numpy as np
from promptsearch import Objective, Prompt, Strategy
from promptsearch.search.options import Count
"""


def written() -> ModuleType:
    doc = inspect.getdoc(promptsearch.strategies)
    (code,) = re.findall(r"How to write one:\n\n((?: {4}.*\n|\n)+)", doc)
    text, body = re.fullmatch(
        r'("""[^"]*""")(.*)', textwrap.dedent(code).strip(), re.DOTALL
    ).groups()
    module = ModuleType("hill_climbing")
    sys.modules["hill_climbing"] = module
    exec(text + HEADER + body, module.__dict__)
    return module


class TestHillClimbing(StrategyConformance):
    strategy = written().HillClimbing
    planted = "separable"
