"""One call of a scorer, the same in search and selection.

It is charged, then read back from the log where an earlier process of the run wrote it, else from the cache, else from the
scorer; then written into the log, and only then into the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.prompts.prompt import Prompt, prompt_to_json
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.scores import Ids, Scores, rounded, scores_from_json, scores_to_json
from promptsearch.scoring.protocol import Scorer, price_of


class Calls:
    """The scored calls of one run.

    Args:
        ledger: The run's account.
        log: Where calls are written and read back.
        cache: Scores of earlier runs; None: there are none.
    """

    def __init__(self, ledger: Ledger, log: RunLog, cache: ScoreCache | None) -> None:
        self._ledger, self._log, self._cache = ledger, log, cache
        self._uncached: list[tuple[str, dict[str, Any]]] = []

    def stage(
        self,
        stage: str,
        split: str,
        scorer: Scorer,
        prompts: list[Prompt],
        ids: Ids,
        *,
        charged: bool,
    ) -> dict[str, Any]:
        """Score prompts in float32 on a split, once: the log line of it.

        Args:
            stage: As in the log.
            split: Its name.
            scorer: The split in float32.
            prompts: The best so far, best first.
            ids: Examples of the split.
            charged: Whether it is on the bill; what is looked at when all is chosen is not.

        Raises:
            StudyError: None of the prompts could be scored.
        """
        price = 0
        if charged:
            lead = (
                int(scorer.lead(ids).sum()) if split == "select" else 0
            )  # of score_on: paid in the search
            price = lead + sum(price_of(scorer, scorer.length(p), ids) for p in prompts)
            self._ledger.charge(forward=price)
        line = self.replayed(stage, prompts)
        if line is None:
            scores = scores_to_json(self.scores(scorer, prompts, ids, price, charged=charged))
            line = self.write(stage, split, prompts, scores)
        else:
            self._log.check(line, len(ids), self._ledger.to_json())
        if len(line["failures"]) == len(prompts) and stage != "empty":
            raise StudyError(
                f"none of the best prompts could be scored on the {split} split in float32: {line['failures']['0']}"
            )
        return line

    def replayed(self, stage: str, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
        """The line that an earlier process wrote about these prompts."""
        line = self._log.replay(stage, [p.key for p in prompts])
        if line is not None:
            self._ledger.cached = line["ledger"]["cached"]
            self._ledger.computed = line["ledger"]["computed"]
        return line

    def scores(
        self,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        ids: Ids,
        price: int,
        *,
        charged: bool = True,
    ) -> Scores:
        """From the cache, or from the scorer, and then meant for the cache."""
        keys = [p.key for p in prompts]
        known = (
            self._cache.get(ScoreCache.name(scorer.signature, keys, ids)) if self._cache else None
        )
        if known is not None:
            self._ledger.cached += price
            return scores_from_json(known)
        scores = scorer.score(prompts, ids)
        if charged:
            self._ledger.computed += scores.computed
        if self._cache and not scores.failures:
            # Named anew: where memory ran out on the way, the engine goes on in smaller passes, under another name.
            name = ScoreCache.name(scorer.signature, keys, ids)
            self._uncached.append((name, scores_to_json(scores)))
        return rounded(scores)  # what a race decides by is the same, fresh or from the cache

    def write(
        self,
        stage: str,
        examples: str | list[int],
        prompts: Sequence[Prompt],
        scores: dict[str, Any],
        price: int | None = None,
    ) -> dict[str, Any]:
        """The log line of new scores; of a search, with its price.

        Scores go into the cache only now: a process that was killed before this line must not find its own.
        """
        line = {
            "stage": stage,
            "examples": examples,
            "prompts": [prompt_to_json(p) for p in prompts],
            **scores,
            **({} if price is None else {"price": price}),
            "ledger": self._ledger.to_json(),
        }
        self._log.append(line)
        if self._cache:
            for name, content in self._uncached:
                self._cache.put(name, content)
        self._uncached.clear()
        return line
