"""The documents of a task of lm-evaluation-harness as rows, and the keys of a task over them.

A row's `text` is all that the harness gives the model before an answer, and its answers go on from
there as the harness lets them go on. So the template is `{prompt} {text}{answer}`; the one space
that all answers begin with, if they do, stands in it before `{answer}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from promptsearch.errors import TaskError
from promptsearch.plain.names import as_name
from promptsearch.printable import brief
from promptsearch.tasks.drawing import WHOLE
from promptsearch.tasks.fields import Row
from promptsearch.tasks.lm_eval.config import TaskFile, read_task_file
from promptsearch.tasks.lm_eval.context import Contexts
from promptsearch.tasks.lm_eval.documents import load_documents
from promptsearch.tasks.lm_eval.reading import Reading
from promptsearch.tasks.lm_eval.scoring import Scoring, scoring_of
from promptsearch.tasks.lm_eval.solving import solving_of
from promptsearch.tasks.notation import braces
from promptsearch.tasks.sources import Sources


class LmEvalTask(NamedTuple):
    """A task of the harness.

    Args:
        name: Its name, as a folder can have it.
        rows: The rows of its official splits, by our names: `test` for the split that the harness
            scores, `search` for the training split, `select` for the validation split; without a
            training split, `search` is the validation split. Of a single split they are those that
            all of ours are drawn from.
        keys: The keys of a task in a study file: template, label, answers, metric, decoding.
        notes: For the report, what is done otherwise than in the harness.
    """

    name: str
    rows: Sources
    keys: Mapping[str, Any]
    notes: tuple[str, ...]


def read_lm_eval(source: str, folder: Path) -> LmEvalTask:
    """A task of lm-evaluation-harness.

    Args:
        source: Its YAML file, or its name where the package lm-eval is installed.
        folder: The folder to which a file's path is relative.

    Raises:
        TaskError: The file or its data cannot be read, or ask for what is not read here.
    """
    file = read_task_file(source, folder)
    scoring = scoring_of(file)
    sources = _sources(file)
    splits = load_documents(file)
    reading = Reading(file, splits[sources["test"]].fields)
    solving = solving_of(file, reading, splits, sources)
    rows = {
        name: list(
            _rows(
                file,
                reading,
                Contexts(file, reading, solving.solvers[name]),
                splits[split].rows,
                scoring,
                solving.aside,
                f"{file.config.task}, split {split}",
            )
        )
        for name, split in sources.items()
    }
    every = [row for part in rows.values() for row in part]
    space = _take_space(file, every, scoring)
    end = braces(scoring.end)
    keys: dict[str, Any] = {
        "template": f"{{prompt}} {{text}}{' ' * space}{{answer}}{end}",
        "label": "label",
        **scoring.keys,
    }
    if file.config.num_fewshot:
        keys["identity"] = "identity"
    if scoring.choice:
        keys["answers"] = _shared_options(every) or {"field": "options"}
        if keys["answers"] == {"field": "options"}:
            for row in every:  # a place could also be the text of an option that is a number
                row["label"] = row["options"][row["label"]]
    if list(rows) == ["test"]:
        rows = {WHOLE: rows["test"]}
    notes = (*scoring.notes, *solving.notes)
    return LmEvalTask(as_name(file.config.task, "task"), rows, keys, notes)


def _sources(file: TaskFile) -> dict[str, str]:
    """Our split -> the official one that it comes from."""
    config = file.config
    scored = config.test_split or config.validation_split
    if scored is None:
        raise TaskError(f"{file.path}: it names no test_split and no validation_split")
    others = [name for name in (config.training_split, config.validation_split) if name]
    others = [name for name in dict.fromkeys(others) if name != scored]
    return {"test": scored, **dict(zip(("search", "select"), others, strict=False))}


def _rows(
    file: TaskFile,
    reading: Reading,
    contexts: Contexts,
    documents: Sequence[Mapping[str, Any]],
    scoring: Scoring,
    aside: frozenset[str],
    name: str,
) -> Iterator[Row]:
    for number, document in enumerate(documents, start=1):
        place = f"{name}, document {number}"
        # Only what is solved before a text lets texts of one question differ.
        own = {"identity": reading.identity(document, place)} if file.config.num_fewshot else {}
        if own.get("identity") in aside:
            continue
        text = contexts.text(document, place)
        if not scoring.choice:
            answers = reading.answers(document, place)
            labels = [contexts.answer(document, each, place) for each in answers]
            yield Row({"text": text, "label": labels, **own}, place)
            continue
        choices = reading.options(document, place)
        right = reading.right(document, choices, place)
        # The harness moves whitespace at the end of the text to the answers.
        kept = text.rstrip()
        between = text[len(kept) :] + file.config.target_delimiter
        options = [between + choice for choice in choices]
        fields = {"text": kept, "label": right, "options": options, "between": between}
        yield Row({**fields, **own}, place)


def _take_space(file: TaskFile, rows: Sequence[Row], scoring: Scoring) -> bool:
    """Take the space from before all answers, and say whether they all began with one.

    Where log-probabilities are divided by lengths, these are the harness's: of the choices alone.
    """
    field = "options" if scoring.choice else "label"
    every = all(text.startswith(" ") for row in rows for text in row[field])
    if scoring.keys.get("normalise", "none") != "none":
        between = {row["between"] for row in rows}
        if between not in ({" "}, {""}):
            raise TaskError(
                f"{file.path}: between text and choices stands {brief(sorted(between))}, which "
                "would count in the lengths that its accuracy divides by: expected a space, or "
                "nothing"
            )
        every = between == {" "}
    for row in rows if every else ():
        row[field] = [text[1:] for text in row[field]]
    return every


def _shared_options(rows: Sequence[Row]) -> dict[int, str] | None:
    """The answers to choose from by their place, where they are the same in all rows."""
    first = rows[0]["options"]
    return dict(enumerate(first)) if all(row["options"] == first for row in rows) else None
