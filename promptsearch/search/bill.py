"""The bill of a search, counted anew from its log.

It is a second account beside the ledger, which nobody charges and no strategy can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.errors import Tampered
from promptsearch.prompts.kinds import KINDS
from promptsearch.records.ledger import Ledger
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import Scorer, price_of


def check_bill(
    ledger: Ledger,
    lines: Sequence[Mapping[str, Any]],
    scorer: Scorer,
    scored: ExampleIds,
    length: int,
) -> None:
    """Check that all that was scored was paid, and that the budget held.

    Args:
        ledger: The run's ledger.
        lines: The run's log.
        scorer: The scorer of the search split.
        scored: Ids of the examples that prompts are ranked on, shape `(score_on,)`.
        length: The length in tokens of prompts whose kind has a fixed length.

    Raises:
        Tampered: The ledger says less than the log, or more than the budget.
    """
    due = sum(_due(line, scorer, scored, length) for line in lines if line["stage"] == "search")
    if due > ledger.forward:
        raise Tampered(
            f"what the search scored costs {due:,} tokens at least, but its account says "
            f"{ledger.forward:,}: a strategy must leave prices and ledger alone"
        )
    if ledger.left < 0:
        raise Tampered(
            f"{ledger.spent - ledger.brought:,} of {ledger.budget:,} tokens were spent: "
            "a strategy must leave prices and ledger alone"
        )


def _due(line: Mapping[str, Any], scorer: Scorer, scored: ExampleIds, length: int) -> int:
    """The least that the scores in a log line cost, in tokens.

    The text before the prompts is left out, since it is paid only once an example, and so are
    prompts that could not be scored.
    """
    ids = scored if line["examples"] == "score_on" else np.asarray(line["examples"], dtype=np.int64)
    due: int = line.get("generated", 0)
    for data, losses in zip(line["prompts"], line["losses"], strict=True):
        if losses is not None:
            seen = np.array([loss is not None for loss in losses])
            due += price_of(scorer, _size(data, scorer, length), ids[seen])
    return due


def _size(data: Mapping[str, Any], scorer: Scorer, length: int) -> int:
    """The length in tokens of a prompt that a log line describes."""
    kind = KINDS[data["kind"]]
    tokens = kind.tokens_in(data, length)
    return scorer.length(kind.from_json(data, None)) if tokens is None else tokens
