"""A model's weights: what each belongs to, and others in their place for a while.

Changed weights are swapped in by reference, and added weights are used in hooks on the modules that
they belong to (`added.py` has their forms): the model's own tensors are never written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from promptsearch.errors import PromptError
from promptsearch.models.added import ENDS, FORMS, form_of, put


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
        norms: The names of all norms below the heads.
        total: The number of weights.
        device: Where weights lie: added ones that are trained there need no copy at each step.
            Added weights of layers on other devices need one.
    """

    tensors: Mapping[str, Tensor]
    layers: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    norm: str
    heads: tuple[str, ...]
    maps: Mapping[str, tuple[int, int]]
    norms: tuple[str, ...]
    total: int
    device: torch.device

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
            form, sizes = form_of(own), self.maps.get(module)
            if form and form.on == "sublayer":
                width, places = self.width, [place for parts in self.parts for place in parts]
                sizes = (width, width) if module in places else None
            elif form and form.on == "attention":
                sizes = (joined, joined) if (joined := self.joined(module)) else None
            if form is None or sizes is None:
                raise PromptError(
                    f"the tensors {', '.join(f'{module}.{part}' for part in own)} belong to "
                    "nothing in this model: expected the names of its weights, "
                    f"{_listed('map')} of a linear map, {_listed('sublayer')} of a layer's "
                    f"attention or MLP, or {_listed('attention')} of an attention"
                )
            first = own[form.parts[0]]
            shapes = form.shapes(len(first) if first.ndim else 0, *sizes)
            for part, shape in zip(form.parts, shapes, strict=True):
                _fits(f"{module}.{part}", own[part], shape)

    def joined(self, attention: str) -> int:
        """The numbers of all heads of an attention together; 0 where its maps have other names.

        Args:
            attention: The name of a module.
        """
        return next(
            (
                self.maps[f"{attention}.{last}"][0]
                for first, last in ENDS
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
        tensors: Changed and added weights by name, already checked. They are used in the model's
            dtype, where their modules lie, and gradients flow back to them.
    """
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    handles = []
    try:
        # A weight that two modules share is exchanged in both.
        for name, module, key in _places(model):
            if name in tensors:
                own.append((module, key, module._parameters[key]))  # type: ignore[arg-type]
                # This is no `Parameter`: it may have a history, through which gradients go back.
                there = tensors[name].to(module._parameters[key])
                module._parameters[key] = there  # type: ignore[assignment]
        for name, parts in _added(tensors, dict(model.named_parameters())).items():
            module = model.get_submodule(name)
            like = next(module.parameters())
            handles += put(module, {part: tensor.to(like) for part, tensor in parts.items()})
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


def _listed(on: str) -> str:
    """The parts of all forms that belong to such a module, in words."""
    return " or ".join(" with ".join(form.parts) for form in FORMS if form.on == on)


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise PromptError(f"'{name}' has shape {shape} in this model, got {tuple(tensor.shape)}")
