"""A whole study: its models, tasks and strategies, and what holds for all runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from promptsearch.study.settings.execution import ExecutionConfig
from promptsearch.study.settings.keys import (
    NUMBER,
    Bytes,
    Keys,
    Name,
    Seconds,
    Tokens,
    Whole,
    one_of,
)
from promptsearch.study.settings.lines import Lines
from promptsearch.study.settings.model import EndpointConfig, Models, OneProposer, ProposerConfig
from promptsearch.study.settings.one_task import OneTask
from promptsearch.study.settings.pool import Pool
from promptsearch.study.settings.strategy import OneStrategy
from promptsearch.study.settings.task import Metric

#: The most seeds, lengths of a sweep, trackers, and runs of a sensible study.
SEEDS, LENGTHS, TRACKERS, RUNS = 1_000, 100, 20, 100_000
DTYPES = ("auto", "float32", "bfloat16", "float16")
DRAWS = ("once", "seed")

Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], one_of("dtype", DTYPES)]
Draw = Annotated[Literal["once", "seed"], one_of("draw", DRAWS)]


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


def _several(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, Sequence) and len(set(map(str, names))) < len(names):
        raise ValueError("each tracker once")
    return names


Length = Annotated[
    Annotated[Tokens, Tag("number")]
    | Annotated[tuple[Tokens, ...], Field(max_length=LENGTHS), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "number"),
]


class StudyConfig(Keys):
    """A whole comparison: strategies x tasks x seeds under equal budgets.

    Made by `load_config` from a file or by `parse_config` from a mapping; both say clearly what is
    wrong. `parse_config(config.model_dump())` gives a study that is equal but for `execution`.
    """

    name: Name = Field(
        "study", description="names the study in its report; left out: the file's name"
    )
    model: Models = Field(
        validation_alias=AliasChoices("model", "models"),
        description=(
            "a language model: a Hub name, a folder, a .gguf file, smollm2-135m-instruct; "
            "NAME:quantise=int8 or NAME:quantise=nf4, whose layers keep their weights in 8 or 4 "
            "bits; or {endpoint: URL, model: NAME}; a list of them runs every task and strategy on "
            "each"
        ),
    )
    tasks: Annotated[
        tuple[OneTask, ...],
        BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else [value]),
        Field(min_length=1),
    ] = Field(
        validation_alias=AliasChoices("task", "tasks"),
        description=(
            "a built-in task's name, or a mapping with data, template, label and splits; or "
            "{lm_eval: FILE or NAME}"
        ),
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
        128, description="search examples per evaluation, the same ones for all prompts of a run"
    )
    race: bool = Field(
        True,
        description=(
            "whether prompts that are probably worse than the best are scored on some of these "
            "examples only; never where the objective is a metric that is no mean over examples"
        ),
    )
    seeds: Annotated[
        tuple[int, ...], BeforeValidator(_seeds, json_schema_input_type=int | list[int])
    ] = Field(tuple(range(5)), description="how many seeds (0, 1, ...), or a list of them")
    draw: Draw = Field(
        "once",
        description=(
            "seed: every seed draws search and select examples of its own, from all that the test "
            "split leaves; once: all seeds have the same ones"
        ),
    )
    proposer: OneProposer = Field(
        ProposerConfig(),
        description=(
            "the model that proposes, for strategies that ask one: a Hub name, a folder, a .gguf "
            "file, {chat: true}, or {endpoint: URL, model: NAME, key: ENVIRONMENT_VARIABLE}; left "
            "out: the study's own model"
        ),
    )
    dtype: Dtype = Field(
        "auto",
        description=(
            "the dtype of the search: auto is bfloat16 where the hardware multiplies it, else "
            "float32; nothing is trained in float16"
        ),
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    device_map: Literal["auto"] | None = Field(None, description="auto: one model on all GPUs")
    memory: Bytes | None = Field(
        None,
        gt=0,
        le=2**60,
        description=(
            "for keys and values that are computed once, such as 8GB; left out: half of the "
            "device's memory"
        ),
    )
    threads: Whole | None = Field(
        None,
        description=(
            "the threads of each process; left out: as many as torch takes, and 1 where several "
            "processes share the work"
        ),
    )
    replicas: Annotated[Whole, Field(le=1_000)] | None = Field(
        None,
        description="how many processes score an ask together, in chunks; left out: one, whole",
    )
    max_seconds: Seconds | None = Field(None, description="the most seconds that a run may take")
    max_cost: Annotated[float, Field(gt=0, le=1e9), NUMBER] | None = Field(
        None,
        description=(
            "the most that a run may cost, in the currency of the endpoint's 'price': it ends like "
            "the budget"
        ),
    )
    metric: Metric | None = Field(None, description="for all tasks; left out: each task's own")
    objective: Metric | None = Field(
        None,
        description=(
            "a metric that black-box searches follow instead of the loss, as under metric: they "
            "minimise minus its score, and pay for what they generate"
        ),
    )
    select_by: Literal["loss", "metric"] | None = Field(
        None,
        description=(
            "by what the winner is selected among the best prompts of a search: loss, or metric "
            "(each task's own); left out: metric where an objective is given, else loss"
        ),
    )
    transfer: bool = Field(
        False,
        description=(
            "beside a list of models: whether the hard winners of each are scored on the others' "
            "test splits, as text, after all is chosen"
        ),
    )
    track: Annotated[tuple[Name, ...], BeforeValidator(_several), Field(max_length=TRACKERS)] = (
        Field(
            (),
            description=(
                "the trackers that log the runs: tensorboard, mlflow, trackio, wandb, or others "
                "that are installed"
            ),
        )
    )
    execution: ExecutionConfig = Field(
        ExecutionConfig(ray=None),
        exclude=True,
        description=(
            "where runs are made, {ray: {address: auto}}; left out: on this machine. No number "
            "depends on it, and no record holds it"
        ),
    )
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
    def models(self) -> tuple[str | EndpointConfig, ...]:
        """The models, or the one model."""
        return self.model if isinstance(self.model, tuple) else (self.model,)

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
    def selects_by_metric(self) -> bool:
        """Whether the winner is selected by each task's metric, and not by its loss."""
        return (self.select_by or ("metric" if self.objective else "loss")) == "metric"

    def on(self, model: str | EndpointConfig) -> StudyConfig:
        """The same study on one of its models alone."""
        return self.model_copy(update={"model": model, "transfer": False})

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

    @field_validator("transfer", mode="after")
    @classmethod
    def _to_other_models(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not isinstance(info.data.get("model", ()), tuple):
            raise ValueError("a list of models beside it, to whose other members winners go")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise ValueError("auto, cpu, cuda, cuda:1 or mps")
        return value

    @model_serializer(mode="wrap")
    def _as_in_a_file(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All keys; those that few studies have are left out of others."""
        found: dict[str, Any] = dump(self)
        rare = ("transfer", "track", "replicas", "device_map")
        return {key: value for key, value in found.items() if key not in rare or value}

    @model_validator(mode="after")
    def _priced(self) -> StudyConfig:
        asked = (*self.models, self.proposer)
        if self.max_cost and not any(isinstance(m, EndpointConfig) and m.price for m in asked):
            text = "'max_cost' needs a price: give the endpoint 'price: {input: 0.1, output: 0.4}'."
            raise PydanticCustomError("price", "{text}", {"text": text, "key": "max_cost"})
        return self

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
        runs *= len(self.models)
        if runs > RUNS:
            several = "models x " if len(self.models) > 1 else ""
            text = (
                f"this is a study of {runs:,} runs (tasks x {several}strategies x lengths x seeds);"
                f" expected at most {RUNS:,}."
            )
            raise PydanticCustomError("runs", "{text}", {"text": text, "key": "strategies"})
        return self
