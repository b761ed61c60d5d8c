"""PEFT folders: PREFIX_TUNING for prefixes, PROMPT_TUNING for other prompts that stand in front of the input.

PEFT puts its virtual tokens before the whole text, so only such prompts can be held exactly. Format: `prompt_embeddings` in
`adapter_model.safetensors`, one row a virtual token. A row of PROMPT_TUNING is a vector, shape `(virtual tokens, width)`;
anchors among the slots are folded in as rows of their embeddings, hard and text prompts likewise. A row of PREFIX_TUNING is
that of a `PrefixPrompt`, flat: keys as they enter the attention at the positions 0, 1, ..., then values, layer by layer.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import ExportError
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside, write_json
from promptsearch.model import LanguageModel
from promptsearch.prompt import PrefixPrompt
from promptsearch.scoring.answers import choice_scores
from promptsearch.scoring.layout import lay_out
from promptsearch.task import Example

#: Where PEFT keeps the numbers, under which name, and what they are.
WEIGHTS, TENSOR, CONFIG = "adapter_model.safetensors", "prompt_embeddings", "adapter_config.json"


def write_peft(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, load them through peft, and score the probe anew.

    Args:
        saved: A prefix, or any prompt whose slots stand in front of the input.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: peft is not installed, or the prompt cannot be held exactly (with the reason).
    """
    try:
        import peft
    except ImportError as error:
        raise ExportError("the format peft needs the package peft: pip install 'promptsearch-kit[peft]'") from error
    if isinstance(saved.prompt, PrefixPrompt):
        rows, special = saved.prompt.rows.flatten(1), _prefix_config(lm)
    else:
        rows = front_rows(saved, lm)
        special = _prompt_config(lm, rows)
    write_aside(folder / WEIGHTS, safetensors.torch.save({TENSOR: rows.contiguous()}, metadata={"format": "pt"}))
    common = {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lm.name,
        "revision": None,
        "inference_mode": True,
        "num_virtual_tokens": len(rows),
        "num_transformer_submodules": 1,
        "modules_to_save": None,
        "auto_mapping": None,
        "peft_version": peft.__version__,
    }
    write_json(folder / CONFIG, special | common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers; nothing that a user could do
        model = peft.PeftModel.from_pretrained(lm.model, str(folder)).eval()
    saved.check([_loss(saved, lm, model, example) for example in saved.probe])


def _prompt_config(lm: LanguageModel, rows: Tensor) -> dict[str, Any]:
    config = lm.model.config
    return {
        "peft_type": "PROMPT_TUNING",
        "token_dim": rows.shape[1],
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
        "tokenizer_kwargs": None,
    }


def _prefix_config(lm: LanguageModel) -> dict[str, Any]:
    layers, _, heads, size = lm.prefix_shape
    return {
        "peft_type": "PREFIX_TUNING",
        "token_dim": heads * size,  # of the keys: with grouped queries, less than the model's width
        "num_attention_heads": heads,
        "num_layers": layers,
        "encoder_hidden_size": heads * size,
        "prefix_projection": False,  # whatever made the rows is dropped
    }


def front_rows(saved: SavedPrompt, lm: LanguageModel) -> Tensor:
    """All that stands before the input, as embedding rows, float32, shape `(tokens, width)`.

    Raises:
        ExportError: Something of the input, or a special token of the tokenizer, stands before the last slot.
    """
    template = saved.template
    fields = [s for s in template.segments[:-1] if "{" in s.replace("{{", "")]
    if fields:
        raise ExportError(
            f"PEFT puts a prompt in front of the whole text, but in the template {template.text!r} the input stands before a "
            "slot: export it as json, or as text if it is a hard prompt"
        )
    if lm.lead:
        raise ExportError(
            f"PEFT puts a prompt before the special tokens {lm.decode(lm.lead)!r} that this tokenizer puts first, so the model "
            "would read another order: export it as json"
        )
    whole = saved.embedded(lm, saved.probe[0])
    rows = whole[: len(whole) - len(lay_out(template, lm, saved.probe[0], None).segments[-1])]
    if not len(rows):
        raise ExportError("the prompt is empty: PEFT needs at least one virtual token")
    return rows.detach().float().cpu().contiguous()


def _loss(saved: SavedPrompt, lm: LanguageModel, model: torch.nn.Module, example: Example) -> float:
    """The example's loss through peft's own forward, in nats."""
    layout = lay_out(saved.template, lm, example, saved.choices)
    text = layout.segments[-1]
    sums = []
    for answer in layout.answers if saved.choices is not None else layout.answers[:1]:
        ids = torch.tensor([[*text, *answer]], device=lm.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0].float()
        # peft returns logits for the virtual tokens of PROMPT_TUNING too: count from the end.
        nats = logits[-len(answer) - 1 : -1].log_softmax(-1).gather(-1, ids[0, -len(answer) :, None])
        sums.append(nats.sum())
    if saved.choices is None:
        return -float(sums[0])
    losses, _, _ = choice_scores(torch.stack(sums)[None], torch.tensor([example.choice]))
    return float(np.asarray(losses)[0])
