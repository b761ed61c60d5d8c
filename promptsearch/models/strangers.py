"""What a stranger made: a model, a tokenizer, a chat template, or their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def strangers(explain: Callable[[Exception], Exception]) -> Iterator[None]:
    """A context for what a stranger made, which may raise anything.

    Args:
        explain: Makes of what was raised the error that is raised instead.
    """
    try:
        yield
    except Exception as error:  # this is the one place of this room that catches whatever comes
        raise explain(error) from error
