"""Names that can be those of folders, made of what people call their data."""

from __future__ import annotations

import re

#: The most characters of a name.
NAME = 100
#: Names that a folder cannot have everywhere, or that stand in a study's folder already.
TAKEN = re.compile(
    r"con|prn|aux|nul|com\d|lpt\d|pools|study\.(json|yaml)|report\.(md|html)"
    r"|(runs|scores|curves)\.(csv|parquet)|winners\.safetensors"
    r"|(slim|finished|explained|headroom|models|transfer)\.json",
    re.IGNORECASE,
)


def as_name(text: str, otherwise: str) -> str:
    """A name made of any text, with what a folder cannot be called left out.

    Args:
        text: Such as the stem of a file's name.
        otherwise: The name where nothing is left; behind a name that is taken, it parts the two.
    """
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", text).lstrip("._+-")[:NAME].rstrip(".")
    return f"{name}-{otherwise}" if TAKEN.fullmatch(name) else name or otherwise
