"""YAML without its traps: plain values, the line of every key, no key twice, no tags, and limits.

PyYAML reads single values by YAML 1.1, where `no` is False, `1e-3` a text, `010` eight, `12:30` a
number and `2024-01-01` a date. Labels in data are frequently such texts, so here the rules of YAML
1.2 hold: only `true` and `false` are booleans, `1e-3` is a number, and the rest is what it looks
like. A tag (`!!int`, `!python/name`) would say otherwise, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from promptsearch.errors import StudyError
from promptsearch.plain.limits import (
    CHARACTERS,
    DEPTH,
    DIGITS,
    TOO_DEEP,
    TOO_LARGE,
    TOO_LONG,
    TOO_MANY,
    VALUES,
    KeyPath,
)


class _Refused(yaml.MarkedYAMLError):
    """A document is YAML, but holds what is not read here."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count nodes while they are composed, so that what is too much is never built."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._count += 1
        self._depth += 1
        if self._count > VALUES:
            raise _Refused(TOO_MANY, event.start_mark)
        if self._depth > DEPTH + 1:
            raise _Refused(TOO_DEEP, event.start_mark)
        if tag := getattr(event, "tag", None):
            raise _Refused(
                f"the tag '{tag}' is not read: write the plain value, a text in quotes",
                event.start_mark,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda _, node: float(re.sub(r"\.(?=inf|nan)", "", node.value))
)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > 2 * DIGITS or len(re.sub(r"\D", "", node.value)) > DIGITS:
        raise _Refused(TOO_LARGE, node.start_mark)
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


class _Dumper(yaml.SafeDumper):
    """Writes in quotes, besides what YAML 1.1 would misread, the texts that `_Loader` would."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """The node of a text; U+0085 outside of double quotes is the end of a line."""
        node = self.represent_str(text)
        tag = _TAGS.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if tag != node.tag:
            node.style = "'"
        if "\x85" in text:
            node.style = '"'
        return node


#: Only what it says of a value's type is used.
_TAGS = _Loader("")
_Dumper.add_representer(str, _Dumper.represent_text)


def write_yaml(values: Any, width: int) -> str:
    """Plain values as YAML, which `read_yaml` and readers of YAML 1.1 take for the same values.

    Args:
        values: Mappings, lists, texts, numbers, booleans and None.
        width: The number of characters after which a line is broken.
    """
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width))


def read_yaml(text: str, source: str) -> tuple[Any, dict[KeyPath, str]]:
    """The plain values in a YAML document, and the line of every key.

    Args:
        text: One YAML document.
        source: What to call it in messages.

    Returns:
        The values, and where each stands: `("task", "splits") -> "line 7"`.

    Raises:
        StudyError: The text is no YAML, a key stands twice in one mapping, or the text is beyond
            the limits.
    """
    if len(text) > CHARACTERS:
        raise StudyError(f"{source}: {TOO_LONG}")
    reader = _Reader()
    try:
        reader.loader = loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return (None if node is None else reader.plain(node, (), ())), reader.places
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        lines = text.splitlines() or [""]
        # A bracket or a quote that is never closed is missed behind the last line.
        number = min(error.problem_mark.line if error.problem_mark else 0, len(lines) - 1)
        if isinstance(error, _Refused):
            raise StudyError(f"{source}, line {number + 1}: {error.problem}") from error
        line = lines[number]
        hint = (
            " A text with braces or a colon needs quotes around it."
            if "{" in line or line.count(":") > 1
            else ""
        )
        raise StudyError(
            f"{source}, line {number + 1}: this is not YAML: {error.problem}.{hint}"
        ) from error
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        character = f"the character U+{error.character:04X}"
        raise StudyError(
            f"{source}, line {number}: this is not YAML: {character} cannot stand in it"
        ) from error
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF" in a text is beyond all characters
        raise StudyError(f"{source}, line {loader.line + 1}: this is not YAML: {error}") from error


class _Reader:
    """Reads plain values out of nodes, and counts each as often as aliases name it."""

    loader: _Loader

    def __init__(self) -> None:
        self.places: dict[KeyPath, str] = {}
        self._count = 0

    def plain(self, node: yaml.Node, path: KeyPath, inside: tuple[int, ...]) -> Any:
        """The value of a node.

        Args:
            node: The node.
            path: The path of keys to it.
            inside: The ids of the nodes around it.
        """
        if id(node) in inside:
            raise yaml.MarkedYAMLError(
                problem="an alias stands inside what it names", problem_mark=node.start_mark
            )
        self._count += 1
        if self._count > VALUES:
            raise _Refused(TOO_MANY, node.start_mark)
        if len(path) > DEPTH:
            raise _Refused(TOO_DEEP, node.start_mark)
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode):
            return {
                key: self.plain(value, (*path, key), inside)
                for key, value in self._pairs(node, path, inside).items()
            }
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.places[(*path, i)] = f"line {item.start_mark.line + 1}"
            return [self.plain(item, (*path, i), inside) for i, item in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _pairs(
        self, node: yaml.MappingNode, path: KeyPath, inside: tuple[int, ...]
    ) -> dict[Hashable, yaml.Node]:
        """The nodes of a mapping's values, merged ones first; the place of each is noted.

        Args:
            node: The mapping.
            path: The path of keys to it.
            inside: The ids of the nodes around its values.
        """
        merges = [(key, value) for key, value in node.value if _is_merge(key)]
        if len(merges) > 1:
            raise yaml.MarkedYAMLError(
                problem="the key '<<' stands twice: write '<<: [*one, *other]'",
                problem_mark=merges[1][0].start_mark,
            )
        merged: dict[Hashable, yaml.Node] = {}
        for key_node, value_node in merges:
            for key, value in self._merged(key_node, value_node, path, inside):
                merged.setdefault(key, value)
        own: dict[Hashable, yaml.Node] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a single value", problem_mark=key_node.start_mark
                )
            key = self.loader.construct_object(key_node)
            if key in own:
                first = next(known for known in own if known == key)
                problem = f"the key '{key}' stands twice, first in {self.places[(*path, key)]}"
                if type(first) is not type(key):  # true is 1, and 1.0, too
                    problem += f" as '{first}': put quotes around both"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            self.places[(*path, key)] = f"line {key_node.start_mark.line + 1}"
            own[key] = value_node
        return merged | own

    def _merged(
        self, key: yaml.Node, value: yaml.Node, path: KeyPath, inside: tuple[int, ...]
    ) -> Iterator[tuple[Hashable, yaml.Node]]:
        """The pairs of the mappings that a merge key names, the first of them first."""
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(source, yaml.MappingNode):
                raise yaml.MarkedYAMLError(
                    problem="'<<' takes a mapping, or a list of mappings",
                    problem_mark=key.start_mark,
                )
            if id(source) in inside:
                raise yaml.MarkedYAMLError(
                    problem="an alias stands inside what it names", problem_mark=key.start_mark
                )
            self._count += len(source.value)
            if self._count > VALUES:
                raise _Refused(TOO_MANY, key.start_mark)
            yield from self._pairs(source, path, (*inside, id(source))).items()


def _is_merge(key: yaml.Node) -> bool:
    """Whether a key is YAML's merge key, which stands without quotes."""
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None
