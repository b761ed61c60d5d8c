"""Behaviours of servers that turn HTTP against the client: time, bytes, connections, statuses."""

from __future__ import annotations

import gzip
import random
import zlib
from functools import cache

from promptsearch.testing.wire import LONGEST, Behaviour, Request, Wire, good, named, packed, reply

HTTP: dict[str, Behaviour] = {}
_named = named(HTTP)


# Time and bytes.


@_named
def _silent(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.wait(LONGEST)


@_named
def _drips_headers(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n")
    wire.often(b"x-%d: y\r\n" % rng.randrange(10**6), rng.uniform(0.02, 0.3))


@_named
def _drips_status(wire: Wire, request: Request, rng: random.Random) -> None:
    for byte in b"HTTP/1.1 200 OK" + b" " * 10_000:
        wire.send(bytes([byte]))
        if wire.wait(rng.uniform(0.02, 0.3)) or wire.closed():
            return


@_named
def _drips_body(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(reply(b"", length=10**6))
    wire.often(b" ", rng.uniform(0.02, 0.3))


@_named
def _storm_of_continue(wire: Wire, request: Request, rng: random.Random) -> None:
    status = rng.choice([b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 Maybe"])
    wire.often(
        (b"HTTP/1.1 " + status + b"\r\n\r\n") * rng.choice([1, 100]), rng.choice([0.001, 0.1])
    )


@_named
def _chunks_for_ever(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    size = rng.choice([1, 100, 60_000])
    wire.often(b"%x\r\n%s\r\n" % (size, b" " * size), rng.choice([0.001, 0.05]))


@_named
def _headers_for_ever(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n")
    wire.often(b"x: " + b"y" * rng.choice([100, 10_000]) + b"\r\n", 0.001)


@_named
def _late(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.wait(rng.uniform(0.0, 5.0))
    wire.send(reply(packed(good(request.content))))


@_named
def _too_long(wire: Wire, request: Request, rng: random.Random) -> None:
    body = rng.choice([b" ", b"x", b"[", b"\\"]) * 2**20
    wire.send(reply(b"", length=2**30))
    wire.often(body, 0.001)


@cache
def _zipped(kind: str) -> bytes:
    return (zlib.compress if kind == "deflate" else gzip.compress)(bytes(2**26))


@_named
def _bomb(wire: Wire, request: Request, rng: random.Random) -> None:
    kind = rng.choice(["gzip", "deflate", "gzip, gzip", "br", "x-unknown"])
    small = _zipped("deflate" if kind == "deflate" else "gzip")
    small = gzip.compress(small) if "," in kind else small
    wire.send(reply(small, "200 OK", f"content-encoding: {kind}"))


@_named
def _damaged_gzip(wire: Wire, request: Request, rng: random.Random) -> None:
    small = bytearray(gzip.compress(packed(good(request.content))))
    small[rng.randrange(len(small))] ^= 1 << rng.randrange(8)
    wire.send(reply(bytes(small), "200 OK", "content-encoding: gzip"))


# Connections.


@_named
def _hangs_up(wire: Wire, request: Request, rng: random.Random) -> None:
    whole = reply(packed(good(request.content)))
    wire.send(whole[: rng.randrange(len(whole))])


@_named
def _promises_more(wire: Wire, request: Request, rng: random.Random) -> None:
    body = packed(good(request.content))
    wire.send(reply(body, length=len(body) + rng.choice([1, 10**6, 10**15])))


@_named
def _promises_less(wire: Wire, request: Request, rng: random.Random) -> None:
    body = packed(good(request.content))
    wire.send(reply(body, length=rng.randrange(len(body))))


@_named
def _lengths_that_are_none(wire: Wire, request: Request, rng: random.Random) -> None:
    length = rng.choice(["-1", "x", "1e3", "9" * 400, "5, 6", ""])
    wire.send(f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{{}}".encode())


@_named
def _both_lengths(wire: Wire, request: Request, rng: random.Random) -> None:
    body = packed(good(request.content))
    wire.send(
        reply(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), "200 OK", "transfer-encoding: chunked")
    )


@_named
def _answers_twice(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(
        reply(packed(good(request.content))) + reply(packed({"choices": [{"text": " stale"}]}))
    )
    wire.wait(1.0)


@_named
def _closes_after(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(reply(packed(good(request.content)), "200 OK", "connection: keep-alive"))


@_named
def _no_http(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(
        rng.choice(
            [
                b"SSH-2.0-OpenSSH\r\n",
                b"\x16\x03\x01\x02\x00",
                b"\0" * 5000,
                b"220 mail\r\n",
                rng.randbytes(500),
            ]
        )
    )


@_named
def _strange_chunks(wire: Wire, request: Request, rng: random.Random) -> None:
    chunk = rng.choice(
        [
            b"zz\r\n{}\r\n",
            b"-5\r\n{}\r\n",
            b"f" * 40 + b"\r\n{}",
            b"2;" + b"x" * 10**5 + b"\r\n{}\r\n0\r\n\r\n",
        ]
    )
    wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk)


@_named
def _strange_headers(wire: Wire, request: Request, rng: random.Random) -> None:
    header = rng.choice(
        [
            "x" * 200_000 + ": y",
            ": y",
            "x y: z",
            "x: \0",
            "content-type: \xff\xfe",
            "set-cookie: a=b; expires=x",
        ]
    )
    wire.send(reply(packed(good(request.content)), "200 OK", header))


# Statuses.


@_named
def _redirects(wire: Wire, request: Request, rng: random.Random) -> None:
    where = rng.choice(
        ["/v1/completions", "http://127.0.0.1:9/", "file:///etc/passwd", "//", "http://[", "\\\\x"]
    )
    wire.send(
        reply(b"", rng.choice(["301 Moved", "302 Found", "307 Go", "308 Go"]), f"location: {where}")
    )


@_named
def _other_status(wire: Wire, request: Request, rng: random.Random) -> None:
    status = rng.choice(
        [
            "201 Made",
            "204 None",
            "206 Part",
            "304 Same",
            "400 Bad",
            "402 Pay",
            "418 Tea",
            "451 No",
            "599 X",
            "999 Y",
        ]
    )
    body = rng.choice(
        [
            b"",
            b"{}",
            b'{"error": {"message": {"deep": [1, 2]}}}',
            b"<h1>no</h1>",
            b"\xff\xfe",
            b'"no"',
        ]
    )
    wire.send(reply(b"" if status[:3] in ("204", "304") else body, status))


@_named
def _upgrades(wire: Wire, request: Request, rng: random.Random) -> None:
    wire.send(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    )
    wire.wait(0.2)


@_named
def _busy(wire: Wire, request: Request, rng: random.Random) -> None:
    wait = rng.choice(
        [
            "0",
            "-5",
            "x",
            "1e400",
            "99999999999",
            "Mon, 99 Foo 2026 00:00:00 GMT",
            "Thu, 01 Jan 0001 00:00:00 GMT",
            "٣",
        ]
    )
    wire.send(
        reply(
            b"",
            rng.choice(["429 Wait", "503 Down"]),
            f"retry-after: {wait}".encode().decode("latin-1"),
        )
    )
