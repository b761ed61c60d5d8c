"""What commands print: lines, and what is logged."""

from __future__ import annotations

import logging
import os

import typer
from rich.logging import RichHandler

from promptsearch.printable import Terminal, printable

#: Bars and warnings of other libraries, which would tear ours.
_SILENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}


def say(text: str, err: bool = False) -> None:
    """Print a line that may hold text of strangers, with unprintable characters escaped."""
    typer.echo(printable(text), err=err)


def log_to_terminal() -> None:
    """Show our log on stderr, and silence other libraries.

    Call it before those are imported: they read their variables then.
    """
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)
    handler = RichHandler(console=Terminal(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("promptsearch").setLevel(logging.INFO)


def log_errors_only() -> None:
    """Leave out of the log what a command was told to be quiet about."""
    logging.getLogger("promptsearch").setLevel(logging.ERROR)
