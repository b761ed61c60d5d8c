"""What a study's model can do, loaded or served: strategies and tasks are held against it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.kinds import KINDS, placement_of
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.remote import TAKEN
from promptsearch.search.strategy import Access
from promptsearch.study.entries import Entry
from promptsearch.study.settings.model import EndpointConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.metrics.judge import Judge
from promptsearch.tasks.task import Task

log = logging.getLogger(__name__)


def check_strategies(lm: TextModel, entries: Sequence[Entry]) -> None:
    """Refuse strategies that the model gives too little, or whose prompts mean nothing to it.

    Args:
        lm: The model; a server is not asked yet.
        entries: The study's entries.

    Raises:
        StudyError: There is such a strategy; the message names those that work.
    """
    for entry in entries:
        access, proposes = entry.strategy.access, entry.strategy.proposes
        placement = placement_of(proposes)
        if not isinstance(lm, LanguageModel):
            if access is not Access.SCORES or not proposes <= TAKEN:
                kinds = ", ".join(sorted(kind.__name__ for kind in proposes))
                raise StudyError(
                    f"the strategy '{entry.given.label}' needs {access} of the model and proposes "
                    f"{kinds}; on a model behind an endpoint only those work that need scores and "
                    "propose HardPrompt or TextPrompt, see `promptsearch strategies`"
                )
        elif placement == "gated" and not lm.family.gated:
            works = [name for name, kind in KINDS.items() if kind.placement != placement]
            raise StudyError(
                f"the strategy '{entry.given.label}' proposes gated prompts, but '{lm.name}' is "
                f"{lm.family.noun}, whose layers take none: on it those strategies work that "
                f"propose prompts of the kinds {', '.join(works)}, see `promptsearch strategies`"
            )


def check_proposer(
    config: StudyConfig, lm: TextModel, entries: Sequence[Entry], tasks: Sequence[Task]
) -> None:
    """Refuse a study in which a model is to propose or to judge that writes no text.

    Args:
        config: The study; a proposer that it names is looked at where it is loaded.
        lm: The study's own model, which proposes where no other is named.
        entries: The study's entries.
        tasks: Its tasks, with their metrics.

    Raises:
        StudyError: The study's own model is asked, and writes none.
    """
    named = isinstance(config.proposer, EndpointConfig) or config.proposer.model is not None
    if named or not isinstance(lm, LanguageModel) or lm.family.writes:
        return
    if asking := next(filter(asks_proposer, entries), None):
        who = f"the strategy '{asking.given.label}'"
        raise StudyError(_NO_WRITER.format(who, lm.name, lm.family.noun))
    for task in tasks:
        if any(isinstance(metric, Judge) for metric in task.measures.values()):
            judge = f"the judge of task '{task.name}'"
            raise StudyError(_NO_WRITER.format(judge, lm.name, lm.family.noun))


def check_metrics(lm: TextModel, tasks: Sequence[Task]) -> None:
    """Refuse a server that cannot do what the metrics of tasks ask.

    Args:
        lm: The study's model.
        tasks: The study's tasks.

    Raises:
        StudyError: It cannot.
    """
    for task in tasks:
        if not lm.served:
            continue
        if task.kind == "text" and task.decoding.beams > 1:
            raise StudyError(
                f"task '{task.name}' wants {task.decoding.beams} beams, but the endpoint of "
                f"'{lm.name}' searches with none: take 1 beam, or a model that is loaded here"
            )
        needy = [name for name in task.measures if name != "accuracy"]
        if task.kind == "choices" and lm.served["scores"] == "errors" and needy:
            raise StudyError(
                f"the metric '{needy[0]}' of task '{task.name}' needs the probabilities of the "
                f"answers, but the endpoint of '{lm.name}' gives no log-probabilities of a prompt: "
                "take accuracy"
            )


def asks_proposer(entry: Entry) -> bool:
    """Whether an entry's strategy has texts written."""
    return bool(entry.told("asks_proposer"))


#: The message where nobody can answer; takes who asks, the study's model, and what that is.
_NO_WRITER = (
    "{} asks a model that writes, but '{}' is {} and writes no text: name one that does under "
    "'proposer', such as a causal language model, or leave out what asks"
)


def met(task: Task, lm: TextModel) -> Task:
    """A task with what its model writes around an answer; a server is sent text as it is.

    Args:
        task: The task.
        lm: The model.

    Raises:
        TemplateError: The template does not fit the model.
        StudyError: A model that fills in answers is to search or draw them.
    """
    if isinstance(lm, LanguageModel):
        found = replace(task, template=render(task.template, lm))
        return found if lm.family.writes or task.kind != "text" else _filled(found, lm)
    if task.kind == "choices" or task.template.end:
        return task
    note = (
        "a server cannot be sent the token that ends a text, so losses are those of the answers "
        "alone: a text behind {answer} in the template, such as a newline, would end them"
    )
    return _noted(task, note)


def _filled(task: Task, lm: LanguageModel) -> Task:
    """A task of text answers for a model that fills them in, all masks at once.

    There are as many masks as most right answers of the search split have tokens: nothing of the
    other splits is looked at.
    """
    if task.decoding.beams > 1 or task.decoding.temperature:
        raise StudyError(
            f"task '{task.name}' wants {task.decoding.signature}, but '{lm.name}' is "
            f"{lm.family.noun}, which fills in the most probable token at each mask: leave "
            "'decoding' out"
        )
    lengths = Counter(
        len(lm.encode(text))
        for example in task.splits["search"].examples
        for text in example.references
    )
    (most, count), total = lengths.most_common(1)[0], sum(lengths.values())
    tokens = min(most, task.decoding.tokens)
    note = (
        f"'{lm.name}' fills in answers of {tokens} token{'s' * (tokens > 1)}, as {count} of "
        f"{total} right answers of the search split have; answers of other lengths count as wrong "
        "in metrics of text"
    )
    task = replace(task, decoding=replace(task.decoding, tokens=tokens))
    return task if count == total and tokens == most else _noted(task, note)


def _noted(task: Task, note: str) -> Task:
    log.warning("task '%s': %s", task.name, note)
    return replace(task, notes=(*task.notes, note))
