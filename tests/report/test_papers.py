"""Beside the papers: what a run took here, and what it takes in its paper."""

import inspect
import re

import pytest

from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.report import load_results
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.search.listing import known_strategies
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.strategies.random import Random
from promptsearch.testing.planted import planted_objective

PAPERS = {
    "p_tuning": {"count": 30_000, "unit": "steps", "told": "of 32 | (section 3)"},
    "evolution": {"count": 8_000, "unit": "prompts", "told": "calls"},
}

#: Strategies that name a paper and no number of its prompts or steps, and why.
WITHOUT = {
    "bayesian": "the paper optimises other functions",
    "calibrated": "nothing is searched",
    "coordinate": "the paper optimises other functions",
    "cpt": "neither paper nor code that says it is at hand",
    "distil": "the papers train on documents of any size",
    "distil_prefix": "the paper trains on documents of any size",
    "exemplars": "nothing is searched",
    "exemplars_nearest": "nothing is searched",
    "joint": "CAPO counts tokens; with `method: tpe` it says what MIPROv2 takes",
    "layernorm_tuning": "the paper trains on images",
    "multitask_prompt_tuning": "neither paper nor code that says it is at hand",
    "nearest_tokens": "nothing is searched",
    "optuna": "the papers optimise other functions",
    "prefix_tuning_plus": "neither paper nor code that says it is at hand",
    "reflect": "the paper counts single answers",
}


def test_each_row_whose_paper_says_so_is_held_beside_it(make_study):
    study = make_study().fill()
    for label, paper in PAPERS.items():
        for seed in range(3):
            made = study.result("reviews", label, seed)
            study.write({**made, "proposals": 150 + 3 * seed, "paper": paper})
    results = load_results(study.folder)
    told = to_markdown(results)
    assert "| `p_tuning` | 64 steps | 0.21 % | 30,000 steps: of 32 \\| (section 3) |" in told
    assert "| `evolution` | 153 prompts | 1.9 % | 8,000 prompts: calls |" in told
    assert "- **share**:" in told and "- **in its paper**:" in told
    page = to_html(results)
    assert "<td>153 prompts</td><td>1.9 %</td><td>8,000 prompts: calls</td>" in page


@pytest.mark.parametrize(
    ("proposals", "count", "cells"),
    [
        (1, 256_000, "1 prompt | \\< 0.001 % | 256,000 prompts"),
        (0, 50, "0 prompts | 0 % | 50 prompts"),
        (12_345, 110, "12,345 prompts | 112 times | 110 prompts"),
        (2, 1, "2 prompts | 200 % | 1 prompt"),
    ],
)
def test_counts_have_commas_and_their_unit(make_study, proposals, count, cells):
    study = make_study().fill()
    for seed in range(3):
        made = study.result("reviews", "evolution", seed)
        paper = {"count": count, "unit": "prompts", "told": "calls"}
        study.write({**made, "proposals": proposals, "paper": paper})
    assert f"| `evolution` | {cells}: calls |" in to_markdown(load_results(study.folder))


def test_older_records_have_no_such_part(make_study):
    results = load_results(make_study().fill().folder)
    assert "papers" not in to_markdown(results) and "Beside the papers" not in to_html(results)


def test_each_strategy_that_names_a_paper_says_what_that_takes():
    """Or stands above, with the reason."""
    silent = set()
    for name in known_strategies():
        strategy = find_strategy(name)
        source = inspect.getmodule(strategy).__doc__
        if strategy.paper is None and re.search(r"arXiv:|aclanthology|doi\.org", source):
            silent.add(name)
        if strategy.paper is not None:  # with the place where it stands
            assert re.search(r"\(section|script|code|README", strategy.paper.told), name
    assert silent == set(WITHOUT)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("llm_proposed", {}, 90),
        ("llm_proposed", {"method": "opro"}, 1_600),
        ("joint", {}, None),
        ("joint", {"method": "tpe"}, 50),
        ("prefix_tuning", {}, 21_035),
        ("prefix_tuning", {"reparametrise": False}, 7_800),
        ("prune", {}, 10_000),
        ("prune", {"method": "greedy"}, None),
        ("p_tuning", {}, 10_000),
        ("p_tuning_lm", {}, 3_500),
    ],
)
def test_the_paper_is_that_of_the_method(name, options, count):
    made = make_strategy(name, find_strategy(name), planted_objective(), 0, options)
    assert (None if made.paper is None else made.paper.count) == count


@pytest.mark.parametrize("paper", ["8,000", Paper(0, "prompts", "none"), Paper(5, "calls", "five")])
def test_what_is_no_paper_is_refused_before_the_search(paper):
    class Wrong(Random):
        def __init__(self, objective, *, seed):
            super().__init__(objective, seed=seed)
            self.paper = paper

    with pytest.raises(StrategyError, match=r"Wrong\(\)\.paper is .*: write Paper\(8_000"):
        make_strategy("wrong", Wrong, planted_objective(), 0, {})
