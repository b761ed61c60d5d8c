"""Inputs of many prompts, packed into passes of a language model.

The engine's words: a row's *trunk* is the keys and values of what comes first, which are *kept*
instead of computed again for each row. What stands *beside* the rows of a pass are gated prompts,
which layers read apart from the tokens; a row's *owner* is the place of its own one among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.export.inputs import Input
from promptsearch.models import LanguageModel
from promptsearch.models.family import Family
from promptsearch.scoring.answers import answer_scores
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.ending import Ending
from promptsearch.scoring.forward import run
from promptsearch.scoring.layout import Tokens
from promptsearch.scoring.packing import pack
from promptsearch.scoring.reading import Reading, joined, lines_of, spans, together, tree_of
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.tasks.decoding import Decoding


class Passes:
    """The passes of one model, below one set of prompts.

    Args:
        lm: The LM.
        library: The prompts, made ready.
        weights: The changed weights that all rows are read with; empty for all other prompts.
    """

    def __init__(self, lm: LanguageModel, library: Library, weights: Mapping[str, Tensor]) -> None:
        self._lm, self._library, self._weights = lm, library, weights

    @property
    def _limit(self) -> int:
        """The most tokens that a pass computes."""
        return PASS_TOKENS.get(self._lm.device.type, PASS_TOKENS["cpu"])

    def log_probabilities(
        self, inputs: Sequence[Input], answers: Sequence[Sequence[Tokens]]
    ) -> list[Tensor]:
        """The log-probabilities of each input's answers.

        Args:
            inputs: The inputs.
            answers: The ids of each one's answers, at least one each.

        Returns:
            For each input in nats, float64 on the CPU, shape `(answers,)`.

        Raises:
            PromptError: An input is too long for the model, or what it computes is not finite.
        """
        lm = self._lm
        for each, some in zip(inputs, answers, strict=True):
            each.check_length(max(map(len, some)), lm.context)
        # The tokens that run below the trunk.
        sizes = [
            _size(each.row, some, lm.family) for each, some in zip(inputs, answers, strict=True)
        ]
        found: dict[int, Tensor] = {}
        with lm.changed(self._weights):
            for places in _groups([each.row for each in inputs], sizes, self._limit):
                nats = self._score([inputs[i].row for i in places], [answers[i] for i in places])
                found.update(zip(places, nats, strict=True))
        for i, each in enumerate(inputs):
            if not bool(found[i].isfinite().all()):
                raise self._not_finite(each)
        return [found[i] for i in range(len(inputs))]

    def generate(
        self, inputs: Sequence[Input], tokens: int | None = None, stop: str | None = None
    ) -> list[str]:
        """The continuation of each input up to its end, in the way of its prompt's task.

        Args:
            inputs: The inputs.
            tokens: The most tokens to add, fewer where the model's context ends; None: those of
                each prompt's decoding.
            stop: A text before which a continuation ends, besides what ends the prompt's answers.

        Raises:
            PromptError: No token may be added, or an input is too long for the model.
        """
        lm = self._lm
        if tokens is not None and tokens < 1:
            raise PromptError(f"expected at least one token to generate, got {tokens}")
        together: dict[tuple[Decoding, str, str], list[int]] = {}
        for i, each in enumerate(inputs):
            each.check_length(1, lm.context)
            saved = each.saved
            way = saved.decoding if tokens is None else replace(saved.decoding, tokens=tokens)
            # Rows that are decoded or end in another way go through the model apart.
            key = way, saved.template.end, saved.template.end_token
            together.setdefault(key, []).append(i)
        found: dict[int, str] = {}
        with lm.changed(self._weights):
            for (way, *_), places in together.items():
                some = [inputs[i] for i in places]
                found.update(zip(places, self._go_on(some, way, stop or ""), strict=True))
        return [found[i] for i in range(len(inputs))]

    def _go_on(self, inputs: Sequence[Input], decoding: Decoding, stop: str) -> list[str]:
        """The continuations of inputs that are decoded, and end, in the same way."""
        lm = self._lm
        ending = Ending(lm, inputs[0].saved.template, stop)
        starts = [Start.of(lm, each.row, decoding, each.place) for each in inputs]
        found, _ = go_on(lm, starts, self._library, ending.reached, decoding)
        for each, written in zip(inputs, found, strict=True):
            if not written.answers:
                raise self._not_finite(each)
        return [ending.text(written.answers[0]) for written in found]

    def _not_finite(self, given: Input) -> PromptError:
        exact = self._lm.dtype == torch.float32
        return PromptError(
            f"{given.place}: what the model computes under its prompt is not finite"
            + ("" if exact else f" in {str(self._lm.dtype)[6:]}: set dtype to float32")
        )

    def _score(self, rows: Sequence[InputRow], answers: Sequence[Sequence[Tokens]]) -> list[Tensor]:
        """The log-probabilities of each row's answers, from one pass."""
        lm = self._lm
        told = [
            [each.read(answer) for answer in own] for each, own in zip(rows, answers, strict=True)
        ]
        wanted: list[Reading] = []
        trees, trunks = [], []
        order: list[int] = []  # the places among what is wanted of the trees' rows
        for row, some in zip(rows, told, strict=True):
            own = [one for part in some for one in part]
            for places in together(own, lm):
                trees.append(tree_of([own[i] for i in places], len(row.trunk)))
                trunks.append(row.trunk)
                order += [len(wanted) + i for i in places]
            wanted += own
        with torch.inference_mode():
            beside = self._library.beside([row.owner for row in rows])
            states, begins = run(
                lm, trees, trunks if any(map(len, trunks)) else None, self._library.vectors, beside
            )
            lines = lines_of(trees, begins, order)
            predict = [
                line[one.at : one.at + len(one.tokens)]
                for line, one in zip(lines, wanted, strict=True)
            ]
            found = answer_scores(lm, states, predict, [one.tokens for one in wanted])
            nats = joined(found, [len(some) for own in told for some in own])[:, 0].cpu()
        return list(nats.split([len(some) for some in answers]))


def _size(row: InputRow, answers: Sequence[Tokens], family: Family) -> int:
    """The tokens below the trunk with which a row is read for its answers."""
    told = spans(family, answers, one_by_one=row.one_by_one)
    times = len(told) if family.middle else 1
    return (len(row.ids) + len(row.behind) + len(row.source)) * times + sum(told)


def _groups(rows: Sequence[InputRow], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Groups of rows with similar prompts and sizes, each as large as one pass takes.

    The longest come first.

    Args:
        rows: All rows.
        sizes: For each row, the number of tokens that the pass computes.
        limit: The most tokens that a pass computes; for the limit on kept tokens above them, see
            `pack`.

    Yields:
        The places of one pass's rows.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].trunk), -sizes[i]))
    return pack(order, lambda i: sizes[i], lambda: limit, lambda i: len(rows[i].trunk))
