"""What makes a hard winner win: its loss without each of its pieces, shuffled, and with near words.

Winners are changed and scored on the select split, in float32, after all is chosen. Nothing that is
seen here changes a run, and its tokens are stated, not charged to any. The test split is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from promptsearch.errors import StudyError
from promptsearch.prompts.kinds import KINDS
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.explained import (
    EXPLAINED,
    ChangeRecord,
    ExplainedRecord,
    ExplanationRecord,
)
from promptsearch.records.load import load_results
from promptsearch.records.results import Results
from promptsearch.records.run import RunRecord
from promptsearch.records.sealed import write_record
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.protocol import price_of
from promptsearch.statistics.variance import variance_of_mean
from promptsearch.study.arena import Arena
from promptsearch.study.changes import changes_of, pieces_of
from promptsearch.study.execution.lease import owned
from promptsearch.study.prepare import Prepared, prepare
from promptsearch.study.publish import winner_of
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.share import share_of
from promptsearch.tasks.examples import groups_of

#: How far the loss of a winner may lie from the recorded one, as a share of it: more than rounding
#: on another machine, and less than other data make.
_SAME = 1e-3


def explain(config: StudyConfig, folder: Path, tell: Callable[[str], None]) -> ExplainedRecord:
    """Explain the best hard winner of each search, and write `explained.json`.

    What is there already stays.

    Args:
        config: The study, of one model.
        folder: The study's folder, or its slim record, whose runs have ended.
        tell: Called with what is being done.

    Returns:
        All that is explained now.

    Raises:
        PromptSearchError: Anything wrong with the input.
        StudyError: The folder is no study's, or that of another study.
    """
    results = load_results(folder)
    known = () if results.explained is None else results.explained.winners
    done = {each.name: each for each in known}
    share = share_of(config, folder, spread=False)
    with share.taken(), owned(folder, "study"):
        prepared = prepare(config, share=share)
        if prepared.prunings:
            prepared = prepared.pruned(folder)
        for arena, run in _winners(prepared, results):
            if (run.task, run.label, run.seed, run.winner.key) not in done:
                tell(f"{run.task}, {run.label}, seed {run.seed}")
                found = _explained(arena, run, folder)
                done[found.name] = found
                record = ExplainedRecord(tuple(done.values()))
                write_record(folder / EXPLAINED, "explained", asdict(record))
    return ExplainedRecord(tuple(done.values()))


def _winners(prepared: Prepared, results: Results) -> Iterator[tuple[Arena, RunRecord]]:
    """The best run of each search that words won, with its arena; the test split has no say."""
    for task in prepared.tasks:
        for entry in prepared.entries:
            runs = [
                (arena, run)
                for run in results.runs
                if (run.task, run.label) == (task.name, entry.given.label)
                # A seed of an earlier call has no examples here where each seed draws its own.
                and run.seed in prepared.config.seeds
                for arena in [prepared.arena(task, entry, run.seed)]
                if run.searches and run.winner.text and not KINDS[run.winner.kind].trained
            ]
            if runs:
                yield min(runs, key=lambda each: _value(*each))


def _value(arena: Arena, run: RunRecord) -> tuple[float, int]:
    """What a run is chosen by among others of its row, lower is better."""
    by, score = arena.selects_by, run.select.metric
    if by is None:
        return run.select.loss, run.seed
    return np.inf if score is None else -score if by.higher_is_better else score, run.seed


def _explained(arena: Arena, run: RunRecord, folder: Path) -> ExplanationRecord:
    """The changes of one winner, scored.

    Raises:
        StudyError: The winner does not score as the record says.
    """
    winner = winner_of(folder / run.task / run.label / f"seed{run.seed}", run)
    pieces = pieces_of(winner, arena.space, arena.template, arena.lm)
    changes = changes_of(pieces, np.random.default_rng(run.seed))
    prompts: list[Prompt] = [winner, *(change.prompt for change in changes)]
    scorer, ids = arena.exact["select"], arena.ids("select")
    losses = scorer.score(prompts, ids).losses  # (prompts, examples)
    own = float(losses[0].mean())
    if not abs(own - run.select.loss) <= _SAME * max(1.0, run.select.loss):
        raise StudyError(
            f"the winner of {run.task}/{run.label}/seed{run.seed} has a select loss of {own:.4f}, "
            f"and {run.select.loss:.4f} in the record: expected the study file, the data and the "
            f"model of {folder}"
        )
    differences = losses[1:] - losses[0]
    groups = groups_of(arena.task.splits["select"].examples, ids)
    errors = [np.sqrt(variance_of_mean(row, groups).variance) for row in differences]
    price = sum(price_of(scorer, scorer.length(prompt), ids) for prompt in prompts)
    return ExplanationRecord(
        run.task,
        run.label,
        run.seed,
        run.winner.key,
        pieces=pieces.shown,
        loss=own,
        tokens=int(scorer.lead(ids).sum()) + price,
        changes=tuple(
            ChangeRecord(
                change.way,
                change.place,
                " | ".join(prompt_texts(arena.template, arena.lm, change.prompt)),
                _known(row.mean()),
                _known(error),
            )
            for change, row, error in zip(changes, differences, errors, strict=True)
        ),
    )


def _known(value: float) -> float | None:
    """A number as a record holds it; None where it is not finite."""
    return float(value) if np.isfinite(value) else None
