"""A row of a comparison: a strategy and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer

from promptsearch.plain.names import as_name
from promptsearch.study.settings.keys import Keys, Name, Tokens, Whole

#: Keys among a strategy's options that the core reads, the rest belongs to the strategy: key ->
#: type, default, meaning.
ROW_KEYS: dict[str, tuple[str, str, str]] = {
    "label": ("str", "the name", "Names its runs in the study's folder and report."),
    "length": ("int", "the study's", "Prompt tokens."),
    "budget": (
        "int",
        "the study's",
        "LM tokens per run; only a control with less than the study is ranked among the others.",
    ),
    "seeds": ("int", "the study's", "How many of the study's seeds it runs with, the first ones."),
    "start": (
        "{run: LABEL}",
        "none",
        "Begin at the winner of another row; its tokens come on the bill.",
    ),
}


class Start(Keys):
    """The run whose winner another one starts from."""

    run: str = Field(
        description=(
            "the label of another row, whose winner of the same seed it is, and of the same task "
            "unless 'task' names one"
        )
    )
    task: str | None = Field(
        None, description="the task of that winner, for all tasks of the study; left out: the same"
    )

    @model_serializer
    def _as_in_a_file(self) -> dict[str, str]:
        given = {"run": self.run, "task": self.task}
        return {key: value for key, value in given.items() if value is not None}


class StrategyConfig(BaseModel):
    """One row of a comparison.

    Args:
        name: An installed strategy's, or `module:Class`.
        label: Names its runs; left out in a study file: the name, or the class's.
        length: Prompt tokens, where they differ from the study's.
        budget: LM tokens per run, where they differ from the study's. A row that may spend more or
            less than the study's budget is a reference, never ranked; with `start`, what the other
            run may spend counts, too.
        seeds: How many of the study's seeds it runs with, the first ones; left out: all.
        start: The row whose winner it starts from.
        options: The strategy's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    label: Name
    length: Tokens | None = None
    budget: Whole | None = None
    seeds: Whole | None = None
    start: Start | None = None
    options: dict[str, Any] = {}

    @model_serializer
    def _as_in_a_file(self) -> dict[str, dict[str, Any]]:
        own = {key: getattr(self, key) for key in ROW_KEYS if getattr(self, key) is not None}
        return {self.name: {**own, **self.options}}


def _strategy(value: Any) -> Any:
    """`name` or `{name: options}` -> the fields of StrategyConfig."""
    if isinstance(value, StrategyConfig):
        return value
    if isinstance(value, str):
        value = {value: None}
    if not (isinstance(value, Mapping) and len(value) == 1):
        raise ValueError("a strategy's name, or one name with its options: {NAME: {OPTION: VALUE}}")
    name, given = next(iter(value.items()))
    if not isinstance(name, str):
        raise ValueError("a strategy's name, or one name with its options: {NAME: {OPTION: VALUE}}")
    if not (
        given is None or (isinstance(given, Mapping) and all(isinstance(key, str) for key in given))
    ):
        raise ValueError(f"the options of '{name}' as a mapping: {{OPTION: VALUE}}")
    options = {key: option for key, option in (given or {}).items() if key not in ROW_KEYS}
    own = {key: given[key] for key in ROW_KEYS if given and key in given}
    return {
        "name": name,
        "label": as_name(name.rpartition(":")[2], "strategy"),
        **own,
        "options": options,
    }


OneStrategy = Annotated[
    StrategyConfig,
    BeforeValidator(_strategy, json_schema_input_type=str | dict[str, dict[str, Any] | None]),
]
