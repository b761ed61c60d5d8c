"""Sequential halving: the best prompts of a search meet fresh examples, ever fewer of them more.

Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits", algorithm 3:
every round has about the same price, shared by half as many contestants as the one before.

Differs from it: there are two looks, at a quarter and at a half of the select split, and the few
that are left then see all of it. A contestant is ranked by its mean over all examples that it was
scored on in float32, those of the search among them. The search chose the contestants by their
losses on these, which therefore flatter them, but hardly one more than the other: to rank by the
fresh examples alone would leave out half of what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from promptsearch.records.scores import ExampleIds, Floats, Scores
from promptsearch.search.race import Table
from promptsearch.search.ranking import SELECTED


def rounds(contestants: int, examples: int) -> list[tuple[int, ExampleIds]]:
    """For each round how many contestants it has, and the places of its examples.

    Where there are few from the start, all of them see all examples at once.

    Args:
        contestants: How many prompts there are to select among.
        examples: The number of examples of the select split.
    """
    found, begin = list[tuple[int, ExampleIds]](), 0
    for look in (examples // 4, examples // 2, examples):
        end = look if contestants > SELECTED else examples
        if end > begin:
            found.append((contestants, np.arange(begin, end)))
            contestants = min(contestants, max(SELECTED, -(-contestants // 2)))
        begin = end
    return found


def halve(
    known: Floats, examples: ExampleIds, score: Callable[[Sequence[int], ExampleIds], Scores]
) -> Scores:
    """Score contestants on examples, the better half of them on more.

    Args:
        known: Their losses on the examples of the search, shape `(contestants, search examples)`.
        examples: Ids of the fresh examples, shape `(examples,)`.
        score: Scores some contestants on some examples, and charges for that.

    Returns:
        The scores; NaN where a contestant was dropped before, and for one that failed.
    """
    table, alive = Table.of(len(known), len(examples)), list(range(len(known)))
    for count, places in rounds(len(known), len(examples)):
        # Whoever is left has seen the same examples.
        sums = np.hstack([known, table.losses[:, : places[0]]]).sum(axis=1)
        alive = sorted(alive, key=sums.tolist().__getitem__)[:count]
        if alive:
            table.enter(alive, places, score(alive, examples[places]))
        alive = [i for i in alive if i not in table.failures]
    return table.scores()
