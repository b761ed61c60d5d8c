"""Files of tensors by name (safetensors), written whole and read with suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import safetensors
import safetensors.torch
from torch import Tensor

from promptsearch.errors import FileError, PromptError
from promptsearch.files import opened, shown, write_aside

#: The types that a prompt's numbers may have in a file, in safetensors' words.
_DTYPES = ("F64", "F32", "F16", "BF16")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors by name; the file is never half written.

    Args:
        path: The file.
        tensors: The tensors.
        about: Text by name that the file holds besides.
    """
    write_aside(path, safetensors.torch.save(dict(tensors), metadata=dict(about)))


def read_tensors(path: Path, whose: str = "a prompt") -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Args:
        path: The file.
        whose: What they belong to, for the message.

    Raises:
        PromptError: There is no such file, it is damaged, or it holds something else than finite
            floating-point numbers.
    """
    try:
        # This refuses what is no ordinary file, and a file that memory does not hold.
        with opened(path, psutil.virtual_memory().available):
            pass
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise PromptError(
                        f"{shown(path)}: the tensor {name[:80]!r} is of {dtype}, "
                        f"expected {', '.join(_DTYPES)}"
                    )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileError, OSError, safetensors.SafetensorError) as error:
        raise PromptError(
            f"cannot read the numbers of {whose} from {shown(path)}: {error}"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise PromptError(
                f"{shown(path)}: the tensor {name[:80]!r} holds something else than numbers "
                "(NaN or infinite ones)"
            )
    return tensors
