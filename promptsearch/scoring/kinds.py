"""The kinds of prompts in the engine: what rows share under each, and what a prompt brings there.

`PLACINGS` has one row for each kind of template. What a prompt brings is asked of the prompt:
the content of its slots, and its parts by where they meet the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.flops import Flops
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.numbers import Numbers, Parts, length_of, parted
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.prompt import Prompt, Sizes
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.trained import TrainedPrompt
from promptsearch.prompts.weights import TunedPrompt, Weights
from promptsearch.scoring.layout import Tokens, slots_of
from promptsearch.scoring.protocol import Adds
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.template import Template

#: What rows share, see `promptsearch.scoring.sharing`.
Sharing = Literal["nothing", "input", "prompt", "layers"]
#: The tokens in each slot.
Slots = tuple[Tokens, ...]


@dataclass(frozen=True)
class Placing:
    """The way in which prompts of one kind of template go through the LM.

    Args:
        noun: Their name in messages.
        trained: The class of the prompts that are trained there.
        training: What rows share in training, where no example has a lead. A gradient crosses all
            that is not shared.
        only: What rows share in scoring; None: whatever is predicted to cost the least.
        common: Whether rows of one prompt may share what all examples begin with.
        given: Whether the prompts are trunks themselves, for which nothing is computed.
        states: Whether what is kept of an example is the hidden states of its whole row, which
            enter the layers that read the prompts; else it is the keys and values of its lead.
        keeps: Whether anything of an example is the same below all prompts, and so is kept.
    """

    noun: str
    trained: type[TrainedPrompt]
    training: Sharing = "nothing"
    only: Sharing | None = None
    common: bool = False
    given: bool = False
    states: bool = False
    keeps: bool = False

    @property
    def beside(self) -> bool:
        """Whether the prompts are no tokens of a row, which attends to them in the layers."""
        return self.given or self.states


#: Kind of template -> how its prompts go through the LM.
PLACINGS: dict[Kind, Placing] = {
    "slots": Placing("prompts that fill slots", SoftPrompt, common=True, keeps=True),
    # A gradient of weights crosses the whole row: no part of it may be computed beforehand.
    "tuned": Placing("vectors with changed weights", TunedPrompt),
    "weights": Placing("changed weights", Weights, common=True),
    # Below a prefix, each row computes all that it has: a gradient of the prefix crosses it.
    "prefix": Placing("prefixes", PrefixPrompt, training="prompt", only="prompt", given=True),
    "gated": Placing(
        "gated prompts", GatedPrompt, training="layers", only="layers", states=True, keeps=True
    ),
}


@dataclass(frozen=True)
class Placed:
    """Prompts as they go through the LM.

    Args:
        slots: The tokens that each prompt puts into the slots; the id `-1 - i` stands for row i of
            the vectors, or of the keys and values.
        vectors: The vectors of all prompts, shape `(rows, width)`.
        keys_values: The keys and values of all prompts, shape `(rows, values)`.
        adaption: The gated prompts, projected.
        bias: What each prompt adds to the log-probabilities of the choices, float64, shape
            `(prompts, choices)`; None where none adds anything.
        told: The tokens of which each is read as an answer of its own, in place of the task's
            answers; None: those are read.
        states: Whether what is read is the hidden states from which the tokens of the answers are
            predicted.
        paired: Whether each prompt stands before one example alone, the one at its place.
    """

    slots: Sequence[Slots]
    vectors: Tensor | None = None
    keys_values: Tensor | None = None
    adaption: Adaption | None = None
    bias: Tensor | None = None
    told: Tokens | None = None
    states: bool = False
    paired: bool = False

    def some(self, places: Sequence[int]) -> Placed:
        """The prompts at these places, none of them a gated one."""
        slots = [self.slots[i] for i in places]
        return replace(self, slots=slots, adaption=None, bias=None)


def place(template: Template, lm: LanguageModel, prompts: Sequence[Prompt]) -> Placed:
    """The prompts, ready to go through the LM.

    Args:
        template: The template, bound, which takes all of them.
        lm: The model.
        prompts: The prompts.
    """
    slots: list[Slots] = []
    parts = [prompt.parts for prompt in prompts]
    rows = 0
    for prompt, own in zip(prompts, parts, strict=True):
        slots.append(slots_of(template, lm, prompt, rows))
        rows += sum(len(some) for some in (own.vectors, own.keys_values) if some is not None)
    return _joined(slots, parts, lm)


def place_numbers(template: Template, lm: LanguageModel, numbers: Numbers) -> Placed:
    """The numbers of a prompt that is being trained, ready to go through the LM.

    Args:
        template: The template, bound.
        lm: The model.
        numbers: The numbers, in the form and the shapes of what is trained under the template.
    """
    trained = PLACINGS[template.kind].trained
    slots = trained.places(template, length_of(numbers), 0)
    return _joined([slots], [trained.parts_of(numbers)], lm)


def _joined(slots: Sequence[Slots], parts: Sequence[Parts], lm: LanguageModel) -> Placed:
    vectors = [own.vectors for own in parts if own.vectors is not None]
    rows = [own.keys_values.flatten(1) for own in parts if own.keys_values is not None]
    if len({own.shape[1] for own in rows}) > 1:
        raise PromptError(
            "prefixes that stand in different layers are scored in calls of their own: expected "
            "those of one number of layers"
        )
    gated = [own.gated for own in parts if own.gated is not None]
    return Placed(
        slots,
        torch.cat(vectors) if vectors else None,
        torch.cat(rows) if rows else None,
        lm.passes.adaption(gated) if gated else None,
        _biases(parts),
    )


def _biases(parts: Sequence[Parts]) -> Tensor | None:
    given = next((own.bias for own in parts if own.bias is not None), None)
    if given is None:
        return None
    nothing = torch.zeros_like(given)
    return torch.stack([nothing if own.bias is None else own.bias for own in parts])


def check_bias(prompt: Prompt, choices: Sequence[str] | None) -> None:
    """Refuse a prompt that corrects other choices than those of a task.

    Args:
        prompt: A prompt of any kind.
        choices: The task's choices; None where they differ by row, and for text answers.

    Raises:
        PromptError: It adds numbers to choices, and the task has others, or none.
    """
    bias, count = prompt.parts.bias, len(choices or ())
    if bias is not None and len(bias) != count:
        has = f"has {count}" if choices else "has none that are the same in all rows"
        raise PromptError(f"the {prompt.shown} corrects {len(bias)} choices, but the task {has}")


def adds_of(kind: Kind, length: int, flops: Flops) -> Adds:
    """What a prompt adds to the price of a row.

    One that stands beside the text is taken to stand at all layers: what it adds is little.

    Args:
        kind: The kind of its template.
        length: Its length in tokens.
        flops: The FLOPs of the LM's forward pass.
    """
    return Adds(0, length * flops.share) if PLACINGS[kind].beside else Adds(length)


def passes_of(numbers: Numbers, sizes: Sizes) -> tuple[float, float]:
    """The cost of a loss, and that of its gradient, in forward passes through the whole LM.

    The layers below a gated prompt compute an example once, and no gradient reaches them; nor does
    it reach those below a prefix that stands in the top-most layers only. The gradient of any other
    prompt crosses all layers, from the first slot on; it does not cross the text before that slot.

    Args:
        numbers: The numbers of a prompt that is being trained.
        sizes: The LM's sizes.
    """
    if isinstance(numbers, Mapping):
        vectors, weights = parted(numbers)
        return 1.0, sizes.weights.backward(weights, below=vectors is not None)
    if isinstance(numbers, Tensor):
        return 1.0, _above(numbers, sizes)
    share = attending(Parts(gated=numbers), sizes)
    return share, share


def _above(rows: Tensor, sizes: Sizes) -> float:
    """The share of the layers that a gradient of vectors, or of a prefix, crosses.

    Args:
        rows: The rows of a prompt that is being trained.
        sizes: The LM's sizes.
    """
    if rows.ndim < 5:
        return 1.0
    layers = sizes.prefix_shape[0]
    # The prefix of a decoder alone is none of the top-most layers: the encoder is below no layer.
    return rows.shape[1] / layers if layers - 1 in sizes.prefix_layers else 1.0


def attending(parts: Parts, sizes: Sizes) -> float:
    """The share of the layers that an example goes through anew for a prompt.

    Args:
        parts: The prompt's parts.
        sizes: The LM's sizes.
    """
    return 1.0 if parts.gated is None else parts.gated[0].shape[1] / sizes.gated_shape[0]
