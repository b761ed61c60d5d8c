"""The anytime curve on fresh examples: what a search's best prompt so far was worth all the while.

The losses by which a search goes flatter its best. So the prompts that were its best at some time
are scored on the select split in float32 when the winner has been chosen: that is shown, not
charged, and nothing hangs on it.
"""

from __future__ import annotations

from promptsearch.prompts.kinds import KINDS
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.ledger import total
from promptsearch.search.books import Books
from promptsearch.study.arena import Arena
from promptsearch.study.log_summary import mean_losses

#: The most points of the curve.
POINTS = 10


def incumbents(books: Books) -> list[tuple[int, Prompt]]:
    """The prompts that were the best so far at some time, with the tokens spent by then.

    Where there are many, the first, the last and some between are taken. Trained prompts have
    numbers only while the ranking holds them.
    """
    ranked = {item.prompt.key: item.prompt for item in books.ranking}
    found: list[tuple[int, Prompt]] = []
    best = float("inf")
    for line in books.log.lines:
        if line["stage"] != "search" or line["examples"] != "score_on":
            continue
        losses = mean_losses(line)
        if (low := min(losses)) < best:
            best, data = low, line["prompts"][losses.index(low)]
            prompt = ranked.get(data["key"])
            if prompt is None and not KINDS[data["kind"]].trained:
                prompt = books.log.prompt(data)
            if prompt is not None:
                found.append((total(line["ledger"]), prompt))
    if len(found) <= POINTS:
        return found
    return [found[round(i * (len(found) - 1) / (POINTS - 1))] for i in range(POINTS)]


def select_curve(arena: Arena, books: Books) -> tuple[tuple[int, float], ...]:
    """Tokens spent, and the loss in nats on the select split of the best prompt by then.

    It is empty where a server would have to be paid for it.
    """
    found = [] if arena.lm.served else incumbents(books)
    if not found:
        return ()
    ids, scorer = arena.ids("select"), arena.exact["select"]
    prompts = [prompt for _, prompt in found]
    line = books.calls.stage("anytime", "select", scorer, prompts, ids, charged=False)
    losses = zip(found, mean_losses(line), strict=True)
    return tuple((spent, loss) for (spent, _), loss in losses if loss < float("inf"))
