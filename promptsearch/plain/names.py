"""Names that can be those of folders, made of what people call their data."""

from __future__ import annotations

import re

#: The most characters of a name.
NAME = 100


def as_name(text: str, otherwise: str) -> str:
    """A name made of any text, with what a folder cannot be called left out.

    Args:
        text: Such as the stem of a file's name.
        otherwise: The name where nothing is left.
    """
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text).lstrip("._+-")[:NAME].rstrip(".") or otherwise
