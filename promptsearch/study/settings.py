"""The keys of a study file, as types.

What each key wants stands in its description, which messages and the JSON Schema show. Nothing here
needs torch, so that the command line starts fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from promptsearch.errors import FieldError, TemplateError, UnknownName
from promptsearch.plain.limits import KeyPath
from promptsearch.tasks.fields import text_of
from promptsearch.tasks.metrics import METRICS
from promptsearch.tasks.template import LONGEST_PROMPT, Template

DTYPES = ("auto", "float32", "bfloat16")
#: Keys among a strategy's options that the core reads; the rest belongs to the strategy.
RESERVED = ("label", "length", "budget", "start")
#: The bounds of a sensible study: the largest whole number, and the most seeds, lengths of a sweep,
#: runs, and characters of a name.
MOST, SEEDS, LENGTHS, RUNS, NAME = 10**15, 1_000, 100, 100_000, 100
#: Names that a folder cannot have everywhere, or that stand in a study's folder already.
_TAKEN = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d|pools|study\.json|report\.(md|html)|runs\.parquet)",
    re.IGNORECASE,
)


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a whole number")
    return value


def _name(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", value):
        raise ValueError(
            "a name that can be a folder's: letters, digits and . _ + -, beginning with a letter "
            "or digit"
        )
    if isinstance(value, str) and len(value) > NAME:
        raise ValueError(f"a name of at most {NAME} characters, which is a folder's")
    if isinstance(value, str) and (value.endswith(".") or _TAKEN.fullmatch(value)):
        raise ValueError(
            "another name: some systems, or a study's folder, give this one another meaning"
        )
    return value


def as_name(text: str, otherwise: str) -> str:
    """A name made of a file's, with what a folder cannot be called left out.

    Args:
        text: Such as the file's stem.
        otherwise: The name where nothing is left.
    """
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text).lstrip("._+-")[:NAME].rstrip(".") or otherwise


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
    if isinstance(value, str) and ":" not in value and value not in METRICS:
        raise _unknown("metric", value, [*METRICS, "module:function"])
    return value


def _unknown(kind: str, name: str, known: Sequence[str]) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_name", "{text}", {"text": str(UnknownName(kind, name, known))}
    )


def _template(value: Any) -> Any:
    try:
        Template.parse(value)
    except TemplateError as error:
        raise PydanticCustomError("template", "{text}", {"text": f"{error}."}) from error
    return value


Whole = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Name = Annotated[str, BeforeValidator(_name)]
Label = Annotated[str, BeforeValidator(_label)]
Metric = Annotated[str, BeforeValidator(_metric)]


class _Keys(BaseModel):
    """A mapping with known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        """Name unknown and missing keys ourselves: pydantic knows no "did you mean"."""
        if not isinstance(data, Mapping):
            return data
        spellings = {name: cls._spellings(name) for name in cls.model_fields}
        known = [spelling for names in spellings.values() for spelling in names]
        for key in data:
            if key not in known:
                text = str(UnknownName("key", str(key), known))
                raise PydanticCustomError("unknown_key", "{text}", {"text": text, "key": key})
        for name, info in cls.model_fields.items():
            given = [key for key in spellings[name] if key in data]
            if len(given) > 1:
                raise PydanticCustomError(
                    "twice",
                    "{text}",
                    {"text": f"give either {' or '.join(map(repr, given))}, not both."},
                )
            if info.is_required() and not given:
                text = f"the key '{spellings[name][0]}' is missing; expected {info.description}."
                raise PydanticCustomError("missing_key", "{text}", {"text": text})
        return data

    @classmethod
    def _spellings(cls, field: str) -> list[str]:
        alias = cls.model_fields[field].validation_alias
        return (
            [str(choice) for choice in alias.choices]
            if isinstance(alias, AliasChoices)
            else [field]
        )


class Data(_Keys):
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


class SplitSizes(_Keys):
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


class TaskConfig(_Keys):
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
        None, description=f"one of {', '.join(METRICS)}, or module:function"
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


class PoolSource(_Keys):
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


class ProposerConfig(_Keys):
    """The model that proposes, where it is no `EndpointConfig`."""

    model: str | None = Field(default=None, description="a local model; left out: the study's own")
    chat: bool = Field(
        default=False,
        description="whether requests go to it as messages of a chat, not as texts to go on with",
    )


#: Prompt tokens.
Tokens = Annotated[Whole, Field(le=LONGEST_PROMPT)]


class Start(_Keys):
    """The run whose winner another one starts from."""

    run: str = Field(
        description="the label of another row, whose winner of the same task and seed it is"
    )


class StrategyConfig(BaseModel):
    """One row of a comparison.

    Args:
        name: An installed strategy's, or `module:Class`.
        label: Names its runs; left out in a study file: the name, or the class's.
        length: Prompt tokens, where they differ from the study's.
        budget: LM tokens per run, where they differ from the study's. A row that may spend more or
            less than the study's budget is a reference, never ranked; with `start`, what the other
            run may spend counts, too.
        start: The row whose winner it starts from.
        options: The strategy's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    label: Name
    length: Tokens | None = None
    budget: Whole | None = None
    start: Start | None = None
    options: dict[str, Any] = {}

    @model_serializer
    def _as_in_a_file(self) -> dict[str, dict[str, Any]]:
        own = {key: getattr(self, key) for key in RESERVED if getattr(self, key) is not None}
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
    options = {key: option for key, option in (given or {}).items() if key not in RESERVED}
    own = {key: given[key] for key in RESERVED if given and key in given}
    return {"name": name, "label": name.rpartition(":")[2], **own, "options": options}


def _address(value: Any) -> Any:
    """Refuse what may hold a secret, and never repeat it."""
    if isinstance(value, str) and not re.fullmatch(r"https?://[^@?#\s]+", value):
        text = (
            "expected a URL like http://HOST:PORT/v1, without user, password or query, which may "
            "be secrets: name the environment variable that holds the key with 'key'."
        )
        raise PydanticCustomError("address", "{text}", {"text": text})
    return value


def _variable(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        text = (
            "expected the name of an environment variable, such as OPENAI_API_KEY, never the key "
            "itself."
        )
        raise PydanticCustomError("variable", "{text}", {"text": text})
    return value


class EndpointConfig(_Keys):
    """A model behind a server with OpenAI's completions API: a study's own or its proposer."""

    endpoint: Annotated[str, BeforeValidator(_address)] = Field(
        description="the server's URL, up to and including /v1, such as http://localhost:8000/v1"
    )
    model: str = Field(description="the model, as the server calls it")
    key: Annotated[str, BeforeValidator(_variable)] | None = Field(
        None,
        description=(
            "the name of the environment variable that holds the server's key; left out: it wants "
            "none"
        ),
    )
    tokenizer: str | None = Field(
        None,
        description=(
            "the model's tokenizer, a folder or Hub name; left out: tokens are estimated, and "
            "pools hold any words"
        ),
    )
    parallel: Annotated[Whole, Field(le=1_000)] = Field(
        4, description="the number of requests at a time"
    )
    seconds: Seconds = Field(60, description="the most seconds that an answer may take")
    retries: Annotated[int, BeforeValidator(_whole)] = Field(
        5, ge=0, le=1_000, description="how often a request that failed is sent again"
    )
    chat: bool = Field(
        False,
        description=(
            "whether texts go to /chat/completions, as messages of a user; losses are then 0 and "
            "1, no nats"
        ),
    )

    def __str__(self) -> str:
        """What it is called in messages."""
        return f"{self.model} at {self.endpoint}"


class Lines:
    """The lines of a study's keys, for messages.

    They are no settings: all are equal, so that studies that differ in them alone are equal.

    Args:
        source: What to call the study.
        places: A path of keys -> `line 7`, or the option of the command line that says it.
    """

    def __init__(self, source: str, places: Mapping[KeyPath, str] | None = None) -> None:
        self._source, self._places = source, dict(places or {})

    def __eq__(self, other: object) -> bool:
        """Whether the other is of this class, too."""
        return isinstance(other, Lines)

    __hash__ = None  # type: ignore[assignment]

    def note(self, path: KeyPath, place: str) -> None:
        """Remember where a key stands."""
        self._places[path] = place

    def at(self, path: KeyPath) -> str:
        """The study, and the line of a path of keys or of what holds it."""
        ends = range(len(path), 0, -1)
        place = next((self._places[path[:end]] for end in ends if path[:end] in self._places), None)
        return f"{self._source}, {place}" if place else self._source


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SEEDS:
        return tuple(range(value))
    whole = isinstance(value, Sequence) and all(
        isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in value
    )
    if (isinstance(value, int) and value > SEEDS) or (
        whole and (len(value) > SEEDS or any(s >= 2**32 for s in value))
    ):
        raise ValueError(f"at most {SEEDS:,} seeds, each below 2**32")
    if not whole or not value or len(set(value)) < len(value):
        raise ValueError(
            "a number of seeds of at least 1, or a list of different whole numbers of at least 0"
        )
    return value


def _names_endpoint(value: Any) -> bool:
    return isinstance(value, Mapping) and "endpoint" in value


def _tag(value: Any) -> str:
    kinds = {str: "text", int: "number", list: "list", tuple: "list"}
    return kinds.get(type(value), "mapping")


Length = Annotated[
    Annotated[Tokens, Tag("number")]
    | Annotated[tuple[Tokens, ...], Field(max_length=LENGTHS), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "number"),
]
OneTask = Annotated[
    Annotated[Name, Tag("text")] | Annotated[TaskConfig, Tag("mapping")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "mapping"),
]
Pool = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[Whole, Tag("number")]
    | Annotated[tuple[str, ...], Tag("list")]
    | Annotated[PoolSource, Tag("mapping")],
    Discriminator(_tag),
]
Model = Annotated[
    Annotated[str, Tag("text")] | Annotated[EndpointConfig, Tag("mapping")],
    Discriminator(
        lambda value: "mapping" if isinstance(value, (Mapping, EndpointConfig)) else "text"
    ),
]
OneProposer = Annotated[
    Annotated[
        Annotated[ProposerConfig, Tag("here")] | Annotated[EndpointConfig, Tag("served")],
        Discriminator(
            lambda value: (
                "served" if isinstance(value, EndpointConfig) or _names_endpoint(value) else "here"
            )
        ),
    ],
    BeforeValidator(
        lambda value: {"model": value} if isinstance(value, str) else value,
        json_schema_input_type=str | ProposerConfig | EndpointConfig,
    ),
]
OneStrategy = Annotated[
    StrategyConfig,
    BeforeValidator(_strategy, json_schema_input_type=str | dict[str, dict[str, Any] | None]),
]


class StudyConfig(_Keys):
    """A whole comparison: strategies x tasks x seeds under equal budgets.

    Made by `load_config` from a file or by `parse_config` from a mapping; both say clearly what is
    wrong. `parse_config(config.model_dump())` gives an equal study.
    """

    name: Name = Field(
        "study", description="names the study in its report; left out: the file's name"
    )
    model: Model = Field(
        description=(
            "a language model: a Hub name, a folder, a .gguf file, smollm2-135m-instruct; or "
            "{endpoint: URL, model: NAME}"
        )
    )
    tasks: Annotated[
        tuple[OneTask, ...],
        BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value]),
        Field(min_length=1),
    ] = Field(
        validation_alias=AliasChoices("task", "tasks"),
        description="a built-in task's name, or a mapping with data, template, label and splits",
    )
    length: Length = Field(
        5,
        description=(
            "prompt tokens where the template does not fix them; a list of numbers runs every "
            "strategy at each of them, as LABEL-NUMBER"
        ),
    )
    pool: Pool = Field(
        "words",
        description=(
            "the tokens of hard prompts: words (all of the tokenizer's), a number (its most "
            "frequent words), a list of words, {task: N} (words of the task's own data) or {file: "
            "PATH}; beside words: "
            "N, task or file, influence: N leaves those that move the loss most"
        ),
    )
    budget: Whole = Field(
        description="the LM tokens that each run may spend, a whole number such as 100000"
    )
    score_on: Whole = Field(
        64, description="search examples per evaluation, the same ones for all prompts of a run"
    )
    race: bool = Field(
        False,
        description=(
            "whether prompts that are clearly worse than the best are scored on some of these "
            "examples only"
        ),
    )
    seeds: Annotated[
        tuple[int, ...], BeforeValidator(_seeds, json_schema_input_type=int | list[int])
    ] = Field((0,), description="how many seeds (0, 1, ...), or a list of them")
    proposer: OneProposer = Field(
        ProposerConfig(),
        description=(
            "the model that proposes, for strategies that ask one: a Hub name, a folder, a .gguf "
            "file, {chat: true}, or {endpoint: URL, model: NAME, key: ENVIRONMENT_VARIABLE}; left "
            "out: the study's own model"
        ),
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="the dtype of the search"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    memory: ByteSize | None = Field(
        None,
        gt=0,
        le=2**60,
        description=(
            "for keys and values that are computed once, such as 8GB; left out: half of the "
            "device's memory"
        ),
    )
    max_seconds: Seconds | None = Field(None, description="the most seconds that a run may take")
    metric: Metric | None = Field(None, description="for all tasks; left out: each task's own")
    strategies: Annotated[tuple[OneStrategy, ...], Field(min_length=1)] = Field(
        description="a list of strategies, each a name or {NAME: {OPTION: VALUE}}"
    )

    _folder: Path = PrivateAttr(default=Path())
    _lines: Lines = PrivateAttr(default_factory=lambda: Lines("the study"))

    def model_post_init(self, context: Any) -> None:
        """Remember the folder of the study file and the lines of its keys.

        They are no settings, since a study may be moved.
        """
        self._folder = (context or {}).get("folder", Path())
        self._lines = (context or {}).get("lines", self._lines)

    def at(self, *path: str | int) -> str:
        """Where a key stands, for messages: the file and the line.

        Args:
            path: Keys, and places in lists.
        """
        return self._lines.at(path)

    @property
    def folder(self) -> Path:
        """What relative paths in the study are relative to."""
        return self._folder

    @property
    def model_source(self) -> str:
        """The model as it is to be loaded, see `source`; of an endpoint, its URL."""
        return self.source(self.model) if isinstance(self.model, str) else self.model.endpoint

    def source(self, name: str) -> str:
        """A model or tokenizer as it is to be loaded.

        A path that begins with `.` or ends in `.gguf` starts from the study file's folder.
        """
        if name.startswith((".", "~")) or name.endswith(".gguf"):
            return str(
                (self._folder / Path(name).expanduser()).resolve()
            )  # never mistaken for a Hub name
        return name

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of a sweep, or the one length."""
        return self.length if isinstance(self.length, tuple) else (self.length,)

    @field_validator("length")
    @classmethod
    def _different_lengths(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
            raise ValueError("a whole number of at least 1, or a list of different ones")
        return value

    @field_validator("dtype", mode="before")
    @classmethod
    def _known_dtype(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in DTYPES:
            raise _unknown("dtype", value, DTYPES)
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise ValueError("auto, cpu, cuda, cuda:1 or mps")
        return value

    @field_validator("pool", mode="before")
    @classmethod
    def _usable_pool(cls, value: Any) -> Any:
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

    @model_validator(mode="after")
    def _different_names(self) -> StudyConfig:
        for key, names in (
            ("tasks", [task if isinstance(task, str) else task.name for task in self.tasks]),
            ("strategies", [strategy.label for strategy in self.strategies]),
        ):
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                how = "name: NAME" if key == "tasks" else "{NAME: {label: LABEL}}"
                text = f"two of the {key} are called '{twice}'; tell them apart with {how}."
                raise PydanticCustomError("same_name", "{text}", {"text": text, "key": key})
        runs = len(self.tasks) * len(self.strategies) * len(self.lengths) * len(self.seeds)
        if runs > RUNS:
            text = (
                f"this is a study of {runs:,} runs (tasks x strategies x lengths x seeds); "
                f"expected at most {RUNS:,}."
            )
            raise PydanticCustomError("runs", "{text}", {"text": text, "key": "strategies"})
        return self
