"""The certificate of every export: all that its scores depend on, and a probe to check copies.

The probe is a few examples of the select split with their losses in float32: minus the
log-probability of the right answer, among the answers to choose from or as text. In a folder of any
format, `certificate.json` holds the same as the `prompt.json` of the library's own format, which is
its own certificate. The prompt's numbers lie beside it, in the form that the format wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ExportError, ModelError, PromptError
from promptsearch.export.schema import ModelFacts
from promptsearch.export.tolerance import Distance, largest_distance, scored
from promptsearch.files import failing
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.answer_ids import Tokens, answer_ids, options_of
from promptsearch.scoring.answers import choice_scores, exact, token_nats
from promptsearch.scoring.scorer import loaded
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.normalise import Normalise, answer_lengths
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

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
        choices: The answers to choose from; None where they differ by row, and for text answers.
        options: The field of a row that holds its own answers to choose from; None where there is
            none.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        decoding: How text answers are generated.
        about: Everything else in the file: model, task, strategy, losses.
        probe: Examples with known losses.
        losses: The losses of these examples, in nats, shape `(probe,)`.
    """

    template: Template
    choices: tuple[str, ...] | None
    options: str | None = None
    normalise: Normalise = "none"
    decoding: Decoding = Decoding()
    about: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[Example, ...] = ()
    losses: tuple[float, ...] = ()

    @property
    def text(self) -> bool:
        """Whether answers are text; else one is chosen."""
        return self.choices is None and self.options is None

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
                tokenizer; or none is given, and the prompt does not say which one it is for.
        """
        told = self.about.get("model", {})
        facts = ModelFacts.model_validate(told)
        if given is not None:
            found = given
        elif facts.served is not None:
            found = ServedModel.of(told, key)
        elif facts.source is not None:
            found = LanguageModel.load(facts.source)
        else:
            raise ModelError("this prompt does not say which model it is for: hand the model over")
        lm = found.to(torch.float32)
        for fact in ("width", "layers", "hash", "tokenizer_hash"):
            wanted, has = getattr(facts, fact), lm.facts.get(fact)
            if wanted is not None and wanted != has:
                named = f"the model '{facts.name}'" if facts.name else "a model"
                raise ModelError(
                    f"this prompt was found for {named} with {fact} {wanted}; '{lm.name}' has "
                    f"{has}. A prompt belongs to the weights that it was searched on."
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
        rows = [
            scored(lm, self.template, example, self.choices, self.normalise)
            for example in self.probe
        ]
        return largest_distance(lm, rows, self.losses, losses)

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
            logits: A function from `(example, answer's ids)` to the logits that tell the answer's
                tokens, shape `(answer, vocabulary)`.

        Returns:
            Nats, shape `(probe,)`.
        """

        def nats(example: Example, answer: Tokens) -> Tensor:
            with torch.inference_mode():
                rows = logits(example, answer).float()
                places = torch.arange(len(answer), device=rows.device)
                return token_nats(rows, places, torch.tensor(answer, device=rows.device)).sum()

        return self.losses_of(lm, nats)

    def losses_of(
        self, lm: LanguageModel, nats: Callable[[Example, Tokens], Tensor]
    ) -> list[float]:
        """The probe's losses by how probable its answers are, in nats, shape `(probe,)`.

        Args:
            lm: The model whose tokenizer encodes the answers.
            nats: A function from `(example, answer's ids)` to the log-probability of the answer
                behind the example, in nats, shape `()`.
        """
        return [self._loss(lm, example, nats) for example in self.probe]

    def _loss(
        self, lm: LanguageModel, example: Example, nats: Callable[[Example, Tokens], Tensor]
    ) -> float:
        answers = answer_ids(self.template, lm, example, self.choices)
        table = torch.stack([nats(example, answer) for answer in answers])
        if (options := options_of(example, self.choices)) is None:
            return -float(table.mean())
        if self.normalise != "none":
            lengths = answer_lengths(self.normalise, self.template, options, lm.count_answer)
            table = exact(table) / torch.tensor(lengths, dtype=torch.float64)
        losses, _, _ = choice_scores(
            table[None], torch.tensor([example.choice], device=table.device)
        )
        return float(losses[0])


def told_last(logits: Tensor, answer: Tokens) -> Tensor:
    """The logits that tell an answer which ends its row: those of its tokens but the last one.

    Args:
        logits: The logits of a row, shape `(at least answer + 1, vocabulary)`.
        answer: The ids of the answer.
    """
    return logits[-len(answer) - 1 : -1]


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


def check_all_layers(prompt: Prompt, layers: int, to: str) -> None:
    """Refuse a prefix of some layers only: no number stands for a key that is not there.

    Args:
        prompt: The prompt to be exported.
        layers: The number of the model's layers.
        to: What holds keys and values of all of them.

    Raises:
        ExportError: It is such a prefix.
    """
    given = prompt.parts.keys_values
    if given is not None and given.shape[1] < layers:
        raise ExportError(
            f"{to} holds keys and values of all {layers} layers, and this prefix stands in the top "
            f"{given.shape[1]} only: export it as json"
        )


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
