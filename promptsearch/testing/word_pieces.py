"""Tokenizers of word pieces that are the same in every process.

The trainers of WordPiece and Unigram break ties as their hash tables happen to lie, so the same
sentences give another vocabulary in each process. Here the vocabulary is written down: the words of
the sentences that tiny tokenizers know, and all letters, of which any other word is made.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from promptsearch.testing.tiny import CORPUS, WORDS

LETTERS = (*string.ascii_letters, *string.digits, *string.punctuation)
#: How often a letter counts as said: seldom, so that words are taken whole.
_SELDOM = 0.01
_MARK = "▁"


def wordpiece(special: Sequence[str], unknown: str) -> Tokenizer:
    """A tokenizer as BERT's: words in small letters without their spaces, or pieces of words.

    Args:
        special: The special tokens, which have the first ids.
        unknown: The one of them that stands for what it cannot cut.
    """
    words = [word.lower() for word in _counts()]
    pieces = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), *words]
    ids = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def unigram(special: Sequence[str], unknown: str) -> Tokenizer:
    """A tokenizer as T5's and ALBERT's: scored pieces, over words that are split at any whitespace.

    Args:
        special: As for `wordpiece`.
        unknown: As for `wordpiece`.
    """
    counts = {_MARK + word: float(count) for word, count in _counts().items()}
    counts |= dict.fromkeys((_MARK, *LETTERS), _SELDOM)
    total = sum(counts.values())
    scored = [*((piece, 0.0) for piece in special)]
    scored += [(piece, math.log(count / total)) for piece, count in counts.items()]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=list(special).index(unknown)))
    marks = pre_tokenizers.Metaspace(_MARK, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    tokenizer.decoder = decoders.Metaspace(_MARK, prepend_scheme="always", split=True)
    return tokenizer


def _counts() -> Counter[str]:
    """The words, in the order in which they come, each with how often it is said."""
    return Counter(re.findall(r"\w+", " ".join((*WORDS, CORPUS))))
