"""Scoring prompts on reviews, against the naive loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.measure import Comparison, Side, clock, equal
from benchmarks.work import BEHIND, FRONT, engine, exemplars, hard, load, naive, reviews
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.search.objective import Objective

PROMPTS, EXAMPLES, LENGTH = 64, np.arange(256), 5
#: The naive loop does one prompt after the other: one prompt a round tells what 64 take.
FEW = 1
NAIVE = "naive loop of transformers"


def front(device: str) -> Comparison:
    """64 hard prompts before the input."""
    return _hard(
        device,
        "prompt in front",
        FRONT,
        {"float32": 7.0, "bfloat16": 1.8},
        {"float32": 25.0, "bfloat16": 6.0},
    )


def behind(device: str) -> Comparison:
    """64 hard prompts behind the input."""
    return _hard(
        device,
        "input before prompt",
        BEHIND,
        {"float32": 25.0, "bfloat16": 6.0},
        {"float32": 60.0, "bfloat16": 15.0},
    )


def exemplar(device: str) -> Comparison:
    """Prompts of about 150 tokens: 16 of ours and 1 of the peer's tell what 64 take.

    Each prompt is scored apart.
    """
    task, models = reviews(FRONT), load(device)
    work = "64 prompts with 4 exemplars each x 256 reviews"

    def prompts(number: int) -> list[Prompt]:
        return exemplars(task, 16, number)

    def ours(number: int) -> float:
        fresh = engine(models["bfloat16"], task, LENGTH)
        return clock(lambda: fresh.score(prompts(number), EXAMPLES))[0] / 16

    def peer(name: str) -> Side:
        return lambda number: clock(
            lambda: naive(models[name], task, LENGTH, prompts(number)[:1], EXAMPLES)
        )[0]

    def check() -> str:
        theirs = naive(models["float32"], task, LENGTH, prompts(0)[:2], EXAMPLES[:32])
        return equal(
            engine(models["float32"], task, LENGTH).score(prompts(0)[:2], EXAMPLES[:32]).losses,
            theirs,
            1e-5,
        )

    peers = {name: peer(name) for name in models}
    return Comparison({work: ours}, peers, NAIVE, {work: {"float32": 20.0, "bfloat16": 6.0}}, check)


def _hard(
    device: str, where: str, template: str, bars: dict[str, float], raced: dict[str, float]
) -> Comparison:
    """All 64 prompts on all examples, and in a race on the same ones.

    The race's winner is held against that of full scoring.
    """
    task, models = reviews(template), load(device)
    exact = models["float32"]
    full: dict[int, NDArray[np.float64]] = {}  # mean losses of each round's prompts
    winners: list[str] = []

    def prompts(number: int) -> list[Prompt]:
        return hard(exact, PROMPTS, LENGTH, number)

    def everything(number: int) -> float:
        fresh = engine(models["bfloat16"], task, LENGTH)  # nothing is kept from an earlier round
        seconds, scores = clock(lambda: fresh.score(prompts(number), EXAMPLES))
        full[number] = scores.losses.mean(1)
        return seconds / PROMPTS

    def race(number: int) -> float:
        fresh = engine(models["bfloat16"], task, LENGTH)
        space = PromptSpace(exact.words, LENGTH, exact.decode)
        objective = Objective(
            fresh, space, Ledger(None), scored=EXAMPLES, training=np.arange(256, 512), race=True
        )
        seconds, _ = clock(lambda: objective.evaluate(prompts(number)))
        winners.append(
            _same(objective.ranking[0].prompt, prompts(number)[int(full[number].argmin())], number)
        )
        print(f"    winner: {winners[-1]}; {objective.ledger.computed:,} tokens", flush=True)
        return seconds / PROMPTS

    def _same(found: Prompt, best: Prompt, number: int) -> str:
        if found == best:
            return "the same"
        losses = engine(exact, task, LENGTH).score([found, best], EXAMPLES).losses
        p = float(stats.ttest_rel(losses[0], losses[1], alternative="greater").pvalue)
        if p < 0.05:
            raise SystemExit(f"the race of seed {number} lost the better prompt (p = {p:.3f})")
        return (
            f"another, by {float(losses[0].mean() - losses[1].mean()):+.4f} nats, p = {p:.2f} "
            "that it is no worse"
        )

    def peer(name: str) -> Side:
        def run(number: int) -> float:
            some = prompts(number)[number : number + FEW]
            return clock(lambda: naive(models[name], task, LENGTH, some, EXAMPLES))[0] / FEW

        return run

    def check() -> str:
        """A few of the 64 prompts, scored among all of them."""
        some = EXAMPLES[:32]
        theirs = naive(exact, task, LENGTH, prompts(0)[:4], some)
        return equal(engine(exact, task, LENGTH).score(prompts(0), some).losses[:4], theirs, 1e-5)

    work = f"64 hard prompts x 256 reviews, {where}"
    ours: dict[str, Side] = {work: everything, f"{work}, with racing": race}
    peers = {name: peer(name) for name in models}
    return Comparison(
        ours,
        peers,
        NAIVE,
        {work: bars, f"{work}, with racing": raced},
        check,
        {f"{work}, with racing": winners},
    )
