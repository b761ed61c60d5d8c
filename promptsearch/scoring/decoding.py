"""Continuations of many rows at once, greedy or drawn, whatever each row begins with.

The keys and values of a row are computed once and grow by one token in each step. They lie in one
table, where each row begins at the left edge, so that no token's position depends on the other
rows: there is no padding on the left, and no token sees the padding on the right. The owner of a
row is the place of the gated prompt that the row attends to, among the gated prompts of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.models.causal.attention import Forest
from promptsearch.scoring.forward import embed, extend, run
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.scoring.tree import grow


@dataclass(frozen=True)
class Sampling:
    """The way in which next tokens are drawn.

    Args:
        temperature: The number that logits are divided by, above 0.
        top_p: The probability that the candidates have together: tokens are drawn from the fewest
            most probable ones that reach it (Holtzman et al. 2020, "The Curious Case of Neural
            Text Degeneration", arXiv:1904.09751, section 3.1).
        seeds: One seed for each row, so that what is drawn for a row does not depend on the others.
    """

    temperature: float
    top_p: float
    seeds: Sequence[int]


def decode(
    lm: LanguageModel,
    rows: Sequence[InputRow],
    library: Library,
    limits: Sequence[int],
    ended: Callable[[Sequence[int]], bool],
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """The continuations of rows: the most probable next token, or a drawn one, again and again.

    Args:
        lm: The model.
        rows: The rows to continue.
        library: The prompts.
        limits: The most tokens to add to each row, at least 1.
        ended: Says whether a row's new tokens are all that is wanted; called after each of them.
        sampling: The way in which tokens are drawn; None: always the most probable token.

    Returns:
        The new tokens of each row.
    """
    found: list[list[int]] = [[] for _ in rows]
    live = list(range(len(rows)))
    generators = (
        [torch.Generator().manual_seed(seed) for seed in sampling.seeds] if sampling else []
    )
    with torch.inference_mode():
        table = _Table(lm, rows, library, limits) if lm.passes.trees else None
        states = table.states if table else _whole(lm, rows, library, found, live)
        while True:
            logits = lm.passes.logits(states)
            chosen = (
                _draw(logits, sampling, [generators[i] for i in live])
                if sampling
                else logits.argmax(-1)
            )
            for i, token in zip(live, chosen.tolist(), strict=True):
                found[i].append(token)
            stay = [
                place
                for place, i in enumerate(live)
                if len(found[i]) < limits[i] and not ended(found[i])
            ]
            if not stay:
                return found
            if len(stay) < len(live):
                live = [live[place] for place in stay]
                if table:
                    table.keep(stay)
            states = (
                table.step([found[i][-1] for i in live])
                if table
                else _whole(lm, rows, library, found, live)
            )


def _draw(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """A drawn token for each row, shape `(rows,)`, which takes one number of the row's generator.

    Args:
        logits: The rows' logits, shape `(rows, vocabulary)`.
        sampling: The way in which tokens are drawn.
        generators: One generator for each row.
    """
    probabilities = (logits.cpu().double() / sampling.temperature).softmax(-1)
    shares, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    # The probability of a token together with all more probable ones, shape (rows, vocabulary).
    below = shares.cumsum(-1)
    # The most probable token always stays: the probability before it is 0.
    count = ((below - shares) < sampling.top_p).sum(-1, keepdim=True)
    points = torch.stack(
        [torch.rand(1, generator=each, dtype=torch.float64) for each in generators]
    )  # (rows, 1)
    places = torch.searchsorted(below, points * below.gather(1, count - 1), right=True)
    return ids.gather(1, torch.minimum(places, count - 1))[:, 0]


def _whole(
    lm: LanguageModel,
    rows: Sequence[InputRow],
    library: Library,
    found: Sequence[Sequence[int]],
    live: Sequence[int],
) -> Tensor:
    """The last hidden states at the ends of rows, shape `(live, width)`.

    Whole rows are computed, because the model cannot go on from kept keys and values.

    Args:
        lm: The model.
        rows: All rows.
        library: The prompts.
        found: The new tokens of all rows.
        live: The places of the rows that still go on.
    """
    paths = [(*rows[i].ids, *found[i]) for i in live]
    states, begins = run(lm, [grow([path]) for path in paths], None, library.vectors)
    return states[[begin + len(path) - 1 for begin, path in zip(begins, paths, strict=True)]]


class _Table:
    """The keys and values of rows that grow.

    Args:
        lm: The model.
        rows: The rows as they begin.
        library: The prompts.
        limits: The most tokens that each row grows by.

    Attributes:
        states: The last hidden state at each row's last token, shape `(rows, width)`, before any
            step.
    """

    def __init__(
        self, lm: LanguageModel, rows: Sequence[InputRow], library: Library, limits: Sequence[int]
    ) -> None:
        self._lm, self._library = lm, library
        self._owners = [row.owner for row in rows]
        beside = library.beside(self._owners)
        self.states, kept = extend(
            lm, [row.ids for row in rows], [row.trunk for row in rows], library.vectors, beside
        )
        room = max(row.tokens + limit for row, limit in zip(rows, limits, strict=True))
        self._lengths = torch.tensor([len(each) for each in kept], device=lm.device)
        self._kept = kept[0].new_zeros(len(rows), room, kept[0].shape[1])  # (rows, room, values)
        for place, each in enumerate(kept):
            self._kept[place, : len(each)] = each

    def keep(self, stay: Sequence[int]) -> None:
        """Forget all rows but these.

        Args:
            stay: The places of the rows that stay.
        """
        places = torch.tensor(stay, device=self._lm.device)
        self._kept, self._lengths = self._kept[places], self._lengths[places]
        self._owners = [self._owners[place] for place in stay]

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add one token to each row.

        Args:
            tokens: One id for each row.

        Returns:
            The last hidden states of these tokens, shape `(rows, width)`.
        """
        above = int(self._lengths.max())
        places = torch.arange(above, device=self._lm.device)
        rows = torch.arange(len(tokens), device=self._lm.device)
        own = torch.ones(len(tokens), 1, dtype=torch.bool, device=self._lm.device)
        forest = Forest(
            positions=self._lengths,
            size=1,
            # Shape (rows, 1, above + 1).
            visible=torch.cat([places < self._lengths[:, None], own], 1)[:, None],
            key_positions=torch.cat([places.expand(len(tokens), -1), self._lengths[:, None]], 1),
            trunk=self._kept[:, :above],
            record=True,
            adaption=self._library.beside(self._owners),
        )
        ids = torch.tensor(tokens, device=self._lm.device)
        states = self._lm.passes.hidden(embed(self._lm, ids, None), forest)
        self._kept[rows, self._lengths] = forest.recorded
        self._lengths = self._lengths + 1
        return states
