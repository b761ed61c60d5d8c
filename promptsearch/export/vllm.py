"""Requests for vLLM, which takes rows of embeddings in place of ids.

vLLM calls these rows `prompt_embeds`, and takes them with `--enable-prompt-embeds`. All tokens of a
row are handed over, so vectors may stand anywhere among them: before, behind or between the inputs.
Keys and values cannot be handed over, so prefixes are refused. vLLM generates from embeddings and
gives log-probabilities of what it generates; it refuses to echo embeddings. A text behind them is
scored token by token: each is the only one that vLLM may write behind those before it.

Format: `prompt_embeds.safetensors` with a tensor for each slot, `slot.0`, `slot.1`, ..., shape
`(length, width)`, and the template in the certificate. vLLM itself is not needed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.export.certificate import (
    CERTIFICATE,
    FORMAT,
    Certificate,
    check_held,
    check_room,
    told_last,
)
from promptsearch.export.certificate_json import read_json
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside
from promptsearch.models import LanguageModel
from promptsearch.models.endpoint.embeddings import Behind
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.tensors import read_tensors
from promptsearch.scoring.forward import embed
from promptsearch.scoring.layout import Tokens, lay_out_input, slots_of
from promptsearch.scoring.ready import fields_of
from promptsearch.tasks.fields import place_of
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

FILE = "prompt_embeds.safetensors"

#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
from promptsearch import LanguageModel
from promptsearch.export import vllm_requests
from vllm import LLM, SamplingParams

{base}
requests = vllm_requests(".", [{fields!r}], LanguageModel.load({own}))  # of this folder
llm = LLM(base, enable_prompt_embeds=True{rounded})
output = llm.generate(requests, SamplingParams({sampling}))[0]
print(output.outputs[0].text)
"""


def write_vllm(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `prompt_embeds.safetensors`.

    Args:
        saved: A prompt that fills slots.
        lm: The LM.
        folder: Where the file goes.

    Raises:
        ExportError: The prompt stands in no slot.
    """
    check_held(saved.prompt, "vllm")
    vectors = saved.prompt.parts.vectors
    with torch.no_grad():
        slots = [_embedded(lm, ids, vectors) for ids in slots_of(saved.template, lm, saved.prompt)]
    tensors = {f"slot.{i}": slot.detach().float().cpu().clone() for i, slot in enumerate(slots)}
    write_aside(folder / FILE, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def vllm_requests(
    folder: Path | str, rows: Iterable[Mapping[str, Any]], lm: LanguageModel
) -> list[dict[str, Tensor]]:
    """The requests that `vllm.LLM.generate` takes.

    Args:
        folder: An export of the format `vllm`.
        rows: Mappings from field name to value, each with all fields of the template.
        lm: The model that the prompt is for; its tokenizer and its embeddings are used.

    Returns:
        For each row `{"prompt_embeds": tensor}`, the tensor of shape `(tokens, width)`, float32 on
        the CPU.

    Raises:
        PromptError: The folder is no such export or is damaged, or a row lacks a field or leaves no
            room.
        ModelError: The prompt is for another model.
    """
    folder = Path(folder)
    certificate, _ = read_json(folder / CERTIFICATE, [FORMAT])
    lm = certificate.model(lm)
    slots = _read_slots(certificate.template, lm, folder)
    placed = ((row, place_of(row, f"input {number}")) for number, row in enumerate(rows, start=1))
    given = (fields_of(certificate.template, row, place) for row, place in placed)
    return [
        {"prompt_embeds": _row(certificate.template, lm, slots, fields).float().cpu()}
        for fields in given
    ]


def score_vllm(certificate: Certificate, lm: LanguageModel, folder: Path) -> list[float]:
    """The probe's losses through the model's own forward pass of a request's embeddings.

    The losses are in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is damaged, or is for a model of another width.
    """
    slots = _read_slots(certificate.template, lm, folder)

    def logits(example: Example, answer: Tokens) -> Tensor:
        row = torch.cat(
            [_row(certificate.template, lm, slots, example.fields), _embedded(lm, answer)]
        )
        found: Tensor = lm.model(inputs_embeds=row[None]).logits[0]
        return told_last(found, answer)

    return certificate.losses_by(lm, logits)


def ask_vllm(
    certificate: Certificate, lm: LanguageModel, folder: Path, served: ServedModel
) -> list[float]:
    """The probe's losses as a vLLM server gives them, in nats, shape `(probe,)`.

    There is a request for each token of each answer.

    Args:
        certificate: The certificate.
        lm: The model, loaded here: its tokenizer and its embeddings are used.
        folder: The export.
        served: The same model behind a server that was started with `--enable-prompt-embeds`.

    Raises:
        PromptError: The file is damaged, or is for a model of another width.
        EndpointError: The server takes no embeddings, or does not tell what was asked.
    """
    slots = _read_slots(certificate.template, lm, folder)
    behind = Behind(served.endpoint, lm.decode)

    def nats(example: Example, answer: Tokens) -> Tensor:
        rows = [_row(certificate.template, lm, slots, example.fields), _embedded(lm, answer)]
        row = torch.cat(rows).float().cpu()
        before = len(row) - len(answer)
        told = [behind.nats(row[: before + i], token) for i, token in enumerate(answer)]
        return torch.tensor(sum(told))

    return certificate.losses_of(lm, nats)


def _row(
    template: Template, lm: LanguageModel, slots: list[Tensor], fields: Mapping[str, Any]
) -> Tensor:
    """The embeddings of a row up to the answer, shape `(tokens, width)`."""
    filled = [(0,) * len(slot) for slot in slots]
    segments = lay_out_input(template, lm, fields, filled).segments
    parts = [_embedded(lm, segments[0])]
    for slot, segment in zip(slots, segments[1:], strict=True):
        parts += [slot, _embedded(lm, segment)]
    row = torch.cat(parts)
    check_room(lm, sum(map(len, slots)), len(row) - sum(map(len, slots)) + 1)
    return row


def _read_slots(template: Template, lm: LanguageModel, folder: Path) -> list[Tensor]:
    tensors = read_tensors(folder / FILE)
    names = [f"slot.{i}" for i in range(len(template.slots))]
    if sorted(tensors) != sorted(names):
        raise PromptError(
            f"{folder / FILE}: the template has {len(names)} slots, the file holds "
            f"{', '.join(sorted(tensors))}"
        )
    width = lm.embeddings.shape[1]
    for name in names:
        if tensors[name].ndim != 2 or tensors[name].shape[1] != width:
            found = tuple(tensors[name].shape)
            raise PromptError(
                f"{folder / FILE}: '{name}' has the shape {found}, '{lm.name}' takes (tokens, "
                f"{width})"
            )
    return [tensors[name].to(lm.device, lm.dtype) for name in names]


def _embedded(lm: LanguageModel, ids: Tokens, vectors: Tensor | None = None) -> Tensor:
    return embed(lm, torch.tensor(list(ids), dtype=torch.long, device=lm.device), vectors).detach()
