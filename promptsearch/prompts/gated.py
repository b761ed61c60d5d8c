"""Gated prompts: vectors that the top-most layers attend to beside the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from promptsearch.prompts.numbers import Numbers, Parts, tensors_of
from promptsearch.prompts.prompt import Open, Sizes, Space
from promptsearch.prompts.trained import Shape
from promptsearch.prompts.vectors import VectorPrompt
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.template import Template


@dataclass(frozen=True, eq=False)
class GatedPrompt(VectorPrompt):
    """A prompt of vectors that the top-most layers attend to beside the text, through gates.

    This is the adaption prompt of LLaMA-Adapter. A layer projects its vectors by its own weights
    for keys and values, without positions. The layer's queries attend to these by a separate
    softmax; the result is multiplied by the gate and added to the attention of the text. Such a
    prompt therefore stands nowhere in the row, and with gates of zero it is the empty prompt.

    Args:
        vectors: The vectors, shape `(length, layers, width)`, for the LM's last `layers` layers,
            the lowest of them first.
        gates: The factors, shape `(layers, heads)`. Shape `(layers, 1)` means one factor for all
            heads, as in PEFT; the result is then added where PEFT adds it: in models like GPT-2
            behind the attention's output projection, not before it.
    """

    kind = "gated"
    noun = "a gated prompt"
    placement: ClassVar[Kind] = "gated"
    shapes = {"vectors": ("length", "layers", "width"), "gates": ("layers", "heads")}
    outside: ClassVar[str | None] = (
        "a gated prompt, which layers read by a softmax of its own: "
        "export it as json, or as peft with one gate a layer"
    )

    vectors: Tensor
    gates: Tensor

    @classmethod
    def parts_of(cls, numbers: Numbers) -> Parts:
        """Vectors and gates beside the row."""
        vectors, gates = tensors_of(numbers)
        return Parts(gated=(vectors, gates))

    @classmethod
    def wanted(cls, found: Sequence[Shape], length: int, sizes: Sizes) -> tuple[Shape, ...]:
        """Vectors and gates; there may be fewer layers than the LM has, and one gate a layer."""
        layers, heads, width = sizes.gated_shape
        vectors, gates = found[0], found[-1]
        count = min(max(1, vectors[1]), layers) if len(vectors) > 1 else layers
        return (length, count, width), (count, 1 if len(gates) > 1 and gates[1] == 1 else heads)

    @classmethod
    def places(cls, template: Template, length: int, first: int) -> tuple[tuple[int, ...], ...]:
        """No ids: the prompt stands nowhere in the row."""
        return ((),)

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The size, and how far the gates are open."""
        length, layers = self.vectors.shape[:2]
        gates = f"gates up to {float(self.gates.abs().max()):.2g}"
        return {"text": f"[{length} vectors in each of the top {layers} layers, {gates}]"}

    def refuses(self, to: str) -> str | None:
        """PEFT holds gated prompts as such, if in its own way."""
        return None if to == "peft" else super().refuses(to)

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Random vectors at all layers, with gates a little open."""
        layers, heads, width = model.gated_shape
        vectors = torch.from_numpy(rng.normal(size=(count, space.length, layers, width))).float()
        return [cls(some, torch.full((layers, heads), 0.1)) for some in vectors]
