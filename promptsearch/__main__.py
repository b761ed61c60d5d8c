"""The command `promptsearch`, which is also `python -m promptsearch`."""

from __future__ import annotations

import os
import sys

from promptsearch import signals


def main() -> None:
    """Run the command line; from the first import on, a signal ends it quietly."""
    signals.install()
    try:
        from promptsearch.cli import app
        from promptsearch.printable import open_streams

        open_streams()
        app(prog_name="promptsearch")
    except BaseException as error:
        if (number := signals.asked(error)) is None:
            raise
        if not isinstance(error, SystemExit):  # the signal came before or after a command
            signals.say(signals.MESSAGE)
        # Python's usual end would wait for the threads of libraries, which may print errors.
        signals.leave(number)


if __name__ == "__main__":
    # `-m` looks for modules in the current folder first, which may hold anything.
    if sys.path and sys.path[0] == os.getcwd():
        del sys.path[0]
    main()
