"""The objective: scores prompts on the search split, charges the ledger, and keeps the books.

What a strategy may reach. It holds no split but the search split, so no strategy can look at the select or test
examples. Books kept here, once for all strategies: what was scored before, the best few, the log, the budget.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.budget import Ledger
from promptsearch.cache import ScoreCache
from promptsearch.errors import BudgetExhausted, RecordError, StrategyError
from promptsearch.evaluation import (
    Evaluation,
    Ids,
    Row,
    Scorer,
    Scores,
    price_of,
    rounded,
    rows_of,
    scores_from_json,
    scores_to_json,
)
from promptsearch.model.weights import ModelWeights
from promptsearch.prompt import (
    HardPrompt,
    NamedPrompt,
    Numbers,
    Prompt,
    RowsPrompt,
    TunedPrompt,
    kind_of,
    length_of,
    prompt_to_json,
    shapes_for,
    tensors_of,
)
from promptsearch.proposer import Proposer, Proposing
from promptsearch.race import race
from promptsearch.records import RunLog
from promptsearch.space import PromptSpace
from promptsearch.task import Example

#: Prompts that are scored again in fp32 at the end of a search (a strategy may keep fewer), and those of them that see the
#: select split.
FINALISTS, SELECTED = 10, 3
#: Proposals in a row that cost nothing (repeats) and end a run: a strategy that has nothing new to say.
FREE_PROPOSALS = 1_000


@dataclass(frozen=True)
class Ranked:
    """A prompt that was scored on all of `score_on`.

    Args:
        value: Its mean loss in nats.
        order: Its place among the prompts of the run; the earlier one wins a tie.
        prompt: The prompt.
    """

    value: float
    order: int
    prompt: Prompt


class Objective:
    """Scores prompts on the search split within a budget.

    Args:
        scorer: The search split under the template, in the search's dtype.
        space: The pool and the length of hard prompts.
        ledger: The run's account.
        scored: Ids of the examples that `evaluate` scores on, shape `(score_on,)`.
        training: Ids of the rest of the search split: minibatches, exemplars and word statistics come from these only.
        log: Where evaluations are written and read back.
        cache: Scores of earlier runs.
        reserve: Prompt length in tokens, and how many prompts were scored -> price of selecting among the best of them at the
            end.
        seconds: The run's time limit.
        race: Whether prompts that are clearly worse than the best are scored on some of `score_on` only.
        finalists: How many of the best prompts are kept.
        proposing: The model that proposes; None: there is none.
        start: The winner of the run that this one starts from.
        listener: Called after each evaluation, for progress bars.
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
        reserve: Callable[[int, int], int] = lambda length, prompts: 0,
        seconds: float | None = None,
        race: bool = False,
        finalists: int = FINALISTS,
        proposing: Proposing | None = None,
        start: Prompt | None = None,
        listener: Callable[[Objective], None] = lambda objective: None,
    ) -> None:
        self.space = space
        self.ledger = ledger
        #: The winner of the run that this one starts from, where the study file names one with `start`; else None.
        self.start = start
        self.scored = np.asarray(scored, dtype=np.int64)
        self.training = np.asarray(training, dtype=np.int64)
        self.log = log or RunLog()
        #: A language model that writes what a strategy asks of it, on the run's account.
        self.proposer = Proposer(proposing, ledger, self.log.proposals, lambda: self._set_aside(self.space.length))
        self._scorer = scorer
        self._cache = cache
        self._reserve = reserve
        self._seconds = seconds
        self._race = race
        self._finalists = finalists
        self._listener = listener
        self._rows: dict[tuple[str, str], Row] = {}
        self._lead_paid: set[int] = set()
        self._longest = 0
        self._free = 0
        self._uncached: list[tuple[str, dict[str, Any]]] = []
        self._ranking: list[Ranked] = []
        self._count = 0

    # What a strategy reaches.

    def evaluate(self, prompts: Sequence[Prompt], examples: ArrayLike | None = None) -> Evaluation:
        """Score prompts and charge for them; a prompt that this run has scored on these examples is free.

        Args:
            prompts: At least one.
            examples: Ids of search examples to score on, shape `(examples,)`; left out: all of `score_on`. Only prompts
                scored on all of `score_on` can win.

        Returns:
            The scores, in the order of the prompts.

        Raises:
            StrategyError: A prompt is not in the space, or there is none.
            BudgetExhausted: Not all prompts could be paid; those that could, in order, are scored and in the books.
        """
        if len(prompts) == 0:
            raise StrategyError("evaluate needs at least one prompt")
        ids = self.scored if examples is None else self._checked(examples)
        group = _group(None if examples is None else ids)
        for prompt in prompts:
            self._check(prompt)
        new = {p.key: p for p in prompts if (p.key, group) not in self._rows}
        if self._seconds is not None and self.log.seconds > self._seconds and not self.log.replaying:
            raise self._time_over()
        price = computed = 0
        self._free = 0 if any(self._price_of(p, ids) for p in new.values()) else self._free + len(prompts)
        if self._free >= FREE_PROPOSALS:
            raise BudgetExhausted(f"{self._free} proposals in a row had all been scored before, or are too long to be scored")
        if new:
            payable = self._payable(list(new.values()), ids)
            if payable and self._seconds is not None and self.log.searched:
                raise self._time_over()  # so an earlier process ended this search, and went on to selection
            if payable and self._race and group == "score_on":
                # A race costs less than all its prompts on all examples: it finds out itself how far the budget reaches.
                price, computed, payable = self._run_race(list(new.values()))
            elif payable:
                price, computed = self._score(payable, ids, group)
            if len(payable) < len(new):
                raise BudgetExhausted(f"{len(new)} prompts were asked for and {len(payable)} could be paid")
        rows = [self._rows[p.key, group] for p in prompts]
        choices = [row.choices for row in rows if row.choices is not None]
        return Evaluation(
            values=np.array([row.value for row in rows]),
            losses=np.stack([row.losses for row in rows]),
            metric=np.stack([row.metric for row in rows]),
            choices=None if len(choices) < len(rows) else np.stack(choices),
            examples=ids.copy(),
            failures={i: row.failure for i, row in enumerate(rows) if row.failure},
            price=price,
            computed=computed,
        )

    def loss(self, numbers: Numbers, examples: ArrayLike) -> Tensor:
        """The mean loss of a trained prompt on a minibatch, differentiable; charges forward and backward.

        Args:
            numbers: Of a soft prompt, shape `(length, width)`; of a prefix, shape `(length, *prefix_shape)`; vectors and gates of
                a gated prompt, see `GatedPrompt`; or changed weights by name, with or without vectors, see `TunedPrompt`.
                Gradients flow back to them.
            examples: Ids of search examples, shape `(batch,)`.

        Returns:
            Mean nats per example, shape `()`.

        Raises:
            BudgetExhausted: Forward and backward cost more than is left.
        """
        ids = np.asarray(examples, dtype=np.int64)
        length = length_of(numbers)
        text = int(self._scorer.context(ids).sum())
        tokens = text + len(ids) * length
        lead = self._unpaid_lead(ids)
        longest = max(self._longest, length)
        again, back = self._scorer.passes(numbers)
        self.ledger.charge(forward=tokens + lead, backward=math.ceil(back * tokens), reserve=self._set_aside(longest))
        self._longest = longest
        standing = isinstance(numbers, Mapping) or tensors_of(numbers)[0].ndim == 2
        own = tokens if standing else text  # what stands apart is no token of a pass
        below = (1 - again) * int(self._scorer.context(self._fresh(ids)).sum())  # once: what no prompt changes is kept
        self._lead_paid.update(ids.tolist())
        self.ledger.computed += math.ceil((again + back) * own + below) + lead
        return self._scorer.loss(numbers, ids)

    def token_gradient(self, prompt: HardPrompt, examples: ArrayLike) -> Tensor:
        """How the mean loss changes with the token at each position, to first order; charged as `loss` is.

        The gradient with respect to one-hot vectors that pick the tokens' embeddings: at each position, a token with a lower
        number than the present one promises a lower loss. Of the vocabulary, the tokens that may be proposed: the pool.

        Args:
            prompt: From the space.
            examples: As in `loss`.

        Returns:
            Nats, shape `(length, pool)`, in the order of `space.pool`; float32 on the CPU.

        Raises:
            BudgetExhausted: As `loss`.
        """
        self.space.check(prompt)
        rows = self.embeddings[torch.tensor(prompt.ids)].detach().float().cpu().requires_grad_()  # (length, width)
        (gradient,) = torch.autograd.grad(self.loss(rows, examples), rows)
        # As the layers take them: a model that scales its embeddings scales these, too.
        pool = self.embeddings[torch.from_numpy(self.space.pool.copy())].detach().float().cpu()
        return gradient @ pool.T

    def backward(self, numbers: Numbers) -> float:
        """What `loss` charges for going back, in tokens for each token of its forward pass.

        Args:
            numbers: As in `loss`.
        """
        return self._scorer.passes(numbers)[1]

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of a text, for a prefix to start from; charges its tokens.

        Args:
            ids: Tokens, which stand at the very start of a row, shape `(tokens,)`.

        Returns:
            Shape `(tokens, *prefix_shape)`.

        Raises:
            BudgetExhausted: The tokens cost more than is left.
        """
        self.ledger.charge(forward=len(ids), reserve=self._set_aside(self.space.length))
        self.ledger.computed += len(ids)
        return self._scorer.keys_values(ids)

    def price(self, prompts: Sequence[Prompt], examples: ArrayLike | None = None) -> int:
        """What `evaluate` would charge for new prompts, in tokens.

        Args:
            prompts: Any number.
            examples: As in `evaluate`.
        """
        ids = self.scored if examples is None else np.asarray(examples, dtype=np.int64)
        return self._unpaid_lead(ids) + sum(self._price_of(p, ids) for p in prompts)

    def length(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as they are charged."""
        return self._scorer.length(prompt)

    def affordable(self, length: int) -> int:
        """How many more prompts of `length` tokens this run can score on all of `score_on`."""
        each = max(1, price_of(self._scorer, length, self.scored))
        lead, ranked = self._unpaid_lead(self.scored), len(self._ranking)
        # Of many, only the best are selected among; of fewer, all: then each costs its selection as well.
        many = int(min(self.left(length, ranked + self._finalists) - lead, 2**62) // each)
        if many >= self._finalists:
            return many
        fits = (n for n in range(self._finalists, 0, -1) if n * each + lead <= self.left(length, ranked + n))
        return next(fits, 0)

    def left(self, length: int, prompts: int) -> float:
        """Tokens that may be spent beside the selection among the best of so many prompts of `length` tokens."""
        return self.ledger.left - self._reserve(max(self._longest, length), max(1, prompts))

    def minibatch(self, rng: np.random.Generator, size: int) -> Ids:
        """Ids of `size` examples, none of which `evaluate` scores on, drawn without replacement where there are enough."""
        return rng.choice(self.training, size=size, replace=size > len(self.training))

    def examples(self, ids: ArrayLike) -> list[Example]:
        """Search examples by id."""
        return self._scorer.examples(np.asarray(ids, dtype=np.int64))

    def demonstrations(self, ids: ArrayLike) -> list[str]:
        """Search examples as solved text: the template filled in, nothing in its slots, and the right answer."""
        return self._scorer.demonstrations(np.asarray(ids, dtype=np.int64))

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._scorer.encode(text)

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`; read-only."""
        return self._scorer.embeddings

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """What a token of a prefix is: `(layers, 2, key heads, size of a head)`, keys, then values."""
        return self._scorer.prefix_shape

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """What gated prompts have at most: `(layers, heads, width)`."""
        return self._scorer.gated_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to; read-only."""
        return self._scorer.weights

    # What the core reads.

    @property
    def ranking(self) -> Sequence[Ranked]:
        """The best few prompts scored on all of `score_on`, best first."""
        return self._ranking

    def finalists(self) -> list[Ranked]:
        """The ranking at the end of the search."""
        return list(self._ranking)

    def books(self) -> dict[str, Any]:
        """What a saved strategy state must remember of the objective, as JSON values."""
        return {
            "evaluations": len(self.log.lines),
            "proposals": self.log.proposals.count,
            "ledger": self.ledger.to_json(),
            "lead_paid": sorted(self._lead_paid),
            "longest": self._longest,
            "free": self._free,
        }

    def recover(self, books: dict[str, Any]) -> None:
        """Put the lines of the log that a saved strategy state covers back into the books.

        Args:
            books: What `books` gave when the state was saved.

        Raises:
            RecordError: The log holds fewer, or the numbers of one of the best prompts are missing: nothing was changed.
        """
        lines = self.log.ahead(books["evaluations"])
        self.log.proposals.check(books["proposals"])
        for line in lines:
            full = line["examples"] == "score_on"
            ids = self.scored if full else np.asarray(line["examples"], dtype=np.int64)
            self.log.check(line, len(ids))
            for data, row in zip(line["prompts"], rows_of(line, len(ids)), strict=True):
                self._rows[data["key"], _group(None if full else ids)] = row
                if full:
                    self._rank(row, self.log.prompt(data))
        if any(item.prompt is None for item in self._ranking):
            self._rows.clear()
            self._ranking.clear()
            self._count = 0
            raise RecordError("the numbers of one of the best prompts are missing beside it, or are damaged")
        self.log.skip(len(lines))
        self.log.proposals.skip(books["proposals"])
        for name, value in books["ledger"].items():
            setattr(self.ledger, name, value)
        self._lead_paid.update(books["lead_paid"])
        self._longest = books["longest"]
        self._free = books["free"]

    # Private.

    def _check(self, prompt: Prompt) -> None:
        if isinstance(prompt, HardPrompt):
            self.space.check(prompt)
        elif isinstance(prompt, NamedPrompt):
            self.weights.check(prompt.weights)
        if isinstance(prompt, RowsPrompt | TunedPrompt):
            found = tuple(tuple(prompt.tensors[name].shape) for name in prompt.shapes)
            expected = shapes_for(kind_of(type(prompt)), found, self.space.length, self)
            if found != expected:
                shapes = [" and ".join(map(str, some)) for some in (expected, found)]
                raise StrategyError(f"a {prompt.kind} prompt here has shape {shapes[0]}, got {shapes[1]}")

    def _checked(self, examples: ArrayLike) -> Ids:
        """Ids of search examples as an array; a stranger's code chose them."""
        known = len(self.scored) + len(self.training)
        ids = np.asarray(examples)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= known:
            raise StrategyError(f"expected ids of search examples, whole numbers from 0 to {known - 1}, got {str(ids)[:80]}")
        return ids.astype(np.int64)

    def _time_over(self) -> BudgetExhausted:
        return BudgetExhausted(f"the run's {self._seconds:g} seconds are over")

    def _length(self, prompt: Prompt) -> int:
        """Tokens of a prompt that selection may meet: of one that the model cannot read, none."""
        return self._scorer.length(prompt) if self._scorer.fits(prompt) else 0

    def _set_aside(self, length: int) -> int:
        """The price of selecting among the best prompts so far, when the longest one has at least `length` tokens."""
        return self._reserve(max(self._longest, length), max(1, len(self._ranking)))

    def _price_of(self, prompt: Prompt, ids: Ids) -> int:
        """Nothing for a prompt that is too long for the model: it fails before anything is computed."""
        return price_of(self._scorer, self._scorer.length(prompt), ids) if self._scorer.fits(prompt) else 0

    def _fresh(self, ids: Ids) -> Ids:
        """The examples that this run meets for the first time, each once."""
        return np.array([i for i in dict.fromkeys(ids.tolist()) if i not in self._lead_paid], dtype=np.int64)

    def _unpaid_lead(self, ids: Ids) -> int:
        fresh = self._fresh(ids)
        return int(self._scorer.lead(fresh).sum()) if fresh.size else 0

    def _payable(self, prompts: Sequence[Prompt], ids: Ids, later: Ids | None = None) -> list[Prompt]:
        """The first of `prompts` that can be paid together, with selection after them, and with one of them on `later`."""
        total: float = self._unpaid_lead(ids)
        longest, payable = self._longest, list[Prompt]()
        if later is not None and later.size:
            total += self._unpaid_lead(later) + max(self._price_of(p, later) for p in prompts)
        for prompt in prompts:
            total += self._price_of(prompt, ids)
            longest = max(longest, self._length(prompt))
            if total > self.left(longest, len(self._ranking) + len(payable) + 1):
                break
            payable.append(prompt)
        return payable

    def _score(self, prompts: list[Prompt], ids: Ids, group: str) -> tuple[int, int]:
        """Score new prompts, charge, write the log line, keep the books: in this order."""
        price = self._charge(prompts, ids)
        line = self._replayed(prompts)
        if line is not None:
            self.log.check(line, len(ids), self.ledger.to_json())
        else:
            line = self._write(
                prompts, ids if group != "score_on" else None, scores_to_json(self._scores(prompts, ids, price)), price
            )
        self._enter(line, prompts, ids, group)
        return price, int(line["computed"])

    def _run_race(self, prompts: list[Prompt]) -> tuple[int, int, list[Prompt]]:
        """Race new prompts; one log line for all of it.

        Returns:
            Price, computed tokens, and all prompts; where the budget ended the race, those that saw all examples.
        """
        ids = self.scored
        line = self._replayed(prompts)
        if line is not None:
            self.ledger.charge(forward=line["price"])
            self._longest = max([self._longest, *map(self._length, prompts)])
            self._lead_paid.update(ids[: line.get("seen", len(ids))].tolist())
            self.log.check(line, len(ids), self.ledger.to_json())
        else:
            before = self.ledger.forward

            def score(who: Sequence[int], some: Ids) -> Scores:
                chosen = [prompts[i] for i in who]
                return self._scores(chosen, some, self._charge(chosen, some))

            best = self._ranking[0].prompt.key if self._ranking else None
            outcome = race(
                len(prompts),
                ids,
                None if best is None else self._rows[best, "score_on"].losses,
                score,
                lambda who, some, later: len(self._payable([prompts[i] for i in who], some, later)),
            )
            found = {**scores_to_json(outcome.scores, outcome.values), "finished": outcome.finished, "seen": outcome.seen}
            line = self._write(prompts, None, found, self.ledger.forward - before)
        self._enter(line, prompts, ids, "score_on")
        whole = [p for p, row in zip(prompts, line["losses"], strict=True) if row is not None and None not in row]
        return int(line["price"]), int(line["computed"]), prompts if line["finished"] else whole

    def _charge(self, prompts: Sequence[Prompt], ids: Ids) -> int:
        price = self.price(prompts, ids)
        self.ledger.charge(forward=price)
        self._longest = max([self._longest, *map(self._length, prompts)])
        self._lead_paid.update(ids.tolist())
        return price

    def _replayed(self, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
        """The line that an earlier process wrote about these prompts."""
        line = self.log.replay("search", [p.key for p in prompts])
        if line is not None:
            self.ledger.cached = line["ledger"]["cached"]
            self.ledger.computed = line["ledger"]["computed"]
        return line

    def _scores(self, prompts: Sequence[Prompt], ids: Ids, price: int) -> Scores:
        """From the cache, or from the scorer into the cache."""
        name = ScoreCache.name(self._scorer.signature, [p.key for p in prompts], ids)
        known = self._cache.get(name) if self._cache else None
        if known is not None:
            self.ledger.cached += price
            return scores_from_json(known)
        scores = self._scorer.score(prompts, ids)
        self.ledger.computed += scores.computed
        if not scores.failures:
            # Named anew: where memory ran out on the way, the engine goes on in smaller passes, under another name.
            name = ScoreCache.name(self._scorer.signature, [p.key for p in prompts], ids)
            self._uncached.append((name, scores_to_json(scores)))
        return rounded(scores)  # what a race decides by is the same, fresh or from the cache

    def _write(self, prompts: Sequence[Prompt], ids: Ids | None, scores: dict[str, Any], price: int) -> dict[str, Any]:
        """The log line of new scores; `ids` is None for all of `score_on`.

        Scores go into the cache only now: a process that was killed before this line must not find its own.
        """
        line = {
            "stage": "search",
            "examples": "score_on" if ids is None else ids.tolist(),
            "prompts": [prompt_to_json(p) for p in prompts],
            **scores,
            "price": price,
            "ledger": self.ledger.to_json(),
        }
        self.log.append(line)
        if self._cache:
            for name, content in self._uncached:
                self._cache.put(name, content)
        self._uncached.clear()
        return line

    def _enter(self, line: dict[str, Any], prompts: Sequence[Prompt], ids: Ids, group: str) -> None:
        """Put a line into the books."""
        for prompt, row in zip(prompts, rows_of(line, len(ids)), strict=True):
            self._rows[prompt.key, group] = row
            if group == "score_on":
                self._rank(row, prompt)
        self._listener(self)

    def _rank(self, row: Row, prompt: Prompt | None) -> None:
        """Enter a prompt scored on all of `score_on` into the ranking; ties go to the earlier one.

        While old lines are put back, a trained prompt that fell out later on has no numbers any more and is None: the lines
        that follow push it out again.
        """
        order, self._count = self._count, self._count + 1
        if row.complete and (len(self._ranking) < self._finalists or row.value < self._ranking[-1].value):
            self._ranking.append(Ranked(row.value, order, cast(Prompt, prompt)))
            self._ranking.sort(key=lambda item: (item.value, item.order))
            del self._ranking[self._finalists :]


def _group(ids: Ids | None) -> str:
    """Names the examples of an evaluation; None is all of `score_on`."""
    return "score_on" if ids is None else hashlib.sha256(ids.tobytes()).hexdigest()[:20]
