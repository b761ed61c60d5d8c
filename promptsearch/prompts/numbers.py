"""The numbers of a prompt while it is trained: the forms that they have, and their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

#: A trained prompt's numbers while it is trained: rows of vectors or of a prefix; the vectors and
#: gates of a gated prompt; or weights by name, with the vectors of a tuned prompt under `vectors`.
Numbers = Tensor | tuple[Tensor, Tensor] | Mapping[str, Tensor]

#: The name of the vectors among tensors by name: the names of weights all hold a dot.
VECTORS = "vectors"


@dataclass(frozen=True)
class Parts:
    """A prompt's numbers, by where they meet the model; None where the prompt has no such part.

    Args:
        vectors: Vectors that stand in the slots in place of embeddings, shape `(length, width)`.
        keys_values: Keys and values of tokens in front of the whole row, shape
            `(length, *prefix_shape)`.
        gated: Vectors and gates that the top-most layers attend to beside the row, shapes
            `(length, layers, width)` and `(layers, heads)`.
        weights: Changed and added weights of the LM, by name.
        bias: What is added to the log-probability of each choice, in nats, shape `(choices,)`.
    """

    vectors: Tensor | None = None
    keys_values: Tensor | None = None
    gated: tuple[Tensor, Tensor] | None = None
    weights: Mapping[str, Tensor] | None = None
    bias: Tensor | None = None


def tensors_of(numbers: Numbers) -> list[Tensor]:
    """The tensors of a prompt that is being trained.

    Where they have no names, the first tensor has one row for each token.

    Args:
        numbers: The prompt's numbers, of any kind.
    """
    if isinstance(numbers, Mapping):
        return list(numbers.values())
    return [numbers] if isinstance(numbers, Tensor) else list(numbers)


def length_of(numbers: Numbers) -> int:
    """The number of tokens of a prompt that is being trained; weights count as no token."""
    if isinstance(numbers, Mapping):
        return len(numbers.get(VECTORS, ()))
    return len(tensors_of(numbers)[0])


def parted(tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The vectors among tensors by name, or None where there are none; and the weights.

    Args:
        tensors: The tensors of changed weights, or of a tuned prompt.
    """
    return tensors.get(VECTORS), {
        name: tensor for name, tensor in tensors.items() if name != VECTORS
    }


def mapped(numbers: Numbers, change: Callable[[Tensor], Tensor]) -> Numbers:
    """The numbers in the same form, after something was done to each of their tensors.

    Args:
        numbers: The prompt's numbers, of any kind.
        change: Gives the tensor that takes a tensor's place.
    """
    if isinstance(numbers, Mapping):
        return {name: change(tensor) for name, tensor in numbers.items()}
    if isinstance(numbers, Tensor):
        return change(numbers)
    first, second = numbers
    return change(first), change(second)


def leaves_of(numbers: Numbers) -> Numbers:
    """The same numbers as leaves, at which gradients stop."""
    return mapped(numbers, lambda tensor: tensor.detach().requires_grad_())
