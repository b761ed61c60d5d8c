"""Kills of every strategy, at random moments and at the n-th event of a kind.

Events are a write, a rename, a truncation, a deletion, and an entry of the cache.

A study is killed three times on its way, and goes on each time; then winners, losses and ledgers
are those of an undisturbed study.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.folders import differs, numbers
from attack.lab import Lab

COMPARE = ["compare", "study.yaml", "--out", "study"]
#: Every strategy, with options that make it do all that it can within a small budget.
ROWS: tuple[dict[str, Any], ...] = (
    {"adapter": {}},
    {"autoprompt": {}},
    {"bayesian": {}},
    {"bdpl": {}},
    {"beam": {}},
    {"black_box_tuning": {}},
    {"coordinate": {}},
    {"evolution": {}},
    {"exemplars": {}},
    {"exhaustive": {}},
    {"fine_tuning": {}},
    {"fine_tuning_top2": {}},
    {"gcg": {}},
    {"genetic": {}},
    {"grips": {"prompts": ["The movie is good"]}},
    {"joint": {"prompts": ["The movie", "A story"], "proposals": 0, "shots": 1}},
    {"llama_adapter": {}},
    {"llm_evolution": {"prompts": ["The movie", "A story"]}},
    {"llm_proposed": {"batch": 2, "longest": 8, "examples": 2}},
    {"lora": {}},
    {"manual": {"prompts": ["The", "A movie"]}},
    {"nearest_tokens": {"start": {"run": "prompt_tuning"}}},
    {"optuna": {}},
    {"p_tuning": {}},
    {"p_tuning_lm": {}},
    {"pez": {}},
    {"prefix_tuning": {}},
    {"prompt_tuning": {}},
    {"prune": {"shots": 1}},
    {"random": {"batch": 4}},
    {"reflect": {"prompts": ["The movie"], "minibatch": 4, "examples": 1, "longest": 12}},
    {"rlprompt": {}},
)
EVENTS = ("fsync", "os.rename", "os.remove", "os.truncate", "cache", "cached", "write")
#: Kills of one study.
KILLS = 3


def study(lab: Lab, number: int) -> dict[str, Any]:
    """The study of a row."""
    row = ROWS[number % len(ROWS)]
    source = next(iter(row.values())).get("start", {}).get("run")
    large = dict.fromkeys(("llm_proposed", "llm_evolution", "reflect"), 12_000)
    small = {"exemplars": 6000, "prune": 6000}
    budget = {**large, **small}.get(next(iter(row)), 3000)
    return lab.study(
        budget=budget,
        pool=20 if "exhaustive" in row else "words",
        strategies=[*([{source: {}}] if source else []), row],
        length=1 if "exhaustive" in row else 2,
    )


@cache
def undisturbed(lab: Lab, number: int) -> dict[str, Any]:
    """What a row finds when nothing disturbs it."""
    folder = lab.folder / f"whole-{number}"
    with lab.host() as host:
        case = Case("", "", [COMPARE], lambda where: _put(where, study(lab, number)))
        came, line, ran = host.attack(case, folder)
    if not (found := numbers(folder / "study")):
        raise SystemExit(
            f"the undisturbed study of {ROWS[number]} failed: {came}, {line}\n{ran[-1].said}"
        )
    return found


def _put(folder: Path, given: dict[str, Any]) -> None:
    (folder / "study.yaml").write_text(json.dumps(given))


def killed(rng: random.Random, lab: Lab, number: int) -> Case:
    """A study of a row that is killed again and again."""
    right = undisturbed(lab, number % len(ROWS))
    traps: list[list[dict[str, Any]]] = []
    signals: list[list[tuple[float, int]]] = []
    told = []
    for _ in range(KILLS):
        if rng.random() < 0.45:
            moment = round(rng.uniform(0.05, 0.8), 3)
            signals.append([(moment, 9)])
            traps.append([])
            told.append(f"{moment} s")
        else:
            event, at = rng.choice(EVENTS), int(2 ** rng.uniform(0, 5.5))
            traps.append([{"event": event, "at": at, "signal": 9}])
            signals.append([])
            told.append(f"{event} {at}")
    row = ROWS[number % len(ROWS)]
    same = differs(right)

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        last = ran[-1]
        if last.code != 0 and right:
            return f"exit {last.code} after kills: {' '.join(last.err.split())[-160:]}"
        found = numbers(folder / "study")
        return same(folder, ran) or (
            None if found.keys() == right.keys() else f"{sorted(found)} instead of {sorted(right)}"
        )

    case = Case(
        "7 kills",
        f"{next(iter(row))}: killed at {', '.join(told)}",
        [COMPARE] * (KILLS + 1),
        lambda f: _put(f, study(lab, number)),
        judge,
    )
    case.each = [*zip(traps, signals, strict=True)]
    return case
