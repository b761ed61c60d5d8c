"""Rows go on: batches of them through the LM, token by token, until their answers are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from promptsearch.models import LanguageModel
from promptsearch.scoring.decoding import Beams, Ended, Written, decoder, take
from promptsearch.scoring.filling import fill
from promptsearch.scoring.growing import growing
from promptsearch.scoring.out_of_memory import in_halves
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.tasks.decoding import Decoding

#: The most tokens of a step, and the most whose keys and values a batch holds, by device. With
#: more, a CPU is no faster; a GPU waits for the next operation, so that each step is to hold much.
_STEP_TOKENS = {"cpu": 128, "cuda": 4096}
_HELD = {"cpu": 32_768, "cuda": 1_048_576}
#: The part of the bytes that keys and values may take by default which a batch fills at most.
_PART = 4


class Start(NamedTuple):
    """A row that is to go on.

    Args:
        row: The row up to the answer.
        limit: The most tokens to add, at least 1.
        seeds: A seed for each answer that is drawn.
    """

    row: InputRow
    limit: int
    seeds: Sequence[int] = ()

    def told(self) -> str:
        """What it is, and what to do where memory does not hold it."""
        return (
            f"{self.row.tokens} tokens and the {self.limit} to be generated: take fewer of these, "
            "fewer beams or samples, a smaller model, or another device"
        )

    @staticmethod
    def of(lm: LanguageModel, row: InputRow, decoding: Decoding, place: str) -> Start:
        """A row that goes on as its task says, or as far as the model's context reaches.

        Args:
            lm: The model.
            row: The row up to the answer.
            decoding: The way in which answers are generated.
            place: Where the row stands, which gives it its seeds.
        """
        room = decoding.tokens if lm.context is None else row.room(lm.context)
        return Start(row, min(decoding.tokens, room), decoding.seeds(place))


def go_on(
    lm: LanguageModel,
    starts: Sequence[Start],
    library: Library,
    ended: Ended,
    decoding: Decoding,
    memory: int | None = None,
) -> tuple[list[Written], int]:
    """The answers of rows; a model that does not write fills them in.

    Args:
        lm: The model.
        starts: The rows.
        library: The prompts.
        ended: Says whether an answer's tokens so far are all that is wanted; it is asked after each
            token.
        decoding: The way in which tokens are chosen; the number of tokens is up to each row.
        memory: The bytes for keys and values; None: a part of the device's memory.

    Returns:
        The answers of each row, and the number of tokens that went through the LM.

    Raises:
        ModelError: The memory of the device does not hold a single row.
    """
    if not lm.family.writes:
        return fill(lm, [start.row for start in starts], library, [s.limit for s in starts])
    found: dict[int, Written] = {}
    computed = 0
    with torch.inference_mode(), lm.passes.fast():
        for places in _batches(lm, starts, decoding, memory):
            batch = partial(_batch, lm, library=library, ended=ended, decoding=decoding)
            parts = in_halves(batch, [starts[i] for i in places], lm.devices, Start.told)
            written = [one for some, _ in parts for one in some]
            found.update(zip(places, written, strict=True))
            computed += sum(count for _, count in parts)
    return [found[i] for i in range(len(starts))], computed


def _batch(
    lm: LanguageModel,
    starts: Sequence[Start],
    library: Library,
    ended: Ended,
    decoding: Decoding,
) -> tuple[list[Written], int]:
    """The answers of rows that go through the LM together."""
    decoders = [decoder(start.limit, ended, decoding, start.seeds) for start in starts]
    steps = max(start.limit for start in starts)
    rows = growing(lm, [start.row for start in starts], library, _branches(decoding), steps)
    broken: set[int] = set()
    states = rows.begin()
    while True:
        live = rows.live
        logits = lm.passes.logits(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        finite = logits.amax(-1).isfinite().all(-1)
        if not bool(finite.all()):
            logits[~finite] = 0.0
            broken.update(i for i, good in zip(live, finite.tolist(), strict=True) if not good)
        take([decoders[i] for i in live], logits, decoding)
        rows.drop([i for i in live if i in broken or not decoders[i].going])
        if not (live := rows.live):
            break
        origins = [own.origins for i in live if isinstance(own := decoders[i], Beams)]
        states = rows.step([decoders[i].last for i in live], origins)
    nothing = Written((), (), 0)
    written = [nothing if i in broken else own.written for i, own in enumerate(decoders)]
    return written, rows.computed


def _batches(
    lm: LanguageModel, starts: Sequence[Start], decoding: Decoding, memory: int | None
) -> Iterator[list[int]]:
    """The places of rows that go through the LM together.

    Rows below the same trunk come together, the longest first, and as many as a step takes and as
    their keys and values may be held.

    Args:
        lm: The model.
        starts: The rows.
        decoding: The way in which tokens are chosen.
        memory: As for `go_on`.
    """
    branches, held = _branches(decoding), _HELD.get(lm.device.type, _HELD["cpu"])
    if lm.passes.trees or lm.family.encodes:
        room = lm.room() // _PART if memory is None else memory
        held = min(held, room // (lm.passes.values * lm.dtype.itemsize))
    most = max(1, _STEP_TOKENS.get(lm.device.type, _STEP_TOKENS["cpu"]) // branches)
    trunks = {id(start.row.trunk): i for i, start in reversed(list(enumerate(starts)))}
    order = sorted(
        range(len(starts)), key=lambda i: (trunks[id(starts[i].row.trunk)], -starts[i].row.tokens)
    )
    some: list[int] = []
    longest = 0
    for i in order:
        size = starts[i].row.tokens + starts[i].limit * branches
        if some and (len(some) == most or max(longest, size) * (len(some) + 1) > held):
            yield some
            some, longest = [], 0
        some.append(i)
        longest = max(longest, size)
    if some:
        yield some


def _branches(decoding: Decoding) -> int:
    return max(decoding.beams, decoding.samples)
