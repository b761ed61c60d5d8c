"""A model whose layers are spread over the GPUs of this machine.

transformers and accelerate cut it between layers (`device_map="auto"`), and hand hidden states on
from card to card. What passes hold beside them follows: masks are moved to each card once (see
`attention.moved`), and a layer's keys and values stay on its own (see `attention.keys_values`).
"""

from __future__ import annotations

from typing import Any

import torch

from promptsearch.errors import ModelError

#: The ways of transformers to cut a model up; `auto` is the one that this library knows.
WAYS = ("auto",)


def check_cards(device_map: str, device: str, scheme: str) -> None:
    """Refuse to spread a model before it is loaded.

    Args:
        device_map: How it is to be spread.
        device: The device that was asked for.
        scheme: The scheme in which its weights are kept; empty where they are kept whole.

    Raises:
        ModelError: It cannot be spread so.
    """
    if device_map not in WAYS:
        raise ModelError(f"expected device_map {' or '.join(WAYS)}, or none, got '{device_map}'")
    if device != "auto":
        raise ModelError(
            f"device_map '{device_map}' spreads a model over all GPUs, and device '{device}' names "
            "one device: leave one of them out"
        )
    if scheme:
        raise ModelError(
            f"device_map '{device_map}' spreads full weights, and not those that are kept in "
            f"{scheme}: leave one of them out"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            f"device_map '{device_map}' spreads a model over GPUs, and torch sees none here: leave "
            "it out, or take a machine with GPUs"
        )


def check_whole(model: Any) -> None:
    """Refuse a model that the GPUs do not hold, parts of which were left elsewhere.

    Args:
        model: A model of transformers.

    Raises:
        ModelError: Layers lie in the memory of the machine or on its disk, from where they would
            be fetched in each pass.
    """
    places = getattr(model, "hf_device_map", {})
    away = [name for name, place in places.items() if str(place) in ("cpu", "disk")]
    if away:
        raise ModelError(
            f"the GPUs here do not hold it: {len(away)} of its {len(places)} parts would stay "
            f"outside, from {away[0]} on. Take more or larger GPUs, a smaller model, one in 8 or 4 "
            "bits, or one behind a server"
        )


def apart(model: Any) -> None:
    """Let a copy of a spread model be moved and cast as itself.

    accelerate gives a model methods that speak of the one it was given to; a copy takes them along.

    Args:
        model: A copy of a model of transformers.
    """
    for name in ("to", "cuda"):
        vars(model).pop(name, None)
