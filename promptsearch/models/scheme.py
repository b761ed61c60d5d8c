"""The names of models whose weights are kept in few bits: `NAME:quantise=nf4`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from promptsearch.errors import ModelError
from promptsearch.models.packaged import is_packaged

#: Scheme -> the package that computes it.
SCHEMES = {"int8": "torchao", "nf4": "bitsandbytes"}
MARK = ":quantise="


def split_name(name: str) -> tuple[str, str]:
    """A model's name without its scheme, and the scheme; empty where it has none.

    Args:
        name: A name as `LanguageModel.load` takes it, such as `NAME:quantise=nf4`.

    Raises:
        ModelError: There is no such scheme.
    """
    plain, mark, scheme = name.rpartition(MARK)
    if not mark:
        return name, ""
    if scheme not in SCHEMES:
        raise ModelError(
            f"cannot load the model '{name[:200]}': expected {plain}{MARK}int8 or "
            f"{plain}{MARK}nf4, which round the weights of its layers to 8 or 4 bits"
        )
    return plain, scheme


def scheme_named(name: str) -> str:
    """The scheme that a model's name ends with; empty where it ends with none."""
    found = re.search(rf"{MARK}({'|'.join(SCHEMES)})\Z", name)
    return found[1] if found else ""


def with_scheme(name: str, scheme: str) -> str:
    """A model's name that ends with its scheme, if it has one."""
    return name if not scheme or scheme_named(name) else f"{name}{MARK}{scheme}"


def whole_name(name: str) -> str:
    """A model's name that can be used from anywhere: that of a folder here has its whole path.

    The packaged model's is its own, whatever lies here.
    """
    plain, scheme = split_name(os.path.expanduser(name))
    here = not is_packaged(plain) and Path(plain).exists()
    return with_scheme(str(Path(plain).resolve()) if here else plain, scheme)
