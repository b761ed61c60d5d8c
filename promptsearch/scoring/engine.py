"""The engine: scores prompts on a split of a task under a template.

The lead of an example is what stands in its row before the first slot. What is kept of an example
stays from call to call. Prompts that stand apart from the text put no tokens into its slots; a
gated prompt stands beside the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import Diverged, PromptSearchError
from promptsearch.models import LanguageModel
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import (
    ExampleIds,
    Floats,
    Generated,
    Scores,
    clear_failed,
    not_finite,
)
from promptsearch.scoring.answer_ids import check_ends, solved_texts
from promptsearch.scoring.content_free import ContentFree, blank_split
from promptsearch.scoring.forward import keys_values, last_states
from promptsearch.scoring.generation import Generation
from promptsearch.scoring.joints import check_answers, check_joints
from promptsearch.scoring.kinds import adds_of, attending, passes_of
from promptsearch.scoring.layout import meeting
from promptsearch.scoring.losses import Losses
from promptsearch.scoring.protocol import Adds
from promptsearch.scoring.reading import Layout
from promptsearch.scoring.references import References, Visits
from promptsearch.scoring.rows import TokenRows
from promptsearch.scoring.sharing import Prediction
from promptsearch.scoring.surroundings import surroundings
from promptsearch.scoring.teaching import Teaching
from promptsearch.scoring.tree import Path
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template


class Engine:
    """A scorer of prompts on one split, with a model that is loaded here.

    Args:
        lm: The model, in the dtype to score in.
        template: The template, bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        memory: The bytes for keys and values; None: as many as the work at hand wants.
        keep: Whether what no prompt changes is kept from call to call, as far as `memory` allows:
            inputs that stand before the prompt, or states below gated prompts.

    Raises:
        ModelError: `memory` does not hold what is kept of one example, or the model has no token
            that ends a text answer.
        TemplateError: An answer has no tokens or holds what ends an answer, one choice is or begins
            with the tokens of another, no text stands before an answer, or an example with its
            prompt is longer than the model's context.
    """

    def __init__(
        self,
        lm: LanguageModel,
        template: Template,
        split: Split,
        choices: Sequence[str] | None,
        *,
        normalise: Normalise = "none",
        memory: int | None = None,
        keep: bool = False,
    ) -> None:
        template = meeting(template, lm)
        check_answers(lm, choices, split, normalise)
        check_ends(template, split, choices)
        self._lm, self._template = lm, template
        self._split, self._choices, self._normalise = split, choices, normalise
        references = References(split)
        if references.several and memory is not None:
            memory //= 2  # the rows of training, which have one right answer each, take the rest

        def make(on: Split) -> Losses:
            return Losses(lm, template, on, choices, normalise=normalise, memory=memory, keep=keep)

        self._losses = make(split)
        self._visits = Visits(references, self._losses, make)
        self._generation = Generation(lm, template, split, memory)
        self._layout, self._rows = self._losses.layout, self._losses.rows
        self._signature = surroundings(
            lm, template, split, choices, normalise, (self._rows.plan.kept, self._rows.plan.wave)
        )
        # A gated prompt takes no positions.
        self._layout.check_length(0 if self._losses.placing.states else template.length)

    @property
    def white_box(self) -> Engine:
        """The engine itself: a model that is loaded here shows its inside."""
        return self

    # The scorer's side, see `promptsearch.scoring.protocol.Scorer`.

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example.

        Weights as they are now are part of it, and it changes when memory runs out: passes shrink.
        """
        return repr((self._rows.limit, self._lm.integrity.checksum, *self._signature))

    def length(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""
        return self._losses.length(prompt)

    def adds(self, length: int) -> Adds:
        """What a prompt of this length adds to the price of a row, see `adds_of`."""
        return adds_of(self._template.kind, length, self._lm.flops)

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model's context holds the longest example with this prompt."""
        if prompt.length is not None:
            return True  # it was asked of all prompts of this length at the start
        try:
            self._layout.check_length(self._losses.lengths(prompt))
        except PromptSearchError:  # whatever makes it a failure: `score` says why
            return False
        return True

    def context(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens behind its lead, see `Scorer.context`."""
        return self._layout.context[examples]

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens before the first slot, shape `(examples,)`."""
        return self._layout.lead[examples]

    def tail(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens behind its lead up to the answer, likewise."""
        return self._layout.tail[examples]

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """The number of times that each example is read with one prompt, shape `(examples,)`."""
        return self._layout.readings[examples]

    def check_joints(self, space: PromptSpace) -> None:
        """Check law 2 on all examples, see `promptsearch.scoring.joints`.

        Args:
            space: The hard prompts.

        Raises:
            TemplateError: A joint does not hold; the message names the first one.
        """
        check_joints(self._template, self._lm, self._split, self._choices, space)

    def examples(self, ids: ExampleIds) -> list[Example]:
        """The examples themselves."""
        return [self._split.examples[i] for i in ids]

    def demonstrations(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> list[str]:
        """Examples as solved text, see `Template.solved`."""
        return solved_texts(self._template, self.examples(ids), answers)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._lm.encode(text)

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""
        return self._lm.vocabulary

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape for a token of a prefix, keys, then values: see `Passes.prefix_shape`."""
        return self._lm.prefix_shape

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have, all of them first."""
        return self._lm.prefix_layers

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The most that gated prompts can have: `(layers, heads, width)`."""
        return self._lm.gated_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""
        return self._lm.weights

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """The keys and values of tokens at a row's very start, float32 on the CPU, see `Open`."""
        (found,) = keys_values(self._lm, [tuple(ids)], None, self._rows.limit)
        rows: Tensor = found.on("cpu").float().unflatten(1, self.prefix_shape)
        return rows

    def states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The last hidden state of each row's last token, float32 on the CPU, see `WhiteBox`."""
        paths = [(*(self._lm.lead[:1] or (self._lm.end,)), *row) for row in rows]
        return last_states(self._lm, paths, self._rows.limit).float().cpu().clone()

    def word_logits(self, prompt: Prompt, examples: ExampleIds) -> tuple[tuple[str, ...], Tensor]:
        """All answers of one token, and their logits, see `Losses.word_logits`."""
        return self._losses.word_logits(prompt, examples)

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """The scores of all prompts on all examples.

        Args:
            prompts: Prompts of any kinds that the template takes.
            examples: ExampleIds, shape `(examples,)`.

        Returns:
            Losses, metric and log-probabilities over the choices; prompts that cannot be scored
            are failures.
        """
        failures = self._losses.faults(prompts, examples)
        good = [i for i in range(len(prompts)) if i not in failures]
        shape = (len(prompts), len(examples))
        losses, metric = np.full(shape, np.nan), np.full(shape, np.nan)
        options = self._layout.options
        choices = np.full((*shape, options), np.nan) if options else None
        computed = 0
        if good:
            with torch.inference_mode():
                found = self._losses.of_prompts([prompts[i] for i in good], examples)
            losses[good] = found.losses.cpu().numpy()
            metric[good] = found.metric.cpu().numpy()
            computed = found.computed
            if choices is not None and found.choices is not None:
                choices[good] = found.choices.cpu().numpy()
        for i in good:
            if odd := not_finite(losses[i], None if choices is None else choices[i]):
                noun, place, value = odd
                where = f"{self._split.name} example {examples[place]}"
                failures[i] = f"the {noun} of prompt {prompts[i].key} on {where} is {value}"
        clear_failed(failures, losses, metric, choices)
        return Scores(losses, metric, choices, computed, failures)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The answers that the LM generates under prompts, see `Generation`."""
        for prompt in prompts:
            self._losses.check(prompt)
        faults = self._losses.faults(prompts, examples)
        return self._generation.answers(prompts, examples, decoding, faults)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int = 0) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers.

        Args:
            numbers: Vectors, shape `(length, width)`; a prefix, shape `(length, *prefix_shape)`;
                the vectors and gates of a gated prompt; or changed weights by name, with or without
                vectors. They are float32, and cast to the LM's dtype inside.
            examples: ExampleIds, shape `(batch,)`.
            visit: The number of this visit of the examples, by which one of several right answers
                is drawn for each.

        Raises:
            PromptError: The numbers do not fit template and model.
            Diverged: The loss is not finite; the message names the example.
        """
        losses = self._visits.losses(numbers, examples, visit)
        if not bool(torch.isfinite(losses).all()):
            example = examples[int((~torch.isfinite(losses)).nonzero()[0])]
            raise Diverged(
                f"the loss of the trained prompt on {self._split.name} example {example} "
                "is not finite: lower the rate"
            )
        return losses.mean()

    def content_free(self, text: str) -> ContentFree:
        """An input whose fields all hold the same text, see `ContentFree`."""
        blank = blank_split(self._template, self._choices, text)
        return ContentFree(self._like(self._template, blank))

    def _like(self, template: Template, split: Split) -> Engine:
        return Engine(self._lm, template, split, self._choices, normalise=self._normalise)

    @cached_property
    def teaching(self) -> Teaching:
        """Prompts of words in the slots that teach the one that is trained."""
        engine = self._like(words, self._split) if (words := self._template.slotted) else self
        return Teaching(self._lm, engine._visits, self._visits)

    def step_context(self, examples: ExampleIds, visit: int | None = None) -> Floats:
        """What `context` is for `loss`, which takes one right answer, see `Visits.context`."""
        return self._visits.context(examples, visit)

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """The cost of `loss`, and that of its gradient, in forward passes, see `passes_of`."""
        return passes_of(numbers, self)

    def predict(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Prediction:
        """A prediction of what `score` would compute, without what is kept from call to call.

        Args:
            prompts: Prompts of any kinds that the template takes.
            examples: ExampleIds, shape `(examples,)`.
        """
        unique, plan = np.unique(examples), self._rows.plan
        if own := [length for p in prompts if len(length := self._losses.own_lengths(p))]:
            return plan.predict_alone(np.stack(own)[:, unique], unique)
        if self._losses.placing.states:
            share = max(attending(prompt.parts, self) for prompt in prompts)
            return plan.predict_layers(len(prompts), unique, share)
        slots = self._losses.placed(prompts).slots
        return plan.predict(plan.choose(slots, unique), slots, unique)

    @property
    def rows(self) -> TokenRows:
        """The rows of the examples: what is shared among them, and what is held of it."""
        return self._rows

    def layout(self, example: int) -> Layout:
        """The token ids of an example, around the slots."""
        return self._layout.layouts[example]

    def anatomy(self) -> dict[str, float]:
        """The tokens of a row by what they belong to, see `SplitLayout.anatomy`."""
        return self._layout.anatomy()

    def kept_lead(self, example: int) -> Path:
        """The ids of an example's lead where it is kept from call to call, else nothing."""
        kept = example < self._rows.plan.kept
        return self._layout.layouts[example].segments[0] if kept else ()

    @property
    def kept(self) -> tuple[int, int]:
        """The number of tokens for which something is kept from call to call, and its bytes."""
        return self._rows.memory.size

    def forget(self) -> None:
        """Throw away what is kept, after the weights were not what they should have been."""
        self._rows.memory.forget()
        self._visits.forget()
