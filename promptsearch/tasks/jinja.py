"""Jinja templates of strangers, rendered in a sandbox and within limits.

A task's file may come from anyone, and Jinja is a language: a template could reach for Python's
own objects, or count to infinity. So templates are rendered in Jinja's immutable sandbox, and of
the language only what turns a document into text is left: outputs, conditions, loops and names;
some filters and some methods of texts, lists and mappings. Loops, texts and numbers have limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

from promptsearch.errors import TaskError
from promptsearch.importing import strangers
from promptsearch.printable import brief

#: The most characters of a text, the most steps of all loops together, the most parts of a value,
#: and the most bits of a whole number, while one document is rendered.
CHARACTERS, STEPS, PARTS, BITS = 1 << 20, 10_000, 100_000, 4096
#: The filters that a template may use, beside `join`, `replace` and `string`.
_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "first", "float", "int", "items", "last"),
    *("length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round"),
    *("select", "selectattr", "sort", "title", "trim", "unique", "upper"),
)
#: The methods of texts, lists and mappings that it may call.
_METHODS = frozenset(
    (
        *("capitalize", "count", "endswith", "find", "get", "index", "isdigit", "items", "join"),
        *("keys", "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rfind", "rsplit"),
        *("rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "values"),
    )
)
#: The parts of the language that are left.
_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Assign),
    *(nodes.For, nodes.If, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Keyword),
    *(nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.CondExpr, nodes.And, nodes.Or),
    *(nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv),
    *(nodes.Mod, nodes.Pow, nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


class _Refused(Exception):
    """A template does what none needs to do."""


class JinjaTemplate:
    """A template, read once and rendered for many documents.

    Args:
        source: Its text.
        what: What to call it in messages, such as `doc_to_text of sciq.yaml`.

    Raises:
        TaskError: The text is no template, or uses more of the language than is left here.
    """

    def __init__(self, source: str, what: str) -> None:
        self.what = what
        self._environment = _Environment()
        with strangers(lambda error: self._unread(error)):
            if len(source) > CHARACTERS:
                raise _Refused(f"it has more than {CHARACTERS:,} characters")
            tree = _bounded(self._environment.parse(source))
            self._template = self._environment.from_string(tree)

    def render(self, document: Mapping[str, Any], place: str) -> str:
        """The text for a document.

        Args:
            document: The values that the template names.
            place: Where the document stands, for messages.

        Raises:
            TaskError: The document lacks a name, the template fails on it, or goes beyond a limit.
        """
        self._environment.steps = 0
        parts, size = [], 0
        with strangers(lambda error: TaskError(f"{place}: {self.what} fails: {_reason(error)}")):
            for part in self._template.generate(dict(document)):
                parts.append(part)
                size += len(part)
                if size > CHARACTERS:
                    raise _Refused(f"its text has more than {CHARACTERS:,} characters")
        return "".join(parts)

    def _unread(self, error: BaseException) -> TaskError:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        return TaskError(f"{self.what} cannot be read as a Jinja template{where}: {_reason(error)}")


def jinja_literal(text: str) -> str:
    """A text as a template that gives exactly this text.

    Args:
        text: Any text.
    """
    if not any(mark in text for mark in ("{{", "{%", "{#", "\r")) and not text.endswith("{"):
        return text
    # A literal of Jinja's, in which escapes mean what they mean in Python.
    return f'{{{{ "{text.translate(_ESCAPES)}" }}}}'


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with what can grow without bounds kept within them.

    Attributes:
        steps: The steps of loops that the present document took.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # As lm-evaluation-harness has it, so that a template means the same here.
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_within)
        self.steps = 0
        self.globals = {"range": safe_range}
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "join": _joined,
            "replace": _replaced,
            "string": lambda value: str(_within(value)),
            "kept": _within,
            "counted": self._counted,
        }

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute with two values, unless the result would be too large."""
        if operator == "%" and isinstance(left, str):
            raise _Refused("it formats a text with %: write the value where it belongs")
        if operator == "**" and not (_fits(left, 64) and _fits(right, 6)):
            raise _Refused("it raises a number to a power that is too large")
        for several, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(several, (str, list, tuple)):
                _sized(len(several) * int(times))
        return _within(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method, unless it would make a text that is too long."""
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            return _joined(args[0], owner, **kwargs)
        if isinstance(owner, str) and name == "replace":
            return _replaced(owner, *args, **kwargs)
        return super().call(context, called, *args, **kwargs)

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.steps += 1
            if self.steps > STEPS:
                raise _Refused(f"its loops take more than {STEPS:,} steps")
            yield value


class _Bounding(NodeTransformer):
    """Puts counters into loops, and bounds on what names are given and texts are joined."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filter("counted", node.iter)
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        self.generic_visit(node)
        node.node = _filter("kept", node.node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        found, *rest = [_filter("string", each) for each in node.nodes]
        joined: nodes.Expr = found
        for each in rest:
            joined = nodes.Add(joined, each, lineno=node.lineno, environment=node.environment)
        return joined


def _bounded(tree: nodes.Template) -> nodes.Template:
    """The template within its limits, if it uses no more of the language than is left."""
    for node in [tree, *tree.find_all(nodes.Node)]:
        if not isinstance(node, _NODES):
            raise _Refused(f"'{type(node).__name__}' of the language is not read here")
        if isinstance(node, nodes.For) and node.recursive:
            raise _Refused("a recursive loop is not read here")
        if isinstance(node, nodes.Call) and not _known(node.node):
            raise _Refused(
                f"it calls {_named(node.node)}; expected range, or a method such as strip"
            )
    found = _Bounding().visit(tree)
    assert isinstance(found, nodes.Template)
    return found


def _known(called: nodes.Node) -> bool:
    if isinstance(called, nodes.Getattr):
        return called.attr in _METHODS
    return isinstance(called, nodes.Name) and called.name == "range"


def _named(called: nodes.Node) -> str:
    name = getattr(called, "attr", None) or getattr(called, "name", None)
    return f"'{name}'" if name else "what it computed"


def _filter(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(
        node, name, [], [], None, None, lineno=node.lineno, environment=node.environment
    )


def _joined(values: Iterable[Any], d: Any = "", **others: Any) -> str:
    if others:
        raise _Refused(f"join has no option {', '.join(others)} here")
    texts, between = [], str(_within(d))
    size = 0
    for value in values:
        texts.append(str(_within(value)))
        size += len(texts[-1]) + len(between)
        _sized(size)
    return between.join(texts)


def _replaced(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = (str(_within(each)) for each in (value, old, new))
    _sized(len(text) + (text.count(old) if count < 0 else count) * len(new))
    return text.replace(old, new, count)


def _within(value: Any) -> Any:
    """The value itself, if it is small enough to be written out as text."""
    waiting, count, size = [value], 0, 0
    while waiting:
        each = waiting.pop()
        count += 1
        if isinstance(each, (str, bytes)):
            size += len(each)
        elif isinstance(each, int) and each.bit_length() > BITS:
            raise _Refused(f"it makes a number of more than {BITS:,} bits")
        elif isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting += each
        if count + len(waiting) > PARTS:
            raise _Refused(f"it makes a value of more than {PARTS:,} parts")
        _sized(size)
    return value


def _sized(size: int) -> None:
    if size > CHARACTERS:
        raise _Refused(f"it makes a text of more than {CHARACTERS:,} characters")


def _fits(value: Any, bits: int) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= bits
    return isinstance(value, float)


def _reason(error: BaseException) -> str:
    if isinstance(error, _Refused):
        return str(error)
    return brief(str(error), 200)[1:-1] or type(error).__name__
