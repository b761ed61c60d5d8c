"""The engine: scores prompts on a split of a task under a template.

The lead of an example is what stands in its row before the first slot. What is kept of an example
stays from call to call. Prompts that stand apart from the text put no tokens into its slots; a
gated prompt stands beside the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import Diverged, PromptError, PromptSearchError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.models.causal.gated import Adaption
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.prompt import (
    VECTORS,
    GatedPrompt,
    NamedPrompt,
    Numbers,
    Prompt,
    RowsPrompt,
    TextPrompt,
    TrainedPrompt,
    TunedPrompt,
    Weights,
    kind_of,
    length_of,
    parted,
    shapes_for,
    tensors_of,
)
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import Scores
from promptsearch.scoring.answers import choice_scores
from promptsearch.scoring.forward import keys_values
from promptsearch.scoring.layout import (
    Layout,
    broken_joint,
    check_answers,
    check_joints,
    lay_out,
    slots_of,
    split_slots,
)
from promptsearch.scoring.rows import Rows
from promptsearch.scoring.sharing import Prediction, Sharing, Slots
from promptsearch.scoring.tree import Path, common
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Kind, Template

Ids = NDArray[np.int64]

#: The version of the engine, a part of every cache key: raise it when scores may change.
ENGINE = 5

#: The names that messages have for an engine's prompts, by kind of template.
_KINDS: dict[Kind, str] = {
    "slots": "prompts that fill slots",
    "tuned": "vectors with changed weights",
    "prefix": "prefixes",
    "gated": "gated prompts",
    "weights": "changed weights",
}


class Engine:
    """A scorer of prompts on one split, with a model that is loaded here.

    Args:
        lm: The model, in the dtype to score in.
        template: The template, bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None for text answers.
        memory: The bytes for keys and values; None: as many as the work at hand wants.
        keep: Whether what no prompt changes is kept from call to call, as far as `memory` allows:
            inputs that stand before the prompt, or states below gated prompts.

    Raises:
        ModelError: `memory` does not hold what is kept of one example.
        TemplateError: An answer has no tokens, one choice is or begins with the tokens of another,
            no text stands before an answer, or an example with its prompt is longer than the
            model's context.
    """

    def __init__(
        self,
        lm: LanguageModel,
        template: Template,
        split: Split,
        choices: Sequence[str] | None,
        *,
        memory: int | None = None,
        keep: bool = False,
    ) -> None:
        check_answers(lm, choices, split)
        self._lm = lm
        self._template = template
        self._split = split
        self._choices = choices
        self._memory = memory
        self._layouts = layouts = [
            lay_out(template, lm, example, choices) for example in split.examples
        ]
        self._kind = template.kind
        if template.apart:
            _check_apart(layouts, split)
        if self._kind == "prefix":
            _ = lm.prefix_shape  # a model that takes no prefix says so before anything is scored
        self._context = np.array([layout.context for layout in layouts])
        self._lead = np.array([layout.lead for layout in layouts])
        self._lengths = np.array(
            [sum(map(len, x.segments)) + max(map(len, x.answers)) for x in layouts]
        )
        self._right = np.array([-1 if e.choice is None else e.choice for e in split.examples])
        self._one_token = choices is not None and all(len(a) == 1 for a in layouts[0].answers)
        self._rows = rows = self._make_rows(layouts, keep)
        # By which slots are full: empty ones may change what begins a row.
        self._begun: dict[tuple[bool, ...], tuple[list[Layout], Rows]] = {}
        parts = (
            ENGINE,
            rows.plan.kept,
            rows.plan.wave,
            lm.hash,
            lm.tokenizer_hash,
            template.text,
            template.length,
            split.hash,
        )
        # The weights alone do not say all that the model computes.
        config = json.dumps(lm.model.config.to_dict(), sort_keys=True, default=str)
        surroundings = (
            hashlib.sha256(config.encode()).hexdigest()[:20],
            str(lm.dtype),
            str(lm.device),
            torch.__version__,
            torch.get_num_threads(),
        )
        self._signature = (*parts, *template.marks, choices, *surroundings)
        # A gated prompt takes no positions.
        self._check_length(0 if self._kind == "gated" else template.length)

    # The scorer's side, see `promptsearch.scoring.protocol.Scorer`.

    @property
    def white_box(self) -> Engine:
        """The engine itself: a model that is loaded here shows its inside."""
        return self

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example.

        The weights as they are now are part of it. It changes once memory has run out, because
        passes are smaller from then on.
        """
        return repr((self._rows.limit, self._lm.integrity.checksum, *self._signature))

    def length(self, prompt: Prompt) -> int:
        """The number of tokens that the prompt puts into the slots."""
        self._check_prompt(prompt)
        if isinstance(prompt, TrainedPrompt):
            return prompt.length
        return sum(map(len, slots_of(self._template, self._lm, prompt)))

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model's context holds the longest example with this prompt.

        Only text prompts are asked, because only they may have any length.
        """
        if not isinstance(prompt, TextPrompt):
            return True
        try:
            self._check_length(self.length(prompt))
        except TemplateError:  # also a text that does not go into the template: `score` says why
            return False
        return True

    def context(self, examples: Ids) -> Ids:
        """The number of each example's tokens behind its lead, shape `(examples,)`.

        They reach from the first slot to the end of each answer, without the prompt's own tokens.
        """
        return self._context[examples]

    def lead(self, examples: Ids) -> Ids:
        """The number of each example's tokens before the first slot, shape `(examples,)`."""
        return self._lead[examples]

    def readings(self, examples: Ids) -> Ids:
        """The number 1 for each example, shape `(examples,)`: answers branch off from one row."""
        return np.ones(len(examples), dtype=np.int64)

    def check_joints(self, space: PromptSpace) -> None:
        """Check law 2 on all examples, see `promptsearch.scoring.layout`.

        Args:
            space: The hard prompts.

        Raises:
            TemplateError: A joint does not hold; the message names the first one.
        """
        check_joints(self._template, self._lm, self._split, self._choices, space)

    def examples(self, ids: Ids) -> list[Example]:
        """The examples themselves."""
        return [self._split.examples[i] for i in ids]

    def demonstrations(self, ids: Ids) -> list[str]:
        """Examples as solved text, see `Template.solved`."""
        return [self._template.solved(e.fields, e.answer) for e in self.examples(ids)]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._lm.encode(text)

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""
        return self._lm.vocabulary

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape for a token of a prefix: `(layers, 2, key heads, size of a head)`.

        Keys come first, then values.
        """
        return self._lm.prefix_shape

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The most that gated prompts can have: `(layers, heads, width)`."""
        return self._lm.gated_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""
        return self._lm.weights

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """The keys and values of tokens at a row's very start, float32 on the CPU.

        Args:
            ids: The tokens' ids.

        Returns:
            Shape `(tokens, *prefix_shape)`.
        """
        (found,) = keys_values(self._lm, [tuple(ids)], None, self._rows.limit)
        rows: Tensor = found.float().cpu().unflatten(1, self.prefix_shape)
        return rows

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        """The scores of all prompts on all examples.

        Args:
            prompts: Prompts of any kinds that the template takes.
            examples: Ids, shape `(examples,)`.

        Returns:
            Losses, metric and log-probabilities over the choices; prompts that cannot be scored
            are failures.
        """
        failures: dict[int, str] = {}
        for i, prompt in enumerate(prompts):
            if isinstance(prompt, TextPrompt) and (fault := self._text_fault(prompt, examples)):
                failures[i] = fault
        good = [i for i in range(len(prompts)) if i not in failures]
        shape = (len(prompts), len(examples))
        losses, metric = np.full(shape, np.nan), np.full(shape, np.nan)
        choices = None if self._choices is None else np.full((*shape, len(self._choices)), np.nan)
        computed = 0
        if good:
            with torch.inference_mode():
                found = self._score_kind([prompts[i] for i in good], examples)
            losses[good], metric[good], computed = (
                found[0].cpu().numpy(),
                found[1].cpu().numpy(),
                found[3],
            )
            if choices is not None and found[2] is not None:
                choices[good] = found[2].cpu().numpy()
        for i in good:
            bad = np.flatnonzero(~np.isfinite(losses[i]))
            if bad.size:
                failures[i] = (
                    f"the loss of prompt {prompts[i].key} on {self._split.name} "
                    f"example {examples[bad[0]]} is {losses[i, bad[0]]}"
                )
                losses[i] = metric[i] = np.nan
        return Scores(losses, metric, choices, computed, failures)

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers.

        Args:
            numbers: Vectors, shape `(length, width)`; a prefix, shape `(length, *prefix_shape)`;
                the vectors and gates of a gated prompt; or changed weights by name, with or without
                vectors. They are float32, and cast to the LM's dtype inside.
            examples: Ids, shape `(batch,)`.

        Raises:
            PromptError: The numbers do not fit template and model.
            Diverged: The loss is not finite; the message names the example.
        """
        losses = self._losses(numbers, examples)
        if not bool(torch.isfinite(losses).all()):
            example = examples[int((~torch.isfinite(losses)).nonzero()[0])]
            raise Diverged(
                f"the loss of the trained prompt on {self._split.name} example {example} "
                "is not finite: lower the rate"
            )
        return losses.mean()

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """The cost of `loss`, and that of its gradient, in forward passes through the whole LM.

        The layers below a gated prompt compute an example once, and no gradient reaches them. The
        gradient of any other prompt crosses all layers, from the first slot on; it does not cross
        the text before that slot.

        Args:
            numbers: As in `loss`.
        """
        if isinstance(numbers, Mapping):
            vectors, weights = parted(numbers)
            return 1.0, self.weights.backward(weights, below=vectors is not None)
        share = self._attending(numbers[0]) if isinstance(numbers, tuple) else 1.0
        return share, share

    def predict(self, prompts: Sequence[Prompt], examples: Ids) -> Prediction:
        """A prediction of what `score` would compute, without what is kept from call to call.

        Args:
            prompts: Prompts of any kinds that the template takes.
            examples: Ids, shape `(examples,)`.
        """
        unique = np.unique(examples)
        if self._kind == "gated":
            share = max(self._attending(p.rows) for p in prompts if isinstance(p, GatedPrompt))
            return self._rows.plan.predict_layers(len(prompts), unique, share)
        slots = self._slots(prompts)[0]
        return self._rows.plan.predict(self._rows.plan.choose(slots, unique), slots, unique)

    @property
    def rows(self) -> Rows:
        """The rows of the examples: what is shared among them, and what is held of it."""
        return self._rows

    def layout(self, example: int) -> Layout:
        """The token ids of an example, around the slots."""
        return self._layouts[example]

    def anatomy(self) -> dict[str, float]:
        """The tokens of a row by what they belong to, mean over the examples, without the prompt's.

        Returns:
            `static` (before the first slot, the same in all examples), `input` and `answer`.
        """
        static = min(common(x.segments[0], self._layouts[0].segments[0]) for x in self._layouts)
        answer = float(np.mean([sum(map(len, x.answers)) for x in self._layouts]))
        return {
            "static": static,
            "input": float((self._lead + self._context).mean()) - static - answer,
            "answer": answer,
        }

    def kept_lead(self, example: int) -> Path:
        """The ids of an example's lead where it is kept from call to call, else nothing.

        Args:
            example: The example's id.
        """
        return self._layouts[example].segments[0] if example < self._rows.plan.kept else ()

    @property
    def kept(self) -> tuple[int, int]:
        """The number of tokens for which something is kept from call to call, and its bytes."""
        return self._rows.kept

    def forget(self) -> None:
        """Throw away what is kept from call to call, so that it is computed anew.

        It is called after the weights were not what they should have been.
        """
        self._rows.forget()

    # Private.

    def _slots(self, prompts: Sequence[Prompt]) -> tuple[list[Slots], Tensor | Adaption | None]:
        """The ids that prompts put into the slots, and the numbers of trained prompts.

        Returns:
            The ids of each prompt; and the rows of trained prompts, made flat, for which negative
            ids stand. Gated prompts have no ids, and come projected instead of as rows.
        """
        found: list[Slots] = []
        rows: list[Tensor] = []
        count = 0
        for prompt in prompts:
            self._check_prompt(prompt)
            if isinstance(prompt, GatedPrompt | Weights):
                found.append(((),))
            elif isinstance(prompt, RowsPrompt | TunedPrompt):
                own = prompt.vectors if isinstance(prompt, TunedPrompt) else prompt.rows
                found.append(split_slots(self._template, _standing_for(len(own), count)))
                rows.append(own.flatten(1))
                count += len(own)
            else:
                found.append(slots_of(self._template, self._lm, prompt))
        if self._kind == "gated":
            return found, self._lm.passes.adaption(
                [(p.rows, p.gates) for p in prompts if isinstance(p, GatedPrompt)]
            )
        return found, torch.cat(rows) if rows else None

    def _losses(self, numbers: Numbers, examples: Ids) -> Tensor:
        """The losses of a trained prompt, shape `(batch,)`."""
        named: Kind | None = None
        if isinstance(numbers, Mapping):
            named = "tuned" if VECTORS in numbers else "weights"
        if named != (self._kind if self._kind in ("tuned", "weights") else None):
            got = f"{type(numbers).__name__}{' with vectors' if named == 'tuned' else ''}"
            raise PromptError(f"under this template {_KINDS[self._kind]} are trained, got a {got}")
        if isinstance(numbers, Mapping):
            vectors, weights = parted(numbers)
            if vectors is not None:
                self._check_shape([vectors])
            slots = split_slots(self._template, _standing_for(length_of(numbers)))
            # A gradient of weights crosses the whole row, so that no part of it may be computed
            # beforehand.
            with self._lm.changed(weights):
                return self._score([slots], vectors, examples, "nothing")[0][0]
        tensors = tensors_of(numbers)
        self._check_shape(tensors)
        if self._kind == "gated":
            vectors, gates = tensors
            return self._score([((),)], self._lm.passes.adaption([(vectors, gates)]), examples)[0][
                0
            ]
        (rows,) = tensors
        slots = split_slots(self._template, _standing_for(len(rows)))
        # No gradient reaches what stands before the prompt: it is computed beforehand, as a trunk.
        whole: Sharing = "prompt" if self._kind == "prefix" else "nothing"
        sharing: Sharing = "input" if self._lm.passes.trees and self._lead.any() else whole
        return self._score([slots], rows.flatten(1), examples, sharing)[0][0]

    def _score_kind(
        self, prompts: Sequence[Prompt], examples: Ids
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """The same as `_score` returns, for prompts of the engine's kind.

        Changed weights go one after the other, each in place for its own rows only.
        """
        if self._kind not in ("tuned", "weights"):
            return self._score(*self._slots(prompts), examples)
        losses, metric, choices, computed = [], [], [], 0
        for prompt in prompts:
            slots, vectors = self._slots([prompt])
            with self._lm.changed(prompt.weights if isinstance(prompt, NamedPrompt) else {}):
                found = self._score(slots, vectors, examples)
            losses.append(found[0])
            metric.append(found[1])
            if found[2] is not None:
                choices.append(found[2])
            computed += found[3]
        return (
            torch.cat(losses),
            torch.cat(metric),
            torch.cat(choices) if choices else None,
            computed,
        )

    def _score(
        self,
        prompts: Sequence[Slots],
        trained: Tensor | Adaption | None,
        examples: Ids,
        sharing: Sharing | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """The losses of prompts on examples, and what else `score` returns.

        Returns:
            Losses, shape `(prompts, examples)`; the metric, shape `(prompts, examples)`;
            log-probabilities over the choices, shape `(prompts, examples, choices)`, or None; and
            the number of tokens that were computed.
        """
        # An id that is asked for twice is computed once.
        places = {int(e): i for i, e in enumerate(examples)}
        unique = np.array(list(places))
        flat, begins, computed = self._compute(prompts, trained, unique, sharing)
        again = (
            torch.tensor([list(places).index(int(e)) for e in examples])
            if len(places) < len(examples)
            else None
        )

        def each(table: Tensor) -> Tensor:
            return table if again is None else table[:, again]

        if self._choices is None:
            starts = torch.from_numpy(begins[:-1])
            losses = -flat[:, starts, 0]  # the right answer comes first
            metric = torch.from_numpy(
                np.maximum.reduceat(flat[..., 1].detach().numpy(), begins[:-1], axis=1)
            )
            return each(losses), each(metric), None, computed
        table = flat if self._one_token else flat[..., 0].unflatten(1, (-1, len(self._choices)))
        right = torch.from_numpy(self._right[unique]).repeat(len(prompts))
        nats, correct, normalised = choice_scores(table.flatten(0, 1), right)
        shape = (len(prompts), len(unique))
        return (
            each(nats.reshape(shape)),
            each(correct.float().reshape(shape)),
            each(normalised.unflatten(0, shape)),
            computed,
        )

    def _compute(
        self,
        prompts: Sequence[Slots],
        trained: Tensor | Adaption | None,
        examples: Ids,
        sharing: Sharing | None,
    ) -> tuple[Tensor, Ids, int]:
        """The same as `Rows.compute` returns; prompts whose rows begin alike go together."""
        together: dict[Rows, list[int]] = {}
        for i, slots in enumerate(prompts):
            together.setdefault(self._begun_by(slots)[1], []).append(i)
        if len(together) == 1:
            (rows,) = together
            return rows.compute(prompts, trained, examples, sharing)
        found = [
            rows.compute([prompts[i] for i in some], trained, examples, sharing)
            for rows, some in together.items()
        ]
        back = torch.tensor([i for some in together.values() for i in some]).argsort()
        return (
            torch.cat([flat for flat, _, _ in found])[back],
            found[0][1],
            sum(computed for _, _, computed in found),
        )

    def _begun_by(self, slots: Slots) -> tuple[list[Layout], Rows]:
        """The layouts and rows for a prompt.

        They differ from those of full slots where the prompt leaves slots empty and the tokenizer
        marks what begins a row.

        Args:
            slots: The ids that the prompt puts into the slots.
        """
        full = tuple(map(bool, slots))
        if self._template.apart or all(full) or not self._lm.tokens.marks_beginnings:
            return self._layouts, self._rows
        if full not in self._begun:
            layouts = [
                lay_out(self._template, self._lm, e, self._choices, slots)
                for e in self._split.examples
            ]
            same = layouts == self._layouts
            self._begun[full] = (
                layouts,
                self._rows if same else self._make_rows(layouts, keep=False),
            )
        return self._begun[full]

    def _make_rows(self, layouts: Sequence[Layout], keep: bool) -> Rows:
        one_token, name = self._one_token, self._split.name
        return Rows(
            self._lm,
            layouts,
            self._kind,
            one_token=one_token,
            name=name,
            memory=self._memory,
            keep=keep,
        )

    def _attending(self, vectors: Tensor) -> float:
        """The share of the layers that attend to a gated prompt."""
        return vectors.shape[1] / self.gated_shape[0]

    def _text_fault(self, prompt: TextPrompt, examples: Ids) -> str | None:
        """The reason why a text prompt cannot be scored, or None."""
        try:
            self._template.slot_texts(prompt.texts)
            self._check_length(self.length(prompt))
        except PromptSearchError as error:
            return str(error)
        for e in examples:
            example = self._split.examples[e]
            slots = slots_of(self._template, self._lm, prompt)
            layout = self._begun_by(slots)[0][e]
            if not layout.join(slots):
                return (
                    f"nothing stands before the answer of {self._split.name} example {e}: "
                    "the model needs at least one token"
                )
            answers = (
                self._choices if self._choices is not None else (example.answer, *example.aliases)
            )
            if fault := broken_joint(self._template, self._lm, example, layout, prompt, answers):
                return (
                    f"the text prompt {list(prompt.texts)} does not join with the template: {fault}"
                )
        return None

    def _check_prompt(self, prompt: Prompt) -> None:
        if kind_of(type(prompt)) != self._kind:
            raise PromptError(
                f"under this template {_KINDS[self._kind]} are scored, "
                f"got a {type(prompt).__name__}"
            )
        if isinstance(prompt, RowsPrompt | TunedPrompt):
            self._check_shape([prompt.tensors[name] for name in prompt.shapes])

    def _check_shape(self, tensors: Sequence[Tensor]) -> None:
        found = tuple(tuple(tensor.shape) for tensor in tensors)
        expected = shapes_for(self._kind, found, self._template.length, self)
        if found != expected:
            shapes = [" and ".join(map(str, some)) for some in (expected, found)]
            raise PromptError(
                f"a trained prompt has shape {shapes[0]} under this template and model, "
                f"got {shapes[1]}"
            )

    def _check_length(self, prompt: int) -> None:
        longest = int(self._lengths.argmax())
        tokens, limit = int(self._lengths[longest]) + prompt, self._lm.context
        if limit is not None and tokens > limit:
            advice = "the prompt" if prompt > tokens - prompt else "the example or leave it out"
            raise TemplateError(
                f"{self._split.name} example {longest} has {tokens} tokens with a prompt of "
                f"{prompt}, but the model reads at most {limit}: shorten {advice} "
                "(nothing is cut silently)"
            )


def _check_apart(layouts: Sequence[Layout], split: Split) -> None:
    """Refuse an example whose answer has no token before it.

    A prompt that stands apart from the text predicts nothing itself.

    Raises:
        TemplateError: There is such an example; the message names it.
    """
    for example, layout in zip(split.examples, layouts, strict=True):
        if not any(layout.segments):
            raise TemplateError(
                f"no text stands before the answer of {split.name} example {example.id}: "
                "expected at least a token"
            )


def _standing_for(rows: int, first: int = 0) -> list[int]:
    """The ids that stand for some rows of trained prompts.

    Args:
        rows: The number of rows.
        first: The place of the first of them among the rows of all prompts.
    """
    return [-1 - i for i in range(first, first + rows)]
