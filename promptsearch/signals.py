"""The end that a user or a machine asks for: Ctrl-C, SIGTERM, SIGHUP. The command line alone installs these handlers.

The first signal raises `Stop` where the program stands, so that what is open is closed and the report is written. The
second one, of any kind, ends the process at once: files are written aside and renamed, so nothing is half written.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

#: What a shell expects of a process that a signal ended.
CODE = 128
#: A reader of our output that went away, as `head` does: where there is such a signal, a shell knows it by this number.
PIPE = 13
MESSAGE = "stopped. Nothing is lost: the same command goes on from here."


class Stop(KeyboardInterrupt):
    """A signal came.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


_asked: Stop | None = None


def install() -> None:
    """Handle the signals from now on, but for those that whoever started the process chose to ignore (`nohup`)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def asked(error: BaseException) -> int | None:
    """The number of the signal behind an error; None where there was none.

    A library may turn `Stop` into an error of its own (imports do), so one that came before counts, too.

    Args:
        error: What ended the command.
    """
    if _asked is not None:
        return _asked.number
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def leave(number: int) -> NoReturn:
    """End the process at once, threads and all, with nothing more to say."""
    os._exit(CODE + number)


def say(message: str) -> None:
    """One line on standard error, if anyone is there to read it."""
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
