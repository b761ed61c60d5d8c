"""A tokenizer, as prompts need it: with a model that is loaded here, or for one that is not.

Many tokenizers treat the beginning of a text in a way of their own. SentencePiece puts the mark of
a space before it, and takes the mark away again when it decodes; BERT's tokenizer puts spaces
between words, and none before the first. A text that stands behind other text is therefore cut
behind an *anchor*, a short text that is put before it and then removed from the result. The *lead*
of a tokenizer are the special tokens that it puts before every text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.folder import reason_of

#: The texts that may be anchors. The first that fits is taken: one that the tokenizer does not
#: merge with what follows. Most tokenizers leave a line break alone, but some take it for a space.
_ANCHORS = ("\n", ".", ",", ":", "a")
#: The texts that tell whether a tokenizer treats the beginning of a text in its own way.
_PROBES = (" a", "a", " good", "good", ".", "\n")

#: The texts whose ids are kept at hand.
_KNOWN = 16_384

#: What goes into a tokenizer and what comes out of it: a text or ids.
In = TypeVar("In", str, list[int])
Out = TypeVar("Out", str, list[int])


class Tokens:
    """The tokens of a tokenizer of transformers.

    Args:
        tokenizer: The tokenizer as `transformers.AutoTokenizer` loads it.
        below: The first id for which the model has no embedding; None: it has all.
    """

    def __init__(self, tokenizer: Any, below: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._below = below
        # The same answers and inputs are laid out for every split, template and dtype of a study.
        self._known = lru_cache(_KNOWN)(self._ids_of)

    @staticmethod
    def load(name: str) -> Tokens:
        """The tokens of a tokenizer whose model is not loaded.

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
    def close(self) -> tuple[int, ...]:
        """The special tokens that it puts behind every text."""
        with_specials = list(self._tokenizer("a").input_ids)
        plain = list(self._tokenizer("a", add_special_tokens=False).input_ids)
        return tuple(with_specials[len(self.lead) + len(plain) :]) if plain else ()

    @property
    def mask(self) -> int | None:
        """The id of the token that stands for a masked one; None where there is none."""
        found = getattr(self._tokenizer, "mask_token_id", None)
        return None if found is None else int(found)

    @cached_property
    def added(self) -> frozenset[int]:
        """The ids of special and other added tokens, which no text is meant to hold."""
        return frozenset(self._tokenizer.added_tokens_decoder)

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of a text, without special tokens.

        What looks like a special token in the text stays plain text.

        Args:
            text: Any text.
            begins: Whether it is the beginning of a row; else it stands behind other text.
        """
        return list(self._known(text, begins))

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids, exactly.

        Args:
            ids: Ids from the vocabulary.
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
        """Whether a text is cut or read differently at the beginning of a row and behind text."""
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
        """The anchor, and how many tokens it has; `("", 0)` where none is needed or none fits.

        Texts that are put behind it are cut as they are behind other text. None is needed where all
        places in a row are alike.
        """
        return (
            next(((text, len(head)) for text, head, _ in self._anchors), ("", 0))
            if self.marks_beginnings
            else ("", 0)
        )

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The ids of the tokens that begin a word and are nothing else.

        Inside a text, each is a space followed by ASCII letters. In byte-level BPE the
        pre-tokenizer cuts out each of these, so that a sequence of them survives decoding and
        encoding; in other tokenizers a single word does. Special, added and padding tokens are
        never among them.
        """
        known = self.plain
        texts = dict(zip(known, self._decode([[i] for i in known], begins=False), strict=True))
        found = [
            i
            for i in known
            if texts[i][:1] == " " and texts[i][1:].isascii() and texts[i][1:].isalpha()
        ]
        back = self._encode([texts[i] for i in found], begins=False)
        return tuple(sorted(i for i, ids in zip(found, back, strict=True) if ids == [i]))

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """The ids of all tokens that texts are made of, in the order of the vocabulary.

        None of them is an added token, and the model has an embedding for each.
        """
        return tuple(
            i
            for i in self._tokenizer.get_vocab().values()
            if i not in self.added and (self._below is None or i < self._below)
        )

    def count(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(self.encode(text))

    # Private. These take lists, so that a whole vocabulary goes through in one call.

    @cached_property
    def _anchors(self) -> list[tuple[str, list[int], str]]:
        """The anchors that fit this tokenizer.

        Each is its text, its ids at the beginning of a row, and the text that these ids decode to.
        """
        ids = self._cut(_ANCHORS)
        found = zip(_ANCHORS, ids, self._read(ids), strict=True)
        return [
            (anchor, head, shown)
            for anchor, head, shown in found
            if head and shown.strip(" ") == anchor
        ]

    def _ids_of(self, text: str, begins: bool) -> tuple[int, ...]:
        return tuple(self._encode([text], begins)[0])

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
    """A tokenizer of transformers; code in the same folder is not run.

    Args:
        name: What to call it in messages.
        source: What `from_pretrained` takes: a folder, a Hub name, or a GGUF file in a folder.

    Raises:
        ModelError: It cannot be found or loaded.
    """
    import transformers

    def explain(error: BaseException) -> ModelError:
        return ModelError(
            f"cannot load the tokenizer '{name}': {reason_of(error)} Expected a folder with its "
            "files (tokenizer.json), or a name on the Hub."
        )

    with strangers(explain):
        found = transformers.AutoTokenizer.from_pretrained(**{**source, "trust_remote_code": False})
    return found


def _behind(
    given: Sequence[In],
    work: Callable[[Sequence[In]], list[Out]],
    anchors: Sequence[tuple[In, Out]],
) -> list[Out]:
    """What `work` makes of each text, or of each list of ids, behind an anchor.

    Each is put behind the first anchor that comes out unchanged there, and what comes out of the
    anchor is taken off again. Where there is no such anchor, it is worked on by itself.

    Args:
        given: Texts or ids.
        work: Turns texts into ids, or ids into texts.
        anchors: For each anchor, what goes in for it and what comes out of it.
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
