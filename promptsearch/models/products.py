"""Matrix products of float32 on a CPU, by oneDNN in place of MKL.

torch multiplies float32 by MKL, which on processors of other makers than its own takes code for an
older generation of them: there oneDNN, which torch brings along, is twice as fast. The results
differ by rounding only. Generation uses it; losses do not, so that they stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from promptsearch.models.quantised import is_quantised


@contextmanager
def fast_products(model: nn.Module) -> Iterator[None]:
    """A context in which a model's linear layers multiply by oneDNN where that is of use.

    The forward of each is exchanged, so weights and hooks that change within take effect.

    Args:
        model: A model that `transformers` loaded, whose linear layers have a forward of their own
            afterwards only if they had one before.
    """
    weight: Tensor = next(model.parameters())
    layers: list[Any] = []
    if weight.dtype == torch.float32 and weight.device.type == "cpu" and _works():
        layers = [
            module
            for module in model.modules()
            if type(module) is nn.Linear
            and "forward" not in vars(module)
            and not is_quantised(module.weight)
        ]
    try:
        for layer in layers:
            layer.forward = partial(_multiply, layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _multiply(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """The forward of a linear layer."""
    if inputs.dtype != torch.float32 or layer.weight.dtype != torch.float32:
        return linear(inputs, layer.weight, layer.bias)
    return _by_onednn(inputs, layer.weight, layer.bias)


def _by_onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found


@cache
def _works() -> bool:
    """Whether this build of torch multiplies by oneDNN as it does by itself."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    inputs, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((2, 3, 8), (4, 8), (4,))
    )
    try:
        found = _by_onednn(inputs, weight, bias)
    except (
        AttributeError,
        RuntimeError,
        TypeError,
    ):  # the operation is none of torch's public ones
        return False
    return torch.allclose(found, linear(inputs, weight, bias), atol=1e-4)
