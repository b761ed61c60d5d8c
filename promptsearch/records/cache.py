"""Scores of earlier runs, kept in SQLite.

An entry is one whole call of the scorer: these prompts, in this order, on these examples. A
prompt's loss moves in its last digits with the other members of its batch, so only the same call
may reuse it: then a run gets the same numbers whether the cache is empty or full. Its name follows
from the model's weights as they were when it was scored, and it stands behind a checksum: an entry
that something else has written or changed is scored again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import FileError
from promptsearch.files import exists, make_folder, opened, shown
from promptsearch.plain.json import parse_json
from promptsearch.records.sealed import seal, unseal

log = logging.getLogger(__name__)
T = TypeVar("T")


class ScoreCache:
    """A SQLite file of scores; several processes may share it.

    It saves time and nothing else: where the file cannot be used, be it damaged, locked, on a full
    disk or no such file at all, this is said once, and scores are computed as if there were none.
    An entry that is not what was put there is made anew.

    Args:
        path: The file; made with its folder where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._try(self._open, None)

    def _open(self) -> None:
        make_folder(self._path.parent)
        if exists(self._path):
            with opened(self._path, 1 << 60):  # no pipe, which would wait
                pass
        self._db = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute(
            "create table if not exists scores (name text primary key, content text not null)"
        )

    def _try(self, work: Callable[[], T], otherwise: T) -> T:
        """Do something with the file, or say that it is not used any more."""
        try:
            return work()
        except (sqlite3.Error, FileError) as error:
            log.warning(
                "scores of earlier runs, in %s, are not used (%s): what they would save is "
                "computed again, and no number changes",
                shown(self._path),
                error,
            )
            self.close()
            return otherwise

    @staticmethod
    def name(signature: str, keys: Sequence[str], examples: NDArray[np.int64]) -> str:
        """The name of one call of the scorer."""
        content = json.dumps([signature, list(keys), examples.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def get(self, name: str) -> dict[str, Any] | None:
        """The scores of this call, if an earlier run left them."""
        return self._try(lambda: self._get(name), None)

    def _get(self, name: str) -> dict[str, Any] | None:
        if self._db is None:
            return None
        found = self._db.execute("select content from scores where name = ?", (name,)).fetchone()
        if found is None:
            return None
        try:
            scores = unseal(parse_json(found[0]))
            if scores.pop("call") != name:
                raise ValueError("it is of another call")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._db.execute("delete from scores where name = ?", (name,))
            return None
        return scores

    def put(self, name: str, scores: dict[str, Any]) -> None:
        """Leave the scores of this call; what is there already stays."""
        content = json.dumps(seal({**scores, "call": name}))
        self._try(lambda: self._put(name, content), None)

    def _put(self, name: str, content: str) -> None:
        if self._db is not None:
            self._db.execute("insert or ignore into scores values (?, ?)", (name, content))

    def close(self) -> None:
        """Close the file; nothing is read from it or written any more."""
        if self._db is not None:
            db, self._db = self._db, None
            with suppress(sqlite3.Error):  # what is left to do is done by whoever opens it next
                db.close()
