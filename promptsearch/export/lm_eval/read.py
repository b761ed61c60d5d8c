"""Reading the task folder as lm-evaluation-harness does, and scoring the probe below its texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptError, TaskError
from promptsearch.export.certificate import Certificate
from promptsearch.export.lm_eval.rows import example_of, row_of
from promptsearch.export.text import score_filled
from promptsearch.export.variables import winner_name
from promptsearch.models.protocol import TextModel
from promptsearch.printable import brief
from promptsearch.tasks.lm_eval.config import TaskFile, read_task_file
from promptsearch.tasks.lm_eval.documents import Documents, load_documents
from promptsearch.tasks.lm_eval.reading import Reading
from promptsearch.tasks.task import Example, Split

ROWS = "test.jsonl"
#: Where the harness finds them, from the folder as the current one.
DATA = {"data_files": {"test": ROWS}}


def task_name(certificate: Certificate) -> str:
    """The name of the task, which none of the harness's own has.

    Args:
        certificate: The certificate.
    """
    return f"promptsearch_{winner_name(certificate.about)}"


def score_lm_eval(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses below the texts that the harness gives, in nats, shape `(probe,)`.

    Raises:
        PromptError: The folder holds no such task, or its rows are not those that were tested.
    """
    file, documents, examples = read_folder(certificate, folder)
    if Split("test", tuple(examples)).hash != certificate.about.get("splits", {}).get("test"):
        raise PromptError(
            f"{folder / ROWS} does not hold the rows of the test split that the prompt was tested "
            "on: export it again"
        )
    reading = Reading(file, documents.fields)
    filled = {}
    for example in certificate.probe:
        row = row_of(example, certificate.template)
        try:
            filled[example.id] = reading.question(row, f"input {example.id}")
            if not certificate.text:
                _check_choices(file, reading, row, example, certificate)
        except TaskError as error:
            raise PromptError(f"{file.path} is damaged: {error}") from error
    return score_filled(certificate, lm, filled)


def read_folder(
    certificate: Certificate, folder: Path
) -> tuple[TaskFile, Documents, list[Example]]:
    """The task in a folder, its documents, and the examples that they stand for.

    Args:
        certificate: The certificate.
        folder: The folder.

    Raises:
        PromptError: The folder holds no such task.
    """
    path = folder / f"{task_name(certificate)}.yaml"
    try:
        file = read_task_file(path.name, folder)
        if (file.config.dataset_path, file.config.dataset_kwargs) != ("json", DATA):
            raise ValueError(f"its rows are not those in {ROWS}")
        documents = load_documents(file)["test"]
        rows = enumerate(documents.rows)
        examples = [example_of(row, certificate, number) for number, row in rows]
    except (TaskError, KeyError, ValueError) as error:
        raise PromptError(f"{folder} is no task folder of this prompt's: {error}") from error
    return file, documents, examples


def _check_choices(
    file: TaskFile,
    reading: Reading,
    row: Mapping[str, Any],
    example: Example,
    certificate: Certificate,
) -> None:
    """See that the harness compares the answers that were compared.

    Raises:
        PromptError: It does not.
    """
    choices = reading.choices(row, f"input {example.id}")
    found = tuple(file.config.target_delimiter + choice for choice in choices)
    if found != (example.options or certificate.choices):
        raise PromptError(
            f"{file.path} is damaged: its answers to choose from are {brief(list(found))}: export "
            "it again"
        )
