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

#: The tolerated share is one of this many requests at least.
_FEW = 20

R = TypeVar("R", bound=Hashable)
T = TypeVar("T")


class Asking:
    """Asks a server, and remembers its answers.

    Args:
        endpoint: The server.
        max_errors: The share of the requests that may fail for good.
    """

    def __init__(self, endpoint: Endpoint, max_errors: float = 1.0) -> None:
        self._endpoint, self._max_errors = endpoint, max_errors
        self._asked = self._failed = 0
        self._known: dict[str, dict[Hashable, Any]] = {}  # by kind of answer, and request
        self._lock = Lock()
        self._down: EndpointDown | None = None

    def all(self, kind: str, ask: Callable[[R], T], wanted: Sequence[R]) -> list[T | EndpointError]:
        """The answers in the order of the requests; an error where a request failed for good.

        Args:
            kind: A name for what is answered: one request may be asked for answers of two kinds.
            ask: Sends one request, and gives its answer.
            wanted: The requests; what was answered before is not asked again.

        Raises:
            EndpointDown: No request is answered any more, or more than the tolerated share failed.
        """

        def attempt(request: R) -> T | EndpointError:
            if self._down is not None:
                raise self._down
            with self._lock:
                self._asked += 1
            try:
                return ask(request)
            except EndpointDown as error:
                self._down = error
                raise
            except EndpointUnavailable as error:
                self._see_whether_down()
                return self._tolerated(error)
            except EndpointError as error:
                return self._tolerated(error)

        self._down = None  # it may have come back since
        known = self._known.setdefault(kind, {})
        fresh = [request for request in dict.fromkeys(wanted) if request not in known]
        found: dict[R, T | EndpointError] = {}
        with ThreadPoolExecutor(self._endpoint.parallel) as pool:
            for request, result in zip(fresh, _in_order(pool, attempt, fresh), strict=True):
                found[request] = result
                if not isinstance(result, EndpointError):
                    known[request] = result
        return [known[request] if request in known else found[request] for request in wanted]

    def _tolerated(self, error: EndpointError) -> EndpointError:
        """The error of a request that failed for good.

        Raises:
            EndpointDown: More than the tolerated share have failed by now.
        """
        with self._lock:
            self._failed += 1
            if self._failed > self._max_errors * max(self._asked, _FEW):
                self._down = EndpointDown(
                    f"{self._failed} of {self._asked} requests to the endpoint "
                    f"{self._endpoint.url} failed for good, and 'max_errors' allows a share of "
                    f"{self._max_errors:g}. The last one: {error}"
                )
        if self._down is not None:
            raise self._down
        return error

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
