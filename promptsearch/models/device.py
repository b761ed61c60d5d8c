"""Where a model computes, in which dtype, and how much memory there is."""

from __future__ import annotations

import logging
from pathlib import Path

import psutil
import torch

from promptsearch.errors import ModelError

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is a GPU where there is one.

    Args:
        name: `auto`, or a device as torch names it.

    Raises:
        ModelError: There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the device '{name}' cannot be used: {str(error).splitlines()[0]}. "
            "Expected auto, cpu or cuda."
        ) from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a search; `auto` is bfloat16 where the hardware multiplies it natively.

    A CPU that lacks bfloat16 computes the same numbers slowly: a warning says so.

    Args:
        name: `auto`, `float32` or `bfloat16`.
        device: The device that the search runs on.

    Raises:
        ModelError: There is no such dtype, or the GPU lacks it.
    """
    if name != "auto" and name not in DTYPES:
        raise ModelError(f"expected dtype auto, float32 or bfloat16, got '{name}'")
    native = _multiplies_bf16(device)
    if name == "auto":
        return torch.bfloat16 if native else torch.float32
    if name == "bfloat16" and not native:
        if device.type == "cuda":
            raise ModelError(
                f"the device '{device}' does not multiply bfloat16: "
                "set dtype to float32, or to auto"
            )
        log.warning(
            "'%s' is not known to multiply bfloat16 natively: "
            "float32, or dtype auto, may be faster",
            device,
        )
    return DTYPES[name]


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_multiplies_bf16()


def half_of_memory(device: torch.device) -> int:
    """Half of a device's memory, or of a container's limit where there is one, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1]) // 2
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return min(total, int(limit)) // 2 if limit.isdecimal() else total // 2


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))  # ARM has the last of these
