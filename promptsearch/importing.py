"""Objects of strangers by name: `module:attribute`.

Whoever calls this runs the code of whoever wrote the name. Study files may name modules, because their user runs them. Results
may be anyone's: what reads those takes the recorded numbers, and calls this only where the user says so (`trust_code`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def load_named(name: str) -> Any:
    """The object at `module:attribute`; the module is looked up in the current folder too.

    Args:
        name: With a colon in it.

    Raises:
        Exception: Whatever the module raises while it is imported.
    """
    module, _, attribute = name.partition(":")
    with _current_folder():
        try:
            return getattr(importlib.import_module(module), attribute)
        except (
            SystemExit
        ) as error:  # a script that ends itself, without a guard around its main part
            raise ImportError(
                f"the module ends the program ({error!r}) when it is imported"
            ) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """Look for modules in the current folder, too, which a console script does not, and no longer than that."""
    if "" in sys.path:
        yield
        return
    sys.path.insert(0, "")
    try:
        yield
    finally:
        if "" in sys.path:  # the module may have changed it
            sys.path.remove("")
