"""What the LM predicts under one prompt, and how far another prompt is from it.

The divergence is that of distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531):
KL(p || q) = sum_y p(y) (log p(y) - log q(y)), p under the prompt that teaches, q under the one that
is trained. y runs over an example's answers to choose from. For text it runs over the vocabulary at
each token of the answer and its end, and the sums are added up; of an example with several right
answers, one is drawn for good.

A trained prompt that shows solved examples also teaches itself: each of its own tokens is predicted
from those before it.

Over a vocabulary, the last hidden states say all: a row of 576 numbers in place of 49,152.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import Diverged, StrategyError
from promptsearch.models import LanguageModel
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.answer_ids import Tokens
from promptsearch.scoring.answers import Graded
from promptsearch.scoring.forward import run
from promptsearch.scoring.kinds import Placed, Sharing
from promptsearch.scoring.losses import Losses
from promptsearch.scoring.references import Visits
from promptsearch.scoring.tree import Path, grow

#: The number of the visit that draws right answers: always the same ones.
_VISIT = 0


class Teaching:
    """Prompts of words teach, and a prompt that is trained learns.

    Args:
        lm: The model.
        words: The losses of prompts that fill the slots.
        trained: The losses of what is trained; the same where that fills the slots, too.
    """

    def __init__(self, lm: LanguageModel, words: Visits, trained: Visits) -> None:
        self._lm, self._words, self._trained = lm, words, trained

    def price(self, teacher: TextPrompt, examples: ExampleIds) -> int:
        """The tokens that are charged for `predictions`, without the lead of what is trained.

        Args:
            teacher: The prompt that teaches.
            examples: Ids, shape `(examples,)`.

        Raises:
            StrategyError: The model cannot read an example with this prompt.
        """
        losses, ids = self._words.drawn(examples, _VISIT)
        if fault := losses.fault(teacher, ids):
            raise StrategyError(f"the prompt that teaches cannot be read: {fault}")
        length, layout = losses.length(teacher), losses.layout
        text = float(self._words.context(examples, _VISIT).sum())
        text += int((layout.readings[ids] - 1).sum()) * (length - losses.prompt_tokens)
        trained, same = self._trained.drawn(examples, _VISIT)
        lead = layout.lead[ids].sum() - trained.layout.lead[same].sum()
        return round(text) + len(ids) * length + int(lead)

    def predictions(self, teacher: TextPrompt, examples: ExampleIds) -> list[Tensor]:
        """What the LM predicts in the place of the answer under a prompt of words.

        Args:
            teacher: The prompt.
            examples: Ids, each once, shape `(examples,)`.

        Returns:
            For each example the log-probabilities over its choices, shape `(choices,)`; or the last
            hidden states from which the tokens of its text answer and its end are predicted, shape
            `(tokens, width)`.
        """
        losses, ids = self._words.drawn(examples, _VISIT)
        with torch.no_grad():
            if losses.layout.options:
                # Behind those of an example that has fewer choices stands NaN, or minus infinity.
                rows = _choices(losses.of_prompts([teacher], ids))
                return [row[row > float("-inf")] for row in rows]
            found = _states(losses, losses.placed([teacher]), ids)
        return [states.clone() for states in found]

    def divergence(
        self, numbers: Numbers, examples: ExampleIds, predictions: Sequence[Tensor]
    ) -> Tensor:
        """The mean divergence of a trained prompt from predictions, in nats, shape `()`.

        It is differentiable in the numbers.

        Args:
            numbers: The prompt's numbers.
            examples: Ids, shape `(batch,)`.
            predictions: What `predictions` gave for each example.

        Raises:
            Diverged: It is not finite.
        """
        losses, ids = self._trained.drawn(examples, _VISIT)
        if losses.layout.options:
            rows = _choices(losses.of_numbers(numbers, ids))
            each = [
                divergence(taught, row[: len(taught)])
                for taught, row in zip(predictions, rows, strict=True)
            ]
        else:
            placed, sharing = losses.placed_numbers(numbers)
            with self._lm.changed(losses.placing.trained.parts_of(numbers).weights or {}):
                found = _states(losses, placed, ids, sharing)
            each = [
                divergence(self._nats(taught), self._nats(states))
                for taught, states in zip(predictions, found, strict=True)
            ]
        mean = torch.stack(each).mean()
        if not bool(torch.isfinite(mean)):
            raise Diverged("the divergence from the prompt that teaches is not finite")
        return mean

    def own_price(self, length: int) -> int:
        """The tokens that are read for the losses of a prompt's own tokens: it, and what leads it.

        Args:
            length: The prompt's length in tokens.

        Raises:
            StrategyError: They have no losses: the prompt is no vectors, the model sees what stands
                behind a token, too, or text of an example stands before the prompt or within it.
        """
        return sum(map(len, self._around())) + length

    def own_losses(self, numbers: Numbers, targets: Mapping[int, int]) -> Tensor:
        """The losses of some of a prompt's own tokens, in nats, shape `(targets,)`.

        The row ends with the prompt, so no example is read. They are differentiable in the numbers.

        Args:
            numbers: Vectors, shape `(length, width)`, with or without weights.
            targets: Place in the prompt, from 1 on -> the id of the token that is predicted there,
                over the whole vocabulary, from what stands before it.

        Raises:
            StrategyError: As in `own_price`.
            Diverged: A loss is not finite.
        """
        losses, around = self._trained.whole, self._around()
        placed, _ = losses.placed_numbers(numbers)
        path: Path = ()
        for text, slot in zip(around, placed.slots[0], strict=True):
            path = (*path, *text, *slot)
        with self._lm.changed(losses.placing.trained.parts_of(numbers).weights or {}):
            states, (begin,) = run(self._lm, [grow([path])], None, placed.vectors)
        before = [begin + path.index(-1 - place) - 1 for place in targets]
        nats = self._nats(states[before])[range(len(before)), list(targets.values())]
        if not bool(torch.isfinite(nats).all()):
            raise Diverged("the loss of a token of the trained prompt itself is not finite")
        return -nats.cpu()

    def _around(self) -> tuple[Tokens, ...]:
        """The tokens before each slot of the prompt, which are the same in all rows."""
        whole = self._trained.whole
        layouts = whole.layout.layouts
        if not whole.prompt_tokens:
            raise StrategyError(f"{whole.placing.noun} have no tokens of their own to predict")
        if self._lm.family.both_ways:
            raise StrategyError(
                f"'{self._lm.name}' is {self._lm.family.noun}, which predicts no token of a prompt "
                "from those before it"
            )
        first = layouts[0].segments[:-1]
        if any(layout.segments[:-1] != first for layout in layouts):
            raise StrategyError(
                "text of the examples stands before the prompt or within it, so that its own "
                "tokens have another loss in each row: put the prompt in front of the input"
            )
        return first

    def _nats(self, states: Tensor) -> Tensor:
        """Log-probabilities over the vocabulary, float32, shape `(tokens, vocabulary)`."""
        logits = self._lm.passes.logits(states.to(self._lm.device, self._lm.dtype))
        return logits.log_softmax(-1)


def _choices(graded: Graded) -> Tensor:
    """The log-probabilities of one prompt's choices, shape `(examples, choices)`."""
    assert graded.choices is not None
    rows: Tensor = graded.choices[0]
    return rows


def _states(
    losses: Losses, placed: Placed, examples: ExampleIds, sharing: Sharing | None = None
) -> list[Tensor]:
    """The states from which one prompt's answers are predicted, shape `(tokens, width)` each."""
    places = {example: i for i, example in enumerate(dict.fromkeys(map(int, examples)))}
    flat, begins, _ = losses.begun.compute(
        replace(placed, states=True), np.array(list(places)), sharing
    )
    at = [places[int(example)] for example in examples]
    return [flat[0, begins[i] : begins[i + 1]] for i in at]


def divergence(taught: Tensor, found: Tensor) -> Tensor:
    """KL(taught || found) in nats, summed over all rows, shape `()`.

    Args:
        taught: Log-probabilities, shape `(..., outcomes)`.
        found: Log-probabilities, of the same shape.
    """
    return (taught.exp() * (taught - found)).sum()
