"""A model's layers one by one: passes that end or begin between two, and what one projects.

`transformers` runs all layers in one `forward`, so hooks step in: one stops the pass where it
reaches a layer, another puts given states in place of those that reach the layer, while the layers
below are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from promptsearch.models.attention.keys_values import KeysValues


class UnknownLayers(Exception):
    """The model's layers cannot be found, or do not project vectors in a way that is known.

    This never leaves `Passes`.
    """


class Reached(Exception):
    """A pass has reached the layer where it is to end; this is no error.

    Args:
        states: The states that enter the layer, shape `(1, tokens, width)`.
    """

    def __init__(self, states: Tensor) -> None:
        super().__init__("a layer was reached")
        self.states = states


@dataclass(frozen=True)
class Layers:
    """The layers of a model, from below.

    Args:
        blocks: The layers.
        attentions: The attention of each layer.
        heads: The number of query heads.
        sizes: For each layer, how many key heads it has, and the size of a head.
    """

    blocks: Sequence[nn.Module]
    attentions: Sequence[nn.Module]
    heads: int
    sizes: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def fused(self) -> bool:
        """Whether queries, keys and values are one product, as in GPT-2.

        There PEFT adds what a gated prompt gives behind the output projection.
        """
        return hasattr(self.attentions[0], "c_attn")

    def project(self, layer: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The keys, without positions, and the values that a layer makes of vectors.

        Args:
            layer: The number of the layer.
            vectors: The vectors, shape `(prompts, length, width)`.

        Returns:
            Keys and values, shape `(prompts, key heads, length, size of a head)` each.

        Raises:
            UnknownLayers: Its projections have other names.
        """
        attention: Any = self.attentions[layer]
        if hasattr(attention, "k_proj") and hasattr(attention, "v_proj"):
            keys, values = attention.k_proj(vectors), attention.v_proj(vectors)
        elif self.fused:
            _, keys, values = attention.c_attn(vectors).chunk(3, -1)
        else:
            raise UnknownLayers(
                f"its {type(attention).__name__} has neither k_proj and v_proj nor c_attn"
            )
        keys, values = (
            keys.unflatten(-1, self.sizes[layer]),
            values.unflatten(-1, self.sizes[layer]),
        )
        if hasattr(attention, "k_norm"):
            keys = attention.k_norm(keys)
        return keys.transpose(1, 2), values.transpose(1, 2)

    @contextmanager
    def ending(self, layer: int) -> Iterator[None]:
        """A context in which a pass raises `Reached` instead of entering a layer."""

        def stop(module: Any, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
            raise Reached(inputs[0] if inputs else given["hidden_states"])

        with self.blocks[layer].register_forward_pre_hook(stop, with_kwargs=True):
            yield

    @contextmanager
    def beginning(self, layer: int, states: Tensor) -> Iterator[None]:
        """A context in which a pass begins at a layer, with given states; those below are skipped.

        Args:
            layer: The number of the layer.
            states: The states that enter it, shape `(1, tokens, width)`.
        """

        def enter(
            module: Any, inputs: tuple[Any, ...], given: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return (
                ((states, *inputs[1:]), given)
                if inputs
                else ((), {**given, "hidden_states": states})
            )

        def pass_over(hidden_states: Tensor, *others: Any, **given: Any) -> Tensor:
            return hidden_states

        with ExitStack() as stack:
            stack.enter_context(
                self.blocks[layer].register_forward_pre_hook(enter, with_kwargs=True)
            )
            for block in self.blocks[:layer]:
                own = vars(block)
                # Where the layer has no `forward` of its own, that of its class shows again.
                before = {"forward": own["forward"]} if "forward" in own else {}
                own["forward"] = pass_over
                stack.callback(own.update, before)
                stack.callback(own.pop, "forward")
            yield


def find_layers(
    model: nn.Module, attended: Sequence[tuple[nn.Module, int]], sizes: Sequence[tuple[int, int]]
) -> Layers:
    """The layers around attentions.

    Args:
        model: The LM without its head.
        attended: The attentions in the order of a pass, with the number of their query heads.
        sizes: For each attention, how many key heads it has, and the size of a head.

    Raises:
        UnknownLayers: They lie in no common list, or are not numbered in its order.
    """
    attentions = [attention for attention, _ in attended]
    for blocks in model.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) == len(attentions) > 0:
            inside = [
                attention in set(block.modules())
                for block, attention in zip(blocks, attentions, strict=True)
            ]
            if all(inside) and [getattr(a, "layer_idx", None) for a in attentions] == list(
                range(len(attentions))
            ):
                heads = {count for _, count in attended}
                if len(heads) > 1:
                    raise UnknownLayers(
                        f"its layers have different numbers of heads, {sorted(heads)}"
                    )
                return Layers(list(blocks), attentions, heads.pop(), sizes)
    raise UnknownLayers("its layers are not found in one list")


def recorded_differ(layers: Layers, inputs: Sequence[Tensor], recorded: KeysValues) -> bool:
    """Whether the keys and values that `Layers.project` gives differ from those that a pass made.

    Args:
        layers: The layers to try out.
        inputs: The states of one token that entered each attention, shape `(1, 1, width)`. The
            token stands at position 0, where turning keys to positions changes nothing.
        recorded: The token's keys and values, as the pass made them.
    """
    ours = [
        part.flatten(1)
        for layer, states in enumerate(inputs)
        for part in layers.project(layer, states)
    ]
    found, given = KeysValues.side_by_side(ours).on("cpu"), recorded.on("cpu")
    near = 1e-3 if found.dtype == torch.float32 else 0.1
    return not (found.shape == given.shape and float((found - given).norm() / given.norm()) < near)
