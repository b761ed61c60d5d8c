"""A server with OpenAI's completions API on this machine, for tests of what asks one.

It answers with whatever a test wants; `promptsearch.testing.serving` answers with a language model.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends.

    Args:
        body: A JSON value, or the bytes themselves.
        status: The status code of HTTP.
        headers: Headers beside those that it needs.
        seconds: How long it waits before.
        cut: Bytes after which the connection is closed; None sends all.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cut: int | None = None


class Server:
    """Answers requests until it is closed; `with Server(answer) as server` closes it.

    Args:
        answer: The path and the content of a request to a reply.

    Attributes:
        url: Where the API begins.
        requests: The content of each request so far.
        headers: The headers of each request so far.
    """

    def __init__(self, answer: Callable[[str, dict[str, Any]], Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # else a body waits 40 ms for the client to acknowledge its headers
            )

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append(content)
                server.headers.append(dict(self.headers.items()))
                reply = answer(self.path, content)
                time.sleep(reply.seconds)
                body = (
                    reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                )
                try:
                    if reply.cut == 0:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    self.send_response(reply.status)
                    for name, value in {
                        "content-type": "application/json",
                        **reply.headers,
                    }.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body if reply.cut is None else body[: reply.cut])
                    self.close_connection = reply.cut is not None
                except OSError:  # the client did not wait
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: tests read what is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def completion(
    text: str, tokens_in: int | None, tokens_out: int, logprobs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of an answer.

    Args:
        text: What was written.
        tokens_in: Tokens of the prompt; None: the server counts nothing.
        tokens_out: Tokens of the text.
        logprobs: Log-probabilities, in the form of the API.
    """
    usage = (
        {}
        if tokens_in is None
        else {"usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}}
    )
    return {
        "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}],
        **usage,
    }
