"""Objects of strangers by name: `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def load_named(name: str) -> Any:
    """The object at `module:attribute`; the module is looked up in the current folder too.

    Args:
        name: With a colon in it.

    Raises:
        Exception: Whatever the module raises while it is imported.
    """
    if "" not in sys.path:  # a console script does not look into the current folder by itself
        sys.path.insert(0, "")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except SystemExit as error:  # a script that ends itself, without a guard around its main part
        raise ImportError(f"the module ends the program ({error!r}) when it is imported") from error
