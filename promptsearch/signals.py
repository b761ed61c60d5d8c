"""Signals by which a user or a machine asks for the end: Ctrl-C (SIGINT), SIGTERM, SIGHUP.

The first signal raises `Stop` where the program stands, so that open files are closed and the
report is written. The second one, of any kind, ends the process at once: files are written aside
and renamed, so none is half written. Only the command line installs these handlers.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

#: The number that a shell adds to a signal's, for the exit code of a process that a signal ended.
CODE = 128
#: The number by which a shell knows that a reader of our output went away, as `head` does: that of
#: the signal for this, where there is one.
PIPE = 13
#: The line printed after a signal.
MESSAGE = "stopped. Nothing is lost: the same command goes on from here."


class Stop(KeyboardInterrupt):
    """A signal came.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


_asked: Stop | None = None


def install() -> None:
    """Handle the signals from now on, except those that the process must ignore (`nohup`)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def asked(error: BaseException) -> int | None:
    """The number of the signal behind an error; None where there was none.

    A library may turn `Stop` into an error of its own (imports do), so a signal that came before
    the error counts, too.

    Args:
        error: The error that ended the command.
    """
    if _asked is not None:
        return _asked.number
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def leave(number: int) -> NoReturn:
    """End the process and all its threads at once, without another word.

    Args:
        number: The number of the signal, for the exit code.
    """
    os._exit(CODE + number)


def say(message: str) -> None:
    """Print one line on standard error, if anyone is there to read it."""
    try:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # the terminal is gone, or the stream is closed
        pass


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked is not None:
        leave(_asked.number)
    _asked = Stop(number)
    raise _asked
