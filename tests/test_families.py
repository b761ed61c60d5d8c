"""What every family of models must keep: laws, resume and planted objectives, on tiny models.

One more family is one more line in `promptsearch.testing.families.FAMILIES`.
"""

import numpy as np
import pytest
import torch

from promptsearch import compare
from promptsearch.export import load_prompt
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring.protocol import price_of
from promptsearch.search import loop
from promptsearch.search.bill import check_bill
from promptsearch.search.books import books_of
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.coordinate import Coordinate
from promptsearch.strategies.gcg import GCG
from promptsearch.strategies.prefix_tuning import PrefixTuning
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES, TEMPLATE, PlantedAnswers
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.searched import random_search
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

EVERYTHING = np.arange(12)
MODELS = {name: LanguageModel(*made(), name=name) for name, made in FAMILIES.items()}


@pytest.fixture(params=MODELS)
def lm(request):
    return MODELS[request.param]


# The conformance suite of strategies, on a model of each family.

#: What meets a model in ways of its own: words by scores, words by gradients, vectors, keys.
MEETING = {
    Coordinate: ({}, "slots"),
    GCG: ({"batch": 4}, "slots"),
    PromptTuning: ({"interval": 2, "batch": 4}, "slots"),
    PrefixTuning: ({"interval": 2, "batch": 4, "hidden": 4}, "prefix"),
}


class OnAFamily(StrategyConformance):
    planted = None
    few = 12
    # What no model makes harder.
    test_every_option_is_documented = None
    test_finds_the_best_of_a_hundred_prompts = None
    test_beats_random_on_its_planted_objective = None
    test_says_what_it_beats_random_on = None
    # No prompt fails on these models.
    test_goes_on_where_prompts_fail = None

    def searched(self, kind="separable", *, pool=100, length=4, failing=0.0):
        return PlantedAnswers(self.lm, pool=pool, length=length, kind=self.kind)


for strategy, (options, kind) in MEETING.items():
    for family, lm_of in MODELS.items():
        name = f"Test{strategy.__name__}On{family.title().replace('-', '')}"
        own = {"strategy": strategy, "options": options, "kind": kind, "lm": lm_of}
        globals()[name] = type(name, (OnAFamily,), own)
