"""The options of a strategy: read from its signature, and checked before there is a model.

They are checked when a study is read. An annotation says the type of an option, and its range where
there is one: `Count`, `Share`, `Positive`, or any other with pydantic's `Field`, such as
`Annotated[int, Field(ge=2, le=64)]`. Annotations cannot say how options fit together; a strategy
says that in `Strategy.check`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from promptsearch.errors import OptionError, StrategyError, UnknownName
from promptsearch.plain.expected import expected
from promptsearch.printable import brief

if TYPE_CHECKING:
    from promptsearch.search.strategy import Strategy

#: A number of things: from 1 to what no search on one machine gets through.
Count = Annotated[int, Field(ge=1, le=100_000)]
#: A share of a whole.
Share = Annotated[float, Field(ge=0, le=1)]
#: A number above 0, such as a learning rate.
Positive = Annotated[float, Field(gt=0)]

#: The words for each of pydantic's limits, as they stand after "must be" and in a list of options.
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
#: The limit behind each of pydantic's types of error.
_BROKEN = {
    "greater_than_equal": "ge",
    "greater_than": "gt",
    "less_than_equal": "le",
    "less_than": "lt",
}


@dataclass(frozen=True)
class Option:
    """One option of a strategy, read from its signature and docstring.

    Args:
        name: The option's name.
        type: The option's type and range, in words.
        default: The option's default; `inspect.Parameter.empty` where it has none.
        text: What the docstring says about the option.
    """

    name: str
    type: str
    default: Any
    text: str

    @property
    def required(self) -> bool:
        """Whether the option must be given."""
        return self.default is inspect.Parameter.empty


def options_of(strategy: type[Strategy]) -> list[Option]:
    """The options of a strategy, in the order of its signature."""
    texts = documented_arguments(inspect.getdoc(strategy) or "")
    return [
        Option(p.name, _shown(p.annotation), p.default, texts.get(p.name, ""))
        for p in _parameters(strategy).values()
    ]


def check_options(
    name: str, strategy: type[Strategy], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options as the strategy wants them, with its defaults.

    Args:
        name: The strategy's name, for messages.
        strategy: The strategy's class.
        options: The options as a study file gives them.

    Raises:
        UnknownName: The strategy does not have one of the options.
        OptionError: An option has a wrong type or is out of its range, a required one is missing,
            or options do not fit together.
    """
    parameters = _parameters(strategy)
    for key in options:
        if key not in parameters:
            raise UnknownName(f"option of strategy '{name}'", key, parameters)
    fields: dict[str, Any] = {
        key: (
            Any if p.annotation is p.empty else p.annotation,
            ... if p.default is p.empty else p.default,
        )
        for key, p in parameters.items()
    }
    wanted = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        model = create_model("Options", __config__=wanted, **fields)(**options)
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        raise OptionError(
            f"strategy '{name}'{_complaint(error, strategy, options)}", option
        ) from error
    checked = {key: getattr(model, key) for key in parameters}
    try:
        strategy.check(checked)
    except StrategyError as error:
        raise OptionError(f"strategy '{name}': {error}") from error
    return checked


def deciding(strategy: type[Strategy], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options on which numbers depend: without those that say where a strategy writes besides.

    Args:
        strategy: The strategy's class.
        options: The options as a study file gives them.
    """
    return {name: value for name, value in options.items() if name not in strategy.writes}


def _complaint(error: ValidationError, strategy: type[Strategy], options: Mapping[str, Any]) -> str:
    """What is wrong with the first wrong option.

    Where an option may have several types, the complaint is about the type whose range its value is
    beyond, if there is one.
    """
    first = error.errors()[0]
    alike = [each for each in error.errors() if each["loc"][0] == first["loc"][0]]
    found = next((each for each in alike if each["type"] in (*_BROKEN, "finite_number")), first)
    where, within = str(found["loc"][0]), options.get(str(found["loc"][0]))
    for part in found["loc"][1:]:  # parts that lead nowhere name members of a union
        if (isinstance(within, (list, tuple)) and isinstance(part, int)) or (
            isinstance(within, Mapping) and part in within
        ):
            where, within = f"{where}.{part}", within[part]  # type: ignore[index]
    given = brief(found["input"])
    if found["type"] == "missing" and where in _parameters(strategy):
        text = next(option.text for option in options_of(strategy) if option.name == where)
        return f" needs the option '{where}': {text}"
    if found["type"] == "finite_number":
        return f": '{where}' must be a finite number, got {given}"
    if limit := _BROKEN.get(found["type"]):
        return f": '{where}' must be {_LIMITS[limit]} {_number(found['ctx'][limit])}, got {given}"
    return f", option '{where}': expected {expected(found)}, got {given}"


def _parameters(strategy: type[Strategy]) -> dict[str, inspect.Parameter]:
    """The constructor's parameters that are options, by name, with their annotations as types.

    Only the annotations of options are evaluated: an author may import what annotates the other
    parameters (`Objective`) for type checkers alone.

    Raises:
        StrategyError: An annotation cannot be evaluated.
    """
    found = {}
    scope = getattr(inspect.unwrap(strategy.__init__), "__globals__", {})
    for p in inspect.signature(strategy).parameters.values():
        if p.name in ("objective", "seed") or p.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if isinstance(p.annotation, str):
            try:
                # This runs the author's own code, which is imported already.
                p = p.replace(annotation=eval(p.annotation, scope))
            except Exception as error:  # an annotation may raise anything
                raise StrategyError(
                    f"the type {p.annotation!r} of the option '{p.name}' of {strategy.__name__} is "
                    f"not known where the class is defined ({type(error).__name__}: {error}): "
                    "import it for real, not for type checkers alone"
                ) from error
        found[p.name] = p
    return found


def _shown(annotation: Any) -> str:
    """A type as a list of options shows it: `int, at least 1, at most 64`."""
    if get_origin(annotation) is Annotated:
        kind, *marks = get_args(annotation)
        parts = [
            part
            for mark in marks
            for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])
        ]
        limits = {
            name: getattr(part, name) for part in parts for name in _LIMITS if hasattr(part, name)
        }
        if limits.keys() == {"ge", "le"}:
            return f"{_shown(kind)} from {_number(limits['ge'])} to {_number(limits['le'])}"
        return ", ".join(
            [_shown(kind), *(f"{_LIMITS[name]} {_number(limit)}" for name, limit in limits.items())]
        )
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(
            "None" if each is type(None) else _shown(each) for each in get_args(annotation)
        )
    if isinstance(origin := get_origin(annotation), type):
        return (
            f"{origin.__name__}["
            f"{', '.join('...' if each is ... else _shown(each) for each in get_args(annotation))}]"
        )
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "")
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def documented_arguments(doc: str) -> dict[str, str]:
    """The `Args:` section of a Google docstring: a text on one line for each name."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
    if not section:
        return {}
    entries = re.findall(
        r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n {8}.*)*)", section.group(1), re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}
