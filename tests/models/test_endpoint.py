"""The client of a server, with servers that misbehave in every way."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import pytest

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint import Completion, Endpoint, EndpointUnavailable, estimate_tokens
from promptsearch.testing.server import Reply, Server, completion

SECRET = "sk-never-to-be-seen-4711"
GOOD = Reply(completion(" Paris.", 6, 2))


def ask(
    reply,
    call=lambda endpoint: endpoint.complete("The capital of France is", max_tokens=3),
    **options,
):
    """One call with a server that gives the replies in turn, the last one again and again.

    Returns its result and the server.
    """
    replies = reply if isinstance(reply, list) else [reply]
    with Server(lambda path, content: replies.pop(0) if len(replies) > 1 else replies[0]) as server:
        given = {"seconds": 5, "retries": 2, "pause": 0.001, **options}
        endpoint = Endpoint(server.url, "llama", **given)
        try:
            return call(endpoint), server
        except EndpointError as error:
            return error, server


def test_a_completion_and_what_was_asked():
    found, server = ask(
        GOOD, lambda e: e.complete("Hello", max_tokens=3, temperature=0.7, seed=5, stop=["\n"])
    )
    assert found == Completion(" Paris.", 6, 2)
    (request,) = server.requests
    assert request == {
        "model": "llama",
        "prompt": "Hello",
        "max_tokens": 3,
        "temperature": 0.7,
        "seed": 5,
        "stop": ["\n"],
    }


def test_a_chat_is_asked_with_a_message():
    reply = Reply(
        {"choices": [{"message": {"role": "assistant", "content": "Paris"}}], "usage": None}
    )
    found, server = ask(reply, lambda e: e.complete("Hello", max_tokens=3), chat=True)
    assert found == Completion("Paris", estimate_tokens("Hello"), 2)
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Hello"}]
    assert "prompt" not in server.requests[0]


def test_tokens_are_estimated_from_bytes_where_the_server_counts_none():
    found, _ = ask(
        Reply({"choices": [{"text": "naïve"}]}), lambda e: e.complete("abcdefg", max_tokens=9)
    )
    assert found == Completion("naïve", 3, 2)


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "wants a key"), (403, "wants a key"), (404, "no such path or model")]
)
def test_who_is_not_let_in_fails_at_once(status, hint):
    error, server = ask(Reply({"error": {"message": "go away"}}, status))
    assert isinstance(error, EndpointDown)
    assert hint in str(error) and "go away" in str(error)
    assert len(server.requests) == 1


def test_a_refused_request_fails_at_once():
    error, server = ask(Reply({"error": "context too long"}, 400))
    assert "400" in str(error) and "context too long" in str(error)
    assert not isinstance(error, EndpointUnavailable) and len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status):
    busy = Reply({"error": "busy"}, status)
    found, server = ask([busy, busy, GOOD])
    assert found.text == " Paris." and len(server.requests) == 3
    error, server = ask(busy)
    assert (
        isinstance(error, EndpointUnavailable)
        and "after 3 attempts" in str(error)
        and len(server.requests) == 3
    )


def test_a_request_that_is_sent_again_is_told_of_now_and_then(caplog):
    ask([Reply({"error": "busy"}, 503)] * 2 + [GOOD])
    (line,) = [each.message for each in caplog.records if "sent again" in each.message]
    assert "answered 503" in line and line.endswith("; the request is sent again")


def test_retry_after_is_honoured():
    begin = monotonic()
    found, _ = ask([Reply({}, 429, {"retry-after": "1"}), GOOD])
    assert found.text == " Paris." and 0.95 <= monotonic() - begin < 3
    soon = format_datetime(
        datetime.now(UTC) + timedelta(seconds=2), usegmt=True
    )  # whole seconds: one to two from now
    begin = monotonic()
    found, _ = ask([Reply({}, 503, {"retry-after": soon}), GOOD])
    assert found.text == " Paris." and 0.5 <= monotonic() - begin < 4
    error, server = ask([Reply({}, 429, {"retry-after": "3600"}), GOOD])
    assert (
        isinstance(error, EndpointUnavailable)
        and "3600 seconds" in str(error)
        and len(server.requests) == 1
    )


def test_a_server_that_hangs_reaches_the_time_limit():
    begin = monotonic()
    error, _ = ask(Reply({}, seconds=2), seconds=0.2, retries=1)
    assert isinstance(error, EndpointUnavailable) and "within 0.2 seconds" in str(error)
    assert (
        monotonic() - begin < 1.9 + 2
    )  # two attempts of 0.2 seconds, and the server's own two before it closes


@pytest.mark.parametrize("cut", [0, 20])
def test_a_broken_connection_is_tried_again(cut):
    broken = Reply(completion("x", 1, 1), cut=cut)
    found, _ = ask([broken, GOOD])
    assert found.text == " Paris."
    error, _ = ask(broken)
    assert isinstance(error, EndpointUnavailable) and "cannot be reached, or broke off" in str(
        error
    )


def test_nobody_listens():
    with Server(lambda path, content: GOOD) as server:
        url = server.url
    with pytest.raises(EndpointUnavailable, match="cannot be reached"):
        Endpoint(url, "llama", retries=1, pause=0.001).complete("x", max_tokens=1)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<html>welcome</html>", "something else than JSON"),
        (b'{"choices": [{"te', "something else than JSON"),
        (b"\xff\xfe\x00", "something else than JSON"),
        (b"", "something else than JSON"),
        ([], "'choices' with one in it"),
        ({}, "'choices' with one in it"),
        ({"choices": []}, "'choices' with one in it"),
        ({"choices": [5]}, "'choices' with one in it"),
        ({"choices": [{"text": None}]}, "a text"),
        ({"choices": [{"text": "a"}], "usage": 5}, "'usage' as a mapping"),
        (
            {"choices": [{"text": "a"}], "usage": {"prompt_tokens": "5"}},
            "'prompt_tokens' as a number",
        ),
        (
            {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 5, "completion_tokens": -1}},
            "'completion_tokens' as a number",
        ),
    ],
)
def test_garbage_is_named(body, what):
    error, server = ask(Reply(body))
    assert what in str(error) and server.url in str(error)
    assert len(str(error)) < 500 and len(server.requests) == 1


def test_what_is_shown_of_garbage_is_short():
    error, _ = ask(Reply(b"x" * 100_000))
    assert len(str(error)) < 400


TOKENS = ["The", " cap", "ital", " good"]
VALUES = [None, -1.5, -0.25, -2.0]
TEXT = "".join(TOKENS)


def echo(tokens=TOKENS, values=VALUES, usage=4, written=0, top=None):
    top = top or [None, *[{"a": -0.5}] * (len(tokens) - 1)]
    return Reply(
        completion(
            TEXT, usage, written, {"tokens": tokens, "token_logprobs": values, "top_logprobs": top}
        )
    )


def test_log_probabilities_of_a_prompt():
    found, server = ask(echo(), lambda e: e.logprobs(TEXT))
    assert found.tokens == tuple(TOKENS) and found.values == tuple(VALUES)
    assert found.greedy == (None, False, True, False) and found.tokens_in == 4
    assert server.requests[0]["max_tokens"] == 1 and server.requests[0]["echo"] is True
    assert found.tail(" good") == slice(3, 4) and found.tail("ital good") == slice(2, 4)
    with pytest.raises(EndpointError, match="no token of the model begins where 'l good' begins"):
        found.tail("l good")
    with pytest.raises(EndpointError, match="nothing stands before"):
        found.tail(TEXT)


@pytest.mark.parametrize("written", [1, None])
def test_the_token_that_a_server_writes_behind_a_text_is_left_out(written):
    more = echo([*TOKENS, "!"], [*VALUES, -1.0], *((None,) if written is None else (4, written)))
    found, server = ask(more, lambda e: e.logprobs(TEXT))
    assert found.tokens == tuple(TOKENS) and found.tokens_in == 4
    assert [request["max_tokens"] for request in server.requests] == [1]


def test_pieces_of_a_character_without_a_text_belong_to_the_answer_that_it_begins():
    """vLLM gives the bytes before the last one of a character as tokens without a text."""
    tokens, values = ["caf", "é", "", "", " 日", "本"], [None, -1.0, -2.0, -3.0, -4.0, -5.0]
    reply = Reply(
        completion(
            "café 日本", 6, 1, {"tokens": tokens, "token_logprobs": values, "top_logprobs": None}
        )
    )
    found, _ = ask(reply, lambda e: e.logprobs("café 日本"))
    assert found.tail(" 日本") == slice(2, 6) and found.tail("本") == slice(5, 6)


def test_a_token_before_every_text_is_left_out():
    found, _ = ask(echo(["<s>", *TOKENS], [None, -3.0, *VALUES[1:]], 5), lambda e: e.logprobs(TEXT))
    assert found.tokens == tuple(TOKENS) and found.values[0] == -3.0
    assert found.tail(TEXT) == slice(0, 4)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(completion(TEXT, 4, 0)), "expected log-probabilities of the prompt"),
        (
            echo(["!"], [-1.0], written=1),
            "of the prompt's 4 tokens, and of no others",
        ),  # llama.cpp: of what it wrote
        (echo(["!"], [-1.0], None, top=[{}]), "of the prompt's own tokens"),
        (echo(TOKENS[:2], VALUES[:2]), "of the prompt's 4 tokens"),
        (echo(["a", "b", "c", "d"]), "of the prompt's own tokens"),
        (echo(values=VALUES[:3]), "as many log-probabilities as tokens"),
        (echo(values=[None, -1.0, None, -2.0]), "of every token but the first"),
        (echo(values=[None, -1.0, "x", -2.0]), "as many log-probabilities as tokens"),
        (echo([1, 2, 3, 4]), "as many log-probabilities as tokens"),
        (
            Reply({"choices": [{"text": "", "logprobs": {"content": []}}]}),
            "'tokens' as a list",
        ),  # the shape of chats
    ],
)
def test_log_probabilities_are_counted(reply, what):
    error, _ = ask(reply, lambda e: e.logprobs(TEXT))
    assert isinstance(error, EndpointError) and what in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pw-4711@host/v1",
        "http://host/v1?key=pw-4711",
        "ftp://host/v1",
        "host",
        "",
        "http:///v1",
        "http://h/#pw-4711",
    ],
)
def test_urls_that_are_none_or_hold_secrets(url):
    with pytest.raises(EndpointError, match="URL") as caught:
        Endpoint(url, "llama")
    assert "4711" not in str(caught.value)


def test_the_key_is_named_and_never_given():
    with pytest.raises(EndpointError, match="name of an environment variable") as caught:
        Endpoint("http://host/v1", "llama", key=SECRET)
    assert SECRET not in str(caught.value)


def test_the_key_is_sent_and_seen_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("A_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    found, server = ask(GOOD, key="A_KEY")
    assert found.text == " Paris." and server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    shown = [repr(Endpoint(server.url, "llama", key="A_KEY"))]
    for reply in (
        Reply({"error": f"wrong key {SECRET}"}, 401),
        Reply({"e": SECRET}, 500),
        Reply(SECRET.encode()),
    ):
        error, _ = ask(reply, key="A_KEY")
        shown.append(f"{error!r} {error} {error.__cause__!r}")
    shown += [record.getMessage() for record in caplog.records]
    assert not any(SECRET in text for text in shown)
    assert any("***" in text for text in shown)


def test_a_key_that_is_not_there(monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    error, server = ask(GOOD, key="A_KEY")
    assert (
        isinstance(error, EndpointDown) and "A_KEY is empty" in str(error) and not server.requests
    )
    monkeypatch.setenv("A_KEY", "sk-4711\nX: y")
    error, server = ask(GOOD, key="A_KEY")
    assert isinstance(error, EndpointDown) and "4711" not in str(error) and not server.requests


def listed(logprobs, text="a b"):
    choice = {"message": {"content": text}, "text": text, "logprobs": logprobs}
    return Reply({"choices": [choice]})


def entry(token, **likely):
    return {
        "token": token,
        "top_logprobs": [{"token": t, "logprob": v} for t, v in likely.items()],
    }


def test_the_most_probable_tokens_at_each_place_have_two_forms():
    content = [entry("a", a=-0.5, b=-1.0), entry(" b", c=-2.0), entry("!")]
    chat, server = ask(listed({"content": content}), lambda e: e.places(TEXT, 5, 3), chat=True)
    assert [place.token for place in chat] == ["a", " b"]  # of the last one, nothing is listed
    assert chat[0].likely == {"a": -0.5, "b": -1.0}
    assert chat[0].unseen == pytest.approx(1 - math.exp(-0.5) - math.exp(-1.0))
    asked = server.requests[0]
    assert asked["messages"] == [{"role": "user", "content": TEXT}] and "prompt" not in asked
    assert (asked["logprobs"], asked["top_logprobs"], asked["max_tokens"]) == (True, 5, 3)
    plain = {"tokens": ["a", " b"], "top_logprobs": [{"a": -0.5, "b": -1.0}, {"c": -2.0}]}
    text, server = ask(listed(plain), lambda e: e.places(TEXT, 5, 3))
    assert text == chat and server.requests[0]["logprobs"] == 5


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"content": []},
        {"content": [7]},
        {"content": [entry(7, a=-1.0)]},
        {"content": [entry("a", a=5)]},
        {"content": [entry("a", a="x")]},
        {"content": [{"token": "a", "top_logprobs": {"a": -1}}]},
        {"tokens": ["a"], "top_logprobs": []},
        {"tokens": [3], "top_logprobs": [{"a": -1.0}]},
        {"tokens": ["a"], "top_logprobs": [[-1.0]]},
    ],
    ids=str,
)
def test_lists_that_are_none_are_named(logprobs):
    for chat in (False, True):
        error, _ = ask(listed(logprobs), lambda e: e.places(TEXT), chat=chat)
        assert isinstance(error, EndpointError) and "expected" in str(error)
