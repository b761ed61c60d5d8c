"""Prompts made ready for use: what stands before a row's input is computed once and kept.

It is kept as keys and values, the trunk of the rows below it. A causal LM reads a prompt in front
of the input in the same way whatever follows, so any such prompt can be kept like this: tokens,
vectors, and prefixes, which are keys and values already. Gated prompts stand beside all rows of a
pass, and each row attends to one of them, whose place is the row's owner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from promptsearch.errors import FieldError, PromptError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.forward import embed, extend
from promptsearch.scoring.layout import Tokens, lay_out_input, leading, meeting, slots_of
from promptsearch.scoring.packing import pack
from promptsearch.scoring.reading import Reading, readings
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.scoring.tree import Path
from promptsearch.tasks.fields import text_in
from promptsearch.tasks.template import Template


class InputRow(NamedTuple):
    """An input under its prompt, up to the answer or around it.

    Args:
        trunk: The keys and values of what comes first.
        ids: The ids of all tokens below the trunk, at least one; an id below zero stands for a
            vector, as in `forward.run`.
        owner: The place of the row's gated prompt among those of the pass.
        behind: The ids behind the answer.
        mask: The token that stands for a token of the answer, see `Layout`.
        one_by_one: Whether each token of an answer is told by a row of its own.
        source: The ids of the encoder's row, where the others are those with which the decoder
            begins; none where there is no encoder.
    """

    trunk: KeysValues
    ids: Path
    owner: int = 0
    behind: Path = ()
    mask: int | None = None
    one_by_one: bool = False
    source: Path = ()

    @property
    def tokens(self) -> int:
        """The number of its tokens, those of encoder and decoder."""
        return len(self.trunk) + len(self.ids) + len(self.behind) + len(self.source)

    def longest(self, more: int = 0) -> int:
        """The length of what the model reads, or of the longer row of encoder and decoder.

        Args:
            more: The number of tokens that are added to the answer.
        """
        written = len(self.trunk) + len(self.ids) + len(self.behind) + more
        return max(written, len(self.trunk) + len(self.source))

    def room(self, context: int) -> int:
        """How many tokens an answer may have; below 1 where the row itself is too long.

        Args:
            context: The longest row that the model reads.
        """
        if (room := context - self.longest()) < 0:
            return room
        return context - self.tokens + len(self.source)

    def read(self, answer: Tokens) -> list[Reading]:
        """The rows that tell an answer.

        Args:
            answer: The ids of the answer.
        """
        return readings(
            self.ids,
            answer,
            self.behind,
            self.mask,
            one_by_one=self.one_by_one,
            source=self.source,
        )


@dataclass(frozen=True)
class Compiled:
    """A prompt in its template.

    Args:
        template: The template, bound.
        slots: The ids in each slot; the slot of a prompt that stands apart from the text is empty.
        above: The ids that begin every row.
        trunk: The keys and values of a prefix and of `above`; it has no
            tokens where rows cannot share.
        owner: The place of the gated prompt; for a prompt of another kind, the place of a gated
            prompt that adds nothing.
        each: What gives the prompt before an input, where it differs from one to the other; the
            slots are then its own.
    """

    template: Template
    slots: tuple[Tokens, ...]
    above: Path
    trunk: KeysValues
    owner: int = 0
    each: Callable[[Mapping[str, str]], Prompt] | None = None

    def row(self, lm: LanguageModel, fields: Mapping[str, Any]) -> InputRow:
        """An input below the prompt.

        Args:
            lm: The model, for its tokenizer.
            fields: The values of the template's fields.

        Raises:
            PromptError: The row holds no token, and a prefix predicts nothing itself.
        """
        if self.each is not None:
            own = _fill(self.each(fields), self.template, lm, 0)
            return replace(self, slots=own, each=None).row(lm, fields)
        layout = lay_out_input(self.template, lm, fields, self.slots)
        ids = layout.join(self.slots)
        if layout.mask is not None:
            behind = tuple(layout.join_behind(self.slots))
            row = InputRow(self.trunk, tuple(ids), self.owner, behind, layout.mask)
            return row._replace(one_by_one=layout.one_by_one)
        if layout.start:
            return InputRow(self.trunk, layout.start, self.owner, source=tuple(ids))
        if not ids:
            raise PromptError("no token stands before the answer: the model needs at least one")
        if not lm.passes.trees:
            return InputRow(self.trunk, tuple(ids), self.owner)
        # With an empty input the answer is predicted from the last token above, which runs again.
        if len(ids) == len(self.above):
            return InputRow(self.trunk[:-1], tuple(ids[-1:]), self.owner)
        return InputRow(self.trunk, tuple(ids[len(self.above) :]), self.owner)


@dataclass(frozen=True)
class Library:
    """All prompts of a model, made ready.

    Args:
        prompts: The prompts, in the order in which they were given.
        vectors: The vectors of all soft prompts among them, for which negative ids stand, shape
            `(vectors, width)`; None where there are none.
        adaption: All gated prompts among them; None where there are none.
    """

    prompts: list[Compiled]
    vectors: Tensor | None
    adaption: Adaption | None

    def beside(self, owners: Sequence[int]) -> Adaption | None:
        """The gated prompts, for the trees of a pass.

        Args:
            owners: The owner of each tree, see `InputRow`.
        """
        return None if self.adaption is None else self.adaption.of(owners)


def compile_prompts(lm: LanguageModel, prompts: Sequence[tuple[Prompt, Template]]) -> Library:
    """Compute what does not depend on inputs, for many prompts in each pass.

    Args:
        lm: The model.
        prompts: The prompts, each with its template, bound.

    Raises:
        PromptError: A prompt does not fit its template, or the model.
        TemplateError: A template does not fit the model's family.
        ModelError: The model takes no prefix, or no gated prompt.
    """
    compiled: list[Compiled] = []
    vectors: list[Tensor] = []
    gated: list[tuple[Tensor, Tensor]] = []
    rows = 0
    width = _width(lm, [prompt for prompt, _ in prompts])
    for prompt, given in prompts:
        template = meeting(given, lm)
        if (each := prompt.before(lm)) is not None:
            nothing = lm.passes.place(torch.empty(0, width))
            compiled.append(Compiled(template, (), (), nothing, len(gated), each))
            continue
        slots, parts = _fill(prompt, template, lm, rows), prompt.parts
        if parts.vectors is not None:
            vectors.append(parts.vectors)
            rows += len(parts.vectors)
        owner = len(gated)
        if parts.gated is not None:
            gated.append(parts.gated)
        trunk = torch.empty(0, width)
        if parts.keys_values is not None:
            trunk = parts.keys_values.flatten(1)
        # Changed weights change whatever is computed; and below a prefix of some layers stands what
        # has keys and values in all of them.
        shares = lm.passes.trees and prompt.frozen and width == lm.passes.values
        above = _beginning(template, lm, slots) if shares else ()
        compiled.append(Compiled(template, slots, above, lm.passes.place(trunk), owner))
    if gated and len(gated) < len(prompts):  # a gate of zero, for the others
        nobody = len(gated)
        gated.append((torch.zeros(1, 1, lm.gated_shape[2]), torch.zeros(1, 1)))
        compiled = [
            replace(one, owner=nobody) if prompt.parts.gated is None else one
            for one, (prompt, _) in zip(compiled, prompts, strict=True)
        ]
    with torch.inference_mode():
        library = Library(
            compiled,
            torch.cat(vectors) if vectors else None,
            lm.passes.adaption(gated) if gated else None,
        )
        limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
        for some in pack(
            [i for i, one in enumerate(compiled) if one.above],
            lambda i: len(compiled[i].above),
            lambda: limit,
            lambda i: len(compiled[i].trunk),
        ):
            beside = library.beside([compiled[i].owner for i in some])
            beginnings = [compiled[i].above for i in some]
            _, below = extend(
                lm, beginnings, [compiled[i].trunk for i in some], library.vectors, beside
            )
            for i, new in zip(some, below, strict=True):
                compiled[i] = replace(compiled[i], trunk=compiled[i].trunk.above(new))
    return library


def _width(lm: LanguageModel, prompts: Sequence[Prompt]) -> int:
    """The number of numbers in a token of the prompts' trunks.

    Raises:
        PromptError: There are prefixes that stand in different layers.
    """
    given = [kv for prompt in prompts if (kv := prompt.parts.keys_values) is not None]
    widths = {kv[0].numel() if len(kv) else lm.passes.values for kv in given}
    if len(widths) > 1:
        raise PromptError(
            "prefixes that stand in different layers cannot share a batch: expected those of one "
            "number of layers"
        )
    return next(iter(widths), lm.passes.values if lm.passes.trees or lm.family.encodes else 0)


def embedded(
    lm: LanguageModel, prompt: Prompt, template: Template, fields: Mapping[str, Any]
) -> Tensor:
    """The embeddings of a row up to the answer, without a prefix, shape `(tokens, width)`.

    Args:
        lm: The model.
        prompt: The prompt in the slots.
        template: The template, bound.
        fields: The values of the template's fields.
    """
    slots = _fill(prompt, template, lm, 0)
    ids = lay_out_input(template, lm, fields, slots).join(slots)
    return embed(lm, torch.tensor(ids, dtype=torch.long, device=lm.device), prompt.parts.vectors)


def fields_of(template: Template, given: Mapping[str, Any], place: str) -> dict[str, str]:
    """The texts that a user's input gives for the fields of a template.

    The input is read as strictly as the rows of data that the prompt was found on.

    Args:
        template: The prompt's template.
        given: The values by field name; other keys are left alone.
        place: Where the input stands, for the message.

    Raises:
        PromptError: The input lacks a field, or holds a value there that has no text.
    """
    try:
        return {name: text_in(given, name, place) for name in template.fields}
    except FieldError as error:
        raise PromptError(str(error)) from error


def check_fit(prompt: Prompt, template: Template) -> None:
    """Refuse a prompt that does not have as many tokens as the slots of its template.

    Raises:
        PromptError: The numbers differ; the message says how many tokens it has, and how many the
            slots take.
    """
    tokens = template.length if prompt.length is None else prompt.length
    if tokens != template.length:
        lengths = " + ".join(str(slot.length) for slot in template.slots)
        raise PromptError(
            f"the prompt {prompt.key} has {tokens} tokens, "
            f"but the slots of the template {template.text!r} take {lengths}"
        )


def _fill(prompt: Prompt, template: Template, lm: LanguageModel, first: int) -> tuple[Tokens, ...]:
    """The ids that a prompt puts into the slots; a prefix puts none there, because it is the trunk.

    Args:
        prompt: A prompt of any kind.
        template: The template, bound.
        lm: The model.
        first: The place of the prompt's first vector among those of all prompts.

    Raises:
        PromptError: The prompt does not fit the template or the model.
    """
    check_fit(prompt, template)
    prompt.check_model(lm)
    if prompt.parts.keys_values is not None:
        return ((),) * len(template.slots)
    return slots_of(template, lm, prompt, first)


def _beginning(template: Template, lm: LanguageModel, slots: Sequence[Tokens]) -> Path:
    """The ids of a row before the first segment with a field.

    The special tokens that begin this segment are among them.

    Args:
        template: The template, bound.
        lm: The model.
        slots: The ids in each slot.
    """
    segments = lay_out_input(template, lm, dict.fromkeys(template.fields, ""), slots).segments
    ids: list[int] = []
    for segment, slot in zip(segments[: template.fixed], slots, strict=False):
        ids += [*segment, *slot]
    return (*ids, *(leading(template, lm) if template.fixed == int(template.apart) else ()))
