"""PEFT's folders of changed weights: LORA, IA3, LN_TUNING and BEFT.

This module says what their files hold, for writing and for reading. The tensors of each type stand
under the name of the module that they belong to:

* LORA has `lora_A` and `lora_B` of linear maps; the factor alpha / r is 1, since the second matrix
  contains it already;
* IA3 has `ia3_l` of linear maps: shape `(out, 1)` scales what comes out, `(1, in)` what goes in;
* LN_TUNING has copies of norms, each with all of its weights;
* BEFT has `beft_bias` of linear maps, shape `(1, out)`, which is added to the bias that a map has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from promptsearch.errors import ExportError, PromptError
from promptsearch.export.peft.config import (
    BeftConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    WeightsConfig,
)
from promptsearch.models import LanguageModel
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.weights import Weights

#: The tensors of a folder, by name, and what PEFT is told of them.
Held = tuple[dict[str, Tensor], dict[str, Any]]
#: What every name in a folder begins with.
_BEGIN = "base_model.model."
#: The name that PEFT gives to the copy of a norm.
_COPY = "ln_tuning_layers"


def weights_files(weights: Weights, lm: LanguageModel) -> Held:
    """The tensors of a PEFT folder, by name, and what its configuration says of them.

    Args:
        weights: Weights that one of the types holds.
        lm: The LM.

    Raises:
        ExportError: No type holds them.
    """
    own, given = lm.weights, weights.tensors
    parts = {name.rpartition(".")[2] for name in given}
    modules = sorted({name.rpartition(".")[0] for name in given})
    # Conv1D, GPT-2's linear map, holds its matrix transposed.
    turned = any(type(lm.model.get_submodule(name)).__name__ == "Conv1D" for name in modules)
    if parts == {"lora_A", "lora_B"}:
        tensors, config = _low_rank(given)
        config["fan_in_fan_out"] = turned
    elif parts and parts <= {"ia3_out", "ia3_in"}:
        tensors, config = _scales(given)
        config["fan_in_fan_out"] = turned
    elif modules and set(modules) <= set(own.norms):
        tensors, config = _norms(given, modules, own)
    elif parts == {"bias"} and set(modules) <= set(own.maps) and not turned:
        tensors, config = _biases(given, own)
    else:
        raise ExportError(
            "of weights, PEFT holds low-rank ones (lora), scales (ia3), norms (layernorm_tuning) "
            "and biases of linear maps (bitfit, in a model whose norms have none) exactly, and "
            "these are others: export them as json"
        )
    named = {_BEGIN + name: tensor.contiguous() for name, tensor in tensors.items()}
    return named, {**config, "target_modules": modules}


def read_weights(
    folder: Path, tensors: Mapping[str, Tensor], config: WeightsConfig, lm: LanguageModel
) -> Weights:
    """The weights in a PEFT folder.

    Args:
        folder: The folder, for messages.
        tensors: Tensor name -> tensor.
        config: The folder's options.
        lm: The model that it is for.

    Raises:
        PromptError: They are of another rank, are damaged, or belong to another model.
    """
    found: dict[str, Tensor] = {}
    if isinstance(config, LoraConfig):
        found = _read_low_rank(folder, tensors, config)
    else:
        for key, tensor in tensors.items():
            module, _, part = key.removeprefix(_BEGIN).rpartition(".")
            read = _READERS[type(config)](module, part, tensor, lm.weights)
            if read is None:
                raise PromptError(
                    f"{folder} holds {key[:200]} of shape {tuple(tensor.shape)}, which is no part "
                    f"of {config.peft_type}: it is damaged"
                )
            found |= read
    lm.weights.check(found)
    return Weights(found)


def _low_rank(given: Mapping[str, Tensor]) -> Held:
    ranks = {len(tensor) for name, tensor in given.items() if name.endswith(".lora_A")}
    if len(ranks) != 1:
        raise ExportError(
            f"a PEFT folder holds low-rank weights of one rank, and these have {sorted(ranks)}: "
            "export them as json"
        )
    (rank,) = ranks
    return {f"{name}.weight": tensor for name, tensor in given.items()}, {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "bias": "none",
        "lora_dropout": 0.0,
    }


def _read_low_rank(
    folder: Path, tensors: Mapping[str, Tensor], config: LoraConfig
) -> dict[str, Tensor]:
    """A and (alpha / r) B for each linear map."""
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    found = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_BEGIN).removesuffix(".weight")
        found[name] = scale * tensor.float() if name.endswith(".lora_B") else tensor
        if name.endswith(".lora_A") and tensor.shape[:1] != (config.r,):
            raise PromptError(
                f"{folder} says r = {config.r}, but '{name[:200]}' has the shape "
                f"{tuple(tensor.shape)}"
            )
    return found


def _scales(given: Mapping[str, Tensor]) -> Held:
    tensors, inner = {}, []
    for name, tensor in given.items():
        module, _, part = name.rpartition(".")
        tensors[f"{module}.ia3_l"] = tensor[None] if part == "ia3_in" else tensor[:, None]
        inner += [module] if part == "ia3_in" else []
    config = {"peft_type": "IA3", "feedforward_modules": inner, "init_ia3_weights": True}
    return tensors, config


def _read_scale(
    module: str, part: str, tensor: Tensor, own: ModelWeights
) -> dict[str, Tensor] | None:
    if part != "ia3_l" or tensor.ndim != 2 or 1 not in tensor.shape:
        return None
    return {f"{module}.ia3_{'in' if len(tensor) == 1 else 'out'}": tensor.flatten()}


def _norms(given: Mapping[str, Tensor], modules: list[str], own: ModelWeights) -> Held:
    """The norms as they are in the LM, with what is changed of them."""
    tensors = {}
    for name in own.below(modules):
        module, _, part = name.rpartition(".")
        tensors[f"{module}.{_COPY}.{part}"] = given.get(name, own.tensors[name].float().cpu())
    return tensors, {"peft_type": "LN_TUNING"}


def _read_norm(
    module: str, part: str, tensor: Tensor, own: ModelWeights
) -> dict[str, Tensor] | None:
    norm, _, copy = module.rpartition(".")
    return {f"{norm}.{part}": tensor} if copy == _COPY else None


def _biases(given: Mapping[str, Tensor], own: ModelWeights) -> Held:
    tensors = {}
    for name, tensor in given.items():
        beside = own.tensors[name].float().cpu() if name in own.tensors else 0.0
        tensors[f"{name.removesuffix('.bias')}.beft_bias"] = (tensor - beside)[None]
    return tensors, {"peft_type": "BEFT", "init_weights": True}


def _read_bias(
    module: str, part: str, tensor: Tensor, own: ModelWeights
) -> dict[str, Tensor] | None:
    if part != "beft_bias" or tensor.ndim != 2 or len(tensor) != 1:
        return None
    beside, bias = own.tensors.get(f"{module}.bias"), tensor[0].float()
    if beside is not None and beside.shape == bias.shape:
        bias = bias + beside.float().cpu()
    return {f"{module}.bias": bias}


#: A configuration -> the weights that a tensor of its folder stands for; None for none.
_READERS: dict[
    type[WeightsConfig], Callable[[str, str, Tensor, ModelWeights], dict[str, Tensor] | None]
] = {IA3Config: _read_scale, LNTuningConfig: _read_norm, BeftConfig: _read_bias}
