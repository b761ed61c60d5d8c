"""Questions to a server, and the losses that its answers mean.

There is one request for each answer to each text, or one for all where the server writes or lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from promptsearch.errors import EndpointError
from promptsearch.models.endpoint import Completion, Place, Unfinished
from promptsearch.models.remote import AnswerNats, ServedModel
from promptsearch.records.scores import Floats
from promptsearch.scoring.answer_ids import answer_texts, options_of
from promptsearch.scoring.listed import loss_range, range_of
from promptsearch.tasks.normalise import Normalise, answer_lengths
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

#: The number of tokens that a model may write beyond those of the longest answer.
_SPARE = 3


class Question(NamedTuple):
    """A text to be answered.

    Args:
        text: The text up to the answer.
        answers: The answers to choose from; or each right answer, with the text that ends it.
        choice: The right choice's place among the choices; None for text answers.
        lengths: The numbers by which the answers' log-probabilities are divided; empty: by none.
        end: The text that ends the answers; empty where none does, since an end token cannot be
            sent to a server.
    """

    text: str
    answers: tuple[str, ...]
    choice: int | None
    lengths: tuple[int, ...] = ()
    end: str = ""

    @staticmethod
    def about(
        text: str,
        example: Example,
        template: Template,
        choices: Sequence[str] | None,
        normalise: Normalise,
        model: ServedModel,
    ) -> Question:
        """The question that an example asks.

        Args:
            text: The text up to the answer.
            example: The example.
            template: The template, which may have a text that ends answers.
            choices: The task's choices; None where they differ by row, and for text answers.
            normalise: The length by which log-probabilities of answers to choose from are divided.
            model: The model, which counts tokens.
        """
        answers = answer_texts(template, example, choices)
        if options_of(example, choices) is None:
            return Question(text, answers, None, end=template.end)
        lengths = answer_lengths(normalise, template, answers, model.count_answer)
        return Question(text, answers, example.choice, tuple(lengths))


class Found(NamedTuple):
    """The result of a question.

    Args:
        loss: The loss in nats, or as 0 or 1, see `ServedModel.scores`.
        right: Whether the answer is right, 1 or 0.
        choices: The log-probabilities over the choices in nats, shape `(choices,)`; None where
            there are none.
        bounds: The lowest and the highest loss that fit what the server listed, in nats; None
            where the loss is no bound.
    """

    loss: float
    right: float
    choices: Floats | None = None
    bounds: tuple[float, float] | None = None


def score_questions(
    model: ServedModel, questions: Sequence[Question]
) -> list[Found | EndpointError]:
    """Ask all questions.

    Args:
        model: The model, behind an endpoint.
        questions: Any number of questions.

    Returns:
        The result of each question, or an error where the server finally did not answer it.

    Raises:
        EndpointDown: The server answers nothing any more.
    """
    if model.scores == "errors":
        texts = model.written(
            [Unfinished(q.text, written_tokens(model, q.answers)) for q in questions]
        )
        return [
            text if isinstance(text, EndpointError) else _wrong(model, q, text)
            for q, text in zip(questions, texts, strict=True)
        ]
    if model.scores == "first":
        lists = model.listed(
            [Unfinished(q.text, written_tokens(model, q.answers)) for q in questions]
        )
        return [
            each if isinstance(each, EndpointError) else _listed(model, q, each)
            for q, each in zip(questions, lists, strict=True)
        ]
    answers = iter(model.answered([(q.text, answer) for q in questions for answer in q.answers]))
    return [_probable(q, list(islice(answers, len(q.answers)))) for q in questions]


def written_tokens(model: ServedModel, answers: Sequence[str]) -> int:
    """The most tokens that the model may write to give one of these answers."""
    longest = max(map(model.count_answer, answers))
    return longest if model.scores == "first" else longest + _SPARE


def _probable(
    question: Question, answers: Sequence[AnswerNats | EndpointError]
) -> Found | EndpointError:
    """The result by the answers' log-probabilities.

    The loss is that of models that are loaded here, see `promptsearch.scoring.answers`.

    Args:
        question: The question.
        answers: What the server says of each of the question's answers.
    """
    if error := next((a for a in answers if isinstance(a, EndpointError)), None):
        return error
    known = [a for a in answers if isinstance(a, AnswerNats)]
    nats = np.array([a.nats for a in known])
    if question.choice is None:
        if any(a.greedy is None for a in known):
            return EndpointError(
                "the server does not say which tokens are the most probable: is the answer right?"
            )
        return Found(-float(nats.mean()), float(any(a.greedy for a in known)))
    choices = log_softmax(nats / np.array(question.lengths) if question.lengths else nats)
    right = choices[question.choice]
    return Found(float(-right), float(right > np.delete(choices, question.choice).max()), choices)


def _listed(
    model: ServedModel, question: Question, places: Sequence[Place]
) -> Found | EndpointError:
    """The result by lists of the most probable tokens, see `promptsearch.scoring.listed`.

    Args:
        model: The model.
        question: The question.
        places: What the model wrote, with the most probable tokens at each place.
    """
    ranges = [
        range_of(answer, places, model.cut, anew=model.endpoint.chat) for answer in question.answers
    ]
    found = _probable(question, [AnswerNats(each.highest, each.written) for each in ranges])
    if question.choice is None or isinstance(found, EndpointError):
        return found
    lengths = question.lengths or (1,) * len(ranges)
    by = [each.over(length) for each, length in zip(ranges, lengths, strict=True)]
    return found._replace(bounds=loss_range(by, question.choice))


def _wrong(model: ServedModel, question: Question, written: Completion) -> Found:
    """The result by the text that was written: the loss is 1 where it is wrong, else 0.

    Among choices, the longest one that the text begins with counts.

    Args:
        model: The model.
        question: The question.
        written: What the model wrote. Where the server ended it, the answer ends there as well as
            before the text that ends answers.
    """
    said = written.text.lstrip()
    if written.came_to_end(written_tokens(model, question.answers)):
        said += question.end
    gives = _ends if question.end else _begins
    begun = [i for i, answer in enumerate(question.answers) if gives(said, answer.lstrip())]
    if question.choice is not None:
        begun = sorted(begun, key=lambda i: -len(question.answers[i]))[:1]
    right = float((question.choice in begun) if question.choice is not None else bool(begun))
    return Found(1 - right, right)


def _begins(text: str, answer: str) -> bool:
    """Whether a text begins with an answer, in whole words, in small letters or large."""
    return re.match(re.escape(answer.rstrip()) + r"(?!\w)", text, re.IGNORECASE) is not None


def _ends(text: str, answer: str) -> bool:
    """Whether a text is an answer up to its end, in small letters or large."""
    return text.casefold().startswith(answer.casefold())
