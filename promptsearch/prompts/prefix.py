"""Prefixes: keys and values at every layer, in front of the whole row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from promptsearch.prompts.numbers import Numbers, Parts, tensors_of
from promptsearch.prompts.prompt import Open, Sizes, Space
from promptsearch.prompts.trained import Shape
from promptsearch.prompts.vectors import VectorPrompt
from promptsearch.tasks.placement import Kind


@dataclass(frozen=True, eq=False)
class PrefixPrompt(VectorPrompt):
    """A prompt of keys and values at every layer, which stand in front of the whole row.

    All tokens of the row see them. Keys are stored as they enter the attention: in models that turn
    keys to positions, they are turned to the positions 0 to length - 1. The row's own tokens follow
    from position `length` on. The first dimension is the token, unlike in the caches of
    `transformers`: a row of this tensor, made flat, is a row of PEFT's file, and a row of what the
    scoring engine keeps.

    A prefix of fewer layers than the model has stands in the top-most ones. The layers below read
    the row alone, at the same positions.

    In an encoder-decoder model the layers are those of the encoder, of the cross-attention and of
    the decoder, one after the other; a prefix of the decoder's alone, such as PEFT trains, stands
    in front of the answer only.

    Args:
        keys_values: Keys, then values, shape `(length, layers, 2, key heads, size of a head)`, the
            lowest layer first.
    """

    kind = "prefix"
    noun = "a prefix prompt"
    placement: ClassVar[Kind] = "prefix"
    shapes = {"keys_values": ("length", "layers", "2", "key heads", "size of a head")}

    keys_values: Tensor

    @classmethod
    def parts_of(cls, numbers: Numbers) -> Parts:
        """Keys and values in front."""
        (keys_values,) = tensors_of(numbers)
        return Parts(keys_values=keys_values)

    @classmethod
    def wanted(cls, found: Sequence[Shape], length: int, sizes: Sizes) -> tuple[Shape, ...]:
        """Keys and values for each token, of all layers or of as many as the model lets it have."""
        layers, *rest = sizes.prefix_shape
        given = found[0][1] if len(found[0]) > 1 else layers
        return ((length, given if given in sizes.prefix_layers else layers, *rest),)

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The size: no token has keys like these, so that the nearest would say nothing."""
        length, layers = self.keys_values.shape[:2]
        return {"text": f"[keys and values of {length} tokens in {layers} layers]"}

    def refuses(self, to: str) -> str | None:
        """Requests to vLLM hold embeddings only."""
        if to == "vllm":
            return (
                "vLLM takes embeddings, and no keys and values from outside: export a prefix as "
                "kv, peft or json"
            )
        return super().refuses(to)

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """The keys and values of prompts of the space."""
        return [cls(model.keys_values(words.ids)) for words in space.sample(rng, count)]
