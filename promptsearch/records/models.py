"""What a study of several models leaves beside the studies of its models, and how it is read.

Each model has a study of its own in a folder of its own: nothing is ranked across models, whose
tokens, budgets and losses are not the same. `models.json` says which these are and why one is
missing, `transfer.json` what the hard winners of one model do on others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.files import exists
from promptsearch.records.load import STUDY, load_results, record_of
from promptsearch.records.results import Results
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.records.sealed import read_record

#: The names of the records.
MODELS, TRANSFER = "models.json", "transfer.json"
_REMEDY = "restore it, or delete it and run the study again: what is finished is kept"


@dataclass(frozen=True)
class MemberRecord:
    """One of the models.

    Args:
        name: The name of its study's folder.
        source: The model as the study file names it.
        error: Why its runs could not be made; empty where they could.
    """

    name: str
    source: str
    error: str = ""


@dataclass(frozen=True)
class ModelsRecord:
    """A study of several models: the schema of `models.json`.

    Args:
        name: The study's name.
        settings: The resolved study file.
        models: The models in the order of the study file.
    """

    name: str
    settings: dict[str, Any]
    models: tuple[MemberRecord, ...]


@dataclass(frozen=True)
class CarriedRecord:
    """What a hard winner of one model does on the test split of another, as text.

    Args:
        task: The task's name.
        label: The label of the run that it won.
        seed: The seed of that run.
        source: The name of the model that it was found for.
        target: The name of the model that it was carried to.
        key: The winner's name in logs.
        texts: Its text in each slot, without the space that belongs to the slot.
        loss: Mean nats per test example; None where it cannot be scored.
        metric: The task's metric on the test split; None where it failed.
        tokens: What scoring it took in LM tokens of the target, which no run is charged.
        error: Why it could not be carried over; empty where it could.
    """

    task: str
    label: str
    seed: int
    source: str
    target: str
    key: str
    texts: tuple[str, ...]
    loss: float | None
    metric: float | None
    tokens: int
    error: str = ""

    @property
    def name(self) -> tuple[str, str, int, str, str, str]:
        """What tells it from others."""
        return (self.task, self.label, self.seed, self.source, self.target, self.key)


@dataclass(frozen=True)
class TransferRecord:
    """All winners that were carried over: the schema of `transfer.json`."""

    carried: tuple[CarriedRecord, ...] = ()


@dataclass(frozen=True)
class ModelsResults:
    """Everything that a study of several models found.

    Args:
        folder: The study's folder.
        study: The study.
        parts: Model -> the results of its study, in the order of the models; without those that
            have none yet.
        transfer: What hard winners do on other models; None where they were not carried over.
    """

    folder: Path
    study: ModelsRecord
    parts: Mapping[str, Results]
    transfer: TransferRecord | None

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """The finished runs of all models, model by model."""
        return tuple(run for part in self.parts.values() for run in part.runs)

    @property
    def failed(self) -> tuple[FailedRecord, ...]:
        """The failed runs of all models."""
        return tuple(run for part in self.parts.values() for run in part.failed)

    @property
    def failing(self) -> tuple[FailedRecord, ...]:
        """Those of them that the last call asked for."""
        return tuple(run for part in self.parts.values() for run in part.failing)

    @property
    def unfinished(self) -> tuple[tuple[str, str, int], ...]:
        """Task, label and seed of the runs that are still to be made, model by model."""
        return tuple(run for part in self.parts.values() for run in part.unfinished)

    @property
    def missing(self) -> tuple[MemberRecord, ...]:
        """The models whose runs could not be made, each with the reason."""
        return tuple(member for member in self.study.models if member.error)


def is_of_models(folder: Path) -> bool:
    """Whether a folder holds a study of several models."""
    return exists(folder / MODELS)


def load_models(folder: Path | str, *, trust_code: bool = False) -> ModelsResults:
    """Read the folder of a study of several models.

    Args:
        folder: What `promptsearch compare` was given as `--out`.
        trust_code: As for `load_results`.

    Raises:
        RecordError: One of its files is damaged.
    """
    folder = Path(folder)
    study = load_members(folder)
    parts = {
        member.name: load_results(folder / member.name, trust_code=trust_code)
        for member in study.models
        if exists(folder / member.name / STUDY)
    }
    return ModelsResults(folder, study, parts, load_transfer(folder))


def load_members(folder: Path) -> ModelsRecord:
    """Read which models a study has.

    Raises:
        RecordError: `models.json` is damaged.
    """
    path = folder / MODELS
    return record_of(ModelsRecord, path, read_record(path, "models", _REMEDY))


def load_transfer(folder: Path) -> TransferRecord | None:
    """Read what hard winners do on other models; None where they were not carried over.

    Raises:
        RecordError: `transfer.json` is damaged.
    """
    path = folder / TRANSFER
    if not exists(path):
        return None
    return record_of(TransferRecord, path, read_record(path, "transfer", _REMEDY))
