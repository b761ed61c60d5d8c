"""A model's weights: what each belongs to, and others in their place for a while.

Changed weights are swapped in by reference, and added weights are used in hooks behind the modules
that they belong to: the model's own tensors are never written to. There are three kinds of added
weights. With them, the output h of a module whose input is x becomes

* low-rank, on a linear map: h + B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1; their factor
  alpha / r is part of B here);
* adapter, on a layer's attention or MLP: h + U relu(D norm(h) + d) + u (Houlsby et al. 2019,
  arXiv:1902.00751, section 2.1; with the layer norm of Li and Liang's code, whose own scale and
  shift are already part of D and d);
* memory, on a layer's attention, before its heads are joined: in each head h + elu(q) M, with the
  head's query q as its map gives it (Wang et al. 2025, arXiv:2506.13674, equation 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, layer_norm, linear, relu

from promptsearch.errors import PromptError

_LOW_RANK = ("lora_A", "lora_B")
_ADAPTER = ("adapter_down", "adapter_down_bias", "adapter_up", "adapter_up_bias")
_MEMORY = ("memory",)
#: The maps of an attention that make its queries and join its heads, by name; in GPT-2 the first
#: makes keys and values, too.
_ENDS = (("q_proj", "o_proj"), ("c_attn", "c_proj"))


@dataclass(frozen=True)
class ModelWeights:
    """The weights of an LM, and what they belong to.

    Args:
        tensors: The weights by name, shared ones once; read-only.
        layers: The names of the layers, from the bottom up.
        parts: For each layer, the names of its attention and its MLP, with that of its attention to
            an encoder between them where it has one.
        norm: The name of the norm above the layers; empty where the last layer ends with its own.
        heads: The names of what stands above the model's body, the map to the vocabulary in it.
        maps: For each linear map in the layers, by name, how many numbers go in and come out.
    """

    tensors: Mapping[str, Tensor]
    layers: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    norm: str
    heads: tuple[str, ...]
    maps: Mapping[str, tuple[int, int]]

    @cached_property
    def total(self) -> int:
        """The number of weights."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @cached_property
    def device(self) -> torch.device:
        """Where the weights lie: added ones that are trained there need no copy at each step."""
        *_, last = self.tensors
        return self.tensors[last].device

    @cached_property
    def width(self) -> int:
        """The width of the states that go from layer to layer."""
        last = self.parts[-1][-1]
        return (
            self.maps[last][1]
            if last in self.maps
            else len(self.tensors[self.below([self.norm])[0]])
        )

    def below(self, modules: Iterable[str]) -> list[str]:
        """The names of all weights in some modules, in the model's order.

        Args:
            modules: The names of the modules.
        """
        prefixes = tuple(f"{module}." for module in modules)
        return [name for name in self.tensors if name.startswith(prefixes)]

    def backward(self, tensors: Mapping[str, Tensor], *, below: bool = False) -> float:
        """The cost of a backward pass to these tensors for a token, in forward passes of the model.

        The gradients of activations cost the share of the layers that they cross; the gradients of
        weights cost these weights' share in the model's weights. Both take 2 FLOPs for a token and
        a weight.

        Args:
            tensors: Changed or added weights, by name.
            below: Whether the gradient goes on to vectors that stand in the row, below all layers.
        """
        crossed = [self._crossed(name) / len(self.layers) for name in tensors]
        share = sum(tensor.numel() for tensor in tensors.values()) / self.total
        return max([*crossed, float(below)]) + share

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse tensors that do not fit the model.

        Args:
            tensors: Changed or added weights, by name.

        Raises:
            PromptError: A tensor does not fit; the message names it.
        """
        for name, tensor in tensors.items():
            if name in self.tensors:
                _fits(name, tensor, tuple(self.tensors[name].shape))
        for module, own in _added(tensors, self.tensors).items():
            if own.keys() == set(_LOW_RANK) and module in self.maps:
                rank, (into, out) = len(own["lora_A"]), self.maps[module]
                shapes: dict[str, tuple[int, ...]] = dict(
                    zip(_LOW_RANK, ((rank, into), (out, rank)), strict=True)
                )
            elif own.keys() == set(_ADAPTER) and any(module in parts for parts in self.parts):
                narrow, width = len(own["adapter_down"]), self.width
                sizes: tuple[tuple[int, ...], ...] = (
                    (narrow, width),
                    (narrow,),
                    (width, narrow),
                    (width,),
                )
                shapes = dict(zip(_ADAPTER, sizes, strict=True))
            elif own.keys() == set(_MEMORY) and (width := self.joined(module)):
                heads = len(own["memory"])
                size = width // heads if heads and width % heads == 0 else 0
                shapes = {"memory": (heads, size, size)}
            else:
                raise PromptError(
                    f"the tensors {', '.join(f'{module}.{part}' for part in own)} belong to "
                    "nothing in this model: expected the names of its weights, "
                    f"{' and '.join(_LOW_RANK)} of a linear map, {', '.join(_ADAPTER)} of a "
                    "layer's attention or MLP, or memory of an attention"
                )
            for part, shape in shapes.items():
                _fits(f"{module}.{part}", own[part], shape)

    def joined(self, attention: str) -> int:
        """The numbers of all heads of an attention together; 0 where its maps have other names.

        Args:
            attention: The name of a module.
        """
        return next(
            (
                self.maps[f"{attention}.{last}"][0]
                for first, last in _ENDS
                if f"{attention}.{first}" in self.maps and f"{attention}.{last}" in self.maps
            ),
            0,
        )

    def _crossed(self, name: str) -> int:
        """The number of layers that a gradient crosses down to a weight, its own layer included."""
        above = (self.norm, *self.heads) if self.norm else self.heads
        if name.startswith(tuple(f"{module}." for module in above)):
            return 0
        # A weight that is in no layer is an embedding, below all of them.
        return len(self.layers) - next(
            (i for i, layer in enumerate(self.layers) if name.startswith(f"{layer}.")), 0
        )


@contextmanager
def changed(model: Any, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """A context in which the model has other weights.

    Afterwards it has its own again, bit for bit, whatever happened.

    Args:
        model: A model that `transformers` loaded.
        tensors: Changed and added weights by name, already checked, in the model's dtype and on its
            device; gradients flow back to them.
    """
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    handles = []
    try:
        # A weight that two modules share is exchanged in both.
        for name, module, key in _places(model):
            if name in tensors:
                own.append((module, key, module._parameters[key]))  # type: ignore[arg-type]
                # This is no `Parameter`: it may have a history, through which gradients go back.
                module._parameters[key] = tensors[name]  # type: ignore[assignment]
        for name, parts in _added(tensors, dict(model.named_parameters())).items():
            if _MEMORY[0] in parts:
                handles += _memory(model.get_submodule(name), parts[_MEMORY[0]])
                continue
            hook = (
                _low_rank(*(parts[p] for p in _LOW_RANK))
                if _LOW_RANK[0] in parts
                else _adapter(*(parts[p] for p in _ADAPTER))
            )
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, key, parameter in own:
            module._parameters[key] = parameter


def _places(model: Any) -> list[tuple[str, nn.Module, str]]:
    """Where each weight is held: its name, the module that holds it, and its name there.

    A shared weight stands there once for each module, always under the name of the first.
    """
    first: dict[int, str] = {}
    found = []
    for path, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                name = first.setdefault(id(parameter), f"{path}.{key}" if path else key)
                found.append((name, module, key))
    return found


def _added(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors that are none of the known weights, as module -> part -> tensor."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name not in known:
            module, _, part = name.rpartition(".")
            found.setdefault(module, {})[part] = tensor
    return found


def _low_rank(a: Tensor, b: Tensor) -> Callable[..., Tensor]:
    def add(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + linear(linear(given[0], a), b)

    return add


def _adapter(down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor) -> Callable[..., Any]:
    def add(module: nn.Module, given: Any, output: Any) -> Any:
        # An attention returns its states together with its weights.
        states = output[0] if isinstance(output, tuple) else output
        narrow = relu(linear(layer_norm(states, states.shape[-1:]), down, down_bias))
        states = states + linear(narrow, up, up_bias)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return add


def _memory(attention: nn.Module, memory: Tensor) -> list[Any]:
    """Hooks that add what a memory of shape `(heads, size, size)` gives to an attention's heads."""
    queries: list[Tensor] = []
    heads, size, _ = memory.shape
    first, last = next(ends for ends in _ENDS if hasattr(attention, ends[0]))

    def keep(module: nn.Module, given: Any, output: Tensor) -> None:
        queries.append(output[..., : heads * size].unflatten(-1, (heads, size)))

    def add(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        read = torch.einsum("...hi,hij->...hj", elu(queries.pop()), memory)
        return given[0] + read.flatten(-2), *given[1:]

    return [
        getattr(attention, first).register_forward_hook(keep),
        getattr(attention, last).register_forward_pre_hook(add),
    ]


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise PromptError(f"'{name}' has shape {shape} in this model, got {tuple(tensor.shape)}")
