"""Planted objectives: no LM, and a best prompt that is known.

A prompt's loss on an example is `offset + scale * landscape`. Offset and scale (nats) belong to the
example; the landscape (a number of nats, 0 at the planted prompt and above 0 elsewhere) depends on
the prompt's vectors. A hard prompt stands for the embeddings of its tokens, a prefix for the mean
of its keys and values over layers, a gated prompt for that of its vectors times their gates,
changed weights for the sum of their numbers, laid in a prompt's shape layer over layer, vectors
beside these for both together: so all of them walk on the same landscape, its gradient leads to the
planted prompt's vectors, and tokens that are near each other in the embeddings have similar losses.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import StrategyError
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.scores import ExampleIds, Floats, Generated, Scores
from promptsearch.scoring.kinds import passes_of
from promptsearch.scoring.protocol import Adds, Blank
from promptsearch.search.objective import Objective
from promptsearch.search.proposer import Proposing
from promptsearch.tasks.answered import Reader
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.metrics.accuracy import Accuracy
from promptsearch.tasks.task import Example
from promptsearch.testing.landscape import (
    DEVIATION,
    Kind,
    Landscape,
    letters,
    planted_states,
    planted_vectors,
    planted_weights,
)
from promptsearch.testing.proposing import PlantedProposing
from promptsearch.testing.teaching import PlantedTeaching

#: The width of the embeddings.
_WIDTH = 8
#: The answers of the examples, in turns.
_ANSWERS = (" yes", " no")


class PlantedScorer:
    """Scores prompts by their distance from a planted one; what `Objective` needs instead of an LM.

    Args:
        kind: The kind of landscape, see `promptsearch.testing.landscape.Landscape`.
        seed: Chooses embeddings, pool, planted prompt and examples.
        pool: Tokens in the pool.
        length: Tokens in a prompt.
        examples: Examples in the search split; the first half is `score_on`.
        noise: Nats by which a hard or text prompt is worse on each example, at random, fixed for
            prompt and example; never on the planted prompt, which stays the best.
        failing: Share of prompts, fixed at random, that fail; never the planted one.

    Attributes:
        landscape: The height of each prompt; a test may put another one in its place.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        seed: int = 0,
        pool: int = 100,
        length: int = 4,
        examples: int = 32,
        noise: float = 0.0,
        failing: float = 0.0,
    ) -> None:
        rng = np.random.default_rng([seed, 1])  # not the stream of a strategy with the same seed
        # Pool indices and token ids differ, so that a strategy that mixes them up is found.
        vocabulary = 2 * pool + 8
        self.signature = f"planted {kind} {seed} {pool} {length} {examples} {noise} {failing}"
        self.space = PromptSpace(
            rng.permutation(vocabulary)[:pool],
            length,
            lambda ids: " ".join(f"w{i}" for i in ids),
            embeddings=lambda: self._embeddings,
        )
        self.scored, self.training = np.split(np.arange(examples), [examples // 2])
        self._noise, self._failing, self._seed = noise, failing, seed
        self._embeddings = torch.from_numpy(rng.normal(0, DEVIATION, (vocabulary, _WIDTH))).float()
        self._weights = planted_weights(seed, _WIDTH)
        self.offsets: Floats = rng.uniform(0.1, 0.5, examples)  # (examples,), nats
        self.scales: Floats = rng.uniform(0.5, 1.5, examples)  # (examples,)
        #: The best of all prompts.
        self.optimum: HardPrompt = self.space.prompt(rng.integers(pool, size=length))
        # At each position another token than the planted one.
        far = (self.space.indices(self.optimum) + rng.integers(1, max(2, pool), size=length)) % pool
        rows = map(self._rows, (self.optimum, self.space.prompt(far)))
        self.landscape = Landscape(kind, *rows)

    @property
    def optimum_value(self) -> float:
        """The planted prompt's mean loss over `score_on`, in nats."""
        return float(self.offsets[self.scored].mean())

    def objective(
        self, budget: int | None = None, *, proposing: Proposing | None = None, **more: Any
    ) -> Objective:
        """A fresh objective on these examples.

        Args:
            budget: LM tokens; None for no limit.
            proposing: What proposes; left out: `PlantedProposing`.
            more: What else `Books` takes: log, cache, reserve, finalists, white_box, reader.
        """
        return Objective(
            self,
            self.space,
            Ledger(budget),
            scored=self.scored,
            training=self.training,
            proposing=proposing or PlantedProposing(self.space),
            **{"reader": Reader(_ANSWERS, Accuracy()), **more},
        )

    def budget(self, evaluations: int) -> int:
        """The budget that buys this many evaluations of hard prompts on all of `score_on`."""
        each = int(self.context(self.scored).sum()) + len(self.scored) * self.space.length
        return int(self.lead(self.scored).sum()) + evaluations * each

    # What Objective asks of a scorer.

    adds = Adds  # every prompt its tokens
    teaching = property(PlantedTeaching)  # prompts of words teach by what they lose

    @property
    def white_box(self) -> PlantedScorer:
        """The landscape itself: it has gradients."""
        return self

    def length(self, prompt: Prompt) -> int:
        """Tokens of a prompt: its ids, words or vectors."""
        return len(self._ids(prompt)) if prompt.length is None else prompt.length

    def fits(self, prompt: Prompt) -> bool:
        """Always."""
        return True

    def context(self, examples: ExampleIds) -> ExampleIds:
        """Five to eleven tokens an example, shape `(examples,)`."""
        return 5 + examples % 7

    def tail(self, examples: ExampleIds) -> ExampleIds:
        """All of these but an answer of one token, shape `(examples,)`."""
        return self.context(examples) - 1

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """Once each, shape `(examples,)`."""
        return np.ones(len(examples), dtype=np.int64)

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """Two to four tokens an example, shape `(examples,)`."""
        return 2 + examples % 3

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """All prompts on all examples; right is what has a lower loss than a guess between two."""
        heights = self.landscape(
            torch.stack([self._rows(p) for p in prompts]).double()
        ).numpy()  # (prompts,)
        losses = self.offsets[examples] + self.scales[examples] * heights[:, None]
        losses += np.stack([self._worse(p)[examples] for p in prompts])
        failures = {i: "a planted failure" for i, p in enumerate(prompts) if self._fails(p)}
        losses[list(failures)] = np.nan
        metric = np.where(np.isnan(losses), np.nan, losses < np.log(2))
        each = int(self.context(examples).sum())
        tokens = sum(each + len(examples) * self.length(p) for p in prompts)
        return Scores(losses, metric, None, tokens, failures)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The right answer where `score` says so, else the other one, each of one token."""
        scores, drawn = self.score(prompts, examples), decoding.samples
        right = [example.answer for example in self.examples(examples)]
        texts = [
            [((text if hit else _ANSWERS[text == _ANSWERS[0]]),) * drawn for text, hit in each]
            for each in (zip(right, row, strict=True) for row in scores.metric == 1)
        ]
        ended = [[(decoding.tokens > 1,) * drawn] * len(examples) for _ in prompts]
        tokens = np.full(scores.metric.shape, min(2, decoding.tokens) * drawn * decoding.beams)
        for i in scores.failures:
            texts[i], ended[i] = [()] * len(examples), [()] * len(examples)
            tokens[i] = 0
        return Generated(texts, ended, tokens, scores.computed, scores.failures)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int = 0) -> Tensor:
        """The mean loss of a trained prompt, shape `()`, the same as `score` gives it."""
        vectors = planted_vectors(numbers, self.space.length, _WIDTH)
        height = self.landscape(vectors.double()[None])[0]
        mean = height * float(self.scales[examples].mean()) + float(self.offsets[examples].mean())
        return mean.to(vectors.dtype)

    def step_context(self, examples: ExampleIds, visit: int | None = None) -> Floats:
        """As `context`: each example has one right answer."""
        return self.context(examples).astype(np.float64)

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """What a loss and its gradient cost, as they do with an LM of these sizes."""
        return passes_of(numbers, self)

    def content_free(self, text: str) -> Blank:
        """There is none: a landscape reads no inputs."""
        raise StrategyError("a planted landscape reads no inputs, so that none can be left out")

    def word_logits(self, prompt: Prompt, examples: ExampleIds) -> tuple[tuple[str, ...], Tensor]:
        """Letters that tell yes from no; which of them answer makes no difference to losses."""
        return letters(examples)

    def examples(self, ids: ExampleIds) -> list[Example]:
        """Examples with one field, `text`, and the answer yes or no."""
        return [
            Example(int(i), {"text": f"the example number {i}"}, _ANSWERS[i % 2], int(i % 2))
            for i in ids
        ]

    def demonstrations(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> list[str]:
        """The examples' texts with their answers."""
        found = self.examples(ids)
        answers = answers or [example.answer for example in found]
        return [e.fields["text"] + answer for e, answer in zip(found, answers, strict=True)]

    def encode(self, text: str) -> list[int]:
        """One token a word: `w17` is token 17, any other word the token of its checksum."""
        known = self._tokens
        return [known.get(word, zlib.crc32(word.encode()) % len(known)) for word in text.split()]

    def states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """See `planted_states`."""
        return planted_states(self._embeddings, rows)

    @property
    def embeddings(self) -> Tensor:
        """The embeddings of all tokens, shape `(vocabulary, width)`."""
        return self._embeddings

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """Two layers, keys and values, one head."""
        return 2, 2, 1, _WIDTH

    prefix_layers = (2, 1)

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """Two layers and two heads."""
        return 2, 2, _WIDTH

    @property
    def weights(self) -> ModelWeights:
        """Those of two layers that are never computed."""
        return self._weights

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """The tokens' embeddings, for both layers: a prefix of words is worth what they are."""
        return self._embeddings[list(ids)].view(-1, 1, 1, 1, _WIDTH).repeat(1, 2, 2, 1, 1)

    # Private.

    @cached_property
    def _tokens(self) -> dict[str, int]:
        """The token of each word that names one."""
        return {f"w{i}": i for i in range(len(self._embeddings))}

    def _rows(self, prompt: Prompt) -> Tensor:
        """The vectors for which a prompt stands, shape `(length, width)`.

        A text is cut, or filled up with zeros.
        """
        if (numbers := prompt.as_numbers) is not None:
            return planted_vectors(numbers, self.space.length, _WIDTH)
        ids = self._ids(prompt)[: self.space.length]
        rows = torch.zeros(self.space.length, self._embeddings.shape[1])
        rows[: len(ids)] = self._embeddings[list(ids)]
        return rows

    def _ids(self, prompt: Prompt) -> Sequence[int]:
        """The tokens of a prompt of words."""
        if isinstance(words := getattr(prompt, "words", prompt), HardPrompt):
            return words.ids
        (text,) = TextPrompt.among([words])
        return self.encode(" ".join(text.texts))

    def _worse(self, prompt: Prompt) -> Floats:
        """The noise on each example of the split, in nats, shape `(examples,)`."""
        if not self._noise or prompt.trained or prompt == self.optimum:
            return np.zeros(len(self.offsets))
        rng = np.random.default_rng([self._seed, int(prompt.key, 16)])
        return self._noise * np.abs(rng.normal(size=len(self.offsets)))

    def _fails(self, prompt: Prompt) -> bool:
        return prompt != self.optimum and int(prompt.key[:8], 16) < self._failing * 16**8


def planted_objective(
    kind: Kind = "separable",
    *,
    seed: int = 0,
    pool: int = 100,
    length: int = 4,
    budget: int | None = 40_000,
    folder: Path | None = None,
    noise: float = 0.0,
    failing: float = 0.0,
) -> Objective:
    """An objective whose best prompt `PlantedScorer`, made with the same arguments, knows.

    Args:
        kind: The kind of landscape, see `PlantedScorer`.
        seed: Chooses all that is random.
        pool: Tokens in the pool.
        length: Tokens in a prompt.
        budget: LM tokens; the default buys about 200 evaluations of 4 tokens. None for no limit.
        folder: Where the run's log is written; None keeps it in memory.
        noise: See `PlantedScorer`.
        failing: See `PlantedScorer`.
    """
    scorer = PlantedScorer(kind, seed=seed, pool=pool, length=length, noise=noise, failing=failing)
    return scorer.objective(budget, log=RunLog(folder))
