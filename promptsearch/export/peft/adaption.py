"""PEFT's ADAPTION_PROMPT, which holds gated prompts with one gate a layer.

This module says what its files hold, for writing and for reading. For each adapted layer the
tensors are `adaption_prompt`, shape `(1, length, width)`, and `adaption_gate`, shape `(1,)`, under
the name of the layer's attention. PEFT's forward pass is that of `model/gated.py`: queries are
turned and keys are not, the prompt has a softmax of its own, and the gate is used as it is. In
GPT-2 the prompt's part is added behind the output projection, in Llama and Mistral before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ExportError, PromptError
from promptsearch.export.peft.config import AdaptionConfig
from promptsearch.models import LanguageModel
from promptsearch.prompts.gated import GatedPrompt

#: The model types whose attention PEFT adapts.
_ADAPTED = ("llama", "mistral", "gpt2")
_NAME = re.compile(r"\.(\d{1,6})\.(\w+)\.adaption_(prompt|gate)\Z", re.ASCII)


def adaption_files(
    prompt: GatedPrompt, lm: LanguageModel
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a PEFT folder, by name, and what its configuration says of them.

    Args:
        prompt: A gated prompt with one gate a layer.
        lm: The LM.

    Raises:
        ExportError: PEFT has no such gates, or does not adapt this model as it should.
    """
    if prompt.gates.shape[1] != 1:
        raise ExportError(
            "this prompt has a gate for each head, and PEFT's ADAPTION_PROMPT holds one for each "
            "layer: export it as json, or train one with `gate: layer`"
        )
    if fault := _difference(lm):
        raise ExportError(
            f"PEFT's ADAPTION_PROMPT does not hold this prompt exactly: {fault}. Export it as json"
        )
    names = {module: name for name, module in lm.model.named_modules()}
    attentions = [names[attention] for attention in lm.passes.layers.attentions][
        -len(prompt.gates) :
    ]
    tensors = {}
    for name, vectors, gate in zip(attentions, prompt.vectors.unbind(1), prompt.gates, strict=True):
        tensors[f"base_model.model.{name}.adaption_prompt"] = vectors[None].contiguous()
        tensors[f"base_model.model.{name}.adaption_gate"] = gate.clone()
    return tensors, {
        "peft_type": "ADAPTION_PROMPT",
        "adapter_len": len(prompt.vectors),
        "adapter_layers": len(prompt.gates),
        "target_modules": attentions[-1].rpartition(".")[2],
    }


def read_adaption(
    folder: Path, config: AdaptionConfig, tensors: Mapping[str, Tensor], lm: LanguageModel
) -> GatedPrompt:
    """The prompt of a PEFT folder.

    Args:
        folder: The folder, for messages.
        config: The folder's options.
        tensors: Tensor name -> tensor.
        lm: The model that it is for.

    Raises:
        PromptError: The tensors are not those of the model's top-most layers, or they mean
            something else to PEFT.
    """
    if fault := _difference(lm):
        raise PromptError(
            f"{folder} means something else to PEFT than to '{lm.name}' here: {fault}"
        )
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.search(name)
        if match is None:
            raise PromptError(
                f"{folder} holds {name[:200]}, which is no part of an adaption prompt: it is "
                "damaged"
            )
        found.setdefault(int(match[1]), {})[match[3]] = tensor
    length, count = config.adapter_len, config.adapter_layers
    most, _, width = lm.gated_shape
    if sorted(found) != list(range(most - len(found), most)) or len(found) != count:
        raise PromptError(
            f"{folder} adapts the layers {sorted(found)}, and says {count} of them; expected the "
            f"last ones of the {most} layers of '{lm.name}'"
        )
    for layer, parts in found.items():
        shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
        if shapes != {"prompt": (1, length, width), "gate": (1,)}:
            raise PromptError(
                f"{folder} has {shapes} at layer {layer}; expected a prompt of shape (1, {length}, "
                f"{width}), {length} vectors of the width of '{lm.name}', and a gate of shape (1,)"
            )
    layers = [found[layer] for layer in sorted(found)]
    return GatedPrompt(
        torch.cat([parts["prompt"] for parts in layers]).transpose(0, 1),
        torch.stack([p["gate"] for p in layers]),
    )


def _difference(lm: LanguageModel) -> str | None:
    """How PEFT's forward pass differs from `model/gated.py` on this model; None if it does not."""
    kind, layers = lm.model.config.model_type, lm.passes.layers
    if kind not in _ADAPTED:
        return f"PEFT adapts the attention of {', '.join(_ADAPTED)} only, and this is a {kind}"
    for attention, (count, size) in zip(layers.attentions, layers.sizes, strict=True):
        part: Any = attention
        if part.scaling != size**-0.5:
            return f"PEFT scales products by 1 / sqrt({size}), this model by {part.scaling:.3g}"
        if layers.fused:
            continue
        if part.o_proj.bias is not None:
            return "PEFT adds the bias of the output projection a second time"
        if layers.heads // max(1, part.k_proj.in_features // part.k_proj.out_features) != count:
            return (
                f"PEFT takes heads for the width over their size, and here {layers.heads} of "
                f"{size} are not the width"
            )
    return None
