"""What pydantic expected of a value, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A number of bytes, as a study file may give one.
BYTES = "a number of bytes, such as 8GB"

#: Type of error -> what was expected; braces are filled from the error's context.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (in quotes where it looks like something else)",
    "string_too_long": "at most {max_length} characters",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "literal_error": "{expected}",
    "byte_size": BYTES,
    "byte_size_unit": BYTES,
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}


def expected(error: Mapping[str, Any]) -> str:
    """What was expected where pydantic found something else.

    Args:
        error: One of the `errors()` of a `ValidationError`.
    """
    if error["type"] not in _EXPECTED:  # a stranger's message may hold braces of its own
        return str(error["msg"])
    return _EXPECTED[error["type"]].format(**error.get("ctx", {}))
