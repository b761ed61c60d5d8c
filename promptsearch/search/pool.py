"""The pool: which token ids hard prompts may use.

The ids come from the words of the tokenizer, of a list, of a file, or of the task's own data. Law 2
holds for all of them: they are single tokens, and none is a special, added or answer token. Words
of the task are mined from the search examples that nothing is scored on, so that no select, test or
scored example has a say in them. Where a model comes without its tokenizer, the words that are
given are the tokens, and law 2 holds for words.

In a task with choices, its words are ranked by pointwise mutual information with the labels, as the
candidates of BDPL are: Diao et al. 2023, "Black-Box Prompt Learning for Pre-trained Language
Models", https://arxiv.org/abs/2201.08531. Differs from the paper: examples are counted, not
n-grams; the counts are smoothed, since a word that stands in a single example would otherwise be as
telling as any; and only training examples are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptsearch.errors import PromptError, StudyError
from promptsearch.models.protocol import TextModel
from promptsearch.plain.text import read_text
from promptsearch.tasks.task import Example, Task

#: How many examples that know nothing of a word are added to those that hold it: a word that stands
#: in a single example says next to nothing.
_SMOOTHING = 5.0


@dataclass(frozen=True)
class Pool:
    """Token ids for hard prompts, and where they come from.

    Args:
        ids: The token ids, without repeats.
        made: How the pool was made, for the report.
        price: The LM tokens that it took to find the ids, charged to each run whose prompts are
            made of them.
    """

    ids: tuple[int, ...]
    made: str
    price: int = 0


def make_pool(
    given: str | int | Sequence[str] | Mapping[str, Any],
    folder: Path,
    task: Task,
    lm: TextModel,
    training: Sequence[Example],
) -> Pool:
    """The pool of a task, before any pruning.

    Args:
        given: The key `pool` of a study file, as plain values.
        folder: The folder that the path of a file is relative to.
        task: The task, whose answers are left out.
        lm: The model, whose tokenizer is used.
        training: Search examples that nothing is scored on, from which words of the task are mined.

    Raises:
        StudyError: More words are wanted than there are, a word is not a single token, a file
            cannot be read, or nothing is left.
    """
    source = given if isinstance(given, Mapping) else None
    answers = answer_tokens(task, lm)
    words = [i for i in lm.words if i not in answers]
    number = source.get("words") if source else given if isinstance(given, int) else None
    if number is not None:
        # Byte-pair encoding numbers its tokens by frequency: the first are the most frequent.
        there = (
            f"this tokenizer has {len(words)} that are no answers of task '{task.name}': "
            "lower the number"
        )
        return Pool(
            _first(number, words, "words", there),
            f"the {number:,} most frequent words of the tokenizer",
        )
    if given == "words":
        if not words:
            cause = (
                f"of the tokenizer's tokens {len(lm.words)} are a space and ASCII letters, "
                "and all of these are tokens of the answers. "
                "Give the pool as a list or a file of words"
                if lm.words
                else f"none of the tokenizer's {len(lm.plain)} tokens is a space and ASCII "
                "letters, a word in a text. Give the pool as a list or a file of its tokens, "
                "or take strategies that propose texts or vectors"
            )
            raise StudyError(f"the pool of task '{task.name}' is empty: {cause}")
        return Pool(tuple(words), "all words of the tokenizer")
    if source is not None and source.get("task") is not None:
        ranked = task_words(
            words, lm, training, None if task.choices is None else len(task.choices)
        )
        there = (
            f"the {len(training)} search examples of '{task.name}' that are not scored on have "
            f"{len(ranked)} that qualify"
        )
        by = (
            "mutual information with the answers"
            if task.choices
            else "their frequency against that in general"
        )
        made = (
            f"the first {source['task']:,} words of {len(training):,} search examples "
            f"that are not scored on, by {by}"
        )
        return Pool(
            _first(
                source["task"],
                ranked,
                "words of the task",
                f"{there}: lower 'task', or raise splits.search",
            ),
            made,
        )
    listed = listed_words(given, folder)
    assert listed is not None
    return _listed(
        listed, "a list" if source is None else f"the file {source['file']}", answers, task, lm
    )


def listed_words(
    given: str | int | Sequence[str] | Mapping[str, Any], folder: Path
) -> list[str] | None:
    """The words of a pool that lists them, with the space before each; None for any other pool.

    Args:
        given: The key `pool` of a study file, as plain values.
        folder: The folder that the path of a file is relative to.

    Raises:
        StudyError: A file cannot be read, or is empty.
    """
    if isinstance(given, Mapping):
        words = None if given.get("file") is None else _read(folder / given["file"])
    else:
        words = None if isinstance(given, (str, int)) else list(given)
    return (
        None if words is None else [word if word.startswith(" ") else f" {word}" for word in words]
    )


def answer_tokens(task: Task, lm: TextModel) -> frozenset[int]:
    """The tokens that answer a task, which a prompt must not give away.

    In a task with choices these are all tokens of the choices. In a task with text answers they are
    the tokens that are a whole answer of a search example: longer answers are made of everyday
    words, such as the "of" in "Port of Spain". The same holds for choices that differ by row.
    """
    if task.choices is not None:
        return frozenset(i for choice in task.choices for i in _known(choice, lm))
    examples = task.splits["search"].examples
    encoded = [
        _known(text, lm)
        for example in examples
        for text in (*example.right, *(example.options or ()))
    ]
    return frozenset(ids[0] for ids in encoded if len(ids) == 1)


def _known(text: str, lm: TextModel) -> list[int]:
    """The ids of a text; without a tokenizer, -1 for each word and sign that is not in the list."""
    try:
        return lm.encode(text)
    except PromptError:
        pieces = re.findall(r"[\w']+|[^\w\s]", text)
        return [-1] if len(pieces) < 2 else [i for piece in pieces for i in _known(piece, lm)]


def task_words(
    words: Sequence[int], lm: TextModel, examples: Sequence[Example], labels: int | None
) -> list[int]:
    """Words that stand in the inputs of examples, the most telling first.

    With choices, a word tells as much as its highest mutual information with one of them. Without
    choices, it tells as much as it adds to the Kullback-Leibler divergence of the task's words from
    those of general text, where the frequency of a word is taken to be inverse to its place among
    the tokenizer's words (Zipf's law). Ties go to the word that stands in more examples.

    Args:
        words: Token ids of words that may be used, the most frequent in general text first.
        lm: The model, whose tokenizer is used.
        examples: The examples to count in; each counts once for a word.
        labels: The number of choices; None for text answers.
    """
    places = {lm.decode([token])[1:]: place for place, token in enumerate(words)}
    found = [{places[word] for word in _split(example) if word in places} for example in examples]
    count = Counter(place for some in found for place in some)
    seen = sorted(count)
    if labels is None:
        shares = np.array([count[place] for place in seen]) / max(1, count.total())
        zipf = 1 / (1 + np.array(seen)) / sum(1 / rank for rank in range(1, len(words) + 1))
        scores = shares * np.log(shares / zipf)
    else:
        table = np.zeros((len(seen), labels))
        rows = {place: row for row, place in enumerate(seen)}
        for example, some in zip(examples, found, strict=True):
            for place in some:
                table[rows[place], example.choice] += 1
        totals = np.bincount([e.choice for e in examples if e.choice is not None], minlength=labels)
        scores = pointwise_mutual_information(table, totals).max(1)
    order = sorted(
        range(len(seen)),
        key=lambda row: (-round(float(scores[row]), 9), -count[seen[row]], seen[row]),
    )
    return [words[seen[row]] for row in order]


def pointwise_mutual_information(counts: ArrayLike, totals: ArrayLike) -> NDArray[np.float64]:
    """Pointwise mutual information log p(label | word) / p(label) in nats, shape `(words, labels)`.

    The first probability is smoothed towards the second, as if each word stood in a few more
    examples whose labels are distributed as those of all examples. A label that no example has
    tells nothing: its values are 0.

    Args:
        counts: The number of examples with a word and a label, shape `(words, labels)`.
        totals: The number of examples with a label, shape `(labels,)`.
    """
    table, every = np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    prior = np.where(every > 0, every, 1.0) / every.sum()
    given = (table + _SMOOTHING * prior) / (table.sum(1, keepdims=True) + _SMOOTHING)
    found: NDArray[np.float64] = np.where(every > 0, np.log(given / prior), 0.0)
    return found


def _split(example: Example) -> Iterable[str]:
    """The words of an example's input; "don't" is one word."""
    return (word for value in example.fields.values() for word in re.findall(r"[\w']+", str(value)))


def _first(number: int, ids: Sequence[int], kind: str, there: str) -> tuple[int, ...]:
    if number > len(ids):
        raise StudyError(f"the pool wants {number} {kind}, but {there}")
    return tuple(ids[:number])


def _read(path: Path) -> list[str]:
    lines = read_text(path, "the pool from", StudyError).split("\n")
    words = [line for line in lines if line.strip()]
    if not words:
        raise StudyError(f"the file of the pool {path} is empty: expected one word a line")
    return words


def _listed(words: Sequence[str], where: str, answers: Set[int], task: Task, lm: TextModel) -> Pool:
    """The pool of words that a user gave.

    Words that law 2 forbids are left out, and `made` names them: one list may serve tasks with
    different answers.
    """
    ids = []
    for word in words:
        # Where no token of the model is a word, words are taken as they were listed.
        found = lm.encode(word if lm.words else word.removeprefix(" "))
        if len(found) != 1:
            raise StudyError(
                f"the word {word.strip()!r} of the pool is {len(found)} tokens of this model: "
                "a pool holds single tokens"
            )
        ids.append(found[0])
    different = list(dict.fromkeys(ids))
    special, answering = (
        [i for i in different if i in lm.added],
        [i for i in different if i in answers],
    )
    kept = tuple(i for i in different if i not in lm.added and i not in answers)
    left_out = [
        f"{len(some)} {what} "
        f"({', '.join(lm.decode([i]) for i in some[:5])}{', ...' * (len(some) > 5)})"
        for some, what in ((answering, "answer tokens"), (special, "special or added tokens"))
        if some
    ]
    if not kept:
        raise StudyError(
            f"the pool of task '{task.name}' is empty: all of the {len(different)} words of "
            f"{where} are left out, {' and '.join(left_out)}. Give it other words"
        )
    return Pool(
        kept,
        f"{len(different):,} words of {where}"
        + (f" without {' and '.join(left_out)}" if left_out else ""),
    )
