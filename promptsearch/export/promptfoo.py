"""A prompt for promptfoo: `promptfooconfig.yaml`, with the prompt in `prompt.j2` and tests.

The prompt is the whole text that the model reads, for a provider that completes texts. The tests
are the inputs of the certificate's probe, each with the assertion that the answer is right. A
provider generates text: it does not choose among answers, so that a task of choice asks whether
what it writes begins with the right one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import ExportError
from promptsearch.export.certificate import Certificate
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.text import check_text, score_file, whole_text
from promptsearch.export.variables import fill_variables, variables, with_variables
from promptsearch.files import write_aside
from promptsearch.models.protocol import TextModel
from promptsearch.plain.yaml import write_yaml
from promptsearch.tasks.task import Example

CONFIG, PROMPT = "promptfooconfig.yaml", "prompt.j2"
#: The server of a model that is on nobody's server yet: where vLLM and others listen.
_SERVER = "http://localhost:8000/v1"
_SCHEMA = "# yaml-language-server: $schema=https://promptfoo.dev/config-schema.json\n"
#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = "npx promptfoo@latest eval\nnpx promptfoo@latest view\n"


def write_promptfoo(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `prompt.j2` and `promptfooconfig.yaml`.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: No text holds the prompt, or promptfoo would read something else in its text.
    """
    check_text(saved, lm)
    names = variables(saved.template.fields)
    text = with_variables(whole_text(saved, lm), names, "promptfoo")
    _check_no_json(text)
    config = {
        "description": f"{saved.about.get('task', 'a task')}: a prompt found by promptsearch",
        "prompts": [f"file://{PROMPT}"],
        "providers": [_provider(saved, lm)],
        "defaultTest": {"options": {"transform": _transform(saved)}},
        "tests": list(_tests(saved, names)),
    }
    write_aside(folder / PROMPT, text)
    written = write_yaml(config, width=100)
    write_aside(folder / CONFIG, _SCHEMA + written)


def score_promptfoo(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with its inputs put into `prompt.j2`, in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is missing, or has other variables than the probe has fields.
    """
    names = variables(certificate.template.fields)

    def fill(whole: str, fields: Mapping[str, Any]) -> str:
        return fill_variables(whole, fields, names)

    return score_file(certificate, lm, folder / PROMPT, fill)


def _check_no_json(text: str) -> None:
    """Refuse a text that promptfoo would take for JSON, and write anew in its own form."""
    try:
        json.loads(text)
    except ValueError:
        return
    raise ExportError(
        "the whole text is JSON, which promptfoo writes anew in its own form: export it as text"
    )


def _provider(saved: SavedPrompt, lm: TextModel) -> dict[str, Any]:
    """The server of a model behind an endpoint, or where one may be started."""
    served, way = lm.served or {}, saved.decoding
    kind = "chat" if served.get("chat") else "completion"
    config: dict[str, Any] = {
        "apiBaseUrl": served.get("url", _SERVER),
        "temperature": way.temperature if saved.text else 0,
        "max_tokens": way.tokens if saved.text else _longest(saved, lm),
    }
    if saved.text and way.top_p != 1:
        config["top_p"] = way.top_p
    if key := served.get("key"):
        config["apiKeyEnvar"] = key
    if saved.text and saved.template.end:
        config["stop"] = [saved.template.end]
    return {"id": f"openai:{kind}:{served.get('model', lm.name)}", "config": config}


def _longest(saved: SavedPrompt, lm: TextModel) -> int:
    """The number of tokens of the longest answer to choose from."""
    options = [saved.choices or example.options or () for example in saved.probe]
    return max((lm.count_answer(text) for texts in options for text in texts), default=1)


def _transform(saved: SavedPrompt) -> str:
    """What of an output is the answer, in JavaScript."""
    if saved.text and saved.template.end:
        return f"output.split({json.dumps(saved.template.end)})[0].trim()"
    return "output.trim()"


def _tests(saved: SavedPrompt, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A test for each input of the probe that promptfoo hands over as it is."""
    for example in saved.probe:
        fields = {names[field]: example.fields[field] for field in saved.template.fields}
        if all(map(_plain, fields.values())):
            yield {"vars": fields, "assert": [_assertion(saved, example)]}


def _assertion(saved: SavedPrompt, example: Example) -> dict[str, str]:
    answer = example.answer.strip()
    if not saved.text:
        return {"type": "starts-with", "value": answer}
    right = [text.strip() for text in example.right]
    if len(right) == 1:
        return {"type": "equals", "value": answer}
    return {"type": "javascript", "value": f"{json.dumps(right)}.includes(output)"}


def _plain(value: str) -> bool:
    """Whether promptfoo takes a value as it is: no template, no file, no newline at its end."""
    begins = value.startswith(("file://", "package:"))
    return (
        not begins and not value.endswith("\n") and not any(m in value for m in ("{{", "{%", "{#"))
    )


def promptfoo_note(saved: SavedPrompt) -> str:
    """What the card says of the tests.

    Args:
        saved: What was exported.
    """
    count = len(list(_tests(saved, variables(saved.template.fields))))
    judged = (
        "the answer equals a right one"
        if saved.text
        else "what is generated begins with the right answer, where promptsearch compared the "
        "probabilities of the answers"
    )
    return (
        f"The provider in `{CONFIG}` is a server that completes texts: put yours there. "
        f"{count} of the {len(saved.probe)} inputs below are tests (promptfoo would change the "
        f"others); each asks whether {judged}. `promptsearch verify` fills `{PROMPT}` in and "
        "scores it; it does not run promptfoo.\n"
    )
