"""Many prompts on one frozen model: batches in which every row names its own prompt.

One frozen model serves all tasks, and a batch mixes them (Lester et al. 2021, arXiv:2104.08691,
figure 2). Here prompts of all kinds and lengths mix, each with its own template and answers. Rows
are packed into one pass, each below the keys and values of its prompt, which are computed once. A
row's result is the same as if it were alone in the batch. Changed weights are no prompt in this
sense: they make another model, which answers alone.

The engine's words: a row's *trunk* is the keys and values of what comes first, which are *kept*
instead of computed again for each row. What stands *beside* the rows of a pass are gated prompts,
which layers read apart from the tokens; a row's *owner* is the place of its own one among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import FieldError, PromptError, UnknownName
from promptsearch.models import LanguageModel
from promptsearch.models.device import pick_dtype
from promptsearch.prompts.prompt import NamedPrompt, Prompt
from promptsearch.scoring.answers import answer_scores
from promptsearch.scoring.decoding import decode
from promptsearch.scoring.forward import run
from promptsearch.scoring.layout import Ids, check_answers
from promptsearch.scoring.packing import pack
from promptsearch.scoring.ready import Compiled, Row, compile_prompts, fields_of
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.scoring.tree import grow
from promptsearch.tasks.fields import place_of, text_in
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template

#: The number of inputs that `apply` reads at a time.
_TOGETHER = 256


class Found(Protocol):
    """A found prompt with all that its use needs, such as a `SavedPrompt`."""

    @property
    def prompt(self) -> Prompt:
        """The prompt."""

    @property
    def template(self) -> Template:
        """The template that it stands in, bound to its lengths."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The answers to choose from; None for text answers."""

    def model(self, given: LanguageModel | None = None) -> LanguageModel:
        """The model that the prompt was found for, see `Certificate.model`."""


class Choice(NamedTuple):
    """The answer to a row.

    Args:
        answer: The most probable answer, without the space before it.
        probabilities: Answer -> probability among the answers.
    """

    answer: str
    probabilities: dict[str, float]


class _Input(NamedTuple):
    """A row that the user gave, read and checked.

    Args:
        place: Where the row stands, for messages.
        given: The row as the user gave it.
        saved: The row's prompt.
        row: The row's tokens below the prompt.
    """

    place: str
    given: Mapping[str, Any]
    saved: Found
    row: Row


class PromptedModel:
    """A frozen model with prompts for several tasks.

    A row is a mapping with the fields of its prompt's template, and under `prompt` the name of its
    prompt: no template has a field of this name, nor one of the name `answer`. Other keys are left
    alone.

    Args:
        model: The LM that all prompts were found for, in float32.
        prompts: Name -> prompt, or a single prompt, which rows do not name. Changed weights stand
            alone.
        dtype: The dtype to compute in: `float32`, in which prompts are measured, `bfloat16`, or
            `auto`.

    Raises:
        ModelError: A prompt was found for another model.
        PromptError: A prompt does not fit its template, there is none, or there are changed weights
            beside another.

    Example:
        >>> prompts = {name: load_prompt(name) for name in ("films", "capitals")}  # doctest: +SKIP
        >>> model = PromptedModel(lm, prompts)  # doctest: +SKIP
        >>> model.choose([{"prompt": "films", "text": "a gripping film"}])  # doctest: +SKIP
        >>> model.generate([{"prompt": "capitals", "name": "France"}])  # doctest: +SKIP
    """

    def __init__(
        self, model: LanguageModel, prompts: Found | Mapping[str, Found], *, dtype: str = "float32"
    ) -> None:
        self._named = isinstance(prompts, Mapping)
        given = prompts if isinstance(prompts, Mapping) else {"": prompts}
        if not given:
            raise PromptError("expected at least one prompt, got none")
        self._weights = _weights(given)
        for saved in given.values():
            model = saved.model(model)
            check_answers(model, saved.choices, Split("given", ()))
        self._lm = lm = model.to(pick_dtype(dtype, model.device))
        self._library = compile_prompts(
            lm, [(saved.prompt, saved.template) for saved in given.values()]
        )
        self._prompts = {
            name: (saved, each)
            for (name, saved), each in zip(given.items(), self._library.prompts, strict=True)
        }
        self._limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])

    def score(self, rows: Iterable[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The losses of given answers.

        Args:
            rows: Rows with the answer under `answer`; it must be one of the answers to choose from
                where the row's prompt has some.

        Returns:
            Losses in nats, shape `(rows,)`: minus the answer's log-probability, among the answers
            to choose from or as text.

        Raises:
            PromptError: A row lacks its prompt's name, a field or its answer, or is longer than the
                model's context.
            UnknownName: There is no such prompt.
        """
        inputs = self._read(rows)
        answers = [
            each.saved.choices or (each.saved.template.answer_text(_answer(each)),)
            for each in inputs
        ]
        places = [_place(each) for each in inputs]
        found = self._log_probabilities(inputs, answers)
        losses = [
            -float(nats.log_softmax(0)[p] if len(nats) > 1 else nats[p])
            for nats, p in zip(found, places, strict=True)
        ]
        return np.array(losses, dtype=np.float64)

    def choose(self, rows: Iterable[Mapping[str, Any]]) -> list[Choice]:
        """The most probable of the answers to choose from, for each row.

        Args:
            rows: Rows whose prompts have answers to choose from.

        Raises:
            PromptError: As in `score`, or a prompt has no answers to choose from.
            UnknownName: There is no such prompt.
        """
        return self._choose(self._read(rows))

    def generate(
        self, rows: Iterable[Mapping[str, Any]], tokens: int = 32, *, stop: str | None = None
    ) -> list[str]:
        """The greedy continuation of each row.

        Args:
            rows: Rows of any prompts.
            tokens: The most tokens to add; fewer where the model's context ends.
            stop: A text before which a row ends; it always ends where the model ends a text.

        Raises:
            PromptError: As in `score`.
            UnknownName: There is no such prompt.
        """
        return self._generate(self._read(rows), tokens, stop)

    def apply(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answer a stream of inputs, many at a time.

        Args:
            rows: Rows of any prompts.

        Yields:
            Each row with `answer` added. Where there are answers to choose from, it is the most
            probable one, and `probabilities` holds the probability of each; else it is the first
            generated line.

        Raises:
            PromptError: As in `score`.
            UnknownName: There is no such prompt.
        """
        stream, first = iter(rows), 1
        while some := list(islice(stream, _TOGETHER)):
            inputs = self._read(some, first)
            first += len(some)
            free = [each for each in inputs if each.saved.choices is None]
            chosen = iter(self._choose([each for each in inputs if each.saved.choices is not None]))
            texts = iter(self._generate(free, 32, "\n"))
            for each in inputs:
                if each.saved.choices is None:
                    yield {**each.given, "answer": next(texts).strip()}
                else:
                    answer, probabilities = next(chosen)
                    rounded = {name: round(p, 6) for name, p in probabilities.items()}
                    yield {**each.given, "answer": answer, "probabilities": rounded}

    # Private.

    def _read(self, rows: Iterable[Mapping[str, Any]], first: int = 1) -> list[_Input]:
        found = []
        for number, given in enumerate(rows, start=first):
            place = place_of(given, f"input {number}")
            saved, compiled = self._prompt(place, given)
            fields = fields_of(saved.template, given, place)
            try:
                row = compiled.row(self._lm, fields)
            except PromptError as error:
                raise PromptError(f"{place}: {error}") from error
            found.append(_Input(place, given, saved, row))
        return found

    def _prompt(self, place: str, given: Mapping[str, Any]) -> tuple[Found, Compiled]:
        if not self._named:
            return self._prompts[""]
        known = list(self._prompts)
        if "prompt" not in given:
            raise PromptError(
                f"{place} names no prompt: expected one of {', '.join(known)} under 'prompt'"
            )
        if given["prompt"] not in known:
            raise UnknownName("prompt", str(given["prompt"]), known)
        return self._prompts[given["prompt"]]

    def _choose(self, inputs: Sequence[_Input]) -> list[Choice]:
        for each in inputs:
            if each.saved.choices is None:
                raise PromptError(
                    f"{each.place}: its prompt has no answers to choose from: generate one"
                )
        found = []
        answers = [each.saved.choices or () for each in inputs]
        for texts, nats in zip(answers, self._log_probabilities(inputs, answers), strict=True):
            shares = nats.softmax(0).tolist()
            names = [text.strip() for text in texts]
            found.append(Choice(names[int(nats.argmax())], dict(zip(names, shares, strict=True))))
        return found

    def _log_probabilities(
        self, inputs: Sequence[_Input], answers: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """The log-probabilities of each row's answers.

        For each row in nats, float64 on the CPU, shape `(answers,)`.
        """
        lm = self._lm
        ids = [[tuple(lm.encode(text)) for text in texts] for texts in answers]
        for each, some in zip(inputs, ids, strict=True):
            if not all(some):
                raise PromptError(f"{each.place}: its answer is empty: expected text")
            self._check_length(each, max(map(len, some)))
        # The tokens that run below the trunk: the last token of an answer is predicted, never read.
        sizes = [
            len(each.row.ids) + sum(len(a) - 1 for a in some)
            for each, some in zip(inputs, ids, strict=True)
        ]
        found: dict[int, Tensor] = {}
        with lm.changed(self._weights):
            for places in _passes([each.row for each in inputs], sizes, self._limit):
                nats = self._pass([inputs[i].row for i in places], [ids[i] for i in places])
                found.update(zip(places, nats, strict=True))
        return [found[i] for i in range(len(inputs))]

    def _pass(self, rows: Sequence[Row], answers: Sequence[Sequence[Ids]]) -> list[Tensor]:
        lm = self._lm
        paths = [
            [(*row.ids, *answer[:-1]) for answer in some]
            for row, some in zip(rows, answers, strict=True)
        ]
        above = [len(row.trunk) for row in rows]
        trees = [grow(some, n) for some, n in zip(paths, above, strict=True)]
        if not lm.passes.trees:
            trees = [grow([path]) for some in paths for path in some]
        with torch.inference_mode():
            beside = self._library.beside([row.owner for row in rows])
            states, begins = run(
                lm,
                trees,
                [row.trunk for row in rows] if any(above) else None,
                self._library.vectors,
                beside,
            )
            ends = [
                [begin + p for p in places]
                for tree, begin in zip(trees, begins, strict=True)
                for places in tree.rows
            ]
            wanted = [answer for some in answers for answer in some]
            predict = [places[-len(answer) :] for places, answer in zip(ends, wanted, strict=True)]
            nats = answer_scores(lm, states, predict, wanted)[:, 0].cpu()
        return list(nats.split([len(some) for some in answers]))

    def _generate(self, inputs: Sequence[_Input], tokens: int, stop: str | None) -> list[str]:
        lm = self._lm
        if tokens < 1:
            raise PromptError(f"expected at least one token to generate, got {tokens}")
        for each in inputs:
            self._check_length(each, 1)
        room = [
            tokens if lm.context is None else min(tokens, lm.context - each.row.tokens)
            for each in inputs
        ]

        def ended(ids: Sequence[int]) -> bool:
            return ids[-1] in lm.ends or (stop is not None and stop in lm.decode(ids))

        found: dict[int, str] = {}
        rows = [each.row for each in inputs]
        with lm.changed(self._weights):
            for places in _passes(rows, [len(row.ids) for row in rows], self._limit):
                some, most = [rows[i] for i in places], [room[i] for i in places]
                for i, ids in zip(
                    places, decode(lm, some, self._library, most, ended), strict=True
                ):
                    text = lm.tokenizer.decode(
                        ids[:-1] if ids[-1] in lm.ends else ids, skip_special_tokens=True
                    )
                    found[i] = text if stop is None else text.partition(stop)[0]
        return [found[i] for i in range(len(inputs))]

    def _check_length(self, each: _Input, more: int) -> None:
        tokens, limit = each.row.tokens + more, self._lm.context
        if limit is not None and tokens > limit:
            raise PromptError(
                f"{each.place} has {tokens} tokens with its prompt and answer, but the model reads "
                f"at most {limit}: shorten it (it is never cut silently)"
            )


def _weights(prompts: Mapping[str, Found]) -> Mapping[str, Tensor]:
    """The changed weights that all rows are read with; empty for all other prompts.

    Raises:
        PromptError: There are changed weights and another prompt.
    """
    for name, saved in prompts.items():
        if isinstance(saved.prompt, NamedPrompt):
            if len(prompts) > 1:
                raise PromptError(
                    f"'{name}' changes the model's weights, so nothing else can share a batch with "
                    f"it: expected it alone, in a PromptedModel of its own, got {len(prompts)} "
                    "prompts"
                )
            return saved.prompt.weights
    return {}


def _answer(each: _Input) -> str:
    try:
        return text_in(each.given, "answer", each.place)
    except FieldError as error:
        raise PromptError(str(error)) from error


def _place(each: _Input) -> int:
    """The place of a row's answer among the answers of its prompt."""
    if each.saved.choices is None:
        return 0
    answer, names = _answer(each), [text.strip() for text in each.saved.choices]
    if (whole := each.saved.template.answer_text(answer)) in each.saved.choices:
        return each.saved.choices.index(whole)
    if answer.strip() not in names:
        raise UnknownName("answer", answer.strip(), names)
    return names.index(answer.strip())


def _passes(rows: Sequence[Row], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Groups of rows with similar prompts and sizes, each as large as one pass takes.

    The longest come first.

    Args:
        rows: All rows.
        sizes: For each row, the number of tokens that the pass computes.
        limit: The most tokens that a pass computes; for the limit on kept tokens above them, see
            `pack`.

    Yields:
        The places of one pass's rows.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].trunk), -sizes[i]))
    return pack(order, lambda i: sizes[i], lambda: limit, lambda i: len(rows[i].trunk))
