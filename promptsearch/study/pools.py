"""The pool of a task: the words that its hard prompts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.search.pool import Pool, answer_tokens, listed_words, make_pool
from promptsearch.study.entries import Entry
from promptsearch.study.settings.pool import PoolSource
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Example, Task


def find_pool(
    config: StudyConfig,
    task: Task,
    lm: TextModel,
    entries: Sequence[Entry],
    training: Sequence[Example],
) -> Pool:
    """The pool of a task.

    Where there are no words and no strategy takes any, it is all tokens that texts are made of.

    Args:
        config: The study.
        task: The task, whose answers are no words.
        lm: The LM.
        entries: The study's entries.
        training: The search examples that no prompt is scored on.
    """
    if not (takes_words(entries) or _names_words(config, task, lm)):
        return Pool(lm.plain, "no strategy takes words from it")
    return make_pool(_plain(config), config.folder, task, lm, training)


def takes_words(entries: Sequence[Entry]) -> bool:
    """Whether a strategy takes words from a pool."""
    return any(entry.takes_words for entry in entries)


def paid_by(entry: Entry, pool: Pool) -> int:
    """What an entry pays for the pool before it starts, in tokens."""
    return pool.price if entry.takes_words else 0


def words_of(config: StudyConfig) -> list[str] | None:
    """The words that the study lists, itself or in a file; None where it lists none."""
    return listed_words(_plain(config), config.folder)


def _names_words(config: StudyConfig, task: Task, lm: TextModel) -> bool:
    """Whether the study's pool, or else a model's tokenizer, says which words there are."""
    if words_of(config) is not None:
        return True
    known = not isinstance(lm, ServedModel) or lm.tokens is not None
    return known and not answer_tokens(task, lm).issuperset(lm.words)


def _plain(config: StudyConfig) -> Any:
    """The key `pool` as plain values."""
    return config.pool.model_dump() if isinstance(config.pool, PoolSource) else config.pool
