"""Servers that misbehave, each in a way of its own: slow, broken, lying, hostile.

A behaviour is a function of the way back to the client, of one request, and of a random generator
that decides the details: the same seed, the same behaviour. Some servers answer rightly at first,
and turn bad later.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Event, Thread

from promptsearch.testing.hostile_http import HTTP
from promptsearch.testing.hostile_json import JSON
from promptsearch.testing.wire import LONGEST, Behaviour, Request, Wire, good, packed, reply

BEHAVIOURS: Mapping[str, Behaviour] = HTTP | JSON


class HostileServer:
    """A server on this machine; `with HostileServer("silent", seed=3) as server` closes it.

    Args:
        behaviour: A name of `BEHAVIOURS`.
        seed: Draws the details of the behaviour.
        after: Requests that are answered rightly before.

    Attributes:
        url: Where the API begins.
    """

    def __init__(self, behaviour: str, seed: int = 0, *, after: int = 0) -> None:
        self._behaviour, self._rng = BEHAVIOURS[behaviour], random.Random(f"{behaviour} {seed}")
        self._left = after
        self._over = Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[Thread] = [Thread(target=self._accept, daemon=True)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads[0].start()

    def close(self) -> None:
        """Stop answering."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(timeout=2)

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(
                thread := Thread(target=self._serve, args=(connection,), daemon=True)
            )
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(LONGEST)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(connection.sendall, self._over.wait, self._over.is_set)
            for request in self._requests(connection):
                if self._left <= 0:
                    self._behaviour(wire, request, self._rng)
                    return
                self._left -= 1
                wire.send(reply(packed(good(request.content))))

    def _requests(self, connection: socket.socket) -> Iterator[Request]:
        """The requests of a connection, one after the other."""
        read = b""
        while not self._over.is_set():
            while b"\r\n\r\n" not in read:
                if not (some := connection.recv(2**16)):
                    return
                read += some
            head, _, rest = read.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:])
            }
            length = int(headers.get("content-length", 0))
            while len(rest) < length:
                if not (some := connection.recv(2**16)):
                    return
                rest += some
            key = headers.get("authorization", "").removeprefix("Bearer ")
            yield Request(lines[0].split(" ")[1], json.loads(rest[:length]), key, lines[0])
            read = rest[length:]
