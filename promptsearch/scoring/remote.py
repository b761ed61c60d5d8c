"""The scorer of prompts on a split of a task with a model that is served elsewhere.

There is one request for each answer to each text. A request sends its whole text, whatever was sent
before, so the whole text is charged each time: with two choices, twice. What a prompt is charged is
known beforehand, and the same whenever it is scored. It is counted in tokens of the model's
tokenizer where that is at hand; else a text counts a third of its bytes in UTF-8, rounded up, and
each word of a pool counts one. The number of tokens that the server says it read is given as
`computed`. What is asked again within a process is answered from memory.

Nothing is kept from one request to the next, so that no example has a lead here. A text that ends
answers is sent with them. An end token cannot be sent: without such a text, the loss is that of the
answer alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from promptsearch.errors import (
    EndpointError,
    PromptError,
    PromptSearchError,
    StrategyError,
    TemplateError,
)
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds, Generated, Scores, clear_failed
from promptsearch.scoring.answer_ids import (
    answer_texts,
    check_beginnings,
    check_ends,
    check_last,
    solved_texts,
)
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.protocol import Adds
from promptsearch.scoring.questions import Question, score_questions, written_tokens
from promptsearch.scoring.served_answers import write_answers
from promptsearch.scoring.sharing import Prediction
from promptsearch.scoring.tree import Path
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template

#: The kinds of prompts that a served model scores: the same text before every input, and no numbers
#: that correct what comes back.
TAKEN: frozenset[type[Prompt]] = frozenset({HardPrompt, TextPrompt})
#: The version of this scorer, a part of every cache key: raise it when scores may change.
_VERSION = 2


class ServedScorer:
    """A scorer of prompts on one split, see `promptsearch.scoring.protocol.Scorer`.

    Args:
        model: The model, behind an endpoint.
        template: The template, bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: The length by which log-probabilities of answers to choose from are divided.

    Raises:
        TemplateError: An answer is empty or holds what ends an answer, one choice is the beginning
            of another, or the template is one of messages or goes on behind the answer.
        StrategyError: The template is for prompts that are no text.
    """

    adds = Adds  # a prompt its tokens to each request

    def __init__(
        self,
        model: ServedModel,
        template: Template,
        split: Split,
        choices: Sequence[str] | None,
        normalise: Normalise = "none",
    ) -> None:
        if template.fronted:
            raise StrategyError(
                "a model behind an endpoint shows no prompts that are no text: "
                "only strategies that need scores and propose words or texts work on it"
            )
        self.white_box = None  # a server shows nothing but scores
        if template.messages:
            raise TemplateError(
                f"the template {template.text!r} is one of messages, but a model behind an "
                "endpoint is sent each text as one: write it as one text. With 'chat: true' beside "
                "the endpoint, the server takes that as the message of a user"
            )
        self._model, self._template, self._split, self._choices = model, template, split, choices
        self._normalise = normalise
        check_last(template, f"'{model.name}' behind its endpoint")
        check_ends(template, split, choices)
        self._answers = [answer_texts(template, example, choices) for example in split.examples]
        by_row = any(example.options is not None for example in split.examples)
        to_choose = choices is not None or by_row
        self._options = max(map(len, self._answers)) if to_choose else 0
        self._check_answers()
        writes = model.scores != "nats"
        self._readings = np.array([1 if writes else len(answers) for answers in self._answers])
        self._text = np.array(
            [model.count("".join(template.fill(example.fields))) for example in split.examples]
        )
        self._answer = np.array(
            [
                written_tokens(model, a) if writes else sum(map(model.count_answer, a))
                for a in self._answers
            ]
        )

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example."""
        model, template = self._model, self._template
        words = (
            model.hash,
            model.tokenizer_hash,
            template.text,
            template.length,
            self._split.hash,
            self._choices,
            *(() if self._normalise == "none" else (self._normalise,)),
            *(() if self._options else ("end", template.end)),
        )
        return repr(("served", _VERSION, *words))

    def length(self, prompt: Prompt) -> int:
        """The prompt's length in tokens; a word of a pool counts one."""
        _check_taken(prompt)
        if prompt.length is not None:
            return prompt.length
        texts = prompt_texts(self._template, self._model, prompt)
        return sum(map(self._model.count, texts))

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model can read every example with this prompt: always, as far as is known.

        A prompt that is too long for the server is refused by it, and fails.
        """
        return True

    def context(self, examples: ExampleIds) -> ExampleIds:
        """The number of tokens of each example's requests, without the prompt's own.

        Args:
            examples: ExampleIds, shape `(examples,)`.

        Returns:
            Shape `(examples,)`.
        """
        found: ExampleIds = self._readings[examples] * self._text[examples] + self._answer[examples]
        return found

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """The number 0 for each example, shape `(examples,)`: requests share nothing."""
        return np.zeros(len(examples), dtype=np.int64)

    def tail(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens in a request that is to be answered.

        They are without the prompt's own tokens, shape `(examples,)`.
        """
        found: ExampleIds = self._text[examples]
        return found

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's requests, which all send the prompt, shape `(examples,)`."""
        found: ExampleIds = self._readings[examples]
        return found

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """The scores of all prompts on all examples.

        Args:
            prompts: Hard and text prompts.
            examples: ExampleIds, shape `(examples,)`.

        Returns:
            Losses, in nats or as 0 and 1; a prompt is a failure if one of its requests finally
            failed.

        Raises:
            EndpointDown: The server answers nothing any more.
        """
        shape = (len(prompts), len(examples))
        losses, metric = np.full(shape, np.nan), np.full(shape, np.nan)
        nats = self._model.scores != "errors"
        choices = np.full((*shape, self._options), np.nan) if self._options and nats else None
        failures: dict[int, str] = {}
        questions: dict[int, list[Question]] = {}
        for i, prompt in enumerate(prompts):
            try:
                questions[i] = [self._question(prompt, int(e)) for e in examples]
            except PromptSearchError as error:
                failures[i] = str(error)
        before = self._model.read
        every = [question for asked in questions.values() for question in asked]
        found = iter(score_questions(self._model, every))
        for i, asked in questions.items():
            for column, result in enumerate(list(islice(found, len(asked)))):
                if isinstance(result, EndpointError):
                    failures.setdefault(
                        i, f"{self._split.name} example {examples[column]}: {result}"
                    )
                    continue
                losses[i, column], metric[i, column] = result.loss, result.right
                if choices is not None and result.choices is not None:
                    choices[i, column, : len(result.choices)] = result.choices
        clear_failed(failures, losses, metric, choices)
        return Scores(losses, metric, choices, self._model.read - before, failures)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The answers that the server writes, with a request for each.

        Args:
            prompts: Hard and text prompts.
            examples: ExampleIds, shape `(examples,)`.
            decoding: The way in which answers are generated, without beams.

        Raises:
            StrategyError: The server would have to search with beams.
            EndpointDown: The server answers nothing any more.
        """
        failures: dict[int, str] = {}
        texts: dict[int, list[str]] = {}
        for i, prompt in enumerate(prompts):
            try:
                texts[i] = [self._question(prompt, int(e)).text for e in examples]
            except PromptSearchError as error:
                failures[i] = str(error)
        names = [f"{self._split.name} example {e}" for e in examples]
        end = self._template.end
        return write_answers(self._model, texts, names, decoding, stop=end, failures=failures)

    def examples(self, ids: ExampleIds) -> list[Example]:
        """The examples themselves."""
        return [self._split.examples[i] for i in ids]

    def demonstrations(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> list[str]:
        """Examples as solved text, see `Template.solved`."""
        return solved_texts(self._template, self.examples(ids), answers)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._model.encode(text)

    # What the bill beforehand asks.

    def check_joints(self, space: PromptSpace) -> None:
        """Check nothing: what is sent is text, and so is what a run keeps of it."""

    def predict(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Prediction:
        """The tokens that would be charged, and the number of requests."""
        each, readings = int(self.context(examples).sum()), int(self._readings[examples].sum())
        tokens = sum(each + readings * self.length(prompt) for prompt in prompts)
        requests = readings * len(prompts)
        return Prediction("nothing", tokens, requests / self._model.parallel, requests)

    def dearest(self, *, generates: bool) -> float:
        """The most that a charged token costs in money: the mean over an example's requests.

        `generates` says whether answers are generated, too.
        """
        price = self._model.endpoint.price
        if price is None:
            return 0.0
        if self._model.scores == "nats":
            # Each request for an echo writes a token, which is not charged.
            written, read = self._readings, self._readings * self._text + self._answer
            charged = read
        else:
            written, read = self._answer, self._readings * self._text
            charged = read + written
        # The tokens of a prompt are read, so that they bring the mean nearer to that price.
        mean = float(((read * price.read + written * price.written) / charged).max())
        return max(mean, price.read, price.written if generates else 0.0)

    def anatomy(self) -> Mapping[str, float]:
        """The tokens of a row by what they belong to, mean over the examples.

        All requests for the row count together.
        """
        return {
            "static": 0.0,
            "input": float((self._readings * self._text).mean()),
            "answer": float(self._answer.mean()),
        }

    def kept_lead(self, example: int) -> Path:
        """No ids: nothing is kept from call to call."""
        return ()

    def forget(self) -> None:
        """Do nothing, because nothing is kept."""

    @property
    def kept(self) -> tuple[int, int]:
        """The numbers 0 and 0: nothing is kept from call to call."""
        return 0, 0

    # Private.

    def _question(self, prompt: Prompt, e: int) -> Question:
        example = self._split.examples[e]
        _check_taken(prompt)
        text = self._template.render(
            example.fields, prompt_texts(self._template, self._model, prompt), ""
        )
        if not text:
            raise TemplateError(
                f"nothing stands before the answer of {self._split.name} example {e}: "
                "expected some text"
            )
        return Question.about(
            text, example, self._template, self._choices, self._normalise, self._model
        )

    def _check_answers(self) -> None:
        for example, answers in zip(self._split.examples, self._answers, strict=True):
            place = f" of {self._split.name} example {example.id}"
            if not all(answers) or not all(example.references):
                raise TemplateError(f"an answer{place} is empty: expected text")
            if self._options and self._normalise == "none":
                texts = {answer: answer for answer in answers}
                check_beginnings(texts, place if self._choices is None else "")


def _check_taken(prompt: Prompt) -> None:
    """Refuse a prompt whose kind is not one of `TAKEN`.

    Raises:
        PromptError: It is such a prompt.
    """
    if (kind := type(prompt)) not in TAKEN:
        raise PromptError(
            f"a model behind an endpoint takes HardPrompt or TextPrompt, got a {kind.__name__}"
        )
