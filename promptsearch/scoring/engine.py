"""The engine: scores prompts on a split of a task under a template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.errors import PromptSearchError, TemplateError
from promptsearch.evaluation import Scores
from promptsearch.model import LanguageModel
from promptsearch.prompt import Prompt, SoftPrompt, TextPrompt
from promptsearch.scoring.answers import choice_scores, token_scores
from promptsearch.scoring.forward import Row, run
from promptsearch.scoring.layout import broken_joint, check_answers, lay_out, slots_of, split_slots
from promptsearch.scoring.plan import BATCH_TOKENS, batches
from promptsearch.task import Example, Split
from promptsearch.template import Template

Ids = NDArray[np.int64]

#: Part of every cache key: raise it when scores may change.
ENGINE = 2


class Engine:
    """Scores prompts on one split.

    Args:
        lm: In the dtype to score in.
        template: Bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None for text answers.

    Raises:
        TemplateError: An answer has no tokens, two choices are the same to the tokenizer, or an example with its
            prompt is longer than the model's context.
    """

    def __init__(self, lm: LanguageModel, template: Template, split: Split, choices: Sequence[str] | None) -> None:
        check_answers(lm, choices, split)
        self._lm = lm
        self._template = template
        self._split = split
        self._choices = choices
        self._limit = BATCH_TOKENS.get(lm.device.type, BATCH_TOKENS["cpu"])
        self._layouts = [lay_out(template, lm, example, choices) for example in split.examples]
        self._context = np.array([layout.context for layout in self._layouts])
        self._lead = np.array([layout.lead for layout in self._layouts])
        self._lengths = np.array([sum(map(len, x.segments)) + max(map(len, x.answers)) for x in self._layouts])
        self._right = np.array([-1 if e.choice is None else e.choice for e in split.examples])
        self._one_token = choices is not None and all(len(a) == 1 for a in self._layouts[0].answers)
        parts = (ENGINE, self._limit, lm.hash, lm.tokenizer_hash, template.text, template.length, split.hash)
        config = json.dumps(lm.model.config.to_dict(), sort_keys=True, default=str)  # what weights alone do not say
        surroundings = (
            hashlib.sha256(config.encode()).hexdigest()[:20],
            str(lm.dtype),
            str(lm.device),
            torch.__version__,
            torch.get_num_threads(),
        )
        self.signature = repr((*parts, choices, *surroundings))
        self._check_length(template.length)

    # The scorer's side, see evaluation.Scorer.

    def length(self, prompt: Prompt) -> int:
        """Tokens that the prompt puts into the slots."""
        if isinstance(prompt, SoftPrompt):
            return len(prompt.vectors)
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

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self._lm.encode(text)

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""
        return self._lm.vocabulary

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
                vectors = [p.vectors if isinstance(p := prompts[i], SoftPrompt) else None for i in good]
                found = self._score([self._slots(prompts[i]) for i in good], vectors, examples)
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

    def loss(self, vectors: Tensor, examples: Ids) -> Tensor:
        """The mean loss in nats, shape `()`, differentiable in `vectors`.

        Args:
            vectors: Shape `(length, width)`, float32; cast to the LM's dtype inside.
            examples: Ids, shape `(batch,)`.

        Raises:
            PromptSearchError: The loss is not finite; names prompt and example.
        """
        losses = self._score([split_slots(self._template, [0] * len(vectors))], [vectors], examples)[0][0]
        if not bool(torch.isfinite(losses).all()):
            example = examples[int((~torch.isfinite(losses)).nonzero()[0])]
            raise PromptSearchError(
                f"the loss of the trained prompt on {self._split.name} example {example} is not finite: lower the rate"
            )
        return losses.mean()

    # Private.

    def _slots(self, prompt: Prompt) -> tuple[tuple[int, ...], ...]:
        if isinstance(prompt, SoftPrompt):
            return split_slots(self._template, [0] * len(prompt.vectors))
        return slots_of(self._template, self._lm, prompt)

    def _score(
        self, prompts: Sequence[tuple[tuple[int, ...], ...]], vectors: Sequence[Tensor | None], examples: Ids
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Losses (prompts, examples), metric (prompts, examples), choices (prompts, examples, choices), tokens computed."""
        rows, owners = [], []
        for i, slots in enumerate(prompts):
            for e in examples:
                layout = self._layouts[e]
                prefix = layout.join(slots)
                places = self._places(layout.lead, slots, layout.segments) if vectors[i] is not None else ()
                for answer in layout.answers[:1] if self._one_token else layout.answers:
                    # The last token of an answer is predicted, never read.
                    ids = [*prefix, *answer[:-1]]
                    rows.append(Row(ids, places, range(len(prefix) - 1, len(ids))))
                    owners.append(i)
        lengths = np.array([len(row.ids) for row in rows])
        tokens = torch.tensor([a[0] for a in self._layouts[0].answers], device=self._lm.device) if self._one_token else None
        parts, order = [], []
        for batch in batches(lengths, self._limit):
            chosen = [rows[r] for r in batch]
            logits = run(self._lm, chosen, [vectors[owners[r]] for r in batch], tokens)
            parts.append(logits if self._one_token else self._token_scores(logits, batch, examples))
            order.append(batch)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        flat = torch.cat(parts).cpu()[back]  # one line a row: logits of the choices, or (log-probability, all greedy)
        shape = (len(prompts), len(examples))
        computed = int(lengths.sum())
        if self._choices is None:
            losses, metric = self._text_losses(flat, shape, examples)
            return losses, metric, None, computed
        table = flat if self._one_token else flat[:, 0]
        right = torch.from_numpy(self._right[examples]).repeat(len(prompts))
        nats, correct, normalised = choice_scores(table.reshape(-1, len(self._choices)), right)
        return nats.reshape(shape), correct.float().reshape(shape), normalised.reshape(*shape, -1), computed

    def _token_scores(self, logits: Tensor, batch: Ids, examples: Ids) -> Tensor:
        """Per row: the answer's summed log-probability, and whether greedy decoding gives all of it, shape (rows, 2)."""
        answers = [a for e in examples for a in self._layouts[e].answers]
        targets = [answers[r % len(answers)] for r in batch]
        nats, greedy = token_scores(logits, torch.tensor([t for target in targets for t in target], device=logits.device))
        sizes = [len(target) for target in targets]
        sums = torch.stack([part.sum() for part in nats.split(sizes)])
        whole = torch.stack([part.all() for part in greedy.split(sizes)])
        return torch.stack([sums, whole.float()], -1)

    def _text_losses(self, flat: Tensor, shape: tuple[int, int], examples: Ids) -> tuple[Tensor, Tensor]:
        """The right answer's loss; right if greedy decoding gives the answer or one of its aliases."""
        counts = [len(self._layouts[e].answers) for e in examples] * shape[0]
        parts = flat.split(counts)  # each: (answers, 2), the right answer first
        losses = torch.stack([-part[0, 0] for part in parts])
        metric = torch.stack([part[:, 1].amax() for part in parts])
        return losses.reshape(shape), metric.reshape(shape)

    @staticmethod
    def _places(lead: int, slots: Sequence[Sequence[int]], segments: Sequence[Sequence[int]]) -> list[int]:
        """Where the slots' tokens stand in the joined row."""
        places: list[int] = []
        at = lead
        for slot, segment in zip(slots, segments[1:], strict=True):
            places += range(at, at + len(slot))
            at += len(slot) + len(segment)
        return places

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

    def _check_length(self, prompt: int) -> None:
        longest = int(self._lengths.argmax())
        tokens, limit = int(self._lengths[longest]) + prompt, self._lm.context
        if limit is not None and tokens > limit:
            raise TemplateError(
                f"{self._split.name} example {longest} has {tokens} tokens with a prompt of {prompt}, but the model reads at "
                f"most {limit}: shorten the example or leave it out (it is never cut silently)"
            )
