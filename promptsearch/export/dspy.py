"""A prompt for DSPy: `predict.json`, the state that `dspy.Predict(...).load` reads.

DSPy keeps what it optimises as the instructions of a signature and as demonstrations, and writes
the text that a model reads itself. So the prompt becomes the instructions, the template's fields
become the signature's inputs, and there are no demonstrations: what a prompt shows by example
stands in its text. What DSPy makes of it is another text than the one that was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import ExportError, PromptError
from promptsearch.export.certificate import Certificate
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.schema import read_object
from promptsearch.export.text import check_text, score_filled
from promptsearch.export.variables import variables
from promptsearch.files import write_json
from promptsearch.models.protocol import TextModel
from promptsearch.scoring.layout import prompt_texts
from promptsearch.tasks.notation import data_fields

FILE = "predict.json"
#: The name of the signature's output.
ANSWER = "answer"
#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
{imports}import dspy

predict = dspy.Predict({signature!r})
predict.load({file!r})
dspy.configure(lm=dspy.LM({model!r}, api_base={url!r}, api_key={key}, temperature=0))
print(predict(**{fields!r}).answer)
"""


def write_dspy(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `predict.json`.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the file goes.

    Raises:
        ExportError: No text holds the prompt, or an input stands within it.
    """
    check_text(saved, lm)
    names = variables(saved.template.fields, [ANSWER])
    fields = [*(names[field] for field in saved.template.fields), ANSWER]
    signature = {
        "instructions": _instructions(saved, lm),
        "fields": [
            {"prefix": f"{name.replace('_', ' ').strip().title()}:", "description": f"${{{name}}}"}
            for name in fields
        ],
    }
    state: dict[str, Any] = {"traces": [], "train": [], "demos": [], "signature": signature}
    metadata: dict[str, Any] = {"dependency_versions": {}}
    write_json(folder / FILE, {**state, "lm": None, "metadata": metadata})


def score_dspy(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with the instructions in the place of the prompt, in nats, `(probe,)`.

    Raises:
        PromptError: The file is missing or damaged.
    """
    file = folder / FILE
    data = read_object(file)
    signature = data.get("signature")
    found = signature.get("instructions") if isinstance(signature, dict) else None
    if not isinstance(found, str):
        raise PromptError(f"{file} is damaged: expected the text signature.instructions")
    template = certificate.template
    first, *rest = template.slots
    _check_together(template.segments)
    filled = {}
    for example in certificate.probe:
        # All slots are one here: the first one with the instructions, and the others empty.
        before, *_, behind = template.fill(example.fields)
        filled[example.id] = before + first.holding(found) + behind
    return score_filled(certificate, lm, filled)


def dspy_usage(saved: SavedPrompt, lm: TextModel, fields: Mapping[str, str]) -> str:
    """Python code that loads the state and answers an input.

    Args:
        saved: What was exported.
        lm: The LM.
        fields: The input.
    """
    names = variables(saved.template.fields, [ANSWER])
    inputs = ", ".join(names[field] for field in saved.template.fields)
    kind = ""
    if saved.choices is not None:
        kind = f": Literal[{', '.join(repr(choice.strip()) for choice in saved.choices)}]"
    served = lm.served or {}
    key = served.get("key")
    return USAGE.format(
        imports="import os\n\n" if key else "",
        signature=f"{inputs} -> {ANSWER}{kind}",
        file=FILE,
        model=f"openai/{served.get('model', lm.name)}",
        url=served.get("url", "http://localhost:8000/v1"),
        key=f"os.environ[{key!r}]" if key else "'none'",
        fields={names[field]: text for field, text in fields.items()},
    )


def _instructions(saved: SavedPrompt, lm: TextModel) -> str:
    """The prompt's text, with the anchors between its pieces."""
    template = saved.template
    _check_together(template.segments)
    first, *others = prompt_texts(template, lm, saved.prompt)
    fields = dict.fromkeys(template.fields, "")
    between = template.fill(fields)[1:-1]
    text = first.removeprefix(" ") if template.slots[0].space else first
    return text + "".join(a + t for a, t in zip(between, others, strict=True))


def _check_together(segments: tuple[str, ...]) -> None:
    """Refuse a template that has an input between two slots.

    Raises:
        ExportError: There is one, or another message begins there.
    """
    between = segments[1:-1]
    if any(data_fields(segment) for segment in between):
        raise ExportError(
            "DSPy keeps a prompt as instructions, apart from inputs, but an input stands between "
            "two slots of the template: export it as text, lm-eval or json"
        )
    if any(re.search(r"{\d+}", segment) for segment in between):
        raise ExportError(
            "DSPy keeps a prompt as instructions in one message, but two slots of the template "
            "stand in different messages: export it as text, mlflow or json"
        )
