"""What pydantic expected, in plain words; what it is not known to say stands as it is."""

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from promptsearch.plain.expected import expected


class Options(BaseModel):
    count: int = Field(1, ge=1)
    text: str = ""

    @field_validator("text")
    @classmethod
    def _with_a_slot(cls, value):
        if value != "{x}":
            raise ValueError("it needs {x}, and {0}")
        return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": "many"}, "a whole number"),
        ({"count": 0}, "at least 1"),
        ({"text": "a"}, "Value error, it needs {x}, and {0}"),
    ],
)
def test_what_was_expected_is_told(given, told):
    with pytest.raises(ValidationError) as caught:
        Options(**given)
    assert expected(caught.value.errors()[0]) == told
