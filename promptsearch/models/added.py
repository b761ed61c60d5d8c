"""Weights that are added to modules of a model: their parts, their shapes, and what they compute.

With them, the output h of a module whose input is x becomes

* low-rank, on a linear map: h + B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1; their factor
  alpha / r is part of B here);
* scaled, on a linear map: l * h, or the map of l * x (Liu et al. 2022, arXiv:2205.05638, section
  3.3);
* bias, on a linear map that has none of its own: h + b;
* adapter, on a layer's attention or MLP: h + U relu(D norm(h) + d) + u (Houlsby et al. 2019,
  arXiv:1902.00751, section 2.1; with the layer norm of Li and Liang's code, whose own scale and
  shift are already part of D and d);
* memory, on a layer's attention, before its heads are joined: in each head h + elu(q) M, with the
  head's query q as its map gives it (Wang et al. 2025, arXiv:2506.13674, equation 7).

One more form is a function and its line in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, layer_norm, linear, relu
from torch.utils.hooks import RemovableHandle

#: From the rows of the first part, and the numbers that go into a module and come out, to the
#: shapes of all parts.
Shapes = Callable[[int, int, int], tuple[tuple[int, ...], ...]]
Handles = list[RemovableHandle]
#: The maps of an attention that make its queries and join its heads, by name; in GPT-2 the first
#: makes keys and values, too.
ENDS = (("q_proj", "o_proj"), ("c_attn", "c_proj"))


class Form(NamedTuple):
    """One form of added weights.

    Args:
        parts: The names of its tensors.
        on: Whether it belongs to a linear map, to a layer's attention or MLP, or to an attention
            alone.
        shapes: The shapes of its tensors.
        hook: The function that puts them to a module, until its handles are removed.
    """

    parts: tuple[str, ...]
    on: Literal["map", "sublayer", "attention"]
    shapes: Shapes
    hook: Callable[..., Handles]


def form_of(parts: Iterable[str]) -> Form | None:
    """The form that has just these parts; None if there is none."""
    found = set(parts)
    return next((form for form in FORMS if set(form.parts) == found), None)


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> Handles:
    """Let a module compute with added weights, until the handles are removed.

    Args:
        module: The module.
        tensors: The parts of one form, by name.
    """
    form = form_of(tensors)
    assert form is not None  # the weights were checked
    return form.hook(module, *(tensors[part] for part in form.parts))


def _low_rank(module: nn.Module, a: Tensor, b: Tensor) -> Handles:
    return [
        module.register_forward_hook(
            lambda module, given, output: output + linear(linear(given[0], a), b)
        )
    ]


def _scaled_output(module: nn.Module, scale: Tensor) -> Handles:
    return [module.register_forward_hook(lambda module, given, output: scale * output)]


def _scaled_input(module: nn.Module, scale: Tensor) -> Handles:
    return [module.register_forward_pre_hook(lambda module, given: (scale * given[0], *given[1:]))]


def _bias(module: nn.Module, bias: Tensor) -> Handles:
    return [module.register_forward_hook(lambda module, given, output: output + bias)]


def _adapter(
    module: nn.Module, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor
) -> Handles:
    def add(module: nn.Module, given: Any, output: Any) -> Any:
        # An attention returns its states together with its weights.
        states = output[0] if isinstance(output, tuple) else output
        narrow = relu(linear(layer_norm(states, states.shape[-1:]), down, down_bias))
        states = states + linear(narrow, up, up_bias)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return [module.register_forward_hook(add)]


def _memory(attention: nn.Module, memory: Tensor) -> Handles:
    queries: list[Tensor] = []
    heads, size, _ = memory.shape
    first, last = next(ends for ends in ENDS if hasattr(attention, ends[0]))

    def keep(module: nn.Module, given: Any, output: Tensor) -> None:
        queries.append(output[..., : heads * size].unflatten(-1, (heads, size)))

    def add(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        read = torch.einsum("...hi,hij->...hj", elu(queries.pop()), memory)
        return given[0] + read.flatten(-2), *given[1:]

    return [
        getattr(attention, first).register_forward_hook(keep),
        getattr(attention, last).register_forward_pre_hook(add),
    ]


def _heads(heads: int, into: int, out: int) -> tuple[tuple[int, ...], ...]:
    size = into // heads if heads and into % heads == 0 else 0
    return ((heads, size, size),)


#: All forms.
FORMS: tuple[Form, ...] = (
    Form(
        ("lora_A", "lora_B"),
        "map",
        lambda rank, into, out: ((rank, into), (out, rank)),
        _low_rank,
    ),
    Form(("ia3_out",), "map", lambda _, into, out: ((out,),), _scaled_output),
    Form(("ia3_in",), "map", lambda _, into, out: ((into,),), _scaled_input),
    Form(("bias",), "map", lambda _, into, out: ((out,),), _bias),
    Form(
        ("adapter_down", "adapter_down_bias", "adapter_up", "adapter_up_bias"),
        "sublayer",
        lambda narrow, into, out: ((narrow, into), (narrow,), (out, narrow), (out,)),
        _adapter,
    ),
    Form(("memory",), "attention", _heads, _memory),
)
