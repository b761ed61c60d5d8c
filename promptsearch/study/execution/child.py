"""A process that works for a study, as whoever started it on the same machine knows it.

Nothing heavy is imported here: on the nodes of a cluster this is all that stands beside a worker.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from promptsearch.study.execution.wire import Order, heard, send

#: The seconds in which a worker ends by itself.
_END = 5.0


class Child:
    """A process that runs a module of `promptsearch.study.execution`.

    Args:
        order: What it is told at its start.
        environment: Its environment variables.
        module: The module, a worker's or a replica's.
    """

    def __init__(
        self,
        order: Order,
        environment: Mapping[str, str],
        module: str = "promptsearch.study.execution.worker",
    ) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._process = subprocess.Popen(
            # Without `-P` it would look for modules in the current folder first.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=dict(environment),
            encoding="utf-8",
        )
        self.tell("order", asdict(order))

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def tell(self, kind: str, content: Any) -> None:
        """Say something to it; one that is dead is found so by its silence."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            send(self._process.stdin, kind, content)

    def listen(self, hear: Callable[[str, Any], None]) -> None:
        """Hear it from now on, in a thread.

        Args:
            hear: Called with the kind and the content of all that it says, see `wire.py`, and with
                `died` and None when it is dead.
        """
        threading.Thread(target=self._listen, args=(hear,), daemon=True).start()

    def _listen(self, hear: Callable[[str, Any], None]) -> None:
        assert self._process.stdout is not None
        whole = False
        try:
            # Who was killed in the middle of a line says nothing more.
            with suppress(ValueError), self._process.stdout as lines:
                for line in lines:
                    hear(*heard(line))
                whole = True
        finally:
            if not whole:  # nobody hears it any more
                self.kill()
            self._process.wait()
            hear("died", None)

    def kill(self) -> None:
        """Kill it; its death is heard."""
        self._process.kill()

    def end(self) -> None:
        """Let it end by itself, or end it."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def last_words(self) -> str:
        """How it ended, being dead, and the last line that it wrote on standard error."""
        code = self._process.returncode
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if code == -9:
            how += ", as where memory runs out"
        self._said.seek(0)
        lines = [line for line in self._said.read().decode("utf-8", "replace").split("\n") if line]
        return f"{how}{f': {lines[-1][:300]}' if lines else ''}"
