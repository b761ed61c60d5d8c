"""Tiny tokenizers, made on the spot, that treat the beginning of a text in ways of their own.

SentencePiece marks the space before a word, and puts such a mark before a text too: always, at the
first piece of a text only, never, or in a step before all others, which adds it even to a text that
begins with a space. T5's vocabulary takes runs of spaces as one. BERT's knows no spaces at all, and
decoding puts them between words. A tokenizer of characters has no words.
"""

from __future__ import annotations

from typing import Literal, get_args

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from promptsearch.errors import UnknownName
from promptsearch.testing.tiny import CORPUS, WORDS
from promptsearch.testing.word_pieces import LETTERS, unigram, wordpiece

#: `first`: Llama's and Mistral's with `legacy: false`; `always`: with `legacy: true`; `never`:
#: Metaspace without a mark in front; `prepend`: older files of Llama 2 and TinyLlama; `unigram`:
#: T5; `wordpiece`: BERT; `characters`: each its own token.
Tokenization = Literal["first", "always", "never", "prepend", "unigram", "wordpiece", "characters"]

_MARK, _UNKNOWN, _BEGIN, _END = "▁", "<unk>", "<s>", "</s>"
_SPECIAL = [_UNKNOWN, _BEGIN, _END]
_SIZE = 500  # fewer than the rows of embeddings of a tiny model


def tokenizer_of(kind: Tokenization) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the sentences of `promptsearch.testing.tiny`.

    Args:
        kind: The kind, see `Tokenization`. Those like Llama's begin a text with a token of their
            own, and spell what is not in their vocabulary byte by byte.

    Raises:
        UnknownName: There is no such kind.
    """
    if kind not in get_args(Tokenization):
        raise UnknownName("tokenization", kind, get_args(Tokenization))
    made = {
        "unigram": lambda: unigram(_SPECIAL, _UNKNOWN),
        "wordpiece": lambda: wordpiece(["[UNK]", *_SPECIAL[1:]], "[UNK]"),
        "characters": _characters,
    }
    tokenizer = made[kind]() if kind in made else _sentencepiece(kind)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]" if kind == "wordpiece" else _UNKNOWN,
        bos_token=_BEGIN,
        eos_token=_END,
        clean_up_tokenization_spaces=False,
    )


def _sentencepiece(kind: str) -> Tokenizer:
    """BPE with byte fallback over the marks of `kind`."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_MARK, prepend_scheme="never", split=True)
    spelled = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=_SIZE, special_tokens=[*_SPECIAL, *spelled], show_progress=False
    )
    # As in `tiny`: the listed words most often, so that they become tokens first; twice the corpus,
    # since a pair must occur twice.
    texts = [*WORDS * 10, CORPUS, CORPUS]
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in texts], trainer)
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_MARK), normalizers.Replace(" ", _MARK)]
        )
        tokenizer.pre_tokenizer = None
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_MARK, prepend_scheme=kind, split=False)
    strip = [] if kind == "never" else [decoders.Strip(" ", 1, 0)]
    steps = [decoders.Replace(_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A",
        pair=f"{_BEGIN} $A {_BEGIN} $B",
        special_tokens=[(_BEGIN, tokenizer.token_to_id(_BEGIN))],
    )
    return tokenizer


def _characters() -> Tokenizer:
    known = {character: place for place, character in enumerate([*_SPECIAL, " ", "\n", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
