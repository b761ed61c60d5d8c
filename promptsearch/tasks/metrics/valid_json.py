"""Valid JSON: the share of answers that can be read by a machine, whatever they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.plain.json import parse_json
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed


class ValidJson(Metric):
    """The share of answers that are JSON, as `promptsearch.plain.json` reads it.

    Args:
        keys: The keys that an answer must have; where there are any, it must be an object.
    """

    name = "valid_json"
    mean = True

    def __init__(self, *, keys: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)

    @property
    def signature(self) -> str:
        """Says which keys are asked for."""
        return signed(self.name, keys=",".join(self.keys)) if self.keys else self.name

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """1 for an answer that can be read and has the keys, 0 for another one."""
        return np.array([[float(not self.feedback(row))] for row in rows])

    def feedback(self, row: Answered) -> str:
        """Why an answer does not count."""
        try:
            found = parse_json(row.output)
        except ValueError as error:
            return f"this is no JSON: {error}"
        if self.keys and not isinstance(found, dict):
            return f"expected an object with the keys {', '.join(self.keys)}"
        lacking = [key for key in self.keys if key not in found]
        return f"the object lacks the keys {', '.join(lacking)}" if lacking else ""
