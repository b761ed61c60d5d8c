"""Hostile servers on this machine, and a study whose model lies behind one of them.

Every byte is sent by hand.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import socketserver
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote, quote_plus

from attack.case import Case, Ran
from attack.damage import DEEP, Raw, edit, to_text
from attack.lab import Lab
from attack.study_files import finite

KEY, VARIABLE = 'sk-of"attack+0/1=2&3', "KEY_OF_ATTACK"
FORMS = tuple({KEY, json.dumps(KEY)[1:-1], quote(KEY), quote(KEY, safe=""), quote_plus(KEY)})
Answer = dict[str, Any]
#: Sends an answer, or something else, over a connection.
Send = Callable[["Connection", Answer], None]


def honest(asked: dict[str, Any]) -> Answer:
    """What a model's server answers: scores by a hash of what stands before, and a short text."""
    prompt = asked.get("prompt") or asked.get("messages", [{}])[-1].get("content", "")
    tokens = re.findall(r"\s?\S+|\s", prompt) or [""]
    wrote = " good" if hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[0] % 2 else " bad"
    usage = {
        "prompt_tokens": len(tokens),
        "completion_tokens": 1 if asked.get("max_tokens", 1) else 0,
    }
    if "messages" in asked:
        return {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": wrote},
                    "finish_reason": "length",
                }
            ],
            "usage": usage,
        }
    if not asked.get("echo"):
        return {
            "choices": [{"index": 0, "text": wrote, "logprobs": None, "finish_reason": "length"}],
            "usage": usage,
        }
    values: list[float | None] = [None]
    for i in range(1, len(tokens)):
        values.append(
            -0.01
            - hashlib.sha256("".join(tokens[: i + 1]).encode("utf-8", "replace")).digest()[1] / 64
        )
    top = [
        None,
        *(
            {token: value, " the": -2.0}
            for token, value in zip(tokens[1:], values[1:], strict=True)
        ),
    ]
    found = {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": top,
        "text_offset": list(range(len(tokens))),
    }
    return {
        "choices": [{"index": 0, "text": prompt, "logprobs": found, "finish_reason": "length"}],
        "usage": usage,
    }


class Connection:
    """One request's connection.

    Args:
        handler: Of the socket.
        stopped: Set when the case ends.
        asked: The request.
        raw: Its headers.
    """

    def __init__(self, handler: Any, stopped: Event, asked: dict[str, Any], raw: bytes) -> None:
        self._handler, self.stopped, self.asked, self.raw = handler, stopped, asked, raw

    def write(self, content: bytes) -> None:
        """Bytes as they are."""
        self._handler.wfile.write(content)

    def drip(self, parts: Sequence[bytes], pause: float) -> None:
        """Parts with pauses, over and over until the case ends."""
        while not self.stopped.is_set():
            for part in parts:
                self.write(part)
                if self.stopped.wait(pause):
                    return

    def send(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        """A whole answer."""
        own = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n"
        )
        head = f"HTTP/1.1 {status}\r\n{own}{headers}\r\n"
        self.write(head.encode("utf-8", "surrogatepass") + body)


class Server:
    """Answers until it is closed.

    After the first `spared` requests, every `every`-th one is answered by the behaviour.
    """

    def __init__(self, send: Send | None, every: int = 1, spared: int = 0) -> None:
        self.stopped, count = Event(), [0]
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    head = b""
                    while (line := self.rfile.readline(65536)) not in (b"\r\n", b""):
                        head += line
                    size = re.search(rb"content-length: *(\d+)", head, re.I)
                    asked = json.loads(self.rfile.read(int(size[1])) if size else b"{}")
                    here = Connection(self, server.stopped, asked, head)
                    count[0] += 1
                    if send is not None and count[0] > spared and count[0] % every == 0:
                        send(here, honest(asked))
                    else:
                        here.send(json.dumps(honest(asked)).encode())
                except (OSError, ValueError):  # the client does not wait
                    return

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address, block_on_close = True, True, False

            def handle_error(self, *_: Any) -> None:
                """Nothing: clients leave."""

        self._server = Threads(("127.0.0.1", 0), Handler)
        Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """Stop."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


@cache
def undisturbed(lab: Lab, chat: bool) -> dict[str, Any]:
    """Losses of the study with an honest server."""
    server = Server(None)
    folder = lab.folder / f"served-{chat}"
    try:
        with lab.host() as host:
            case = _study(lab, "", "", server, chat)
            case.judge = finite
            _, line, _ = host.attack(case, folder)
    finally:
        server.close()
    if not (found := _losses(folder)):
        raise SystemExit(f"the study with an honest server failed: {line}")
    return found


def _losses(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "out").glob("*/*/seed*/result.json")):
        data = json.loads(path.read_text("utf-8"))
        if data["status"] == "done":
            found[data["label"]] = [
                data["winner"]["text"],
                data["select"]["losses"],
                data["test"]["losses"],
                data["test"]["metric"],
            ]
    return found


def _study(
    lab: Lab,
    row: str,
    what: str,
    server: Server,
    chat: bool = False,
    seconds: float = 1.5,
    **more: Any,
) -> Case:
    model = {
        "endpoint": server.url,
        "model": "m",
        "seconds": seconds,
        "retries": 1,
        "parallel": 2,
        "key": VARIABLE,
        "chat": chat,
    }
    study = lab.study(
        model=model,
        budget=4000,
        pool=["good", "film", "the", "movie", "story"],
        strategies=[
            {"manual": {"prompts": ["The", "A movie"]}},
            {"random": {"batch": 2, "budget": 2500}},
        ],
    )

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if wrong := finite(folder, ran):
            return wrong
        told = re.search(r"echo|log-prob|logprob", ran[-1].err)
        right = undisturbed(lab, chat) if ran[-1].code == 0 and not told else {}
        for label, found in _losses(folder).items():
            if label in right and found != right[label]:
                return (
                    f"exit 0 with {label} = {str(found)[:90]}, undisturbed {str(right[label])[:90]}"
                )
        return None

    return Case(
        row,
        what,
        [["compare", "study.yaml", "--out", "out"]],
        lambda folder: _put(folder, study),
        judge,
        env={VARIABLE: KEY},
        secrets=FORMS,
        close=server.close,
        **more,
    )


def _put(folder: Path, study: dict[str, Any]) -> None:
    (folder / "study.yaml").write_text(to_text(study))


def _when(rng: random.Random, often: int = 3) -> dict[str, int]:
    return rng.choice(
        [
            {"every": 1},
            {"every": 1},
            {"every": often},
            {"every": 1, "spared": 12},
            {"every": 7, "spared": 5},
        ]
    )


def edits(rng: random.Random, lab: Lab) -> Case:
    """One value of every answer changed to what no client expects."""
    pick, whole = rng.randrange(1 << 30), rng.random() < 0.5
    what = [""]

    def send(here: Connection, answer: Answer) -> None:
        own = random.Random(pick)
        path = None
        if whole:  # the values that are used
            path = own.choice(
                [
                    ("choices",),
                    ("choices", 0),
                    ("choices", 0, "text"),
                    ("choices", 0, "logprobs"),
                    ("usage",),
                    ("usage", "prompt_tokens"),
                    ("usage", "completion_tokens"),
                ]
                + (
                    [
                        ("choices", 0, "logprobs", "tokens"),
                        ("choices", 0, "logprobs", "token_logprobs"),
                        ("choices", 0, "logprobs", "top_logprobs"),
                    ]
                    if here.asked.get("echo")
                    else []
                )
            )
        what[0], data = edit(answer, own, path)
        case.what = what[0]
        here.send(to_text(data).encode("utf-8", "surrogatepass"))

    case = _study(lab, "9 answers", "", Server(send, **_when(rng)), rng.random() < 0.2)
    return case


VALUES: dict[str, Any] = {
    "above 0": 5,
    "-10**400": Raw("-1" + "0" * 400),
    "-1e308": -1e308,
    "NaN": Raw("NaN"),
    "-Infinity": Raw("-Infinity"),
    "1e999": Raw("1e999"),
    "text": "-1",
    "true": True,
    "a list": [-1],
    "null": None,
    "a digit more": Raw("-1." + "1" * 5000),
    "tiny": 1e-320,
    "-0.0": -0.0,
    "0.5": 0.5,
    "5,000 digits": Raw("-" + "9" * 5000),
}


def scores(rng: random.Random, lab: Lab) -> Case:
    """Log-probabilities, tokens and counts out of range."""
    way = rng.choice(
        [
            *VALUES,
            "top 7",
            "top of texts",
            "shifted",
            "shifted back",
            "fewer",
            "more",
            "surrogate",
            "other text",
            "alike",
            "count",
            "no top",
            "escape",
        ]
    )
    shown = rng.choice([10**30, -1, 0, 1.5, "3", True, 10**6, None])
    everywhere = rng.random() < 0.5

    def send(here: Connection, answer: Answer) -> None:
        if not here.asked.get("echo"):
            here.send(json.dumps(answer).encode())
            return
        found = answer["choices"][0]["logprobs"]
        values = found["token_logprobs"]
        if way in VALUES:
            for i in range(1, len(values)) if everywhere else [len(values) - 1]:
                values[i] = VALUES[way]
        elif way == "top 7":
            found["top_logprobs"] = 7
        elif way == "top of texts":
            found["top_logprobs"] = ["x"] * len(values)
        elif (
            way == "shifted"
        ):  # the value of each token stands one place later, as llama.cpp's Python server has it
            found["token_logprobs"] = [None, values[-1], *values[1:-1]]
        elif way == "shifted back":
            found["token_logprobs"] = [*values[1:], -1.0]
        elif way == "fewer":
            found["token_logprobs"] = values[:-1]
        elif way == "more":
            found["token_logprobs"] = [*values, -1.0]
        elif way == "surrogate":
            found["tokens"] = [*found["tokens"][:-1], Raw('"\\ud83d"')]
        elif way == "other text":
            found["tokens"] = [token.upper() for token in found["tokens"]]
        elif way == "alike":
            found["token_logprobs"] = [None, *[-1.0] * (len(values) - 1)]
        elif way == "count":
            answer["usage"]["prompt_tokens"] = shown
        elif way == "no top":
            found.pop("top_logprobs")
        elif way == "escape":
            found["tokens"] = ["\x1b[31m" + token for token in found["tokens"]]
        here.send(to_text(answer).encode("utf-8", "surrogatepass"))

    case = _study(
        lab,
        "9 answers",
        f"{way} {shown if way == 'count' else ''} {'everywhere' if everywhere else ''}",
        Server(send, **_when(rng)),
    )
    # Nothing that a loss needs, or what a model may say.
    if way in ("no top", "top 7", "top of texts", "count", "alike", "-0.0", "tiny", "a digit more"):
        case.judge = finite
    return case


def _raw(content: bytes) -> Send:
    return lambda here, answer: here.write(content)


def _body(make: Callable[[bytes], bytes], headers: str = "", status: str = "200 OK") -> Send:
    return lambda here, answer: here.send(make(json.dumps(answer).encode()), status, headers)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SLOW: dict[str, Send] = {
    "headers drip": lambda here, answer: (here.write(HEAD), here.drip([b"x-a: b\r\n"], 0.3))[0],
    "header letters drip": lambda here, answer: (here.write(HEAD + b"x: "), here.drip([b"a"], 0.3))[
        0
    ],
    "100 Continue": lambda here, answer: here.drip([b"HTTP/1.1 100 Continue\r\n\r\n"], 0.01),
    "102 Processing": lambda here, answer: here.drip([b"HTTP/1.1 102 Processing\r\n\r\n"], 0.2),
    "103 with headers": lambda here, answer: here.drip(
        [b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"], 0.2
    ),
    "body drips": lambda here, answer: (
        here.write(HEAD + b"content-length: 100000\r\n\r\n"),
        here.drip([b" "], 0.3),
    )[0],
    "chunks drip": lambda here, answer: (
        here.write(HEAD + b"transfer-encoding: chunked\r\n\r\n"),
        here.drip([b"1\r\n \r\n"], 0.3),
    )[0],
    "endless chunks": lambda here, answer: (
        here.write(HEAD + b"transfer-encoding: chunked\r\n\r\n"),
        here.drip([b"10000\r\n" + b" " * 65536 + b"\r\n"], 0),
    )[0],
    "endless headers": lambda here, answer: (
        here.write(HEAD),
        here.drip([b"x-a: " + b"b" * 1000 + b"\r\n"], 0),
    )[0],
    "chunk size drips": lambda here, answer: (
        here.write(HEAD + b"transfer-encoding: chunked\r\n\r\n"),
        here.drip([b"0"], 0.3),
    )[0],
    "trailers drip": lambda here, answer: (
        here.write(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"),
        here.drip([b"x: y\r\n"], 0.3),
    )[0],
    "silence": lambda here, answer: here.drip([b""], 0.5),
    "silence after headers": lambda here, answer: (
        here.write(HEAD + b"content-length: 9\r\n\r\n"),
        here.drip([b""], 0.5),
    )[0],
    "status line drips": lambda here, answer: here.drip([b"H"], 0.3),
    "gzip drips": lambda here, answer: (
        here.write(
            HEAD + b"content-encoding: gzip\r\ncontent-length: 99999\r\n\r\n\x1f\x8b\x08\x00"
        ),
        here.drip([b"\x00"], 0.3),
    )[0],
    "late": lambda here, answer: (time.sleep(4), here.send(json.dumps(answer).encode()))[1],
}


def slow(rng: random.Random, lab: Lab) -> Case:
    """Servers that keep a client waiting."""
    name = rng.choice(sorted(SLOW))
    # A study that waits for each third request gets on, but not to its end within a minute.
    return _study(
        lab,
        "6 servers that wait",
        name,
        Server(SLOW[name], **_when(rng, often=12)),
        rng.random() < 0.1,
        seconds=0.4,
    )


BOMB = gzip.compress(b" " * 300_000_000, 9)
BROKEN: dict[str, Send] = {
    "closed at once": lambda here, answer: None,
    "half a body": lambda here, answer: here.write(HEAD + b"content-length: 1000\r\n\r\n{"),
    "no HTTP": _raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "TLS": _raw(b"\x15\x03\x01\x00\x02\x02\x46"),
    "negative length": _raw(HEAD + b"content-length: -5\r\n\r\n{}"),
    "two lengths": _raw(HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "huge length": _raw(HEAD + b"content-length: " + b"9" * 400 + b"\r\n\r\n{}"),
    "bad chunk": _raw(HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n"),
    "huge chunk": _raw(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n{}\r\n"),
    "status 99999": _raw(b"HTTP/1.1 99999 x\r\ncontent-length: 2\r\n\r\n{}"),
    "status 000": _raw(b"HTTP/1.1 000 x\r\ncontent-length: 2\r\n\r\n{}"),
    "status of letters": _raw(b"HTTP/1.1 abc x\r\ncontent-length: 2\r\n\r\n{}"),
    "101": _raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
    "204": _raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "zeros in headers": _raw(HEAD + b"x: \x00\r\ncontent-length: 2\r\n\r\n{}"),
    "a header of 1 MB": _raw(HEAD + b"x: " + b"a" * 1_000_000 + b"\r\ncontent-length: 2\r\n\r\n{}"),
    "escape in status": _body(
        lambda body: b"\x1b[31mno\x1b]0;owned\x07\xc2\x9b31m", status="500 \x1b[31mno"
    ),
    "escape in 404": _body(
        lambda body: b'{"error": "\\u001b]0;owned\\u0007\\u009b31m\\u202e"}', status="404 x"
    ),
    "escape in 400": _body(lambda body: b"\x1b]0;owned\x07", status="400 x"),
    "gzip bomb": _body(lambda body: BOMB, "content-encoding: gzip\r\n"),
    "gzip in gzip": _body(lambda body: gzip.compress(BOMB), "content-encoding: gzip, gzip\r\n"),
    "no gzip": _body(lambda body: body, "content-encoding: gzip\r\n"),
    "cut gzip": _body(lambda body: gzip.compress(body)[:-9], "content-encoding: gzip\r\n"),
    "unknown encoding": _body(lambda body: body, "content-encoding: x, y, br, zstd\r\n"),
    "brotli": _body(lambda body: b"\xff" * 99, "content-encoding: br\r\n"),
    "zstd": _body(lambda body: b"\xff" * 99, "content-encoding: zstd\r\n"),
    "deflate": _body(lambda body: b"\xff" * 99, "content-encoding: deflate\r\n"),
    "charset": _body(lambda body: body, "content-type: application/json; charset=\x1b[31m\r\n"),
    "UTF-16": _body(lambda body: body.decode().encode("utf-16")),
    "a mark": _body(lambda body: b"\xef\xbb\xbf" + body),
    "deep": _body(lambda body: DEEP.encode()),
    "deep in choices": _body(lambda body: b'{"choices": ' + DEEP.encode() + b"}"),
    "deep objects": _body(lambda body: b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "5,000 digits": _body(lambda body: b"9" * 5000),
    "null": _body(lambda body: b"null"),
    "HTML": _body(lambda body: b"<html><script>alert(1)</script>"),
    "empty": _body(lambda body: b""),
    "not UTF-8": _body(lambda body: b'{"choices": [{"text": "\xff\xfe"}]}'),
    "redirect": _body(lambda body: b"", "location: http://127.0.0.1:9/v1\r\n", "307 x"),
    "redirect to a file": _body(lambda body: b"", "location: file:///etc/passwd\r\n", "301 x"),
    "redirect to itself": _body(lambda body: b"", "location: /v1/completions\r\n", "308 x"),
    **{
        f"retry after {value}": _body(lambda body: b"x", f"retry-after: {value}\r\n", "429 x")
        for value in ("1e9", "nan", "-5", "\x1b[31m", "9" * 400, "Mon, 99 Foo 99999", "0", "0.1")
    },
    **{
        f"status {code}": _body(lambda body: b"x", status=f"{code} x")
        for code in (
            400,
            401,
            402,
            403,
            404,
            405,
            408,
            413,
            418,
            422,
            429,
            451,
            500,
            501,
            502,
            503,
            504,
            520,
            599,
            600,
        )
    },
}


def broken(rng: random.Random, lab: Lab) -> Case:
    """Servers whose HTTP, encodings or JSON are broken."""
    name = rng.choice(sorted(BROKEN))
    return _study(lab, "9 answers", name, Server(BROKEN[name], **_when(rng)), rng.random() < 0.1)


def keys(rng: random.Random, lab: Lab) -> Case:
    """Servers that say the key again, in every form, in every place."""
    form = rng.choice([*FORMS, KEY, json.dumps(KEY), "".join(f"\\u{ord(c):04x}" for c in KEY)])
    place = rng.choice(
        [
            "error 400",
            "error 500",
            "error 401",
            "text",
            "token",
            "header",
            "no JSON",
            "usage",
            "status",
            "redirect",
            "choices",
            "cut",
        ]
    )

    def send(here: Connection, answer: Answer) -> None:
        body = form.encode()
        if place.startswith("error"):
            here.send(b'{"error": "bad key ' + body + b'"}', f"{place[6:]} x")
        elif place == "text":
            answer["choices"][0]["text"] = f" {form}"
            here.send(json.dumps(answer).encode())
        elif place == "token" and here.asked.get("echo"):
            answer["choices"][0]["logprobs"]["tokens"][-1] = form
            here.send(json.dumps(answer).encode())
        elif place == "header":
            here.send(b"no", "200 OK", f"x-key: {form}\r\nlocation: {form}\r\n")
        elif place == "usage":
            here.send(json.dumps(answer | {"usage": form}).encode())
        elif place == "status":
            here.send(b"no", f"500 {form}")
        elif place == "redirect":
            here.send(b"", "302 x", f"location: http://{form}/\r\n")
        elif place == "choices":
            here.send(json.dumps({"choices": [form]}).encode())
        elif place == "cut":
            here.send(b"x" * rng_cut + body + b"y" * 500)
        else:
            here.send(body)

    rng_cut = rng.choice([180, 190, 195, 290, 390, 490])
    return _study(
        lab, "8 keys", f"{form[:40]} in {place}", Server(send, **_when(rng)), rng.random() < 0.2
    )


MAKERS = (edits, slow, scores, keys, broken, edits, scores)
