"""Objects of strangers: imported by name, `module:attribute`, and called whatever they raise.

To import a name is to run the code of whoever wrote it. Study files may name modules, because their
user chooses to run them. Results may be anyone's: readers of results take the recorded numbers, and
import by name only where the user says so (`trust_code`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def load_named(name: str) -> Any:
    """The object at `module:attribute`; the module is looked up in the current folder too.

    Args:
        name: The name, with a colon in it.

    Raises:
        Exception: Whatever the module raises while it is imported.
    """
    module, _, attribute = name.partition(":")
    with _current_folder():
        try:
            return getattr(importlib.import_module(module), attribute)
        except SystemExit as error:  # the module is a script without a guard around its main part
            raise ImportError(
                f"the module ends the program ({error!r}) when it is imported"
            ) from error


@contextmanager
def strangers(explain: Callable[[BaseException], Exception]) -> Iterator[None]:
    """A context for what a stranger made, which may raise anything; Ctrl-C stays the user's.

    Args:
        explain: Makes of what was raised the error that is raised instead.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also those that are no `Exception`: an exit, a panic in Rust
        raise explain(error) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """Look for modules in the current folder, too, as a console script does not, while inside."""
    if "" in sys.path:
        yield
        return
    sys.path.insert(0, "")
    try:
        yield
    finally:
        if "" in sys.path:  # the module may have changed it
            sys.path.remove("")
