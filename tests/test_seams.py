"""Tests ask things by their public names: a private one may change with no test failing."""

from __future__ import annotations

import ast
from pathlib import Path

#: What is left: doors that cheats try, faults put into files and models from inside.
MOST = 17


def own_names(tree):
    """The private names that a file gives itself: attributes, functions, classes and variables."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) == "self"
        ):
            found.add(node.attr)
    return found


def touches(text):
    """The private names of others that a test file reads, sets or replaces, each with its line."""
    tree = ast.parse(text)
    own = own_names(tree) | {"_exit"}  # os._exit is public, whatever its name
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and str(node.value).startswith("promptsearch."):
            found.append((node.lineno, str(node.value).rpartition(".")[2]))  # to be replaced
    return [
        (line, name)
        for line, name in found
        if name.startswith("_") and not name.startswith("__") and name not in own
    ]


def test_private_names_are_told_from_public_ones():
    text = """
from a import _b, c
class D:
    def __init__(self): self._e = c
d = D()
d._e, d.f, d._g, d.__dict__, d._h._i
patch("promptsearch.files._j", "promptsearch.k")
"""
    names = [(2, "_b"), (6, "_g"), (6, "_h"), (6, "_i"), (7, "_j")]
    assert sorted(touches(text)) == names


def test_tests_touch_few_private_names():
    folder = Path(__file__).parent
    found = [
        f"{path.relative_to(folder)}:{line} {name}"
        for path in sorted(folder.rglob("*.py"))
        for line, name in touches(path.read_text(encoding="utf-8"))
    ]
    assert len(found) <= MOST, "\n".join(found)
