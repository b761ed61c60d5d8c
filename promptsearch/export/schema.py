"""What the files of an export hold, value by value, whoever wrote them.

A stranger's file is believed if every value has the type that it is used as and lies within bounds,
and if what the file says twice agrees. Keys that are not known here stay as they are; nothing uses
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptsearch.errors import FileError, PromptError
from promptsearch.files import read, shown
from promptsearch.plain.json import parse_json
from promptsearch.tasks.normalise import Normalise

#: The most bytes that a certificate or a configuration may have.
LARGEST = 1 << 26
M = TypeVar("M", bound="Values")

Text = Annotated[str, Field(max_length=1 << 22)]
Answer = Annotated[Text, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, le=1 << 20)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # as studies have them
Number = Annotated[float, Field(allow_inf_nan=False)]
#: Not strict, since JSON has lists and no tuples.
Interval = Annotated[tuple[Number, Number], Field(strict=False)]
Mark = Annotated[tuple[Text, bool, bool], Field(strict=False)]


class Values(BaseModel):
    """Values that must have exactly the types written here; none is converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class ServedFacts(Values):
    """The endpoint that serves a model."""

    url: Text
    model: Text
    seconds: Annotated[float, Field(gt=0, le=86_400)]
    retries: Annotated[int, Field(ge=0, le=100)]
    chat: bool
    parallel: Annotated[int, Field(ge=1, le=1024)]
    tokenizer: Text | None


class ModelFacts(Values):
    """The facts that identify a model."""

    name: Text = ""
    source: Text | None = None
    hash: Text | None = None
    tokenizer_hash: Text | None = None
    width: Count | None = None
    layers: Count | None = None
    served: ServedFacts | None = None


class Result(Values):
    """A prompt's scores on a split."""

    loss: Number | None = None
    metric: Number | None = None
    examples: Count | None = None
    loss_interval: Interval | None = None
    metric_interval: Interval | None = None


class ProbeFacts(Values):
    """An example with its loss in nats."""

    fields: dict[Text, Text]
    answer: Answer
    choice: Count | None
    aliases: list[Text]
    also: list[Answer] = []
    options: Annotated[list[Answer], Field(min_length=2)] | None = None
    loss: Annotated[Number, Field(ge=0)]


class DecodingFacts(Values):
    """How answers are generated, see `promptsearch.tasks.decoding.Decoding`."""

    tokens: Annotated[int, Field(ge=1, le=1 << 20)] = 32
    beams: Annotated[int, Field(ge=1, le=1024)] = 1
    length_penalty: Number = 1.0
    temperature: Annotated[Number, Field(ge=0)] = 0.0
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    samples: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Seed = 0


class PromptFacts(Values):
    """The prompt's kind and key; its own reader, `prompt_from_json`, checks the rest."""

    kind: Text
    key: Text


class CertificateFacts(Values):
    """All that `certificate.json` or `prompt.json` holds."""

    format: Text
    export: Text | None = None
    prompt: PromptFacts
    template: Text | list[dict[Text, Text]]
    marks: list[Mark] = []
    lengths: list[Count]
    end_token: Text | None = None
    middle: bool = False
    choices: Annotated[list[Answer], Field(min_length=2)] | None
    options: Text | None = None
    normalise: Normalise = "none"
    decoding: DecodingFacts = DecodingFacts()
    probe: list[ProbeFacts]
    model: ModelFacts = ModelFacts()
    task: Text = ""
    strategy: Text = ""
    label: Text = ""
    metric: Text = ""
    example: Text = ""
    signature: Text = ""
    seed: Seed | None = None
    splits: dict[Text, Text] = {}
    select: Result = Result()
    test: Result = Result()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """The same values, if each example's choice and answer agree with the choices."""
        if self.choices is not None and self.options is not None:
            raise ValueError("options: expected choices, or the field that holds those of a row")
        for number, one in enumerate(self.probe):
            if (one.options is None) != (self.options is None):
                raise ValueError(
                    f"probe.{number}.options: expected answers to choose from where these differ "
                    "by row, and only there"
                )
            choices = self.choices if one.options is None else one.options
            if (one.choice is None) != (choices is None):
                raise ValueError(
                    f"probe.{number}.choice: expected a place among the choices where there are "
                    "any, and only there"
                )
            if (
                choices is not None
                and one.choice is not None
                and choices[one.choice : one.choice + 1] != [one.answer]
            ):
                raise ValueError(
                    f"probe.{number}: expected the answer that stands at the place 'choice' among "
                    "the choices"
                )
        return self


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in an ordinary file.

    Args:
        file: A file of an export.

    Raises:
        PromptError: The file cannot be read, or holds something else.
    """
    try:
        data = parse_json(read(file, LARGEST))
    except FileError as error:
        raise PromptError(str(error)) from error
    except ValueError as error:
        raise PromptError(f"{shown(file)} is damaged: {error}") from error
    if not isinstance(data, dict):
        raise PromptError(
            f"{shown(file)} is damaged: expected a JSON object, got {type(data).__name__}"
        )
    return data


def checked(kind: type[M], data: Mapping[str, Any], file: Path) -> M:
    """The values of a file, each checked to be of its type.

    Args:
        kind: The class that says which types they should have.
        data: The file's content.
        file: The file, for the message.

    Raises:
        PromptError: A value is not what it should be; the message names the first.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        where = f"{place}: " if place else ""
        raise PromptError(
            f"{shown(file)} is damaged: {where}{first['msg'].removeprefix('Value error, ')}"
        ) from error
