"""PEFT's CARTRIDGE: the keys and values of all that stands before the input, as PEFT holds them.

Where PREFIX_TUNING holds a prefix prompt, this holds what the format `kv` holds, whatever kind of
prompt it was: a hard, text or soft one is computed to keys and values, and the special tokens that
the tokenizer puts first are among them, so that inputs are encoded without these. Eyuboglu et al.
2025, "Cartridges", arXiv:2506.06266, train such keys and values to stand for a long text; PEFT goes
on with the training from a folder, and puts several one behind the other.

Format: `prompt_embeddings` in `adapter_model.safetensors`, one row a token, as of PREFIX_TUNING.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from promptsearch.errors import ExportError
from promptsearch.export.certificate import Certificate, check_room, told_last
from promptsearch.export.kv import below, keys_values_of
from promptsearch.export.peft.config import CONFIG
from promptsearch.export.peft.read import TENSOR, WEIGHTS, read_held
from promptsearch.export.peft.write import check_own, common, loaded_by_peft, logits_of, peft_of
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside, write_json
from promptsearch.models import LanguageModel
from promptsearch.scoring.layout import Tokens
from promptsearch.tasks.task import Example


def write_cartridge(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        saved: A prompt whose slots stand in front of the input.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: peft is not installed or has no CARTRIDGE, or the prompt cannot be held exactly
            (with the reason).
    """
    if not hasattr(peft_of(), "CartridgeConfig"):
        raise ExportError("this peft has no CARTRIDGE yet: pip install -U peft")
    rows = keys_values_of(saved, lm).flatten(1)
    write_aside(folder / WEIGHTS, safetensors.torch.save({TENSOR: rows}, metadata={"format": "pt"}))
    write_json(folder / CONFIG, _config(len(rows), lm))


def _config(length: int, lm: LanguageModel) -> dict[str, Any]:
    """What PEFT is told of a cartridge of so many tokens."""
    layers, _, heads, size = lm.prefix_shape
    return {
        "peft_type": "CARTRIDGE",
        "num_virtual_tokens": length,
        "num_transformer_submodules": 1,
        "token_dim": heads * size,  # the keys' width: with grouped queries, less than the model's
        "num_attention_heads": heads,
        "num_layers": layers,
        "num_frozen_tokens": 1,  # of those who train on, as the paper does
        **common(lm),
    }


def score_cartridge(certificate: Certificate, lm: LanguageModel, folder: Path) -> list[float]:
    """The probe's losses through peft's own forward pass, in nats, shape `(probe,)`.

    Raises:
        PromptError: The folder is damaged, or is for a model of another size.
        ExportError: peft is not installed.
    """
    prompt = read_held(folder, lm)  # its errors say what is wrong with the folder; peft's do not
    length = prompt.length or 0
    check_own(_config(length, lm), folder)
    model = loaded_by_peft(lm.model, folder)

    def logits(example: Example, answer: Tokens) -> Tensor:
        text = below(certificate.template, lm, example)
        check_room(lm, length, len(text) + len(answer))
        return told_last(logits_of(model, [*text, *answer], lm), answer)

    return certificate.losses_by(lm, logits)
