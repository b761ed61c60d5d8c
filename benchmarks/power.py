"""How often the verdict is wrong, and how often it names a winner, in simulated studies.

Each study is drawn anew: runs have an accuracy, which is that of their row with the luck of the
seed, and an answer is right where the difficulty of its example, which all rows share, a part that
the row's prompt has of its own, and the noise of the run together stay below what that accuracy
allows. What is tried is what a report calls: `interval`, `compare_leader`, `compare_all`.

A winner is wrong where another row is as good or better: of rows that are exactly tied, none is
the winner. Luck has the mean 0 in accuracy, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from math import e, sqrt
from typing import Any

import numpy as np
from scipy import special, stats

from promptsearch.statistics import (
    ALPHA,
    Comparison,
    Floats,
    Sample,
    cannot_exclude,
    compare_leader,
    holm,
    interval,
    paired_test,
)

#: Draws the luck of some seeds, shape `(seeds,)`.
Luck = Callable[[np.random.Generator, int], Floats]

#: How many studies a line is made of: in all of its rows, with a winner, and for an interval.
ROWS, POWERED, INTERVALS = 8000, 600, 4000
#: What the verdict rests on, among the procedures that are tried.
OURS = "ours"
#: What a failed run loses in accuracy.
DROP = 0.3
#: The shares of an answer's variance that all rows share, and that a row has of its own.
_SHARED, _OWN = 0.5, 0.2


def normal(deviation: float) -> Luck:
    """Luck as a bell."""
    return lambda rng, seeds: deviation * rng.normal(size=seeds)


def heavy(deviation: float) -> Luck:
    """Luck with the tails of Student's t with three degrees of freedom."""
    return lambda rng, seeds: deviation * rng.standard_t(3, size=seeds) / sqrt(3)


def skewed(deviation: float) -> Luck:
    """Luck with a long tail below (log-normal)."""
    scale, mean = sqrt((e - 1) * e), sqrt(e)
    return lambda rng, seeds: deviation * (mean - rng.lognormal(size=seeds)) / scale


def failing(share: float) -> Luck:
    """Luck of which a share of the runs fails."""

    def draw(rng: np.random.Generator, seeds: int) -> Floats:
        fails = rng.random(seeds) < share
        return 0.02 * rng.normal(size=seeds) + DROP * (share - fails)

    return draw


@dataclass(frozen=True)
class Row:
    """A strategy: its mean accuracy, and its luck; None where it is deterministic."""

    accuracy: float
    luck: Luck | None


@dataclass(frozen=True)
class Case:
    """Studies of one kind.

    Args:
        name: What they are.
        rows: Their strategies.
        seeds: Runs of each.
        examples: Test examples.
        group: Examples that belong together, with one difficulty; 1 for none.
    """

    name: str
    rows: tuple[Row, ...]
    seeds: int = 5
    examples: int = 400
    group: int = 1

    def studies(self, count: int) -> Iterator[dict[str, Sample]]:
        """So many studies: row -> its test scores."""
        rng = np.random.default_rng([len(self.rows), self.seeds, self.examples])
        for _ in range(count):
            yield self._study(rng)

    def _study(self, rng: np.random.Generator) -> dict[str, Sample]:
        units = self.examples // self.group
        which = np.repeat(np.arange(units), self.group)
        groups = None if self.group == 1 else tuple(which.tolist())
        difficulty = sqrt(_SHARED) * rng.normal(size=units)[which]
        study = {}
        for place, row in enumerate(self.rows):
            seeds = self.seeds if row.luck else 1
            luck = row.luck(rng, seeds) if row.luck else np.zeros(1)
            bar = special.ndtri(np.clip(row.accuracy + luck, 0.001, 0.999))  # (seeds,)
            own = sqrt(_OWN) * rng.normal(size=units)[which]
            noise = rng.standard_normal((seeds, len(which)), dtype=np.float32)
            reached = difficulty + own + sqrt(1 - _SHARED - _OWN) * noise
            right = (reached < bar[:, None]).astype(np.float64)
            study[str(place)] = Sample(right, row.luck is None, groups)
        return study


@dataclass
class Named:
    """How often each procedure named a winner, and a wrong one."""

    studies: int = 0
    right: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)

    def count(self, leader: Row, rows: tuple[Row, ...], named: dict[str, bool]) -> None:
        """Take in a study: who led, and which procedures call it the winner."""
        best = sum(row.accuracy >= leader.accuracy for row in rows) == 1
        self.studies += 1
        for procedure, winner in named.items():
            counts = self.right if best else self.wrong
            counts[procedure] = counts.get(procedure, 0) + winner

    def share(self, counts: dict[str, int]) -> dict[str, float]:
        """Procedure -> its share of all studies."""
        names = self.right | self.wrong
        return {name: counts.get(name, 0) / self.studies for name in names}


def procedures(study: dict[str, Sample]) -> tuple[int, dict[str, bool]]:
    """The leader's place in a study, and which procedures name it the winner.

    The first one is what a report says. `Welch` is the same with the pooled degrees of freedom of
    Welch and Satterthwaite; on its errors the others are built: Holm over the leader's pairs or
    over all pairs, Dunnett with two sides and Hsu's multiple comparisons with the best (1984),
    which is Gupta's subset of one row (1965), both by Bonferroni's bound.
    """
    tests = compare_leader(study, 1.0)
    leader, k = int(tests[0].first), len(study) - 1
    welch = [_welch(test) for test in tests]
    p = np.array([2 * stats.t.sf(t, freedom) for t, freedom in welch])
    named = {
        OURS: all(test.significant for test in tests),
        "Welch": bool((p <= ALPHA).all()),
        "Holm, leader's pairs": bool((holm(p) <= ALPHA).all()),
        "Dunnett": bool((p <= ALPHA / k).all()),
        "Hsu": bool((p <= 2 * ALPHA / k).all()),
    }
    # Holm over all pairs names none where the leader's pairs alone do not; that spares the pairs.
    if named["Holm, leader's pairs"]:
        rest = [
            _welch(paired_test(a.second, study[a.second], b.second, study[b.second]))
            for place, a in enumerate(tests)
            for b in tests[place + 1 :]
        ]
        both = np.concatenate([p, [2 * stats.t.sf(t, freedom) for t, freedom in rest]])
        named["Holm, all pairs"] = bool((holm(both)[: len(p)] <= ALPHA).all())
    else:
        named["Holm, all pairs"] = False
    return leader, named


def _welch(test: Comparison) -> tuple[float, float]:
    """The t of a test with the degrees of freedom of Welch and Satterthwaite."""
    total = sum(part.variance for part in test.parts)
    shares = sum(part.variance**2 / part.freedom for part in test.parts if part.freedom)
    if not total:
        return (np.inf if test.difference else 0.0), 1.0
    return test.difference / sqrt(total), total**2 / shares


def winners(case: Case, studies: int) -> Named:
    """Whom the procedures name in the studies of a case."""
    found = Named()
    for study in case.studies(studies):
        leader, named = procedures(study)
        found.count(case.rows[leader], case.rows, named)
    return found


def tied() -> list[Case]:
    """Studies in which nobody wins: whoever is named is wrong."""
    cases = []
    for seeds in (3, 5, 10):
        pair = {
            "two tied, luck .03": (normal(0.03), normal(0.03)),
            "two tied, luck .1": (normal(0.1), normal(0.1)),
            "two tied, one stable, luck .1": (None, normal(0.1)),
            "two tied, luck .01 and .1": (normal(0.01), normal(0.1)),
            "two tied, luck .03 and .1": (normal(0.03), normal(0.1)),
            "two tied, heavy tails": (heavy(0.05), heavy(0.05)),
            "two tied, one stable, heavy tails": (None, heavy(0.05)),
            "two tied, skewed": (skewed(0.05), skewed(0.05)),
            "two tied, one run in four fails": (failing(0.25), failing(0.25)),
        }
        cases += [
            Case(name, tuple(Row(0.75, luck) for luck in lucks), seeds)
            for name, lucks in pair.items()
        ]
        mixed = (None, normal(0.1), None, normal(0.05), None, normal(0.02), normal(0.1))
        best = [Row(0.8, normal(0.03))] * 2
        cases += [
            Case("two tied best of seven", (*best, *[Row(0.6, normal(0.03))] * 5), seeds, 1000),
            Case("all seven tied, stable and lucky", tuple(Row(0.75, x) for x in mixed), seeds),
            Case("all seven tied, one run in four fails", (Row(0.7, failing(0.25)),) * 7, seeds),
            Case("all sixteen tied", (Row(0.75, normal(0.05)),) * 16, seeds, 200),
            Case("two tied, 100 examples", (Row(0.75, normal(0.03)),) * 2, seeds, 100),
            Case("two tied, 1,000 examples", (Row(0.75, normal(0.03)),) * 2, seeds, 1000),
            Case("two tied, groups of five", (Row(0.75, normal(0.02)),) * 2, seeds, 400, 5),
        ]
    stable = (Row(0.75, None),) * 2
    return [
        *cases,
        Case("two tied, both stable", stable, 1),
        Case("two tied, both stable, 30 examples", stable, 1, 30),
        Case("two tied, both stable, .98", (Row(0.98, None),) * 2, 1, 200),
        Case("seven tied, all stable", (Row(0.75, None),) * 7, 1),
    ]


def unseen() -> list[Case]:
    """A stable row against one that fails once in four runs, and is as good on the mean."""
    rows = (Row(0.75, None), Row(0.75, failing(0.25)))
    return [Case("stable against failing", rows, seeds) for seeds in (3, 5, 10)]


def ahead() -> list[Case]:
    """One row at .88, the others at .75."""
    return [
        *(
            Case(f"luck {luck:g}", (Row(0.88, normal(luck)), *[Row(0.75, normal(luck))] * 6), seeds)
            for seeds in (3, 5, 10)
            for luck in (0.02, 0.03, 0.04)
        ),
        *(
            Case(
                "luck .01, of the others .045",
                (Row(0.88, normal(0.01)), *[Row(0.75, normal(0.045))] * 6),
                seeds,
            )
            for seeds in (3, 5, 10)
        ),
        Case(
            "fifteen others, luck .03",
            (Row(0.88, normal(0.03)), *[Row(0.75, normal(0.03))] * 15),
        ),
    ]


@dataclass(frozen=True)
class Held:
    """How often an interval held the truth.

    Args:
        whole: Of all studies.
        seen: Of those in which a run failed and another did not; nan without such.
        share: The share of these.
        half: The mean of half the interval's width.
    """

    whole: float
    seen: float
    share: float
    half: float


def held(case: Case, studies: int, *, fails: bool = False) -> Held:
    """How often the interval of a case's only row held its mean.

    Args:
        case: Studies of one row.
        studies: How many.
        fails: Whether its runs may fail: halfway down to a failed run, a run counts as one.
    """
    (row,) = case.rows
    holds, seen, halves = [], [], []
    for study in case.studies(studies):
        (sample,) = study.values()
        found = interval(sample, (0.0, 1.0))
        holds.append(found.low <= row.accuracy <= found.high)
        halves.append(found.half)
        runs = sample.scores.mean(axis=1)
        seen.append(fails and float(np.ptp(runs)) > DROP / 2)
    hit, some = np.array(holds), np.array(seen)
    shown = float(hit[some].mean()) if some.any() else np.nan
    return Held(float(hit.mean()), shown, float(some.mean()), float(np.mean(halves)))


def power() -> list[dict[str, Any]]:
    """A dictionary for each case, with the part of the page that it stands in."""
    found = []
    for part, cases in {"tied": tied(), "unseen": unseen(), "ahead": ahead()}.items():
        for case in cases:
            count = POWERED if part == "ahead" else ROWS // len(case.rows)
            named = winners(case, count)
            shares = named.share(named.right if part == "ahead" else named.wrong)
            found.append(_line(part, case, count) | {"named": shares})
            print(part, case.name, case.seeds, shares, flush=True)
    for part, case, fails in intervals():
        found.append(_line(part, case, INTERVALS) | asdict(held(case, INTERVALS, fails=fails)))
        print(found[-1], flush=True)
    return found


def intervals() -> Iterator[tuple[str, Case, bool]]:
    """The studies of one row whose interval is tried: their part of the page, and whether it fails.

    Accuracies are such that a failed run is far from its bounds.
    """
    for seeds in (2, 3, 5, 10):
        for luck in (0.0, 0.02, 0.04, 0.1):
            for examples in (100, 1000):
                row = (Row(0.75, normal(luck)),)
                yield "normal", Case(f"luck {luck:g}", row, seeds, examples), False
        for name, luck, fails in (
            ("one run in four fails", failing(0.25), True),
            ("one run in ten fails", failing(0.1), True),
            ("heavy tails", heavy(0.05), False),
            ("skewed", skewed(0.05), False),
        ):
            yield "other", Case(name, (Row(0.7, luck),), seeds), fails


def _line(part: str, case: Case, studies: int) -> dict[str, Any]:
    return {
        "part": part,
        "case": case.name,
        "rows": len(case.rows),
        "seeds": case.seeds,
        "examples": case.examples,
        "studies": studies,
    }


def report(found: dict[str, Any]) -> str:
    """The page of what was found, in Markdown."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        parts.setdefault(row["part"], []).append(row)
    worst = max(parts["tied"], key=lambda row: row["named"][OURS])
    lines = [
        "# How often the verdict is wrong, and how often it names a winner",
        "",
        f"Simulated studies; `{found['command']}`, {found['date']}. `benchmarks/power.py` says how "
        "they are drawn; luck is the standard deviation of a run's accuracy around its row's.",
        "",
        "## A wrong winner",
        "",
        "Nobody wins here: the best rows are exactly tied, so whoever is named is wrong. Shares of "
        f"studies; the worst of ours is {worst['named'][OURS]:.3f} ({worst['case']}, "
        f"{worst['seeds']} seeds, {worst['studies']:,} studies, so ± "
        f"{1.96 * sqrt(0.05 * 0.95 / worst['studies']):.3f} around .05).",
        "",
        *_named(parts["tied"]),
        "",
        "What no seed showed, none of them can tell: a stable row, and one that is as good on the "
        "mean but fails in one run of four. Where none fails, it looks better. The verdict says "
        "how many runs so many seeds leave room for.",
        "",
        *_named(parts["unseen"]),
        "",
        "## The winner",
        "",
        "One row at .88, the others at .75: shares of studies in which it is named.",
        "",
        *_named(parts["ahead"]),
        "",
        "## Intervals",
        "",
        "Normal luck: shares of studies whose 95 % interval holds the mean.",
        "",
        "| seeds | test examples | luck | holds | half its width |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {row['seeds']} | {row['examples']:,} | {row['case'].split()[1]} | "
            f"{row['whole']:.3f} | {row['half']:.3f} |"
            for row in parts["normal"]
        ),
        "",
        f"Other luck, {parts['other'][0]['examples']} test examples; a run that fails loses "
        f"{DROP:g}. A failure is seen where some runs fail and others do not. `room` is the share "
        "of failing runs that so many seeds, none of which fails, cannot exclude.",
        "",
        "| luck | seeds | holds | where a failure was seen | in so many studies | room |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {row['case']} | {row['seeds']} | {row['whole']:.3f} | {_seen(row)} | "
            f"{cannot_exclude(row['seeds']):.2f} |"
            for row in sorted(parts["other"], key=lambda row: row["case"])
        ),
    ]
    return "\n".join(lines) + "\n"


def _seen(row: dict[str, Any]) -> str:
    return f"{row['seen']:.3f} | {row['share']:.2f}" if row["share"] else "– | –"


def _named(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0]["named"])
    lines = [
        f"| case | rows | seeds | test examples | {' | '.join(names)} |",
        f"|---|{'---:|' * (3 + len(names))}",
    ]
    for row in rows:
        shares = " | ".join(f"{row['named'][name]:.3f}" for name in names)
        lines.append(
            f"| {row['case']} | {row['rows']} | {row['seeds']} | {row['examples']:,} | {shares} |"
        )
    return lines
