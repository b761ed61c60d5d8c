"""How many requests are under way at a time, and how many of them may fail."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint import Endpoint, Unfinished
from promptsearch.models.endpoint.pace import Pace
from promptsearch.models.remote import ServedModel
from promptsearch.testing.server import Reply, Server, completion


def rounds(pace, outcomes):
    """The number allowed after each round in which all that may be under way ends in one way."""
    found = []
    for outcome in outcomes:
        begun = [pace.enter() for _ in range(pace.allowed)]
        for each in begun:
            pace.leave(each, outcome)
        found.append(pace.allowed)
    return found


def test_the_number_doubles_until_the_server_is_busy_then_halves_and_grows_by_one():
    pace = Pace(40)
    assert pace.allowed == 4
    said = ["answered", "answered", "answered", "busy", "answered", "answered", "unknown", "busy"]
    assert rounds(pace, said) == [8, 16, 32, 16, 16, 17, 17, 8]
    assert rounds(pace, ["busy"] * 5) == [4, 2, 1, 1, 1]
    assert rounds(pace, ["answered"] * 3) == [2, 2, 3]


def test_it_never_allows_more_than_it_is_told():
    assert rounds(Pace(6), ["answered"] * 3) == [6, 6, 6] and Pace(1).allowed == 1


def test_what_began_before_it_was_halved_halves_it_no_further():
    pace = Pace(8)
    first = [pace.enter() for _ in range(4)]
    pace.leave(first[0], "busy")
    late = pace.allowed
    for each in first[1:]:
        pace.leave(each, "busy")
    assert late == pace.allowed == 2


class Crowd:
    """A server that answers 429 where more than a few requests are under way."""

    def __init__(self, room):
        self._room, self._lock = room, threading.Lock()
        self._now, self.seen = 0, Counter()

    def __call__(self, path, content):
        with self._lock:
            self._now += 1
            busy = self._now > self._room
            self.seen["busy" if busy else "answered"] += 1
        time.sleep(0.02)
        with self._lock:
            self._now -= 1
        if busy:
            return Reply({"error": "too many"}, 429)
        return Reply(completion(content["prompt"], 3, 1))


def test_requests_adapt_to_what_a_server_bears():
    crowd = Crowd(3)
    wanted = [Unfinished(f"text {i}", 1) for i in range(60)]
    with Server(crowd) as server:
        endpoint = Endpoint(server.url, "m", seconds=5, retries=8, pause=0.01, parallel=32)
        found = ServedModel(endpoint).written(wanted)
    assert [each.text for each in found] == [each.text for each in wanted]
    # With 32 at a time all along, 29 of the first 32 are turned away, and so on in each round.
    assert crowd.seen["answered"] == 60 and crowd.seen["busy"] < 30


def failing(share):
    """A server that breaks at a share of the texts, told by their numbers."""

    def answer(path, content):
        number = content["prompt"].split()[-1]
        if number.isdigit() and int(number) % 100 < 100 * share:
            return Reply({"error": "no"}, 400)
        return Reply(completion("ok", 3, 1))

    return answer


@pytest.mark.parametrize(("share", "allowed", "ends"), [(0.1, 0.2, False), (0.3, 0.2, True)])
def test_more_errors_than_are_tolerated_end_the_study(share, allowed, ends):
    wanted = [Unfinished(f"text {i * 37 % 100}", 1) for i in range(100)]
    with Server(failing(share)) as server:
        endpoint = Endpoint(server.url, "m", seconds=5, retries=0, parallel=1)
        model = ServedModel(endpoint, max_errors=allowed)
        if ends:
            with pytest.raises(EndpointDown, match="'max_errors' allows a share of 0.2") as error:
                model.written(wanted)
            assert len(server.requests) < 100 and "The last one" in str(error.value)
        else:
            found = model.written(wanted)
            failed = [each for each in found if isinstance(each, EndpointError)]
            assert len(failed) == 10


def test_where_none_is_tolerated_the_first_ends_it():
    with Server(failing(1)) as server:
        endpoint = Endpoint(server.url, "m", seconds=5, retries=0)
        with pytest.raises(EndpointDown, match="1 of 1 requests"):
            ServedModel(endpoint, max_errors=0.0).written([Unfinished("text 0", 1)])
