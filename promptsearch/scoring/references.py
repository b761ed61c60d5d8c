"""Training on examples with several right answers: each visit of an example draws one of them.

The loss of an example is the mean over its right answers. A step of training takes the answer that
its visit draws, which is that loss in expectation at the price of one answer. What is drawn depends
on the example and the visit's number alone, so a run that goes on draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from promptsearch.prompts.numbers import Numbers
from promptsearch.records.scores import ExampleIds, Floats
from promptsearch.scoring.answer_ids import Tokens
from promptsearch.scoring.losses import Losses
from promptsearch.scoring.reading import Layout
from promptsearch.tasks.task import Split


class References:
    """The pairs of an example and one of its right answers, numbered example by example.

    Args:
        split: The examples.

    Attributes:
        several: Whether an example has more than one right answer; else a pair is an example.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        counts = [len(example.references) for example in split.examples]
        self._begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.several = int(self._begins[-1]) > len(split)

    @property
    def pairs(self) -> Split:
        """The pairs as examples of their own, each with one right answer."""
        found = [
            replace(example, answer=answer, also=())
            for example in self._split.examples
            for answer in example.references
        ]
        numbered = tuple(replace(example, id=i) for i, example in enumerate(found))
        return Split(self._split.name, numbered)

    def drawn(self, examples: ExampleIds, visit: int) -> ExampleIds:
        """The pair that a visit draws for each example, shape `(examples,)`.

        Args:
            examples: Ids, shape `(examples,)`.
            visit: The visit's number.
        """
        begins = self._begins[examples]
        counts = self._begins[examples + 1] - begins
        draws = np.array([_draw(int(example), visit) for example in examples], dtype=np.int64)
        found: ExampleIds = begins + draws % counts
        return found

    def places(self, examples: ExampleIds, visit: int) -> ExampleIds:
        """The place of the answer that a visit draws among an example's right ones.

        The arguments are those of `drawn`; the shape is `(examples,)`.
        """
        found: ExampleIds = self.drawn(examples, visit) - self._begins[examples]
        return found


def _draw(example: int, visit: int) -> int:
    """A number below 2**62, as good as drawn, for an example at a visit."""
    digest = hashlib.sha256(f"{example} {visit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


class Visits:
    """The losses of steps of training on one split, and their price.

    Args:
        references: The right answers of the split's examples.
        whole: The losses over all right answers.
        make: Makes the losses of other examples under the same template.

    Attributes:
        whole: As the argument.
    """

    def __init__(
        self, references: References, whole: Losses, make: Callable[[Split], Losses]
    ) -> None:
        self._references, self.whole, self._make = references, whole, make
        self._pairs: Losses | None = None  # made when a step is first asked for

    def forget(self) -> None:
        """Throw away what is kept from call to call, so that it is computed anew."""
        if self._pairs is not None:
            self._pairs.rows.memory.forget()

    def context(self, examples: ExampleIds, visit: int | None) -> Floats:
        """The tokens behind the lead of each example, with what a visit draws.

        Args:
            examples: Ids, shape `(examples,)`.
            visit: The visit's number; None: the mean over all that may be drawn.

        Returns:
            Shape `(examples,)`, without the prompt's own tokens.
        """
        layout = self.whole.layout
        # A prompt is read again with each row that tells answers in its own way.
        again = (layout.readings[examples] - 1) * self.whole.prompt_tokens
        if not self._references.several:
            found: Floats = (layout.context[examples] + again).astype(np.float64)
            return found
        rows = [layout.layouts[e] for e in examples]
        alone = [[self._alone(row, answer) for answer in row.answers] for row in rows]
        if visit is None:
            own = [float(np.mean(some)) for some in alone]
        else:
            places = self._references.places(examples, visit)
            own = [some[i] for some, i in zip(alone, places, strict=True)]
        more = [one - (row.context - row.tail) for one, row in zip(own, rows, strict=True)]
        return layout.context[examples] + np.array(more, dtype=np.float64)

    def _alone(self, row: Layout, answer: Tokens) -> int:
        """The tokens that an answer costs by itself, besides the text."""
        only = replace(row, answers=(answer,))
        again = (only.readings - 1) * self.whole.prompt_tokens
        return only.context - only.tail + again

    def losses(self, numbers: Numbers, examples: ExampleIds, visit: int) -> Tensor:
        """The loss of a trained prompt on each example, in nats, shape `(examples,)`.

        Args:
            numbers: The prompt's numbers.
            examples: Ids, shape `(examples,)`.
            visit: The visit's number.
        """
        drawn, ids = self.drawn(examples, visit)
        return drawn.of_numbers(numbers, ids).losses[0]

    def drawn(self, examples: ExampleIds, visit: int) -> tuple[Losses, ExampleIds]:
        """What computes the losses over what a visit draws, and the ids of the examples there.

        Args:
            examples: Ids, shape `(examples,)`.
            visit: The visit's number.
        """
        if not self._references.several:
            return self.whole, examples
        if self._pairs is None:
            self._pairs = self._make(self._references.pairs)
        return self._pairs, self._references.drawn(examples, visit)
