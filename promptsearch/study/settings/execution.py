"""Where the runs of a study are made; no number depends on it, and no record holds it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from promptsearch.errors import StudyError
from promptsearch.printable import brief
from promptsearch.study.settings.keys import NUMBER, Keys

_Amount = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False), NUMBER]
_ADDRESS = r"auto|local|[\w.\-\[\]:]+:\d{1,5}"
_ADDRESSES = (
    "auto (the cluster that this machine belongs to), local (one of this machine alone) or "
    "HOST:PORT of its head; a call through ray:// is made on a machine of the cluster"
)


def _address(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(_ADDRESS, value):
        raise ValueError(_ADDRESSES)
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
    num_gpus: Annotated[float, Field(ge=0, le=1e6), NUMBER] | None = Field(
        None,
        description=(
            "the GPUs of each worker, or the part of one; left out: 1 where the study's device is "
            "one, else 0"
        ),
    )
    resources: dict[str, _Amount] = Field(
        {}, description="what else each worker takes, by the names that the cluster gives it"
    )


def at_address(cluster: RayConfig | None, address: str) -> RayConfig:
    """The cluster of a study, at the address that a call names.

    Args:
        cluster: What the study says of it; None for nothing.
        address: The address.

    Raises:
        StudyError: It is none.
    """
    if not re.fullmatch(_ADDRESS, address):
        raise StudyError(f"--ray: got {brief(address)}; expected {_ADDRESSES}")
    return (cluster or RayConfig.model_validate({})).model_copy(update={"address": address})


class ExecutionConfig(Keys):
    """Where runs are made."""

    ray: RayConfig | None = Field(
        None, description="a Ray cluster: {address: auto}, see the guide on clusters"
    )
