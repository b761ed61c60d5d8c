"""A study file made ready: everything found, loaded and checked, and not one LM token spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from promptsearch.config import PoolFile, StrategyConfig, StudyConfig
from promptsearch.endpoint import Endpoint
from promptsearch.errors import StudyError
from promptsearch.model import LanguageModel
from promptsearch.model.text import TextModel
from promptsearch.model.tokens import Tokens
from promptsearch.prompt import HardPrompt, RowsPrompt, TextPrompt, TunedPrompt, kind_of
from promptsearch.run import Arena, Run
from promptsearch.served import ServedModel
from promptsearch.strategy import Access, Strategy, check_options, find_strategy
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
    lm: TextModel
    exact: TextModel
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


def prepare(config: StudyConfig, model: TextModel | None = None, task: Task | None = None) -> Prepared:
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
    lm = model or _load(config, rows)
    lm.check()
    _check_metrics(lm, tasks)
    dtype = lm.searched_in(config.dtype)
    exact = lm.to(torch.float32)
    memory = exact.room() if config.memory is None else int(config.memory)
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
                    arena.exact[split].check_joints(arena.space)
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


def _check_metrics(lm: TextModel, tasks: list[Task]) -> None:
    for task in tasks:
        if lm.served and lm.served["scores"] == "errors" and task.metric not in ("accuracy", "exact_match"):
            raise StudyError(
                f"the metric '{task.metric}' of task '{task.name}' needs the probabilities of the answers, but the endpoint of "
                f"'{lm.name}' gives no log-probabilities of a prompt: take accuracy"
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


def _load(config: StudyConfig, rows: list[Row]) -> TextModel:
    """The study's model, from wherever it is."""
    given = config.model
    if isinstance(given, str):
        return LanguageModel.load(config.model_source, device=config.device)
    for row in rows:
        if row.strategy.access is not Access.SCORES or not row.strategy.proposes <= {HardPrompt, TextPrompt}:
            kinds = ", ".join(sorted(kind.__name__ for kind in row.strategy.proposes))
            raise StudyError(
                f"the strategy '{row.given.label}' needs {row.strategy.access} of the model and proposes {kinds}; on a model "
                "behind an endpoint only those work that need scores and propose HardPrompt or TextPrompt, see "
                "`promptsearch strategies`"
            )
    words = [] if given.tokenizer else _words(config)
    if words is None:
        if any(HardPrompt in row.strategy.proposes for row in rows):
            raise StudyError(
                "the words of a model behind an endpoint are not known: give 'pool' as a list of words or {file: PATH}, or the "
                "model's 'tokenizer'"
            )
        words = ["a"]  # a space that no strategy of the study looks at
    source = None if given.tokenizer is None else config.source(given.tokenizer)
    return ServedModel(
        Endpoint(given.endpoint, given.model, given.key, given.seconds, given.retries, chat=given.chat),
        tokens=None if source is None else Tokens.load(source),
        tokenizer=source,
        words=[_spaced(word) for word in words],
        parallel=given.parallel,
    )


def _pool(config: StudyConfig, lm: TextModel) -> tuple[int, ...]:
    """Token ids of the study's pool."""
    pool, words = config.pool, _words(config)
    if isinstance(pool, int):
        if pool > len(lm.words):
            raise StudyError(f"the pool wants {pool} words, but this tokenizer has {len(lm.words)}: lower 'pool'")
        return lm.words[:pool]  # byte-pair encoding numbers its tokens by frequency: the first are the most frequent
    if words is None:
        return lm.words
    ids = []
    for word in words:
        found = lm.encode(_spaced(word))
        if len(found) != 1:
            raise StudyError(f"the word {word!r} of the pool is {len(found)} tokens of this model: a pool holds single tokens")
        ids.append(found[0])
    return tuple(dict.fromkeys(ids))


def _spaced(word: str) -> str:
    """A word of a pool with the space before it."""
    return word if word.startswith(" ") else f" {word}"


def _words(config: StudyConfig) -> list[str] | None:
    """The words of a pool that lists them, or None."""
    pool = config.pool
    if isinstance(pool, (str, int)):
        return None
    if isinstance(pool, PoolFile):
        path = config.folder / pool.file
        try:
            return [line.strip("\r\n") for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise StudyError(f"cannot read the pool from {path}: {reason}") from error
    return list(pool)
