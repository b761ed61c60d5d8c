"""Prompts out of PEFT's folders, whoever wrote them.

PROMPT_TUNING and P_TUNING give vectors, PREFIX_TUNING a prefix, ADAPTION_PROMPT a gated prompt, LORA weights. PEFT stores what
its encoders put out, never the encoders, so a prompt is all that there is. It belongs in front of the whole row, or beside it:
under `Template.taking` its kind, vectors under a template whose one slot comes first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.export.adaption import read_adaption
from promptsearch.model import LanguageModel
from promptsearch.prompt import GatedPrompt, PrefixPrompt, SoftPrompt, Weights

#: Where PEFT keeps the numbers, under which name, and what they are.
WEIGHTS, TENSOR, CONFIG = "adapter_model.safetensors", "prompt_embeddings", "adapter_config.json"
_VECTORS = ("PROMPT_TUNING", "P_TUNING")
#: Options of LORA that compute something else, with the values that do not. Beside the last one, PEFT imports the module that
#: `megatron_core` names, whoever wrote it.
_PLAIN: dict[str, tuple[Any, ...]] = {
    **{"use_dora": (False,), "bias": ("none",), "rank_pattern": ({},), "alpha_pattern": ({},), "lora_bias": (False,)},
    "megatron_config": (None,),
}


def read_peft(folder: Path | str, lm: LanguageModel) -> SoftPrompt | PrefixPrompt | GatedPrompt | Weights:
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
        tensors = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        if kind == "LORA":
            return _low_rank(tensors, config, lm)
        rows = None if kind == "ADAPTION_PROMPT" else tensors[TENSOR]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise PromptError(f"{folder} is no PEFT folder of a prompt, or is damaged: {error!r}") from error
    if rows is None:
        return read_adaption(folder, config, tensors, lm)
    if kind not in (*_VECTORS, "PREFIX_TUNING"):
        raise PromptError(
            f"{folder} is of the type {kind}; expected {', '.join(_VECTORS)}, PREFIX_TUNING, ADAPTION_PROMPT or LORA"
        )
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


def _low_rank(tensors: Mapping[str, Tensor], config: Mapping[str, Any], lm: LanguageModel) -> Weights:
    """A and (alpha / r) B of each linear map.

    Raises:
        PromptError: It does more than add these, or belongs to another model.
    """
    for option, plain in _PLAIN.items():
        if (value := config.get(option)) and value not in plain:
            raise PromptError(f"this LORA folder has {option} = {value!r}, which is not known here; expected {plain[0]!r}")
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    found = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.").removesuffix(".weight")
        found[name] = scale * tensor.float() if name.endswith(".lora_B") else tensor
    lm.weights.check(found)
    return Weights(found)
