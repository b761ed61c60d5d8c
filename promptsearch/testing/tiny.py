"""Tiny language models and a tokenizer, made on the spot: real architectures, random weights.

Every architecture has traps of its own that a scoring engine must get right: GPT-2 has learned
positions, Llama grouped keys and values, Gemma 3 a beginning-of-text token, scaled embeddings,
sliding windows and its own head size, Qwen 3 normalised queries and keys. All of them have more
embeddings than their tokenizer has tokens, as real models do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from promptsearch.errors import UnknownName

Architecture = Literal["llama", "gpt2", "gemma3", "qwen3"]
#: All of them.
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

#: What the tokenizers are trained on.
CORPUS = (
    "The capital of France is Paris. The capital of Germany is Berlin. The capital of "
    "Italy is Rome. The capital of\n"
    "Spain is Madrid. The capital of Japan is Tokyo. A good movie. A bad movie. It was "
    "good. It was bad. It was great. It was terrible.\n"
    "This film is very good and the story is funny. This film is very bad and the story is "
    "boring. I like the movie. I hate the movie.\n"
    "Question: Is this review positive or negative? Answer: yes or no. The review is "
    "positive. The review is negative. What is the\n"
    "capital city of this country? Answer with one word. Write the best answer. The "
    "sentence and the text are about a place."
)

#: Tokens of their own, as are most words of the corpus with the space before them.
WORDS = (
    " The",
    " the",
    " capital",
    " of",
    " is",
    " Paris",
    " Berlin",
    " good",
    " bad",
    " movie",
    " It",
    " was",
)

_END, _BEGIN, _PAD = "<|end|>", "<|begin|>", "<|pad|>"
_CHAT = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_VOCABULARY, _HEAD = 512, 8  # rows of embeddings; size of an attention head


def tiny_model(
    architecture: Architecture, *, seed: int = 0, layers: int = 2, width: int = 32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model with random weights, in evaluation mode and float32 on the CPU, and its tokenizer.

    Args:
        architecture: `llama`, `gpt2`, `gemma3` or `qwen3`.
        seed: Draws the weights; torch's global generator is left as it was.
        layers: The number of transformer layers.
        width: The width of the embeddings, a multiple of 16.

    Returns:
        The model, and a tokenizer as of `tiny_tokenizer`, which begins texts with a token of its
        own for `gemma3` only.

    Raises:
        UnknownName: There is no tiny form of this architecture.
    """
    tokenizer = tiny_tokenizer(begin=architecture == "gemma3")
    config = _config(architecture, layers, width, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval(), tokenizer


def tiny_tokenizer(*, begin: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with GPT-2's splitting, trained on a few sentences.

    Any text comes back from its tokens as it was.

    Args:
        begin: Whether texts begin with a token of its own, as Gemma's and Llama's do.
    """
    tokenizer = byte_pairs([_END, _BEGIN, _PAD, *_ROLES], _VOCABULARY)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{_BEGIN} $A",
            pair=f"{_BEGIN} $A $B",
            special_tokens=[(_BEGIN, tokenizer.token_to_id(_BEGIN))],
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_BEGIN, eos_token=_END, pad_token=_PAD
    )
    wrapped.chat_template = _CHAT
    return wrapped


def byte_pairs(special: Sequence[str], size: int) -> Tokenizer:
    """A tokenizer as GPT-2's, of pairs of bytes that the corpus has most often.

    Args:
        special: The special tokens, which have the first ids.
        size: The number of tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The listed words most often, so that they become tokens first; twice the corpus, since a pair
    # must occur twice.
    tokenizer.train_from_iterator([*WORDS * 10, CORPUS, CORPUS], trainer)
    return tokenizer


def _config(
    architecture: Architecture, layers: int, width: int, tokenizer: PreTrainedTokenizerFast
) -> PretrainedConfig:
    """The smallest form of the architecture that keeps its traps."""
    heads = width // _HEAD
    common = {
        "vocab_size": _VOCABULARY,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Ten times as large as usual: an untrained model then still tells prompts apart.
        "initializer_range": 0.2,
    }
    if architecture == "gpt2":
        return GPT2Config(**common, n_positions=512, n_embd=width, n_layer=layers, n_head=heads)
    shared = common | {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 512,
    }
    if architecture == "llama":
        return LlamaConfig(**shared)
    if architecture == "qwen3":
        return Qwen3Config(**shared, head_dim=_HEAD)
    if architecture == "gemma3":
        kinds = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
        return Gemma3TextConfig(
            **shared,
            head_dim=2 * _HEAD,
            query_pre_attn_scalar=2 * _HEAD,
            sliding_window=16,
            layer_types=kinds,
        )
    raise UnknownName("architecture", architecture, get_args(Architecture))
