"""Words of a text, as the scripts cut them whose metrics we compute ourselves."""

from __future__ import annotations

import re

#: Entities of SGML, and what they stand for.
_MARKS = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
#: The rules of `mteval-v13a.pl` for Western languages, in their order.
_V13A = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),  # all ASCII punctuation but ' , - .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # stop and comma, unless between digits
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a dash behind a digit
)
#: What the Penn Treebank takes apart: `can not`, and what hangs on a word with an apostrophe.
_PTB = re.compile(
    r"""
    (?:[a-z]\.){2,}                                 # a.m.
    | (?:mr|mrs|ms|dr|st|jr|sr|prof|bros|ph|vs|etc|inc|ltd|co|corp|no|[b-hj-z])\.(?=\s*\S)
    | \d+(?:[.,:/-]\d+)*(?!-?[a-z]|\d)              # 5, 1,000, 3.5, 20-25, 5/5; not 5-star
    | [’'](?:\d\ds|em|til|tis|twas)\b               # '60s
    | can(?=not\b)
    | [^\W_]+?(?=n[’']t\b)                          # is n't
    | n[’']t\b
    | [’'](?:s|m|d|re|ve|ll)\b
    | [^\W_]+(?:(?:[-&./]|[’'](?!(?:s|m|d|re|ve|ll)\b))[^\W_]+)*
    | \.\.\.|--+|``|[’']{2}|\*+
    | \S
    """,
    re.VERBOSE,
)
#: How it writes brackets and currencies.
_PTB_SIGNS = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "£": "#",
    "€": "$",
}
#: Punctuation that coco-caption throws away. Brackets are not in it: its list has them in capitals,
#: and its words are in lower case.
_PUNCTUATION = {*"'`.?!,:-;\"’‘“”–—…", "''", "``", "--", "...", "’’"}


def v13a(text: str, *, lowercase: bool = True) -> list[str]:
    """Words and punctuation, as `mteval-v13a.pl` cuts them.

    Args:
        text: Any text.
        lowercase: Whether it is taken in lower case.
    """
    for mark, meant in (("<skipped>", ""), ("-\n", ""), ("\n", " "), *_MARKS):
        text = text.replace(mark, meant)
    text = f" {text.lower() if lowercase else text} "
    for pattern, cut in _V13A:
        text = pattern.sub(cut, text)
    return text.split()


def ptb(text: str) -> list[str]:
    """Words in lower case and without punctuation, as coco-caption cuts them.

    It uses Stanford's tokenizer for the Penn Treebank, of which this is a small part without Java:
    contractions, hyphens, numbers and currencies are cut as there.

    Args:
        text: Any text.
    """
    for mark, meant in _MARKS:
        text = text.replace(mark, meant)
    words = _PTB.findall(text.lower())
    return [_PTB_SIGNS.get(word, word) for word in words if word not in _PUNCTUATION]
