"""The engine: scores prompts on a split of a task under a template."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import Diverged, ModelError, PromptError, PromptSearchError, TemplateError
from promptsearch.evaluation import Scores
from promptsearch.model import LanguageModel
from promptsearch.model.gated import Adaption
from promptsearch.model.weights import ModelWeights
from promptsearch.prompt import (
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
from promptsearch.scoring.answers import answer_scores, choice_scores
from promptsearch.scoring.forward import entering, given_trunks, keys_values, ran_out, run, run_above
from promptsearch.scoring.kept import Kept
from promptsearch.scoring.layout import Layout, broken_joint, check_answers, lay_out, slots_of, split_slots
from promptsearch.scoring.plan import PASS_TOKENS, WAVE_TOKENS, Group, Plan, Prediction, Sharing, Slots, Wave, passes
from promptsearch.scoring.tree import Path, Tree, common, grow
from promptsearch.task import Example, Split
from promptsearch.template import Kind, Template

Ids = NDArray[np.int64]
log = logging.getLogger(__name__)

#: Part of every cache key: raise it when scores may change.
ENGINE = 4

#: What an engine's prompts are called in messages.
_KINDS: dict[Kind, str] = {
    "slots": "prompts that fill slots",
    "tuned": "vectors with changed weights",
    "prefix": "prefixes",
    "gated": "gated prompts",
    "weights": "changed weights",
}


@dataclass(frozen=True)
class _Call:
    """What the passes of one wave have in common.

    Args:
        wave: With its trunks.
        prompts: What each puts into the slots.
        trunks: Keys and values of the wave's trunks.
        vectors: Of soft prompts, for which negative ids stand.
        adaption: Gated prompts.
        entering: Of each example, the states that enter the lowest layer that attends to these.
    """

    wave: Wave
    prompts: Sequence[Slots]
    trunks: Sequence[Tensor]
    vectors: Tensor | None = None
    adaption: Adaption | None = None
    entering: Mapping[int, Tensor] = field(default_factory=dict)


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
        self._kind = template.kind
        if template.apart:
            _check_apart(layouts, split)
        if self._kind == "prefix":
            _ = lm.prefix_shape  # a model that takes no prefix says so before anything is scored
        self._context = np.array([layout.context for layout in layouts])
        self._lead = np.array([layout.lead for layout in layouts])
        self._lengths = np.array([sum(map(len, x.segments)) + max(map(len, x.answers)) for x in layouts])
        self._right = np.array([-1 if e.choice is None else e.choice for e in split.examples])
        self._one_token = choices is not None and all(len(a) == 1 for a in layouts[0].answers)
        # What may be kept of an example: of gated prompts, the states of a whole row; else, keys and values of what is in front.
        self._trees: list[Tree] = []
        if self._kind == "gated":
            self._trees = [grow(self._paths(((),), i, 0)[0]) for i in range(len(layouts))]
        self._held = np.array([len(tree.ids) for tree in self._trees]) if self._trees else self._lead
        self._bytes = (lm.gated_shape[2] if self._trees else lm.values if lm.trees else 0) * lm.dtype.itemsize  # of a token
        room = self._room(memory)
        kept = self._fitting(room) if keep else 0
        if kept < len(layouts):  # what is not kept goes through the rest of the memory, some at a time
            wave = min(WAVE_TOKENS, max(room // 4, int(self._held.max())))
            kept = self._fitting(room - wave) if keep else 0
        else:
            wave = min(WAVE_TOKENS, room)
        limit = self._limit
        leads = list(dict.fromkeys(layout.segments[0] for layout in layouts[:kept] if layout.lead))
        self._kept = Kept(lambda paths: keys_values(lm, paths, None, limit), len, leads, lm.device)
        self._entering: tuple[int, Kept[int]] | None = None  # of the layer that gated prompts began with last
        self._plan = Plan(layouts, trees=lm.trees, one_token=self._one_token, kept=kept, wave=wave, kind=self._kind)
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
        self._check_length(0 if self._kind == "gated" else template.length)  # a gated prompt has no position

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
    def gated_shape(self) -> tuple[int, int, int]:
        """What gated prompts have at most: `(layers, heads, width)`."""
        return self._lm.gated_shape

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

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers.

        Args:
            numbers: Vectors, shape `(length, width)`, a prefix, shape `(length, *prefix_shape)`, vectors and gates of a gated
                prompt, or changed weights by name, with or without vectors; float32, cast to the LM's dtype inside.
            examples: Ids, shape `(batch,)`.

        Raises:
            PromptError: The numbers do not fit template and model.
            Diverged: The loss is not finite; names the example.
        """
        losses = self._losses(numbers, examples)
        if not bool(torch.isfinite(losses).all()):
            example = examples[int((~torch.isfinite(losses)).nonzero()[0])]
            raise Diverged(
                f"the loss of the trained prompt on {self._split.name} example {example} is not finite: lower the rate"
            )
        return losses.mean()

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """What `loss` and its gradient compute, in forward passes through the whole LM.

        The layers below a gated prompt compute an example once, and no gradient reaches them. That of any other prompt crosses
        all layers from the first slot on, and none of the text before it.

        Args:
            numbers: As in `loss`.
        """
        if isinstance(numbers, Mapping):
            vectors, weights = parted(numbers)
            return 1.0, self.weights.backward(weights, below=vectors is not None)
        share = self._attending(numbers[0]) if isinstance(numbers, tuple) else 1.0
        return share, share

    def predict(self, prompts: Sequence[Prompt], examples: Ids) -> Prediction:
        """What `score` would compute, inputs that are kept from call to call left out.

        Args:
            prompts: Of any kinds.
            examples: Ids, shape `(examples,)`.
        """
        unique = np.unique(examples)
        if self._kind == "gated":
            share = max(self._attending(p.rows) for p in prompts if isinstance(p, GatedPrompt))
            return self._plan.predict_layers(len(prompts), unique, share)
        slots = self._slots(prompts)[0]
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
        """Tokens of which something is kept from call to call, and its bytes."""
        tokens = int(self._held[: self._plan.kept].sum()) if self._trees else self._kept.tokens
        return tokens, tokens * self._bytes

    # Private.

    def _room(self, memory: int | None) -> int:
        """Tokens whose keys and values fit into `memory` bytes."""
        if memory is None or not self._lm.trees:
            return WAVE_TOKENS
        longest = int(self._held.argmax())
        if memory < (least := self._bytes * int(self._held[longest])):
            what = "states" if self._trees else "keys and values"
            raise ModelError(
                f"a memory of {memory:,} bytes does not hold the {what} of {self._split.name} example {longest}: "
                f"{self._held[longest]} tokens of {self._bytes:,} bytes. Expected at least {least:,}"
            )
        return memory // self._bytes

    def _fitting(self, room: int) -> int:
        """So many examples, from the first, hold `room` tokens together; 0 where nothing is held."""
        if not self._held.any() or not self._lm.trees:
            return 0
        seen: set[Path | int] = set()
        for i, layout in enumerate(self._layouts):
            item = i if self._trees else layout.segments[0]  # what stands in front may be the same in many examples
            if item not in seen:
                seen.add(item)
                room -= int(self._held[i])
            if room < 0:
                return i
        return len(self._layouts)

    def _slots(self, prompts: Sequence[Prompt]) -> tuple[list[Slots], Tensor | Adaption | None]:
        """What each prompt puts into the slots, and what trained prompts are.

        Returns:
            Ids, and the rows of trained prompts, flat, for which negative ids stand; or, of gated prompts, nothing but these.
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
            return found, self._lm.adaption([(p.rows, p.gates) for p in prompts if isinstance(p, GatedPrompt)])
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
            with self._lm.changed(weights):  # nothing may be computed apart: a gradient crosses all of a row
                return self._score([slots], vectors, examples, "nothing")[0][0]
        tensors = tensors_of(numbers)
        self._check_shape(tensors)
        if self._kind == "gated":
            vectors, gates = tensors
            return self._score([((),)], self._lm.adaption([(vectors, gates)]), examples)[0][0]
        (rows,) = tensors
        slots = split_slots(self._template, _standing_for(len(rows)))
        # No gradient reaches what stands before the prompt: where there is something, it is computed apart.
        whole: Sharing = "prompt" if self._kind == "prefix" else "nothing"
        sharing: Sharing = "input" if self._lm.trees and self._lead.any() else whole
        return self._score([slots], rows.flatten(1), examples, sharing)[0][0]

    def _score_kind(self, prompts: Sequence[Prompt], examples: Ids) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """What `_score` finds; changed weights one after the other, each in place for its own rows only."""
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
        return torch.cat(losses), torch.cat(metric), torch.cat(choices) if choices else None, computed

    def _score(
        self, prompts: Sequence[Slots], trained: Tensor | Adaption | None, examples: Ids, sharing: Sharing | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Losses (prompts, examples), metric (prompts, examples), choices (prompts, examples, choices), tokens computed."""
        places = {int(e): i for i, e in enumerate(examples)}  # an id that is asked for twice is computed once
        unique = np.array(list(places))
        answers = [1 if self._one_token else len(self._layouts[e].answers) for e in unique]
        begins = np.concatenate([[0], np.cumsum(answers)])
        column = {int(e): int(begin) for e, begin in zip(unique, begins, strict=False)}
        parts, lines = [], []
        way = sharing or self._plan.choose(prompts, unique)
        tokens = 0.0
        for wave in self._plan.waves(way, prompts, unique):
            call, count = self._call(wave, prompts, trained)
            tokens += count
            for groups in passes(wave, lambda: self._limit):
                found, count = self._pass(call, groups)
                parts.append(found)
                lines += [
                    p * int(begins[-1]) + column[e] + a
                    for group in groups
                    for p in group.prompts
                    for e in group.examples
                    for a in range(1 if self._one_token else len(self._layouts[e].answers))
                ]
                tokens += count
        computed = round(tokens)
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

    def _call(self, wave: Wave, prompts: Sequence[Slots], trained: Tensor | Adaption | None) -> tuple[_Call, float]:
        """What a wave's passes read, and the tokens that were computed for it."""
        if isinstance(trained, Adaption):
            examples = list(dict.fromkeys(e for group in wave.groups for e in group.examples))
            kept = self._entering_at(trained.first)
            before = kept.computed
            states = dict(zip(examples, kept.get(examples), strict=True))
            share = trained.first / self.gated_shape[0]
            return _Call(wave, prompts, [], adaption=trained, entering=states), share * (kept.computed - before)
        if self._kind == "prefix" and trained is not None:
            return _Call(wave, prompts, given_trunks(self._lm, wave.trunks, trained)), 0.0
        before = self._kept.computed
        trunks = self._kept.get(wave.trunks, lambda paths: keys_values(self._lm, paths, trained, self._limit))
        return _Call(wave, prompts, trunks, trained), self._kept.computed - before

    def _attending(self, vectors: Tensor) -> float:
        """The share of the layers that attend to a gated prompt."""
        return vectors.shape[1] / self.gated_shape[0]

    def _entering_at(self, layer: int) -> Kept[int]:
        """The states of examples that enter a layer; those of another layer are forgotten."""
        if self._entering is None or self._entering[0] != layer:
            lm, limit, trees = self._lm, self._limit, self._trees
            self._entering = (
                layer,
                Kept(
                    lambda examples: entering(lm, layer, [trees[e] for e in examples], limit),
                    lambda example: len(trees[example].ids),
                    list(range(self._plan.kept)),
                    lm.device,
                ),
            )
        return self._entering[1]

    def _pass(self, call: _Call, groups: Sequence[Group]) -> tuple[Tensor, float]:
        """One pass; what does not fit into the memory of the device goes in halves.

        Returns:
            A line for each answer of the groups, in order: the logits of the choices, or (log-probability, all greedy);
            and the tokens that were computed.
        """
        try:
            return self._forward(call, groups)
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
        found = [self._pass(call, half) for half in halves]
        return torch.cat([table for table, _ in found]), sum(count for _, count in found)

    def _paths(self, slots: Slots, example: int, above: int) -> tuple[list[Path], list[Path]]:
        """An example's rows: the ids of each below a trunk of `above` tokens, and its answer."""
        layout = self._layouts[example]
        whole = layout.join(slots)[above:]
        answers = layout.answers[:1] if self._one_token else layout.answers
        # The last token of an answer is predicted, never read.
        return [(*whole, *answer[:-1]) for answer in answers], list(answers)

    def _forward(self, call: _Call, groups: Sequence[Group]) -> tuple[Tensor, float]:
        trees, targets = [], []  # of each tree: the answers of its rows
        for group in groups:
            above = len(call.wave.trunks[group.trunk]) if group.trunk >= 0 else 0
            paths: list[Path] = []
            answers: list[Path] = []
            for p in group.prompts:
                for e in group.examples:
                    some = self._paths(call.prompts[p], e, above)
                    paths += some[0]
                    answers += some[1]
            if self._lm.trees:
                trees.append(grow(paths, above))
                targets.append(answers)
            else:
                trees += [grow([path]) for path in paths]
                targets += [[answer] for answer in answers]
        computed: float = sum(len(tree.ids) for tree in trees)
        if call.adaption is not None:  # each group is one prompt with one example
            entered = [call.entering[group.examples[0]] for group in groups]
            states, begins = run_above(self._lm, trees, entered, call.adaption.of([group.prompts[0] for group in groups]))
            computed *= 1 - call.adaption.first / self.gated_shape[0]
        else:
            used = [call.trunks[group.trunk] for group in groups] if call.trunks else None
            states, begins = run(self._lm, trees, used, call.vectors)
        rows = [[begin + place for place in row] for tree, begin in zip(trees, begins, strict=True) for row in tree.rows]
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

    def _check_prompt(self, prompt: Prompt) -> None:
        if kind_of(type(prompt)) != self._kind:
            raise PromptError(f"under this template {_KINDS[self._kind]} are scored, got a {type(prompt).__name__}")
        if isinstance(prompt, RowsPrompt | TunedPrompt):
            self._check_shape([prompt.tensors[name] for name in prompt.shapes])

    def _check_shape(self, tensors: Sequence[Tensor]) -> None:
        found = tuple(tuple(tensor.shape) for tensor in tensors)
        expected = shapes_for(self._kind, found, self._template.length, self)
        if found != expected:
            shapes = [" and ".join(map(str, some)) for some in (expected, found)]
            raise PromptError(f"a trained prompt has shape {shapes[0]} under this template and model, got {shapes[1]}")

    def _check_length(self, prompt: int) -> None:
        longest = int(self._lengths.argmax())
        tokens, limit = int(self._lengths[longest]) + prompt, self._lm.context
        if limit is not None and tokens > limit:
            raise TemplateError(
                f"{self._split.name} example {longest} has {tokens} tokens with a prompt of {prompt}, but the model reads at "
                f"most {limit}: shorten the example or leave it out (it is never cut silently)"
            )


def _check_apart(layouts: Sequence[Layout], split: Split) -> None:
    """What stands apart from the text predicts nothing itself: the answer needs a token before it."""
    for example, layout in zip(split.examples, layouts, strict=True):
        if not any(layout.segments):
            raise TemplateError(
                f"no text stands before the answer of {split.name} example {example.id}: expected at least a token"
            )


def _standing_for(rows: int, first: int = 0) -> list[int]:
    """The ids that stand for so many rows of trained prompts, from the first of them on."""
    return [-1 - i for i in range(first, first + rows)]


def _split(group: Group) -> list[Group]:
    """One group for each of its rows' longer side."""
    if len(group.prompts) > 1:
        return [Group(group.trunk, [p], group.examples, group.tokens // len(group.prompts)) for p in group.prompts]
    return [Group(group.trunk, group.prompts, [e], group.tokens // len(group.examples)) for e in group.examples]
