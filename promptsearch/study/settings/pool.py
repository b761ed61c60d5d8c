"""The words of hard prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_serializer,
    model_validator,
)

from promptsearch.study.settings.keys import Keys, Whole


class PoolSource(Keys):
    """Where the words of a pool come from, and how many of them are left."""

    words: Whole | None = Field(None, description="how many of the tokenizer's most frequent words")
    task: Whole | None = Field(
        None,
        description="how many words of the task's own training examples, the most telling ones",
    )
    file: str | None = Field(
        None, description="a text file with one word a line, relative to the study file"
    )
    influence: Whole | None = Field(
        None,
        description=(
            "how many of these tokens are left: those that move the loss most, whose search is "
            "charged"
        ),
    )

    @model_validator(mode="after")
    def _one_source(self) -> PoolSource:
        if sum(source is not None for source in (self.words, self.task, self.file)) != 1:
            raise ValueError("one of words, task and file, with or without influence")
        return self

    @model_serializer
    def _as_in_a_file(self) -> dict[str, int | str]:
        return {
            key: value
            for key in type(self).model_fields
            if (value := getattr(self, key)) is not None
        }


def _usable(value: Any) -> Any:
    """Refuse what is no pool, in words that name all its forms."""
    known = (
        value == "words"
        if isinstance(value, str)
        else type(value) is int or isinstance(value, (list, tuple, Mapping, PoolSource))
    )
    if not known:
        raise ValueError(
            "words, a number of words, a list of words, {task: N}, {file: PATH} or {words: N, "
            "influence: N}"
        )
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("at least one word")
    return value


def _tag(value: Any) -> str:
    kinds = {str: "text", int: "number", list: "list", tuple: "list"}
    return kinds.get(type(value), "mapping")


Pool = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[Whole, Tag("number")]
    | Annotated[tuple[str, ...], Tag("list")]
    | Annotated[PoolSource, Tag("mapping")],
    Discriminator(_tag),
    BeforeValidator(_usable),
]
