"""What a server that misbehaves works with: request, way back, and a right answer to spoil."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: How long a behaviour that never ends goes on at most, in seconds: longer than any client should
#: wait.
LONGEST = 20.0


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Args:
        path: The path of the URL.
        content: The JSON.
        key: The key that was sent, without `Bearer`.
        head: All of the request's head.
    """

    path: str
    content: dict[str, Any]
    key: str
    head: str


@dataclass(frozen=True)
class Wire:
    """The way back to the client.

    Args:
        send: Bytes, as they are.
        wait: Seconds, less where the server closes.
        closed: Whether it does.
    """

    send: Callable[[bytes], None]
    wait: Callable[[float], Any]
    closed: Callable[[], bool]

    def often(self, part: bytes, pause: float) -> None:
        """Send the same again and again, until the client hangs up or time is over."""
        for _ in range(int(LONGEST / max(pause, 1e-3))):
            if self.closed():
                return
            self.send(part)
            self.wait(pause)


Behaviour = Callable[[Wire, Request, random.Random], None]


def reply(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole answer of HTTP.

    Args:
        body: The content.
        status: Code and reason.
        headers: Headers beside type and length.
        length: What the header says; left out: the truth.
    """
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", *headers]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def good(content: dict[str, Any]) -> dict[str, Any]:
    """A right answer: characters are tokens, texts go on with `!`, numbers follow from both."""
    asked = content.get("prompt")
    text = asked if isinstance(asked, str) else str(asked)
    written = "!" * int(content.get("max_tokens") or 0)
    echoed = text if content.get("echo") else ""
    some = [*echoed, *written]
    nats = [
        -0.5 - (ord(c) * 37 + i) % 100 / 50 if c != "!" or not echoed else -0.25
        for i, c in enumerate(some)
    ]
    values = (
        [None if echoed and not i else v for i, v in enumerate(nats)]
        if echoed
        else [-0.25] * len(some)
    )
    likely = [
        None if v is None else {c: v} | {"!": -0.25} for c, v in zip(some, values, strict=True)
    ]
    logprobs = (
        {"tokens": some, "token_logprobs": values, "top_logprobs": likely}
        if content.get("logprobs")
        else None
    )
    usage = {"prompt_tokens": max(1, len(text)), "completion_tokens": len(written)}
    choice = {"index": 0, "text": echoed + written, "logprobs": logprobs, "finish_reason": "length"}
    return {"choices": [choice], "usage": usage}


def packed(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value).encode()


def named(behaviours: dict[str, Behaviour]) -> Callable[[Behaviour], Behaviour]:
    """A decorator that enters a behaviour under its name.

    Args:
        behaviours: Where to.
    """

    def enter(function: Behaviour) -> Behaviour:
        behaviours[function.__name__.strip("_")] = function
        return function

    return enter
