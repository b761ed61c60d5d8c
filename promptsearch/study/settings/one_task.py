"""A task of a study: a built-in one by its name, one's own, or one of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from promptsearch.plain.names import as_name
from promptsearch.study.settings.data import SplitSizes
from promptsearch.study.settings.keys import Keys, Name, Whole
from promptsearch.study.settings.task import DecodingConfig, Length, Metric, TaskConfig


class LmEvalConfig(Keys):
    """A task of lm-evaluation-harness; what is left out is as its file says."""

    lm_eval: str = Field(
        min_length=1,
        description=(
            "a task's .yaml file, relative to the study file, or the name of a task that the "
            "installed package lm-eval brings"
        ),
    )
    name: Name = Field(
        "", description="names the task in reports and folders; left out: that of lm_eval"
    )
    description: str | None = Field(None, description="what it is, in one line")
    splits: SplitSizes = Field(
        SplitSizes(search=None, select=None, test=None),
        description=(
            "as for a task of one's own; a split that the harness has may be left out, and gets "
            "all of its rows"
        ),
    )
    normalise: Length | None = Field(
        None,
        description=(
            "what the log-probability of an answer to choose from is divided by: none, or its "
            "number of tokens, bytes (acc_bytes) or characters (acc_norm)"
        ),
    )
    references: Whole | None = Field(
        None, description="how many of a row's right answers count in the loss; left out: all"
    )
    decoding: DecodingConfig | None = Field(None, description="how text answers are generated")
    metric: Metric | None = Field(None, description="the one that the verdict is about")
    metrics: tuple[Metric, ...] | None = Field(
        None, description="further ones, which are reported beside it"
    )

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_file(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("name") is not None:
            return data
        asked = str(data.get("lm_eval", ""))
        stem = Path(asked).stem if asked.endswith((".yaml", ".yml")) else asked
        return {**data, "name": as_name(stem, "task")}


def _given(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    harness = isinstance(value, LmEvalConfig) or (isinstance(value, Mapping) and "lm_eval" in value)
    return "lm_eval" if harness else "mapping"


OneTask = Annotated[
    Annotated[Name, Tag("text")]
    | Annotated[LmEvalConfig, Tag("lm_eval")]
    | Annotated[TaskConfig, Tag("mapping")],
    Discriminator(_given),
]
