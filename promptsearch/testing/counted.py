"""What training a prompt takes, counted by torch: an oracle of prices that knows none of them.

The passes are those of transformers and PEFT, on tensors that have shapes and no numbers. PEFT
computes the queries of layers with a gated prompt twice, however long it is; so what a gated prompt
adds is the difference between one of twice its length and itself, beside a plain pass whose
gradient crosses the prompt's layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

#: The kinds of prompts that gradient descent finds, and low-rank weights.
Counted = Literal["soft", "prefix", "gated", "lora"]
#: The rank of low-rank weights.
RANK = 8


@dataclass(frozen=True)
class Passes:
    """The FLOPs of a loss and of its gradient."""

    forward: int
    backward: int


def shaped(layers: int = 30) -> Any:
    """A model of the sizes of SmolLM2-135M, all of whose tensors are empty.

    Args:
        layers: The number of its layers; its vocabulary is as many times smaller as they are fewer.
    """
    config = LlamaConfig(
        vocab_size=49_152 * layers // 30,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).requires_grad_(False)
    model.set_attn_implementation("eager")  # of products, all of which are counted
    return model


def plain(model: Any, rows: int, tokens: int, layers: int = 0) -> Passes:
    """The FLOPs of passes without a prompt.

    Args:
        model: The model, from `shaped`.
        rows: The number of rows.
        tokens: The tokens of each.
        layers: The layers from the top that a gradient crosses; 0: there is none.
    """
    if not layers:
        return _count(model, rows, tokens, gradient=False)
    block = model.model.layers[len(model.model.layers) - layers]

    def enter(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0].detach().requires_grad_(), *given[1:])

    with block.register_forward_pre_hook(enter):
        return _count(model, rows, tokens)


def trained(method: Counted, length: int, rows: int, tokens: int, layers: int = 30) -> Passes:
    """The FLOPs of a step of training.

    Args:
        method: The kind of prompt, or low-rank weights.
        length: Its length in tokens.
        rows: The examples of the step.
        tokens: The tokens of each, without the prompt's own.
        layers: The layers of the model. A gated prompt stands at 15 of 16 of them.
    """
    if method != "gated":
        return _count(_with_peft(method, length, layers), rows, tokens)
    base = plain(shaped(layers), rows, tokens, adapted(layers))
    once, twice = (
        _count(_with_peft(method, some, layers), rows, tokens) for some in (length, 2 * length)
    )
    return Passes(
        base.forward + twice.forward - once.forward, base.backward + twice.backward - once.backward
    )


def adapted(layers: int) -> int:
    """The layers of a gated prompt."""
    return max(1, layers * 15 // 16)


def _with_peft(method: Counted, length: int, layers: int) -> Any:
    import peft

    config: Any
    if method == "soft":
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    elif method == "prefix":
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    elif method == "gated":
        config = peft.AdaptionPromptConfig(
            task_type="CAUSAL_LM", adapter_len=length, adapter_layers=adapted(layers)
        )
    else:
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules=["q_proj", "v_proj"])
    model = shaped(layers)
    with torch.device("meta"):
        return peft.get_peft_model(model, config)


def _count(model: Any, rows: int, tokens: int, *, gradient: bool = True) -> Passes:
    ids = torch.ones(rows, tokens, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as forward:
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    with FlopCounterMode(display=False) as backward:
        if gradient:
            found.logits.sum().backward()
    return Passes(forward.get_total_flops(), backward.get_total_flops())
