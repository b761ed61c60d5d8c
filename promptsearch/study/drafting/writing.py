"""The text of a study file: each line with a comment that says what it is for."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from promptsearch.study.drafting.protocol import Protocol
from promptsearch.study.drafting.roles import Roles
from promptsearch.study.drafting.sizes import LENGTH, Sizes

#: The longest line, and where comments begin behind shorter ones.
_WIDTH, _COMMENT = 120, 48
#: The longest key that YAML knows by the colon behind it.
_KEY = 1000
#: Texts that need no quotes, in YAML 1.1 and 1.2 alike.
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z][\w.-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """A line of a study file.

    Args:
        text: What stands there, with its indentation.
        comment: What it is for; empty where the lines around say it.
    """

    text: str
    comment: str = ""

    def __str__(self) -> str:
        """The line with its comment behind it, or above it where that would be too long."""
        if not self.comment:
            return self.text
        behind = f"{self.text.ljust(_COMMENT)}  # {self.comment}"
        if len(behind) <= _WIDTH:
            return behind
        indent = " " * (len(self.text) - len(self.text.lstrip()))
        mark = f"{indent}# "
        above = textwrap.fill(
            self.comment,
            _WIDTH,
            initial_indent=mark,
            subsequent_indent=mark,
            break_long_words=False,
        )
        return f"{above}\n{self.text}"


def written(name: str, data: str, roles: Roles, protocol: Protocol, sizes: Sizes) -> str:
    """The study file.

    Args:
        name: The name of the study and its task.
        data: The path of the data, as the study file names it.
        roles: What the fields are for.
        protocol: How the task is put and answered.
        sizes: How large the study is.
    """
    head = [
        Line("# Drafted by `promptsearch init`: read it, and change what you know better."),
        Line("#   promptsearch plan FILE     says what it will compute, and how long that takes"),
        Line("#   promptsearch compare FILE  runs it"),
    ]
    lines = [*head, *_study(name, sizes), *_task(data, roles, protocol, sizes)]
    lines += _strategies(protocol, sizes)
    return "\n".join(map(str, lines)) + "\n"


def quoted(text: str) -> str:
    """A text as YAML reads it back: plain words as they stand, all else in quotes."""
    if _PLAIN.fullmatch(text) and text.isascii():
        return text
    marked = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in marked)


def _mapping(pairs: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"


def _study(name: str, sizes: Sizes) -> Iterator[Line]:
    yield Line(f"name: {quoted(name)}", "names the study in its report")
    yield Line(
        "model: smollm2-135m-instruct", "small and at hand; or a Hub name, a folder, a .gguf file"
    )
    yield Line(f"length: {LENGTH}", "prompt tokens in the slot {prompt}")
    yield Line("pool: 2000", "hard prompts are made of the tokenizer's 2,000 most frequent words")
    yield Line(
        f"budget: {sizes.budget}",
        f"LM tokens of each run, at about {sizes.row} a row: for 60 evaluations and the selection "
        "of a winner",
    )
    yield Line(f"score_on: {sizes.score_on}", "search examples of each evaluation")
    yield Line("seeds: 5", "they tell luck from skill; 1 for a first look, at a fifth of the cost")


def _task(data: str, roles: Roles, protocol: Protocol, sizes: Sizes) -> Iterator[Line]:
    yield Line("task:")
    where = "where it lies" + ("" if Path(data).is_absolute() else ", relative to this file")
    yield Line(f"  data: {{path: {quoted(data)}}}", where)
    yield Line(
        f"  template: {quoted(protocol.template)}",
        "{prompt} is searched, the other names in braces are fields, {answer} is what is scored"
        + ("; the end of the line ends it" if protocol.template.endswith("\n") else ""),
    )
    yield Line(f"  label: {quoted(roles.label.name)}", "the field of the right answer")
    if protocol.references is not None:
        yield Line(
            f"  references: {protocol.references}", "as many count in the loss; metrics take all"
        )
    if protocol.answers is not None:
        yield Line("  answers:", "label: the text that the model is to give")
        for label, text in protocol.answers.items():
            key = label if re.fullmatch(r"0|-?[1-9]\d{0,8}", label) else quoted(label)
            if len(key) <= _KEY:
                yield Line(f"    {key}: {quoted(text)}")
            else:
                yield from (Line(f"    ? {key}"), Line(f"    : {quoted(text)}"))
    if roles.options is not None:
        fields = {"field": quoted(roles.options.name)}
        why = "the options differ by row"
        if roles.marks is not None:
            fields["names"] = quoted(roles.marks.name)
            why += ", and the label is what the right one is called by"
        yield Line(f"  answers: {_mapping(fields)}", why)
    if sizes.group is not None:
        yield Line(
            f"  group: {quoted(sizes.group.name)}", "rows with the same value stay in one split"
        )
    yield Line(
        f"  splits: {_mapping(sizes.splits)}",
        "search finds prompts, select picks the winner, test measures it once; another template "
        "draws all of them anew, unless the data say which rows they have",
    )
    yield Line(f"  metric: {protocol.metric}", "what the verdict is about")
    if protocol.metrics:
        yield Line(f"  metrics: [{', '.join(protocol.metrics)}]", "reported beside it")
    if protocol.tokens:
        yield Line(
            f"  decoding: {{tokens: {protocol.tokens}}}",
            "the most tokens of an answer, above the length of nearly all right ones",
        )


def _strategies(protocol: Protocol, sizes: Sizes) -> Iterator[Line]:
    yield Line("strategies:")
    prompts = f"[{quoted(protocol.manual)}]"
    yield Line(f"  - manual: {{prompts: {prompts}}}", "a prompt by hand, and none at all")
    yield Line(f"  - exemplars: {{shots: {sizes.shots}}}", "solved examples in the prompt")
    yield Line("  - random", "words at random: what every search must beat")
    yield Line("  - evolution", "a search over words that sees losses only")
    if protocol.kind == "long":
        yield Line("  - prefix_tuning", "trained vectors at every layer, made for generation")
    else:
        yield Line("  - prompt_tuning", "trained vectors in place of the prompt's words")
