"""Scores of earlier runs, kept in SQLite.

An entry is one whole call of the scorer: these prompts, in this order, on these examples. A prompt's loss moves
in its last digits with the other members of its batch, so only the same call may reuse it: then a run gets the
same numbers whether the cache is empty or full. Its name follows from the model's weights as they were when it was scored, and
it stands behind a checksum: an entry that something else has written or changed is scored again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import RecordError


class ScoreCache:
    """A SQLite file of scores; several processes may share it.

    Args:
        path: The file; made with its folder where it is missing.

    Raises:
        RecordError: The file is not such a cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("create table if not exists scores (name text primary key, content text not null)")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Whatever is wrong with the file becomes an error that names it."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise RecordError(
                f"{self._path} is not a score cache, or is damaged ({error}): delete it; scores are made anew"
            ) from error

    @staticmethod
    def name(signature: str, keys: Sequence[str], examples: NDArray[np.int64]) -> str:
        """The name of one call of the scorer."""
        content = json.dumps([signature, list(keys), examples.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def get(self, name: str) -> dict[str, Any] | None:
        """The scores of this call, if an earlier run left them."""
        with self._named():
            found = self._db.execute("select content from scores where name = ?", (name,)).fetchone()
            return None if found is None or (content := _opened(name, found[0])) is None else dict(json.loads(content))

    def put(self, name: str, scores: dict[str, Any]) -> None:
        """Leave the scores of this call."""
        content = _sealed(name, json.dumps(scores, allow_nan=False))
        with self._named():
            self._db.execute("insert or replace into scores values (?, ?)", (name, content))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _sealed(name: str, content: str) -> str:
    """Content behind its checksum: what was written by anything else than this cache does not count."""
    return f"{hashlib.sha256(f'{name} {content}'.encode()).hexdigest()[:20]} {content}"


def _opened(name: str, sealed: object) -> str | None:
    """The reverse of `_sealed`; None where the checksum is wrong: such an entry is scored again."""
    content = str(sealed)[21:]
    return content if sealed == _sealed(name, content) else None
