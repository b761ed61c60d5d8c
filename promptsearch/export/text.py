"""Plain text: for people, and for servers that take text only.

`prompt.txt` has one line a slot. The whole text, with the data's `{field}`s in it, is
`template.txt`. For chat models it is `messages.json`, which goes through the tokenizer's chat
template; its last message is the beginning of the assistant's turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from promptsearch.errors import EndpointError, ExportError, FileError, PromptError
from promptsearch.export.certificate import Certificate, check_held, check_room
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.schema import LARGEST
from promptsearch.files import read, write_aside, write_json
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.plain.json import parse_json
from promptsearch.scoring.joints import broken_joint
from promptsearch.scoring.layout import Tokens, lay_out, prompt_texts, slots_of
from promptsearch.scoring.questions import Found, Question, score_questions
from promptsearch.scoring.scorer import loaded
from promptsearch.tasks.task import Example

T = TypeVar("T")

WHOLE, MESSAGES = "template.txt", "messages.json"


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
    check_held(saved.prompt, "text")
    if isinstance(lm, LanguageModel):  # it was given tokens; a server was sent the text itself
        for example in saved.probe:
            slots = slots_of(saved.template, lm, saved.prompt)
            layout = lay_out(saved.template, lm, example, saved.choices, slots)
            if fault := broken_joint(
                saved.template, lm, example, layout, saved.prompt, saved.choices
            ):
                raise ExportError(f"the text does not give the prompt's tokens back: {fault}")
    texts = prompt_texts(saved.template, lm, saved.prompt)
    write_aside(folder / "prompt.txt", "\n".join(texts) + "\n")
    if saved.template.messages:
        fields = {name: f"\0{name}\0" for name in saved.template.fields}
        contents = saved.template.contents(fields, texts, "")
        messages = [
            {"role": role, "content": re.sub("\0(.*?)\0", r"{\1}", _literal(text))}
            for role, text in contents
        ]
        write_json(folder / MESSAGES, messages)
        return
    whole = "".join(
        s + _literal(t) for s, t in zip(saved.template.segments, [*texts, ""], strict=True)
    )
    write_aside(folder / WHOLE, whole)


def score_text(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with its inputs put into the whole text, in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is missing, or has other fields than the probe.
    """
    if isinstance(lm, ServedModel):
        texts = _filled(folder / WHOLE, certificate, _put_in)
        choices, template = certificate.choices, certificate.template
        asked = [
            Question.about(texts[e.id], e, template, choices, certificate.normalise, lm)
            for e in certificate.probe
        ]
        answers = score_questions(lm, asked)
        if failed := next((each for each in answers if isinstance(each, EndpointError)), None):
            raise failed
        return [each.loss for each in answers if isinstance(each, Found)]
    model = loaded(lm, "read")
    name, understand = (
        (MESSAGES, _read_messages) if certificate.template.messages else (WHOLE, _read_text)
    )
    rows = _filled(folder / name, certificate, partial(understand, model))

    def logits(example: Example, answer: Tokens) -> Tensor:
        ids = [*rows[example.id], *answer]
        check_room(model, 0, len(ids))
        found: Tensor = model.model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        return found

    return certificate.losses_by(model, logits)


def _filled(
    file: Path, certificate: Certificate, understand: Callable[[str, Mapping[str, Any]], T]
) -> dict[int, T]:
    """Example id -> what `understand` makes of the file's text with the example's fields."""
    try:
        whole = read(file, LARGEST).decode("utf-8")
        return {example.id: understand(whole, example.fields) for example in certificate.probe}
    except FileError as error:
        raise PromptError(str(error)) from error
    except ValueError as error:
        raise PromptError(f"{file} is missing or damaged: {error}") from error


def _read_text(lm: LanguageModel, whole: str, fields: Mapping[str, Any]) -> list[int]:
    return [*lm.lead, *lm.encode(_put_in(whole, fields), begins=True)]


def _read_messages(lm: LanguageModel, whole: str, fields: Mapping[str, Any]) -> list[int]:
    given = parse_json(whole)
    shaped = isinstance(given, list) and all(isinstance(message, dict) for message in given)
    if (
        not shaped
        or not given
        or any(not isinstance(m.get(key), str) for m in given for key in ("role", "content"))
    ):
        raise ValueError("expected a list of messages, each with 'role' and 'content' as text")
    *said, (_, begun) = [
        (message["role"], _put_in(message["content"], fields)) for message in given
    ]
    return list(lm.tokenizer(lm.special.chat(said) + begun, add_special_tokens=False).input_ids)


#: Matches a doubled brace, which stands for one, the place of a field, or a brace that is neither.
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _put_in(whole: str, fields: Mapping[str, Any]) -> str:
    """A text with the fields put in their places.

    A place is `{name}` and nothing else: a format could say anything, such as an endless width.

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


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
