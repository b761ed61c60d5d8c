"""A study file made ready: everything found, loaded and checked, and not one LM token spent."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.kinds import placement_of
from promptsearch.records.ledger import Fare
from promptsearch.scoring.chunks import Hands, cut_in_chunks
from promptsearch.scoring.kinds import PLACINGS
from promptsearch.scoring.scorer import SplitScorer
from promptsearch.search.pool_pruning import Pruning
from promptsearch.search.proposer import Proposing
from promptsearch.study.aims import Aims, aims_of, hand_judges
from promptsearch.study.arena import Arena, scored_size
from promptsearch.study.draws import DRAWN, check_draw, drawable, drawn_by, draws_of
from promptsearch.study.ending import smallest_budget
from promptsearch.study.entries import Entry, check_shown, entries_of
from promptsearch.study.families import check_metrics, check_proposer, check_strategies, met
from promptsearch.study.loading import load_model, load_proposer
from promptsearch.study.others import check_others, others_of
from promptsearch.study.pools import find_pool, paid_by
from promptsearch.study.precision import check_precision
from promptsearch.study.run import Run
from promptsearch.study.settings.pool import PoolSource
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.share import Share
from promptsearch.study.starts import check_starts, in_order, source_of
from promptsearch.study.tasks import load_tasks
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.showing import showing
from promptsearch.tasks.task import SPLITS, Task

log = logging.getLogger(__name__)


class ArenaKey(NamedTuple):
    """What names an arena.

    Args:
        task: The task's name.
        length: The prompt's length.
        kind: The kind of its template.
        draw: The seed that drew its search and select examples; None where all seeds have the same.
        shows: Whether the template has a slot more, in front, for prompts of solved examples.
    """

    task: str
    length: int
    kind: Kind
    draw: int | None
    shows: bool = False


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
        fare: What its tokens cost, in tokens of the LM.
        tasks: The tasks in order.
        entries: The entries in order.
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
    fare: Fare
    tasks: list[Task]
    entries: list[Entry]
    arenas: dict[ArenaKey, Arena]
    prunings: dict[str, Pruning]

    def arena(self, task: Task, entry: Entry | None = None, seed: int | None = None) -> Arena:
        """Where an entry runs with a seed; left out: the first entry, and the first seed."""
        draw = draws_of(self.config)[0] if seed is None or self.config.draw == "once" else seed
        return self.arenas[_arena_key(self.config, task, entry or self.entries[0], draw)]

    @property
    def first(self) -> dict[ArenaKey, Arena]:
        """The arenas of the first seed, or of all seeds where these have the same."""
        draw = draws_of(self.config)[0]
        return {key: arena for key, arena in self.arenas.items() if key.draw == draw}

    @property
    def scorers(self) -> dict[str, SplitScorer]:
        """The scorers of all arenas, by names that are the same in every process of the study."""
        found: dict[str, SplitScorer] = {}
        for place, arena in enumerate(self.arenas.values()):
            found |= {f"{place} {split}": scorer for split, scorer in arena.exact.items()}
            found[f"{place} searching"] = arena.searching
        return found

    def chunked(self, hands: Hands) -> Prepared:
        """The same study, whose asks are cut into chunks.

        Args:
            hands: Who scores the chunks.
        """
        cut = cut_in_chunks(self.scorers, "cpu" if self.lm.served else self.lm.device.type, hands)
        arenas = {
            key: replace(
                arena,
                searching=cut[arena.searching],
                exact={split: cut[scorer] for split, scorer in arena.exact.items()},
            )
            for key, arena in self.arenas.items()
        }
        return replace(self, arenas=arenas)

    def pruned(self, folder: Path) -> Prepared:
        """The same study with its pools pruned, where they are to be.

        Pruning spends tokens, unless it was done before.

        Args:
            folder: The study's folder.
        """
        found = {name: pruning.find(folder / "pools") for name, pruning in self.prunings.items()}
        arenas = {
            key: arena.taking(found.get(key.task, arena.pool)) for key, arena in self.arenas.items()
        }
        return replace(self, arenas=arenas)

    def runs(self, folder: Path) -> Iterator[Run]:
        """All runs, seed by seed, so that a study that is cut short has every strategy.

        Each run comes after the one that it starts from.

        Args:
            folder: The study's folder.
        """
        # By task and label, the last one: of deterministic strategies the only one.
        made: dict[tuple[str, str], Run] = {}
        for place, seed in enumerate(self.config.seeds):
            for task, entry in in_order(self.tasks, self.entries):
                once = entry.runs_once(self.config.draw)
                if place >= (1 if once else entry.given.seeds or len(self.config.seeds)):
                    continue
                source = source_of(task, entry)
                run = self._run(task, entry, seed, made[source] if source else None, folder)
                made[task.name, entry.given.label] = run
                yield run

    def _run(self, task: Task, entry: Entry, seed: int, source: Run | None, folder: Path) -> Run:
        config, given = self.config, entry.given
        budget = given.budget or config.budget
        bill = budget + (source.bill if source else 0)
        arena = self.arena(task, entry, seed)
        return Run(
            arena=arena,
            name=given.name,
            label=given.label,
            strategy=entry.strategy,
            options=dict(given.options),
            seed=seed,
            budget=budget,
            reference=not entry.is_ranked(bill, config.budget),
            folder=folder / task.name / given.label / f"seed{seed}",
            seconds=config.max_seconds,
            max_cost=config.max_cost,
            pool=paid_by(entry, arena.pool),
            # A reference line is exact: no prompt of its space may be dropped on a part of them.
            race=config.race and arena.races and not entry.strategy.reference,
            proposing=self.proposing,
            fare=self.fare,
            source=source,
            others={
                other.name: self.arena(other, entry, seed)
                for other in others_of(task, self.tasks, entry)
            },
            drawn=config.draw == "seed",
        )


def prepare(
    config: StudyConfig,
    model: TextModel | None = None,
    task: Task | None = None,
    share: Share | None = None,
) -> Prepared:
    """Find strategies, load data and model, lay out all examples, check joints and budgets.

    Args:
        config: The study.
        model: An LM that is loaded already.
        task: A task that is made already.
        share: What this process takes of its machine; left out: as the study says, or by default.

    Raises:
        PromptSearchError: Anything wrong with the input.
    """
    entries = entries_of(config)
    tasks = [task] if task else load_tasks(config, entries)
    check_draw(config)
    if config.draw == "seed":
        tasks = [replace(each, notes=(*each.notes, DRAWN)) for each in tasks]
    for each in tasks:
        for note in each.notes:
            log.warning("task '%s': %s", each.name, note)
    _check_sweep(config, tasks)
    check_starts(config, tasks, entries)
    check_shown(entries, tasks)
    check_others(config, tasks, entries)
    lm = model or load_model(config, entries, [drawable(each, config) for each in tasks])
    check_strategies(lm, entries)
    lm.check()
    check_metrics(lm, tasks)
    aims = aims_of(config, entries, tasks)
    dtype = lm.searched_in(config.dtype)
    check_proposer(config, lm, entries, tasks)
    check_precision(lm, dtype, entries)
    tasks = [met(task, lm) for task in tasks]
    exact = lm.to(torch.float32)
    exact.to(dtype).check(gradients=any(entry.strategy.access.trains for entry in entries))
    if isinstance(lm, LanguageModel):
        lm.integrity.keep_spare()
    asked = None if config.memory is None else int(config.memory)
    memory = (share or Share(memory=asked)).room(exact)
    arenas, prunings = _build_arenas(config, tasks, entries, exact, dtype, memory, aims)
    proposing, fare = load_proposer(config, exact, dtype)
    hand_judges(aims, config, proposing, exact)
    return Prepared(
        *(config, lm, exact, dtype, memory, proposing, fare),
        *(tasks, entries, arenas, prunings),
    )


def _build_arenas(
    config: StudyConfig,
    tasks: Sequence[Task],
    entries: Sequence[Entry],
    exact: TextModel,
    dtype: torch.dtype,
    memory: int,
    aims: Aims,
) -> tuple[dict[ArenaKey, Arena], dict[str, Pruning]]:
    """The arenas of all tasks, and what will prune their pools, by the task's name.

    Raises:
        PromptSearchError: A pool, a template or an example does not fit the model, or a budget is
            too small.
    """
    draws = draws_of(config)
    keys = {_arena_key(config, task, entry, None) for task in tasks for entry in entries}
    # Nothing of a row stays the same below prompts of the other kinds, or behind solved examples.
    keeping = sum(PLACINGS[key.kind].keeps and not key.shows for key in keys) * len(draws)
    share = memory // max(1, keeping)  # all of them keep what they computed until the study ends
    arenas: dict[ArenaKey, Arena] = {}
    prunings: dict[str, Pruning] = {}
    for task in tasks:
        whole = drawable(task, config)
        training = whole.splits["search"].examples[scored_size(whole, config.score_on) :]
        pool = find_pool(config, whole, exact, entries, training)
        if isinstance(config.pool, PoolSource) and config.pool.influence:
            if not isinstance(exact, LanguageModel):
                raise StudyError(
                    "'influence' goes by the embeddings of the pool's words, which a model behind "
                    "an endpoint does not show: leave it out"
                )
            pruning = Pruning(pool, config.pool.influence, task, exact.to(dtype), training, share)
            prunings[task.name], pool = pruning, pruning.supposed()
        for draw in draws:
            drawn = drawn_by(task, draw)
            shown = replace(drawn, template=showing(task.template))
            for entry in entries:
                key = _arena_key(config, task, entry, draw)
                if key not in arenas:
                    # All draws have the same test split.
                    other = arenas.get(key._replace(draw=draws[0]))
                    arenas[key] = Arena.build(
                        *(shown if key.shows else drawn, exact, dtype, key.length, pool),
                        *(config.score_on, share, key.kind),
                        aims=aims,
                        tested=other.exact["test"] if other else None,
                    )
                _check_budget(config, entry, arenas[key])
            # No words of the pool ever stand where solved examples do.
            slotted = (task.name, draw, False)
            _check_joints([a for k, a in arenas.items() if (k.task, k.draw, k.shows) == slotted])
    return arenas, prunings


def _check_joints(arenas: Sequence[Arena]) -> None:
    """See that words of the pool keep their ids beside the text of all examples.

    Args:
        arenas: Those of one task; the joints are the same whatever the length.
    """
    first: dict[bool, Arena] = {}
    for arena in arenas:
        first.setdefault(arena.template.apart, arena)
    for arena in first.values():
        for split in SPLITS:
            arena.exact[split].check_joints(arena.space)


def _arena_key(config: StudyConfig, task: Task, entry: Entry, draw: int | None) -> ArenaKey:
    length = entry.given.length or config.lengths[0]
    # Nothing is to be added where a slot stands before the input.
    shows = entry.shows and not task.template.fixed
    return ArenaKey(task.name, length, placement_of(entry.strategy.proposes), draw, shows)


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


def _check_budget(config: StudyConfig, entry: Entry, arena: Arena) -> None:
    pool, budget = paid_by(entry, arena.pool), entry.given.budget or config.budget
    least = smallest_budget(arena, entry.strategy.finalists) + pool
    if budget < least:
        words = f", with the {pool} of the pool's words," if pool else ""
        raise StudyError(
            f"a budget of {budget} tokens is too small for '{entry.given.label}' on task "
            f"'{arena.task.name}': one evaluation on {arena.score_on} examples and the selection "
            f"among the best prompts cost{words} {least} tokens. Raise "
            "budget, or lower score_on or the size of the select split."
        )
