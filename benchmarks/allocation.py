"""How a search spends its examples: rules compared on a landscape like movie reviews.

The strategies are the real ones, and so are books, races, prices and halving. Only the losses are
drawn, see `landscape.py`. What a rule is worth is the test loss of the winners at equal budget, the
end of the search included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.landscape import SEARCH, SELECT, TAIL, Reviews
from promptsearch.records.ledger import Ledger
from promptsearch.records.scores import ExampleIds, Floats, Scores
from promptsearch.search import race as racing
from promptsearch.search.halving import halve, rounds
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import find_strategy
from promptsearch.search.ranking import FINALISTS, SELECTED

BUDGET, SEEDS = 100_000, range(10)
STRATEGIES = ("random", "coordinate", "genetic")


@dataclass(frozen=True)
class Rule:
    """How prompts are scored in a search.

    Args:
        score_on: Search examples of a prompt that may win.
        first: Examples before the first look; 0 for no race.
        level: The level of a look.
    """

    score_on: int
    first: int = 0
    level: float = 0.0

    @property
    def name(self) -> str:
        """The rule in words."""
        if not self.first:
            return f"all {self.score_on}"
        return f"{self.first} to {self.score_on}, p < {self.level:g}"


#: The third one looks late and drops seldom, with a level of 0.1 for all its looks together.
RULES = (
    Rule(32),
    Rule(128),
    Rule(128, 16, 0.033),
    Rule(128, racing.BLOCK, racing.LEVEL),
    Rule(128, racing.BLOCK, 0.3),
    Rule(64, racing.BLOCK, racing.LEVEL),
    Rule(256, racing.BLOCK, racing.LEVEL),
)


def allocation() -> list[dict[str, Any]]:
    """A row for each rule and strategy: what the winners of two ways to select are worth."""
    rows = []
    for rule in RULES:
        for name in STRATEGIES:
            runs = [_run(rule, name, seed) for seed in SEEDS]
            rows.append({"rule": rule.name, "strategy": name, "runs": runs})
            print(_line(rows[-1]), flush=True)
    return rows


def _run(rule: Rule, name: str, seed: int) -> dict[str, float]:
    world = Reviews(seed, rule.score_on)
    each = TAIL + world.space.length
    fresh = sum(count * len(places) for count, places in rounds(FINALISTS, SELECT))
    end = int(world.lead(np.arange(SELECT)).sum()) + each * (FINALISTS * rule.score_on + fresh)
    # Without a race neither number is looked at.
    with patch.object(racing, "BLOCK", rule.first), patch.object(racing, "LEVEL", rule.level):
        objective = Objective(
            world,
            world.space,
            Ledger(BUDGET),
            scored=world.scored,
            training=world.training,
            race=rule.first > 0,
            reserve=lambda lengths: end,
        )
        search(find_strategy(name)(objective, seed=seed))
    losses, right = world.rows([item.prompt for item in objective.ranking])
    searched, select = losses[:, world.scored], losses[:, SEARCH : SEARCH + SELECT]

    def score(who: Any, ids: ExampleIds) -> Scores:
        part: Floats = select[np.ix_(who, ids)]
        return Scores(part, part < np.log(2), None, 0)

    halved = np.hstack([searched, halve(searched, np.arange(SELECT), score).losses])
    found: dict[str, float] = {"prompts": sum(len(x["prompts"]) for x in objective.log.lines)}
    for way, place in (
        ("halving", int(np.nanargmin(halved.mean(1)))),
        ("three", int(select[:SELECTED].mean(1).argmin())),
    ):
        test = float(losses[place, SEARCH + SELECT :].mean())
        found[f"{way}_accuracy"] = float(right[place, SEARCH + SELECT :].mean())
        found[f"{way}_loss"], found[f"{way}_gap"] = test, test - float(searched[place].mean())
    return found


def _line(row: dict[str, Any]) -> str:
    def told(key: str, digits: int) -> str:
        values = [run[key] for run in row["runs"]]
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"

    prompts = np.mean([run["prompts"] for run in row["runs"]])
    cells = [row["rule"], f"`{row['strategy']}`", f"{prompts:.0f}"]
    cells += [told("halving_accuracy", 3), told("halving_loss", 3), told("halving_gap", 3)]
    return f"| {' | '.join([*cells, told('three_loss', 3)])} |"


def report(found: dict[str, Any]) -> str:
    """The page, in Markdown."""
    return "\n".join([*_head(found), *map(_line, found["rows"]), ""])


def _head(found: dict[str, Any]) -> Iterator[str]:
    yield "# How a search spends its examples"
    yield ""
    yield (
        f"Searches of {BUDGET:,} tokens on landscapes drawn like movie reviews, one for each of "
        f"{len(SEEDS)} seeds (`benchmarks/landscape.py`): mean and standard error."
    )
    yield (
        "A rule says on how many examples a prompt starts, on how many a winner was scored, and at "
        "which p a look drops a prompt."
    )
    yield f"The last column is the test loss where the best {SELECTED} were selected among by the"
    yield "select split alone, as it was before sequential halving over both splits."
    yield ""
    yield f"`{found['command']}`, {found['date']}."
    yield ""
    yield "| examples | strategy | prompts | accuracy | test loss | gap | loss, best of three |"
    yield "|---|---|---:|---:|---:|---:|---:|"
