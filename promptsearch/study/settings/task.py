"""A task of one's own: where its data are, its template, its answers and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from promptsearch.errors import FieldError, TaskError, TemplateError
from promptsearch.study.settings.keys import Keys, Name, Whole, as_name, unknown
from promptsearch.tasks.fields import text_of
from promptsearch.tasks.metrics import METRICS, known_metrics, named
from promptsearch.tasks.template import Template


def _label(value: Any) -> Any:
    """A label as the text that the same value in the data becomes."""
    if not isinstance(value, (bool, int, float)):
        return value
    try:
        return text_of(value)
    except FieldError as reason:
        raise ValueError("a label that can stand in the data") from reason


def _different(value: Any) -> Any:
    labels = [_label(key) for key in value] if isinstance(value, Mapping) else []
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise ValueError(f"each label once: '{twice}' stands twice")
    return value


def _metric(value: Any) -> Any:
    try:
        name, _ = named(value)
    except TaskError as error:
        raise PydanticCustomError("metric", "{text}", {"text": f"{error}."}) from error
    if ":" not in name and name not in known_metrics():
        raise unknown("metric", name, [*known_metrics(), "module:Class", "module:function"])
    return value


def _template(value: Any) -> Any:
    try:
        Template.parse(value)
    except TemplateError as error:
        raise PydanticCustomError("template", "{text}", {"text": f"{error}."}) from error
    return value


Label = Annotated[str, BeforeValidator(_label)]

Metric = Annotated[str | dict[str, dict[str, Any] | None], BeforeValidator(_metric)]


class Data(Keys):
    """Where a task's examples come from."""

    path: str | None = Field(
        None,
        description=(
            "a file .jsonl, .csv or .tsv (each also .gz) or .parquet, relative to the study file"
        ),
    )
    hub: str | None = Field(None, description="a data set on the Hugging Face Hub: owner/name")
    config: str | None = Field(None, description="the Hub data set's configuration")
    revision: str | None = Field(None, description="the Hub data set's revision")
    split: str | None = Field(
        None, description="the Hub data set's split; left out: all of them together"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.path is None) == (self.hub is None):
            raise ValueError("either path (a file) or hub (owner/name)")
        if self.path is not None and (self.config or self.revision or self.split):
            raise ValueError("config, revision and split beside hub only, not beside path")
        return self


class SplitSizes(Keys):
    """How many examples each split gets."""

    search: Whole = Field(description="the number of examples to search on")
    select: Whole = Field(description="the number of examples to select the winner on")
    test: Whole = Field(description="the number of examples that the winner is tested on")


Message = Annotated[
    dict[Literal["system", "user", "assistant"], str], Field(min_length=1, max_length=1)
]

OneTemplate = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[Message, ...], Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "text"),
    AfterValidator(_template),
]


class TaskConfig(Keys):
    """A task of one's own."""

    name: Name = Field(
        "", description="names the task in reports and folders; left out: the data's name"
    )
    description: str | None = Field(None, description="what it is, in one line")
    data: Data = Field(description="{path: FILE} or {hub: owner/name}")
    template: OneTemplate = Field(
        description=(
            "text with {field}s, at least one {prompt}, and {answer} at its end; or such text as a "
            "list of messages, {ROLE: TEXT} each with the role system, user or assistant, which "
            "the model's chat template joins"
        ),
    )
    label: str = Field(description="the field that holds the right answer")
    answers: Annotated[dict[Label, str], BeforeValidator(_different)] | None = Field(
        None, description="label value: answer text; left out: the label's text is the answer"
    )
    aliases: Annotated[dict[Label, tuple[str, ...]], BeforeValidator(_different)] | None = Field(
        None, description="answer: other texts that count as right"
    )
    splits: SplitSizes = Field(
        description="{search: N, select: N, test: N}, the number of examples in each split"
    )
    metric: Metric | None = Field(
        None,
        description=(
            "the one that the verdict is about: a name, or {name: {option: value}}; one of "
            f"{', '.join(METRICS)}, or module:Class, or module:function"
        ),
    )
    metrics: tuple[Metric, ...] = Field(
        (), description="further ones, which are reported beside it, each as under metric"
    )

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_data(cls, data: Any) -> Any:
        if (
            isinstance(data, Mapping)
            and data.get("name") is None
            and isinstance(data.get("data"), Mapping)
        ):
            source = data["data"]
            stem = (
                Path(str(source["path"])).stem
                if source.get("path")
                else str(source.get("hub", "task")).rpartition("/")[2]
            )
            return {**data, "name": as_name(stem, "task")}
        return data


OneTask = Annotated[
    Annotated[Name, Tag("text")] | Annotated[TaskConfig, Tag("mapping")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "mapping"),
]
