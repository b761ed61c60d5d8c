"""Where a model computes, in which dtype, and how much memory there is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

from promptsearch.errors import ModelError

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: What /proc/cpuinfo calls the instructions that multiply them.
_FLAGS = {
    torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"},  # ARM has the last of these
    torch.float16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}

#: The workspaces with which cuBLAS adds up in one order (its documentation, section 2.1.4).
_WORKSPACES = (":4096:8", ":16:8")


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


def make_repeatable(device: torch.device) -> None:
    """Let a GPU compute the same numbers each time, and float32 in full; a CPU does so by itself.

    By default gradients are added up on a GPU in the order in which threads arrive, and
    convolutions of float32 are rounded to TF32. The settings are those of the whole process.

    Args:
        device: The device that a model lies on.
    """
    if device.type != "cuda":
        return
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in _WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = _WORKSPACES[0]
    # Where it was turned on with warnings only, for a model that needs it, it stays so.
    if not torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that was not written to, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # cuDNN plans its attention anew for every shape, and ours hardly come twice.
    torch.backends.cuda.enable_cudnn_sdp(False)


def in_words(devices: Iterable[torch.device]) -> str:
    """The devices that a model lies on, for messages."""
    return ", ".join(map(str, devices))


def card(device: torch.device) -> str | None:
    """The name of the GPU that a device is; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a search; `auto` is bfloat16 where the hardware multiplies it natively.

    A CPU that lacks a dtype computes the same numbers slowly: a warning says so.

    Args:
        name: `auto`, or one of `DTYPES`.
        device: The device that the search runs on.

    Raises:
        ModelError: There is no such dtype, or the GPU lacks it.
    """
    if name != "auto" and name not in DTYPES:
        raise ModelError(f"expected dtype auto, {', '.join(DTYPES)}, got '{name}'")
    if name == "auto":
        return torch.bfloat16 if _multiplies(torch.bfloat16, device) else torch.float32
    dtype = DTYPES[name]
    if dtype != torch.float32 and not _multiplies(dtype, device):
        if device.type == "cuda":
            raise ModelError(
                f"the device '{device}' does not multiply {name}: set dtype to float32, or to auto"
            )
        log.warning(
            "'%s' is not known to multiply %s natively: float32, or dtype auto, may be faster",
            device,
            name,
        )
    return dtype


def _multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type == "cuda":
        if dtype == torch.float16:
            return True  # all that torch runs on do
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(_FLAGS[dtype] & _flags())


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


def _flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
