"""Tiny masked language models and their tokenizers, made on the spot: random weights.

Each architecture has traps of its own: BERT's token types and words without spaces, RoBERTa's
positions that begin behind that of padding, ALBERT's layers that share their weights and its
narrower embeddings, ModernBERT's turned keys and layers that see their neighbours only, ConvBERT's
convolutions, which take in whatever lies beside a token.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from tokenizers import processors
from transformers import (
    AddedToken,
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    ConvBertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from promptsearch.errors import UnknownName
from promptsearch.testing.tiny import byte_pairs
from promptsearch.testing.word_pieces import unigram, wordpiece

MaskedArchitecture = Literal["bert", "roberta", "albert", "modernbert", "convbert"]
#: All of them.
MASKED_ARCHITECTURES: tuple[MaskedArchitecture, ...] = get_args(MaskedArchitecture)
#: Those whose attention alone looks beyond a token: rows of any lengths go together, and prefixes
#: stand above them.
PACKED_ARCHITECTURES: tuple[MaskedArchitecture, ...] = MASKED_ARCHITECTURES[:-1]

_VOCABULARY, _HEAD = 480, 8  # rows of embeddings; size of an attention head


def tiny_masked(
    architecture: MaskedArchitecture, *, seed: int = 0, layers: int = 2, width: int = 32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A masked model with random weights, in evaluation mode and float32 on the CPU.

    Args:
        architecture: `bert`, `roberta`, `albert`, `modernbert` or `convbert`.
        seed: Draws the weights; torch's global generator is left as it was.
        layers: The number of transformer layers.
        width: The width of the layers, a multiple of 16.

    Returns:
        The model and its tokenizer.

    Raises:
        UnknownName: There is no tiny form of this architecture.
    """
    if architecture not in MASKED_ARCHITECTURES:
        raise UnknownName("architecture", architecture, MASKED_ARCHITECTURES)
    tokenizer = masked_tokenizer(architecture)
    config = _config(architecture, layers, width, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(config, dtype=torch.float32)
    return model.eval(), tokenizer


def masked_tokenizer(architecture: MaskedArchitecture) -> PreTrainedTokenizerFast:
    """A tokenizer like the architecture's, which knows the words of a few sentences.

    Args:
        architecture: As for `tiny_masked`.
    """
    begin, end, pad, unknown, mask = (
        ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
        if architecture == "roberta"
        else ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
    )
    # RoBERTa's order: padding is no 0.
    special = (
        [begin, pad, end, unknown, mask]
        if architecture == "roberta"
        else [pad, unknown, begin, end, mask]
    )
    made = {"bert": wordpiece, "albert": unigram}.get(architecture)
    tokenizer = made(special, unknown) if made else byte_pairs(special, _VOCABULARY - 8)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=begin,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        # In a text it swallows the space before it, as the real ones do.
        mask_token=AddedToken(mask, lstrip=architecture != "bert", special=True),
        clean_up_tokenization_spaces=False,
    )


def _config(
    architecture: MaskedArchitecture, layers: int, width: int, tokenizer: PreTrainedTokenizerFast
) -> PretrainedConfig:
    """The smallest form of the architecture that keeps its traps."""
    common = {
        "vocab_size": _VOCABULARY,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
        "max_position_embeddings": 256,
        # Ten times as large as usual: an untrained model then still tells prompts apart.
        "initializer_range": 0.2,
    }
    if architecture == "bert":
        return BertConfig(**common)
    if architecture == "roberta":
        return RobertaConfig(**common, type_vocab_size=1)
    if architecture == "albert":
        return AlbertConfig(**common, embedding_size=width // 2, num_hidden_groups=1)
    if architecture == "convbert":
        return ConvBertConfig(**common, embedding_size=width // 2, conv_kernel_size=5)
    return ModernBertConfig(
        **common,
        local_attention=16,
        layer_types=["sliding_attention" if i % 2 else "full_attention" for i in range(layers)],
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        initializer_cutoff_factor=2.0,
    )
