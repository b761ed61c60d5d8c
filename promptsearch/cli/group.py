"""What all commands share: their start, and how an error or a signal ends them."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from promptsearch import signals
from promptsearch.cli.console import log_to_terminal, say
from promptsearch.errors import PromptSearchError
from promptsearch.printable import printable


class CommandGroup(TyperGroup):
    """The commands; a signal or an error of the input becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and end as the shell expects."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # a reader that went away is met here, not when Python closes
            return done
        except BaseException as error:
            if (number := signals.asked(error)) is not None:
                signals.say(signals.MESSAGE)
                raise typer.Exit(signals.CODE + number) from error
            if isinstance(error, BrokenPipeError):
                # Python flushes once more at its end, which must not fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(signals.CODE + signals.PIPE) from error
            if isinstance(error, PromptSearchError):
                say(f"error: {error}", err=True)
                raise typer.Exit(2) from error
            if isinstance(error, OSError):  # what no reader or writer of ours has met
                say(f"error: {error}. What was written before is safe.", err=True)
                raise typer.Exit(2) from error
            # typer prints its own messages as they are; an error of another library is a fault.
            message = getattr(error, "message", None)
            if hasattr(error, "format_message") and isinstance(message, str):
                error.message = printable(message)  # type: ignore[attr-defined]
            raise


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        say(installed("promptsearch-kit"))
        raise typer.Exit


def start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Begin any command."""
    log_to_terminal()
