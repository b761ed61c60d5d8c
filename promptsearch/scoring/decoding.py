"""How answers grow: which tokens are taken from logits, and when an answer has come to its end.

A row of a batch has one or more branches: the beams of a search, or the answers that are drawn. A
decoder looks at one row alone, so what is written there does not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from promptsearch.tasks.decoding import Decoding

Ids = tuple[int, ...]
#: Says whether an answer's tokens so far have come to their end.
Ended = Callable[[Sequence[int]], bool]
#: What a score loses that must never be the best, as in transformers.
_NEVER = 1e9
#: Candidates for each beam: as long as no more than three of four end, all beams go on.
_SPARE = 4
#: The most probable tokens, among which a nucleus mostly lies.
_NUCLEUS = 1024


class Written(NamedTuple):
    """The answers of a row.

    Args:
        answers: The tokens of each answer, its end among them: one, or as many as were drawn; none
            where what the model computes is not finite.
        ended: Whether each came to its end; else its tokens ran out.
        tokens: The number of tokens that were generated, those of all beams among them.
    """

    answers: tuple[Ids, ...]
    ended: tuple[bool, ...]
    tokens: int


class Straight:
    """Branches that know nothing of each other: the greedy answer, or those that are drawn.

    Args:
        limit: The most tokens of an answer.
        ended: Says whether an answer has come to its end.
        seeds: A seed for each answer that is drawn; none for the greedy answer.
    """

    def __init__(self, limit: int, ended: Ended, seeds: Sequence[int]) -> None:
        self._limit, self._ended = limit, ended
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        count = max(1, len(seeds))
        self._answers: list[list[int]] = [[] for _ in range(count)]
        self._open, self._came = [True] * count, [False] * count

    @property
    def going(self) -> bool:
        """Whether any answer is still open."""
        return any(self._open)

    @property
    def last(self) -> list[int]:
        """The last token of each branch; nobody reads what follows an answer that is done."""
        return [answer[-1] for answer in self._answers]

    @property
    def written(self) -> Written:
        """The answers as they are."""
        answers = tuple(map(tuple, self._answers))
        return Written(answers, tuple(self._came), sum(map(len, answers)))

    def take(self, tokens: Sequence[int]) -> None:
        """Add a token to each answer that is still open.

        Args:
            tokens: A token for each branch.
        """
        for i, token in enumerate(tokens):
            if self._open[i]:
                self._answers[i].append(token)
                self._came[i] = self._ended(self._answers[i])
                self._open[i] = not self._came[i] and len(self._answers[i]) < self._limit


class _Finished(NamedTuple):
    """A hypothesis that grows no more: its score, its tokens, and whether it came to its end."""

    score: float
    ids: Ids
    came: bool


class Beams:
    """Beam search, as `generate` of transformers 5 does it with `early_stopping=False`.

    In each step, the candidates are the most probable ways to add a token to one of the beams. What
    ends among the first of them is finished, with its summed log-probability divided by a power of
    its length; the best others are the next beams. The search is over when the beams have no better
    score than the worst of as many finished hypotheses, taken at their present length.

    Args:
        limit: The most tokens of an answer.
        ended: Says whether an answer has come to its end.
        count: The number of beams.
        penalty: The exponent of the length.
    """

    def __init__(self, limit: int, ended: Ended, count: int, penalty: float) -> None:
        self._limit, self._ended, self._count, self._penalty = limit, ended, count, penalty
        self._beams: list[Ids] = [()]
        self._finished: list[_Finished] = []
        #: The summed log-probability of each beam.
        self.scores = [0.0]
        #: The beam of the step before that each beam goes on from.
        self.origins = [0] * count
        self.going = True
        self._steps = 0

    @property
    def last(self) -> list[int]:
        """The last token of each beam."""
        return [beam[-1] for beam in self._beams]

    @property
    def written(self) -> Written:
        """The best finished hypothesis."""
        best = self._finished[0]
        return Written((best.ids,), (best.came,), self._steps * self._count)

    def take(self, scores: Sequence[float], origins: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with candidates, the most probable first.

        Args:
            scores: The summed log-probability of each candidate.
            origins: The beam that each goes on from.
            tokens: The token that each adds.
        """
        self._steps += 1
        candidates = [
            (*self._beams[origin], token) for origin, token in zip(origins, tokens, strict=True)
        ]
        length = len(candidates[0])
        power, last = float(length**self._penalty), length >= self._limit
        came = [self._ended(ids) for ids in candidates]
        fresh = [
            _Finished(scores[k] / power, candidates[k], came[k])
            for k in range(min(self._count, len(candidates)))
            if came[k] or last
        ]
        found = sorted([*self._finished, *fresh], key=lambda each: -each.score)
        self._finished = found[: self._count]
        # Where almost all candidates have ended, some of these stay as beams that never win.
        order = sorted(range(len(candidates)), key=lambda k: came[k])
        kept = [order[i % len(order)] for i in range(self._count)]
        self._beams = [candidates[k] for k in kept]
        self.origins = [origins[k] for k in kept]
        self.scores = [
            scores[k] - _NEVER * (came[k] or i >= len(order)) for i, k in enumerate(kept)
        ]
        full = len(self._finished) == self._count
        hopeless = full and self.scores[0] / power <= self._finished[-1].score
        self.going = not (last or all(came) or hopeless)


Decoder = Straight | Beams


def decoder(limit: int, ended: Ended, decoding: Decoding, seeds: Sequence[int]) -> Decoder:
    """What writes the answers of a row.

    Args:
        limit: The most tokens of an answer.
        ended: Says whether an answer has come to its end.
        decoding: The way in which answers are generated.
        seeds: A seed for each answer that is drawn.
    """
    if decoding.beams > 1:
        return Beams(limit, ended, decoding.beams, decoding.length_penalty)
    return Straight(limit, ended, seeds if decoding.temperature else ())


def take(decoders: Sequence[Decoder], logits: Tensor, decoding: Decoding) -> None:
    """Let rows take their next tokens.

    Args:
        decoders: What writes the answers of each row.
        logits: The logits after each branch, float32, shape `(rows, branches, vocabulary)`; in the
            first step, all branches have one in common.
        decoding: The way in which answers are generated.
    """
    searching = [each for each in decoders if isinstance(each, Beams)]
    if searching:
        for own, scores, origins, added in zip(
            searching, *_candidates(searching, logits), strict=True
        ):
            own.take(scores, origins, added)
        return
    straight = [each for each in decoders if isinstance(each, Straight)]
    if decoding.temperature:
        spread = logits.expand(-1, decoding.samples, -1)
        generators = [generator for each in straight for generator in each.generators]
        tokens = draw(spread.flatten(0, 1), decoding, generators).unflatten(0, spread.shape[:2])
    else:
        tokens = logits.argmax(-1)
    for each, chosen in zip(straight, tokens.tolist(), strict=True):
        each.take(chosen)


def _candidates(
    rows: Sequence[Beams], logits: Tensor
) -> tuple[list[list[float]], list[list[int]], list[list[int]]]:
    """The candidates of each row: their scores, the beams they go on from, and their tokens.

    Args:
        rows: The rows.
        logits: As for `take`.
    """
    scores = torch.tensor([own.scores for own in rows], device=logits.device)
    nats = logits.log_softmax(-1) + scores[..., None]
    flat = nats.flatten(1)
    best, places = flat.topk(min(_SPARE * len(rows[0].origins), flat.shape[1]))
    size = logits.shape[-1]
    return best.tolist(), (places // size).tolist(), (places % size).tolist()


def draw(logits: Tensor, decoding: Decoding, generators: Sequence[torch.Generator]) -> Tensor:
    """A drawn token for each row, shape `(rows,)`, which takes one number of the row's generator.

    Sums run over the candidates on the CPU, where their order is always the same.

    Args:
        logits: The rows' logits, shape `(rows, vocabulary)`.
        decoding: The way in which tokens are drawn: temperature and top-p.
        generators: One generator for each row.
    """
    if logits.device.type == "mps":  # it has no float64
        logits = logits.cpu()
    probabilities = (logits.double() / decoding.temperature).softmax(-1)
    points = torch.stack(
        [torch.rand(1, generator=each, dtype=torch.float64) for each in generators]
    )  # (rows, 1)
    if decoding.top_p == 1:  # the order of the candidates does not matter
        below = probabilities.cpu().cumsum(-1)
        places = torch.searchsorted(below, points * below[:, -1:], right=True)
        return torch.minimum(places[:, 0], (below < below[:, -1:]).sum(-1))
    # Where the logits lie on a GPU, only these few leave it.
    shares, ids = (some.cpu() for some in probabilities.topk(min(_NUCLEUS, logits.shape[-1])))
    found = _from_nucleus(shares, ids, points, decoding.top_p)
    # To sort a whole vocabulary takes as long as a pass through a small model.
    if bool((larger := shares.sum(-1) < decoding.top_p).any()):
        rest = probabilities[larger.to(probabilities.device)].cpu()
        shares, ids = rest.sort(dim=-1, descending=True, stable=True)
        found[larger] = _from_nucleus(shares, ids, points[larger], decoding.top_p)
    return found


def _from_nucleus(shares: Tensor, ids: Tensor, points: Tensor, top_p: float) -> Tensor:
    """The drawn token of each row, among the most probable ones that reach `top_p` together.

    Args:
        shares: Probabilities, falling, float64, shape `(rows, candidates)`.
        ids: The tokens that have them, likewise.
        points: A number from 0 to 1 for each row, shape `(rows, 1)`.
        top_p: The probability to reach.
    """
    # The probability of a token together with all more probable ones.
    below = shares.cumsum(-1)
    # The most probable token always stays: the probability before it is 0.
    count = ((below - shares) < top_p).sum(-1, keepdim=True)
    places = torch.searchsorted(below, points * below.gather(1, count - 1), right=True)
    return ids.gather(1, torch.minimum(places, count - 1))[:, 0]
