"""Which strategies there are, and what a list of them shows.

It is read from their source: nothing is imported, so that the list does not wait for torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

#: Where packages say which strategies they bring.
GROUP = "promptsearch.strategies"


@dataclass(frozen=True)
class Summary:
    """A strategy in a line.

    Args:
        access: What it needs of the model: `scores`, `gradients` or `weights`.
        proposes: The names of the kinds of prompt that it proposes, sorted.
        text: The first line of its docstring.
    """

    access: str
    proposes: tuple[str, ...]
    text: str


def known_strategies() -> dict[str, list[EntryPoint]]:
    """Names of all installed strategies, with the packages that claim each."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims = found.setdefault(point.name, [])
        if point.value not in [other.value for other in claims]:
            claims.append(point)
    return found


def summary(point: EntryPoint) -> Summary | None:
    """The strategy behind an entry point, as its source says.

    Args:
        point: Names the strategy's module and class.

    Returns:
        None where there is no source, or where it says these things in another way than by plain class attributes.
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
    """A class and those that it inherits from by its first base, up to one outside of any source."""
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
    """Where a module has a name from.

    Raises:
        LookupError: It does not import it by `from MODULE import NAME`.
    """
    for node in ast.walk(
        tree
    ):  # under TYPE_CHECKING as well: public names are imported when they are first used
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    raise LookupError(name)


def _attribute(chain: list[ast.ClassDef], name: str) -> ast.expr:
    """What the first of the classes that sets a class attribute sets it to.

    Raises:
        LookupError: None does.
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
