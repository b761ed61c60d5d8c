"""Solved examples that a text shows: which of its tokens are input, answer, or neither.

A text knows nothing of the examples that it was made of, so they are looked for: each example is
solved with each answer that it might have been shown with, also a wrong one. What neither an input
nor an answer brought is format: words of the template, separators, instructions around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from promptsearch.search.objective import Objective

#: Stands for an answer in a solved example, to see where that is: a character of no script.
_ANSWER = "\ue000"


@dataclass(frozen=True)
class Shown:
    """The tokens of a text by what they belong to.

    Args:
        ids: The ids of the text's tokens, shape `(tokens,)`.
        inputs: The places of tokens that hold text of an input; a token that holds text of an
            answer, too, is none of them.
        answers: The places of each answer's tokens, in the order of the text.
        examples: The id of the example of each answer.
    """

    ids: tuple[int, ...]
    inputs: frozenset[int]
    answers: tuple[range, ...]
    examples: tuple[int, ...]

    @staticmethod
    def joined(parts: Sequence[Shown]) -> Shown:
        """Texts that stand one after the other."""
        ids: list[int] = []
        inputs: set[int] = set()
        answers: list[range] = []
        for part in parts:
            inputs |= {len(ids) + place for place in part.inputs}
            answers += [range(len(ids) + a.start, len(ids) + a.stop) for a in part.answers]
            ids += part.ids
        examples = tuple(example for part in parts for example in part.examples)
        return Shown(tuple(ids), frozenset(inputs), tuple(answers), examples)

    def last(self, count: int) -> Shown:
        """The last tokens of the text; an answer of which some are left out is what is left of it.

        Args:
            count: The number of tokens.
        """
        cut = max(0, len(self.ids) - count)
        pairs = zip(self.answers, self.examples, strict=True)
        kept = [(answer, example) for answer, example in pairs if answer.stop > cut]
        return Shown(
            self.ids[cut:],
            frozenset(place - cut for place in self.inputs if place >= cut),
            tuple(range(max(0, answer.start - cut), answer.stop - cut) for answer, _ in kept),
            tuple(example for _, example in kept),
        )


class _Span(NamedTuple):
    """An example in a text: where it begins and ends, and its inputs and answer, in characters."""

    begin: int
    end: int
    example: int
    inputs: tuple[tuple[int, int], ...]
    answer: tuple[int, int]


def read_shown(objective: Objective, text: str) -> Shown:
    """Find the solved examples in a text.

    Only search examples that are not scored on are looked for.

    Args:
        objective: The objective, which has the examples.
        text: The text, as it fills a slot.
    """
    spans = _apart(_spans(objective, text)) if text else []
    ids = objective.encode(text)

    def tokens(begin: int, end: int) -> range:
        """The places of the tokens that hold some of these characters."""
        before, _ = _covered(objective, ids, text[:begin])
        covered, inside = _covered(objective, ids, text[:end])
        return range(before, covered + inside)

    answers = tuple(tokens(*span.answer) for span in spans)
    taken = {place for answer in answers for place in answer}
    inputs = {place for span in spans for part in span.inputs for place in tokens(*part)}
    examples = tuple(span.example for span in spans)
    return Shown(tuple(ids), frozenset(inputs - taken), answers, examples)


def _covered(objective: Objective, ids: Sequence[int], beginning: str) -> tuple[int, bool]:
    """The number of a text's tokens within its beginning, and whether one reaches out of it."""
    own = objective.encode(beginning)
    pairs = enumerate(zip(ids, own, strict=False))
    count = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(own)))
    return count, count < len(own)


def _spans(objective: Objective, text: str) -> Iterator[_Span]:
    """Every place in a text where a solved example might stand."""
    ids = objective.training
    examples = objective.examples(ids)
    known = {answer for each in examples for answer in (*(each.options or ()), each.answer)}
    # A message that holds nothing but its answer is stripped.
    known |= {answer.strip() for answer in known}
    solved = objective.demonstrations(ids, [_ANSWER] * len(ids))
    for example, around in zip(examples, solved, strict=True):
        head, _, tail = around.partition(_ANSWER)
        if head not in text or not (head + tail).strip():
            continue
        for answer in known:
            for begin in _places(text, head + answer + tail):
                at = begin + len(head)
                behind = at + len(answer)
                inputs = (
                    *_inputs(example.fields, head, begin),
                    *_inputs(example.fields, tail, behind),
                )
                yield _Span(begin, behind + len(tail), example.id, inputs, (at, behind))


def _inputs(fields: Mapping[str, str], part: str, begin: int) -> Iterator[tuple[int, int]]:
    """Where an example's fields first stand in a part of its text, in characters of the whole."""
    for value in map(str.strip, fields.values()):
        if value and (at := part.find(value)) >= 0:
            yield begin + at, begin + at + len(value)


def _places(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def _apart(spans: Iterator[_Span]) -> list[_Span]:
    """Spans that do not overlap, the first and longest ones, in the order of the text."""
    found: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.begin, -span.end, span.example)):
        if not found or span.begin >= found[-1].end:
            found.append(span)
    return found
