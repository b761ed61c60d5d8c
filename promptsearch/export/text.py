"""Plain text: for people, and for servers that take text only.

`prompt.txt` has one line a slot. The whole text, with the data's `{field}`s in it, is
`template.txt`. For chat models it is `messages.json`, which goes through the tokenizer's chat
template; its last message is the beginning of the assistant's turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import EndpointError, ExportError, FileError, PromptError
from promptsearch.export.certificate import Certificate, check_held, check_room, told_last
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.schema import LARGEST
from promptsearch.files import read, write_aside, write_json
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import TOLERANCE, ServedModel
from promptsearch.plain.json import parse_json
from promptsearch.scoring.joints import broken_joint
from promptsearch.scoring.layout import Tokens, lay_out, prompt_texts, slots_of
from promptsearch.scoring.questions import Found, Question, score_questions
from promptsearch.scoring.scorer import loaded
from promptsearch.tasks.task import Example

WHOLE, MESSAGES = "template.txt", "messages.json"

#: What stands before an answer: a whole text, or what each role says.
Filled = str | Sequence[tuple[str, str]]


def write_text(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `prompt.txt` and the whole text.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: The prompt is trained, so that no text holds it, or its text does not give its
            tokens back.
    """
    check_text(saved, lm)
    texts = prompt_texts(saved.template, lm, saved.prompt)
    write_aside(folder / "prompt.txt", "\n".join(texts) + "\n")
    if saved.template.messages:
        write_json(folder / MESSAGES, written_messages(saved, lm))
    else:
        write_aside(folder / WHOLE, whole_text(saved, lm))


def check_text(saved: SavedPrompt, lm: TextModel) -> None:
    """Refuse a prompt that its text does not stand for.

    Args:
        saved: A prompt.
        lm: The LM.

    Raises:
        ExportError: It is trained, or its text does not give its tokens back.
    """
    check_held(saved.prompt, "text")
    if isinstance(lm, LanguageModel):  # it was given tokens; a server was sent the text itself
        for example in saved.probe:
            slots = slots_of(saved.template, lm, saved.prompt)
            layout = lay_out(saved.template, lm, example, saved.choices, slots)
            if fault := broken_joint(
                saved.template, lm, example, layout, saved.prompt, saved.choices
            ):
                raise ExportError(f"the text does not give the prompt's tokens back: {fault}")


def whole_text(saved: SavedPrompt, lm: TextModel) -> str:
    """All that the model reads before an answer, with `{field}`s in it and other braces doubled.

    For a template of messages it is the text that the chat template writes.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
    """
    texts = prompt_texts(saved.template, lm, saved.prompt)
    return _with_places(saved.template.render(_places(saved), texts, ""))


def written_messages(saved: SavedPrompt, lm: TextModel) -> list[dict[str, str]]:
    """Role and content of each message, with `{field}`s in the contents and other braces doubled.

    Args:
        saved: A hard or text prompt, under a template of messages.
        lm: The LM.
    """
    texts = prompt_texts(saved.template, lm, saved.prompt)
    contents = saved.template.contents(_places(saved), texts, "")
    return [{"role": role, "content": _with_places(content)} for role, content in contents]


def score_text(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with its inputs put into the whole text, in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is missing, or has other fields than the probe.
    """
    if certificate.template.messages:
        return score_file(certificate, lm, folder / MESSAGES, fill_messages)
    return score_file(certificate, lm, folder / WHOLE, put_in)


def ask_text(
    certificate: Certificate, lm: LanguageModel, folder: Path, served: ServedModel
) -> list[float]:
    """The probe's losses as a server gives them for the whole text, in nats, shape `(probe,)`.

    Args:
        certificate: The certificate.
        lm: The model, loaded here; it is not asked.
        folder: The export.
        served: The same model behind a server.

    Raises:
        ExportError: What the certificate measured is no text that a server can be sent, or the
            server gives no log-probabilities of a text.
        PromptError: The file is missing, or has other fields than the probe.
        EndpointError: A request failed.
    """
    if certificate.template.messages or (certificate.text and not certificate.template.end):
        raise ExportError(
            "special tokens cannot be sent to a server as text: expected a template that is one "
            "text and, where answers are text, has some behind {answer}, to ask a server"
        )
    found = _asked(certificate, served, _filled(certificate, folder / WHOLE, put_in))
    vague = [each for each in found if each.bounds and each.bounds[1] - each.bounds[0] > TOLERANCE]
    if served.scores == "errors" or vague:
        raise ExportError(
            f"the endpoint {served.device} cannot say whether the export scores the same: "
            f"{served.way.reason}"
        )
    return [each.loss for each in found]


def score_file(
    certificate: Certificate,
    lm: TextModel,
    file: Path,
    fill: Callable[[str, Mapping[str, Any]], Filled],
) -> list[float]:
    """The probe's losses with its inputs put into a file's text, in nats, shape `(probe,)`.

    Args:
        certificate: The certificate.
        lm: The LM.
        file: The file.
        fill: Puts an example's fields into the file's text; raises `ValueError` where it is not of
            the form that is expected.

    Raises:
        PromptError: The file is missing, or has other fields than the probe.
    """
    return score_filled(certificate, lm, _filled(certificate, file, fill))


def score_filled(
    certificate: Certificate, lm: TextModel, filled: Mapping[int, Filled]
) -> list[float]:
    """The probe's losses below texts, in nats, shape `(probe,)`.

    Args:
        certificate: The certificate.
        lm: The LM.
        filled: What stands before the answer of each example, by the example's id.
    """
    if isinstance(lm, ServedModel):
        return [each.loss for each in _asked(certificate, lm, filled)]
    model = loaded(lm, "read")
    rendered = bool(certificate.template.messages)
    rows = {number: _ids(model, text, rendered) for number, text in filled.items()}

    def logits(example: Example, answer: Tokens) -> Tensor:
        ids = [*rows[example.id], *answer]
        check_room(model, 0, len(ids))
        found: Tensor = model.model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        return told_last(found, answer)

    return certificate.losses_by(model, logits)


def _filled(
    certificate: Certificate, file: Path, fill: Callable[[str, Mapping[str, Any]], Filled]
) -> dict[int, Filled]:
    """What stands before the answer of each example, by the example's id; see `score_file`."""
    try:
        whole = read(file, LARGEST).decode("utf-8")
        return {example.id: fill(whole, example.fields) for example in certificate.probe}
    except FileError as error:
        raise PromptError(str(error)) from error
    except ValueError as error:
        raise PromptError(f"{file} is missing or damaged: {error}") from error


def _asked(
    certificate: Certificate, served: ServedModel, filled: Mapping[int, Filled]
) -> list[Found]:
    """What a server says of the probe, see `score_filled`.

    Raises:
        EndpointError: A request failed.
    """
    choices, template = certificate.choices, certificate.template
    asked = [
        Question.about(str(filled[e.id]), e, template, choices, certificate.normalise, served)
        for e in certificate.probe
    ]
    answers = score_questions(served, asked)
    if failed := next((each for each in answers if isinstance(each, EndpointError)), None):
        raise failed
    return [each for each in answers if isinstance(each, Found)]


def _ids(lm: LanguageModel, filled: Filled, rendered: bool) -> list[int]:
    """The ids of what stands before an answer.

    Args:
        lm: The LM.
        filled: The text, or what each role says.
        rendered: Whether a chat template wrote a whole text, special tokens among it.
    """
    if isinstance(filled, str) and not rendered:
        return [*lm.lead, *lm.encode(filled, begins=True)]
    if not isinstance(filled, str):
        *said, (_, begun) = filled
        filled = lm.special.chat(said) + begun
    return list(lm.tokenizer(filled, add_special_tokens=False).input_ids)


def fill_messages(whole: str, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each role says, with the fields put in their places.

    Args:
        whole: The text of `messages.json`.
        fields: The fields.

    Raises:
        ValueError: The text is of another form, or a place names no field.
    """
    given = parse_json(whole)
    shaped = isinstance(given, list) and all(isinstance(message, dict) for message in given)
    if (
        not shaped
        or not given
        or any(not isinstance(m.get(key), str) for m in given for key in ("role", "content"))
    ):
        raise ValueError("expected a list of messages, each with 'role' and 'content' as text")
    return [(message["role"], put_in(message["content"], fields)) for message in given]


#: Matches a doubled brace, which stands for one, the place of a field, or a brace that is neither.
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def put_in(whole: str, fields: Mapping[str, Any]) -> str:
    """A text with the fields put in their places.

    A place is `{name}` and nothing else: a format could say anything, such as an endless width.

    Args:
        whole: The text.
        fields: The fields.

    Raises:
        ValueError: A place names no field.
    """

    def put(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in fields:
            raise ValueError(
                f"{match[0][:40]!r} is the place of no field; the probe has {', '.join(fields)}"
            )
        return str(fields[match[1]])

    return _PLACE.sub(put, whole)


def _places(saved: SavedPrompt) -> dict[str, str]:
    """Each field with a mark of its name as its text, which no text of a template holds."""
    return {name: f"\0{name}\0" for name in saved.template.fields}


def _with_places(text: str) -> str:
    return re.sub("\0(.*?)\0", r"{\1}", text.replace("{", "{{").replace("}", "}}"))
