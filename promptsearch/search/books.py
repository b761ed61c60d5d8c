"""The books of a run: what it scored, paid and ranked, and what a killed run needs to go on.

They belong to the run. A strategy meets them only through its objective, see
`promptsearch.search.objective`, and no attribute of the objective leads to them.

This module holds what a search scored and paid. How one call of a scorer is charged, found and
written stands in `calls.py`, and what it costs in `prices.py`, with what the lead of an example is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from promptsearch.errors import BudgetExhausted, RecordError, StrategyError
from promptsearch.prompts.kinds import own_copy
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Fare, Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.scores import Evaluation, ExampleIds, Row, Scores, rows_of, scores_to_json
from promptsearch.scoring.protocol import Scorer, WhiteBox, inside
from promptsearch.search.asked import checked_ids, group_of
from promptsearch.search.calls import Calls
from promptsearch.search.guard import Guard
from promptsearch.search.others import Other
from promptsearch.search.prices import Prices
from promptsearch.search.proposer import Proposer, Proposing
from promptsearch.search.race import race
from promptsearch.search.ranking import FINALISTS, Ranking
from promptsearch.tasks.answered import Reader

#: How many proposals in a row that cost nothing end a run, if nothing else was charged meanwhile: a
#: strategy that only repeats itself has nothing new to say.
FREE_PROPOSALS = 1_000


class Books:
    """What a run has scored and paid.

    Args:
        scorer: The scorer of the search split under the template, in the search's dtype.
        space: The pool and the length of hard prompts.
        ledger: The run's ledger.
        scored: Ids of the examples that `evaluate` scores on, shape `(score_on,)`.
        training: Ids of the rest of the search split: minibatches, exemplars and word statistics
            come from these only.
        log: Where evaluations are written and read back.
        cache: Scores of earlier runs.
        reserve: Returns the most that selecting among the best prompts costs at the end, in tokens,
            from the lengths of these in tokens, the longest first.
        seconds: The run's time limit.
        race: Whether prompts clearly worse than the best are scored on a part of `score_on` only.
        finalists: How many of the best prompts are kept.
        proposing: The model that proposes; None where there is none.
        fare: What its tokens cost.
        start: The winner of the run that this one starts from.
        listener: A function that is called after each evaluation, for progress bars.
        watch: A function that is called before anything is scored; it raises `Tampered` where the
            model is not what it was.
        white_box: Whether the strategy is handed the white box of the scorer, which its class asks
            for by `access`.
        most: The most tokens that the scorer generates for an example with one prompt.
        reader: What tells the LM's answers from its scores, see `promptsearch.search.answering`.
        others: The other tasks that may be trained on, by name: each one's scorer and training ids.
    """

    def __init__(
        self,
        scorer: Scorer,
        space: PromptSpace,
        ledger: Ledger,
        *,
        scored: ArrayLike,
        training: ArrayLike,
        log: RunLog | None = None,
        cache: ScoreCache | None = None,
        reserve: Callable[[Sequence[int]], int] = lambda lengths: 0,
        seconds: float | None = None,
        race: bool = False,
        finalists: int = FINALISTS,
        proposing: Proposing | None = None,
        fare: Fare = Fare(),  # noqa: B008 - it cannot be changed
        start: Prompt | None = None,
        listener: Callable[[Books], None] = lambda books: None,
        watch: Callable[[], None] = lambda: None,
        white_box: bool = True,
        most: int = 0,
        reader: Reader | None = None,
        others: Mapping[str, tuple[Scorer, ArrayLike]] | None = None,
    ) -> None:
        self.scorer, self.space, self.ledger = scorer, space, ledger
        self.scored = np.array(scored, dtype=np.int64)
        self.training = np.array(training, dtype=np.int64)
        self.log = log or RunLog()
        self.seconds, self.start, self.reader = seconds, start, reader
        self.listener = listener
        #: The best prompts so far.
        self.ranking = Ranking(finalists)
        self.prices = Prices(scorer, ledger, self.scored, reserve, finalists, most, self.ranking)
        self.others = {
            name: Other.beside(self.prices, *given) for name, given in (others or {}).items()
        }
        self.proposer = Proposer(
            proposing, ledger, self.log.proposals, lambda: self.prices.set_aside(space.length), fare
        )
        self.calls = Calls(ledger, self.log, cache, self._known)
        self._watch, self._guard, self._handed, self._race = watch, Guard(), white_box, race
        self.unpaid = 0  # prompts that were left out, since shorter ones could still be paid
        self._free: Counter[int] = Counter()  # what was spent -> proposals then that cost nothing
        self._rows: dict[tuple[str, str], Row] = {}

    def ids(self, examples: ArrayLike) -> ExampleIds:
        """Ids of search examples, checked, see `checked_ids`."""
        return checked_ids(examples, len(self.scored) + len(self.training))

    def evaluate(self, prompts: Sequence[Prompt], examples: ArrayLike | None = None) -> Evaluation:
        """Score prompts and charge for them, see `Objective.evaluate`."""
        if len(prompts) == 0:
            raise StrategyError("evaluate needs at least one prompt")
        self.check_untouched()
        ids = self.scored if examples is None else self.ids(examples)
        group = group_of(None if examples is None else ids)
        # A strategy may change the prompts that it holds.
        prompts = [own_copy(prompt) for prompt in prompts]
        for prompt in prompts:
            prompt.check(self.space, self.scorer.white_box)
        new = {p.key: p for p in prompts if (p.key, group) not in self._rows}
        if self.log.over(self.seconds):
            raise self._time_over()
        self.log.asks += 1
        price = computed = 0
        if not any(self.prices.each(p, ids) for p in new.values()):
            self._free[self.ledger.spent] += len(prompts)
            if (free := self._free[self.ledger.spent]) >= FREE_PROPOSALS:
                raise BudgetExhausted(
                    f"{free} proposals in a row had all been scored before, "
                    "or are too long to be scored"
                )
        if new:
            asked = list(new.values())
            payable = self.prices.payable(asked, ids)
            if payable and self.seconds is not None and self.log.searched:
                # An earlier process ended this search for its time; its old log names no ask.
                raise self._time_over()
            if payable and self._race and group == "score_on":
                # A race costs less than all its prompts on all examples, so it finds out itself how
                # far the budget reaches, among prompts that could be paid one by one.
                if len(alone := payable) < len(asked):
                    alone = [p for p in asked if self.prices.payable([p], ids)]
                price, computed, payable = self._run_race(alone)
            elif payable:
                price, computed = self._score(payable, ids, group)
            if len(payable) < len(new) and not self.prices.pays_shorter(asked, ids):
                raise BudgetExhausted(
                    f"{len(new)} prompts were asked for and {len(payable)} could be paid"
                )
        rows = Row.filled([self._rows.get((p.key, group)) for p in prompts])
        evaluation = Evaluation.of(rows, ids, price, computed)
        self.unpaid += evaluation.unpaid
        return evaluation

    def check_untouched(self) -> None:
        """Check that the library's code and the model are what they were when the run began.

        Raises:
            Tampered: Something was changed, which the error names; code was put back.
        """
        self._guard.check()
        self._watch()

    def inside(self, what: str) -> WhiteBox:
        """The white box of the scorer, for the strategy.

        Args:
            what: What the strategy asks of it, for the message.

        Raises:
            StrategyError: The strategy's class does not ask for it, or the scorer has none.
        """
        if not self._handed:
            raise StrategyError(
                f"it asks for {what}, but its class says that it needs scores only: set 'access'"
            )
        return inside(self.scorer, what)

    # What a checkpoint remembers.

    def to_json(self) -> dict[str, Any]:
        """What a saved strategy state must remember of the books, as JSON values."""
        return {
            "evaluations": len(self.log.lines),
            "asks": self.log.asks,
            "proposals": self.log.proposals.count,
            "ledger": self.ledger.to_json(),
            "lead_paid": sorted(self.prices.lead_paid),
            "others": {name: sorted(each.prices.lead_paid) for name, each in self.others.items()},
            "free": self._free[self.ledger.spent],
            "unpaid": self.unpaid,
        }

    def recover(self, saved: dict[str, Any]) -> None:
        """Put the lines of the log that a saved strategy state covers back into the books.

        Args:
            saved: What `to_json` gave when the state was saved.

        Raises:
            RecordError: The log holds fewer lines, or the numbers of one of the best prompts are
                missing. The books are then as they were.
        """
        lines = self.log.ahead(saved["evaluations"])
        self.log.proposals.check(saved["proposals"])
        for line in lines:
            full = line["examples"] == "score_on"
            ids = self.scored if full else np.asarray(line["examples"], dtype=np.int64)
            self.log.check(line, len(ids))
            for data, row in zip(line["prompts"], rows_of(line, len(ids)), strict=True):
                self._rows[data["key"], group_of(None if full else ids)] = row
                if full:
                    self.ranking.enter(row, self.log.prompt(data))
        if any(item.prompt is None for item in self.ranking):
            self._rows.clear()
            self.ranking.clear()
            raise RecordError(
                "the numbers of one of the best prompts are missing beside it, or are damaged"
            )
        self.log.skip(len(lines))
        self.log.proposals.skip(saved["proposals"])
        for name, value in saved["ledger"].items():
            setattr(self.ledger, name, value)
        self.prices.lead_paid.update(saved["lead_paid"])
        for name, met in saved.get("others", {}).items():  # states of old name none
            self.others[name].prices.lead_paid.update(met)
        self._free[self.ledger.spent] = saved["free"]
        self.log.asks = saved.get("asks", 0)  # old states name none
        self.unpaid = saved.get("unpaid", 0)  # nor these

    def _known(self, scorer: Scorer, prompts: Sequence[Prompt], ids: ExampleIds) -> Scores | None:
        """What the search has seen of prompts on `score_on`, where this is its scorer."""
        if scorer is not self.scorer or not np.array_equal(ids, self.scored):
            return None
        return Row.joined([self._rows.get((prompt.key, "score_on")) for prompt in prompts])

    def _time_over(self) -> BudgetExhausted:
        return BudgetExhausted(f"the run's {self.seconds:g} seconds are over")

    def _score(self, prompts: list[Prompt], ids: ExampleIds, group: str) -> tuple[int, int]:
        """Score new prompts on the same examples.

        Returns:
            The price, and the number of tokens that were computed.
        """
        if (line := self.calls.replayed("search", prompts)) is not None:
            price = self.prices.charge(prompts, ids) + line.get("generated", 0)
            self.ledger.charge(forward=line.get("generated", 0))
            self.log.check(line, len(ids), self.ledger.to_json())
        else:
            scores, price = self._charged(prompts, ids)
            examples = "score_on" if group == "score_on" else ids.tolist()
            line = self.calls.write("search", examples, prompts, scores_to_json(scores), price)
        self._enter(line, prompts, ids, group)
        return price, int(line["computed"])

    def _charged(self, prompts: Sequence[Prompt], ids: ExampleIds) -> tuple[Scores, int]:
        """The scores of new prompts, and their price, which is charged."""
        price = self.prices.charge(prompts, ids)
        scores = self.calls.scores(self.scorer, prompts, ids, price)
        self.ledger.charge(forward=scores.generated)
        return scores, price + scores.generated

    def _run_race(self, prompts: list[Prompt]) -> tuple[int, int, list[Prompt]]:
        """Race new prompts, and write one log line for the whole race.

        Returns:
            The price, the number of tokens that were computed, and the prompts that are settled:
            all of them, or, where the budget ended the race, those that saw all examples.
        """
        ids, prices = self.scored, self.prices
        if (line := self.calls.replayed("search", prompts)) is not None:
            self.ledger.charge(forward=line["price"])
            prices.met(ids[: line.get("seen", len(ids))])
            self.log.check(line, len(ids), self.ledger.to_json())
        else:
            before = self.ledger.forward

            def score(who: Sequence[int], some: ExampleIds) -> Scores:
                return self._charged([prompts[i] for i in who], some)[0]

            def payable(who: Sequence[int], some: ExampleIds, later: ExampleIds) -> list[int]:
                paid = {p.key for p in prices.payable([prompts[i] for i in who], some, later)}
                return [i for i in who if prompts[i].key in paid]

            best = self.ranking[0].prompt.key if self.ranking else None
            outcome = race(
                len(prompts),
                ids,
                None if best is None else self._rows[best, "score_on"].losses,
                score,
                payable,
            )
            found = scores_to_json(outcome.scores, outcome.values)
            found |= {"finished": outcome.finished, "seen": outcome.seen}
            line = self.calls.write(
                "search", "score_on", prompts, found, self.ledger.forward - before
            )
        self._enter(line, prompts, ids, "score_on")
        losses = zip(prompts, line["losses"], strict=True)
        whole = [p for p, row in losses if row is not None and None not in row]
        return int(line["price"]), int(line["computed"]), prompts if line["finished"] else whole

    def _enter(
        self, line: dict[str, Any], prompts: Sequence[Prompt], ids: ExampleIds, group: str
    ) -> None:
        """Enter the scores of a log line into the books, and call the listener."""
        for prompt, row in zip(prompts, rows_of(line, len(ids)), strict=True):
            self._rows[prompt.key, group] = row
            if group == "score_on":
                self.ranking.enter(row, prompt)
        self.listener(self)


#: The books behind each objective. They are no attribute of it, so that a strategy which looks
#: around in its objective finds no way to them.
_BOOKS: WeakKeyDictionary[Any, Books] = WeakKeyDictionary()


def open_books(objective: Any, books: Books) -> Books:
    """Put books behind an objective, unless it has some already, and return those it has."""
    return _BOOKS.setdefault(objective, books)


def books_of(objective: Any) -> Books:
    """The books behind an objective: for the core, and for tests.

    Raises:
        StrategyError: The given object is no objective.
    """
    try:
        return _BOOKS[objective]
    except (KeyError, TypeError) as error:
        raise StrategyError(
            f"expected the objective of the run, got {type(objective).__name__}"
        ) from error
