"""Many requests to one server: several at a time, answers in order, no request twice.

It stops when the server does not answer any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.client import Endpoint, EndpointUnavailable
from promptsearch.models.endpoint.way import ping

R = TypeVar("R", bound=Hashable)
T = TypeVar("T")


class Asking:
    """Asks a server, and remembers its answers.

    Args:
        endpoint: The server.
        parallel: How many requests are sent at a time.
    """

    def __init__(self, endpoint: Endpoint, parallel: int) -> None:
        self._endpoint, self.parallel = endpoint, parallel
        self._known: dict[Hashable, Any] = {}
        self._lock = Lock()
        self._down: EndpointDown | None = None

    def all(self, ask: Callable[[R], T], wanted: Sequence[R]) -> list[T | EndpointError]:
        """The answers in the order of the requests; an error where a request failed for good.

        Args:
            ask: Sends one request, and gives its answer.
            wanted: The requests; what was answered before is not asked again.

        Raises:
            EndpointDown: No request is answered any more.
        """

        def attempt(request: R) -> T | EndpointError:
            if self._down is not None:
                raise self._down
            try:
                return ask(request)
            except EndpointDown as error:
                self._down = error
                raise
            except EndpointUnavailable as error:
                self._see_whether_down()
                return error
            except EndpointError as error:
                return error

        self._down = None  # it may have come back since
        fresh = [request for request in dict.fromkeys(wanted) if request not in self._known]
        found: dict[R, T | EndpointError] = {}
        with ThreadPoolExecutor(self.parallel) as pool:
            for request, result in zip(fresh, _in_order(pool, attempt, fresh), strict=True):
                found[request] = result
                if not isinstance(result, EndpointError):
                    self._known[request] = result
        return [
            self._known[request] if request in self._known else found[request] for request in wanted
        ]

    def _see_whether_down(self) -> None:
        """Find out whether only this request failed, or the server does not answer any more.

        Raises:
            EndpointDown: The server does not answer any more.
        """
        with self._lock:
            if self._down is None:
                try:
                    ping(self._endpoint)
                except EndpointDown as error:
                    self._down = error
                except EndpointError:
                    pass  # it answers, if strangely
        if self._down is not None:
            raise self._down


def _in_order(pool: ThreadPoolExecutor, work: Callable[[R], T], given: Sequence[R]) -> Iterator[T]:
    """The results in the order of `given`; after a failure, what has not begun never does."""
    futures = [pool.submit(work, each) for each in given]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
