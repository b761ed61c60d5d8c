"""Pretended GPUs: tensors that say they lie on a card, for machines that have none.

Each of them holds a tensor of the CPU, which computes for it. An operation on tensors of two
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
#: The cards. torch lets Python register one device; the other is one that torch knows by itself,
#: with nothing behind it, and whose gradients it computes in the thread of the CPU's.
CARDS = (f"{NAME}:0", "lazy:0")

#: They bring tensors from one device to another, or take both.
_CROSSING = ("_to_copy", "copy_", "copy", "lift_fresh")


class CardTensor(Tensor):
    """A tensor that says it lies on a card.

    Args:
        held: The tensor that computes for it.
        card: The card.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, card: torch.device) -> CardTensor:
        """The shape, strides and dtype of what it holds."""
        made: CardTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=card,
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
    """Operations without tensors, such as `empty`, make tensors of a card, too."""

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
        if func in (torch.tensor, torch.as_tensor) and _card(kwargs.get("device")):
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
    """A context in which there are cards; the device that it gives is the first of `CARDS`.

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
        yield torch.device(CARDS[0])


def _inference_mode(mode: bool = True) -> AbstractContextManager[Any]:
    return torch.no_grad() if mode else nullcontext()


@cache
def _register() -> None:
    """Make the name of the device known to torch, once in a process."""
    if torch.cuda.is_available():
        raise RuntimeError("expected a machine without a GPU, got one: put the model there")
    backend_registration._setup_privateuseone_for_python_backend(NAME)


@cache
def _card(device: Any) -> torch.device | None:
    """The card that a device is; None for the CPU."""
    kind = "" if device is None else torch.device(device).type
    return next((torch.device(card) for card in CARDS if card.startswith(f"{kind}:")), None)


def _compute(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation, computed with what tensors of the cards hold.

    Raises:
        RuntimeError: It mixes devices.
    """
    name = func.overloadpacket.__name__
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    here = next((each.device for each in tensors if isinstance(each, CardTensor)), None)
    if here and name not in _CROSSING:
        _check(name, args, tensors, here)
    device = kwargs.get("device")
    wanted = here if device is None else _card(device)
    given, named = tree_map(_held, (args, kwargs))
    found = func(*given, **named)
    if func._schema.is_mutable and name.endswith("_") and args and isinstance(args[0], Tensor):
        return args[0]
    if name == "_to_copy":
        found = _apart(found, tree_leaves(given))
    if wanted is None:
        return found
    return tree_map(
        lambda each: CardTensor(each, wanted) if isinstance(each, Tensor) else each, found
    )


def _check(name: str, args: Sequence[Any], tensors: Sequence[Tensor], card: torch.device) -> None:
    """Refuse tensors of other devices beside those of a card.

    Numbers of the CPU may stand beside them, and places in a table may come from there. What joins
    tensors takes no numbers either.
    """
    places = name == "index" and isinstance(args[0], CardTensor)
    for each in tensors:
        if isinstance(each, CardTensor):
            mixed = each.device != card
        else:
            mixed = not places and (each.dim() > 0 or name in ("cat", "stack"))
        if mixed:
            raise RuntimeError(
                f"{name}: expected all tensors on one device, got {card} and {each.device}"
            )


def _held(given: Any) -> Any:
    if isinstance(given, CardTensor):
        return given.held
    return torch.device("cpu") if isinstance(given, torch.device) and _card(given) else given


def _apart(found: Tensor, given: Sequence[Any]) -> Tensor:
    """A copy is another tensor, also where the CPU need not copy."""
    return found.clone() if any(found is each for each in given) else found
