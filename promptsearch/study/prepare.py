"""A study file made ready: everything found, loaded and checked, and not one LM token spent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from promptsearch.errors import OptionError, StrategyError, StudyError, UnknownName
from promptsearch.models import LanguageModel
from promptsearch.models.endpoint import Endpoint
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.models.tokens import Tokens
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.kinds import placement_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.kinds import PLACINGS
from promptsearch.scoring.scorer import loaded
from promptsearch.search.options import check_options
from promptsearch.search.plugins import find_strategy
from promptsearch.search.pool import Pool, answer_tokens, listed_words, make_pool
from promptsearch.search.pool_pruning import Pruning
from promptsearch.search.proposer import LocalProposing, Proposing, RemoteProposing
from promptsearch.search.strategy import Access, Strategy
from promptsearch.study.config import EndpointConfig, PoolSource, StrategyConfig, StudyConfig
from promptsearch.study.run import Arena, Run, scored_size
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.task import SPLITS, Example, Task

log = logging.getLogger(__name__)

#: What names an arena: the task's name, the prompt's length, and the kind of its template.
ArenaKey = tuple[str, int, Kind]


@dataclass(frozen=True)
class Row:
    """One strategy of the study file, found and checked, at one prompt length.

    Args:
        given: The row as in the study file; in a sweep over lengths with a label and a length of
            its own.
        strategy: The class.
        family: The label in the study file, which the rows of a sweep share.
        source: The label of the row whose winner it starts from; None where it starts from none.
    """

    given: StrategyConfig
    strategy: type[Strategy]
    family: str
    source: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What `compare` runs and `plan` predicts.

    Args:
        config: The study.
        lm: The LM as it was loaded or given.
        exact: The LM in float32.
        dtype: The dtype of the search.
        memory: Bytes for keys and values.
        proposing: The model that proposes.
        tasks: The tasks in order.
        rows: The rows in order.
        arenas: See `ArenaKey`. Where a pool is to be pruned, it is one of the right size and price,
            but not yet the right one.
        prunings: What finds the pools of tasks, by name; empty where they are not pruned.
    """

    config: StudyConfig
    lm: TextModel
    exact: TextModel
    dtype: torch.dtype
    memory: int
    proposing: Proposing
    tasks: list[Task]
    rows: list[Row]
    arenas: dict[ArenaKey, Arena]
    prunings: dict[str, Pruning]

    def arena(self, task: Task, row: Row | None = None) -> Arena:
        """Where a row runs; left out: the first row."""
        return self.arenas[_arena_key(self.config, task, row or self.rows[0])]

    def pruned(self, folder: Path) -> Prepared:
        """The same study with its pools pruned, where they are to be.

        Pruning spends tokens, unless it was done before.

        Args:
            folder: The study's folder.
        """
        found = {name: pruning.find(folder / "pools") for name, pruning in self.prunings.items()}
        arenas = {
            key: arena.taking(found.get(key[0], arena.pool)) for key, arena in self.arenas.items()
        }
        return replace(self, arenas=arenas)

    def runs(self, folder: Path) -> Iterator[Run]:
        """All runs, seed by seed, so that a study that is cut short has every strategy.

        Each run comes after the one that it starts from.

        Args:
            folder: The study's folder.
        """
        config = self.config
        made: dict[
            tuple[str, str], Run
        ] = {}  # by task and label, the last one: of deterministic strategies the only one
        for place, seed in enumerate(config.seeds):
            for task in self.tasks:
                for row in sources_first(self.rows):
                    if row.strategy.deterministic and place > 0:
                        continue
                    given = row.given
                    source = made[task.name, row.source] if row.source else None
                    budget = given.budget or config.budget
                    bill = budget + (source.bill if source else 0)
                    made[task.name, given.label] = run = Run(
                        arena=self.arena(task, row),
                        name=given.name,
                        label=given.label,
                        strategy=row.strategy,
                        options=dict(given.options),
                        seed=seed,
                        budget=budget,
                        reference=row.strategy.reference or bill != config.budget,
                        folder=folder / task.name / given.label / f"seed{seed}",
                        seconds=config.max_seconds,
                        race=config.race,
                        proposing=self.proposing,
                        source=source,
                    )
                    yield run


def prepare(
    config: StudyConfig, model: TextModel | None = None, task: Task | None = None
) -> Prepared:
    """Find strategies, load data and model, lay out all examples, check joints and budgets.

    Args:
        config: The study.
        model: An LM that is loaded already.
        task: A task that is made already.

    Raises:
        PromptSearchError: Anything wrong with the input.
    """
    rows = _with_sources(config, _rows(config))
    tasks = (
        [task]
        if task
        else [Task.load(_given(t), config.folder, metric=config.metric) for t in config.tasks]
    )
    for each in tasks:
        for note in each.notes:
            log.warning("task '%s': %s", each.name, note)
    _check_sweep(config, tasks)
    lm = model or _load(config, rows, tasks)
    lm.check()
    _check_metrics(lm, tasks)
    dtype = lm.searched_in(config.dtype)
    if isinstance(lm, LanguageModel):  # a server is sent text as it is
        tasks = [replace(task, template=render(task.template, lm)) for task in tasks]
    exact = lm.to(torch.float32)
    exact.to(dtype).check(gradients=any(row.strategy.access is not Access.SCORES for row in rows))
    if isinstance(lm, LanguageModel):
        lm.keep_spare()
    memory = exact.room() if config.memory is None else int(config.memory)
    arenas: dict[ArenaKey, Arena] = {}
    keys = {_arena_key(config, task, row) for task in tasks for row in rows}
    keeping = sum(
        PLACINGS[kind].keeps for _, _, kind in keys
    )  # nothing of a row stays the same below others
    share = memory // max(1, keeping)  # all of them keep what they computed until the study ends
    prunings: dict[str, Pruning] = {}
    for each in tasks:
        training = each.splits["search"].examples[scored_size(each, config.score_on) :]
        pool = _pool(config, each, exact, rows, training)
        if isinstance(config.pool, PoolSource) and config.pool.influence:
            if not isinstance(exact, LanguageModel):
                raise StudyError(
                    "'influence' goes by the embeddings of the pool's words, which a model behind "
                    "an endpoint does not show: leave it out"
                )
            pruning = Pruning(pool, config.pool.influence, each, exact.to(dtype), training, share)
            prunings[each.name], pool = pruning, pruning.supposed()
        for row in rows:
            key = _arena_key(config, each, row)
            if key not in arenas:
                _, length, kind = key
                arenas[key] = Arena.build(
                    each, exact, dtype, length, pool, config.score_on, share, kind
                )
            _check_budget(config, row, arenas[key])
        unchecked = {False, True}
        for (name, _, _), arena in arenas.items():
            if (
                name == each.name and arena.template.apart in unchecked
            ):  # joints are the same whatever the length
                unchecked.remove(arena.template.apart)
                for split in SPLITS:
                    arena.exact[split].check_joints(arena.space)
    proposing = _proposing(config, exact, dtype)
    return Prepared(config, lm, exact, dtype, memory, proposing, tasks, rows, arenas, prunings)


def _proposing(config: StudyConfig, lm: TextModel, dtype: torch.dtype) -> Proposing:
    """The model that proposes, in the search's dtype where it is computed here."""
    given = config.proposer
    if isinstance(given, EndpointConfig):
        lm = _behind(given, config)
    elif given.model is not None:
        lm = LanguageModel.load(config.source(given.model), device=config.device)
        lm.check()
    if isinstance(lm, ServedModel):
        endpoint = replace(lm.endpoint, chat=lm.endpoint.chat or given.chat)
        return RemoteProposing(endpoint, tokens=lm.tokens, parallel=lm.parallel)
    return LocalProposing(loaded(lm, "asked").to(dtype), chat=given.chat)


def _pool(
    config: StudyConfig, task: Task, lm: TextModel, rows: Sequence[Row], training: Sequence[Example]
) -> Pool:
    """The pool of a task.

    Where there are no words and no strategy takes any, it is all tokens that texts are made of.
    """
    if not (_takes_words(rows) or _names_words(config, task, lm)):
        return Pool(lm.plain, "no strategy takes words from it")
    return make_pool(_plain(config.pool), config.folder, task, lm, training)


def _takes_words(rows: Sequence[Row]) -> bool:
    return any(HardPrompt in row.strategy.proposes for row in rows)


def _names_words(config: StudyConfig, task: Task, lm: TextModel) -> bool:
    """Whether the study's pool, or else a model's tokenizer, says which words there are."""
    if listed_words(_plain(config.pool), config.folder) is not None:
        return True
    known = not isinstance(lm, ServedModel) or lm.tokens is not None
    return known and not answer_tokens(task, lm).issuperset(lm.words)


def _arena_key(config: StudyConfig, task: Task, row: Row) -> ArenaKey:
    length = row.given.length or config.lengths[0]
    return task.name, length, placement_of(row.strategy.proposes)


def _rows(config: StudyConfig) -> list[Row]:
    """The rows of the study file.

    In a sweep, each strategy has a row at every length, unless its length is given or does not
    matter.
    """
    rows = []
    for place, given in enumerate(config.strategies):
        strategy = _found(config, place, given)
        proposed: Iterable[type[Prompt]] = strategy.proposes
        sized = any(kind.sized for kind in proposed)
        if isinstance(config.length, int) or given.length is not None:
            rows.append(Row(given, strategy, given.label))
        elif not sized:
            # A text has the length that it has, weights have none: one row for all lengths.
            rows.append(Row(given.model_copy(update={"length": 1}), strategy, given.label))
        else:
            for length in config.lengths:
                at = given.model_copy(update={"label": f"{given.label}-{length}", "length": length})
                rows.append(Row(at, strategy, given.label))
    labels = [row.given.label for row in rows]
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise StudyError(
            f"two rows would be called '{twice}', one of them by the sweep over 'length': give the "
            "other a label"
        )
    return rows


def _found(config: StudyConfig, place: int, given: StrategyConfig) -> type[Strategy]:
    """The strategy of a row, its options checked.

    Raises:
        UnknownName: There is no such strategy, or it has no such option; with the line of the study
            file.
        StrategyError: It cannot be loaded, or an option is wrong; with the line, too.
    """
    try:
        strategy = find_strategy(given.name)
        check_options(given.name, strategy, given.options)
    except (StrategyError, UnknownName) as error:
        option = error.option if isinstance(error, OptionError) else getattr(error, "name", "")
        error.args = (f"{config.at('strategies', place, given.name, option)}: {error}",)
        raise
    return strategy


def _with_sources(config: StudyConfig, rows: list[Row]) -> list[Row]:
    """The rows with what they start from, checked.

    Raises:
        StudyError: A row starts from itself, also by way of others, or from prompts that its
            strategy does not start from.
        UnknownName: There is no such row.
    """
    found = []
    for row in rows:
        if row.given.start is None:
            found.append(row)
            continue
        label, name = row.given.label, row.given.start.run
        # In a sweep over lengths, the row of the same length.
        named = [
            x
            for x in rows
            if x.given.label == name or (x.family == name and x.given.length == row.given.length)
        ]
        if not named:
            raise UnknownName(
                f"run of the study, from which '{label}' could start",
                name,
                [r.family for r in rows if r != row],
            )
        if named[0] == row:
            raise StudyError(f"'{label}' names itself under 'start': name the run of another row")
        source = named[0]
        can = ", ".join(sorted(kind.__name__ for kind in row.strategy.starts_from))
        if not row.strategy.starts_from:
            raise StudyError(
                f"'{label}' cannot start from '{name}': the strategy '{row.given.name}' starts "
                "from no other run"
            )
        if not row.strategy.starts_from & source.strategy.proposes:
            has = ", ".join(sorted(kind.__name__ for kind in source.strategy.proposes))
            raise StudyError(
                f"'{label}' cannot start from '{name}', whose winner is a {has}: "
                f"'{row.given.name}' starts from {can}"
            )
        lengths = [x.given.length or config.lengths[0] for x in (row, source)]
        sized = not any(
            kind is TextPrompt for kind in source.strategy.proposes
        )  # the length of texts is known later
        if sized and lengths[0] != lengths[1]:
            raise StudyError(
                f"'{label}' has {lengths[0]} prompt tokens and starts from '{name}', which has "
                f"{lengths[1]}: give both the same length"
            )
        found.append(replace(row, source=source.given.label))
    sources_first(found)
    return found


def sources_first(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, but each after the one that it starts from.

    Raises:
        StudyError: Rows start from each other in a circle.
    """
    by_label = {row.given.label: row for row in rows}
    ordered: dict[str, Row] = {}
    for row in rows:
        chain = [row]
        while (source := chain[-1].source) is not None and source not in ordered:
            if by_label[source] in chain:
                circle = " from ".join(
                    f"'{each.given.label}'" for each in [*chain, by_label[source]]
                )
                raise StudyError(f"runs cannot start from each other in a circle: {circle}")
            chain.append(by_label[source])
        ordered |= {each.given.label: each for each in reversed(chain)}
    return list(ordered.values())


def _check_sweep(config: StudyConfig, tasks: list[Task]) -> None:
    for task in tasks:
        if not isinstance(config.length, int) and all(
            slot.length is not None for slot in task.template.slots
        ):
            raise StudyError(
                f"'length' is a list, but the template of task '{task.name}' fixes the length of "
                f"each slot: {task.template.text!r}. Leave the numbers out of its slots, or give "
                "one length"
            )


def _check_metrics(lm: TextModel, tasks: list[Task]) -> None:
    for task in tasks:
        if (
            lm.served
            and lm.served["scores"] == "errors"
            and task.metric not in ("accuracy", "exact_match")
        ):
            raise StudyError(
                f"the metric '{task.metric}' of task '{task.name}' needs the probabilities of the "
                f"answers, but the endpoint of '{lm.name}' gives no log-probabilities of a prompt: "
                "take accuracy"
            )


def _given(task: Any) -> str | dict[str, Any]:
    """A task of the study file as `Task.load` takes it."""
    return task if isinstance(task, str) else task.model_dump(exclude_none=True)


def _check_budget(config: StudyConfig, row: Row, arena: Arena) -> None:
    pool, budget = arena.price_of_pool(row.strategy), row.given.budget or config.budget
    least = arena.smallest_budget(row.strategy.finalists) + pool
    if budget < least:
        words = f", with the {pool} of the pool's words," if pool else ""
        raise StudyError(
            f"a budget of {budget} tokens is too small for '{row.given.label}' on task "
            f"'{arena.task.name}': one evaluation on {arena.score_on} examples and the selection "
            f"among the best prompts cost{words} {least} tokens. Raise "
            "budget, or lower score_on or the size of the select split."
        )


def _load(config: StudyConfig, rows: list[Row], tasks: list[Task]) -> TextModel:
    """The study's model, from wherever it is."""
    given = config.model
    if isinstance(given, str):
        return LanguageModel.load(config.model_source, device=config.device)
    for row in rows:
        if row.strategy.access is not Access.SCORES or not row.strategy.proposes <= {
            HardPrompt,
            TextPrompt,
        }:
            kinds = ", ".join(sorted(kind.__name__ for kind in row.strategy.proposes))
            raise StudyError(
                f"the strategy '{row.given.label}' needs {row.strategy.access} of the model and "
                f"proposes {kinds}; on a model behind an endpoint only those work that need scores "
                "and propose HardPrompt or TextPrompt, see "
                "`promptsearch strategies`"
            )
    if given.tokenizer:
        examples = (
            each for task in tasks for split in SPLITS for each in task.splits[split].examples
        )
        choices = {answer for task in tasks for answer in task.choices or ()}
        answers = choices | {answer for each in examples for answer in (each.answer, *each.aliases)}
        return _behind(given, config, answers=sorted(answers))
    words = listed_words(_plain(config.pool), config.folder)
    if words is None and _takes_words(rows):
        raise StudyError(
            "the words of a model behind an endpoint are not known: give 'pool' as a list of words "
            "or {file: PATH}, or the model's 'tokenizer'"
        )
    return _behind(given, config, words or [" a"])  # a word that no strategy of the study takes


def _behind(
    given: EndpointConfig,
    config: StudyConfig,
    words: Sequence[str] = (),
    answers: Sequence[str] = (),
) -> ServedModel:
    """A model behind an endpoint, which will score these answers.

    Without a tokenizer it knows these words.
    """
    source = None if given.tokenizer is None else config.source(given.tokenizer)
    tokens = None if source is None else Tokens.load(source)
    return ServedModel(
        Endpoint(
            given.endpoint, given.model, given.key, given.seconds, given.retries, chat=given.chat
        ),
        tokens=tokens,
        tokenizer=source,
        words=words,
        parallel=given.parallel,
        single=tokens is not None and {len(tokens.encode(answer)) for answer in answers} == {1},
    )


def _plain(pool: str | int | tuple[str, ...] | PoolSource) -> Any:
    """The key `pool` as plain values."""
    return pool.model_dump() if isinstance(pool, PoolSource) else pool
