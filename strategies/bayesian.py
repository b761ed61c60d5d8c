"""Bayesian optimisation: a Gaussian process guesses losses, and says how sure it is of them.

    >>> from promptsearch.search.loop import search
    >>> from promptsearch.testing.planted import planted_objective
    >>> objective = planted_objective("separable")
    >>> search(Bayesian(objective, seed=0))
    '2 prompts were asked for and 0 could be paid'
    >>> round(objective.ranking[0].value, 1)  # nats
    0.3

Jones, Schonlau and Welch 1998, "Efficient Global Optimization of Expensive Black-Box Functions",
J. Global Optimization 13: the prompt that is scored next is the one with the highest expected
improvement (their equation 15). The process, `promptsearch.search.gaussian_process`, is that of
Duvenaud, Nickisch and Rasmussen 2011, "Additive Gaussian Processes", arXiv:1112.4394.

Differs from the papers: the process is fitted to the logarithm of the losses, if all are above 0;
improvement is looked for among changes of the best prompts and random ones; several prompts are
asked for at once. The first prompts are scored on all examples. From these losses the strategy
picks the few examples whose mean follows that of all examples most closely. The next prompts are
scored on these few, and the most promising of them on all. What is to be improved is the loss on
all examples, in either case: a second process, `promptsearch.search.cokriging`, learns how far the
few are from all (Kennedy and O'Hagan 2000, https://doi.org/10.1093/biomet/87.1.1).

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from promptsearch import Ask, Evaluation, HardPrompt, Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.scores import Floats
from promptsearch.search.cokriging import Link, link
from promptsearch.search.gaussian_process import Process, Rows, fit
from promptsearch.search.options import Count

#: The hyper-parameters are chosen anew when the prompts to learn from are this many times as many.
_GROWTH = 1.2
#: The most prompts that the process learns from, the best ones: its cost grows with their cube.
_MOST = 400


class Bayesian(Strategy):
    """Let a Gaussian process over the tokens say which prompts are worth scoring.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws.
        first: Random prompts, which are scored on all examples.
        batch: Prompts in each ask.
        candidates: Prompts among which improvement is looked for, each time.
        examples: Share of `score_on` on which later prompts are scored first; 1 scores all prompts
            on all examples.
        full: Share of the scores, of a prompt on an example, that goes to prompts on all examples.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        first: Count = 16,
        batch: Count = 8,
        candidates: Count = 3_000,
        examples: Annotated[float, Field(gt=0, le=1)] = 0.25,
        full: Annotated[float, Field(gt=0, le=1)] = 0.3,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._first, self._batch, self._candidates, self._full = first, batch, candidates, full
        self._count = max(1, round(examples * len(objective.scored)))
        # Places in `score_on` of the few examples on which later prompts are scored first.
        self._few: NDArray[np.int64] | None = None
        self.vectors = directions(objective)
        # Indices into the pool -> mean loss on the few examples; +inf where scoring failed.
        self._seen: dict[tuple[int, ...], float] = {}
        # Indices into the pool -> mean loss on all examples; +inf where scoring failed or a race
        # dropped the prompt.
        self._whole: dict[tuple[int, ...], float] = {}
        self._process: Process | None = None
        self._link: Link | None = None  # None: the few examples speak for all
        self._scores, self._whole_scores = 0, 0  # of a prompt on an example
        self._dropped = False  # whether a race has dropped a prompt, so that all examples are cheap

    def ask(self) -> Sequence[Prompt] | Ask:
        """Random prompts on all examples at first; then new ones on few examples.

        Whenever scoring on all examples has had no more than its share of the scores, the most
        promising prompts that were scored on few examples are scored on all; without a race, the
        last of the budget goes to them as well, since the first prompts alone may exceed the share.
        """
        space, few = self.objective.space, self._few
        if few is None:
            return self._beginning()
        self._relate(few)
        waiting = sorted(
            (row for row in self._seen if row not in self._whole), key=self._seen.__getitem__
        )
        scored = [row for row in waiting if np.isfinite(self._seen[row])]
        due = self._whole_scores <= self._full * self._scores or self._ending(few)
        if scored and due:
            losses = self._scaled([self._seen[row] for row in scored])
            improvement = self._improvement(np.array(scored), losses, np.zeros(len(scored)))
            best = np.argsort(-improvement, kind="stable")[: max(1, self._batch // 4)]
            return [space.prompt(scored[i]) for i in best]
        rows = self._fresh()
        if not rows:  # the whole space was seen
            return [space.prompt(row) for row in waiting[: self._batch]]
        prompts = [space.prompt(row) for row in rows]
        return (
            prompts
            if len(few) == len(self.objective.scored)
            else Ask(prompts, self.objective.scored[few])
        )

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Remember the losses on the few examples and on all, from which the processes learn."""
        whole = len(evaluation.examples) == len(self.objective.scored)
        # Not in tokens: the first ask pays for what all later ones share. What a race never scored,
        # since it dropped the prompt before, is NaN.
        scores = int(np.isfinite(evaluation.losses).sum())
        self._scores += scores
        self._whole_scores += scores if whole else 0
        on_all = evaluation.losses.mean(1)  # NaN where a race dropped the prompt, or it failed
        self._dropped |= bool((np.isnan(on_all) & np.isfinite(evaluation.values)).any())
        if self._few is None:
            self._few = followers(evaluation.losses[np.isfinite(on_all)], self._count)
        means = evaluation.losses[:, self._few].mean(1) if whole else on_all
        losses = np.where(np.isfinite(means), means, evaluation.values)
        for prompt, loss, mean in zip(prompts, losses, on_all, strict=True):
            # Only hard prompts are asked for.
            row = tuple(self.objective.space.indices(prompt).tolist())  # type: ignore[arg-type]
            if whole:
                self._whole[row] = float(mean) if np.isfinite(mean) else float("inf")
            self._seen.setdefault(row, float(loss) if np.isfinite(loss) else float("inf"))

    def _ending(self, few: NDArray[np.int64]) -> bool:
        """Whether new prompts would take what is left for the most promising ones."""
        objective = self.objective
        fresh = self._batch * len(few) / len(objective.scored)  # in prompts on all examples
        left = objective.affordable(objective.space.length)
        return not self._dropped and left < max(1, self._batch // 4) + fresh

    def _relate(self, few: NDArray[np.int64]) -> None:
        """Learn anew how the losses on all examples follow from those on few."""
        rows = [row for row, value in self._whole.items() if np.isfinite(value)]
        if len(few) == len(self.objective.scored) or len(rows) < 2:
            return
        rows = sorted(rows, key=self._whole.__getitem__)[:_MOST]
        old = None if self._link is None else self._link.process
        self._link = link(
            np.array(rows),
            self._scaled([self._seen[row] for row in rows]),
            self._scaled([self._whole[row] for row in rows]),
            self.vectors,
            None if old is None or len(rows) > _GROWTH * old.size else old,
        )

    def _scaled(self, losses: Sequence[float]) -> Floats:
        """Logarithms of losses in nats; where a metric is followed, these are below 0, and stay."""
        found: Floats = np.array(losses)
        if min((*self._seen.values(), *self._whole.values())) >= 0:
            found = np.log(np.maximum(found, 1e-6))
        return found

    def _improvement(self, rows: Rows, few: Floats, deviation: Floats) -> Floats:
        """By how much each prompt is expected to improve on the best loss on all examples.

        Args:
            rows: Prompts, shape `(rows, length)`.
            few: What their losses on the few examples are, or are thought to be, scaled.
            deviation: The standard deviation of these thoughts.
        """
        known = self._seen if self._link is None else self._whole
        if self._link is not None:
            few, deviation = self._link.predict(rows, few, deviation, self.vectors)
        least = float(self._scaled(list(known.values())).min())
        return expected_improvement(few, np.maximum(deviation, 1e-9), least)

    def _beginning(self) -> list[HardPrompt]:
        """Random prompts, the first of which is the winner that the run starts from, if any."""
        rows = [self.objective.space.prompt(row) for row in self._random(self._first)]
        if self.objective.start is None:
            return rows
        start = self.first_words(None, self._rng)
        return [start, *(prompt for prompt in rows if prompt != start)][: self._first]

    def _fresh(self) -> list[tuple[int, ...]]:
        """New prompts, those with the highest expected improvement."""
        known = [row for row, value in self._seen.items() if np.isfinite(value)]
        if len(known) < 2:
            return self._random(self._batch)
        best = sorted(known, key=self._seen.__getitem__)[:_MOST]
        rows, losses = np.array(best), self._scaled([self._seen[row] for row in best])
        if self._process is None or len(rows) > _GROWTH * self._process.size:
            self._process = fit(rows, losses, self.vectors)
        if self._link is not None:
            on_all, _ = self._link.predict(rows, losses, np.zeros(len(rows)), self.vectors)
            best = [best[i] for i in np.argsort(on_all, kind="stable")]
        among = np.array(self._among(best[: self._batch]))
        if not len(among):
            return []
        mean, deviation = self._process.predict(rows, losses, among, self.vectors)
        scale = max(float(losses.std()), 1e-9)  # from deviations back to losses
        improvement = self._improvement(among, losses.mean() + scale * mean, scale * deviation)
        return apart(among[np.argsort(-improvement, kind="stable")], self._batch)

    def _among(self, best: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Candidates: the best prompts with one or two tokens changed, and as many random prompts.

        Each stands there once, and none was seen before.
        """
        pool, length = len(self.objective.space.pool), self.objective.space.length
        found: dict[tuple[int, ...], None] = {}
        for _ in range(self._candidates // 2):
            row = list(best[int(self._rng.integers(len(best)))])
            for position in self._rng.choice(
                length, min(length, 1 + int(self._rng.random() < 0.5)), replace=False
            ):
                row[position] = int(self._rng.integers(pool))
            found[tuple(row)] = None
        found.update(
            dict.fromkeys(
                map(tuple, self._rng.integers(pool, size=(self._candidates // 2, length)).tolist())
            )
        )
        fresh = [row for row in found if row not in self._seen]
        return fresh or self._random(self._batch)

    def _random(self, count: int) -> list[tuple[int, ...]]:
        """Random prompts that were not seen, fewer at the end of a small space."""
        pool, length = len(self.objective.space.pool), self.objective.space.length
        count = min(count, self.objective.space.size - len(self._seen))
        found: dict[tuple[int, ...], None] = {}
        while len(found) < count:
            row = tuple(self._rng.integers(pool, size=length).tolist())
            if row not in self._seen:
                found[row] = None
        return list(found)


def expected_improvement(mean: Floats, deviation: Floats, least: float) -> Floats:
    """Equation 15 of Jones et al., for a minimum: by how much a normal number falls below one."""
    better = (least - mean) / deviation
    found: Floats = deviation * (better * norm.cdf(better) + norm.pdf(better))
    return found


def directions(objective: Objective) -> Floats:
    """Embeddings of the pool's tokens, centred and of length 1, shape `(pool, width)`.

    The width is 0 where the LM shows no embeddings.
    """
    pool = objective.space.pool.tolist()
    try:
        embeddings = objective.embeddings
    except StrategyError:  # a model behind an endpoint
        return np.empty((len(pool), 0))
    vectors = embeddings[pool].double().cpu().numpy()
    # Embeddings share a direction, which would make all tokens alike.
    vectors = vectors - vectors.mean(0)
    found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def followers(losses: Floats, count: int) -> NDArray[np.int64]:
    """Examples whose mean loss goes up and down, from prompt to prompt, with that of all examples.

    They are added one by one, the best one first.

    Args:
        losses: Losses of prompts on all examples, shape `(prompts, examples)`.
        count: How many examples to choose.

    Returns:
        The places of the chosen examples, sorted, shape `(count,)`.
    """
    moves = losses - losses.mean(0) if len(losses) else losses.sum(0)[None]
    goal, total, chosen = moves.mean(1), np.zeros(len(moves)), list[int]()
    for _ in range(count):
        # The error of each example if it were added next, shape (examples,).
        error = (((total[:, None] + moves) / (len(chosen) + 1) - goal[:, None]) ** 2).sum(0)
        error[chosen] = np.inf
        chosen.append(int(error.argmin()))
        total = total + moves[:, chosen[-1]]
    return np.sort(np.array(chosen))


def apart(ordered: Rows, count: int) -> list[tuple[int, ...]]:
    """The first `count` rows that differ from each other in more than one token, then others.

    Neighbours, which differ in one token only, would tell nearly the same.

    Args:
        ordered: Prompts, best first, shape `(prompts, length)`.
        count: How many to choose.
    """
    chosen: list[tuple[int, ...]] = []
    rest: list[tuple[int, ...]] = []
    for row in map(tuple, ordered.tolist()):
        if len(chosen) == count:
            break
        near = any(sum(x != y for x, y in zip(row, other, strict=True)) <= 1 for other in chosen)
        (rest if near else chosen).append(row)
    return [*chosen, *rest[: count - len(chosen)]]
