"""The command `promptsearch`, which is `python -m promptsearch`, too."""

from __future__ import annotations

import os
import sys

from promptsearch import signals


def main() -> None:
    """Run the command line; a signal ends it quietly, from its first import on."""
    signals.install()
    try:
        from promptsearch.cli import app

        app(prog_name="promptsearch")
    except BaseException as error:
        if (number := signals.asked(error)) is None:
            raise
        if not isinstance(error, SystemExit):  # it came before or behind a command
            signals.say(signals.MESSAGE)
        signals.leave(
            number
        )  # threads of libraries would be waited for, and say what they think of it


if __name__ == "__main__":
    if (
        sys.path and sys.path[0] == os.getcwd()
    ):  # `-m` looks for modules in the current folder first, which may hold anything
        del sys.path[0]
    main()
