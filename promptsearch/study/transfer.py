"""Hard winners carried over: those of each model on the test splits of the others, as text.

A text is tokenised anew by each model. This happens after all is chosen: nothing that is seen here
changes a run, and its tokens are stated, not charged to any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptError, PromptSearchError
from promptsearch.export.saved import load_prompt
from promptsearch.prompts.kinds import KINDS
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.models import (
    TRANSFER,
    CarriedRecord,
    TransferRecord,
    load_models,
    load_transfer,
)
from promptsearch.records.run import RunRecord
from promptsearch.records.scores import generated_to_json, scores_to_json
from promptsearch.records.sealed import write_record
from promptsearch.scoring.protocol import price_of, price_of_generation
from promptsearch.study.arena import Arena
from promptsearch.study.events import Progress
from promptsearch.study.members import Member, let_go, members
from promptsearch.study.prepare import Prepared, prepare
from promptsearch.study.selection import Scored
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.share import Share, share_of
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Winner:
    """A hard winner that is to be carried over.

    Args:
        run: The run that it won.
        source: The name of the model that it was found for.
        prompt: It as text.
    """

    run: RunRecord
    source: str
    prompt: TextPrompt

    @property
    def of(self) -> tuple[str, str, int]:
        """Task, label and seed of its run."""
        return self.run.task, self.run.label, self.run.seed

    def fills(self, template: Template) -> bool:
        """Whether a template is that of the prompt: solved examples have a slot more in front."""
        return len(self.prompt.texts) == len(template.slots)

    def record(self, target: str, **found: Any) -> CarriedRecord:
        """What is recorded of it on another model; left out: it was not scored, and took nothing.

        Args:
            target: The name of that model.
            found: Fields of the record.
        """
        run = self.run
        return CarriedRecord(
            *(run.task, run.label, run.seed, self.source, target, run.winner.key),
            **{"texts": self.prompt.texts, "loss": None, "metric": None, "tokens": 0, **found},
        )


def carry_over(
    config: StudyConfig, folder: Path, task: Task | None, progress: Callable[[Progress], None]
) -> None:
    """Score the hard winners of each model on the others, and write `transfer.json`.

    What is there already stays. As long as runs are still to be made, nothing is scored: more may
    be chosen. Winners of runs that this call does not ask of a model are not carried to it: none of
    its templates may be theirs.

    Args:
        config: A study of several models, whose runs have ended.
        folder: The study's folder.
        task: A task that is made already.
        progress: Called at each step.
    """
    results = load_models(folder)
    if results.unfinished:
        return
    winners = [
        winner
        for name, part in results.parts.items()
        for run in part.runs
        if (winner := _winner(run, name, folder / name)) is not None
    ]
    known = load_transfer(folder) or TransferRecord()
    done = {each.name: each for each in known.carried if not each.error}
    for member in members(config):
        part = results.parts.get(member.name)
        wanted = [
            winner
            for winner in winners
            if winner.source != member.name and winner.record(member.name).name not in done
            if part is not None and part.study.wants(*winner.of)
        ]
        if wanted:
            progress(Progress("", 0, 0, "loading", message=f"carrying over to {member.name}"))
            share = share_of(member.config, folder / member.name, spread=False)
            with share.taken():
                found = _on(member, wanted, task, share)
            done |= {each.name: each for each in found}
        record = TransferRecord(tuple(done.values()))
        write_record(folder / TRANSFER, "transfer", asdict(record))
        let_go()


def _winner(run: RunRecord, source: str, folder: Path) -> Winner | None:
    """The winner of a run as text; None where it is no prompt of words, or has no export.

    A prompt with answer words stays, too: they are single tokens of its own model.

    Args:
        run: The run.
        source: The name of its model.
        folder: The folder of that model's study.
    """
    # Numbers belong to the model that they were made with, and so does what is most alike by it.
    bound = not KINDS[run.winner.kind].written or run.winner.answers is not None
    if run.stored or bound or run.export is not None:
        return None
    try:
        saved = load_prompt(folder / run.task / run.label / f"seed{run.seed}")
        return Winner(run, source, TextPrompt.standing(saved.texts, saved.template))
    except (PromptError, ValueError) as error:
        log.warning("%s, %s, seed %d stays where it is: %s", source, run.label, run.seed, error)
        return None


def _on(
    member: Member, winners: Sequence[Winner], task: Task | None, share: Share
) -> list[CarriedRecord]:
    """What winners of other models do on one model, in their order.

    Args:
        member: The model.
        winners: The winners.
        task: A task that is made already.
        share: What the process takes of its machine.
    """
    try:
        prepared = prepare(member.config, None, task, share)
    except PromptSearchError as error:
        log.warning("nothing is carried over to '%s': %s", member.name, error)
        return [winner.record(member.name, error=str(error)) for winner in winners]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for arena in _arenas(prepared):
        task = arena.task
        own = [w for w in winners if w.run.task == task.name and w.fills(task.template)]
        prompts = {winner.prompt.key: winner.prompt for winner in own}
        if prompts:
            scored = tested_on(arena, list(prompts.values()), member.name)
            found |= {(task.name, key): one for key, one in zip(prompts, scored, strict=True)}
    none = {"error": f"it fills the slots of no template of '{member.name}'"}
    return [
        winner.record(member.name, **found.get((winner.run.task, winner.prompt.key), none))
        for winner in winners
    ]


def _arenas(prepared: Prepared) -> list[Arena]:
    """Where prompts of words stand, whatever their length: one for each task and template."""
    found: dict[tuple[str, bool], Arena] = {}
    for key, arena in prepared.arenas.items():
        if key.kind == TextPrompt.placement:
            found.setdefault((key.task, key.shows), arena)
    return list(found.values())


def tested_on(arena: Arena, prompts: list[Prompt], name: str) -> list[dict[str, Any]]:
    """Loss, metric and tokens of each prompt on the test split, or why there are none."""
    scorer, ids = arena.exact["test"], arena.ids("test")
    scores = scorer.score(prompts, ids)
    line = {"prompts": [prompt.to_json() for prompt in prompts], **scores_to_json(scores)}
    texts, written = None, [0] * len(prompts)
    if arena.writes("test"):
        generated = scorer.generate(prompts, ids, arena.task.decoding)
        texts = generated_to_json(generated)
        written = [
            price_of_generation(scorer, scorer.length(prompt), ids, generated.tokens[i])
            for i, prompt in enumerate(prompts)
        ]
    tested = Scored(arena, "test", prompts, line, texts)
    found: list[dict[str, Any]] = []
    for i, prompt in enumerate(prompts):
        # Each prompt pays for the text before the first slot, as it would in a run of its own.
        read = int(scorer.lead(ids).sum()) + price_of(scorer, scorer.length(prompt), ids)
        tokens = read + written[i]
        if i in scores.failures:
            found.append({"error": scores.failures[i], "tokens": tokens})
            continue
        record = tested.record(i, f"{prompt.shown} on {name}")
        found.append({"loss": record.loss, "metric": record.metric, "tokens": tokens})
    return found
