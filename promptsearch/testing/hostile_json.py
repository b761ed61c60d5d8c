"""Behaviours of servers that answer in HTTP, but with other JSON, wrong numbers, or the key."""

from __future__ import annotations

import json
import random
from typing import Any

from promptsearch.testing.wire import Behaviour, Request, Wire, good, named, packed, reply

JSON: dict[str, Behaviour] = {}
_named = named(JSON)


# What is no JSON of the protocol.


@_named
def _no_json(wire: Wire, request: Request, rng: random.Random) -> None:
    bodies = [
        b"",
        b"<html>hi</html>",
        b"data: {}\n\n",
        b'{"choices": [',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"null",
        b"NaN",
        b"{}{}",
    ]
    wire.send(reply(rng.choice([*bodies, rng.randbytes(200), b"1" * 10_000, b"'", b"{'a': 1}"])))


@_named
def _deep_json(wire: Wire, request: Request, rng: random.Random) -> None:
    depth = rng.choice([400, 900, 985, 1000, 5000, 100_000])
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = opened * depth + b"1" + closed * depth
    wire.send(
        reply(
            rng.choice(
                [
                    deep,
                    b'{"choices": ' + deep + b"}",
                    b'{"choices": [{"text": "x"}], "more": ' + deep + b"}",
                ]
            )
        )
    )


@_named
def _twice_the_same_key(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(reply(b'{"choices": [{"text": "a", "text": "b"}], "choices": []}'))


@_named
def _other_shapes(wire: Wire, request: Request, rng: random.Random) -> None:
    strange: list[Any] = [None, 7, "x", [], {}, [7], [[]], {"0": {}}, True, -1.5]
    found = good(request.content)
    place: Any = rng.choice([found, found["choices"][0], found["usage"]])
    place[rng.choice(list(place))] = rng.choice(strange)
    wire.send(
        reply(
            packed(rng.choice([found, found, found, [found], {"error": found}, {"error": "quota"}]))
        )
    )


@_named
def _wrong_choices(wire: Wire, request: Request, rng: random.Random) -> None:
    found = good(request.content)
    choice = found["choices"][0]
    indices: list[Any] = rng.choice(
        [[0, 1], [0, 0], [1, 0], [7], [-1], ["0"], [[]], [10**30], [0] * 1000]
    )
    wire.send(
        reply(packed({**found, "choices": [{**choice, "index": index} for index in indices]}))
    )


@_named
def _wrong_counts(wire: Wire, request: Request, rng: random.Random) -> None:
    found = good(request.content)
    name = rng.choice(list(found["usage"]))
    found["usage"][name] = rng.choice(
        [10**30, -1, 0, 1, True, "5", 1.5, [], None, 2**63, float("nan"), float("inf")]
    )
    wire.send(reply(packed(found)))


@_named
def _half_characters(wire: Wire, request: Request, rng: random.Random) -> None:
    body = json.dumps(good(request.content))
    where = rng.choice(['"text": "', '"finish_reason": "', '"tokens": ["'])
    wire.send(
        reply(body.replace(where, where + rng.choice(["\\ud800", "\\udfff", "a\\uDBFFb"])).encode())
    )


@_named
def _raw_surrogates(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(
        reply(
            b'{"choices": [{"text": "'
            + rng.choice([b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"])
            + b'"}]}'
        )
    )


@_named
def _control_characters(wire: Wire, request: Request, rng: random.Random) -> None:
    found = good(request.content)
    found["choices"][0]["text"] = rng.choice(
        ["\x1b[2J\x1b]0;x\x07", "\0", "\u202e", "\r\n" * 50, "a" * 10**5, "\x7f\x9b"]
    )
    wire.send(reply(packed(found)))


# Log-probabilities.


def _listed(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    found = good({**request.content, "logprobs": 1})
    return found, found["choices"][0]["logprobs"]


@_named
def _wrong_nats(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    values = [
        "1" + "0" * 400,
        "-1" + "0" * 400,
        "-1e308",
        "1e400",
        "-1e400",
        "NaN",
        "-Infinity",
        "5",
        "0.5",
        "true",
        '"-1"',
        "[]",
    ]
    place = rng.randrange(len(logprobs["token_logprobs"]) or 1)
    logprobs["token_logprobs"][place : place + 1] = ["@"]
    wire.send(reply(json.dumps(found).replace('"@"', rng.choice(values)).encode()))


@_named
def _wrong_likely(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    values = [
        "7",
        '"x"',
        "true",
        "[]",
        "[7]",
        "{}",
        '[{"a": 5}]',
        '[{"a": NaN}]',
        '[{"a": null}]',
        '[{"a": -1' + "0" * 400 + "}]",
    ]
    logprobs["top_logprobs"] = "@"
    wire.send(reply(json.dumps(found).replace('"@"', rng.choice(values)).encode()))


@_named
def _missing_nats(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    name = rng.choice(list(logprobs))
    how = rng.randrange(4)
    if how == 0:
        del logprobs[name]
    else:
        logprobs[name] = [logprobs[name][1:], [None] * len(logprobs[name]), []][how - 1]
    wire.send(reply(packed(found)))


@_named
def _other_tokens(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    rng.shuffle(logprobs["tokens"])
    wire.send(reply(packed(found)))


@_named
def _broken_tokens(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    logprobs["tokens"] = [rng.choice([t, "\ufffd", "bytes:\\xe2", ""]) for t in logprobs["tokens"]]
    wire.send(reply(packed(found)))


@_named
def _same_nats(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    logprobs["token_logprobs"] = [None if v is None else -1.0 for v in logprobs["token_logprobs"]]
    wire.send(reply(packed(found)))


@_named
def _shifted_nats(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    for name in ("token_logprobs", "top_logprobs"):
        by = rng.choice([1, 2, -1])
        logprobs[name] = [*logprobs[name][by:], *logprobs[name][:by]]
    wire.send(reply(packed(found)))


@_named
def _random_nats(wire: Wire, request: Request, rng: random.Random) -> None:
    found, logprobs = _listed(request)
    logprobs["token_logprobs"] = [
        None if v is None else -rng.expovariate(0.3) for v in logprobs["token_logprobs"]
    ]
    wire.send(reply(packed(found)))


# The key.


@_named
def _tells_the_key(wire: Wire, request: Request, rng: random.Random) -> None:
    found = good(request.content)
    found["choices"][0]["text"] = f"the key is {request.key} {request.head}"
    status = rng.choice(["200 OK", "400 Bad", "401 Who", "500 Oh"])
    wire.send(reply(packed(found), status, f"x-key: {request.key}"))


@_named
def _tells_the_key_in_its_reason(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(reply(packed(good(request.content)), f"{rng.choice([200, 400])} {request.key}"))


@_named
def _tells_the_key_in_a_broken_line(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(f"HTP {request.key}\r\n{request.head}\r\n\r\n".encode("latin-1", "replace"))
