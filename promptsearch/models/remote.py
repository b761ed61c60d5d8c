"""A model that cannot be loaded here: a server scores texts, and nothing else is known of it.

The server is asked once, at the start, which scores it gives, see
`promptsearch.models.endpoint.way`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import torch

from promptsearch.errors import EndpointError, ModelError, StudyError
from promptsearch.models.endpoint import (
    Completion,
    Echo,
    Endpoint,
    Place,
    Unfinished,
    Way,
    find_way,
)
from promptsearch.models.endpoint.asking import Asking
from promptsearch.models.flops import Flops
from promptsearch.models.tokens import Tokens
from promptsearch.models.word_list import WordList

#: How far two log-probabilities of the same text may lie apart, in nats per token: a server's
#: numbers depend on what else it is doing at the time, see
#: https://github.com/vllm-project/vllm/issues/42019.
TOLERANCE = 0.05
#: What an export tells about an endpoint, with the types.
_KINDS = {"url": str, "model": str, "seconds": float, "retries": int, "chat": bool, "parallel": int}


class AnswerNats(NamedTuple):
    """How probable an answer is.

    Args:
        nats: Its log-probability.
        greedy: Whether each of its tokens is the most probable one; None where the server does not
            say.
    """

    nats: float
    greedy: bool | None


class ServedModel:
    """A model behind an endpoint.

    Args:
        endpoint: The server.
        tokens: The model's tokenizer, where it is at hand.
        tokenizer: The name or folder that the tokenizer was loaded from.
        words: The words of the pool, where there is no tokenizer; ids are places in this list.
        listed: Whether lists of the most probable tokens tell how probable the answers are that
            will be scored, as the scores `first` need it (see `promptsearch.models.endpoint.way`):
            each is one to choose from, or a single token of the tokenizer.
        max_errors: The share of the requests that may fail for good; where more fail, the server
            counts as gone.
        parameters: The number of its weights, where it is known.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tokens: Tokens | None = None,
        tokenizer: str | None = None,
        words: Sequence[str] = (),
        listed: bool = False,
        max_errors: float = 1.0,
        parameters: int | None = None,
    ) -> None:
        self.name = endpoint.model
        self.device = endpoint.url
        self.dtype = torch.float32  # what the server computes in is its own affair
        self.parameters = parameters
        self.endpoint = endpoint
        self.tokens = tokens
        self._tokenizer = tokenizer
        self._vocabulary = tokens or WordList(words)
        self._listed = listed
        self._asking = Asking(endpoint, max_errors)
        self._lock = Lock()
        self.read = 0  # how many tokens went in and out, as the server counts them

    @staticmethod
    def of(facts: Mapping[str, Any], key: str | None = None) -> ServedModel:
        """The model that an export names.

        Args:
            facts: The model's `facts`, as the export holds them.
            key: The name of the environment variable that holds the server's key.

        Raises:
            ModelError: The facts are damaged.
        """
        try:
            given = facts["served"]
            own = {name: kind(given[name]) for name, kind in _KINDS.items()}
            source, listed = given["tokenizer"], given.get("scores") == "first"
            endpoint = Endpoint(key=key, **own)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ModelError(
                f"the endpoint of the model '{facts.get('name')}' is not described as expected: "
                f"{error!r}"
            ) from error
        tokens = Tokens.load(source) if source else None
        return ServedModel(endpoint, tokens=tokens, tokenizer=source, listed=listed)

    # What any model has, see `promptsearch.models.protocol`.

    noise = 0.0  # the server's arithmetic is not known; see TOLERANCE instead

    @property
    def scores(self) -> str:
        """The kind of scores: `nats`, `first` or `errors`, see `way`."""
        return self.way.scores

    @cached_property
    def way(self) -> Way:
        """The way in which scores come from the server, which is asked for it once.

        Raises:
            EndpointDown: Nobody answers, or nobody is let in.
            EndpointError: The server answers something else than completions.
        """
        return find_way(self.endpoint, listed=self._listed)

    @property
    def flops(self) -> Flops | None:
        """The FLOPs of its forward pass; None where its size is not known."""
        return Flops(2 * self.parameters, 0) if self.parameters else None

    @property
    def served(self) -> dict[str, Any]:
        """Where it is served, and what its scores are; this holds no secret."""
        end = self.endpoint
        return {
            "url": end.url,
            "model": end.model,
            "key": end.key,
            "seconds": end.seconds,
            "retries": end.retries,
            "chat": end.chat,
            "tokenizer": self._tokenizer,
            "parallel": self.parallel,
            "scores": self.scores,
            "most": self.way.most,
            "shifted": self.way.shifted,
            **({"unseen": self.way.unseen} if self.scores == "first" else {}),
            "reason": self.way.reason,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What exports say of the model, so that it can be found again."""
        own = {"name": self.name, "source": self.device, "hash": self.hash}
        # The key's name is left out: whoever is handed an export must not send an environment
        # variable of their own to the address that stands in it.
        return {**own, "served": {k: v for k, v in self.served.items() if k != "key"}}

    @property
    def hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over its address, its name and the kind of scores.

        Its weights are not known.
        """
        how = [self.way.echo] if self.way.shifted else [self.way.most] if self.way.most else []
        content = repr(
            (self.endpoint.url, self.endpoint.model, self.endpoint.chat, self.scores, *how)
        )
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    @property
    def tokenizer_hash(self) -> str:
        """A name for the tokenizer or, without one, for the words of the pool."""
        return self._vocabulary.hash

    @property
    def words(self) -> tuple[int, ...]:
        """The ids of the tokenizer's words, or of all words in the list."""
        return self._vocabulary.words

    @property
    def plain(self) -> tuple[int, ...]:
        """The ids of all tokens that texts are made of, or of all words in the list."""
        return self._vocabulary.plain

    @property
    def added(self) -> frozenset[int]:
        """The ids of the tokenizer's special tokens; the words of a list are none."""
        return self._vocabulary.added

    @property
    def anew(self) -> bool:
        """False: what is sent holds no special token."""
        return False

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The token ids of a text; without a tokenizer, those of its words in the list.

        Args:
            text: Any text.
            begins: Whether it is the beginning of what is sent; else it stands behind other text.

        Raises:
            PromptError: A word is not in the list.
        """
        return self._vocabulary.encode(text, begins=begins)

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids; `begins` as for `encode`."""
        return self._vocabulary.decode(ids, begins=begins)

    def count(self, text: str) -> int:
        """The number of tokens that a text is charged; estimated from bytes without a tokenizer."""
        return self._vocabulary.count(text)

    count_answer = count  # an answer is sent like any other text

    @property
    def cut(self) -> Callable[[str], list[str]] | None:
        """Cuts an answer into the texts of its tokens; None without a tokenizer."""
        tokens = self.tokens
        if tokens is None:
            return None
        return lambda text: [tokens.decode([i]) for i in tokens.encode(text)]

    def check(self, *, gradients: bool = False) -> None:
        """Ask the server what it can do.

        Args:
            gradients: Ignored: no study trains on a served model.

        Raises:
            EndpointDown: Nobody answers, or nobody is let in.
            EndpointError: The server answers something else than completions.
        """
        _ = self.scores

    def check_unchanged(self) -> None:
        """Do nothing: nothing here can write to it."""

    def searched_in(self, dtype: str) -> torch.dtype:
        """Float32, which is what comes back.

        Raises:
            StudyError: The study asks for another dtype.
        """
        if dtype not in ("auto", "float32"):
            raise StudyError(
                "the dtype of a model behind an endpoint is the server's: leave 'dtype' out"
            )
        return self.dtype

    def room(self) -> int:
        """0: no keys and values are kept here."""
        return 0

    def to(self, dtype: torch.dtype) -> ServedModel:
        """The same model: what it computes in is the server's affair."""
        return self

    # Requests.

    def answered(self, wanted: Sequence[tuple[str, str]]) -> list[AnswerNats | EndpointError]:
        """How probable answers are.

        Args:
            wanted: Pairs: a text, and the answer that follows it.

        Returns:
            The results in the same order; an error where a request failed for good.

        Raises:
            EndpointDown: No request is answered any more.
        """
        echo = self.way.echo or Echo()

        def ask(pair: tuple[str, str]) -> AnswerNats:
            text, answer = pair
            nats, greedy, tokens = echo.read(self.endpoint, text + answer, answer)
            self._count(tokens)
            return AnswerNats(nats, greedy)

        return self._asking.all("answered", ask, wanted)

    def written(self, wanted: Sequence[Unfinished]) -> list[Completion | EndpointError]:
        """The continuations of texts.

        Args:
            wanted: The texts.

        Returns:
            The results in the same order; an error where a request failed for good.

        Raises:
            EndpointDown: No request is answered any more.
        """

        def ask(begun: Unfinished) -> Completion:
            found = self.endpoint.complete(
                begun.text,
                max_tokens=begun.tokens,
                temperature=begun.temperature,
                top_p=begun.top_p,
                seed=begun.seed,
                stop=[begun.stop] if begun.stop else (),
            )
            self._count(found.tokens_in + found.tokens_out)
            return found

        return self._asking.all("written", ask, wanted)

    def listed(self, wanted: Sequence[Unfinished]) -> list[tuple[Place, ...] | EndpointError]:
        """The continuations of texts, each token with the most probable ones at its place.

        Args:
            wanted: The texts, to go on with as it is most probable.

        Returns:
            The results in the same order; an error where a request failed for good.

        Raises:
            EndpointDown: No request is answered any more.
        """
        most = self.way.most

        def ask(begun: Unfinished) -> tuple[Place, ...]:
            found = self.endpoint.places(begun.text, most, begun.tokens)
            self._count(self.count(begun.text) + len(found))
            return found

        return self._asking.all("listed", ask, wanted)

    @property
    def parallel(self) -> int:
        """The most requests that are sent at a time."""
        return self.endpoint.parallel

    def _count(self, tokens: int) -> None:
        with self._lock:
            self.read += tokens
