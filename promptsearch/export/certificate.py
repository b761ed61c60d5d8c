"""What every export carries: all that its scores depend on, and a probe against which any copy of it can be checked.

The probe is a few examples of the select split with their losses in float32: minus the log-probability of the right answer,
among the answers to choose from or as text. `certificate.json` in a folder of any format holds what `prompt.json` holds of
the library's own, which is its own certificate; the prompt's numbers lie beside it, as the format wants them.
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
from promptsearch.prompts.prompt import (
    TRAINED,
    GatedPrompt,
    HardPrompt,
    PrefixPrompt,
    Prompt,
    SoftPrompt,
    TextPrompt,
    TunedPrompt,
    Weights,
    kind_of,
)
from promptsearch.scoring.answers import choice_scores, token_nats
from promptsearch.scoring.layout import Ids, lay_out
from promptsearch.scoring.scorer import loaded
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Mark, Template

CERTIFICATE, FORMAT = "certificate.json", "promptsearch-certificate-1"
#: Examples in the probe.
PROBE = 8
#: Files that could run code when they are loaded.
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """All that the use of a prompt needs besides the prompt.

    Args:
        template: Bound.
        choices: The answers to choose from; None for text answers.
        about: Everything else in the file: model, task, strategy, losses.
        probe: Examples with known losses.
        losses: Theirs, in nats, shape `(probe,)`.
    """

    template: Template
    choices: tuple[str, ...] | None
    about: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[Example, ...] = ()
    losses: tuple[float, ...] = ()

    def model(self, given: LanguageModel | None = None) -> LanguageModel:
        """The LM that the prompt was found for, in float32.

        Args:
            given: If it is loaded already.

        Raises:
            ModelError: It is another one, see `any_model`, or runs behind an endpoint.
        """
        found = self.any_model(given)
        return loaded(
            found,
            "used here: ask its server, with the text that `promptsearch export --to text` writes",
        )

    def any_model(self, given: TextModel | None = None, key: str | None = None) -> TextModel:
        """The model that the prompt was found for, loaded here in float32, or behind its endpoint.

        Args:
            given: If it is at hand.
            key: The name of the environment variable that holds the key of the endpoint.

        Raises:
            ModelError: It has another width, other layers, other weights or another tokenizer.
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
                    f"this prompt was found for the model '{facts['name']}' with {key} {facts[key]}; '{lm.name}' has {has}. "
                    "A prompt belongs to the weights that it was searched on."
                )
        return lm

    def distance(self, lm: TextModel, losses: Sequence[float]) -> Distance:
        """How far the probe's losses are off, see `promptsearch.export.tolerance`.

        Args:
            lm: The model that scored the probe anew.
            losses: What it found, in nats, shape `(probe,)`.

        Raises:
            ExportError: There is no probe.
        """
        if not self.losses:
            raise ExportError(
                "this prompt has no probe to check a copy against: export it from the run that found it"
            )
        return largest_distance(lm, self.probe, self.choices, self.losses, losses)

    def check(self, lm: TextModel, losses: Sequence[float]) -> float:
        """The distance in nats per scored token, where it is not above what is allowed.

        Args:
            lm: As in `distance`.
            losses: As in `distance`.

        Raises:
            ExportError: It is above.
        """
        distance = self.distance(lm, losses)
        if not distance.same:
            raise ExportError(
                f"the export, loaded again, is {distance.found:.2g} nats per scored token away from what was measured "
                f"(allowed: {distance.allowed:.2g})."
            )
        return distance.found

    def losses_by(self, lm: LanguageModel, logits: Callable[[Example, Ids], Tensor]) -> list[float]:
        """Score the probe through a forward pass of someone else's.

        Args:
            lm: For its tokenizer.
            logits: Of an example's row that ends with an answer: `(example, answer's ids)` to logits whose last rows belong
                to the answer and the token before it, shape `(at least answer + 1, vocabulary)`.

        Returns:
            Nats, shape `(probe,)`.
        """
        return [self._loss(lm, example, logits) for example in self.probe]

    def _loss(
        self, lm: LanguageModel, example: Example, logits: Callable[[Example, Ids], Tensor]
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
    """The content of its file, the format's name left out.

    Args:
        certificate: Of an export.
        prompt: As `prompt_to_json` gives it.
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
    """The reverse.

    Args:
        file: `certificate.json` or `prompt.json`.
        formats: The formats of the file that are known.

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
    # What the chat template wrote stays as it was: scores were measured with it, and it may change, or name the day.
    template = replace(template, marks=tuple(Mark(*mark) for mark in facts.marks))
    if not template.rendered:
        raise PromptError(
            f"{file} is damaged: {len(template.marks)} marks for {len(template.messages)} messages"
        )
    if (kind := TRAINED.get(facts.prompt.kind)) is not None:
        template = template.taking(kind_of(kind))
    if len(facts.lengths) != len(template.slots):
        raise PromptError(
            f"{file} gives the lengths {facts.lengths[:20]}, but its template {template.text!r} has {len(template.slots)} slots"
        )
    for number, one in enumerate(facts.probe):
        if missing := [name for name in template.fields if name not in one.fields]:
            raise PromptError(
                f"{file} is damaged: probe.{number}.fields lacks the template's field '{missing[0]}'"
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
    """No export holds a pickle: one that lies in a folder was put there, and is not looked at.

    Raises:
        PromptError: There is one.
    """
    with failing(folder, "read"):
        found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
    if found:
        raise PromptError(
            f"{folder} holds a pickle, {found[0]}, which could run code: exports hold safetensors only"
        )


def standing_in_row(
    prompt: Prompt, what: str
) -> HardPrompt | TextPrompt | SoftPrompt | PrefixPrompt:
    """The prompt, where it stands in a row: others are refused by formats that hold what stands there.

    Args:
        prompt: To be exported.
        what: What the format holds, for the message.

    Raises:
        ExportError: They are changed weights, alone or with vectors, or vectors that layers read beside the row.
    """
    if isinstance(prompt, TunedPrompt):
        raise ExportError(
            f"no {what} can stand for the changed weights that a tuned prompt has beside its vectors, which are made for these: "
            "export it as json"
        )
    if isinstance(prompt, Weights):
        raise ExportError(
            f"no {what} can stand for changed weights: export them as json, or low-rank ones as peft"
        )
    if isinstance(prompt, GatedPrompt):
        raise ExportError(
            f"no {what} can stand for a gated prompt, which layers read by a softmax of its own: export it as json, or as peft "
            "with one gate a layer"
        )
    return prompt


def check_room(lm: LanguageModel, above: int, below: int) -> None:
    """Refuse a prompt that leaves no room for its input.

    Args:
        lm: The model.
        above: Tokens of the prompt.
        below: Tokens of input and answer.

    Raises:
        PromptError: Together they are more than the model reads.
    """
    if lm.context is not None and above + below > lm.context:
        raise PromptError(
            f"a prompt of {above} tokens with an input of {below} is longer than the {lm.context} tokens that '{lm.name}' reads"
        )


def check_in_front(template: Template, what: str) -> None:
    """Refuse a prompt that does not stand in front of the whole input.

    Args:
        template: Of the prompt.
        what: What the format does, for the message.

    Raises:
        ExportError: A slot stands behind a field.
    """
    if template.fixed < len(template.slots):
        raise ExportError(
            f"{what}, but in the template {template.text!r} the input stands before a slot: export it as json or vllm, or as "
            "text if it is a hard prompt"
        )
