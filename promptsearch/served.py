"""A model that cannot be loaded here: a server scores texts, and nothing else of it is known.

Which of two scores there are is asked of the server once, at the start:

* `nats`: it gives the log-probability of each token of a prompt, so that losses are those of models that are loaded here.
* `errors`: it only writes; the loss is then 1 where the text that it writes is wrong, and 0 where it is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch

from promptsearch.endpoint import Completion, Endpoint, EndpointUnavailable, estimate_tokens
from promptsearch.errors import EndpointDown, EndpointError, ModelError, PromptError, StudyError
from promptsearch.model.tokens import Tokens

R = TypeVar("R", bound=Hashable)
T = TypeVar("T")

#: How far log-probabilities of the same text may lie apart, in nats per token: the numbers of a server depend on what else it is
#: doing at the time, see https://github.com/vllm-project/vllm/issues/42019.
TOLERANCE = 0.05
#: What the server is asked at the start.
_PROBE = "The capital of France is Paris."


class Answered(NamedTuple):
    """How probable an answer is.

    Args:
        nats: Its log-probability.
        greedy: Whether each of its tokens is the most probable one; None where the server does not say.
    """

    nats: float
    greedy: bool | None


class ServedModel:
    """A model behind an endpoint.

    Args:
        endpoint: The server.
        tokens: The model's tokenizer, if it is at hand.
        tokenizer: Where that comes from.
        words: Without a tokenizer: the words of the pool; ids are places in this list.
        parallel: Requests at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tokens: Tokens | None = None,
        tokenizer: str | None = None,
        words: Sequence[str] = (),
        parallel: int = 4,
    ) -> None:
        self.name = endpoint.model
        self.device = endpoint.url
        self.dtype = torch.float32  # what the server computes in is its own affair
        self.parameters: int | None = None
        self.endpoint = endpoint
        self.tokens = tokens
        self._tokenizer = tokenizer
        self._words = tuple(dict.fromkeys(words))
        self._places = {word: place for place, word in enumerate(self._words)}
        self._parallel = parallel
        self._known: dict[Hashable, Any] = {}
        self._lock = Lock()
        self._down: EndpointDown | None = None
        self.read = 0  # tokens, in and out, as the server counts them

    @staticmethod
    def of(facts: Mapping[str, Any], key: str | None = None) -> ServedModel:
        """The model that an export names.

        Args:
            facts: What `facts` was.
            key: The name of the environment variable that holds the server's key.

        Raises:
            ModelError: The facts are damaged.
        """
        try:
            given = facts["served"]
            own = {name: given[name] for name in ("url", "model", "seconds", "retries", "chat")}
            endpoint, source, parallel = Endpoint(key=key, **own), given["tokenizer"], int(given["parallel"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the endpoint of the model '{facts.get('name')}' is not described as expected: {error!r}"
            ) from error
        tokens = Tokens.load(source) if source else None
        return ServedModel(endpoint, tokens=tokens, tokenizer=source, parallel=parallel)

    # What any model has, see model.text.

    noise = 0.0  # its arithmetic is its own: see TOLERANCE

    @cached_property
    def scores(self) -> str:
        """`nats` or `errors`: asked of the server.

        Raises:
            EndpointDown: Nobody answers, or nobody is let in.
            EndpointError: The server answers something else than completions.
        """
        if not self.endpoint.chat:
            try:
                found = self.endpoint.logprobs(_PROBE)
                if None not in found.greedy[1:]:
                    return "nats"
            except EndpointUnavailable as error:
                raise EndpointDown(str(error)) from error
            except EndpointDown:
                raise
            except EndpointError:
                pass  # it gives none, or others: whatever it says, it can only be asked to write
        self._ping()
        return "errors"

    @property
    def served(self) -> dict[str, Any]:
        """Where it is served, and what its scores are; never a secret."""
        end = self.endpoint
        return {
            "url": end.url,
            "model": end.model,
            "key": end.key,
            "seconds": end.seconds,
            "retries": end.retries,
            "chat": end.chat,
            "tokenizer": self._tokenizer,
            "parallel": self._parallel,
            "scores": self.scores,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What names the model, for exports."""
        own = {"name": self.name, "source": self.device, "hash": self.hash}
        # Not the key's name: who is handed an export must not send a variable of his own to the address that stands in it.
        return {**own, "served": {k: v for k, v in self.served.items() if k != "key"}}

    @property
    def hash(self) -> str:
        """20 hexadecimal digits of a SHA-256 of its address, its name and the kind of its scores; its weights are not known."""
        content = repr((self.endpoint.url, self.endpoint.model, self.endpoint.chat, self.scores))
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    @property
    def tokenizer_hash(self) -> str:
        """Names the tokenizer; without one, the words of the pool."""
        if self.tokens is not None:
            return self.tokens.hash
        return hashlib.sha256(repr(self._words).encode()).hexdigest()[:20]

    @property
    def words(self) -> tuple[int, ...]:
        """Ids of the tokenizer's words, or of all words of the list."""
        return self.tokens.words() if self.tokens is not None else tuple(range(len(self._words)))

    @property
    def added(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens; words of a list are none."""
        return self.tokens.added if self.tokens is not None else frozenset()

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; without a tokenizer, those of its words in the list.

        Raises:
            PromptError: A word is not in the list.
        """
        if self.tokens is not None:
            return self.tokens.encode(text)
        pieces = [text] if text in self._places else [f" {word}" for word in text.split()]
        if strange := next((piece for piece in pieces if piece not in self._places), None):
            raise PromptError(
                f"{strange.strip()!r} is not among the {len(self._words)} words of the pool, and without a tokenizer there are "
                "no others: take it into the pool, or give the model's 'tokenizer'"
            )
        return [self._places[piece] for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.tokens.decode(ids) if self.tokens is not None else "".join(self._words[i] for i in ids)

    def count(self, text: str) -> int:
        """What a text is charged: its tokens, or without a tokenizer what its bytes let expect."""
        return len(self.tokens.encode(text)) if self.tokens is not None else estimate_tokens(text)

    def check(self) -> None:
        """Ask the server what it can do."""
        _ = self.scores

    def check_unchanged(self) -> None:
        """Nothing here can write to it."""

    def searched_in(self, dtype: str) -> torch.dtype:
        """Float32, which is what comes back.

        Raises:
            StudyError: Another one is wanted.
        """
        if dtype == "bfloat16":
            raise StudyError("the dtype of a model behind an endpoint is the server's: leave 'dtype' out")
        return self.dtype

    def room(self) -> int:
        """None: nothing is kept here."""
        return 0

    def to(self, dtype: torch.dtype) -> ServedModel:
        """Itself: there is one."""
        return self

    # Requests.

    def answered(self, wanted: Sequence[tuple[str, str]]) -> list[Answered | EndpointError]:
        """How probable answers are.

        Args:
            wanted: A text, and the answer that follows it.

        Returns:
            In the same order; an error where a request failed for good.

        Raises:
            EndpointDown: No request is answered any more.
        """

        def ask(pair: tuple[str, str]) -> Answered:
            text, answer = pair
            found = self.endpoint.logprobs(text + answer)
            self._count(found.tokens_in)
            tail = found.tail(answer)
            values, greedy = found.values[tail], found.greedy[tail]
            return Answered(sum(v for v in values if v is not None), None if None in greedy else all(greedy))

        return self._all(ask, wanted)

    def written(self, wanted: Sequence[tuple[str, int]]) -> list[Completion | EndpointError]:
        """How texts go on.

        Args:
            wanted: A text, and the most tokens to write.

        Returns:
            In the same order; an error where a request failed for good.

        Raises:
            EndpointDown: No request is answered any more.
        """

        def ask(pair: tuple[str, int]) -> Completion:
            found = self.endpoint.complete(pair[0], max_tokens=pair[1])
            self._count(found.tokens_in + found.tokens_out)
            return found

        return self._all(ask, wanted)

    @property
    def parallel(self) -> int:
        """Requests at a time."""
        return self._parallel

    def _count(self, tokens: int) -> None:
        with self._lock:
            self.read += tokens

    def _all(self, ask: Callable[[R], T], wanted: Sequence[R]) -> list[T | EndpointError]:
        """Each request once, as many at a time as there may be; what was answered before is not asked again."""

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
        with ThreadPoolExecutor(self._parallel) as pool:
            for request, result in zip(fresh, _in_order(pool, attempt, fresh), strict=True):
                found[request] = result
                if not isinstance(result, EndpointError):
                    self._known[request] = result
        return [self._known[request] if request in self._known else found[request] for request in wanted]

    def _see_whether_down(self) -> None:
        """Where a request failed for good: is it this one, or does the server answer nothing any more?"""
        with self._lock:
            if self._down is None:
                try:
                    self._ping()
                except EndpointDown as error:
                    self._down = error
        if self._down is not None:
            raise self._down

    def _ping(self) -> None:
        try:
            self.endpoint.complete(_PROBE, max_tokens=1)
        except EndpointUnavailable as error:
            raise EndpointDown(str(error)) from error


def _in_order(pool: ThreadPoolExecutor, work: Callable[[R], T], given: Sequence[R]) -> Iterator[T]:
    """Results in the order of what is given; where one fails, those that have not begun never do."""
    futures = [pool.submit(work, each) for each in given]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
