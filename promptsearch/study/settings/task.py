"""A task of one's own: its data, its template, its answers and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from promptsearch.errors import TaskError, TemplateError
from promptsearch.study.settings.data import (
    Label,
    OneData,
    SplitSizes,
    Values,
    as_label,
    official,
)
from promptsearch.study.settings.keys import (
    MOST,
    NUMBER,
    WHOLE,
    Keys,
    Name,
    Whole,
    one_of,
    unknown,
)
from promptsearch.tasks.answers import options_of
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.joining import DEPTH
from promptsearch.tasks.metrics import METRICS, known_metrics, named
from promptsearch.tasks.normalise import NORMALISES, Normalise
from promptsearch.tasks.sources import name_of
from promptsearch.tasks.splits import SPLITS
from promptsearch.tasks.template import Template


def _different(value: Any) -> Any:
    labels = [as_label(key) for key in value] if isinstance(value, Mapping) else []
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


Length = Annotated[Normalise, one_of("length to normalise by", NORMALISES)]
Metric = Annotated[str | dict[str, dict[str, Any] | None], BeforeValidator(_metric)]

Message = Annotated[
    dict[Literal["system", "user", "assistant"], str], Field(min_length=1, max_length=1)
]

OneTemplate = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[Message, ...], Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "text"),
    AfterValidator(_template),
]


class OfField(Keys):
    """Texts that a field of each row lists."""

    field: str = Field(description="the field that lists them")


class OfOptions(OfField):
    """The answers that each row lists."""

    names: str | None = Field(
        None,
        description=(
            "the field that lists their names, such as A to D, where the label is one of these"
        ),
    )


def _given(value: Any) -> str:
    if isinstance(value, OfField) or options_of(value) is not None:
        return "field"
    return "text" if isinstance(value, str) else "mapping"


Answers = Annotated[
    Annotated[Literal["labels"], one_of("answers", ["labels"]), Tag("text")]
    | Annotated[OfOptions, Tag("field")]
    | Annotated[dict[Label, str], BeforeValidator(_different), Tag("mapping")],
    Discriminator(_given),
]

Aliases = Annotated[
    Annotated[OfField, Tag("field")]
    | Annotated[dict[Label, tuple[str, ...]], BeforeValidator(_different), Tag("mapping")],
    Discriminator(lambda value: "field" if _given(value) == "field" else "mapping"),
]


#: What stands between the parts of a list, and of the lists in it.
Between = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[tuple[str, ...], Field(min_length=1, max_length=DEPTH), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "text"),
]


class DecodingConfig(Keys):
    """How text answers are generated."""

    tokens: Whole = Field(32, description="the most tokens of an answer, its end among them")
    beams: Whole = Field(1, description="the number of beams; 1 is greedy decoding")
    length_penalty: Annotated[float, NUMBER] = Field(
        1.0, description="the exponent of the length that beams are compared by"
    )
    temperature: Annotated[float, NUMBER] = Field(
        0.0, description="above 0, tokens are drawn with it; 0 takes the most probable one"
    )
    top_p: Annotated[float, NUMBER] = Field(
        1.0, description="the share of the probability that tokens are drawn from, at most 1"
    )
    samples: Whole = Field(1, description="how many answers are drawn for each row")
    seed: Annotated[int, WHOLE, Field(ge=0, le=MOST)] = Field(
        0, description="the seed of what is drawn"
    )

    @model_validator(mode="after")
    def _fitting(self) -> DecodingConfig:
        try:
            Decoding(**self.model_dump())
        except TaskError as error:
            raise PydanticCustomError("decoding", "{text}", {"text": f"{error}."}) from error
        return self


class TaskConfig(Keys):
    """A task of one's own."""

    name: Name = Field(
        "", description="names the task in reports and folders; left out: the data's name"
    )
    description: str | None = Field(None, description="what it is, in one line")
    data: OneData = Field(
        description=(
            "{path: FILE} or {hub: owner/name}, or one such source for each split: {search: "
            "SOURCE, select: SOURCE, test: SOURCE}"
        )
    )
    where: dict[str, Values] | None = Field(
        None, description="field: value, or list of values; only rows that have them are taken"
    )
    join: dict[str, Between] | None = Field(
        None,
        description=(
            "a field that holds a list: the text between its parts, which become one text; for "
            "lists of lists, those texts from the outermost to the innermost"
        ),
    )
    each: str | None = Field(
        None, description="a field, of whose values each makes a task of its own, NAME-VALUE"
    )
    group: str | None = Field(
        None, description="a field that names a row's group; a group stays in one split"
    )
    template: OneTemplate = Field(
        description=(
            "text with {field}s, at least one {prompt}, and {answer}, behind which only a text may "
            "stand that ends text answers; or such text as a list of messages, {ROLE: TEXT} each "
            "with the role system, user or assistant, which the model's chat template joins"
        ),
    )
    label: str = Field(
        description="the field that holds the right answer, or a list of right answers"
    )
    answers: Answers | None = Field(
        None,
        description=(
            "label value: answer text; or labels, for the label's own values; or {field: FIELD}, "
            "for the answers that a row lists, where the label is the right one or its place from "
            "0, or with names: FIELD its name; left out: the label's text is the answer"
        ),
    )
    normalise: Length = Field(
        "none",
        description=(
            "what the log-probability of an answer to choose from is divided by: none, or its "
            "number of tokens, bytes or characters"
        ),
    )
    references: Whole | None = Field(
        None, description="how many of a row's right answers count in the loss; left out: all"
    )
    aliases: Aliases | None = Field(
        None,
        description=(
            "answer: other texts that count as right; or {field: FIELD}, for those that a row lists"
        ),
    )
    splits: SplitSizes = Field(
        default_factory=lambda: SplitSizes.model_validate({}),
        description=(
            "{search: N, select: N, test: N}, the number of examples in each split, or {per_class: "
            "N}, drawn by a hash of the filled template, so that another template draws others; a "
            "split with rows of its own may be left out, and gets all of them"
        ),
    )
    decoding: DecodingConfig | None = Field(
        None, description="how text answers are generated; left out: greedily, 32 tokens"
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
            return {**data, "name": name_of(data["data"])}
        return data

    @model_validator(mode="after")
    def _sized(self) -> TaskConfig:
        own = official(self.data)
        for split in SPLITS:
            if getattr(self.splits, split) is None and split not in own:
                text = (
                    f"the size of the split '{split}' is missing; expected a number of examples, "
                    "or a source of its own under data."
                )
                raise PydanticCustomError("size", "{text}", {"text": text, "key": "splits"})
        return self
