"""What a strategy can reach from what it holds.

The way is that of somebody who looks around, not of one who breaks in.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import ProposalLog, RunLog
from promptsearch.search.books import Books
from promptsearch.search.calls import Calls
from promptsearch.search.prices import Prices
from promptsearch.tasks.task import Split, Task

#: What belongs to the core.
_CORE = (Books, Calls, Prices, Ledger, RunLog, ProposalLog, ScoreCache, Split, Task, PurePath)
#: Methods by which scorers and models are told, whatever their class.
_SCORES, _MODEL = ("score", "passes", "context"), ("searched_in", "tokenizer_hash")


def doors(held: Any, depth: int = 6, most: int = 200_000) -> list[str]:
    """The ways to objects of the core: scorers, models, splits, accounts, logs, caches and paths.

    Attributes, slots, closures, defaults, bound methods, partial functions and containers are
    followed; modules, classes, frames and the garbage collector are not: Python hides nothing from
    those.

    Args:
        held: Where to begin, as a strategy.
        depth: Steps, at most.
        most: Objects that are looked at, at most.

    Returns:
        One way a door, as `strategy._space._embeddings.<cell 0>`; empty where there are none.
    """
    found, seen = [], {id(held)}
    queue: deque[tuple[Any, str, int]] = deque([(held, type(held).__name__, 0)])
    kept = [held]  # ids stay unique while objects live
    while queue and len(kept) < most:
        current, way, steps = queue.popleft()
        if _is_door(current):
            found.append(f"{way} is a {type(current).__name__}")
        elif steps < depth:
            for name, value in _held_by(current):
                if id(value) not in seen:
                    seen.add(id(value))
                    kept.append(value)
                    queue.append((value, f"{way}{name}", steps + 1))
    return found


def _is_door(value: Any) -> bool:
    names = dir(type(value)) if not isinstance(value, (type, ModuleType)) else ()
    return isinstance(value, _CORE) or any(
        all(name in names for name in some) for some in (_SCORES, _MODEL)
    )


def _held_by(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, and how one comes there."""
    if isinstance(value, (str, bytes, int, float, type, ModuleType)) or value is None:
        return
    if isinstance(value, Mapping):
        yield from (
            (f"[{key!r}]", each) for key, each in (value.items() if isinstance(value, dict) else ())
        )
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{i}]", each) for i, each in enumerate(value))
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        yield from (
            (f".<cell {i}>", cell.cell_contents) for i, cell in enumerate(cells) if _filled(cell)
        )
        yield from ((f".<default {i}>", each) for i, each in enumerate(value.__defaults__ or ()))
    elif isinstance(value, (MethodType, BuiltinFunctionType)):
        yield ".__self__", value.__self__
        yield ".__func__", getattr(value, "__func__", None)
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        yield from ((f".{name}", each) for name, each in own.items())
    for owner in type(value).__mro__:
        slots = owner.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
    for name, attribute in vars(type(value)).items():
        if isinstance(attribute, property) and type(value).__module__.startswith("promptsearch."):
            yield f".{name}", _asked(value, name)


def _asked(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception:  # a property may refuse
        return None


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
