"""What stands in for the LM and the proposer while a run is rehearsed.

It answers with drawn losses and words, and adds up what the real ones would take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from string import ascii_letters

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from promptsearch.models.endpoint import Completion
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers, length_of, tensors_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Fare
from promptsearch.records.scores import ExampleIds, Floats, Generated, Scores
from promptsearch.scoring.answer_ids import options_of
from promptsearch.scoring.protocol import Blank, WhiteBox, price_of, price_of_generation
from promptsearch.search.proposer import Proposing, RemoteProposing
from promptsearch.study.calibration import Calibration
from promptsearch.study.run import Run
from promptsearch.study.stand_in_teaching import StandInTeaching
from promptsearch.tasks.decoding import Decoding


class StandInScorer:
    """Answers in place of the engine, and adds up what the engine would take.

    Args:
        run: The run that is rehearsed.
        calibration: The speeds and losses of its arena.
        seen: What stands before the prompt of examples that were met, in this run or an earlier
            one; grows.

    Attributes:
        seconds: The seconds that the engine would take.
        requests: The requests that would go to an endpoint.
        asked: Seconds spent in here.
    """

    def __init__(self, run: Run, calibration: Calibration, seen: set[tuple[int, ...]]) -> None:
        engine, split = run.arena.searching, run.arena.task.splits["search"]
        self._engine = engine
        self._trains = run.strategy.access.trains
        self._calibration = calibration
        self._examples = np.resize(calibration.examples, len(split))
        self._right = [example.choice for example in split.examples]
        # The numbers of answers to choose from, shape (examples,); 0 for text answers.
        self._choices = [
            len(options_of(example, run.arena.task.choices) or ()) for example in split.examples
        ]
        self._seen = seen
        self._steps = 0
        self.signature = "a rehearsal"
        # What is known without a pass through the LM is the engine's own.
        self.length, self.context, self.lead = engine.length, engine.context, engine.lead
        self.readings, self.fits, self.tail = engine.readings, engine.fits, engine.tail
        self.adds = engine.adds
        self.examples, self.encode = engine.examples, engine.encode
        self.demonstrations = engine.demonstrations
        self.seconds = self.asked = 0.0
        self.requests = 0

    @property
    def white_box(self) -> StandInWhiteBox | None:
        """The inside of the LM, where the engine has one; its losses are drawn, too."""
        known = self._engine.white_box
        return None if known is None else StandInWhiteBox(self, known)

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """Drawn losses in nats, and the price and time that the engine predicts for the call."""
        begin = time.perf_counter()
        failures = self._too_long(prompts)
        losses = np.stack([self._losses(prompt) for prompt in prompts])[:, examples]
        losses[list(failures)] = np.nan
        computed = 0
        if good := [prompt for i, prompt in enumerate(prompts) if i not in failures]:
            prediction = self._engine.predict(good, examples)
            self.requests += prediction.requests
            first = self._first(examples) if prediction.sharing == "input" else 0
            self.seconds += self._calibration.search.seconds(prediction.cost + first)
            computed = prediction.tokens + first
        self.asked += time.perf_counter() - begin
        metric = np.where(np.isnan(losses), np.nan, losses < np.log(2))
        return Scores(losses, metric, self._table(losses, examples), computed, failures)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The right answers where the drawn losses are low, and all tokens that may be generated.

        A token that is generated is taken to cost as much as one that is read.
        """
        begin = time.perf_counter()
        failures = self._too_long(prompts)
        right = [example.answer for example in self._engine.examples(examples)]
        texts: list[list[tuple[str, ...]]] = [[()] * len(examples) for _ in prompts]
        ended: list[list[tuple[bool, ...]]] = [[()] * len(examples) for _ in prompts]
        tokens = np.zeros((len(prompts), len(examples)), dtype=np.int64)
        computed = 0
        for i, prompt in enumerate(prompts):
            if i in failures:
                continue
            hits = self._losses(prompt)[examples] < np.log(2)
            texts[i] = [
                (text if hit else "",) * decoding.samples
                for text, hit in zip(right, hits, strict=True)
            ]
            ended[i] = [(bool(hit),) * decoding.samples for hit in hits]
            tokens[i] = decoding.most
            computed += price_of_generation(self, self.length(prompt), examples, decoding.most)
        good = [prompt for i, prompt in enumerate(prompts) if i not in failures]
        if good and (asked := self._engine.predict(good, examples)).requests:
            self.requests += asked.requests * decoding.samples
            self.seconds += self._calibration.search.seconds(asked.cost * decoding.samples)
        else:
            self.take(computed)
        self.asked += time.perf_counter() - begin
        return Generated(texts, ended, tokens, computed, failures)

    def step(
        self, numbers: Numbers, examples: ExampleIds, context: float, passes: tuple[float, float]
    ) -> Tensor:
        """What stands in for the loss of a step of training, shape `()`, with some gradient.

        Args:
            numbers: The numbers of the prompt that is trained.
            examples: Ids, shape `(examples,)`.
            context: The tokens of all these examples behind their leads, in this step.
            passes: What the loss and its gradient cost, in forward passes.
        """
        begin = time.perf_counter()
        tokens = context + len(examples) * self.adds(length_of(numbers)).tokens
        speed = self._calibration.training
        assert speed is not None  # only strategies that train are handed a white box
        work = sum(passes) * tokens
        self.seconds += speed.seconds(work) + self._calibration.search.token * self._first(examples)
        self._steps += 1
        mean = float(self._examples[examples].mean())
        self.asked += time.perf_counter() - begin
        # Some gradient: what stands still would be scored once.
        height = torch.stack([tensor.square().mean() for tensor in tensors_of(numbers)]).sum()
        return height - height.detach() + mean

    @property
    def choices(self) -> int:
        """The largest number of answers to choose from; 0 for text answers."""
        return max(self._choices)

    def take(self, tokens: int) -> None:
        """Add the time of so many tokens that are read or written, which cost the same."""
        self.seconds += self._calibration.search.seconds(tokens)

    def _too_long(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """The places of prompts that the model cannot read, each with the reason."""
        reason = "it is too long for the model"
        return {i: reason for i, prompt in enumerate(prompts) if not self.fits(prompt)}

    def _first(self, examples: ExampleIds) -> int:
        """Tokens that are kept from now on."""
        fresh = {lead for e in examples if (lead := self._engine.kept_lead(int(e)))} - self._seen
        self._seen.update(fresh)
        return sum(map(len, fresh))

    def _table(self, losses: Floats, examples: ExampleIds) -> Floats | None:
        """Log-probabilities over the choices; None for text answers.

        The wrong choices share the probability that the right one leaves.
        """
        if not (most := self.choices):
            return None
        left = np.maximum(1e-9, -np.expm1(-np.maximum(losses, 1e-9)))
        table = np.full((*losses.shape, most), np.nan)
        for column, example in enumerate(examples):
            count = self._choices[example]
            rest = np.log(left[:, column] / max(1, count - 1))
            table[:, column, :count] = rest[:, None]
            table[:, column, self._right[example]] = -losses[:, column]
        return table

    def _losses(self, prompt: Prompt) -> Floats:
        """The losses of a prompt on all examples; a hard prompt has the same ones each time.

        The losses of a trained prompt fall with each step of training, if it is any good.
        """
        rng = np.random.default_rng(int(prompt.key, 16))
        calibration = self._calibration
        if prompt.trained and self._trains:
            return self._examples * (1 + 1 / (1 + self._steps))
        mean = rng.normal(0, calibration.means.std(ddof=1))
        drawn = self._examples + mean + rng.normal(0, calibration.residual, len(self._examples))
        losses: Floats = np.maximum(1e-6, drawn)
        return losses


class StandInWhiteBox:
    """The inside of the LM, but for the losses: those come from the stand-in.

    Args:
        standin: The run's stand-in.
        known: The white box that it stands for.
    """

    def __init__(self, standin: StandInScorer, known: WhiteBox) -> None:
        self._standin, self._known = standin, known
        self.passes, self.keys_values = known.passes, known.keys_values
        self.step_context = known.step_context

    def content_free(self, text: str) -> StandInBlank:
        """What stands in for an input without content."""
        return StandInBlank(self._standin, self._known.content_free(text), text)

    @property
    def teaching(self) -> StandInTeaching:
        """What stands in for a prompt that teaches."""
        return StandInTeaching(self._known.teaching, self._standin.take, self.loss)

    @property
    def embeddings(self) -> Tensor:
        """The LM's own, shape `(vocabulary, width)`."""
        return self._known.embeddings

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape of one token of a prefix."""
        return self._known.prefix_shape

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have."""
        return self._known.prefix_layers

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The number of layers, heads and the width that gated prompts have."""
        return self._known.gated_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's own weights."""
        return self._known.weights

    def word_logits(self, prompt: Prompt, examples: ExampleIds) -> tuple[tuple[str, ...], Tensor]:
        """Drawn logits of letters, which take the time of scoring the prompt on these examples."""
        self._standin.take(price_of(self._standin, self._standin.length(prompt), examples))
        rng = np.random.default_rng(int(prompt.key, 16))
        words = tuple(f" {letter}" for letter in ascii_letters)
        return words, torch.from_numpy(rng.normal(size=(len(examples), len(words)))).float()

    def states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Drawn states, which take the time of reading the rows."""
        self._standin.take(sum(len(row) + 1 for row in rows))
        width = self.embeddings.shape[1]
        drawn = [np.random.default_rng([1, *row]).normal(size=width) for row in rows]
        return torch.from_numpy(np.stack(drawn)).float()

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int = 0) -> Tensor:
        """The mean loss of these examples, with some gradient in the numbers."""
        context = float(self.step_context(examples, visit).sum())
        return self._standin.step(numbers, examples, context, self.passes(numbers))


class StandInBlank:
    """An input without content, answered with drawn numbers: others below each prompt.

    Args:
        standin: The run's stand-in.
        known: The input that it stands for.
        text: What its fields hold.
    """

    def __init__(self, standin: StandInScorer, known: Blank, text: str) -> None:
        self._standin, self.price, self._text = standin, known.price, text

    def read(self, prompt: Prompt) -> tuple[Floats, int]:
        """Log-probabilities over the choices, and what reading them takes."""
        tokens = self.price(prompt)
        self._standin.take(tokens)
        rng = np.random.default_rng([int(prompt.key, 16), *self._text.encode()])
        nats: Floats = log_softmax(rng.normal(size=self._standin.choices))
        return nats, tokens


class StandInProposing:
    """Writes words of the pool in place of a proposer, and adds up what a local one would take.

    Args:
        scorer: What stands in for the run's engine, and keeps the sums.
        fare: What the tokens of the proposer cost.
        proposing: The proposer that it stands for, which knows what requests cost.
        space: The space that has the pool.
    """

    #: Words of an answer: an instruction of one line.
    WORDS = 12

    def __init__(
        self, scorer: StandInScorer, fare: Fare, proposing: Proposing, space: PromptSpace
    ) -> None:
        self._scorer, self._fare, self._proposing, self._space = scorer, fare, proposing, space

    def most(self, request: str) -> int:
        """The tokens that a request costs, as the real proposer counts them."""
        return self._proposing.most(request)

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        """A line of words of the pool for each request."""
        completions = []
        for request, seed in zip(requests, seeds, strict=True):
            rng = np.random.default_rng(seed)
            ids = rng.choice(self._space.pool, size=min(self.WORDS, max_tokens - 1))
            text = self._space.decode(ids.tolist()).strip()
            completions.append(Completion(text, self.most(request), len(ids) + 1))
        if isinstance(self._proposing, RemoteProposing):
            self._scorer.requests += len(completions)  # how long they take is not known
        else:
            read = sum(each.tokens_in for each in completions)
            self._scorer.take(self._fare.of(read, sum(each.tokens_out for each in completions)))
        return completions
