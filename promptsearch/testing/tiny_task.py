"""A tiny task of films, a study and an engine for it, and what a run leaves of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from promptsearch.export.saved import SavedPrompt
from promptsearch.models.language_model import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.engine import Engine
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template

_PARTS = ["good film", "the story", "I hate", "capital"]
#: Texts that begin alike, or with what another one ends with, of three lengths, labelled 0 and 1.
ROWS: tuple[Mapping[str, Any], ...] = tuple(
    {"text": " ".join(_PARTS[i % 4 :] * (1 + i % 3)) + f" {i}", "label": i % 2} for i in range(24)
)
#: The examples of each split.
SPLITS = {"search": 12, "select": 4, "test": 6}


def tiny_task(
    template: str = "{prompt} {text} It was {answer}",
    answers: Sequence[str] | None = ("bad", "good"),
    *,
    rows: Sequence[Mapping[str, Any]] = ROWS,
    aliases: Mapping[str, Sequence[str]] | None = None,
    also: Sequence[str] = (),
) -> Task:
    """A task with 12, 4 and 6 examples in its splits.

    Args:
        template: The template, with the field `text`.
        answers: The two choices; None asks for a text, of one token or of two.
        rows: The data, with the fields `text` and `label`.
        aliases: Other texts that count as an answer's.
        also: Further right answers: an example has none, one, two, ... of them in turns.
    """
    if answers is None:
        texts = ("good", "bad movie", "Paris")
        rows = [{**row, "label": texts[i % 3]} for i, row in enumerate(rows)]
    choices = None if answers is None else dict(enumerate(answers))
    task = Task.from_rows(
        rows, template=template, label="label", answers=choices, splits=SPLITS, aliases=aliases
    )
    more = tuple(map(task.template.answer_text, also))
    return replace(
        task,
        splits={
            name: replace(
                split,
                examples=tuple(
                    replace(e, also=more[: e.id % (len(more) + 1)]) for e in split.examples
                ),
            )
            for name, split in task.splits.items()
        },
    )


def tiny_study(strategies: Sequence[Any], **changes: Any) -> dict[str, Any]:
    """The settings of a small study, which is given its model and its task.

    Args:
        strategies: Its strategies, as a study file has them.
        changes: Other settings, or other values of these.
    """
    return {
        "name": "s",
        "budget": 6_000,
        "length": 2,
        "score_on": 8,
        "seeds": 1,
        "strategies": strategies,
        **changes,
    }


def tiny_engine(
    lm: LanguageModel,
    task: Task | str = "{prompt} {text} It was {answer}",
    answers: Sequence[str] | None = ("bad", "good"),
    *,
    length: int = 3,
    kind: Kind = "slots",
    rows: Sequence[Mapping[str, Any]] = ROWS,
    **given: Any,
) -> Engine:
    """An engine on the search split of a task.

    Args:
        lm: The model.
        task: The task, or the template of a `tiny_task`.
        answers: Those of this `tiny_task`, with `rows`.
        length: Tokens of a slot.
        kind: The kind of prompts that the template takes.
        rows: As for `tiny_task`.
        given: What else `Engine` takes.
    """
    if isinstance(task, str):
        task = tiny_task(task, answers, rows=rows)
    bound = task.template.bind(length).taking(kind)
    return Engine(lm, bound, task.splits["search"], task.choices, **given)


def saved_from(
    lm: LanguageModel,
    prompt: Prompt,
    task: Task,
    template: Template,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> SavedPrompt:
    """A prompt as a run would leave it, with the select split as its probe.

    Args:
        lm: The model.
        prompt: The prompt.
        task: The task.
        template: Its template, bound to the prompt.
        about: What is said beside the facts of the model, or in their place.
    """
    split = task.splits["select"]
    every = np.arange(len(split.examples))
    losses = Engine(lm, template, split, task.choices).score([prompt], every).losses[0]
    return SavedPrompt(
        prompt=prompt,
        template=template,
        choices=task.choices,
        about={"model": lm.facts, **about},
        probe=split.examples,
        losses=tuple(losses.tolist()),
    )
