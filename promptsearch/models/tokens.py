"""A tokenizer, as prompts need it: with a model that is loaded here, or for one that is not.

Many tokenizers treat the beginning of a text in a way of their own. SentencePiece puts the mark of a space before it, and takes
it away again when it decodes; BERT's puts spaces between words, and none before the first. What stands inside a text is
therefore looked at inside a text: behind an anchor, of which nothing is left in what comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from promptsearch.errors import ModelError
from promptsearch.models.folder import reason_of

#: Texts that others are put behind, the first that fits: one that the tokenizer does not merge with what follows. Most
#: tokenizers leave a line break alone, but some take it for a space.
_ANCHORS = ("\n", ".", ",", ":", "a")
#: What tells whether a tokenizer treats the beginning of a text in its own way.
_PROBES = (" a", "a", " good", "good", ".", "\n")


#: A text, or ids: what goes in, and what comes out.
In = TypeVar("In", str, list[int])
Out = TypeVar("Out", str, list[int])


class Special(NamedTuple):
    """A special token, as a text is cut at it.

    Args:
        content: Its text.
        lstrip: Whether it swallows the white space before it.
        rstrip: Whether it swallows the white space behind it.
    """

    content: str
    lstrip: bool
    rstrip: bool


class Tokens:
    """The tokens of a tokenizer of transformers.

    Args:
        tokenizer: As `transformers.AutoTokenizer` loads it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @staticmethod
    def load(name: str) -> Tokens:
        """A tokenizer alone.

        Args:
            name: A Hub name or a folder.

        Raises:
            ModelError: It cannot be found or loaded.
        """
        return Tokens(load_tokenizer(name, {"pretrained_model_name_or_path": name}))

    @cached_property
    def hash(self) -> str:
        """20 hexadecimal digits of a SHA-256 of the vocabulary and of how it cuts a probe text."""
        probe = self._tokenizer("A probe, 123: it's naïve\n  to ask?").input_ids
        content = (
            repr(sorted(self._tokenizer.get_vocab().items())) + repr(list(probe)) + repr(self.lead)
        )
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The special tokens that it puts before every text."""
        with_specials = list(self._tokenizer("a").input_ids)
        plain = list(self._tokenizer("a", add_special_tokens=False).input_ids)
        return tuple(with_specials[: with_specials.index(plain[0])]) if plain else ()

    @cached_property
    def added(self) -> frozenset[int]:
        """Ids of special tokens and of others that were added to the vocabulary: no text is meant to hold them."""
        return frozenset(self._tokenizer.added_tokens_decoder)

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of a text, without special tokens; marks of special tokens in the text stay plain text.

        Args:
            text: Any.
            begins: Whether it is the beginning of a row; else it stands behind other text.
        """
        return self._encode([text], begins)[0]

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids, exactly.

        Args:
            ids: Of the vocabulary.
            begins: As for `encode`.
        """
        return self._decode([list(ids)], begins)[0]

    @cached_property
    def anew(self) -> bool:
        """Whether a text behind a special token is cut like one at the beginning of a row."""
        special = next(
            (
                str(token)
                for token in self._tokenizer.added_tokens_decoder.values()
                if token.special
            ),
            None,
        )
        if special is None or not self.marks_beginnings:
            return False
        _, *behind = self._tokenizer(f"{special}a", add_special_tokens=False).input_ids
        return bool(behind == self.encode("a", begins=True))

    @cached_property
    def marks_beginnings(self) -> bool:
        """Whether a text is cut, or read, in another way at the beginning of a row than behind other text."""
        alone = self._cut(_PROBES)
        for anchor, head, shown in self._anchors:
            behind = self._cut([anchor + probe for probe in _PROBES])
            pairs = [
                (ids, whole[len(head) :])
                for ids, whole in zip(alone, behind, strict=True)
                if whole[: len(head)] == head
            ]
            if len(pairs) > 1:  # else it merges with what follows
                texts = self._read([ids for ids, _ in pairs])
                joined = self._read([head + ids for ids, _ in pairs])
                return any(a != b for a, b in pairs) or joined != [shown + text for text in texts]
        return False

    @property
    def anchor(self) -> tuple[str, int]:
        """A text that others can be put behind, to be cut as they are there, and its tokens; none where all places are alike."""
        return (
            next(((text, len(head)) for text, head, _ in self._anchors), ("", 0))
            if self.marks_beginnings
            else ("", 0)
        )

    def words(self, below: int | None = None) -> tuple[int, ...]:
        """Ids of the tokens that begin a word and are nothing else, see `LanguageModel.words`.

        Args:
            below: The first id that the model has no embedding of; None: it has all.
        """
        known = self.plain(below)
        texts = dict(zip(known, self._decode([[i] for i in known], begins=False), strict=True))
        found = [
            i
            for i in known
            if texts[i][:1] == " " and texts[i][1:].isascii() and texts[i][1:].isalpha()
        ]
        back = self._encode([texts[i] for i in found], begins=False)
        return tuple(sorted(i for i, ids in zip(found, back, strict=True) if ids == [i]))

    def plain(self, below: int | None = None) -> list[int]:
        """Ids of all tokens that texts are made of: none of them added, in the order of the vocabulary.

        Args:
            below: As for `words`.
        """
        return [
            i
            for i in self._tokenizer.get_vocab().values()
            if i not in self.added and (below is None or i < below)
        ]

    # Private. Texts and ids in lists: a vocabulary goes through at once.

    @cached_property
    def _anchors(self) -> list[tuple[str, list[int], str]]:
        """The anchors that this tokenizer knows: as text, their ids at the beginning of a row, and the text of these."""
        ids = self._cut(_ANCHORS)
        found = zip(_ANCHORS, ids, self._read(ids), strict=True)
        return [
            (anchor, head, shown)
            for anchor, head, shown in found
            if head and shown.strip(" ") == anchor
        ]

    def _encode(self, texts: Sequence[str], begins: bool) -> list[list[int]]:
        alone = begins or not self.marks_beginnings
        return _behind(
            texts, self._cut, [] if alone else [(anchor, head) for anchor, head, _ in self._anchors]
        )

    def _decode(self, rows: Sequence[list[int]], begins: bool) -> list[str]:
        alone = begins or not self.marks_beginnings
        return _behind(
            rows, self._read, [] if alone else [(head, shown) for _, head, shown in self._anchors]
        )

    def _cut(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, each by itself."""
        if not texts:
            return []
        found = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return [list(ids) for ids in found]

    def _read(self, rows: Sequence[list[int]]) -> list[str]:
        """The texts of ids, each by itself."""
        as_they_are = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return [str(self._tokenizer.decode(ids, **as_they_are)) for ids in rows]


def load_tokenizer(name: str, source: Mapping[str, Any]) -> Any:
    """A tokenizer of transformers; code that lies beside it is not run.

    Args:
        name: What to call it in messages.
        source: As for `from_pretrained`: a folder, a Hub name, or a GGUF file in a folder.

    Raises:
        ModelError: It cannot be found or loaded.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(**{**source, "trust_remote_code": False})
    except Exception as error:  # a stranger's files: transformers may raise anything
        raise ModelError(
            f"cannot load the tokenizer '{name}': {reason_of(error)} Expected a folder with its files (tokenizer.json), or a "
            "name on the Hub."
        ) from error


def _behind(
    given: Sequence[In],
    work: Callable[[Sequence[In]], list[Out]],
    anchors: Sequence[tuple[In, Out]],
) -> list[Out]:
    """What comes out of each behind the first anchor that stays what it is there; by itself where there is none.

    Args:
        given: Texts or ids.
        work: Turns one into the other.
        anchors: What goes in, and what comes out of it.
    """
    found: dict[int, Out] = {}
    for before, head in anchors:
        left = [i for i in range(len(given)) if i not in found]
        wholes = work([before + given[i] for i in left])
        kept = (
            (i, whole) for i, whole in zip(left, wholes, strict=True) if whole[: len(head)] == head
        )
        found |= {i: whole[len(head) :] for i, whole in kept}
    left = [i for i in range(len(given)) if i not in found]
    found |= dict(zip(left, work([given[i] for i in left]), strict=True))
    return [found[i] for i in range(len(given))]
