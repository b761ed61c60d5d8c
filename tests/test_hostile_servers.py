"""Servers that are slow, broken or hostile.

Each ends in an error of ours, in time, and believes no number that cannot be.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import math
from pathlib import Path
from time import monotonic
from urllib.parse import quote, quote_plus

import pytest

from promptsearch import Task, compare
from promptsearch.errors import EndpointDown, EndpointError, PromptSearchError
from promptsearch.models.endpoint import Endpoint, EndpointUnavailable, Logprobs
from promptsearch.models.endpoint.secret import hide
from promptsearch.report import load_results
from promptsearch.testing.hostile import BEHAVIOURS, HostileServer
from promptsearch.testing.server import Reply, Server, completion
from promptsearch.testing.serving import with_model
from promptsearch.testing.tiny import WORDS

#: With all that JSON, URLs and base64 write in another way.
KEY = 'sk-a"b+c/d=e\\f&g_4711'
TEXT = "The capital"


def client(server, **options):
    return Endpoint(server.url, "m", **{"seconds": 0.4, "retries": 0, "pause": 0.001, **options})


def asked(body, call=lambda e: e.complete(TEXT, max_tokens=3), **options):
    """What becomes of an answer."""
    with Server(lambda path, content: Reply(body)) as server:
        return call(client(server, seconds=5, **options))


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_each_behaviour_ends_in_time_and_in_an_error_of_ours(behaviour, monkeypatch, caplog):
    monkeypatch.setenv("A_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for seed in range(2):
        for call in (
            lambda e: e.complete(TEXT, max_tokens=3),
            lambda e: e.logprobs(TEXT),
            lambda e: e.places(TEXT),
        ):
            with HostileServer(behaviour, seed) as server:
                begin, shown = monotonic(), ""
                try:
                    found = call(client(server, key="A_KEY"))
                    if isinstance(found, Logprobs):
                        assert all(value is None or -1e4 <= value <= 0 for value in found.values)
                    shown = repr(found)
                except EndpointError as error:
                    shown = f"{error} {error!r} {error.__cause__!r}"
                assert monotonic() - begin < 3
                assert "_4711" not in shown
    assert "_4711" not in caplog.text


@pytest.mark.parametrize(
    "behaviour",
    ["drips_headers", "drips_status", "drips_body", "storm_of_continue", "chunks_for_ever"],
)
def test_one_deadline_is_for_the_whole_answer(behaviour):
    with HostileServer(behaviour, 1) as server:
        begin = monotonic()
        with pytest.raises(EndpointUnavailable, match=r"within 0.4 seconds \(after 2 attempts\)"):
            client(server, retries=1).complete(TEXT, max_tokens=1)
        assert 0.8 <= monotonic() - begin < 2.5


def test_what_follows_an_answer_is_not_taken_for_the_next_one():
    with HostileServer("answers_twice") as server:
        endpoint = client(server)
        assert [endpoint.complete(TEXT, max_tokens=3).text for _ in range(3)] == ["!!!"] * 3


NATS = [
    f"1{'0' * 400}",
    f"-1{'0' * 400}",
    "-1e308",
    "1e999",
    "-1e999",
    "NaN",
    "-Infinity",
    "5",
    "0.5",
    "true",
    '"-1"',
    "[]",
    "{}",
]


@pytest.mark.parametrize("value", NATS)
def test_a_log_probability_is_a_number_that_one_can_be(value):
    tokens = '["The", " capital"]'
    for listed in (
        f'"token_logprobs": [null, {value}]',
        f'"token_logprobs": [null, -1], "top_logprobs": [null, {{"a": {value}}}]',
    ):
        body = (
            f'{{"choices": [{{"text": "", "logprobs": {{"tokens": {tokens}, {listed}}}}}]}}'
        ).encode()
        with pytest.raises(EndpointError, match="numbers from -10000 to 0, not"):
            asked(body, lambda e: e.logprobs(TEXT))


def test_rounding_above_0_is_0_and_the_least_that_servers_write_is_taken():
    listed = {
        "tokens": ["The", " cap", "ital"],
        "token_logprobs": [None, 1e-6, -9999.0],
        "top_logprobs": None,
    }
    found = asked(completion("", 3, 0, listed), lambda e: e.logprobs(TEXT))
    assert found.values == (None, 0.0, -9999.0) and math.copysign(1, found.values[1]) == 1


@pytest.mark.parametrize("listed", [7, "x", True, [7, 7], [None, "x"], [None, [5]]])
def test_lists_of_the_most_probable_tokens_are_lists_of_mappings(listed):
    logprobs = {
        "tokens": ["The", " capital"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": listed,
    }
    with pytest.raises(EndpointError, match="expected"):
        asked(completion("", 2, 0, logprobs), lambda e: e.logprobs(TEXT))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[" * 100_000, "not nested so deep"),
        (b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not nested so deep"),
        (b'{"choices": [{"text": "\\ud800"}]}', "no halves of surrogate pairs"),
        (b'{"choices": [{"text": "a", "text": "b"}]}', "each key once"),
        (b'{"choices": [{"text": "\xed\xa0\x80"}]}', "something else than JSON"),
        (b"1" * 10_000, "something else than JSON"),
        ({"choices": [{"text": "a"}, {"text": "b"}]}, "'choices' with one in it"),
        ({"choices": [{"text": "a", "index": 1}]}, "the choice with index 0"),
        (
            {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 10**30}},
            "'prompt_tokens' as a number",
        ),
        (
            {"choices": [{"text": "a"}], "usage": {"completion_tokens": True}},
            "'completion_tokens' as a number",
        ),
        ({"error": {"message": "out of quota"}}, "out of quota"),
    ],
)
def test_json_that_cannot_be_kept_is_refused(body, what):
    with pytest.raises(EndpointError, match=what) as caught:
        asked(body)
    assert len(str(caught.value)) < 400


def test_depth_is_no_matter_of_luck():
    for depth in range(930, 1000, 3):
        body = b'{"choices": 5, "more": ' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(EndpointError, match=r"'choices' with one in it|not nested so deep"):
            asked(body)


def test_a_count_of_less_than_can_be_is_not_believed():
    found = asked(completion("x", 1, 1), lambda e: e.complete("word " * 1000, max_tokens=1))
    assert found.tokens_in == 1667
    assert asked(completion("x", 0, 1)).tokens_in == 4


def test_of_tokens_that_are_pieces_of_characters_the_rest_is_compared():
    def listing(tokens):
        values = [None, *[-1.0] * (len(tokens) - 1)]
        return completion(
            "", len(tokens), 0, {"tokens": tokens, "token_logprobs": values, "top_logprobs": None}
        )

    good = asked(
        listing(["na", "\ufffd", "bytes:\\xaf", "ve ", "man"]), lambda e: e.logprobs("naïve man")
    )
    assert len(good.tokens) == 5
    for tokens in (
        ["na", "\ufffd", "ve ", "boy"],
        ["ma", "\ufffd", "ve ", "man"],
        ["na", "\ufffd", "man", "ve "],
    ):
        with pytest.raises(EndpointError, match="the prompt's own tokens"):
            asked(listing(tokens), lambda e: e.logprobs("naïve man"))


FORMS = {
    "raw": KEY,
    "json": json.dumps(KEY),
    "json in json": json.dumps(json.dumps({"k": KEY})),
    "slashes": json.dumps(KEY).replace("/", "\\/"),
    "escapes": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "url": quote(KEY, safe=""),
    "form": quote_plus(KEY),
    "url in url": quote(quote(KEY, safe=""), safe=""),
    "some of it": KEY.replace("+", "%2B").replace('"', '\\"'),
    "html": html.escape(KEY),
    "numbers": "".join(f"&#{ord(c)};" for c in KEY),
    "python": repr(KEY.encode()),
    "hex": KEY.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_key_is_hidden_however_it_is_written(form, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    assert (
        hide(f"it is {FORMS[form]}, and more", "A_KEY").strip('"')
        != f"it is {FORMS[form]}, and more"
    )
    hidden = hide(FORMS[form], "A_KEY").strip("'\"b\\{}: k")
    assert hidden == "***"


@pytest.mark.parametrize("before", ["", "Bearer ", "x:", "ab:"])
def test_the_key_is_hidden_in_base64(before, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        hidden = hide(encode(f"{before}{KEY}, yes".encode()).decode(), "A_KEY")
        assert "***" in hidden and len(hidden) < len(before) + 20


def test_the_key_is_hidden_in_what_the_model_writes_but_no_short_word(monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    assert asked(completion(f"say {KEY} twice", 3, 3), key="A_KEY").text == "say *** twice"
    monkeypatch.setenv("A_KEY", "EMPTY")  # what servers without keys are sent
    assert asked(completion("an EMPTY box", 3, 3), key="A_KEY").text == "an EMPTY box"
    with pytest.raises(EndpointError, match=r"an \*\*\* box"):
        asked(b"an EMPTY box", key="A_KEY")


def test_hiding_takes_no_time_on_text_that_is_made_for_it(monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    begin = monotonic()
    for hard in ("\\" * 10**6, "sk-a\\" * 10**5, "&#0" * 10**5, "%25" * 10**5):
        assert hide(hard, "A_KEY") == hard
    assert monotonic() - begin < 5


# In a study.


def task():
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(20)]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 8, "select": 4, "test": 4},
        name="films",
    )


def study(server, strategies=("random",), **model):
    given = {"endpoint": server.url, "model": "m", "seconds": 0.4, "retries": 0, **model}
    return {
        "name": "s",
        "model": given,
        "task": "films",
        "pool": ["good", "movie", "fine", "bad"],
        "budget": 3_000,
        "length": 2,
        "score_on": 4,
        "seeds": 1,
        "strategies": list(strategies),
    }


@pytest.mark.parametrize(
    "behaviour",
    ["deep_json", "wrong_nats", "wrong_likely", "half_characters", "wrong_counts", "tells_the_key"],
)
def test_a_server_that_turns_bad_ends_its_run_and_not_the_study(behaviour, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    with HostileServer(behaviour, 3, after=30) as server:
        try:
            results = compare(study(server, key="A_KEY"), out=tmp_path / "s", task=task())
            assert len(results.runs) + len(results.failed) == 1
        except PromptSearchError as error:
            assert isinstance(error, EndpointDown) and "_4711" not in str(error)
    assert (tmp_path / "s" / "report.html").exists()
    texts = [
        path.read_text("utf-8", "replace") for path in Path(tmp_path).rglob("*") if path.is_file()
    ]
    assert texts and not any("_4711" in text for text in texts)


def test_a_proposer_that_goes_away_leaves_the_runs_that_need_none(tiny, films, tmp_path):
    with Server(lambda path, content: Reply({"error": "gone"}, 503)) as server:
        given = {
            "name": "s",
            "model": "tiny",
            "task": "films",
            "pool": 7,
            "budget": 9_000,
            "length": 2,
            "score_on": 4,
            "seeds": 1,
            "strategies": [{"llm_proposed": {"longest": 12, "batch": 3, "examples": 1}}, "random"],
            "proposer": {"endpoint": server.url, "model": "m", "retries": 0, "seconds": 1},
        }
        with pytest.raises(EndpointDown, match="503"):
            compare(given, out=tmp_path / "s", model=tiny, task=films)
    results = load_results(tmp_path / "s")
    assert [run.label for run in results.runs] == ["random"] and not results.failed
    assert len(results.unfinished) == 1 and (tmp_path / "s" / "report.html").exists()


def test_an_endpoint_that_goes_down_leaves_a_report_of_what_is_done(tiny, tmp_path):
    good, left = with_model(tiny), [600]

    def answer(path, content):
        left[0] -= 1
        return good(path, content) if left[0] > 0 else Reply({"error": "maintenance"}, 503)

    words = [word.strip() for word in WORDS]
    with Server(answer) as server, pytest.raises(EndpointDown, match="503"):
        config = {**study(server, seconds=5), "pool": words, "seeds": 5}
        compare(config, out=tmp_path / "s", task=task())
    results = load_results(tmp_path / "s")
    assert (
        0 < len(results.runs) < 5
        and not results.failed
        and (tmp_path / "s" / "report.html").exists()
    )
    assert len(results.runs) + len(results.unfinished) == 5
