"""Answers that a masked LM fills in: the most probable token at each mask, all masks at once.

An answer has as many tokens as there are masks, which is up to the task's `decoding`. With one mask
it is the first of the ranked vocabulary, whose precision P@1 is (Petroni et al. 2019,
arXiv:1909.01066, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch

from promptsearch.models import LanguageModel
from promptsearch.scoring.decoding import Written
from promptsearch.scoring.forward import run
from promptsearch.scoring.out_of_memory import in_halves
from promptsearch.scoring.packing import pack
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.scoring.tree import grow


def fill(
    lm: LanguageModel, rows: Sequence[InputRow], library: Library, masks: Sequence[int]
) -> tuple[list[Written], int]:
    """The answers of rows.

    Args:
        lm: The model.
        rows: The rows around their answers.
        library: The prompts.
        masks: The number of masks of each row, at least 1.

    Returns:
        The answer of each row, and the number of tokens that went through the LM.

    Raises:
        ModelError: The memory of the device does not hold a single row.
    """
    sizes = [row.tokens - len(row.trunk) + count for row, count in zip(rows, masks, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].trunk), -sizes[i]))
    limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
    found: dict[int, Written] = {}
    with torch.inference_mode():
        for places in pack(order, lambda i: sizes[i], lambda: limit, lambda i: len(rows[i].trunk)):
            some = [(rows[i], masks[i]) for i in places]
            parts = in_halves(partial(_fill, lm, library), some, lm.devices, _told)
            found.update(zip(places, chain.from_iterable(parts), strict=True))
    return [found[i] for i in range(len(rows))], sum(sizes)


def _told(given: tuple[InputRow, int]) -> str:
    """What a row is with its number of masks, and what to do where memory does not hold it."""
    row, masks = given
    return f"{row.tokens + masks} tokens: take a smaller model, or another device"


def _fill(
    lm: LanguageModel, library: Library, given: Sequence[tuple[InputRow, int]]
) -> list[Written]:
    """The answers of the rows of one pass, each given with its number of masks."""
    rows, masks = zip(*given, strict=True)
    # What stands for the tokens of the answers tells only their number. All masks stand at once,
    # also where a given answer is told one by one: here no other tokens are known.
    whole = [row._replace(one_by_one=False) for row in rows]
    read = [row.read((0,) * count) for row, count in zip(whole, masks, strict=True)]
    trees = [grow([one.ids], len(row.trunk)) for (one,), row in zip(read, rows, strict=True)]
    trunks = [row.trunk for row in rows] if any(len(row.trunk) for row in rows) else None
    states, begins = run(lm, trees, trunks, library.vectors)
    places = [
        begin + one.at + i
        for begin, (one,), count in zip(begins, read, masks, strict=True)
        for i in range(count)
    ]
    logits = lm.passes.logits(states[torch.tensor(places, device=states.device)])
    finite = logits.isfinite().all(-1).cpu().split(list(masks))
    logits[:, unwritten(lm, logits.shape[1])] = float("-inf")
    tokens = logits.argmax(-1).cpu().split(list(masks))
    return [
        Written((tuple(ids.tolist()),), (True,), len(ids))
        if bool(fine.all())
        else Written((), (), 0)
        for ids, fine in zip(tokens, finite, strict=True)
    ]


def unwritten(lm: LanguageModel, rows: int) -> list[int]:
    """The ids that no text is made of: added tokens, and rows of the head without a token.

    Args:
        lm: The model.
        rows: The number of ids that it predicts.
    """
    return sorted(set(range(rows)) - set(lm.plain))
