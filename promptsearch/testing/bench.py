"""Every strategy against random search, over many seeds, where the best prompt is known.

Two kinds of ground: planted objectives, where each seed is another landscape, and a table of a real
model's scores, where each seed is another search. The yardstick is the regret: what is left of the
way from the median prompt of the space to the best one, so that 0 is the optimum and 1 is chance.
"""

from __future__ import annotations

import inspect
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter, ValidationError

from promptsearch.errors import PromptSearchError, StudyError
from promptsearch.plain.yaml import read_yaml
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.ledger import total
from promptsearch.search.listing import known_strategies
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.search.strategy import Access, Strategy
from promptsearch.study.settings.strategy import OneStrategy
from promptsearch.testing.ground import Ground, median_loss

#: The floor, and how near to the optimum is near, as shares of the way from the median prompt.
RANDOM = "random"
NEAR = (0.05, 0.01)


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Args:
        label: The name of the line.
        name: The strategy's name.
        options: Its options, as in a study file.
    """

    label: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One search.

    Args:
        ground: The name of the ground.
        label: The label of the row.
        seed: The seed of the search, and of a planted objective.
        evaluations: Prompts on all examples that the budget buys.
        regret: What is left from the best prompt to the optimum, as a share of the way from the
            median prompt; NaN where the search failed.
        nats: The same in nats.
        near5: Tokens, in prices of an evaluation, after which the best prompt was within 5 % of the
            optimum; infinite where it never was.
        near1: Within 1 %.
        error: Why it failed; empty where it did not.
    """

    ground: str
    label: str
    seed: int
    evaluations: int
    regret: float
    nats: float
    near5: float
    near1: float
    error: str = ""


def row(given: str) -> Row:
    """A strategy's name, or `NAME: {OPTION: VALUE}` with a `label` if need be, as in a study file.

    Raises:
        StudyError: It is neither, or says what the command says for all rows.
    """
    value, _ = read_yaml(given, "the command line")
    try:
        config = TypeAdapter(OneStrategy).validate_python(value)
    except ValidationError as error:
        raise StudyError(
            f"{given}: expected a strategy's name, or 'NAME: {{OPTION: VALUE}}'"
        ) from error
    for key in ("length", "budget", "seeds", "start"):
        if getattr(config, key) is not None:
            raise StudyError(
                f"{given}: '{key}' belongs to the rows of a study: here all strategies have the "
                "same length, evaluations and seeds, and start from nothing"
            )
    check_options(config.name, find_strategy(config.name), config.options)
    return Row(config.label, config.name, config.options)


def searching(table: bool) -> list[str]:
    """The installed strategies that search, random first.

    Args:
        table: Whether they are to search on a table, which has scores of hard prompts only.
    """
    found = []
    for name in sorted(known_strategies(), key=lambda name: (name != RANDOM, name)):
        strategy = find_strategy(name)
        if strategy.searches and not strategy.reference and (not table or fits_table(strategy)):
            found.append(name)
    return found


def with_random(rows: Sequence[Row]) -> list[Row]:
    """The rows, random search first where it is missing.

    Raises:
        StudyError: Two rows have the same label, or another search has that of random search.
    """
    if named := next((row for row in rows if row.label == RANDOM != row.name), None):
        raise StudyError(
            f"'{named.name}' is called '{RANDOM}', as random search is, beside which all stand: "
            "give it another label"
        )
    labels = [row.label for row in rows]
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise StudyError(
            f"two rows are called '{twice}': give one a label, as in "
            f"'{twice}: {{label: other, ...}}'"
        )
    return [*([] if RANDOM in labels else [Row(RANDOM, RANDOM)]), *rows]


def fits_table(strategy: type[Strategy]) -> bool:
    """Whether a strategy needs no more than the scores of hard prompts."""
    return strategy.access is Access.SCORES and strategy.proposes == frozenset({HardPrompt})


def claims(strategy: type[Strategy], ground: str) -> bool:
    """Whether a strategy says that it beats random on a planted objective.

    It says so in the docstring of its class or of its module.

    Args:
        strategy: The strategy's class.
        ground: The kind of planted objective.
    """
    module = inspect.getmodule(strategy)
    return f"`{ground}`" in f"{inspect.getdoc(strategy)} {module.__doc__ if module else ''}"


def bench(
    rows: Sequence[Row],
    grounds: Sequence[Ground],
    seeds: int,
    evaluations: Sequence[int],
    jobs: int = 1,
    listener: Callable[[Outcome], None] = lambda outcome: None,
) -> pd.DataFrame:
    """Run every row on every ground with every seed and budget.

    Args:
        rows: What is compared, random search among it.
        grounds: Where it is compared.
        seeds: The number of seeds.
        evaluations: Budgets, each in evaluations of a hard prompt; each is a run of its own.
        jobs: The number of processes at once.
        listener: Called after each search.

    Returns:
        One line an `Outcome`, in order.

    Raises:
        StudyError: A strategy or option is wrong, or a strategy does not fit a table.
    """
    for row in rows:
        strategy = find_strategy(row.name)
        if not fits_table(strategy) and any(ground.table for ground in grounds):
            raise StudyError(
                f"'{row.label}' needs more than the scores of hard prompts, which is all that a "
                "table holds"
            )
    work = [
        (row, ground, seed, count)
        for ground in grounds
        for count in evaluations
        for row in rows
        for seed in range(seeds)
    ]
    outcomes = []
    if jobs == 1:
        for each in work:
            outcomes.append(_search(each))
            listener(outcomes[-1])
    else:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(
            jobs, context, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            for outcome in pool.map(_search, work):
                outcomes.append(outcome)
                listener(outcome)
    return pd.DataFrame([asdict(outcome) for outcome in outcomes])


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """What a reader wants to know of a row on a ground, at a budget.

    Args:
        found: From `bench`.

    Returns:
        A line for each ground, budget and label: median regret and its quartiles, how often it was
        lower than random's with the same seed, how often equal, the median evaluations to come
        near, and failed searches.
    """
    lines = []
    for (ground, count), part in found.groupby(["ground", "evaluations"], sort=False):
        floor = part[part.label == RANDOM].set_index("seed").regret
        for label, own in part.groupby("label", sort=False):
            regret, beside = own.set_index("seed").regret, floor
            lines.append(
                {
                    "ground": ground,
                    "evaluations": count,
                    "strategy": label,
                    "regret": regret.median(),
                    "from": regret.quantile(0.25),
                    "to": regret.quantile(0.75),
                    "lower": int((regret < beside - 1e-9).sum()),
                    "equal": int(((regret - beside).abs() <= 1e-9).sum()),
                    "seeds": len(own),
                    "near5": own.near5.median(),
                    "near1": own.near1.median(),
                    "failed": int((own.error != "").sum()),
                }
            )
    return pd.DataFrame(lines)


def _search(work: tuple[Row, Ground, int, int]) -> Outcome:
    """One search, and how near it came."""
    row, ground, seed, evaluations = work
    scorer = ground.scorer(seed)
    best, median = scorer.optimum_value, median_loss(scorer)
    scale = max(median - best, 1e-12)
    objective = scorer.objective(scorer.budget(evaluations))
    try:
        search(make_strategy(row.name, find_strategy(row.name), objective, seed, row.options))
    except PromptSearchError as error:
        nan = float("nan")
        return Outcome(ground.name, row.label, seed, evaluations, nan, nan, nan, nan, str(error))
    if not objective.ranking:
        nan, inf = float("nan"), float("inf")
        return Outcome(
            ground.name,
            row.label,
            seed,
            evaluations,
            nan,
            nan,
            inf,
            inf,
            "it scored no prompt on all examples",
        )
    nats = max(0.0, objective.ranking[0].value - best)  # a log line has six decimals
    each = scorer.budget(2) - scorer.budget(1)
    lead = scorer.budget(1) - each
    near = [
        max(1.0, np.ceil((_first(objective, best + share * scale) - lead) / each)) for share in NEAR
    ]
    return Outcome(ground.name, row.label, seed, evaluations, nats / scale, nats, near[0], near[1])


def _first(objective: Objective, value: float) -> float:
    """Tokens spent when the first prompt reached this value; infinite where none did."""
    for line in objective.log.lines:
        if line["examples"] != "score_on":
            continue
        means = [np.mean(row) for row in line["losses"] if row is not None and None not in row]
        if means and min(means) <= value + 1e-6:
            return float(total(line["ledger"]))
    return float("inf")
