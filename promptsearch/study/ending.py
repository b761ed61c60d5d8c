"""What the end of a search scores, and what that costs: the price that a search sets aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import price_of, price_of_generation
from promptsearch.search.halving import rounds
from promptsearch.search.ranking import FINALISTS, SELECTED
from promptsearch.study.arena import Arena


def halves(arena: Arena) -> bool:
    """Whether all finalists are selected among, in rounds.

    Where a metric decides, on either split, it is a few: a part of the examples may tell nothing of
    a metric that is no mean, and answers are dear.
    """
    return arena.follows is None and arena.selects_by is None


def rounds_of(arena: Arena, finalists: int) -> list[tuple[str, int, ExampleIds]]:
    """What is scored at the end of a search: split, the number of prompts, ids of examples.

    Args:
        arena: Task and model.
        finalists: How many prompts are left.
    """
    contestants = finalists if halves(arena) else min(SELECTED, finalists)
    again = [("search", finalists, arena.ids("search"))] if arena.rescores else []
    select = rounds(contestants, len(arena.ids("select")))
    return [*again, *(("select", count, places) for count, places in select)]


def price_of_selection(arena: Arena, lengths: Sequence[int]) -> int:
    """Tokens set aside for the end of a search, of which the longest prompts see the most.

    Args:
        arena: Task and model.
        lengths: The lengths in tokens of the prompts that are left, the longest first.
    """
    price = int(arena.exact["select"].lead(arena.ids("select")).sum())
    for split, count, ids in rounds_of(arena, len(lengths)):
        for length, alike in Counter(lengths[:count]).items():
            price += alike * price_of(arena.exact[split], length, ids)
    again = len(lengths) if arena.rescores else 0
    for split, count in (("search", again), ("select", SELECTED)):
        if arena.writes(split):
            scorer, ids, most = arena.exact[split], arena.ids(split), arena.task.decoding.most
            for length, alike in Counter(lengths[:count]).items():
                price += alike * price_of_generation(scorer, length, ids, most)
    return price


def smallest_budget(arena: Arena, finalists: int = FINALISTS) -> int:
    """What one evaluation and selection cost together, in tokens.

    Args:
        arena: Task and model.
        finalists: How many prompts are selected among.
    """
    return (
        arena.price_of_evaluation
        + int(arena.exact["search"].lead(arena.scored).sum())
        + price_of_selection(arena, [arena.template.length] * finalists)
    )
