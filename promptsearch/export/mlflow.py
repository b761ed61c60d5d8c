"""A prompt for MLflow's prompt registry, which keeps texts with `{{ variables }}` in versions.

`template.txt` is the whole text; for a template of messages `messages.json` holds role and content
of each, the last one the beginning of the assistant's answer. `mlflow.genai.register_prompt` takes
either. Nothing is registered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.export.certificate import Certificate
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.text import (
    MESSAGES,
    WHOLE,
    Filled,
    check_text,
    score_file,
    whole_text,
    written_messages,
)
from promptsearch.export.variables import fill_variables, variables, winner_name, with_variables
from promptsearch.files import write_aside, write_json
from promptsearch.models.protocol import TextModel
from promptsearch.plain.json import parse_json

#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
{imports}from pathlib import Path

import mlflow

template = {read}
prompt = mlflow.genai.register_prompt({name!r}, template)
print(mlflow.genai.load_prompt(prompt.uri).format(**{fields!r}))
"""


def write_mlflow(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `template.txt`, or `messages.json`.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the file goes.

    Raises:
        ExportError: No text holds the prompt, or MLflow would read something else in its text.
    """
    check_text(saved, lm)
    names = variables(saved.template.fields)
    if not saved.template.messages:
        whole = with_variables(whole_text(saved, lm), names, "MLflow")
        write_aside(folder / WHOLE, whole)
        return
    messages = [
        {**message, "content": with_variables(message["content"], names, "MLflow")}
        for message in written_messages(saved, lm)
    ]
    write_json(folder / MESSAGES, messages)


def score_mlflow(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with its inputs put in as MLflow does it, in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is missing, or has other variables than the probe has fields.
    """
    names = variables(certificate.template.fields)

    def fill(whole: str, fields: Mapping[str, Any]) -> Filled:
        if not certificate.template.messages:
            return fill_variables(whole, fields, names)
        given = parse_json(whole)
        if not isinstance(given, list) or not all(
            isinstance(each, dict) and set(each) == {"role", "content"} for each in given
        ):
            raise ValueError("expected a list of messages, each with 'role' and 'content'")
        return [(m["role"], fill_variables(str(m["content"]), fields, names)) for m in given]

    file = MESSAGES if certificate.template.messages else WHOLE
    return score_file(certificate, lm, folder / file, fill)


def mlflow_usage(saved: SavedPrompt, fields: Mapping[str, str]) -> str:
    """Python code that registers the prompt and loads it again.

    Args:
        saved: What was exported.
        fields: An input.
    """
    names = variables(saved.template.fields)
    chat = bool(saved.template.messages)
    read = f'Path("{MESSAGES if chat else WHOLE}").read_text("utf-8")'
    return USAGE.format(
        imports="import json\n" if chat else "",
        read=f"json.loads({read})" if chat else read,
        name=winner_name(saved.about),
        fields={names[field]: text for field, text in fields.items()},
    )
