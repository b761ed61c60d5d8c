"""YAML without its traps: plain values, the line of every key, and no key twice.

PyYAML reads single values by YAML 1.1, where `no` is False, `1e-3` a text, `010` eight, `12:30` a number and
`2024-01-01` a date. Labels in data are frequently such texts, so here the rules of YAML 1.2 hold: only `true` and
`false` are booleans, `1e-3` is a number, and the rest is what it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from promptsearch.errors import StudyError

#: From the top of a document to a value: keys of mappings and places in lists.
KeyPath = tuple[Hashable, ...]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(re.sub(r"\.(?=inf|nan)", "", node.value)))


def read_yaml(text: str, source: str) -> tuple[Any, dict[KeyPath, str]]:
    """Plain values from YAML, and the line of every key.

    Args:
        text: One YAML document.
        source: What to call it in messages.

    Returns:
        The values, and where each stands: `("task", "splits") -> "line 7"`.

    Raises:
        StudyError: It is no YAML, or a key stands twice in one mapping.
    """
    places: dict[KeyPath, str] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return (None if node is None else _plain(loader, node, (), places, ())), places
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        number = error.problem_mark.line if error.problem_mark else 0
        line = (text.splitlines() or [""])[min(number, text.count("\n"))]
        hint = " A text with braces or a colon needs quotes around it." if "{" in line or line.count(":") > 1 else ""
        raise StudyError(f"{source}, line {number + 1}: this is not YAML: {error.problem}.{hint}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{source}: this is not YAML: {error}") from error


def _plain(loader: _Loader, node: yaml.Node, path: KeyPath, places: dict[KeyPath, str], inside: tuple[int, ...]) -> Any:
    if id(node) in inside:
        raise yaml.MarkedYAMLError(problem="an alias stands inside what it names", problem_mark=node.start_mark)
    inside = (*inside, id(node))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a single value", problem_mark=key_node.start_mark)
            key = loader.construct_object(key_node)
            if key in mapping:
                first = places[(*path, key)]
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' stands twice, first in {first}", problem_mark=key_node.start_mark
                )
            places[(*path, key)] = f"line {key_node.start_mark.line + 1}"
            mapping[key] = _plain(loader, value_node, (*path, key), places, inside)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for i, item in enumerate(node.value):
            places[(*path, i)] = f"line {item.start_mark.line + 1}"
            items.append(_plain(loader, item, (*path, i), places, inside))
        return items
    return loader.construct_object(node)
