"""What the bench searches: a planted objective, or the table of a real model's scores."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np

from promptsearch.export import load_prompt
from promptsearch.testing.landscape import Kind
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.table import TableScorer

#: The kinds of planted objectives.
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The number of random prompts whose median stands for that of a planted objective's space.
_SAMPLE = 1_001


@dataclass(frozen=True)
class Ground:
    """What is searched.

    Args:
        name: A kind of planted objective, or the name of a table.
        pool: Tokens in the pool of a planted objective.
        length: Tokens in its prompts.
        table: The file of a table; None for planted ones.
    """

    name: str
    pool: int = 100
    length: int = 4
    table: Path | None = None

    def scorer(self, seed: int) -> PlantedScorer | TableScorer:
        """The ground of one seed: a table is the same for all of them."""
        if self.table is not None:
            return _table(self.table)
        return PlantedScorer(_kind(self.name), seed=seed, pool=self.pool, length=self.length)


def table_ground(path: Path, keep: Path | None = None) -> Ground:
    """A table to search on.

    Args:
        path: A file that `TableScorer.save` wrote, or the folder of a finished run of exhaustive.
        keep: A folder in which the table of a run is kept; left out: a temporary file.

    Raises:
        RecordError: There is no table, or the run has not scored the whole space.
        ModelError: The run's LM, whose words the table names, cannot be loaded.
    """
    if path.is_dir():
        scorer = TableScorer.from_run(path, load_prompt(path).model())
        folder = keep or Path(tempfile.mkdtemp())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "table.safetensors"
        scorer.save(path)
    scorer = TableScorer.load(path)
    return Ground(
        f"{scorer.name}: {len(scorer.values):,} prompts",
        len(scorer.words),
        scorer.space.length,
        path,
    )


def median_loss(scorer: PlantedScorer | TableScorer) -> float:
    """The mean loss of the median prompt of a space, in nats."""
    if isinstance(scorer, TableScorer):
        return scorer.median_value
    sample = scorer.space.sample(np.random.default_rng(0), _SAMPLE)
    return float(np.median(scorer.score(sample, scorer.scored).losses.mean(1)))


@cache
def _table(path: Path) -> TableScorer:
    """A table, read once a process."""
    return TableScorer.load(path)


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind == name)
