"""Asks cut into chunks, so that several processes can score one.

Where a chunk begins and ends depends on its prompts and examples alone, never on who scores it: so
the numbers are the same with one process and with many. A chunk is some prompts, in their order,
with all examples; a prompt that is too large for one chunk is cut by its examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Scores, clear_failed
from promptsearch.scoring.protocol import price_of
from promptsearch.scoring.scorer import SplitScorer

#: The most tokens of a chunk as they are charged, by device. They fill several passes (see
#: `sharing.PASS_TOKENS`), and take a second or more on a model that is worth it.
CHUNK_TOKENS = {"cpu": 4_096, "cuda": 131_072}


class Chunk(NamedTuple):
    """A part of an ask.

    Args:
        prompts: The places of its prompts in the ask.
        examples: The places of its examples in the ask.
    """

    prompts: range
    examples: range


class Hands(Protocol):
    """Who scores the chunks of an ask."""

    def scored(
        self,
        name: str,
        scorer: SplitScorer,
        parts: Sequence[tuple[Sequence[Prompt], ExampleIds]],
    ) -> list[Scores]:
        """The scores of each part.

        Args:
            name: What the scorer is called in all processes of the study.
            scorer: The scorer in this one.
            parts: The prompts and the examples of each chunk.

        Raises:
            PromptSearchError: What the first chunk failed with that did.
        """


class ChunkedScorer:
    """A scorer whose asks are cut into chunks, see `promptsearch.scoring.scorer.SplitScorer`.

    Only scores are: gradients and generated answers are computed here, as they were.

    Args:
        name: What the scorer is called in all processes of the study.
        scorer: The scorer in this process.
        most: The most tokens of a chunk, as they are charged.
        hands: Who scores the chunks.
    """

    def __init__(self, name: str, scorer: SplitScorer, most: int, hands: Hands) -> None:
        self._name, self._scorer, self._most, self._hands = name, scorer, most, hands
        # All else is the scorer's own.
        self.white_box = scorer.white_box
        self.length, self.adds, self.fits = scorer.length, scorer.adds, scorer.fits
        self.context, self.lead, self.tail = scorer.context, scorer.lead, scorer.tail
        self.readings, self.examples, self.encode = scorer.readings, scorer.examples, scorer.encode
        self.demonstrations, self.generate = scorer.demonstrations, scorer.generate
        self.check_joints, self.predict = scorer.check_joints, scorer.predict
        self.anatomy, self.kept_lead, self.forget = scorer.anatomy, scorer.kept_lead, scorer.forget

    @property
    def signature(self) -> str:
        """The scorer's, and where its asks are cut: the last digits depend on it."""
        return repr((self._scorer.signature, "chunks", self._most))

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """The scores of all prompts on all examples."""
        sizes = [price_of(self, self.length(p) if self.fits(p) else 0, examples) for p in prompts]
        chunks = list(cut(sizes, len(examples), self._most))
        parts = [
            (
                [prompts[i] for i in chunk.prompts],
                examples[chunk.examples.start : chunk.examples.stop],
            )
            for chunk in chunks
        ]
        found = self._hands.scored(self._name, self._scorer, parts)
        return _joined(chunks, found, (len(prompts), len(examples)))

    @property
    def kept(self) -> tuple[int, int]:
        """The number of tokens for which this process keeps something, and its bytes."""
        return self._scorer.kept


def cut_in_chunks(
    scorers: Mapping[str, SplitScorer], device: str, hands: Hands
) -> dict[SplitScorer, ChunkedScorer]:
    """Scorers whose asks are cut into chunks, in place of others.

    Args:
        scorers: The others, by names that are the same in every process of the study; one may have
            several.
        device: The kind of device on which they compute.
        hands: Who scores the chunks.
    """
    most = CHUNK_TOKENS.get(device, CHUNK_TOKENS["cpu"])
    found: dict[SplitScorer, ChunkedScorer] = {}
    for name, scorer in scorers.items():
        found.setdefault(scorer, ChunkedScorer(name, scorer, most, hands))
    return found


def cut(sizes: Sequence[int], examples: int, most: int) -> Iterator[Chunk]:
    """The chunks of an ask, in order.

    Args:
        sizes: The tokens that each prompt is charged on all examples.
        examples: The number of examples.
        most: The most tokens of a chunk.
    """
    begin, total = 0, 0
    for at, size in enumerate(sizes):
        if at > begin and total + size > most:
            yield Chunk(range(begin, at), range(examples))
            begin, total = at, 0
        total += size
        if total > most and examples > 1:  # it is the only one
            pieces = min(examples, -(-total // most))
            edges = [examples * i // pieces for i in range(pieces + 1)]
            for first, last in zip(edges, edges[1:], strict=False):
                yield Chunk(range(at, at + 1), range(first, last))
            begin, total = at + 1, 0
    if begin < len(sizes):
        yield Chunk(range(begin, len(sizes)), range(examples))


def _joined(chunks: Sequence[Chunk], found: Sequence[Scores], shape: tuple[int, int]) -> Scores:
    """The scores of an ask from those of its chunks; a prompt that failed in one has failed."""
    losses, metric = np.full(shape, np.nan), np.full(shape, np.nan)
    options = next((one.choices.shape[2] for one in found if one.choices is not None), None)
    choices = None if options is None else np.full((*shape, options), np.nan)
    failures: dict[int, str] = {}
    for chunk, scores in zip(chunks, found, strict=True):
        where = np.ix_(chunk.prompts, chunk.examples)
        losses[where], metric[where] = scores.losses, scores.metric
        if choices is not None and scores.choices is not None:
            choices[where] = scores.choices
        for i, reason in scores.failures.items():
            failures.setdefault(chunk.prompts[i], reason)
    clear_failed(failures, losses, metric, choices)
    return Scores(losses, metric, choices, sum(one.computed for one in found), failures)
