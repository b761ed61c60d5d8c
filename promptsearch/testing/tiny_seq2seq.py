"""Tiny encoder-decoder models and their tokenizers, made on the spot: random weights.

Each architecture has traps of its own: T5's biases by relative position, products without a scale,
scaled states below the head and tokens of runs of spaces; mT5's gated layers and a head of its own;
BART's learned positions, norms behind its layers, numbers behind its head, and a decoder that
begins with the end of a text.
"""

from __future__ import annotations

import re
import string
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    MT5Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

from promptsearch.errors import UnknownName
from promptsearch.testing.tiny import CORPUS
from promptsearch.testing.tiny_masked import masked_tokenizer

Seq2SeqArchitecture = Literal["t5", "mt5", "bart"]
#: All of them.
SEQ2SEQ_ARCHITECTURES: tuple[Seq2SeqArchitecture, ...] = get_args(Seq2SeqArchitecture)

_SPARE, _HEAD = 8, 8  # rows of embeddings without a token; size of an attention head
_MARK = "▁"


def tiny_seq2seq(
    architecture: Seq2SeqArchitecture, *, seed: int = 0, layers: int = 2, width: int = 32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An encoder-decoder model with random weights, in evaluation mode and float32 on the CPU.

    Args:
        architecture: `t5`, `mt5` or `bart`.
        seed: Draws the weights; torch's global generator is left as it was.
        layers: The number of the encoder's layers, and of the decoder's.
        width: The width of the layers, a multiple of 16.

    Returns:
        The model and its tokenizer.

    Raises:
        UnknownName: There is no tiny form of this architecture.
    """
    if architecture not in SEQ2SEQ_ARCHITECTURES:
        raise UnknownName("architecture", architecture, SEQ2SEQ_ARCHITECTURES)
    tokenizer = _tokenizer(architecture)
    config = _config(architecture, layers, width, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            if architecture == "bart":
                model.get_buffer("final_logits_bias").normal_(std=0.5)
            else:  # smaller ones than usual: an untrained model then reads more than its last token
                model.get_parameter("shared.weight").mul_(0.1)
    return model.eval(), tokenizer


def _tokenizer(architecture: Seq2SeqArchitecture) -> PreTrainedTokenizerFast:
    if architecture == "bart":  # that of RoBERTa
        tokenizer = masked_tokenizer("roberta")
        tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
        return tokenizer
    own = Tokenizer(models.Unigram(_pieces(), unk_id=2))
    marks = pre_tokenizers.Metaspace(_MARK, prepend_scheme="always", split=True)
    own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    own.decoder = decoders.Metaspace(_MARK, prepend_scheme="always", split=True)
    own.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def _pieces() -> list[tuple[str, float]]:
    """A vocabulary like T5's: the corpus' words, and letters for all others, each with its score.

    It is written down, not trained: training gives pieces of one score in any order.
    """
    words = re.findall(r"[a-zA-Z]+", CORPUS)
    known = {_MARK + word: -2.0 - i / 100 for i, word in enumerate(dict.fromkeys(words))}
    letters = string.ascii_letters + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return [*special, *known.items(), *((letter, -9.0) for letter in (_MARK, *letters))]


def _config(
    architecture: Seq2SeqArchitecture, layers: int, width: int, tokenizer: PreTrainedTokenizerFast
) -> PretrainedConfig:
    """The smallest form of the architecture that keeps its traps."""
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer) + _SPARE,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "d_model": width,
    }
    heads = width // _HEAD
    if architecture == "bart":
        common["forced_bos_token_id"] = tokenizer.bos_token_id
        return BartConfig(
            **common,
            bos_token_id=tokenizer.bos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=2 * width,
            decoder_ffn_dim=2 * width,
            max_position_embeddings=256,
            scale_embedding=True,
            init_std=0.2,
        )
    kind = T5Config if architecture == "t5" else MT5Config
    common["decoder_start_token_id"] = tokenizer.pad_token_id
    common["tie_word_embeddings"] = architecture == "t5"
    return kind(
        **common,
        d_kv=_HEAD,
        d_ff=2 * width,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj="relu" if architecture == "t5" else "gated-gelu",
        initializer_factor=1.0,
    )
