"""One call of a scorer, the same in search and selection.

What the search itself has scored in float32 is known in selection. Any other call is charged first.
Its scores are then read from the log where an earlier process of the run wrote them there, else
from the cache, else they come from the scorer. New scores are written into the log, and only then
into the cache.

The "lead" of an example is, as in the engine, its text before the first slot, which a run pays for
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.scores import (
    ExampleIds,
    Floats,
    Scores,
    generated_to_json,
    rounded,
    scores_from_json,
    scores_to_json,
)
from promptsearch.scoring.protocol import Scorer, price_of, price_of_generation
from promptsearch.search.halving import halve
from promptsearch.tasks.decoding import Decoding

#: Stages that change nothing of what is chosen, and may fail without harm.
SHOWN = ("anytime", "empty")


class Calls:
    """The scored calls of one run.

    Args:
        ledger: The run's ledger.
        log: Where calls are written and read back.
        cache: Scores of earlier runs; None where there are none.
        known: Returns the scores that the search has seen of prompts by a scorer on examples; None
            where it has not seen all of them.
    """

    def __init__(
        self,
        ledger: Ledger,
        log: RunLog,
        cache: ScoreCache | None,
        known: Callable[[Scorer, Sequence[Prompt], ExampleIds], Scores | None],
    ) -> None:
        self._ledger, self._log, self._cache, self._known = ledger, log, cache, known
        self._uncached: list[tuple[str, dict[str, Any]]] = []

    def stage(
        self,
        stage: str,
        split: str,
        scorer: Scorer,
        prompts: list[Prompt],
        ids: ExampleIds,
        *,
        charged: bool,
    ) -> dict[str, Any]:
        """Score prompts in float32 on a split, once, and return the log line about it.

        Args:
            stage: The name of the stage, as in the log.
            split: The name of the split.
            scorer: The scorer of the split, in float32.
            prompts: The best prompts so far, best first.
            ids: Ids of examples of the split, shape `(examples,)`.
            charged: Whether the call is charged; what is looked at after all is chosen is not.

        Raises:
            StudyError: None of the prompts could be scored.
        """
        price, known = 0, self._known(scorer, prompts, ids)
        if charged and known is None:
            # The lead of the examples of score_on was paid in the search.
            lead = int(scorer.lead(ids).sum()) if split == "select" else 0
            price = lead + sum(price_of(scorer, scorer.length(p), ids) for p in prompts)
            self._ledger.charge(forward=price)
        line = self.replayed(stage, prompts)
        if line is None:
            found = known or self.scores(scorer, prompts, ids, price, charged=charged)
            line = self.write(stage, split, prompts, scores_to_json(found))
        else:
            self._log.check(line, len(ids), self._ledger.to_json())
        if len(line["failures"]) == len(prompts) and stage not in SHOWN:
            raise _none_scored(split, line)
        return line

    def halving(
        self, scorer: Scorer, prompts: list[Prompt], ids: ExampleIds, known: Floats
    ) -> dict[str, Any]:
        """Select among prompts in float32 by sequential halving, and return the log line about it.

        Args:
            scorer: The scorer of the select split, in float32.
            prompts: The best prompts so far, best first.
            ids: Ids of all examples of the split, shape `(examples,)`.
            known: The prompts' losses in float32 on the examples of the search, shape `(prompts,
                search examples)`.

        Raises:
            StudyError: None of the prompts could be scored.
        """

        def score(who: Sequence[int], some: ExampleIds) -> Scores:
            chosen = [prompts[i] for i in who]
            price = sum(price_of(scorer, scorer.length(p), some) for p in chosen)
            price += int(scorer.lead(some).sum())  # each example is met in one round
            self._ledger.charge(forward=price)
            return self.scores(scorer, chosen, some, price)

        line = self.replayed("select", prompts)
        if line is None:
            before = self._ledger.forward
            found = scores_to_json(halve(known, ids, score))
            line = self.write("select", "select", prompts, found, self._ledger.forward - before)
        else:
            self._ledger.charge(forward=line["price"])
            self._log.check(line, len(ids), self._ledger.to_json())
        if all(row is None or None in row for row in line["losses"]):
            raise _none_scored("select", line)
        return line

    def answers(
        self,
        stage: str,
        split: str,
        scorer: Scorer,
        prompts: list[Prompt],
        ids: ExampleIds,
        decoding: Decoding,
        *,
        charged: bool,
    ) -> dict[str, Any]:
        """Generate the answers of prompts in float32 on a split, once, and return the log line.

        A prompt that fails has no answers; what it did before stands.

        Args:
            stage: The name of the stage, as in the log.
            split: The name of the split.
            scorer: The scorer of the split, in float32.
            prompts: Prompts whose losses on these examples are known, so that the lead is paid.
            ids: Ids of examples of the split, shape `(examples,)`.
            decoding: The way in which answers are generated.
            charged: Whether what is read and generated is charged, as in `stage`.
        """
        line = self.replayed(stage, prompts)
        found, cached = (line, False) if line else self._generated(scorer, prompts, ids, decoding)
        price = found["generated"] + sum(
            price_of_generation(scorer, scorer.length(p), ids, 0) for p in prompts
        )
        if charged:
            self._ledger.charge(forward=price)
        if line is not None:
            self._log.check(line, len(ids), self._ledger.to_json())
            return line
        if charged and cached:
            self._ledger.cached += price
        elif charged:
            self._ledger.computed += found["computed"]
        return self.write(stage, split, prompts, found)

    def _generated(
        self, scorer: Scorer, prompts: Sequence[Prompt], ids: ExampleIds, decoding: Decoding
    ) -> tuple[dict[str, Any], bool]:
        """The answers of prompts as in a log line, and whether an earlier run left them."""

        def name() -> str:
            signature = f"{scorer.signature} {decoding!r}"
            return ScoreCache.name(signature, [p.key for p in prompts], ids)

        if self._cache and (known := self._cache.get(name())) is not None:
            return known, True
        generated = scorer.generate(prompts, ids, decoding)
        found = generated_to_json(generated)
        if self._cache and not generated.failures:
            # Its name is made anew, as that of scores.
            self._uncached.append((name(), found))
        return found, False

    def replayed(self, stage: str, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
        """The log line that an earlier process wrote about these prompts; None where it did not.

        Args:
            stage: The name of the stage, as in the log.
            prompts: The prompts that are to be scored next.
        """
        line = self._log.replay(stage, [p.key for p in prompts])
        if line is not None:
            self._ledger.cached = line["ledger"]["cached"]
            self._ledger.computed = line["ledger"]["computed"]
        return line

    def scores(
        self,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        ids: ExampleIds,
        price: int,
        *,
        charged: bool = True,
    ) -> Scores:
        """The scores of prompts, from the cache or else from the scorer.

        Scores from the scorer go into the cache when their log line is written.

        Args:
            scorer: The scorer of the split.
            prompts: The prompts to score.
            ids: Ids of examples of the split, shape `(examples,)`.
            price: The price of the call in tokens, noted as saved where the cache has the scores.
            charged: Whether computed tokens are noted in the ledger.
        """
        keys = [p.key for p in prompts]
        known = (
            self._cache.get(ScoreCache.name(scorer.signature, keys, ids)) if self._cache else None
        )
        if known is not None:
            found = scores_from_json(known)
            self._ledger.cached += price + found.generated
            return found
        scores = scorer.score(prompts, ids)
        if charged:
            self._ledger.computed += scores.computed
        if self._cache and not scores.failures:
            # The name is made anew: where memory ran out on the way, the engine has gone on in
            # smaller passes, which have another signature.
            name = ScoreCache.name(scorer.signature, keys, ids)
            self._uncached.append((name, scores_to_json(scores)))
        return rounded(scores)  # so that a race decides by the same numbers with a cache or without

    def write(
        self,
        stage: str,
        examples: str | list[int],
        prompts: Sequence[Prompt],
        scores: dict[str, Any],
        price: int | None = None,
    ) -> dict[str, Any]:
        """Write the log line of new scores, and return it; that of a race or halving has its price.

        Scores go into the cache only now: a process that was killed before its line was written
        must not find its own scores there.
        """
        line = {
            "stage": stage,
            "examples": examples,
            "prompts": [p.to_json() for p in prompts],
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


def _none_scored(split: str, line: dict[str, Any]) -> StudyError:
    reason = next(iter(line["failures"].values()))
    return StudyError(
        f"none of the best prompts could be scored on the {split} split in float32: {reason}"
    )
