"""A pretended GPU: tensors that say they lie on a card, for machines that have none.

Each of them holds a tensor of the CPU, which computes for it. An operation on tensors of both
devices is refused as CUDA refuses it, so code that forgets to move a tensor is caught without a
card. Nothing is learnt of kernels, times or memory: the numbers are those of the CPU, computed as
on any device that is no CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: The name of the pretended device.
NAME = "card"

#: They bring tensors from one device to another, or take both.
_CROSSING = ("_to_copy", "copy_", "copy", "lift_fresh")


class CardTensor(Tensor):
    """A tensor that says it lies on the card.

    Args:
        held: The tensor that computes for it.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> CardTensor:
        """The shape, strides and dtype of what it holds."""
        made: CardTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CardTensor({self.held!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute with what is held."""
        return _compute(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Operations without tensors, such as `empty`, make tensors of the card, too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch does past its operations, while it reads lists of Python."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in (torch.tensor, torch.as_tensor) and _on_card(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if isinstance(first, CardTensor):
            if func is Tensor.tolist:
                return first.held.tolist()
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                places = args[1] if isinstance(args[1], tuple) else (args[1],)
                listed = tuple(torch.tensor(p) if isinstance(p, list) else p for p in places)
                return func(first, listed, *args[2:])
        return func(*args, **kwargs)


@contextmanager
def pretended_card() -> Iterator[torch.device]:
    """A context in which there is a card, which is the device that it gives.

    It is known to the whole process from then on, so it wants one of its own: torch looks for
    devices once, before the first gradient, and takes this one for its only accelerator. Inference
    mode only turns gradients off in it, since pretended tensors of both modes cannot meet.

    Raises:
        RuntimeError: There is a GPU, which needs no pretending.

    Example:
        >>> with pretended_card() as device:
        ...     torch.ones(2, device=device) + torch.ones(2)
        Traceback (most recent call last):
            ...
        RuntimeError: add: expected all tensors on one device, got card:0 and cpu
    """
    _register()
    with (
        patch("torch.inference_mode", _inference_mode),
        _Functions(),
        _Operations(),  # type: ignore[no-untyped-call]
    ):
        yield torch.device(NAME, 0)


def _inference_mode(mode: bool = True) -> AbstractContextManager[Any]:
    return torch.no_grad() if mode else nullcontext()


@cache
def _register() -> None:
    """Make the name of the device known to torch, once in a process."""
    if torch.cuda.is_available():
        raise RuntimeError("expected a machine without a GPU, got one: put the model there")
    backend_registration._setup_privateuseone_for_python_backend(NAME)


def _on_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _compute(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation, computed with what tensors of the card hold.

    Raises:
        RuntimeError: It mixes devices.
    """
    name = func.overloadpacket.__name__
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    here = any(isinstance(each, CardTensor) for each in tensors)
    if here and name not in _CROSSING:
        _check(name, args, tensors)
    device = kwargs.get("device")
    wanted = here if device is None else _on_card(device)
    given, named = tree_map(_held, (args, kwargs))
    found = func(*given, **named)
    if func._schema.is_mutable and name.endswith("_") and args and isinstance(args[0], Tensor):
        return args[0]
    if name == "_to_copy":
        found = _apart(found, tree_leaves(given))
    return tree_map(_carded, found) if wanted else found


def _check(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of the CPU beside those of the card, but for numbers and places in a table.

    What joins tensors takes no numbers either.
    """
    if name == "index" and isinstance(args[0], CardTensor):
        return
    for each in tensors:
        if not isinstance(each, CardTensor) and (each.dim() or name in ("cat", "stack")):
            raise RuntimeError(
                f"{name}: expected all tensors on one device, got card:0 and {each.device}"
            )


def _held(given: Any) -> Any:
    if isinstance(given, CardTensor):
        return given.held
    return torch.device("cpu") if isinstance(given, torch.device) and _on_card(given) else given


def _carded(found: Any) -> Any:
    return CardTensor(found) if isinstance(found, Tensor) else found


def _apart(found: Tensor, given: Sequence[Any]) -> Tensor:
    """A copy is another tensor, also where the CPU need not copy."""
    return found.clone() if any(found is each for each in given) else found
