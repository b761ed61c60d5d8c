"""What the runs of a study share: the schema of `study.json`, for its writer and its readers.

The fields have the names of the file's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptsearch.records.ledger import Fare


@dataclass(frozen=True)
class ModelRecord:
    """The LM of a study.

    Args:
        name: Its name.
        hash: The hash of its weights.
        tokenizer_hash: The hash of its tokenizer.
        parameters: Their number; None for a model behind an endpoint.
        source: Where it came from.
        served: Where and how it is served, see `promptsearch.models.remote`; None for a model that
            runs here.
    """

    name: str
    hash: str
    tokenizer_hash: str
    parameters: int | None
    source: str
    served: Mapping[str, Any] | None


@dataclass(frozen=True)
class SplitRecord:
    """The size of a split, in examples, and the hash of its content."""

    size: int
    hash: str


@dataclass(frozen=True)
class NoiseRecord:
    """What the search's arithmetic does to losses, in nats.

    Args:
        example: The largest difference from float32 on one example.
        prompt: The largest difference from float32 of a prompt's mean.
        beside: The most by which an example's loss moves when its prompt is scored alone instead of
            beside others.
    """

    example: float
    prompt: float
    beside: float


@dataclass(frozen=True)
class RowRecord:
    """A row of the test split, for a reader who looks at its answers.

    Args:
        fields: The texts of the template's fields.
        references: The right answers.
    """

    fields: dict[str, str]
    references: tuple[str, ...]


@dataclass(frozen=True)
class TaskRecord:
    """A task of a study.

    Args:
        kind: `choices` or `text`.
        template: With its slots.
        metric: The name of the metric.
        splits: `search`, `select` and `test`.
        choices: The answers to choose from; None for text answers.
        majority: Share of the most frequent answer in the test split.
        pool: Tokens that a hard prompt may use.
        pool_hash: The hash of the pool's token ids.
        pool_made: How the pool was made.
        pool_price: LM tokens that finding it took, charged to each run of hard prompts.
        score_on: Search examples per evaluation.
        notes: What was dropped from the data, or read otherwise than it may look.
        noise: What the search's dtype does to losses; None where it was not measured.
        floors: What answers without a language model -> the test metric of its answers, see
            `promptsearch.tasks.floors`.
        decoding: The way in which text answers are generated; empty for choices.
        measured: The signatures of the metric and of those that are shown beside it.
        groups: The number of the group of each row of the test split; None where there are none.
        shown: The first rows of the test split, for text answers.
        family: The name that the tasks share which the values of one field make; empty for a task
            alone.
        end: What ends a text answer, in training and generation: a text or an end token, empty
            where a server is sent the answer alone. None for answers to choose from, and where it
            was recorded before answers had an end.
        options: The largest number of answers to choose from, where these differ by row.
        normalise: The length by which log-probabilities of answers to choose from are divided.
    """

    kind: str
    template: str
    metric: str
    splits: dict[str, SplitRecord]
    choices: list[str] | None
    majority: float
    pool: int
    pool_hash: str
    pool_made: str
    pool_price: int
    score_on: int
    notes: tuple[str, ...]
    noise: NoiseRecord | None
    floors: dict[str, float] = field(default_factory=dict)
    decoding: str = ""
    measured: tuple[str, ...] = ()
    groups: tuple[int, ...] | None = None
    shown: tuple[RowRecord, ...] = ()
    family: str = ""
    end: str | None = None
    options: int | None = None
    normalise: str = "none"


@dataclass(frozen=True)
class StudyRecord:
    """The settings that all runs of a study share.

    Args:
        name: The study's name.
        version: The version of promptsearch.
        commit: Its commit; None where it was not installed from a repository.
        settings: The resolved study file.
        model: The LM.
        dtype: The dtype of the search.
        device: Where the LM runs.
        memory: Bytes that might go to keys and values; None for a model behind an endpoint.
        race: Whether clearly worse prompts were scored on some examples only.
        machine: What matters of the machine, see `promptsearch.records.provenance`.
        versions: Package -> version.
        budget: LM tokens per run.
        seeds: The seeds of the runs.
        score_on: Search examples per evaluation, as the study file has it.
        max_seconds: The time limit of a run; None for none.
        strategies: Labels in the order of the study file.
        families: Label -> the label that the rows of a sweep over prompt lengths share; others are
            left out.
        tasks: Task name -> task.
        signature: The long form, see `promptsearch.records.signature`, for readers of the file.
        objective: The metric whose opposite searches minimised; empty for the loss.
        select_by: By what the winner was selected: `loss` or `metric`.
        prices: The version of the prices in tokens, see `promptsearch.records.ledger`.
        fare: What the tokens of a model that proposes cost; None where no row asks one.
        mixed: What processes had otherwise that took part all the same, each by name of a package
            or of what `machine` holds, or `device`, or `memory`.
        latest: What the last call asked for: its `strategies`, `tasks` and `seeds`, which may be
            fewer than all that the folder knows; None for all of them.
        once: The labels of the rows of which one run stands for all seeds; records of before do not
            say it.
    """

    name: str
    version: str
    commit: str | None
    settings: dict[str, Any]
    model: ModelRecord
    dtype: str
    device: str
    memory: int | None
    race: bool
    machine: dict[str, Any]
    versions: dict[str, str]
    budget: int
    seeds: list[int]
    score_on: int
    max_seconds: float | None
    strategies: list[str]
    families: dict[str, str]
    tasks: dict[str, TaskRecord]
    signature: str
    objective: str = ""
    select_by: str = "loss"
    mixed: tuple[dict[str, str], ...] = ()
    prices: int = 1
    fare: Fare | None = None
    latest: dict[str, list[Any]] | None = None
    once: list[str] = field(default_factory=list)

    def wants(self, task: str, label: str, seed: int) -> bool:
        """Whether the last call asked for a run."""
        asked = {"tasks": task, "strategies": label, "seeds": seed}
        return self.latest is None or all(asked[key] in self.latest[key] for key in asked)

    def seeds_of(self, label: str) -> int:
        """The number of seeds that a row is asked to run with, if its strategy draws anything."""
        rows = (next(iter(row.values())) for row in self.settings.get("strategies", ()))
        given = (row.get("seeds") for row in rows if row["label"] == self.family(label))
        return min(next(given, None) or len(self.seeds), len(self.seeds))

    def asked(self, label: str) -> int | None:
        """The prompt length that a row of a sweep was run at; None for other rows."""
        length = label.removeprefix(f"{self.family(label)}-")
        return int(length) if label in self.families and length.isdecimal() else None

    def family(self, label: str) -> str:
        """What a row of a sweep shares with those of other lengths; for other rows, the label."""
        return self.families.get(label, label)
