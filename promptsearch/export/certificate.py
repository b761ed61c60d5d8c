"""The certificate of every export: all that its scores depend on, and a probe to check copies.

The probe is a few examples of the select split with their losses in float32: minus the
log-probability of the right answer, among the answers to choose from or as text. In a folder of any
format, `certificate.json` holds the same as the `prompt.json` of the library's own format, which is
its own certificate. The prompt's numbers lie beside it, in the form that the format wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ExportError, ModelError, PromptError, TemplateError
from promptsearch.export.schema import CertificateFacts, checked, read_object
from promptsearch.export.tolerance import Distance, largest_distance
from promptsearch.files import failing
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.kinds import KINDS
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.answers import choice_scores, token_nats
from promptsearch.scoring.layout import Tokens, lay_out
from promptsearch.scoring.scorer import loaded
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Mark, Template

CERTIFICATE, FORMAT = "certificate.json", "promptsearch-certificate-1"
#: The number of examples in the probe.
PROBE = 8
#: The suffixes of files that could run code when they are loaded.
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """All that the use of a prompt needs besides the prompt.

    Args:
        template: The template, bound to the prompt's lengths.
        choices: The answers to choose from; None for text answers.
        about: Everything else in the file: model, task, strategy, losses.
        probe: Examples with known losses.
        losses: The losses of these examples, in nats, shape `(probe,)`.
    """

    template: Template
    choices: tuple[str, ...] | None
    about: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[Example, ...] = ()
    losses: tuple[float, ...] = ()

    def model(self, given: LanguageModel | None = None) -> LanguageModel:
        """The LM that the prompt was found for, in float32.

        Args:
            given: The model, if it is loaded already; None loads it.

        Raises:
            ModelError: The given model is another one, see `any_model`, or runs behind an endpoint.
        """
        found = self.any_model(given)
        return loaded(
            found,
            "used here: ask its server, with the text that `promptsearch export --to text` writes",
        )

    def any_model(self, given: TextModel | None = None, key: str | None = None) -> TextModel:
        """The model that the prompt was found for, loaded here in float32, or behind its endpoint.

        Args:
            given: The model, if it is at hand; None loads it.
            key: The name of the environment variable that holds the endpoint's key.

        Raises:
            ModelError: The given model has another width, other layers, other weights or another
                tokenizer.
        """
        facts = self.about.get("model", {})
        if given is None and "source" not in facts:
            raise ModelError("this prompt does not say which model it is for: hand the model over")
        found = given or (
            ServedModel.of(facts, key) if "served" in facts else LanguageModel.load(facts["source"])
        )
        lm = found.to(torch.float32)
        for key in ("width", "layers", "hash", "tokenizer_hash"):
            if key in facts and facts[key] != (has := lm.facts.get(key)):
                raise ModelError(
                    f"this prompt was found for the model '{facts['name']}' with {key} "
                    f"{facts[key]}; '{lm.name}' has {has}. A prompt belongs to the weights that it "
                    "was searched on."
                )
        return lm

    def distance(self, lm: TextModel, losses: Sequence[float]) -> Distance:
        """How far the probe's losses are off, see `promptsearch.export.tolerance`.

        Args:
            lm: The model that scored the probe anew.
            losses: The losses that it found, in nats, shape `(probe,)`.

        Raises:
            ExportError: There is no probe.
        """
        if not self.losses:
            raise ExportError(
                "this prompt has no probe to check a copy against: export it from the run that "
                "found it"
            )
        return largest_distance(lm, self.probe, self.choices, self.losses, losses)

    def check(self, lm: TextModel, losses: Sequence[float]) -> float:
        """The distance in nats per scored token, if it is allowed.

        Args:
            lm: As in `distance`.
            losses: As in `distance`.

        Raises:
            ExportError: The distance is larger than what is allowed.
        """
        distance = self.distance(lm, losses)
        if not distance.same:
            raise ExportError(
                f"the export, loaded again, is {distance.found:.2g} nats per scored token away "
                f"from what was measured (allowed: {distance.allowed:.2g})."
            )
        return distance.found

    def losses_by(
        self, lm: LanguageModel, logits: Callable[[Example, Tokens], Tensor]
    ) -> list[float]:
        """Score the probe through the forward pass of another library.

        Args:
            lm: The model whose tokenizer encodes the answers.
            logits: A function from `(example, answer's ids)` to the logits of the example's row
                that ends with this answer. Their last rows belong to the answer and the token
                before it, shape `(at least answer + 1, vocabulary)`.

        Returns:
            Nats, shape `(probe,)`.
        """
        return [self._loss(lm, example, logits) for example in self.probe]

    def _loss(
        self, lm: LanguageModel, example: Example, logits: Callable[[Example, Tokens], Tensor]
    ) -> float:
        answers = lay_out(self.template, lm, example, self.choices).answers
        sums = []
        for answer in answers if self.choices is not None else answers[:1]:
            with torch.inference_mode():
                rows = logits(example, answer)[-len(answer) - 1 : -1].float()
                places = torch.arange(len(answer), device=rows.device)
                sums.append(
                    token_nats(rows, places, torch.tensor(answer, device=rows.device)).sum()
                )
        if self.choices is None:
            return -float(sums[0])
        losses, _, _ = choice_scores(
            torch.stack(sums)[None], torch.tensor([example.choice], device=sums[0].device)
        )
        return float(losses[0])


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
        "lengths": [slot.length for slot in template.slots],
        "choices": None if certificate.choices is None else list(certificate.choices),
        **certificate.about,
        "probe": [
            {
                "fields": dict(e.fields),
                "answer": e.answer,
                "choice": e.choice,
                "aliases": list(e.aliases),
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
    template = replace(template, marks=tuple(Mark(*mark) for mark in facts.marks))
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
        about={key: value for key, value in data.items() if key not in _OWN},
        probe=tuple(
            Example(i, e.fields, e.answer, e.choice, tuple(e.aliases))
            for i, e in enumerate(facts.probe)
        ),
        losses=tuple(e.loss for e in facts.probe),
    )
    return certificate, data


_OWN = ("format", "export", "prompt", "template", "marks", "lengths", "choices", "probe", "text")


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle: no export writes one, so someone else put it there.

    Raises:
        PromptError: The folder holds a pickle, which is not opened.
    """
    with failing(folder, "read"):
        found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
    if found:
        raise PromptError(
            f"{folder} holds a pickle, {found[0]}, which could run code: exports hold safetensors "
            "only"
        )


def check_held(prompt: Prompt, to: str) -> None:
    """Refuse a prompt that a format cannot hold.

    Args:
        prompt: The prompt to be exported.
        to: The format.

    Raises:
        ExportError: It cannot hold the prompt; the message says why, and which format can.
    """
    if reason := prompt.refuses(to):
        raise ExportError(reason)


def check_room(lm: LanguageModel, above: int, below: int) -> None:
    """Refuse a prompt that leaves no room for its input.

    Args:
        lm: The model.
        above: The prompt's length in tokens.
        below: The length of input and answer together, in tokens.

    Raises:
        PromptError: Together they have more tokens than the model reads.
    """
    if lm.context is not None and above + below > lm.context:
        raise PromptError(
            f"a prompt of {above} tokens with an input of {below} is longer than the {lm.context} "
            f"tokens that '{lm.name}' reads"
        )


def check_in_front(template: Template, what: str) -> None:
    """Refuse a prompt that does not stand in front of the whole input.

    Args:
        template: The prompt's template.
        what: What the format does, for the message.

    Raises:
        ExportError: A slot stands behind a field.
    """
    if template.fixed < len(template.slots):
        raise ExportError(
            f"{what}, but in the template {template.text!r} the input stands before a slot: export "
            "it as json or vllm, or as text if it is a hard prompt"
        )
