"""What a run pays for its search: every price in one place.

The books, the objective and the rehearsal use these prices. They are counted in LM tokens, and
follow from template, prompts and examples alone. The "lead" of an example is its text before the
first slot: a run pays for it once, and for all else each time. A prompt stands "apart" where it is
no token of the text, such as a prefix or changed weights. At any time, enough must be left to
select among the best prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.prompts.numbers import Numbers, length_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.ledger import Ledger
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import Scorer, WhiteBox, price_of, price_of_generation
from promptsearch.search.ranking import Ranked

#: What the gradient of attention takes, in forward passes of it: keys, values, queries and weights
#: of attention get one each, in four products where the forward pass has two.
_BACK = 2


class Prices:
    """Prices of one run's search, and what was paid for once and for all.

    Args:
        scorer: The scorer of the search split under the template.
        ledger: The run's ledger.
        scored: Ids of the examples that prompts are ranked on, shape `(score_on,)`.
        reserve: Returns the most that selecting among the best prompts costs, in tokens, from the
            lengths of these in tokens, the longest first.
        finalists: How many of the best prompts are kept.
        most: The most tokens that are generated for an example with one prompt. They are counted
            beforehand as if all of them came, and charged as they come.
        ranking: The best prompts so far.

    Attributes:
        lead_paid: Ids of the examples whose lead is paid.
    """

    def __init__(
        self,
        scorer: Scorer,
        ledger: Ledger,
        scored: ExampleIds,
        reserve: Callable[[Sequence[int]], int],
        finalists: int,
        most: int = 0,
        ranking: Sequence[Ranked] = (),
    ) -> None:
        self._scorer, self._ledger, self._scored, self._most = scorer, ledger, scored, most
        self._reserve, self._finalists, self._ranking = reserve, finalists, ranking
        self.lead_paid: set[int] = set()
        self._lengths: dict[str, int] = {}  # of prompts that were ranked, by key

    def beside(self, scorer: Scorer, training: ExampleIds) -> Prices:
        """The prices of another task's search examples, which the same ledger pays.

        Args:
            scorer: The scorer of that task's search split.
            training: Ids of its examples that may be trained on, shape `(training,)`.
        """
        shared = self._ledger, training, self._reserve, self._finalists
        return Prices(scorer, *shared, ranking=self._ranking)

    def each(self, prompt: Prompt, ids: ExampleIds) -> int:
        """The price of a prompt on examples, in tokens, without their lead, at most.

        It is 0 where the prompt is too long, since it fails before anything is computed.
        """
        return self._of_length(self._scorer.length(prompt), ids) if self._scorer.fits(prompt) else 0

    def of(self, prompts: Sequence[Prompt], ids: ExampleIds) -> int:
        """The most that new prompts on examples may cost, with the lead of new examples."""
        return self._unpaid_lead(ids) + sum(self.each(p, ids) for p in prompts)

    def left(self, length: int, prompts: int) -> float:
        """The tokens that may be spent when the price of selection is set aside.

        Args:
            length: The length in tokens of the prompts that are still to come.
            prompts: The number of prompts to select among, with those that are ranked by now.
        """
        ranked = self._ranked()
        return self._ledger.left - self._selection(
            [*ranked, *[length] * max(prompts - len(ranked), not ranked)]
        )

    def set_aside(self, length: int) -> int:
        """The price of selecting among the best prompts so far, in tokens.

        Args:
            length: The length in tokens of the first one, where there is none yet.
        """
        return self._selection(self._ranked() or [length])

    def affordable(self, length: int) -> int:
        """How many more prompts of `length` tokens can be scored on all of `score_on`."""
        each = max(1, self._of_length(length, self._scored))
        lead, kept = self._unpaid_lead(self._scored), self._finalists
        # Among many prompts, only the best take part in selection. Among fewer, all do, and each
        # costs its selection as well.
        ranked = len(self._ranking)
        many = int(min(self.left(length, ranked + kept) - lead, 2**62) // each)
        if many >= kept:
            return many
        fits = (n for n in range(kept, 0, -1) if n * each + lead <= self.left(length, ranked + n))
        return next(fits, 0)

    def payable(
        self, prompts: Sequence[Prompt], ids: ExampleIds, later: ExampleIds | None = None
    ) -> list[Prompt]:
        """Those prompts that can be paid together, with selection after them.

        Earlier ones come first; one that does not fit is left out, and those behind it may fit.

        Args:
            prompts: New prompts, in order.
            ids: Ids of the examples that all of the prompts see, shape `(examples,)`.
            later: Ids of further examples; any one of the prompts must be payable on these, too.
        """
        total: float = self._unpaid_lead(ids)
        lengths, payable = self._ranked(), list[Prompt]()
        if later is not None and later.size:
            total += self._unpaid_lead(later) + max(self.each(p, later) for p in prompts)
        for prompt in prompts:
            with_it = total + self.each(prompt, ids)
            longer = sorted([*lengths, self._length(prompt)], reverse=True)[: self._finalists]
            if with_it <= self._ledger.left - self._reserve(longer):
                total, lengths = with_it, longer
                payable.append(prompt)
        return payable

    def pays_shorter(self, prompts: Sequence[Prompt], ids: ExampleIds) -> bool:
        """Whether one as cheap as the cheapest prompt can be paid now, where others are dearer.

        Prompts that are too long to be read cost nothing, and say nothing of what is left.

        Args:
            prompts: New prompts, not all of which could be paid.
            ids: Ids of the examples that all of the prompts see, shape `(examples,)`.
        """
        prices = {self.each(prompt, ids): prompt for prompt in prompts}
        prices.pop(0, None)
        return len(prices) > 1 and bool(self.payable([prices[min(prices)]], ids))

    def charge(self, prompts: Sequence[Prompt], ids: ExampleIds) -> int:
        """Charge what is read of new prompts on examples, and return the price in tokens."""
        read = [prompt for prompt in prompts if self._scorer.fits(prompt)]
        price = self.of(prompts, ids) - self._most * len(read) * len(ids)
        self._ledger.charge(forward=price)
        self.met(ids)
        return price

    def charge_look(self, prompt: Prompt, ids: ExampleIds) -> None:
        """Charge what the LM predicts under a prompt, as its losses on the examples are charged.

        Raises:
            BudgetExhausted: It costs more than is left; nothing was charged.
        """
        price = self.of([prompt], ids)
        self._ledger.charge(forward=price, reserve=self.set_aside(self._length(prompt)))
        self._ledger.computed += price  # the same in a run that goes on, whatever is kept
        self.met(ids)

    def of_answers(self, prompt: Prompt, ids: ExampleIds, tokens: int | ExampleIds) -> int:
        """The price of generating answers under a prompt, with the lead of new examples.

        Args:
            prompt: The prompt.
            ids: Ids of the examples, shape `(examples,)`.
            tokens: As in `price_of_generation`.
        """
        length = self._scorer.length(prompt)
        return self._unpaid_lead(ids) + price_of_generation(self._scorer, length, ids, tokens)

    def charge_text(self, tokens: int, length: int) -> None:
        """Charge tokens of a text that the LM reads by itself.

        Args:
            tokens: The number of tokens.
            length: As for `set_aside`.

        Raises:
            BudgetExhausted: They cost more than is left; nothing was charged.
        """
        self._ledger.charge(forward=tokens, reserve=self.set_aside(length))
        self._ledger.computed += tokens

    def met(self, ids: ExampleIds) -> None:
        """Note what was paid for: the lead of these examples."""
        self.lead_paid.update(ids.tolist())

    def charge_step(
        self, numbers: Numbers, ids: ExampleIds, white_box: WhiteBox, visit: int
    ) -> None:
        """Charge the loss of a trained prompt on a minibatch, and its gradient.

        Args:
            numbers: The prompt's numbers, as `Objective.loss` takes them.
            ids: Ids of the minibatch's examples, shape `(batch,)`.
            white_box: What computes the two.
            visit: The number of the visit, see `WhiteBox.loss`.

        Raises:
            BudgetExhausted: The two cost more than is left; nothing was charged.
        """
        ledger, length = self._ledger, length_of(numbers)
        context = white_box.step_context(ids, visit)
        text, lead = int(context.sum()), self._unpaid_lead(ids)
        adds = self._scorer.adds(length)
        own = text + len(ids) * adds.tokens  # the tokens of a pass
        beside = adds.share * text
        again, back = white_box.passes(numbers)
        ledger.charge(
            forward=own + math.ceil(beside) + lead,
            backward=math.ceil(back * (own + _BACK * beside)),
            reserve=self.set_aside(length),
        )
        # What no prompt changes is computed once, and kept; another right answer of an example that
        # was met is taken for the one that was drawn then.
        fresh = np.isin(ids, self._fresh(ids)) & _first(ids)
        below = (1 - again) * int(context[fresh].sum())
        self.lead_paid.update(ids.tolist())
        ledger.computed += math.ceil((again + back) * own + below) + lead

    def _of_length(self, length: int, ids: ExampleIds) -> int:
        """The most that a prompt of `length` tokens costs on examples, without their lead."""
        return price_of(self._scorer, length, ids) + self._most * len(ids)

    def training(self, prompt: Prompt, ids: ExampleIds, white_box: WhiteBox) -> float:
        """The price of the loss of a trained prompt once on each example, without their lead.

        It is an average over the right answers that may be drawn.

        Args:
            prompt: The prompt.
            ids: Ids of examples, shape `(examples,)`.
            white_box: What computes the loss.
        """
        text = float(white_box.step_context(ids).sum())
        return text + self._scorer.adds(self._scorer.length(prompt)).to(text, len(ids))

    def backward(self, numbers: Numbers, white_box: WhiteBox) -> float:
        """The price of the gradient of a loss, as a share of the price of the loss.

        Args:
            numbers: The prompt's numbers.
            white_box: What computes both.
        """
        share = self._scorer.adds(length_of(numbers)).share
        return white_box.passes(numbers)[1] * (1 + _BACK * share) / (1 + share)

    def _ranked(self) -> list[int]:
        """The lengths in tokens of the best prompts so far."""
        known = self._lengths
        for each in self._ranking:
            if each.prompt.key not in known:
                known[each.prompt.key] = self._scorer.length(each.prompt)
        return [known[each.prompt.key] for each in self._ranking]

    def _selection(self, lengths: Sequence[int]) -> int:
        """The most that selecting among the best of prompts of these lengths costs."""
        return self._reserve(sorted(lengths, reverse=True)[: self._finalists])

    def _length(self, prompt: Prompt) -> int:
        """The length in tokens of a prompt in selection; 0 where the model cannot read it."""
        return self._scorer.length(prompt) if self._scorer.fits(prompt) else 0

    def _fresh(self, ids: ExampleIds) -> ExampleIds:
        """Ids of the examples that this run meets for the first time, each once."""
        fresh = [i for i in dict.fromkeys(ids.tolist()) if i not in self.lead_paid]
        return np.array(fresh, dtype=np.int64)

    def _unpaid_lead(self, ids: ExampleIds) -> int:
        fresh = self._fresh(ids)
        return int(self._scorer.lead(fresh).sum()) if fresh.size else 0


def _first(ids: ExampleIds) -> NDArray[np.bool_]:
    """Whether each id stands there for the first time, shape `(examples,)`."""
    found = np.zeros(len(ids), dtype=np.bool_)
    found[np.unique(ids, return_index=True)[1]] = True
    return found
