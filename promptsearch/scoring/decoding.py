"""Continuations of many rows at once, whatever stands above each of them: greedy, or drawn.

The keys and values of a row are computed once and grow by a token a step. They lie in one table, each row from its left, so
that no token's position depends on the other rows: there is no padding on the left, and none that any token sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.models.attention import Forest
from promptsearch.scoring.forward import embed, extend, run
from promptsearch.scoring.ready import Library, Row
from promptsearch.scoring.tree import grow


@dataclass(frozen=True)
class Sampling:
    """How next tokens are drawn.

    Args:
        temperature: Logits are divided by it, above 0.
        top_p: Tokens are drawn from the most probable ones that have this probability together (Holtzman et al. 2020, "The
            Curious Case of Neural Text Degeneration", arXiv:1904.09751, section 3.1).
        seeds: One a row: what is drawn for a row does not depend on the others.
    """

    temperature: float
    top_p: float
    seeds: Sequence[int]


def decode(
    lm: LanguageModel,
    rows: Sequence[Row],
    library: Library,
    limits: Sequence[int],
    ended: Callable[[Sequence[int]], bool],
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """The most probable next token, or a drawn one, again and again.

    Args:
        lm: The model.
        rows: To be continued.
        library: The prompts.
        limits: The most tokens to add to each row, at least 1.
        ended: Whether a row's new tokens, one more than at the last call, are all that is wanted.
        sampling: None: always the most probable token.

    Returns:
        The new tokens of each row.
    """
    found: list[list[int]] = [[] for _ in rows]
    live = list(range(len(rows)))
    generators = (
        [torch.Generator().manual_seed(seed) for seed in sampling.seeds] if sampling else []
    )
    with torch.inference_mode():
        table = _Table(lm, rows, library, limits) if lm.trees else None
        states = table.states if table else _whole(lm, rows, library, found, live)
        while True:
            logits = lm.logits(states)
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
    """A token for each row, shape `(rows,)`, from logits of shape `(rows, vocabulary)`; one number of each row's generator."""
    probabilities = (logits.cpu().double() / sampling.temperature).softmax(-1)
    shares, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    below = shares.cumsum(
        -1
    )  # (rows, vocabulary): the probability of a token and of all more probable ones
    count = ((below - shares) < sampling.top_p).sum(
        -1, keepdim=True
    )  # the most probable token always stays
    points = torch.stack(
        [torch.rand(1, generator=each, dtype=torch.float64) for each in generators]
    )  # (rows, 1)
    places = torch.searchsorted(below, points * below.gather(1, count - 1), right=True)
    return ids.gather(1, torch.minimum(places, count - 1))[:, 0]


def _whole(
    lm: LanguageModel,
    rows: Sequence[Row],
    library: Library,
    found: Sequence[Sequence[int]],
    live: Sequence[int],
) -> Tensor:
    """Last hidden states of whole rows, for a model whose rows keep nothing, shape `(live, width)`."""
    paths = [(*rows[i].ids, *found[i]) for i in live]
    states, begins = run(lm, [grow([path]) for path in paths], None, library.vectors)
    return states[[begin + len(path) - 1 for begin, path in zip(begins, paths, strict=True)]]


class _Table:
    """Keys and values of rows that grow.

    Args:
        lm: The model.
        rows: What they begin with.
        library: The prompts.
        limits: The most tokens that each grows by.

    Attributes:
        states: Of the last token of each row, shape `(rows, width)`.
    """

    def __init__(
        self, lm: LanguageModel, rows: Sequence[Row], library: Library, limits: Sequence[int]
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
        """Forget all rows but these."""
        places = torch.tensor(stay, device=self._lm.device)
        self._kept, self._lengths = self._kept[places], self._lengths[places]
        self._owners = [self._owners[place] for place in stay]

    def step(self, tokens: Sequence[int]) -> Tensor:
        """One more token for each row; returns its hidden states, shape `(rows, width)`."""
        above = int(self._lengths.max())
        places = torch.arange(above, device=self._lm.device)
        rows = torch.arange(len(tokens), device=self._lm.device)
        own = torch.ones(len(tokens), 1, dtype=torch.bool, device=self._lm.device)
        forest = Forest(
            positions=self._lengths,
            size=1,
            visible=torch.cat([places < self._lengths[:, None], own], 1)[
                :, None
            ],  # (rows, 1, above + 1)
            key_positions=torch.cat([places.expand(len(tokens), -1), self._lengths[:, None]], 1),
            trunk=self._kept[:, :above],
            record=True,
            adaption=self._library.beside(self._owners),
        )
        ids = torch.tensor(tokens, device=self._lm.device)
        states = self._lm.hidden(embed(self._lm, ids, None), forest)
        self._kept[rows, self._lengths] = forest.recorded
        self._lengths = self._lengths + 1
        return states
