"""A certificate as JSON, and back: what `certificate.json` and `prompt.json` hold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptError, TemplateError
from promptsearch.export.certificate import Certificate
from promptsearch.export.schema import CertificateFacts, checked, read_object
from promptsearch.prompts.kinds import KINDS
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.marks import Mark
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template


def to_json(certificate: Certificate, prompt: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a certificate's file, without the format's name.

    Args:
        certificate: The certificate of an export.
        prompt: The prompt as `Prompt.to_json` gives it.
    """
    template = certificate.template
    return {
        "prompt": dict(prompt),
        "template": [{role: content} for role, content in template.messages] or template.text,
        **({"marks": template.marks} if template.marks else {}),
        # What ends an answer stays, too, whatever a later tokenizer or chat template says.
        "end_token": template.end_token,
        **({"middle": True} if template.behind else {}),
        "lengths": [slot.length for slot in template.slots],
        "choices": None if certificate.choices is None else list(certificate.choices),
        **({} if certificate.options is None else {"options": certificate.options}),
        **({} if certificate.normalise == "none" else {"normalise": certificate.normalise}),
        **({"decoding": asdict(certificate.decoding)} if certificate.text else {}),
        **certificate.about,
        "probe": [
            {
                "fields": dict(e.fields),
                "answer": e.answer,
                "choice": e.choice,
                "aliases": list(e.aliases),
                **({"also": list(e.also)} if e.also else {}),
                **({} if e.options is None else {"options": list(e.options)}),
                "loss": loss,
            }
            for e, loss in zip(certificate.probe, certificate.losses, strict=True)
        ],
    }


def read_json(file: Path, formats: Sequence[str]) -> tuple[Certificate, dict[str, Any]]:
    """Read a certificate from its file: the reverse of `to_json`.

    Args:
        file: `certificate.json` or `prompt.json`.
        formats: The names of the formats that the file may have.

    Returns:
        The certificate, and all that the file holds.

    Raises:
        PromptError: The file is damaged, of another format, or its lengths do not fit the template.
    """
    data = read_object(file)
    if data.get("format") not in formats:
        known = " or ".join(map(repr, formats))
        raise PromptError(
            f"{file} has the format {str(data.get('format'))[:80]!r}, this version reads {known}"
        )
    facts = checked(CertificateFacts, data, file)
    try:
        template = Template.parse(facts.template)
    except TemplateError as error:
        raise PromptError(f"{file} is damaged: {error}") from error
    # What the chat template wrote stays as it was: scores were measured with it, and a chat
    # template may change, or write the day's date.
    marks = tuple(Mark(*mark) for mark in facts.marks)
    template = replace(template, marks=marks, end_token=facts.end_token or "")
    template = template.in_middle if facts.middle else template
    if facts.choices is None and facts.options is None and facts.end_token is None:
        raise PromptError(
            f"{file} was written by a version of promptsearch whose text answers had no end, so "
            "that its losses mean something else: use that version, or find the prompt again"
        )
    if not template.rendered:
        raise PromptError(
            f"{file} is damaged: {len(template.marks)} marks for {len(template.messages)} messages"
        )
    if (kind := KINDS.get(facts.prompt.kind)) is not None:
        template = template.taking(kind.placement)
    if len(facts.lengths) != len(template.slots):
        raise PromptError(
            f"{file} gives the lengths {facts.lengths[:20]}, but its template {template.text!r} "
            f"has {len(template.slots)} slots"
        )
    for number, one in enumerate(facts.probe):
        if missing := [name for name in template.fields if name not in one.fields]:
            raise PromptError(
                f"{file} is damaged: probe.{number}.fields lacks the template's field "
                f"'{missing[0]}'"
            )
    slots = tuple(
        replace(slot, length=n) for slot, n in zip(template.slots, facts.lengths, strict=True)
    )
    certificate = Certificate(
        template=replace(template, slots=slots),
        choices=None if facts.choices is None else tuple(facts.choices),
        options=facts.options,
        normalise=facts.normalise,
        decoding=Decoding(
            **{each.name: getattr(facts.decoding, each.name) for each in fields(Decoding)}
        ),
        about={key: value for key, value in data.items() if key not in _OWN},
        probe=tuple(
            Example(
                i,
                e.fields,
                e.answer,
                e.choice,
                tuple(e.aliases),
                tuple(e.also),
                None if e.options is None else tuple(e.options),
            )
            for i, e in enumerate(facts.probe)
        ),
        losses=tuple(e.loss for e in facts.probe),
    )
    return certificate, data


#: The keys that have a reader of their own; all others are `about`.
_OWN = (
    *("format", "export", "prompt", "text", "probe"),
    *("template", "marks", "end_token", "lengths", "choices", "options", "normalise", "decoding"),
)
