"""What searching costs beside the LM, against the time that scoring takes.

The costs are those of ask, tell, pool, log and cache.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import clock
from benchmarks.work import BEHIND, FRONT, engine, hard, load, reviews
from promptsearch.records.cache import ScoreCache
from promptsearch.records.log import RunLog
from promptsearch.search.loop import search
from promptsearch.search.plugins import find_strategy
from promptsearch.testing.planted import PlantedScorer

EVALUATIONS, VOCABULARY, LENGTH = 10_000, 49_152, 5
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {},
    "exhaustive": {"partial": True},
    "evolution": {},
    "optuna": {},
    "optuna, NSGA-II": {"sampler": "nsga2"},
}


def overhead() -> list[dict[str, Any]]:
    """Every searching strategy on a planted objective, whose own time is measured and taken off."""
    seconds = {
        name: _evaluation(template) for name, template in (("front", FRONT), ("behind", BEHIND))
    }
    print(
        (
            f"  one evaluation on 64 reviews: {seconds['front']:.3f} s, input before prompt "
            f"{seconds['behind']:.3f} s"
        ),
        flush=True,
    )
    rows = []
    for name, options in STRATEGIES.items():
        each = _search(name.partition(",")[0], options)
        rows.append(
            {
                "work": (
                    f"search overhead of {name}: {EVALUATIONS:,} evaluations, {VOCABULARY:,} words"
                ),
                "milliseconds": 1000 * each,
                "share": {where: each / (each + lm) for where, lm in seconds.items()},
                "bar": 0.05,
            }
        )
        print(f"  {name}: {1000 * each:.2f} ms an evaluation", rows[-1]["share"], flush=True)
    return rows


def _evaluation(template: str) -> float:
    """Seconds to score a prompt on 64 reviews, among 64 prompts."""
    lm = load()["bfloat16"]
    scorer = engine(lm, reviews(template), LENGTH)
    prompts = hard(lm, 64, LENGTH, 0)
    scorer.score(prompts[:2], np.arange(64))
    return clock(lambda: scorer.score(prompts, np.arange(64)))[0] / len(prompts)


def _search(name: str, options: dict[str, Any]) -> float:
    """Seconds an evaluation, those of the planted scorer taken off."""
    with tempfile.TemporaryDirectory() as folder:
        scorer = PlantedScorer("separable", pool=VOCABULARY, length=LENGTH, examples=128)
        planted = 0.0
        score = scorer.score

        def counted(*given: Any) -> Any:
            nonlocal planted
            seconds, scores = clock(lambda: score(*given))
            planted += seconds
            return scores

        scorer.score = counted  # type: ignore[method-assign]
        cache = ScoreCache(Path(folder) / "scores.sqlite")
        objective = scorer.objective(
            scorer.budget(EVALUATIONS), log=RunLog(Path(folder)), cache=cache
        )
        strategy = find_strategy(name)(objective, seed=0, **options)
        seconds, _ = clock(lambda: search(strategy, Path(folder)))
        cache.close()
        return (seconds - planted) / sum(len(line["prompts"]) for line in objective.log.lines)
