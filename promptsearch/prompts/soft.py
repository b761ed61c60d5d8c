"""Soft prompts: vectors in place of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from promptsearch.prompts.numbers import Numbers, Parts, tensors_of
from promptsearch.prompts.prompt import Open, Sizes, Space
from promptsearch.prompts.trained import Shape
from promptsearch.prompts.vectors import VectorPrompt


@dataclass(frozen=True, eq=False)
class SoftPrompt(VectorPrompt):
    """A prompt of vectors in the LM's embedding space, in the order of the template's slots.

    Args:
        vectors: The vectors, shape `(length, width)`.
    """

    kind = "soft"
    noun = "a soft prompt"
    shapes = {"vectors": ("length", "width")}

    vectors: Tensor

    @classmethod
    def parts_of(cls, numbers: Numbers) -> Parts:
        """Vectors in the slots."""
        (vectors,) = tensors_of(numbers)
        return Parts(vectors=vectors)

    @classmethod
    def wanted(cls, found: Sequence[Shape], length: int, sizes: Sizes) -> tuple[Shape, ...]:
        """One vector of the embeddings' width for each token."""
        return ((length, *sizes.embeddings.shape[1:]),)

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The nearest token to each vector, with its cosine under `nearest`."""
        embeddings = normalize(sizes.embeddings.float().cpu(), dim=-1)
        # Shape (length,) each.
        cosines, ids = (normalize(self.vectors, dim=-1) @ embeddings.T).max(-1)
        nearest = [
            {"token": decode([i]), "cosine": round(c, 3)}
            for i, c in zip(ids.tolist(), cosines.tolist(), strict=True)
        ]
        return {"text": "".join(n["token"] for n in nearest), "nearest": nearest}

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """The embeddings of prompts of the space."""
        return [cls(model.embeddings[list(words.ids)]) for words in space.sample(rng, count)]
