"""Where the runs of a study are made; no number depends on it, and no record holds it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from promptsearch.study.settings.keys import Keys

_Amount = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


def _address(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"auto|local|[\w.\-\[\]:]+:\d{1,5}", value):
        raise ValueError(
            "auto (the cluster that this machine belongs to), local (one of this machine alone) or "
            "HOST:PORT of its head; a call through ray:// is made on a machine of the cluster"
        )
    return value


class RayConfig(Keys):
    """A Ray cluster, and what each worker takes of it."""

    address: Annotated[str, BeforeValidator(_address)] = Field(
        "auto",
        description=(
            "auto (the cluster that this machine belongs to), local (one of this machine alone) or "
            "HOST:PORT of its head"
        ),
    )
    num_cpus: _Amount | None = Field(
        None, description="the CPUs of each worker; left out: as many as threads"
    )
    num_gpus: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        None,
        description=(
            "the GPUs of each worker, or the part of one; left out: 1 where the study's device is "
            "one, else 0"
        ),
    )
    resources: dict[str, _Amount] = Field(
        {}, description="what else each worker takes, by the names that the cluster gives it"
    )


class ExecutionConfig(Keys):
    """Where runs are made."""

    ray: RayConfig | None = Field(
        None, description="a Ray cluster: {address: auto}, see the guide on clusters"
    )
