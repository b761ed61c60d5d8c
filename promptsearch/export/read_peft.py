"""Prompts out of PEFT's folders, whoever wrote them: PROMPT_TUNING and P_TUNING give vectors, PREFIX_TUNING a prefix.

PEFT stores what its encoders put out, never the encoders, so a prompt is all that there is. It belongs in front of the whole
row: a prefix under `Template.in_front`, vectors under a template whose one slot comes first.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import safetensors.torch

from promptsearch.errors import PromptError
from promptsearch.model import LanguageModel
from promptsearch.prompt import PrefixPrompt, SoftPrompt

#: Where PEFT keeps the numbers, under which name, and what they are.
WEIGHTS, TENSOR, CONFIG = "adapter_model.safetensors", "prompt_embeddings", "adapter_config.json"
_VECTORS = ("PROMPT_TUNING", "P_TUNING")


def read_peft(folder: Path | str, lm: LanguageModel) -> SoftPrompt | PrefixPrompt:
    """The prompt in a PEFT folder.

    Args:
        folder: With `adapter_config.json` and `adapter_model.safetensors`.
        lm: The model that it is for.

    Raises:
        PromptError: The folder is no such folder, is damaged or pickled, is of another type, or for a model of other size.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise PromptError(f"{folder} holds a pickle, adapter_model.bin, which could run code: let peft save it as safetensors")
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        kind, layers = config["peft_type"], config.get("num_layers")
        rows = safetensors.torch.load((folder / WEIGHTS).read_bytes())[TENSOR]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise PromptError(f"{folder} is no PEFT folder of a prompt, or is damaged: {error!r}") from error
    if kind not in (*_VECTORS, "PREFIX_TUNING"):
        raise PromptError(f"{folder} is of the type {kind}; expected {', '.join(_VECTORS)} or PREFIX_TUNING")
    count = config.get("num_virtual_tokens")
    if rows.ndim != 2 or count != len(rows):
        raise PromptError(f"{folder} holds numbers of shape {tuple(rows.shape)} for {count} virtual tokens: it is damaged")
    if lm.context is not None and count >= lm.context:
        raise PromptError(f"{folder} has {count} virtual tokens, but '{lm.name}' reads at most {lm.context} with the input")
    shape = lm.embeddings.shape[1:] if kind in _VECTORS else lm.prefix_shape
    if kind == "PREFIX_TUNING" and layers not in (None, shape[0]):
        raise PromptError(f"{folder} is for a model of {layers} layers; '{lm.name}' has {shape[0]}")
    if rows.shape[1] != math.prod(shape):
        expected = " x ".join(map(str, shape))
        raise PromptError(f"{folder} has {rows.shape[1]} numbers a token; '{lm.name}' takes {expected} = {math.prod(shape)}")
    return SoftPrompt(rows) if kind in _VECTORS else PrefixPrompt(rows.unflatten(1, shape))
