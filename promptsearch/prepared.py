"""A study file made ready: everything found, loaded and checked, and not one LM token spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from promptsearch.config import PoolFile, StrategyConfig, StudyConfig
from promptsearch.errors import StudyError
from promptsearch.model import LanguageModel
from promptsearch.model.language_model import half_of_memory, pick_dtype
from promptsearch.prompt import HardPrompt, RowsPrompt, TunedPrompt, kind_of
from promptsearch.run import Arena, Run
from promptsearch.scoring.chat import render
from promptsearch.scoring.layout import check_joints
from promptsearch.strategy import Strategy, check_options, find_strategy
from promptsearch.task import SPLITS, Task
from promptsearch.template import Kind

#: Of an arena: the task's name, the prompt's length, and the kind of its template.
ArenaKey = tuple[str, int, Kind]


@dataclass(frozen=True)
class Row:
    """One strategy of the study file, found and checked, at one prompt length.

    Args:
        given: As in the study file; in a sweep over lengths with a label and a length of its own.
        strategy: The class.
        family: The label in the study file, which the rows of a sweep share.
    """

    given: StrategyConfig
    strategy: type[Strategy]
    family: str


@dataclass(frozen=True)
class Prepared:
    """What `compare` runs and `plan` predicts.

    Args:
        config: The study.
        lm: As it was loaded or given.
        exact: In float32.
        dtype: Of the search.
        memory: Bytes for keys and values.
        tasks: In order.
        rows: In order.
        arenas: See `ArenaKey`.
    """

    config: StudyConfig
    lm: LanguageModel
    exact: LanguageModel
    dtype: torch.dtype
    memory: int
    tasks: list[Task]
    rows: list[Row]
    arenas: dict[ArenaKey, Arena]

    def arena(self, task: Task, row: Row | None = None) -> Arena:
        """Where a row runs; left out: the first row."""
        return self.arenas[_arena_key(self.config, task, row or self.rows[0])]

    def runs(self, folder: Path) -> Iterator[Run]:
        """All runs, seed by seed, so that a study that is cut short has every strategy.

        Args:
            folder: Of the study.
        """
        config = self.config
        for place, seed in enumerate(config.seeds):
            for task in self.tasks:
                for row in self.rows:
                    if row.strategy.deterministic and place > 0:
                        continue
                    given = row.given
                    yield Run(
                        arena=self.arena(task, row),
                        name=given.name,
                        label=given.label,
                        strategy=row.strategy,
                        options=dict(given.options),
                        seed=seed,
                        budget=given.budget or config.budget,
                        reference=row.strategy.reference or given.budget not in (None, config.budget),
                        folder=folder / task.name / given.label / f"seed{seed}",
                        seconds=config.max_seconds,
                        race=config.race,
                    )


def prepare(config: StudyConfig, model: LanguageModel | None = None, task: Task | None = None) -> Prepared:
    """Find strategies, load data and model, lay out all examples, check joints and budgets.

    Args:
        config: The study.
        model: An LM that is loaded already.
        task: A task that is made already.

    Raises:
        PromptSearchError: Anything wrong with the input.
    """
    rows = _rows(config)
    tasks = [task] if task else [Task.load(_given(t), config.folder, metric=config.metric) for t in config.tasks]
    _check_sweep(config, tasks)
    lm = model or LanguageModel.load(config.model_source, device=config.device)
    lm.check()
    dtype = pick_dtype(config.dtype, lm.device)
    tasks = [replace(task, template=render(task.template, lm)) for task in tasks]
    exact = lm.to(torch.float32)
    memory = half_of_memory(exact.device) if config.memory is None else int(config.memory)
    pool = _pool(config, exact)
    arenas: dict[ArenaKey, Arena] = {}
    keys = {_arena_key(config, task, row) for task in tasks for row in rows}
    keeping = sum(kind in ("slots", "gated") for _, _, kind in keys)  # nothing of a row stays the same below others
    share = memory // max(1, keeping)  # all of them keep what they computed until the study ends
    for each in tasks:
        for row in rows:
            key = _arena_key(config, each, row)
            if key not in arenas:
                _, length, kind = key
                arenas[key] = Arena.build(each, exact, dtype, length, pool, config.score_on, share, kind)
            _check_budget(config, row, arenas[key])
        unchecked = {False, True}
        for (name, _, _), arena in arenas.items():
            if name == each.name and arena.template.apart in unchecked:  # joints are the same whatever the length
                unchecked.remove(arena.template.apart)
                for split in SPLITS:
                    check_joints(arena.template, exact, each.splits[split], each.choices, arena.space)
    return Prepared(config, lm, exact, dtype, memory, tasks, rows, arenas)


def _arena_key(config: StudyConfig, task: Task, row: Row) -> ArenaKey:
    apart = [kind for kind in map(kind_of, row.strategy.proposes) if kind != "slots"]
    return task.name, row.given.length or config.lengths[0], apart[0] if apart else "slots"


def _rows(config: StudyConfig) -> list[Row]:
    """The strategies of the study file; in a sweep each at every length, but where its length is given or does not matter."""
    rows = []
    for given in config.strategies:
        strategy = find_strategy(given.name)
        check_options(given.name, strategy, given.options)
        sized = any(issubclass(kind, (HardPrompt, RowsPrompt, TunedPrompt)) for kind in strategy.proposes)
        if isinstance(config.length, int) or given.length is not None:
            rows.append(Row(given, strategy, given.label))
        elif not sized:  # a text has the length that it has, weights have none: one for all, whatever lengths come later
            rows.append(Row(given.model_copy(update={"length": 1}), strategy, given.label))
        else:
            for length in config.lengths:
                at = given.model_copy(update={"label": f"{given.label}-{length}", "length": length})
                rows.append(Row(at, strategy, given.label))
    labels = [row.given.label for row in rows]
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise StudyError(f"two rows would be called '{twice}', one of them by the sweep over 'length': give the other a label")
    return rows


def _check_sweep(config: StudyConfig, tasks: list[Task]) -> None:
    for task in tasks:
        if not isinstance(config.length, int) and all(slot.length is not None for slot in task.template.slots):
            raise StudyError(
                f"'length' is a list, but the template of task '{task.name}' fixes the length of each slot: "
                f"{task.template.text!r}. Leave the numbers out of its slots, or give one length"
            )


def _given(task: Any) -> str | dict[str, Any]:
    """A task of the study file as `Task.load` takes it."""
    return task if isinstance(task, str) else task.model_dump(exclude_none=True)


def _check_budget(config: StudyConfig, row: Row, arena: Arena) -> None:
    budget, least = row.given.budget or config.budget, arena.smallest_budget(row.strategy.finalists)
    if budget < least:
        raise StudyError(
            f"a budget of {budget} tokens is too small for '{row.given.label}' on task '{arena.task.name}': one evaluation "
            f"on {arena.score_on} examples and the selection among the best prompts cost {least} tokens. Raise "
            "budget, or lower score_on or the size of the select split."
        )


def _pool(config: StudyConfig, lm: LanguageModel) -> tuple[int, ...]:
    """Token ids of the study's pool."""
    pool = config.pool
    if isinstance(pool, str):
        return lm.words
    if isinstance(pool, int):
        if pool > len(lm.words):
            raise StudyError(f"the pool wants {pool} words, but this tokenizer has {len(lm.words)}: lower 'pool'")
        return lm.words[:pool]  # byte-pair encoding numbers its tokens by frequency: the first are the most frequent
    if isinstance(pool, PoolFile):
        path = config.folder / pool.file
        try:
            words = [line.strip("\r\n") for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise StudyError(f"cannot read the pool from {path}: {reason}") from error
    else:
        words = list(pool)
    ids = []
    for word in words:
        found = lm.encode(word if word.startswith(" ") else f" {word}")
        if len(found) != 1:
            raise StudyError(f"the word {word!r} of the pool is {len(found)} tokens of this model: a pool holds single tokens")
        ids.append(found[0])
    return tuple(dict.fromkeys(ids))
