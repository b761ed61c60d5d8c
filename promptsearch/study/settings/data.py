"""Where the rows of a task come from, which of them it takes, and how many each split gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from promptsearch.errors import FieldError
from promptsearch.study.settings.keys import Keys, Whole
from promptsearch.tasks.fields import text_of
from promptsearch.tasks.splits import SPLITS


def as_label(value: Any) -> Any:
    """A value of a field as the text that the same value in the data becomes."""
    if not isinstance(value, (bool, int, float)):
        return value
    try:
        return text_of(value)
    except FieldError as reason:
        raise ValueError("a label that can stand in the data") from reason


#: A value of a field, and one or several of them.
Label = Annotated[str, BeforeValidator(as_label)]
Values = Annotated[
    Annotated[Label, Tag("one")]
    | Annotated[tuple[Label, ...], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, (list, tuple)) else "one"),
]


class Source(Keys):
    """A file, or a data set of the Hub."""

    path: str | None = Field(
        None,
        description=(
            "a file .jsonl, .json, .csv or .tsv (each also .gz), .parquet, .arrow or .feather, "
            "relative to the study file"
        ),
    )
    hub: str | None = Field(None, description="a data set on the Hugging Face Hub: owner/name")
    config: str | None = Field(None, description="the Hub data set's configuration")
    revision: str | None = Field(None, description="the Hub data set's revision")
    split: str | None = Field(
        None, description="the Hub data set's split; left out: all of them together"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("either path (a file) or hub (owner/name)")
        if self.path is not None and (self.config or self.revision or self.split):
            raise ValueError("config, revision and split beside hub only, not beside path")
        return self


class Data(Source):
    """Where a task's examples come from: one source, with or without a column that splits it."""

    column: str | None = Field(
        None,
        description=(
            "the field that says which split a row belongs to, by the values under search, select "
            "and test; left out: the splits are drawn"
        ),
    )
    search: Values | None = Field(
        None, description="the column's value, or list of values, in the rows to search on"
    )
    select: Values | None = Field(None, description="the same of the rows to select the winner on")
    test: Values | None = Field(None, description="the same of the rows to test the winner on")

    @model_validator(mode="after")
    def _column_with_values(self) -> Data:
        if (self.column is None) != (not official(self)):
            raise ValueError("column and, beside it, its values in one or more splits")
        return self


class SplitSource(Source):
    """A source of one split."""

    where: dict[str, Values] | None = Field(
        None,
        description="field: value, or list of values; only its rows that have them are taken",
    )


class Sources(Keys):
    """A source for each split, or for some of them.

    What is missing is drawn from the source of `search`, or else of `select`.
    """

    search: SplitSource | None = Field(None, description="a source, as data, for the search split")
    select: SplitSource | None = Field(None, description="a source for the select split")
    test: SplitSource | None = Field(None, description="a source for the test split")

    @model_validator(mode="after")
    def _drawn_from(self) -> Sources:
        if self.search is None and self.select is None:
            raise ValueError("a source for search or select, too: nothing is drawn from test")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, Sources):
        return "splits"
    keys = {key for key, given in value.items() if given} if isinstance(value, Mapping) else set()
    return "splits" if keys & set(SPLITS) and not keys & {"path", "hub", "column"} else "one"


#: `data`: one source, or a source for each split.
OneData = Annotated[
    Annotated[Data, Tag("one")] | Annotated[Sources, Tag("splits")], Discriminator(_kind)
]


def official(data: Data | Sources) -> list[str]:
    """The splits that have rows of their own."""
    return [split for split in SPLITS if getattr(data, split) is not None]


class PerClass(Keys):
    """The size of a split that has as many examples of each answer to choose from."""

    per_class: Whole = Field(description="the number of examples of each answer")


Size = Annotated[
    Annotated[Whole, Tag("number")] | Annotated[PerClass, Tag("mapping")],
    Discriminator(lambda v: "mapping" if isinstance(v, (Mapping, PerClass)) else "number"),
]


class SplitSizes(Keys):
    """How many examples each split gets: a number, or {per_class: N}.

    A split with rows of its own may be left out, and gets all of them.
    """

    search: Size | None = Field(None, description="the number of examples to search on")
    select: Size | None = Field(None, description="the number of examples to select the winner on")
    test: Size | None = Field(
        None, description="the number of examples that the winner is tested on"
    )
