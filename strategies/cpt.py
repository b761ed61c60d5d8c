"""Context-aware prompt tuning: solved examples in the prompt, whose vectors are trained nearby.

Blau, Kimhi, Belinkov, Bronstein and Baskin 2024, "Context-aware Prompt Tuning: Advancing In-Context
Learning with Adversarial Methods", arXiv:2410.17222 (CPT). The prompt is that of in-context
learning: solved examples. Their embeddings are trained as in prompt tuning, by projected gradient
descent as in adversarial attacks, but down the loss: after each step a vector is put back into a
ball around the embedding that it started from. Balls of inputs and of format (the template's words,
separators) have radii of their own, and labels stay as they are. The loss is that of a training
example and of the labels in the prompt, each predicted from what stands before it; a label weighs
less the farther from the prompt's end it stands.

The radii and the decay are those of PEFT's example of its CPT. Differs from PEFT: a radius is the
one that is given, where PEFT multiplies it by `sqrt(width / 2048)`; the loss is the weighted mean
over answers, sum of weights and losses by sum of weights, where PEFT divides by the number of
answer tokens, so that a decay also lowers the rate; separators belong to the format, where PEFT's
example keeps them. An answer of several tokens has the sum of their losses, as everywhere here,
and a training example's own loss is the task's. AdamW has warm-up and linear decay. Examples that
the prompt shows are no training examples. The prompt has a fixed length: it is filled with whole
examples, the first of which is cut at its beginning.

Beats random on the planted objective `separable`, where all balls reach the planted prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Objective, TextPrompt, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.prompts.numbers import Numbers
from promptsearch.records.scores import ExampleIds
from promptsearch.search.options import Share
from promptsearch.search.shown import Shown, read_shown
from promptsearch.search.training_options import Rate
from promptsearch.search.views import minibatch_of

#: The radius of a ball, in the units of the embeddings.
Radius = Annotated[float, Field(ge=0)]


class CPT(TrainedStrategy):
    """Train the vectors of solved examples, each within a ball around the embedding it starts from.

    With `start: {run: LABEL}` the examples are those that this run's winner shows, with its other
    words as format. Before them, or where there is none, drawn ones fill the prompt's length; the
    longest text's beginning is cut.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws and minibatches.
        eps_input: The radius around tokens of inputs, a Euclidean distance in the units of the
            embeddings; 0 keeps them.
        eps_format: The same for all tokens that belong neither to an input nor to an answer.
        decay: The weight of the last answer in the prompt, and of each one against that behind it;
            a training example's weight is 1. With 0 only training examples have a loss, as they
            must where the model reads both ways, or where text of the input stands within the
            prompt.
        separator: Stands behind each solved example that is drawn.
        rate: Peak learning rate of AdamW; `auto` tries rates in a short test, which the budget
            pays.
        **training: The options of all trained strategies, see `TrainingOptions`.

    Raises:
        StrategyError: The prompt is longer than all solved examples together, it shows none of
            them, or the labels in it can have no loss.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        eps_input: Radius = 0.2,
        eps_format: Radius = 0.1,
        decay: Share = 0.95,
        separator: str = "\n",
        rate: Rate = 0.001,
        **training: Any,
    ) -> None:
        draws = np.random.default_rng([seed, 2])  # not the stream of the minibatches
        #: The solved examples in the prompt.
        self.shown = _shown(objective, separator, draws)
        self._radii = torch.full((len(self.shown.ids),), float(eps_format))
        self._radii[list(self.shown.inputs)] = eps_input
        self._radii[[place for answer in self.shown.answers for place in answer]] = 0.0
        # Weights fall from the end on. An answer that begins the prompt has nothing before it.
        lost = [
            (decay**distance, answer)
            for distance, answer in enumerate(reversed(self.shown.answers), start=1)
            if decay and answer.start
        ]
        #: The tokens of the prompt that have a loss: place -> id.
        self.targets = {place: self.shown.ids[place] for _, answer in lost for place in answer}
        self._weights = torch.tensor([weight for weight, answer in lost for _ in answer])
        self._all = 1.0 + sum(weight for weight, _ in lost)  # with that of the training example
        ids = objective.training
        unseen = [int(i) for i in ids if i not in self.shown.examples]
        #: Ids of the examples that are trained on.
        self.inputs = np.array(unseen or ids, dtype=np.int64)
        super().__init__(objective, seed=seed, rate=rate, **training)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that some token may move."""
        super().check(options)
        if not (options["eps_input"] or options["eps_format"]):
            raise StrategyError(
                "nothing is trained where 'eps_input' and 'eps_format' are 0: give one of them"
            )

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Always: what another run's winner lacks of them is drawn."""
        return True

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The embeddings of the prompt's tokens, each with its ball."""
        ids = torch.tensor(self.shown.ids)
        return _Balls(self.objective.embeddings[ids].float().cpu(), self._radii)

    def minibatch(self) -> ExampleIds:
        """Examples that the prompt does not show, shape `(batch,)`."""
        return minibatch_of(self.inputs, self._rng, self.options.batch)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int) -> Tensor:
        """The weighted mean of the examples' loss and of those of the answers in the prompt."""
        loss = self.objective.loss(numbers, examples, visit)
        if not self.targets:
            return loss
        own = self.objective.teaching.own_losses(numbers, self.targets)  # (targets,)
        return (loss + self._weights.to(own) @ own) / self._all

    def step_price(self) -> int:
        """The prompt by itself, once for each part of a step."""
        if not self.targets:
            return 0
        try:
            price = self.objective.teaching.own_price(len(self.shown.ids))
        except StrategyError as reason:
            advice = "'decay: 0' leaves the losses of answers in the prompt out"
            raise StrategyError(f"{reason}: {advice}") from reason
        return self.options.accumulate * price


class _Balls(nn.Module):
    """Vectors that stay near those that they start from.

    Args:
        start: Where they start, shape `(length, width)`.
        radii: The farthest that each may be from there, shape `(length,)`; with 0 it is no
            parameter.
    """

    start: Tensor
    places: Tensor
    radii: Tensor

    def __init__(self, start: Tensor, radii: Tensor) -> None:
        super().__init__()
        places = radii.nonzero()[:, 0]
        self.register_buffer("start", start)
        self.register_buffer("places", places)
        self.register_buffer("radii", radii[places, None])  # (moved, 1)
        #: How far they are from their starts, shape `(moved, width)`.
        self.moved = nn.Parameter(torch.zeros(len(places), start.shape[1]))

    def forward(self) -> Tensor:
        """The vectors; what an optimizer's step has left outside its ball comes back first."""
        with torch.no_grad():
            norms = self.moved.norm(dim=1, keepdim=True)
            self.moved.mul_((self.radii / norms).clamp(max=1.0))
        return self.start.index_add(0, self.places, self.moved)


def _shown(objective: Objective, separator: str, draws: np.random.Generator) -> Shown:
    """The solved examples in the prompt, as many tokens as it has."""
    length, prompt = objective.space.length, TextPrompt("")
    if objective.start is not None:
        (prompt,) = TextPrompt.among([objective.start])
    order = draws.permutation(objective.training)
    for solved in objective.demonstrations(order):
        if len(objective.encode(prompt)) >= length:
            break
        first, *others = prompt.texts
        if not any(solved in text for text in prompt.texts):
            prompt = TextPrompt([solved + separator + first, *others])
    texts = objective.space.slot_texts(prompt)
    shown = Shown.joined([read_shown(objective, text) for text in texts])
    if len(shown.ids) < length:
        raise StrategyError(
            f"the prompt has {length} tokens, and all solved examples together have "
            f"{len(shown.ids)}: give a shorter 'length'"
        )
    shown = shown.last(length)
    if not shown.answers:
        raise StrategyError(
            f"the last {length} tokens of the prompt hold no answer of a solved example of this "
            "task: start from a run of `exemplars`, or give a longer 'length'"
        )
    return shown
