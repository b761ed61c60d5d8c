"""The options that all trained strategies share, written once.

A trained strategy takes them as `**training` and hands them to its base class. Whoever reads its
signature or its docstring (`help`, `promptsearch strategies NAME`, the documentation) sees them
one by one, as if they stood there.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from promptsearch.search.options import Count, Positive, documented_arguments

#: A peak learning rate, or `auto` for the one that a range test finds.
Rate = Positive | Literal["auto"]
#: A number of scorings without a lower loss; 0 for any number of them.
Patience = Annotated[int, Field(ge=0, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a prompt is trained.

    A strategy that has another default, type or text for one of them names that one in its own
    signature or docstring. The rate has no default here, so each strategy names its own.

    Args:
        rate: Peak learning rate of AdamW; `auto` tries rates in a short test, which the budget
            pays.
        batch: Examples per step.
        accumulate: Parts into which a step's examples are split to save memory; the step is the
            same.
        interval: Steps between two scorings.
        steps: The most steps; left out: as many as the budget pays.
        clip: The largest norm of the gradient; a larger gradient is scaled down to it.
        patience: Scorings in a row without a lower loss that end the run; 0 trains until the budget
            is spent.
    """

    rate: Rate
    batch: Count = 16
    accumulate: Count = 1
    interval: Count = 8
    steps: Count | None = None
    clip: Positive = 1.0
    patience: Patience = 0


def full_signature(constructor: Callable[..., Any]) -> Signature:
    """A constructor's signature without `self`, and with the options behind `**training`."""
    own = inspect.signature(constructor)
    _, *parameters = own.parameters.values()
    if any(p.kind is Parameter.VAR_KEYWORD and p.name == "training" for p in parameters):
        types = get_type_hints(TrainingOptions, include_extras=True)
        shared = [
            p.replace(annotation=types[p.name])
            for p in inspect.signature(TrainingOptions).parameters.values()
            if p.name not in own.parameters
        ]
        parameters = [*parameters[:-1], *shared]
    return own.replace(parameters=parameters)


def full_docstring(doc: str) -> str:
    """A class's docstring, with the options behind the entry `**training:` of its `Args:`."""
    doc = inspect.cleandoc(doc)
    own = documented_arguments(doc)
    shared = documented_arguments(inspect.cleandoc(TrainingOptions.__doc__ or ""))
    entries = [
        textwrap.fill(f"{name}: {text}", 96, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, text in shared.items()
        if name not in own
    ]
    return re.sub(
        r"^ {4}\*\*training: .*(?:\n {8}.*)*", lambda _: "\n".join(entries), doc, flags=re.MULTILINE
    )
