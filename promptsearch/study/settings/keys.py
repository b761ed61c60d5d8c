"""A mapping with known keys, and values that several mappings have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from promptsearch.errors import UnknownName
from promptsearch.plain.expected import BYTES
from promptsearch.plain.names import NAME, TAKEN
from promptsearch.tasks.notation import LONGEST_PROMPT

#: The largest whole number of a sensible study.
MOST = 10**15


def unflagged(what: str) -> BeforeValidator:
    """What refuses truth values, which pydantic takes for 0 and 1, before pydantic.

    Args:
        what: What is expected.
    """

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(what)
        return value

    return BeforeValidator(check)


def _name(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", value):
        raise ValueError(
            "a name that can be a folder's: letters, digits and . _ + -, beginning with a letter "
            "or digit"
        )
    if isinstance(value, str) and len(value) > NAME:
        raise ValueError(f"a name of at most {NAME} characters, which is a folder's")
    if isinstance(value, str) and (value.endswith(".") or TAKEN.fullmatch(value)):
        raise ValueError(
            "another name: some systems, or a study's folder, give this one another meaning"
        )
    return value


def unknown(kind: str, name: str, known: Sequence[str]) -> PydanticCustomError:
    """The error of an unknown name, with "did you mean"; see `UnknownName` for the arguments."""
    text = str(UnknownName(kind, name, known))
    return PydanticCustomError("unknown_name", "{text}", {"text": text})


def one_of(kind: str, known: Sequence[str]) -> BeforeValidator:
    """What refuses a text that is none of the known ones, with "did you mean", before pydantic."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in known:
            raise unknown(kind, value, known)
        return value

    return BeforeValidator(check)


WHOLE, NUMBER = unflagged("a whole number"), unflagged("a number")
Whole = Annotated[int, WHOLE, Field(ge=1, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), NUMBER]
Bytes = Annotated[ByteSize, unflagged(BYTES)]
Name = Annotated[str, BeforeValidator(_name)]
#: A number of prompt tokens.
Tokens = Annotated[Whole, Field(le=LONGEST_PROMPT)]


class Keys(BaseModel):
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
