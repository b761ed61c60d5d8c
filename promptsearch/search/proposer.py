"""The proposer: a language model that writes what strategies ask of it, and whose tokens runs pay.

What it writes is charged like everything else, and kept in a file of its own in the run's folder,
`proposals.jsonl`: one line a call, which is on disk before a strategy sees the texts. A run that
was killed reads the texts back, in order, instead of having them written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from promptsearch.errors import EndpointDown, ModelError, PromptError, StrategyError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.endpoint import Completion, Endpoint, EndpointUnavailable
from promptsearch.models.tokens import Tokens
from promptsearch.records.ledger import Fare, Ledger
from promptsearch.records.log import ProposalLog
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.tasks.decoding import Decoding


class Proposing(Protocol):
    """A model that proposes: the study's own, another one, or one behind an endpoint."""

    def most(self, request: str) -> int:
        """The most tokens that a request can be for this model."""

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        """Answer each request by itself.

        Args:
            requests: Texts with an unfinished last line.
            max_tokens: The most tokens that are written to each request.
            temperature: How freely tokens are drawn; 0 writes what is most probable.
            seeds: One seed for each request, at least 0 and below 2 ** 31: the same seed gives the
                same text, as far as the model can promise it.
            stop: Texts before which an answer ends.
        """


class Writer(Protocol):
    """What a strategy asks for texts: `objective.proposer`."""

    __slots__ = ()

    def generate(
        self,
        requests: Sequence[str],
        *,
        seed: int,
        max_tokens: int,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Let the proposer answer requests, and charge their tokens and those that it wrote.

        Args:
            requests: Texts with an unfinished last line, at least one; the same request several
                times gives different texts.
            seed: The strategy's seed: the same seed and the same calls give the same texts.
            max_tokens: The most tokens that are written to each request.
            temperature: How freely tokens are drawn; 0 writes what is most probable.
            stop: Texts before which an answer ends; it also ends where the model ends it.

        Returns:
            One text for each request.

        Raises:
            BudgetExhausted: Less is left than the call may cost at most.
            StrategyError: There is nothing to answer, or no model to do so.
        """


class Proposer(Writer):
    """Has texts written by a model, charges the run for them, and reads them back after a kill.

    Args:
        model: The model that proposes; None where there is none.
        ledger: The run's ledger.
        log: The log of the proposer's calls.
        reserve: Returns the number of tokens that must remain after a call.
        fare: What the model's tokens cost, in tokens of the LM.
    """

    def __init__(
        self,
        model: Proposing | None,
        ledger: Ledger,
        log: ProposalLog,
        reserve: Callable[[], int],
        fare: Fare = Fare(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self._model, self._ledger, self._log, self._reserve = model, ledger, log, reserve
        self._fare = fare

    def generate(
        self,
        requests: Sequence[str],
        *,
        seed: int,
        max_tokens: int,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """See `Writer`."""
        if not requests or max_tokens < 1 or temperature < 0:
            raise StrategyError(
                "expected requests, at least one token to write and a temperature of at least 0, "
                f"got {len(requests)}, {max_tokens} and {temperature}"
            )
        if self._model is None:
            raise StrategyError(
                "there is no model to propose: give the objective one, "
                "or 'proposer' in the study file"
            )
        read = sum(self._model.most(request) for request in requests)
        most = self._fare.of(read, max_tokens * len(requests))
        self._ledger.check(0, self._reserve(), most)
        call = [*requests, seed, self._log.count, max_tokens, temperature, *stop]
        digest = hashlib.sha256(json.dumps(call).encode()).hexdigest()[:20]
        line = self._log.replay(digest)
        if line is None:
            drawn = [
                int.from_bytes(hashlib.sha256(f"{digest} {i}".encode()).digest()[:4]) >> 1
                for i in range(len(requests))
            ]
            found = self._model.complete(
                requests, max_tokens=max_tokens, temperature=temperature, seeds=drawn, stop=stop
            )
            # A server may count tokens that nobody sent or asked for. What was not set aside
            # beforehand cannot be charged.
            price = self._fare.of(
                sum(each.tokens_in for each in found), sum(each.tokens_out for each in found)
            )
            price = min(most, price)
            line = self._log.append(
                {"request": digest, "texts": [each.text for each in found], "price": price}
            )
        self._ledger.charge(proposer=line["price"])
        return list(line["texts"])


class LocalProposing:
    """A model on this machine, which answers many requests in one pass.

    Args:
        lm: The model, in the dtype to compute in.
        chat: Whether requests go through the model's chat template, as messages of a user.
            Otherwise the model goes on with their text, which is what small models are better at.

    Raises:
        ModelError: `chat` is true, and the model has no chat template.
    """

    #: The share of the probability that tokens are drawn from, the most probable ones first: the
    #: many improbable tokens are what makes the texts of small models fall to pieces.
    TOP_P = 0.95

    def __init__(self, lm: LanguageModel, *, chat: bool = False) -> None:
        if chat and not getattr(lm.tokenizer, "chat_template", None):
            raise ModelError(
                f"the model '{lm.name}' has no chat template: set the proposer's 'chat' to false"
            )
        self._lm, self._chat = lm, chat

    def most(self, request: str) -> int:
        """The number of tokens that the request is."""
        return len(self._encode(request))

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        """See `Proposing`.

        Raises:
            PromptError: A request and its answer may be longer than the model's context.
            ModelError: The model writes no text.
        """
        lm = self._lm
        if not lm.family.writes:
            raise ModelError(
                f"'{lm.name}' is {lm.family.noun} and writes no text: name another model under "
                "'proposer', or take strategies that ask for none"
            )
        encoded = [self._encode(request) for request in requests]
        longest = max(map(len, encoded)) + max_tokens
        if lm.context is not None and longest > lm.context:
            raise PromptError(
                f"a request to the proposer and its answer have {longest} tokens, but the model "
                f"reads at most {lm.context}: show it fewer or shorter examples and instructions"
            )

        def ended(ids: Sequence[int]) -> bool:
            return ids[-1] in lm.ends or _cut(lm.decode(ids), stop) is not None

        width = lm.passes.values if lm.passes.trees or lm.family.encodes else 0
        nothing = lm.passes.place(torch.empty(0, width))
        top_p = self.TOP_P if temperature else 1.0
        decoding = Decoding(max_tokens, temperature=temperature, top_p=top_p)
        starts = [
            Start(self._row(nothing, own), max_tokens, (seed,))
            for own, seed in zip(encoded, seeds, strict=True)
        ]
        found, _ = go_on(lm, starts, Library([], None, None), ended, decoding)
        completions = []
        for own, written in zip(encoded, found, strict=True):
            if not written.answers:
                raise ModelError(f"what the proposer '{lm.name}' computes is not finite")
            ids = written.answers[0]
            text = lm.tokenizer.decode(
                ids[:-1] if ids[-1] in lm.ends else ids, skip_special_tokens=True
            )
            cut = _cut(text, stop)
            completions.append(
                Completion(text.lstrip() if cut is None else cut, len(own), len(ids))
            )
        return completions

    def _row(self, nothing: KeysValues, ids: Sequence[int]) -> InputRow:
        """A request as it is to go on, below no trunk; an encoder reads it whole."""
        lm = self._lm
        if not lm.family.encodes:
            return InputRow(nothing, tuple(ids))
        return InputRow(nothing, lm.passes.start, source=(*ids, *lm.tokens.close))

    def _encode(self, request: str) -> list[int]:
        """The token ids of a request, as a text to go on with or as a user's message."""
        lm = self._lm
        if not self._chat:
            return [*lm.lead, *lm.encode(request, begins=True)]
        message = [{"role": "user", "content": request}]
        text = lm.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return list(lm.tokenizer(text, add_special_tokens=False).input_ids)


class RemoteProposing:
    """A model behind an endpoint, which cuts texts before `stop` itself.

    Args:
        endpoint: The client of the endpoint.
        tokens: The model's tokenizer, if it is at hand.
    """

    #: The most tokens that a chat template, or a tokenizer, is taken to put around a request.
    AROUND = 64

    def __init__(self, endpoint: Endpoint, *, tokens: Tokens | None = None) -> None:
        self.endpoint, self._tokens = endpoint, tokens

    def most(self, request: str) -> int:
        """The most tokens that a request can be, with what may be put around it.

        Where the tokenizer is not at hand, all that is known is that a token is at least a byte.
        """
        own = len(request.encode()) if self._tokens is None else len(self._tokens.encode(request))
        return own + self.AROUND

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        """See `Proposing`.

        Raises:
            EndpointDown: The server does not answer, or lets nobody in; the run goes on when it
                does.
            EndpointError: The server does not take a request, or answers something else than a
                text.
        """

        def ask(request: str, seed: int) -> Completion:
            return self.endpoint.complete(
                request, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop
            )

        try:
            with ThreadPoolExecutor(self.endpoint.parallel) as pool:
                return list(pool.map(ask, requests, seeds))
        except EndpointUnavailable as error:
            raise EndpointDown(str(error)) from error


def _cut(text: str, stop: Sequence[str]) -> str | None:
    """The text before the first of `stop`, without blanks at its start; None where none occurs."""
    begun = text.lstrip()
    places = [place for each in stop if (place := begun.find(each)) >= 0]
    return begun[: min(places)] if places else None
