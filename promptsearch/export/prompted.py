"""Many prompts on one frozen model: batches in which every row names its own prompt.

One frozen model serves all tasks, and a batch mixes them (Lester et al. 2021, arXiv:2104.08691,
figure 2). Here prompts of all kinds and lengths mix, each with its own template and answers. Rows
are packed into one pass, each below the keys and values of its prompt, which are computed once. A
row's result is the same as if it were alone in the batch. Changed weights are no prompt in this
sense: they make another model, which answers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import PromptError, UnknownName
from promptsearch.export.inputs import Found, Input
from promptsearch.export.passes import Passes
from promptsearch.models import LanguageModel
from promptsearch.models.device import pick_dtype
from promptsearch.scoring.answer_ids import told_ids
from promptsearch.scoring.joints import check_answers
from promptsearch.scoring.ready import Compiled, compile_prompts, fields_of
from promptsearch.tasks.fields import place_of
from promptsearch.tasks.normalise import answer_lengths
from promptsearch.tasks.task import Split

#: The number of inputs that `apply` reads at a time.
TOGETHER = 256


class Choice(NamedTuple):
    """The answer to a row.

    Args:
        answer: The most probable answer, without the space before it.
        probabilities: Answer -> probability among the answers.
    """

    answer: str
    probabilities: dict[str, float]


class PromptedModel:
    """A frozen model with prompts for several tasks.

    A row is a mapping with the fields of its prompt's template, and under `prompt` the name of its
    prompt: no template has a field of this name, nor one of the name `answer`. Other keys are left
    alone.

    Args:
        model: The LM that all prompts were found for, in float32.
        prompts: Name -> prompt, or a single prompt, which rows do not name. Changed weights stand
            alone.
        dtype: The dtype to compute in: `float32`, in which prompts are measured, `bfloat16`,
            `float16` or `auto`.

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
        weights = _weights(given)
        for saved in given.values():
            model = saved.model(model)
            check_answers(model, saved.choices, Split("given", ()), saved.normalise)
            if saved.prompt.answers is not None:
                told_ids(model, saved.prompt.answers, saved.choices)
        self._lm = lm = model.to(pick_dtype(dtype, model.device))
        library = compile_prompts(lm, [(saved.prompt, saved.template) for saved in given.values()])
        self._prompts = {
            name: (saved, each)
            for (name, saved), each in zip(given.items(), library.prompts, strict=True)
        }
        self._passes = Passes(lm, library, weights)

    def score(self, rows: Iterable[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The losses of given answers.

        Args:
            rows: Rows with the answer under `answer`; it must be one of the answers to choose from
                where the row's prompt has some.

        Returns:
            Losses in nats, shape `(rows,)`: minus the answer's log-probability, among the answers
            to choose from or as text up to its end.

        Raises:
            PromptError: A row lacks its prompt's name, a field or its answer, or is longer than the
                model's context.
            UnknownName: There is no such prompt.
        """
        inputs = self._read(rows)
        places = [each.answer_place for each in inputs]
        found = self._weighed(inputs)
        losses = [
            -float(nats.log_softmax(0)[p] if len(nats) > 1 else nats[p])
            for nats, p in zip(found, places, strict=True)
        ]
        return np.array(losses, dtype=np.float64)

    def choose(self, rows: Iterable[Mapping[str, Any]], *, first: int = 1) -> list[Choice]:
        """The most probable of the answers to choose from, for each row.

        Args:
            rows: Rows whose prompts have answers to choose from.
            first: The number of the first row in messages, where rows stood before it.

        Raises:
            PromptError: As in `score`, or a prompt has no answers to choose from.
            UnknownName: There is no such prompt.
        """
        return self._choose(self._read(rows, first))

    def generate(
        self,
        rows: Iterable[Mapping[str, Any]],
        tokens: int | None = None,
        *,
        stop: str | None = None,
    ) -> list[str]:
        """The greedy continuation of each row, up to the end of an answer.

        Args:
            rows: Rows of any prompts.
            tokens: The most tokens to add, fewer where the model's context ends; None: as many as
                the prompt's task has.
            stop: A text before which a row ends; it also ends where its prompt's answers do.

        Raises:
            PromptError: As in `score`.
            UnknownName: There is no such prompt.
        """
        return self._passes.generate(self._read(rows), tokens, stop)

    def apply(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Answer a stream of inputs, many at a time.

        Args:
            rows: Rows of any prompts.

        Yields:
            Each row with `answer` added. Where there are answers to choose from, it is the most
            probable one, and `probabilities` holds the probability of each; else it is the text
            that the model generates up to its end, decoded as the prompt's task says.

        Raises:
            PromptError: As in `score`.
            UnknownName: There is no such prompt.
        """
        stream, first = iter(rows), 1
        while some := list(islice(stream, TOGETHER)):
            inputs = self._read(some, first)
            first += len(some)
            free = [each for each in inputs if each.choices is None]
            chosen = iter(self._choose([each for each in inputs if each.choices is not None]))
            texts = iter(self._passes.generate(free))
            for each in inputs:
                if each.choices is None:
                    yield {**each.given, "answer": next(texts).strip()}
                else:
                    yield answered(each.given, next(chosen))

    def _read(self, rows: Iterable[Mapping[str, Any]], first: int = 1) -> list[Input]:
        inputs = []
        for number, given in enumerate(rows, start=first):
            place = place_of(given, f"input {number}")
            saved, compiled = self._prompt(place, given)
            fields = fields_of(saved.template, given, place)
            try:
                row = compiled.row(self._lm, fields)
            except PromptError as error:
                raise PromptError(f"{place}: {error}") from error
            inputs.append(Input(place, given, saved, row))
        return inputs

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

    def _choose(self, inputs: Sequence[Input]) -> list[Choice]:
        for each in inputs:
            if each.choices is None:
                raise PromptError(
                    f"{each.place}: its prompt has no answers to choose from: generate one"
                )
        choices = []
        for each, nats in zip(inputs, self._weighed(inputs), strict=True):
            shares = nats.softmax(0).tolist()
            names = [text.strip() for text in each.choices or ()]
            choices.append(Choice(names[int(nats.argmax())], dict(zip(names, shares, strict=True))))
        return choices

    def _weighed(self, inputs: Sequence[Input]) -> list[Tensor]:
        """What answers are compared by: log-probabilities, by length and corrected."""
        lm, found = self._lm, []
        nats = self._passes.log_probabilities(inputs, [each.scored(lm) for each in inputs])
        for each, own in zip(inputs, nats, strict=True):
            saved = each.saved
            if (told := saved.prompt.answers) is not None:
                # The probabilities of a class's words are added up, see `VerbalizedPrompt`.
                found.append(own.unflatten(0, (len(told), -1)).logsumexp(-1))
                continue
            lengths = answer_lengths(
                saved.normalise, saved.template, each.choices or (), lm.count_answer
            )
            own = own / torch.tensor(lengths) if set(lengths) - {1} else own
            bias = saved.prompt.parts.bias
            found.append(own if bias is None else own + bias)
        return found


def answered(given: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """A row with its answer, as `apply` gives it.

    Args:
        given: The row as the user gave it.
        choice: The answer to it.
    """
    rounded = {name: round(p, 6) for name, p in choice.probabilities.items()}
    return {**given, "answer": choice.answer, "probabilities": rounded}


def _weights(prompts: Mapping[str, Found]) -> Mapping[str, Tensor]:
    """The changed weights that all rows are read with; empty for all other prompts.

    Raises:
        PromptError: There are changed weights and another prompt.
    """
    for name, saved in prompts.items():
        if not saved.prompt.frozen:
            if len(prompts) > 1:
                raise PromptError(
                    f"'{name}' changes the model's weights, so nothing else can share a batch with "
                    f"it: expected it alone, in a PromptedModel of its own, got {len(prompts)} "
                    "prompts"
                )
            return saved.prompt.parts.weights or {}
    return {}
