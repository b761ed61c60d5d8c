"""`python -m benchmarks.headroom TABLE ...`: does the forecast of headroom hold on whole spaces?

A table holds the scores of every prompt of a space on some examples; `promptsearch bench-strategies
--table RUN --out DIR` keeps one in DIR. Half of these examples are looked at, as `promptsearch plan
--headroom` does: 24 random prompts and three controls, which are prompts of the space at given
ranks. Then a random search tries prompts on the same half, and what it finds is judged on the other
half, beside the control that looked best. This is done many times.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from promptsearch.report.escaped import table_lines
from promptsearch.study.room import gain_of_words, gain_record
from promptsearch.testing.table import TableScorer

#: Looks at each table, random prompts of a look, and prompts that a search tries: 1 % of a space.
LOOKS, PROMPTS, TRIED = 200, 24, 197
#: The controls: which share of the space has a higher loss than each.
RANKS = {"weak": (0.6, 0.4, 0.2), "good": (0.9, 0.8, 0.5), "excellent": (0.999, 0.99, 0.9)}


def compare(table: TableScorer, ranks: tuple[float, ...], measure: str) -> list[str]:
    """The cells of a row: what was forecast and what was found, means over all looks.

    Args:
        table: The space.
        ranks: The controls, as in `RANKS`.
        measure: `accuracy` or `nats`.
    """
    scores = table.metric if measure == "accuracy" else -table.losses
    rng = np.random.default_rng(0)
    order = np.argsort(-table.values, kind="stable")
    controls = order[[int(rank * len(order)) for rank in ranks]]
    forecast, found, held, rooms = [], [], [], []
    for _ in range(LOOKS):
        seen, rest = np.array_split(rng.permutation(scores.shape[1]), 2)
        prompts = rng.choice(len(scores), PROMPTS, replace=False)
        random, given = (scores[np.ix_(some, seen)] for some in (prompts, controls))
        gain = gain_record([gain_of_words(random, given, TRIED, len(seen), rng)])
        tried = rng.choice(len(scores), TRIED, replace=False)
        winner, control = (
            some[table.losses[np.ix_(some, seen)].mean(1).argmin()] for some in (tried, controls)
        )
        true = float(scores[winner, rest].mean() - scores[control, rest].mean())
        forecast.append(gain.gain)
        found.append(true)
        held.append(gain.low <= true <= gain.high)
        rooms.append(gain.room)
    spread = np.std(found)
    return [
        f"{np.mean(forecast):+.3f}",
        f"{np.mean(found):+.3f} ± {spread:.3f}",
        f"{100 * np.mean(held):.0f} %",
        f"{100 * np.mean(rooms):.0f} %",
    ]


def main() -> None:
    """Print a table of all spaces, measures and controls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tables", nargs="+", type=Path)
    rows = []
    for path in parser.parse_args().tables:
        table = TableScorer.load(path)
        rows += [
            [path.parent.name, measure, name, *compare(table, ranks, measure)]
            for measure in ("accuracy", "nats")
            for name, ranks in RANKS.items()
        ]
    heads = ["space", "measure", "controls", "forecast", "random search", "held", "room said"]
    print("\n".join(table_lines(heads, rows)))


if __name__ == "__main__":
    main()
