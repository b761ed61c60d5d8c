"""The guard: whether the library's own code is still what it was.

A stranger's code runs in the same process, and may replace any part of the library.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import compress
from operator import attrgetter, getitem, is_, ne
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from promptsearch.errors import Tampered

#: Types of values that do not change while a study runs; other values of modules and classes may.
_FIXED = (
    FunctionType,
    type,
    property,
    classmethod,
    staticmethod,
    int,
    float,
    str,
    tuple,
    frozenset,
)
#: The name of the package whose modules are watched.
_PACKAGE = __name__.partition(".")[0]
#: What a call of a function runs: each part, and all of them as one tuple.
_PARTS = ("__code__", "__defaults__", "__kwdefaults__")
_code = attrgetter(*_PARTS)


class Guard:
    """The functions, classes and constants of the library, as they are when it is made.

    A strategy that replaces one of them (`Ledger.charge = ...`) changes prices or scores for itself
    and for every later run. The guard notices that, and puts the right one back. It cannot see what
    is done to other packages, through frames, or through the garbage collector.

    It looks at some thousands of values after every call of a strategy: what can be compared
    without a step of Python for each value is. To note them takes longer than to look at them, so
    guards of one library share their notes.
    """

    _latest: ClassVar[_Notes | None] = None

    def __init__(self) -> None:
        modules = {
            name: module
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] == _PACKAGE and isinstance(module, ModuleType)
        }
        if Guard._latest is None or not Guard._latest.hold(modules):
            Guard._latest = _Notes(modules)
        self._notes = Guard._latest

    def check(self) -> None:
        """Compare the library's code with what it was, and put back what was replaced.

        Raises:
            Tampered: Something was replaced, which the error names.
        """
        changed = self._notes.put_back()
        if changed:
            raise Tampered(
                f"the strategy's code replaced {', '.join(changed[:3])}, which is the library's "
                "own and was put back: write what you need into your own class"
            )


class _Notes:
    """What modules and their classes hold.

    Args:
        modules: The modules, by name.
    """

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules
        # Each watched value beside its owner, a module or class, with all that this holds, and its
        # name there. They lie in lists of their own, which C goes through side by side.
        self._owners: list[Any] = []
        self._holders: list[Mapping[str, Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._functions: list[FunctionType] = []
        self._modules_held: list[Mapping[str, Any]] = []
        self._classes: list[tuple[type, frozenset[str]]] = []
        self._classes_held: list[Mapping[str, Any]] = []
        for module in modules.values():
            self._note(module)
        self._codes = self._coded()
        self._module_sizes = list(map(len, self._modules_held))
        self._class_sizes = list(map(len, self._classes_held))

    def hold(self, modules: Mapping[str, ModuleType]) -> bool:
        """Whether notes of these modules would be the same now."""
        return (
            modules == self._modules
            and list(map(len, self._modules_held)) == self._module_sizes
            and list(map(len, self._classes_held)) == self._class_sizes
            and self._unreplaced()
            and self._coded() == self._codes
        )

    def _unreplaced(self) -> bool:
        """Whether each watched value is still where it was."""
        try:
            return all(map(is_, map(getitem, self._holders, self._names), self._values))
        except KeyError:  # one was deleted
            return False

    def _coded(self) -> list[list[Any]]:
        """Each part of what the functions run; new tuples would wake the garbage collector."""
        return [list(map(attrgetter(part), self._functions)) for part in _PARTS]

    def _note(self, module: ModuleType) -> None:
        held = vars(module)
        self._modules_held.append(held)
        fixed = {
            name: value
            for name, value in list(held.items())
            if isinstance(value, _FIXED) and not name.startswith("__")
        }
        self._watch(module, held, fixed)
        for value in fixed.values():
            if getattr(value, "__module__", None) != module.__name__:
                continue  # it came by import, and is noted with the module that defines it
            if isinstance(value, FunctionType):
                self._functions.append(value)
            elif isinstance(value, type):
                self._note_class(value)

    def _note_class(self, owner: type) -> None:
        held = vars(owner)
        self._classes_held.append(held)
        self._classes.append((owner, frozenset(held)))
        fixed = {
            name: value
            for name, value in list(held.items())
            if isinstance(value, _FIXED) and name not in ("__doc__", "__module__", "__qualname__")
        }
        self._watch(owner, held, fixed)
        for value in fixed.values():
            inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if isinstance(inner, FunctionType):
                self._functions.append(inner)

    def _watch(self, owner: Any, held: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        self._owners += [owner] * len(fixed)
        self._holders += [held] * len(fixed)
        self._names += fixed
        self._values += fixed.values()

    def put_back(self) -> list[str]:
        """The names of what was replaced, all of which is put back."""
        changed = []
        if not self._unreplaced():
            watched = zip(self._owners, self._holders, self._names, self._values, strict=True)
            for owner, held, name, value in watched:
                if held.get(name) is not value:
                    setattr(owner, name, value)
                    changed.append(_called(owner, name))
        if self._coded() != self._codes:
            for function, code in zip(self._functions, zip(*self._codes, strict=True), strict=True):
                if _code(function) != code:
                    function.__code__, function.__defaults__, function.__kwdefaults__ = code
                    module = sys.modules[function.__module__]
                    changed.append(_called(module, function.__qualname__))
        grown = map(ne, map(len, self._classes_held), self._class_sizes)
        for owner, known in compress(self._classes, grown):
            for name in set(vars(owner)) - known:
                if isinstance(
                    vars(owner)[name], (FunctionType, property, classmethod, staticmethod)
                ):
                    delattr(owner, name)
                    changed.append(_called(owner, name))
        return changed


def _called(owner: Any, name: str) -> str:
    path = f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__
    return f"`{path}.{name}`"
