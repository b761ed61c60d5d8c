"""Which strategies there are, and what a list of them shows.

The list is read from the strategies' source: nothing is imported, so that it does not wait for
torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

#: The group of entry points in which packages say which strategies they bring.
GROUP = "promptsearch.strategies"


@dataclass(frozen=True)
class Summary:
    """A strategy in a line.

    Args:
        access: What the strategy needs of the model: `scores`, `logits`, `gradients` or `weights`.
        proposes: The names of the kinds of prompt that the strategy proposes, sorted.
        text: The first line of the strategy's docstring.
    """

    access: str
    proposes: tuple[str, ...]
    text: str


def known_strategies() -> dict[str, list[EntryPoint]]:
    """Names of all installed strategies, each with the entry points that claim it."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims = found.setdefault(point.name, [])
        if point.value not in [other.value for other in claims]:
            claims.append(point)
    return found


def summary(point: EntryPoint) -> Summary | None:
    """The strategy behind an entry point, as its source says.

    Args:
        point: The entry point, which names the strategy's module and class.

    Returns:
        The summary; None where there is no source, or where the source says these things in another
        way than by plain class attributes.
    """
    try:
        chain = list(_bases(point.module, point.attr))
        access = _attribute(chain, "access")
        proposes = _attribute(chain, "proposes")
        text = (ast.get_docstring(chain[0]) or "").strip().partition("\n")[0]
    except (ImportError, OSError, SyntaxError, ValueError, LookupError):
        return None
    if not isinstance(access, ast.Attribute):
        return None
    kinds = {node.id for node in ast.walk(proposes) if isinstance(node, ast.Name)} - {"frozenset"}
    return Summary(access.attr.lower(), tuple(sorted(kinds)), text)


def _bases(module: str, name: str) -> Iterator[ast.ClassDef]:
    """A class, its first base, the first base of that, and so on.

    The chain ends at a class without a base, or with one that is `ABC` or no plain name.

    Raises:
        LookupError: A class on the way has no source, or is imported in an unusual way.
    """
    while True:
        tree = _tree(module)
        found = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
        if found is not None:
            yield found
            if (
                not found.bases
                or not isinstance(found.bases[0], ast.Name)
                or found.bases[0].id == "ABC"
            ):
                return
            name = found.bases[0].id
            continue
        module, name = _imported(tree, name)


def _imported(tree: ast.Module, name: str) -> tuple[str, str]:
    """The module that a name was imported from, and its name there.

    Raises:
        LookupError: The name is not imported by `from MODULE import NAME`.
    """
    # Imports under TYPE_CHECKING count as well: public names are imported when they are first used.
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    raise LookupError(name)


def _attribute(chain: list[ast.ClassDef], name: str) -> ast.expr:
    """The value of a class attribute, in the first of some classes that sets it.

    Raises:
        LookupError: None of the classes sets it.
    """
    for each in chain:
        for node in each.body:
            targets = (
                [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            )
            value = getattr(node, "value", None)
            if value is not None and any(isinstance(t, ast.Name) and t.id == name for t in targets):
                assert isinstance(value, ast.expr)
                return value
    raise LookupError(name)


@cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)  # imports the packages around it, which are light
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise LookupError(module)
    return ast.parse(Path(spec.origin).read_text("utf-8"))
