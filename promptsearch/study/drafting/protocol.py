"""The kind of a task and what goes with it: template, answers, metrics, lengths, strategies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from promptsearch.study.drafting.columns import Column
from promptsearch.study.drafting.roles import SHORT, Roles, few
from promptsearch.tasks.fields import listed
from promptsearch.tasks.metrics.rouge import reads

#: `choices`: one of a few labels; `options`: one of each row's own list; `short`: a text that is
#: right or wrong; `long`: a text that is more or less like its references.
Kind = Literal["choices", "options", "short", "long"]
#: The share of rows of one label above which accuracy says little about the others.
_UNEVEN = 0.75
#: How much longer the inputs of a summary are than the summary.
_SUMMARY = 4
#: Names of fields that say little of what they hold, and words that do.
_WORDS = {
    **dict.fromkeys(("label", "labels", "gold", "gold_label", "class"), "label"),
    **dict.fromkeys(("answer", "answers", "answerkey", "answer_key", "correct"), "answer"),
    **dict.fromkeys(("references", "reference", "target", "targets", "output"), "output"),
    **dict.fromkeys(("outputs", "completion", "response"), "output"),
    "mr": "meaning representation",
}
#: Names of fields that say no more than the name of the field around them.
_WITHIN = ("stem", "text", "value")
#: Answers to a question that the label's name asks, such as `toxic`.
_YES_OR_NO = ({"yes", "no"}, {"true", "false"})
#: How many references of a row count in the loss, where rows have many: each is read by itself.
_REFERENCES = 2


@dataclass(frozen=True)
class Protocol:
    """How a task is put, answered and measured.

    Args:
        kind: See `Kind`.
        why: Why it is of this kind.
        template: The template.
        answers: Label -> answer text; None where no answers are written out.
        metric: The main metric.
        metrics: Further ones, which are reported beside it.
        references: How many references of a row count in the loss; None for all.
        tokens: The most tokens of a generated answer; 0 where none is generated.
        manual: A prompt as a person would write it.
    """

    kind: Kind
    why: str
    template: str
    answers: Mapping[str, str] | None
    metric: str
    metrics: tuple[str, ...]
    references: int | None
    tokens: int
    manual: str

    @property
    def generated(self) -> bool:
        """Whether answers are texts that the model writes."""
        return self.kind in ("short", "long")


def choose_protocol(roles: Roles) -> Protocol:
    """Choose how a task is put, answered and measured, from its fields.

    What a reader should check is added to `roles.checks`.

    Args:
        roles: What the fields are for.
    """
    label, kind = roles.label, _kind(roles)
    word = "answer" if kind == "options" else word_of(label.name)
    answers = _answers(roles) if kind == "choices" else None
    if kind == "choices" and label.numeric and roles.names is None:
        roles.checks.append(
            "the words under answers: a name says more to a model than a number, such as "
            "negative for 0"
        )
    metric, metrics = _metrics(kind, roles)
    return Protocol(
        kind=kind,
        why=_why(kind, label),
        template=_template(roles.inputs, word, ends="\n" if _one_line(kind, label) else ""),
        answers=answers,
        metric=metric,
        metrics=metrics,
        references=_REFERENCES if references_of(label) > _REFERENCES + 1 else None,
        tokens=_tokens(label) if kind in ("short", "long") else 0,
        manual=_manual(kind, roles, word, answers),
    )


def tokens_of(text: str) -> int:
    """About the tokens of a text, on the safe side: three bytes each."""
    return max(1, math.ceil(len(text.encode("utf-8", "replace")) / 3))


def word_of(name: str) -> str:
    """The words for what a field holds, made of its name.

    `past_tense` is a past tense, and `question.stem` a question.
    """
    outer, _, last = name.partition(".")
    if last.lower() in _WITHIN:
        name = outer
    known = [_WORDS[part] for part in name.lower().split(".") if part in _WORDS]
    if known:
        return known[0]
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_.\W]+", " ", name)
    return " ".join(spaced.lower().split()) or "answer"


def _kind(roles: Roles) -> Kind:
    label = roles.label
    if roles.options is not None:
        return "options"
    if label.kind != "texts" and few(label):
        return "choices"
    return "short" if label.words <= SHORT else "long"


def references_of(label: Column) -> float:
    """The mean number of right answers of a row."""
    return label.counts.total() / label.rows if label.kind == "texts" else 1.0


def _why(kind: Kind, label: Column) -> str:
    each = f"{label.distinct:,} different values of {label.words:.1f} words on average"
    if kind == "options":
        return f"each row has options of its own, and '{label.name}' says which is right"
    if kind == "choices":
        return f"'{label.name}' has {label.distinct} values: {listed(ordered(label))}"
    held = "lists of references, " if label.kind == "texts" else ""
    return f"'{label.name}' holds {held}{each}"


def ordered(label: Column) -> list[str]:
    """The different values of a label, numbers by their size and texts by their letters."""
    return sorted(label.counts, key=float if label.numeric else str)


def _answers(roles: Roles) -> dict[str, str]:
    words: dict[str | None, str | None] = {}
    if roles.names is not None:
        words = dict(zip(roles.label.texts, roles.names.texts, strict=True))
    # The template has the space before an answer, and none stands behind it.
    return {text: (words.get(text) or text).strip() for text in ordered(roles.label)}


def _metrics(kind: Kind, roles: Roles) -> tuple[str, tuple[str, ...]]:
    """The main metric, and those beside it."""
    label = roles.label
    if kind == "options":
        return "accuracy", ()
    if kind == "choices":
        largest = max(label.counts.values()) / label.counts.total()
        return ("f1", ("accuracy",)) if largest > _UNEVEN else ("accuracy", ())
    if kind == "short":
        return "exact_match", ("token_f1",) if label.words > 1.2 else ()
    able = {"bleu": "sacrebleu", "rougeL": "rouge_score"}
    if not reads(label.counts):  # of words in other letters, ROUGE knows none, and BLEU few
        able = {"chrf": "sacrebleu"}
    found = [name for name, library in able.items() if find_spec(library)]
    if len(found) < len(able):
        roles.checks.append(
            "the metrics: BLEU, chrF and ROUGE come with pip install 'promptsearch-kit[metrics]'"
        )
    if sum(column.words for column in roles.inputs) > _SUMMARY * label.words:
        found.reverse()
    return (found[0], (*found[1:], "token_f1")) if found else ("token_f1", ())


def _one_line(kind: Kind, label: Column) -> bool:
    """Whether the end of the line can end an answer."""
    return kind in ("short", "long") and not any("\n" in text for text in label.counts)


def _tokens(label: Column) -> int:
    """The most tokens of an answer: with room above the longest but one in fifty, in eights."""
    lengths = sorted(map(tokens_of, label.counts))
    usual = lengths[min(len(lengths) - 1, len(lengths) * 98 // 100)]
    return 8 * math.ceil((usual + 1) / 8)


def _template(inputs: Sequence[Column], word: str, ends: str) -> str:
    parts = [f"{{{column.name}}}" for column in inputs]
    if len(parts) > 1:
        named = [word_of(column.name).capitalize() for column in inputs]
        parts = [f"{name}: {part}" for name, part in zip(named, parts, strict=True)]
    return f"{{prompt}} {' '.join(parts)} {word.capitalize()}: {{answer}}{ends}"


def _manual(kind: Kind, roles: Roles, word: str, answers: Mapping[str, str] | None) -> str:
    """A prompt as a person would write it."""
    given = " and the ".join(word_of(column.name) for column in roles.inputs)
    if kind == "options":
        return f"Choose the right answer to the {given}."
    if kind == "choices" and answers and len(answers) <= 6:
        *most, last = answers.values()
        if {text.lower() for text in answers.values()} in _YES_OR_NO:
            asked = "" if word in ("answer", "label", "output") else f"Is the {given} {word}? "
            return f"{asked}Answer {', '.join(most)} or {last}."
        return f"Choose the {word} of the {given}: {', '.join(most)} or {last}."
    verb = {"choices": "Choose", "short": "Give", "long": "Write"}[kind]
    return f"{verb} the {word} {'for' if kind == 'long' else 'of'} the {given}."
