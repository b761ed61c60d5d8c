"""A landscape like that of movie reviews, on which a search takes seconds: no model is asked.

The log-odds of the right answer, prompts x examples, are nearly of rank 6 in the logs of real
searches: how far a prompt leans to one answer, how strongly it brings out what the examples say,
and four weaker patterns. `landscape.json` holds what was fitted to such logs: the patterns of 128
examples, the noise of each, and how much each factor varies from prompt to prompt. Here factors are
drawn anew for the words of a pool, so that there are as many landscapes as seeds. Half of a
factor's variance is the sum of what the words of a prompt bring, a quarter belongs to pairs of
neighbours, a quarter to the prompt alone; held out, ridge regression on the words of real prompts
explains 30 to 67 % of the factors.

`python -m benchmarks.landscape FOLDER...` fits it again, to the logs of studies of choices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Floats, Scores
from promptsearch.testing.planted import PlantedScorer

FITTED = Path(__file__).with_suffix(".json")
#: Examples of the search, select and test split.
SEARCH, SELECT, TEST = 512, 128, 1000
#: Tokens of an example before the slot, and behind it with the prompt's own: as movie reviews cost.
LEAD, TAIL = 25, 2
#: The factors of a prompt, and the shares of their variance that words and pairs of them bring.
FACTORS, WORDS, PAIRS = 6, 0.5, 0.25
#: The numbers of a word that make a pair's effect: their products add up to about a normal number.
_INNER = 8


class Reviews(PlantedScorer):
    """Scores prompts of five of 2,000 words as a model might; what `Objective` needs of one.

    Args:
        seed: Chooses the landscape, and the order of the examples.
        score_on: Search examples per evaluation.
    """

    def __init__(self, seed: int, score_on: int) -> None:
        everything = SEARCH + SELECT + TEST
        super().__init__("separable", seed=seed, pool=2000, length=5, examples=everything)
        self.scored, self.training = np.arange(score_on), np.arange(score_on, SEARCH)
        fitted = {k: np.array(v) for k, v in json.loads(FITTED.read_text()).items()}
        rng = self._rng = np.random.default_rng([seed, 2])
        known = fitted["patterns"].shape[1]
        places = np.concatenate([rng.permutation(known) for _ in range(-(-everything // known))])
        places = places[:everything]
        # The weaker patterns of further examples are as those of the known ones, not the same.
        self._patterns = fitted["patterns"][:, places]
        self._patterns[1] += rng.normal(0, 0.15, everything)
        self._patterns[2:] += rng.normal(0, 0.5, (FACTORS - 2, everything))
        self._labels, self._noise = fitted["labels"][places], fitted["noise"][places]
        self._mean, self._spread = fitted["mean"], fitted["spread"]
        pool, length = len(self.space.pool), self.space.length
        scale = np.sqrt(WORDS / length / 2)  # half of a word's effect is the same at all places
        self._words = scale * (
            rng.normal(size=(FACTORS, 1, pool)) + rng.normal(size=(FACTORS, length, pool))
        )
        self._pairs = rng.normal(size=(2, FACTORS, length - 1, pool, _INNER))
        self._known: dict[str, tuple[Floats, Floats]] = {}

    def rows(self, prompts: Sequence[Prompt]) -> tuple[Floats, Floats]:
        """Losses in nats and right answers on all examples, each `(prompts, examples)`."""
        found = [self._row(prompt) for prompt in prompts]
        return np.stack([loss for loss, _ in found]), np.stack([right for _, right in found])

    def _row(self, prompt: Prompt) -> tuple[Floats, Floats]:
        if prompt.key not in self._known:
            words = self.space.indices(HardPrompt.among([prompt])[0])
            at, rng = np.arange(len(words)), np.random.default_rng(int(prompt.key, 16))
            first, second = (
                self._pairs[side][:, at[:-1], part]
                for side, part in enumerate((words[:-1], words[1:]))
            )
            pairs = (first * second).sum((1, 2)) * np.sqrt(PAIRS / len(at[1:]) / _INNER)
            own = rng.normal(size=FACTORS) * np.sqrt(1 - WORDS - PAIRS)
            factors = self._words[:, at, words].sum(1) + pairs + own
            odds = (self._mean + self._spread * factors) @ self._patterns
            odds = self._labels * (odds + rng.normal(size=len(odds)) * self._noise)
            self._known[prompt.key] = np.logaddexp(0, -odds), (odds > 0).astype(float)
        return self._known[prompt.key]

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """Drawn by the landscape, the same each time."""
        losses, right = self.rows(prompts)
        return Scores(losses[:, examples], right[:, examples], None, 0)

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """Paid once, shape `(examples,)`."""
        return np.full(len(examples), LEAD)

    def context(self, examples: ExampleIds) -> ExampleIds:
        """Paid each time, shape `(examples,)`."""
        return np.full(len(examples), TAIL)


def fit(folders: Iterable[Path]) -> dict[str, Any]:
    """What `landscape.json` holds, from the logs of runs on the same examples with two choices."""
    rows: dict[str, tuple[Floats, Floats]] = {}
    for path in sorted(p for folder in folders for p in folder.rglob("evaluations.jsonl")):
        for line in map(json.loads, path.read_text("utf-8").splitlines()):
            if line.get("stage") != "search" or line["examples"] != "score_on":
                continue
            for data, losses, choices in zip(
                line["prompts"], line["losses"], line["choices"], strict=True
            ):
                if data["kind"] == "hard" and losses is not None:
                    nats = np.array([c or [np.nan] * 2 for c in choices], dtype=np.float64)
                    odds, loss = nats[:, 1] - nats[:, 0], np.array(losses, dtype=np.float64)
                    old = rows.get(data["key"])
                    if old is None or np.isfinite(old[0]).sum() < np.isfinite(odds).sum():
                        rows[data["key"]] = odds, loss
    most = max(len(odds) for odds, _ in rows.values())
    table = np.full((2, len(rows), most), np.nan)
    for i, (odds, loss) in enumerate(rows.values()):
        table[0, i, : len(odds)], table[1, i, : len(odds)] = odds, loss
    odds, losses = table
    whole = np.isfinite(odds).all(1)
    full = odds[whole]
    labels = np.where(_misfit(full, losses[whole]) < _misfit(-full, losses[whole]), 1, -1)
    # The two that can be named, and what is left in the order of its share.
    patterns = np.stack([np.ones(most), full.mean(0) - full.mean()])
    left = full - full @ np.linalg.pinv(patterns) @ patterns
    _, _, directions = np.linalg.svd(left, full_matrices=False)
    patterns = np.vstack([patterns, directions[: FACTORS - 2] * np.sqrt(most)])
    known = full @ np.linalg.pinv(patterns)
    noise = (full - known @ patterns).std(0)
    factors = np.stack([_factors(row, patterns, known, noise) for row in odds])
    found = {
        "patterns": patterns,
        "labels": labels,
        "noise": noise,
        "mean": factors.mean(0),
        "spread": factors.std(0),
    }
    return {name: np.round(value, 4).tolist() for name, value in found.items()}


def _misfit(odds: Floats, losses: Floats) -> Floats:
    """How far losses are from those of right answers with these log-odds, `(examples,)`."""
    found: Floats = np.abs(np.logaddexp(0, -odds) - losses).mean(0)
    return found


def _factors(row: Floats, patterns: Floats, known: Floats, noise: Floats) -> Floats:
    """The factors of one prompt, by ridge regression on the examples that it was scored on."""
    seen = np.isfinite(row)
    prior, some = np.linalg.inv(2 * np.cov(known.T)), patterns[:, seen] / noise[seen] ** 2
    found: Floats = np.linalg.solve(
        prior + some @ patterns[:, seen].T, prior @ known.mean(0) + some @ row[seen]
    )
    return found


if __name__ == "__main__":
    FITTED.write_text(json.dumps(fit(map(Path, sys.argv[1:]))) + "\n")
