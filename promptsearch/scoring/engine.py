"""The engine: scores prompts on a split of a task under a template."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import Diverged, ModelError, PromptError, PromptSearchError, TemplateError
from promptsearch.evaluation import Scores
from promptsearch.model import LanguageModel
from promptsearch.model.weights import ModelWeights
from promptsearch.prompt import PrefixPrompt, Prompt, RowsPrompt, TextPrompt, TrainedPrompt, Weights
from promptsearch.scoring.answers import answer_scores, choice_scores
from promptsearch.scoring.forward import given_trunks, keys_values, ran_out, run
from promptsearch.scoring.kept import Kept
from promptsearch.scoring.layout import Layout, broken_joint, check_answers, lay_out, slots_of, split_slots
from promptsearch.scoring.plan import PASS_TOKENS, WAVE_TOKENS, Group, Plan, Prediction, Sharing, Slots, Wave, passes
from promptsearch.scoring.tree import Path, common, grow
from promptsearch.task import Example, Split
from promptsearch.template import Template

Ids = NDArray[np.int64]
log = logging.getLogger(__name__)

#: Part of every cache key: raise it when scores may change.
ENGINE = 4


class Engine:
    """Scores prompts on one split.

    Args:
        lm: In the dtype to score in.
        template: Bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None for text answers.
        memory: Bytes for keys and values; None: as many as the work at hand wants.
        keep: Whether inputs that stand before the prompt are kept from call to call, as far as `memory` allows.

    Raises:
        ModelError: `memory` does not hold the keys and values of one example.
        TemplateError: An answer has no tokens, two choices are the same to the tokenizer, or an example with its
            prompt is longer than the model's context.
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
        self._limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
        self._layouts = layouts = [lay_out(template, lm, example, choices) for example in split.examples]
        width = tuple(lm.embeddings.shape[1:])
        self._shape = (template.length, *(lm.prefix_shape if template.prefixed else width))  # of a trained prompt
        if template.prefixed or template.bare:
            _check_below_prefix(layouts, split, "but the prefix " if template.prefixed else "")
        self._context = np.array([layout.context for layout in layouts])
        self._lead = np.array([layout.lead for layout in layouts])
        self._lengths = np.array([sum(map(len, x.segments)) + max(map(len, x.answers)) for x in layouts])
        self._right = np.array([-1 if e.choice is None else e.choice for e in split.examples])
        self._one_token = choices is not None and all(len(a) == 1 for a in layouts[0].answers)
        room = self._room(memory)
        kept = self._fitting(room) if keep else 0
        if kept < len(layouts):  # what is not kept goes through the rest of the memory, some at a time
            wave = min(WAVE_TOKENS, max(room // 4, int(self._lead.max())))
            kept = self._fitting(room - wave) if keep else 0
        else:
            wave = min(WAVE_TOKENS, room)
        self._kept = Kept(lm, layouts[:kept], self._limit)
        self._plan = Plan(layouts, trees=lm.trees, one_token=self._one_token, kept=kept, wave=wave, prefixed=template.prefixed)
        parts = (ENGINE, kept, wave, lm.hash, lm.tokenizer_hash, template.text, template.length, split.hash)
        config = json.dumps(lm.model.config.to_dict(), sort_keys=True, default=str)  # what weights alone do not say
        surroundings = (
            hashlib.sha256(config.encode()).hexdigest()[:20],
            str(lm.dtype),
            str(lm.device),
            torch.__version__,
            torch.get_num_threads(),
        )
        self._signature = (*parts, choices, *surroundings)
        self._check_length(template.length)

    # The scorer's side, see evaluation.Scorer.

    @property
    def signature(self) -> str:
        """All that a score depends on besides prompt and example; another one once memory has run out."""
        return repr((self._limit, *self._signature))

    def length(self, prompt: Prompt) -> int:
        """Tokens that the prompt puts into the slots."""
        self._check_prompt(prompt)
        if isinstance(prompt, TrainedPrompt):
            return prompt.length
        return sum(map(len, slots_of(self._template, self._lm, prompt)))

    def context(self, examples: Ids) -> Ids:
        """Tokens from the first slot to the end of each answer, the prompt's own left out, shape `(examples,)`."""
        return self._context[examples]

    def lead(self, examples: Ids) -> Ids:
        """Tokens before the first slot, shape `(examples,)`."""
        return self._lead[examples]

    def examples(self, ids: Ids) -> list[Example]:
        """The examples themselves."""
        return [self._split.examples[i] for i in ids]

    def demonstrations(self, ids: Ids) -> list[str]:
        """Examples as solved text: the template filled in, nothing in the slots, and the right answer."""
        empty = [""] * len(self._template.slots)
        return [self._template.render(e.fields, empty, e.answer).strip() for e in self.examples(ids)]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._lm.encode(text)

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""
        return self._lm.vocabulary

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """What a token of a prefix is: `(layers, 2, key heads, size of a head)`, keys, then values."""
        return self._lm.prefix_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""
        return self._lm.weights

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of tokens at the very start of a row, shape `(tokens, *prefix_shape)`, float32 on the CPU."""
        (found,) = keys_values(self._lm, [tuple(ids)], None, self._limit)
        rows: Tensor = found.float().cpu().unflatten(1, self.prefix_shape)
        return rows

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        """All prompts on all examples.

        Args:
            prompts: Of any kinds.
            examples: Ids, shape `(examples,)`.

        Returns:
            Losses, metric and log-probabilities over the choices; prompts that cannot be scored are failures.
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
            losses[good], metric[good], computed = found[0].cpu().numpy(), found[1].cpu().numpy(), found[3]
            if choices is not None and found[2] is not None:
                choices[good] = found[2].cpu().numpy()
        for i in good:
            bad = np.flatnonzero(~np.isfinite(losses[i]))
            if bad.size:
                failures[i] = (
                    f"the loss of prompt {prompts[i].key} on {self._split.name} example {examples[bad[0]]} is {losses[i, bad[0]]}"
                )
                losses[i] = metric[i] = np.nan
        return Scores(losses, metric, choices, computed, failures)

    def loss(self, numbers: Tensor | Mapping[str, Tensor], examples: Ids) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers.

        Args:
            numbers: Float32, cast to the LM's dtype inside: vectors, shape `(length, width)`, a prefix, shape
                `(length, *prefix_shape)`, or changed weights by name.
            examples: Ids, shape `(batch,)`.

        Raises:
            PromptError: The numbers do not fit template and model.
            Diverged: The loss is not finite; names the example.
        """
        if isinstance(numbers, Mapping) != self._template.bare:
            raise PromptError(f"under this template {self._expected} are trained, got a {type(numbers).__name__}")
        if isinstance(numbers, Mapping):
            with self._lm.changed(numbers):  # nothing may be computed apart: a gradient crosses all of a row
                losses = self._score([((),)], None, examples, "nothing")[0][0]
        else:
            self._check_shape(numbers)
            slots = split_slots(self._template, [-1 - i for i in range(len(numbers))])
            # No gradient reaches what stands before the prompt: where there is something, it is computed apart.
            whole: Sharing = "prompt" if self._template.prefixed else "nothing"
            sharing: Sharing = "input" if self._lm.trees and self._lead.any() else whole
            losses = self._score([slots], numbers.flatten(1), examples, sharing)[0][0]
        if not bool(torch.isfinite(losses).all()):
            example = examples[int((~torch.isfinite(losses)).nonzero()[0])]
            raise Diverged(
                f"the loss of the trained prompt on {self._split.name} example {example} is not finite: lower the rate"
            )
        return losses.mean()

    def predict(self, prompts: Sequence[Prompt], examples: Ids) -> Prediction:
        """What `score` would compute, inputs that are kept from call to call left out.

        Args:
            prompts: Of any kinds.
            examples: Ids, shape `(examples,)`.
        """
        slots = self._slots(prompts)[0]
        unique = np.unique(examples)
        return self._plan.predict(self._plan.choose(slots, unique), slots, unique)

    def anatomy(self) -> dict[str, float]:
        """Tokens of a row by what they belong to, mean over the examples; the prompt's own are left out.

        Returns:
            `static` (before the first slot, the same in all examples), `input` and `answer`.
        """
        static = min(common(x.segments[0], self._layouts[0].segments[0]) for x in self._layouts)
        answer = float(np.mean([sum(map(len, x.answers)) for x in self._layouts]))
        return {"static": static, "input": float((self._lead + self._context).mean()) - static - answer, "answer": answer}

    def kept_lead(self, example: int) -> Path:
        """The ids before the first slot of an example where they are kept from call to call, else nothing."""
        return self._layouts[example].segments[0] if example < self._plan.kept else ()

    @property
    def kept(self) -> tuple[int, int]:
        """Tokens whose keys and values are kept from call to call, and their bytes."""
        tokens = self._kept.tokens
        return tokens, tokens * self._lm.values * self._lm.dtype.itemsize if tokens else 0

    # Private.

    def _room(self, memory: int | None) -> int:
        """Tokens whose keys and values fit into `memory` bytes."""
        if memory is None or not self._lm.trees:
            return WAVE_TOKENS
        each = self._lm.values * self._lm.dtype.itemsize
        longest = int(self._lead.argmax())
        if memory < (least := each * int(self._lead[longest])):
            raise ModelError(
                f"a memory of {memory:,} bytes does not hold the keys and values of {self._split.name} example {longest}: "
                f"{self._lead[longest]} tokens of {each:,} bytes. Expected at least {least:,}"
            )
        return memory // each

    def _fitting(self, room: int) -> int:
        """The first so many examples have trunks of `room` tokens together; 0 where none needs any."""
        if not self._lead.any() or not self._lm.trees:
            return 0
        seen: set[Path] = set()
        for i, layout in enumerate(self._layouts):
            if layout.segments[0] not in seen:
                seen.add(layout.segments[0])
                room -= layout.lead
            if room < 0:
                return i
        return len(self._layouts)

    def _slots(self, prompts: Sequence[Prompt]) -> tuple[list[Slots], Tensor | None]:
        """What each prompt puts into the slots, and the rows of trained prompts, flat, for which negative ids stand."""
        found: list[Slots] = []
        rows: list[Tensor] = []
        count = 0
        for prompt in prompts:
            self._check_prompt(prompt)
            if isinstance(prompt, Weights):
                found.append(((),))
            elif isinstance(prompt, RowsPrompt):
                found.append(split_slots(self._template, [-1 - count - i for i in range(len(prompt.rows))]))
                rows.append(prompt.rows.flatten(1))
                count += len(prompt.rows)
            else:
                found.append(slots_of(self._template, self._lm, prompt))
        return found, torch.cat(rows) if rows else None

    def _score_kind(self, prompts: Sequence[Prompt], examples: Ids) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """What `_score` finds; changed weights one after the other, each in place for its own rows only."""
        slots, rows = self._slots(prompts)
        if not self._template.bare:
            return self._score(slots, rows, examples)
        losses, metric, choices, computed = [], [], [], 0
        for prompt in prompts:
            with self._lm.changed(prompt.tensors if isinstance(prompt, Weights) else {}):
                found = self._score([((),)], None, examples)
            losses.append(found[0])
            metric.append(found[1])
            if found[2] is not None:
                choices.append(found[2])
            computed += found[3]
        return torch.cat(losses), torch.cat(metric), torch.cat(choices) if choices else None, computed

    def _score(
        self, prompts: Sequence[Slots], rows: Tensor | None, examples: Ids, sharing: Sharing | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Losses (prompts, examples), metric (prompts, examples), choices (prompts, examples, choices), tokens computed."""
        vectors = None if self._template.prefixed else rows
        places = {int(e): i for i, e in enumerate(examples)}  # an id that is asked for twice is computed once
        unique = np.array(list(places))
        answers = [1 if self._one_token else len(self._layouts[e].answers) for e in unique]
        begins = np.concatenate([[0], np.cumsum(answers)])
        column = {int(e): int(begin) for e, begin in zip(unique, begins, strict=False)}
        parts, lines, computed = [], [], self._kept.computed
        way = sharing or self._plan.choose(prompts, unique)
        tokens = 0
        for wave in self._plan.waves(way, prompts, unique):
            trunks = self._trunks(wave.trunks, rows)
            for groups in passes(wave, lambda: self._limit):
                found, count = self._pass(wave, groups, prompts, trunks, vectors)
                parts.append(found)
                lines += [
                    p * int(begins[-1]) + column[e] + a
                    for group in groups
                    for p in group.prompts
                    for e in group.examples
                    for a in range(1 if self._one_token else len(self._layouts[e].answers))
                ]
                tokens += count
        computed = tokens + self._kept.computed - computed
        back = torch.empty(len(lines), dtype=torch.long)
        back[torch.tensor(lines)] = torch.arange(len(lines))
        flat = torch.cat(parts).cpu()[back].unflatten(0, (len(prompts), -1))  # (prompts, answers of all examples, ...)
        again = torch.tensor([list(places).index(int(e)) for e in examples]) if len(places) < len(examples) else None

        def each(table: Tensor) -> Tensor:
            return table if again is None else table[:, again]

        if self._choices is None:
            starts = torch.from_numpy(begins[:-1])
            losses = -flat[:, starts, 0]  # the right answer comes first
            metric = torch.from_numpy(np.maximum.reduceat(flat[..., 1].detach().numpy(), begins[:-1], axis=1))
            return each(losses), each(metric), None, computed
        table = flat if self._one_token else flat[..., 0].unflatten(1, (-1, len(self._choices)))
        right = torch.from_numpy(self._right[unique]).repeat(len(prompts))
        nats, correct, normalised = choice_scores(table.flatten(0, 1), right)
        shape = (len(prompts), len(unique))
        return each(nats.reshape(shape)), each(correct.float().reshape(shape)), each(normalised.unflatten(0, shape)), computed

    def _trunks(self, paths: Sequence[Path], rows: Tensor | None) -> list[Tensor]:
        """Keys and values of a wave's trunks; those of prefixes are given."""
        if self._template.prefixed and rows is not None:
            return given_trunks(self._lm, paths, rows)
        return self._kept.get(paths, rows) if paths else []

    def _pass(
        self, wave: Wave, groups: Sequence[Group], prompts: Sequence[Slots], trunks: Sequence[Tensor], vectors: Tensor | None
    ) -> tuple[Tensor, int]:
        """One pass; what does not fit into the memory of the device goes in halves.

        Returns:
            A line for each answer of the groups, in order: the logits of the choices, or (log-probability, all greedy);
            and the tokens that were computed.
        """
        try:
            return self._forward(wave, groups, prompts, trunks, vectors)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if len(groups) == 1 and len(groups[0].prompts) * len(groups[0].examples) == 1:
                raise ModelError(
                    f"the memory of {self._lm.device} does not hold one row of {groups[0].tokens} tokens: "
                    "take a smaller model, a smaller `memory`, or another device"
                ) from error
        if self._limit > groups[0].tokens:
            self._limit = min(self._limit, max(groups[0].tokens, sum(group.tokens for group in groups) // 2))
            log.warning("out of memory: from now on passes of %d tokens", self._limit)
        some = groups if len(groups) > 1 else _split(groups[0])
        halves = [some[: len(some) // 2], some[len(some) // 2 :]]
        found = [self._pass(wave, half, prompts, trunks, vectors) for half in halves]
        return torch.cat([table for table, _ in found]), sum(count for _, count in found)

    def _forward(
        self, wave: Wave, groups: Sequence[Group], prompts: Sequence[Slots], trunks: Sequence[Tensor], vectors: Tensor | None
    ) -> tuple[Tensor, int]:
        trees, targets = [], []  # of each tree: the answers of its rows
        for group in groups:
            above = len(wave.trunks[group.trunk]) if group.trunk >= 0 else 0
            paths, answers = [], []
            for p in group.prompts:
                for e in group.examples:
                    layout = self._layouts[e]
                    whole = layout.join(prompts[p])[above:]
                    for answer in layout.answers[:1] if self._one_token else layout.answers:
                        # The last token of an answer is predicted, never read.
                        paths.append((*whole, *answer[:-1]))
                        answers.append(answer)
            if self._lm.trees:
                trees.append(grow(paths, above))
                targets.append(answers)
            else:
                trees += [grow([path]) for path in paths]
                targets += [[answer] for answer in answers]
        used = [trunks[group.trunk] for group in groups] if trunks else None
        states, begins = run(self._lm, trees, used, vectors)
        rows = [[begin + place for place in row] for tree, begin in zip(trees, begins, strict=True) for row in tree.rows]
        computed = sum(len(tree.ids) for tree in trees)
        if self._one_token:
            tokens = torch.tensor([a[0] for a in self._layouts[0].answers], device=self._lm.device)
            return self._lm.logits(states[torch.tensor([row[-1] for row in rows], device=states.device)], tokens), computed
        wanted = [answer for answers in targets for answer in answers]
        rows = [row[len(row) - len(answer) :] for row, answer in zip(rows, wanted, strict=True)]
        return answer_scores(self._lm, states, rows, wanted), computed

    def _text_fault(self, prompt: TextPrompt, examples: Ids) -> str | None:
        """Why a text prompt cannot be scored, or None."""
        try:
            self._template.slot_texts(prompt.texts)
            self._check_length(self.length(prompt))
        except PromptSearchError as error:
            return str(error)
        for e in examples:
            example, layout = self._split.examples[e], self._layouts[e]
            if not layout.join(slots_of(self._template, self._lm, prompt)):
                return f"nothing stands before the answer of {self._split.name} example {e}: the model needs at least one token"
            answers = self._choices if self._choices is not None else (example.answer, *example.aliases)
            if fault := broken_joint(self._template, self._lm, example, layout, prompt, answers):
                return f"the text prompt {list(prompt.texts)} does not join with the template: {fault}"
        return None

    @property
    def _expected(self) -> str:
        """The kind of prompt that the template takes, in words."""
        template = self._template
        return "prefixes" if template.prefixed else "changed weights" if template.bare else "prompts that fill slots"

    def _check_prompt(self, prompt: Prompt) -> None:
        if (isinstance(prompt, PrefixPrompt), isinstance(prompt, Weights)) != (self._template.prefixed, self._template.bare):
            raise PromptError(f"under this template {self._expected} are scored, got a {type(prompt).__name__}")
        if isinstance(prompt, RowsPrompt):
            self._check_shape(prompt.rows)

    def _check_shape(self, rows: Tensor) -> None:
        if tuple(rows.shape) != self._shape:
            raise PromptError(f"a trained prompt has shape {self._shape} under this template and model, got {tuple(rows.shape)}")

    def _check_length(self, prompt: int) -> None:
        longest = int(self._lengths.argmax())
        tokens, limit = int(self._lengths[longest]) + prompt, self._lm.context
        if limit is not None and tokens > limit:
            raise TemplateError(
                f"{self._split.name} example {longest} has {tokens} tokens with a prompt of {prompt}, but the model reads at "
                f"most {limit}: shorten the example or leave it out (it is never cut silently)"
            )


def _check_below_prefix(layouts: Sequence[Layout], split: Split, above: str) -> None:
    """A prefix predicts nothing itself, nor do weights: the answer needs a token before it."""
    for example, layout in zip(split.examples, layouts, strict=True):
        if not any(layout.segments):
            raise TemplateError(
                f"nothing {above}stands before the answer of {split.name} example {example.id}: expected at least a token"
            )


def _split(group: Group) -> list[Group]:
    """One group for each of its rows' longer side."""
    if len(group.prompts) > 1:
        return [Group(group.trunk, [p], group.examples, group.tokens // len(group.prompts)) for p in group.prompts]
    return [Group(group.trunk, group.prompts, [e], group.tokens // len(group.examples)) for e in group.examples]
