"""The rows of a split under a template: what is planned goes through the LM.

The work is done wave by wave, and within a wave pass by pass. A wave is the work whose trunks are
held in memory together; a trunk is what rows begin with alike, computed once, and the other tokens
of these rows stand below it. The lead of an example is its tokens before the first slot. What is
kept stays from call to call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.device import in_words
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.answer_ids import Tokens
from promptsearch.scoring.answers import answer_scores
from promptsearch.scoring.forward import given_trunks, ran_out, run, run_above
from promptsearch.scoring.kinds import Placed, Placing, Sharing
from promptsearch.scoring.memory import Memory
from promptsearch.scoring.reading import Layout, Reading, joined, lines_of, together, tree_of
from promptsearch.scoring.sharing import PASS_TOKENS, Plan
from promptsearch.scoring.tree import grow
from promptsearch.scoring.waves import Group, Wave, passes

log = logging.getLogger(__name__)

#: One prompt that puts nothing into a single slot.
_NOTHING = Placed([((),)])


@dataclass(frozen=True)
class _Call:
    """The data that the passes of one wave have in common.

    Args:
        wave: The wave, with its trunks.
        placed: The prompts.
        trunks: The keys and values of the wave's trunks.
        entering: The states of each example that enter the lowest layer that reads gated prompts.
    """

    wave: Wave
    placed: Placed
    trunks: Sequence[KeysValues] = ()
    entering: Mapping[int, Tensor] = field(default_factory=dict)


class TokenRows:
    """The rows of prompts with examples, and what computes them.

    Args:
        lm: The model, in the dtype to compute in.
        layouts: The layouts of all examples.
        placing: The way in which the template's prompts go through the LM.
        one_token: Whether each answer is one token, whose logits are read from one row.
        name: The split's name, for messages.
        memory: The bytes for keys and values; None: as many as the work at hand wants.
        keep: Whether what no prompt changes is kept from call to call, as far as `memory` allows.

    Attributes:
        plan: The plan by which work is shared and cut.
        limit: The most tokens of a pass; it becomes smaller once memory has run out.
        memory: What is kept from call to call.

    Raises:
        ModelError: `memory` does not hold what is kept of one example.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layouts: Sequence[Layout],
        placing: Placing,
        *,
        one_token: bool,
        name: str,
        memory: int | None,
        keep: bool,
    ) -> None:
        self._lm, self._layouts, self._one_token = lm, layouts, one_token
        self.limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
        whole = range(len(layouts)) if placing.states else ()
        self.memory = Memory(
            lm,
            layouts,
            [
                grow([one.ids for some in self._readings(_NOTHING, 0, i, 0) for one in some])
                for i in whole
            ],
            name=name,
            memory=memory,
            keep=keep,
            limit=lambda: self.limit,
        )
        self.plan = Plan(
            layouts,
            shares=lm.passes.trees,
            one_token=one_token,
            kept=self.memory.kept,
            wave=self.memory.wave,
            placing=placing,
        )

    def compute(
        self,
        placed: Placed,
        examples: ExampleIds,
        sharing: Sharing | None = None,
    ) -> tuple[Tensor, ExampleIds, int]:
        """The answers' logits or log-probabilities, for all prompts with all examples.

        Args:
            placed: The prompts.
            examples: Ids, each once, shape `(examples,)`; where prompts are paired with them, as
                many as prompts.
            sharing: What to share; left out: what the plan chooses.

        Returns:
            A line for each prompt and each answer that is read, on the CPU, shape
            `(prompts, answers, ...)`, where paired prompts count as one: the logits of the choices,
            or the answer's log-probability and whether all of it is greedy; or, with
            `Placed.states`, a line for each of its tokens; the places where the lines of each
            example begin, shape `(examples + 1,)`; and the number of tokens that went through the
            LM.
        """
        answers = [self._count(placed, int(e)) for e in examples]
        begins = np.concatenate([[0], np.cumsum(answers)])
        column = {int(e): int(begin) for e, begin in zip(examples, begins, strict=False)}
        prompts = placed.slots
        parts, lines = [], []
        tokens = 0.0
        for wave in (
            self.plan.pairs(prompts, examples)
            if placed.paired
            else self.plan.waves(sharing or self.plan.choose(prompts, examples), prompts, examples)
        ):
            call, count = self._call(wave, placed)
            tokens += count
            for groups in passes(wave, lambda: self.limit):
                found, count = self._pass(call, groups)
                parts.append(found)
                lines += [
                    (0 if placed.paired else p) * int(begins[-1]) + column[e] + a
                    for group in groups
                    for p in group.prompts
                    for e in group.examples
                    for a in range(self._count(placed, e))
                ]
                tokens += count
        back = torch.empty(len(lines), dtype=torch.long)
        back[torch.tensor(lines)] = torch.arange(len(lines))
        table = torch.cat(parts).cpu()[back]
        return table.unflatten(0, (-1, int(begins[-1]))), begins, round(tokens)

    # Private.

    def _call(self, wave: Wave, placed: Placed) -> tuple[_Call, float]:
        """The data that a wave's passes read, and the number of tokens computed for these."""
        if (adaption := placed.adaption) is not None:
            examples = list(dict.fromkeys(e for group in wave.groups for e in group.examples))
            states, computed = self.memory.states(adaption.first, examples)
            share = adaption.first / self._lm.gated_shape[0]
            return _Call(wave, placed, entering=states), share * computed
        if placed.keys_values is not None:
            return _Call(wave, placed, given_trunks(self._lm, wave.trunks, placed.keys_values)), 0.0
        trunks, computed = self.memory.trunks(wave.trunks, placed.vectors)
        return _Call(wave, placed, trunks), computed

    def _pass(self, call: _Call, groups: Sequence[Group]) -> tuple[Tensor, float]:
        """One pass, which goes in halves if it does not fit into the memory of the device.

        Returns:
            A line for each answer of the groups, in order: the logits of the choices, or the
            answer's log-probability and whether all of it is greedy; and the number of tokens that
            were computed.

        Raises:
            ModelError: The memory of the device does not hold a single row.
        """
        try:
            return self.forward(call, groups)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if len(groups) == 1 and len(groups[0].prompts) * len(groups[0].examples) == 1:
                raise ModelError(
                    f"the memory of {in_words(self._lm.devices)} does not hold one row of "
                    f"{groups[0].tokens} tokens: take a smaller model, a smaller `memory`, or "
                    "another device"
                ) from error
        if self.limit > groups[0].tokens:
            self.limit = min(
                self.limit, max(groups[0].tokens, sum(group.tokens for group in groups) // 2)
            )
            log.warning("out of memory: from now on passes of %d tokens", self.limit)
        some = groups if len(groups) > 1 else _split(groups[0])
        halves = [some[: len(some) // 2], some[len(some) // 2 :]]
        found = [self._pass(call, half) for half in halves]
        return torch.cat([table for table, _ in found]), sum(count for _, count in found)

    def _read(self, placed: Placed, example: int) -> Sequence[Tokens]:
        """The answers for which rows of an example are read: one for all that are one token.

        Args:
            placed: The prompts.
            example: The example's id.
        """
        if placed.told is not None:
            return [placed.told[:1]]
        answers = self._layouts[example].answers
        return answers[:1] if self._one_token else answers

    def _count(self, placed: Placed, example: int) -> int:
        """The number of lines that an example gives with each prompt."""
        read = self._read(placed, example)
        return sum(map(len, read)) if placed.states else len(read)

    def _one_of(self, placed: Placed) -> Tokens | None:
        """The tokens of which each is an answer of its own; None where answers are longer."""
        if placed.told is not None or not self._one_token:
            return placed.told
        return tuple(answer[0] for answer in self._layouts[0].answers)

    def _readings(self, placed: Placed, p: int, example: int, above: int) -> list[list[Reading]]:
        """The rows of an example with a prompt, those that tell each answer that is read.

        Args:
            placed: The prompts.
            p: The place of the prompt among them.
            example: The example's id.
            above: The number of tokens of the trunk above the rows.
        """
        layout, slots = self._layouts[example], placed.slots[p]
        return [layout.read(slots, answer, above) for answer in self._read(placed, example)]

    def forward(self, call: _Call, groups: Sequence[Group]) -> tuple[Tensor, float]:
        """The answers' losses of one pass, and the tokens that it computes."""
        trees, used = [], []
        told: list[Reading] = []
        order: list[int] = []  # the places among what is told of the trees' rows
        counts: list[int] = []  # the number of rows that tell each answer
        for group in groups:
            above = len(call.wave.trunks[group.trunk]) if group.trunk >= 0 else 0
            rows = [
                read
                for p in group.prompts
                for e in group.examples
                for read in self._readings(call.placed, p, e, above)
            ]
            counts += map(len, rows)
            own = [one for some in rows for one in some]
            for places in together(own, self._lm):
                trees.append(tree_of([own[i] for i in places], above))
                used.append(group.trunk)
                order += [len(told) + i for i in places]
            told += own
        computed: float = sum(tree.tokens for tree in trees)
        if (adaption := call.placed.adaption) is not None:
            # Each group is one prompt with one example.
            entered = [call.entering[group.examples[0]] for group in groups]
            states, begins = run_above(
                self._lm, trees, entered, adaption.of([group.prompts[0] for group in groups])
            )
            computed *= 1 - adaption.first / self._lm.gated_shape[0]
        else:
            trunks = [call.trunks[trunk] for trunk in used] if call.trunks else None
            states, begins = run(self._lm, trees, trunks, call.placed.vectors)
        lines = lines_of(trees, begins, order)
        if (one := self._one_of(call.placed)) is not None:
            tokens = torch.tensor(one, device=self._lm.device)
            places = [line[one.at] for line, one in zip(lines, told, strict=True)]
            return self._lm.passes.logits(
                states[torch.tensor(places, device=states.device)], tokens
            ), computed
        wanted = [one.tokens for one in told]
        places_of = [
            line[one.at : one.at + len(one.tokens)] for line, one in zip(lines, told, strict=True)
        ]
        if call.placed.states:
            at = [place for row in places_of for place in row]
            return states[torch.tensor(at, device=states.device)], computed
        return joined(answer_scores(self._lm, states, places_of, wanted), counts), computed


def _split(group: Group) -> list[Group]:
    """A group's parts: one for each prompt, or, where it has a single prompt, for each example."""
    if len(group.prompts) > 1:
        return [
            Group(group.trunk, [p], group.examples, group.tokens // len(group.prompts))
            for p in group.prompts
        ]
    return [
        Group(group.trunk, group.prompts, [e], group.tokens // len(group.examples))
        for e in group.examples
    ]
