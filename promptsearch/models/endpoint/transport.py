"""One request over HTTP, wholly within its deadline.

A socket's timeout only ends silence: a server that sends a byte a second, in headers or in the
body, or one `100 Continue` after the other, never reaches it. So requests are coroutines, and a
deadline in the event loop bounds them: it ends whatever a request waits for, be it a name, a
connection, a header or the last byte. All endpoints of a process share one loop, in a thread of its
own.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Mapping
from threading import Lock, Thread, current_thread
from typing import NamedTuple

import httpx2

#: The most bytes in an answer.
MOST = 2**24
#: The loggers of the HTTP client: what they log holds lines from the server, which may repeat the
#: key.
_TALKATIVE = (
    "httpx2",
    *(f"httpcore2.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
)

log = logging.getLogger(__name__)


class TooLong(Exception):
    """An answer is longer than `MOST`, or would become so by being unpacked."""


class Response(NamedTuple):
    """What came back.

    Args:
        status: The HTTP status.
        retry_after: The header `Retry-After`; None where there is none.
        body: The whole body, unpacked.
    """

    status: int
    retry_after: str | None
    body: bytes


class _Loop:
    """The event loop that all endpoints share; it starts with the first request."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = Thread(target=self._loop.run_forever, name="endpoints", daemon=True)
                for name in _TALKATIVE:
                    logging.getLogger(name).addFilter(lambda _: current_thread() is not thread)
                thread.start()
            return self._loop


_LOOP = _Loop()


class Transport:
    """Sends requests to one server.

    Args:
        seconds: The most time from the start of a request to the last byte of its answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Each request has a connection of its own: what a server sends beyond its answer is never
        # taken for the answer to the next request.
        alone = httpx2.Limits(max_keepalive_connections=0)
        headers = {"accept-encoding": "identity", "connection": "close"}
        self._client = httpx2.AsyncClient(timeout=None, limits=alone, headers=headers)
        weakref.finalize(self, _close, self._client).atexit = False

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Response:
        """Send JSON, and wait for the answer.

        Args:
            url: The URL to send it to.
            content: The JSON.
            headers: Further headers; that of the content's type is set here.

        Raises:
            TimeoutError: The answer did not come in time.
            TooLong: The answer is longer than `MOST`, or packed several times.
            httpx2.HTTPError: The answer did not come whole, or was no HTTP.
        """
        given = {"content-type": "application/json", **headers}
        future = asyncio.run_coroutine_threadsafe(self._post(url, content, given), _LOOP.get())
        try:
            found = future.result()
        except BaseException:
            future.cancel()  # it would go on where whoever waits was interrupted
            raise
        log.debug("POST %s: %d, %d bytes", url, found.status, len(found.body))
        return found

    async def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Response:
        async with (
            asyncio.timeout(self._seconds),
            self._client.stream("POST", url, content=content, headers=headers) as answer,
        ):
            packed = answer.headers.get("content-encoding", "")
            if "," in packed:
                raise TooLong(f"is packed several times ({packed[:40]!r})")
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST:
                    raise TooLong(f"has more than {MOST} bytes")
            return Response(answer.status_code, answer.headers.get("retry-after"), bytes(body))


def _close(client: httpx2.AsyncClient) -> None:
    asyncio.run_coroutine_threadsafe(client.aclose(), _LOOP.get())
