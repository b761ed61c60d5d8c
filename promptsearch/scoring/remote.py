"""Scores prompts on a split of a task with a model that is served elsewhere: one request for each answer to each text.

A request sends its whole text, whatever was sent before, so the whole text is charged each time: that of a task of two choices
twice. What a prompt is charged is known beforehand and the same whenever it is scored: tokens of the model's tokenizer where it
is at hand; else a third of the text's bytes of UTF-8, rounded up, and one for each word of a pool. What the server says that it
read stands beside it as `computed`. What is asked again within a process is answered from memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from promptsearch.errors import (
    EndpointError,
    PromptError,
    PromptSearchError,
    StrategyError,
    TemplateError,
)
from promptsearch.models.endpoint import Completion, Likely
from promptsearch.models.remote import Answered, ServedModel
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.prompt import HardPrompt, Numbers, Prompt, TextPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import Floats, Scores
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.sharing import Prediction
from promptsearch.scoring.tree import Path
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template

Ids = NDArray[np.int64]

#: Part of every cache key: raise it when scores may change.
_VERSION = 1
#: Tokens that a model may write beyond those of the longest answer.
_SPARE = 3


class Question(NamedTuple):
    """A text to be answered.

    Args:
        text: Up to the answer.
        answers: The choices; or the right answer, and what counts as right beside it.
        choice: The right one's place among the choices; None: the first answer is right.
    """

    text: str
    answers: tuple[str, ...]
    choice: int | None


class Found(NamedTuple):
    """What came of it.

    Args:
        loss: Nats, or 0 and 1, see `ServedModel.scores`.
        right: 1 or 0.
        choices: Log-probabilities over the choices in nats, shape `(choices,)`; None where there are none.
    """

    loss: float
    right: float
    choices: Floats | None = None


def score_questions(
    model: ServedModel, questions: Sequence[Question]
) -> list[Found | EndpointError]:
    """Ask all questions; an error where the server does not answer one for good.

    Args:
        model: Behind an endpoint.
        questions: Any number.

    Raises:
        EndpointDown: The server answers nothing any more.
    """
    if model.scores == "errors":
        texts = model.written([(q.text, written_tokens(model, q.answers)) for q in questions])
        return [
            text if isinstance(text, EndpointError) else _wrong(q, text)
            for q, text in zip(questions, texts, strict=True)
        ]
    if model.scores == "first":
        lists = model.listed([q.text for q in questions])
        return [
            each if isinstance(each, EndpointError) else _listed(q, each)
            for q, each in zip(questions, lists, strict=True)
        ]
    answers = iter(model.answered([(q.text, answer) for q in questions for answer in q.answers]))
    return [_probable(q, list(islice(answers, len(q.answers)))) for q in questions]


def written_tokens(model: ServedModel, answers: Sequence[str]) -> int:
    """The most tokens that the model may write to give one of these answers."""
    return 1 if model.scores == "first" else max(map(model.count, answers)) + _SPARE


def _probable(
    question: Question, answers: Sequence[Answered | EndpointError]
) -> Found | EndpointError:
    """Losses as of models that are loaded here, see `promptsearch.scoring.answers`."""
    if error := next((a for a in answers if isinstance(a, EndpointError)), None):
        return error
    known = [a for a in answers if isinstance(a, Answered)]
    if question.choice is None:
        if any(a.greedy is None for a in known):
            return EndpointError(
                "the server does not say which tokens are the most probable: is the answer right?"
            )
        return Found(-known[0].nats, float(any(a.greedy for a in known)))
    choices = log_softmax(np.array([a.nats for a in known]))
    right = choices[question.choice]
    return Found(float(-right), float(right > np.delete(choices, question.choice).max()), choices)


def _listed(question: Question, likely: Likely) -> Found | EndpointError:
    """The same from the most probable tokens: an answer that is none of them is at most as probable as the last of them."""
    best, least = max(likely, key=lambda token: likely[token]), min(likely.values())
    return _probable(
        question,
        [Answered(likely.get(answer, least), answer == best) for answer in question.answers],
    )


def _wrong(question: Question, written: Completion) -> Found:
    """1 where the text that was written is wrong; of choices, the longest one that it begins with counts."""
    said = written.text.strip()
    begun = [i for i, answer in enumerate(question.answers) if _begins(said, answer.strip())]
    if question.choice is not None:
        begun = sorted(begun, key=lambda i: -len(question.answers[i]))[:1]
    right = float((question.choice in begun) if question.choice is not None else bool(begun))
    return Found(1 - right, right)


def _begins(text: str, answer: str) -> bool:
    """Whether a text begins with an answer, whole words of it, in small letters or large."""
    return re.match(re.escape(answer) + r"(?!\w)", text, re.IGNORECASE) is not None


class ServedScorer:
    """Scores prompts on one split, see `promptsearch.scoring.protocol.Scorer`.

    Args:
        model: Behind an endpoint.
        template: Bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None for text answers.

    Raises:
        TemplateError: An answer is empty, one choice is the beginning of another, or the template is one of messages.
        StrategyError: The template is for prompts that are no text.
    """

    def __init__(
        self, model: ServedModel, template: Template, split: Split, choices: Sequence[str] | None
    ) -> None:
        if template.kind != "slots":
            self._closed("prompts that are no text")
        if template.messages:
            raise TemplateError(
                f"the template {template.text!r} is one of messages, but a model behind an endpoint is sent each text as one: "
                "write it as one text. With 'chat: true' beside the endpoint, the server takes that as the message of a user"
            )
        self._model, self._template, self._split, self._choices = model, template, split, choices
        self._answers = [
            tuple(choices) if choices is not None else (example.answer, *example.aliases)
            for example in split.examples
        ]
        self._check_answers()
        writes = model.scores != "nats"
        self._readings = np.array([1 if writes else len(answers) for answers in self._answers])
        self._text = np.array(
            [model.count("".join(template.fill(example.fields))) for example in split.examples]
        )
        self._answer = np.array(
            [
                written_tokens(model, a) if writes else sum(map(model.count, a))
                for a in self._answers
            ]
        )

    @property
    def signature(self) -> str:
        """All that a score depends on besides prompt and example."""
        model, template = self._model, self._template
        words = (
            model.hash,
            model.tokenizer_hash,
            template.text,
            template.length,
            self._split.hash,
            self._choices,
        )
        return repr(("served", _VERSION, *words))

    def length(self, prompt: Prompt) -> int:
        """Tokens that the prompt puts into the slots; a word of a pool is one."""
        if isinstance(prompt, HardPrompt):
            return len(prompt.ids)
        if isinstance(prompt, TextPrompt):
            return sum(map(self._model.count, self._template.slot_texts(prompt.texts)))
        raise PromptError(
            f"a model behind an endpoint takes prompts of text, got a {type(prompt).__name__}"
        )

    def fits(self, prompt: Prompt) -> bool:
        """Always, as far as is known: a prompt that is too long for the server is refused by it, and fails."""
        return True

    def context(self, examples: Ids) -> Ids:
        """Tokens of all requests for one prompt, the prompt's own left out, shape `(examples,)`."""
        found: Ids = self._readings[examples] * self._text[examples] + self._answer[examples]
        return found

    def lead(self, examples: Ids) -> Ids:
        """None: nothing is kept from one request to the next, shape `(examples,)`."""
        return np.zeros(len(examples), dtype=np.int64)

    def readings(self, examples: Ids) -> Ids:
        """Requests for one prompt, each of which sends it, shape `(examples,)`."""
        found: Ids = self._readings[examples]
        return found

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        """All prompts on all examples.

        Args:
            prompts: Hard and text prompts.
            examples: Ids, shape `(examples,)`.

        Returns:
            Losses, in nats or 0 and 1; a prompt of which a request failed for good is a failure.

        Raises:
            EndpointDown: The server answers nothing any more.
        """
        shape = (len(prompts), len(examples))
        losses, metric = np.full(shape, np.nan), np.full(shape, np.nan)
        nats = self._model.scores != "errors"
        choices = (
            np.full((*shape, len(self._choices)), np.nan)
            if self._choices is not None and nats
            else None
        )
        failures: dict[int, str] = {}
        questions: dict[int, list[Question]] = {}
        for i, prompt in enumerate(prompts):
            try:
                questions[i] = [self._question(prompt, int(e)) for e in examples]
            except PromptSearchError as error:
                failures[i] = str(error)
        before = self._model.read
        found = iter(
            score_questions(self._model, [q for asked in questions.values() for q in asked])
        )
        for i, asked in questions.items():
            for column, result in enumerate(list(islice(found, len(asked)))):
                if isinstance(result, EndpointError):
                    failures.setdefault(
                        i, f"{self._split.name} example {examples[column]}: {result}"
                    )
                    continue
                losses[i, column], metric[i, column] = result.loss, result.right
                if choices is not None and result.choices is not None:
                    choices[i, column] = result.choices
        for i in failures:
            losses[i] = metric[i] = np.nan
            if choices is not None:
                choices[i] = np.nan
        return Scores(losses, metric, choices, self._model.read - before, failures)

    def examples(self, ids: Ids) -> list[Example]:
        """The examples themselves."""
        return [self._split.examples[i] for i in ids]

    def demonstrations(self, ids: Ids) -> list[str]:
        """Examples as solved text, see `Template.solved`."""
        return [self._template.solved(e.fields, e.answer) for e in self.examples(ids)]

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._model.encode(text)

    # What a plan asks.

    def check_joints(self, space: PromptSpace) -> None:
        """Nothing: what is sent is text, and so is what is kept of it."""

    def predict(self, prompts: Sequence[Prompt], examples: Ids) -> Prediction:
        """Tokens that would be charged, and requests."""
        each, readings = int(self.context(examples).sum()), int(self._readings[examples].sum())
        tokens = sum(each + readings * self.length(prompt) for prompt in prompts)
        requests = readings * len(prompts)
        return Prediction("nothing", tokens, requests / self._model.parallel, requests)

    def anatomy(self) -> Mapping[str, float]:
        """Tokens of a row by what they belong to, mean over the examples, all requests for it together."""
        return {
            "static": 0.0,
            "input": float((self._readings * self._text).mean()),
            "answer": float(self._answer.mean()),
        }

    def kept_lead(self, example: int) -> Path:
        """Nothing."""
        return ()

    def forget(self) -> None:
        """Nothing is kept."""

    @property
    def kept(self) -> tuple[int, int]:
        """Nothing."""
        return 0, 0

    # What a server does not show.

    @property
    def embeddings(self) -> Tensor:
        """Not shown."""
        self._closed("embeddings")

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """Not shown."""
        self._closed("keys and values")

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """Not shown."""
        self._closed("layers")

    @property
    def weights(self) -> ModelWeights:
        """Not shown."""
        self._closed("weights")

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        """Not shown."""
        self._closed("gradients")

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """Not shown."""
        self._closed("gradients")

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """Not shown."""
        self._closed("keys and values")

    # Private.

    def _closed(self, what: str) -> NoReturn:
        raise StrategyError(
            f"a model behind an endpoint shows no {what}: only strategies that need scores and propose words or texts work on it"
        )

    def _question(self, prompt: Prompt, e: int) -> Question:
        example = self._split.examples[e]
        if not isinstance(prompt, (HardPrompt, TextPrompt)):
            raise PromptError(
                f"a model behind an endpoint takes prompts of text, got a {type(prompt).__name__}"
            )
        text = self._template.render(
            example.fields, prompt_texts(self._template, self._model, prompt), ""
        )
        if not text:
            raise TemplateError(
                f"nothing stands before the answer of {self._split.name} example {e}: expected some text"
            )
        return Question(text, self._answers[e], example.choice)

    def _check_answers(self) -> None:
        for example, answers in zip(self._split.examples, self._answers, strict=True):
            if not all(answers):
                raise TemplateError(
                    f"an answer of {self._split.name} example {example.id} is empty: expected text"
                )
        for one in self._choices or ():
            for other in self._choices or ():
                if one != other and other.startswith(one):
                    raise TemplateError(
                        f"the answer {one!r} is the beginning of {other!r}, which can then never be the more probable one: end "
                        "both, for example with a full stop, or take other answers"
                    )
