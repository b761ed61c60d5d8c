"""Keys and values: any prompt in front of the input, compiled to a prefix of the model's cache.

A causal LM computes the keys and values of a prompt in front of the input from the prompt alone, so
they can be computed once. Hard, text and soft prompts become a prefix; a prefix prompt takes in the
special tokens below it. In the code, these keys and values are the row's *trunk*.

Format: one tensor `keys_values` in `keys_values.safetensors`, float32, shape `(layers, 2, key
heads, tokens, size of a head)`: keys as they enter the attention, at the positions 0, 1, ..., then
values. The input is encoded without special tokens and goes on at position `tokens`.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import ExportError, PromptError
from promptsearch.export.certificate import (
    Certificate,
    check_all_layers,
    check_held,
    check_in_front,
    check_room,
    told_last,
)
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside
from promptsearch.models import LanguageModel
from promptsearch.prompts.tensors import read_tensors
from promptsearch.scoring.layout import Tokens, lay_out_input, leading
from promptsearch.scoring.ready import compile_prompts
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

FILE, TENSOR = "keys_values.safetensors", "keys_values"
_DIMENSIONS = ("layers", "keys and values", "key heads", "tokens", "size of a head")

#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
from safetensors.torch import load_file
from transformers import DynamicCache

keys_values = load_file("keys_values.safetensors")["keys_values"]  # (layers, 2, key \
heads, tokens, size of a head)


def prefix(rows=1):  # the model writes into its cache: a new one for each call
    layers = keys_values[:, :, None].expand(-1, -1, rows, -1, -1, -1)
    return DynamicCache([(keys, values) for keys, values in layers], config=model.config)


def logits(ids):
    return model(input_ids=torch.tensor([ids]), past_key_values=prefix()).logits[0]


def generate(ids, **options):
    row = torch.tensor([[0] * keys_values.shape[3] + ids])  # `generate` passes over as \
many ids as the cache holds
    mask, cache = torch.ones_like(row), prefix(options.get("num_beams", 1))
    made = model.generate(input_ids=row, attention_mask=mask, past_key_values=cache, **options)
    return made[0, row.shape[1] :]
"""


def write_kv(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `keys_values.safetensors`.

    Args:
        saved: A prompt whose slots stand in front of the input.
        lm: The LM.
        folder: Where the file goes.

    Raises:
        ExportError: The prompt cannot be held exactly (with the reason).
        ModelError: The layers of the model have keys of different sizes, or its rows cannot go on
            below keys and values.
    """
    numbers = keys_values_of(saved, lm).permute(1, 2, 3, 0, 4).contiguous()
    write_aside(folder / FILE, safetensors.torch.save({TENSOR: numbers}, metadata={"format": "pt"}))


def keys_values_of(saved: SavedPrompt, lm: LanguageModel) -> Tensor:
    """The keys and values of all that stands before the input, in float32 on the CPU.

    Args:
        saved: A prompt whose slots stand in front of the input.
        lm: The LM.

    Returns:
        Shape `(tokens, layers, 2, key heads, size of a head)`.

    Raises:
        ExportError: The prompt cannot be held exactly (with the reason).
        ModelError: The layers of the model have keys of different sizes, or its rows cannot go on
            below keys and values.
    """
    check_held(saved.prompt, "kv")
    check_in_front(saved.template, "keys and values are those of a row's first tokens")
    if not saved.template.segments[-1]:
        raise ExportError(
            "nothing stands between prompt and answer, which a prefix cannot predict: export it as "
            "json or vllm"
        )
    shape = lm.prefix_shape
    check_all_layers(saved.prompt, shape[0], "a cache")
    (compiled,) = compile_prompts(lm, [(saved.prompt, saved.template)]).prompts
    if not len(compiled.trunk):
        raise ExportError(
            "the prompt is empty, and an empty cache is none: export it as json, vllm or text"
        )
    cache: Tensor = compiled.trunk.on("cpu").unflatten(1, shape).float().contiguous()
    return cache


def score_kv(certificate: Certificate, lm: LanguageModel, folder: Path) -> list[float]:
    """The probe's losses through the model's own forward pass and a `DynamicCache`.

    The losses are in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is damaged, is for a model of another size, or leaves no room for the
            input.
    """
    keys_values = read_kv(folder, lm)

    def logits(example: Example, answer: Tokens) -> Tensor:
        text = below(certificate.template, lm, example)
        check_room(lm, keys_values.shape[3], len(text) + len(answer))
        ids = torch.tensor([[*text, *answer]], device=lm.device)
        found: Tensor = lm.model(
            input_ids=ids, past_key_values=lm.passes.cache(keys_values)
        ).logits[0]
        return told_last(found, answer)

    return certificate.losses_by(lm, logits)


def below(template: Template, lm: LanguageModel, example: Example) -> Tokens:
    """The ids of a row below the prefix; the prefix has taken in the special tokens."""
    segments = lay_out_input(template, lm, example.fields).segments
    return segments[-1][len(leading(template, lm)) * template.apart :]


def read_kv(folder: Path, lm: LanguageModel) -> Tensor:
    """The keys and values in a folder, shape `(layers, 2, key heads, tokens, size of a head)`.

    Raises:
        PromptError: They are damaged, or for a model of another size; the message names the
            dimension.
    """
    tensors = read_tensors(folder / FILE)
    if TENSOR not in tensors or tensors[TENSOR].ndim != len(_DIMENSIONS):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise PromptError(
            f"{folder / FILE}: expected a tensor '{TENSOR}' of shape ({', '.join(_DIMENSIONS)}), "
            f"found {shapes}"
        )
    layers, two, heads, size = lm.prefix_shape
    found: Tensor = tensors[TENSOR]
    for name, ours, theirs in zip(
        _DIMENSIONS, found.shape, (layers, two, heads, found.shape[3], size), strict=True
    ):
        if ours != theirs:
            raise PromptError(
                f"{folder / FILE} is for a model with {name} {ours}; '{lm.name}' has {theirs}"
            )
    return found
