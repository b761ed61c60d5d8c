"""WordNet's synonyms (Miller 1995, doi:10.1145/219717.219748), read from its files.

NLTK's reader of the same files opens only folders that its settings name, for the whole process;
and METEOR asks for little: the sets of synonyms of a word, whatever its ending.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptsearch.errors import TaskError
from promptsearch.files import exists, read

#: Part of speech -> the endings of inflected words, and what stands in their place (WordNet's
#: morphy(7WN)).
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@dataclass(frozen=True)
class Lemma:
    """A word of a set of synonyms."""

    text: str

    def name(self) -> str:
        """The word, with `_` between its parts."""
        return self.text


@dataclass(frozen=True)
class Synset:
    """A set of synonyms."""

    words: tuple[str, ...]

    def lemmas(self) -> list[Lemma]:
        """Its words."""
        return [Lemma(word) for word in self.words]


class WordNet:
    """The sets of synonyms in a folder of WordNet's files.

    Args:
        folder: With `index.noun`, `data.noun`, `noun.exc`, and the same of verbs, adjectives and
            adverbs.

    Raises:
        TaskError: They are not there.
    """

    def __init__(self, folder: Path) -> None:
        if not exists(folder / "index.noun"):
            raise TaskError(
                f"WordNet is not in '{folder}': install Debian's package wordnet-base, or run "
                "`python -m nltk.downloader wordnet`, or name its folder by the option 'wordnet'"
            )
        self._parts = [_Part(folder, name) for name in _ENDINGS]

    def synsets(self, word: str) -> list[Synset]:
        """All sets with a word, or with what it is an inflection of.

        Args:
            word: In any case.
        """
        return [found for part in self._parts for found in part.synsets(word.lower())]


class _Part:
    """The words of one part of speech."""

    def __init__(self, folder: Path, name: str) -> None:
        self._data, self._endings = read(folder / f"data.{name}"), _ENDINGS[name]
        # Lines that begin with a space are the licence. A line ends with as many places in the data
        # as its third word says.
        lines = (line.split() for line in _lines(folder / f"index.{name}") if line[:1] != " ")
        self._places = {
            words[0]: [int(place) for place in words[-int(words[2]) :]] for words in lines
        }
        # Of a form with two lines the last one counts, as in NLTK.
        exceptions = map(str.split, _lines(folder / f"{name}.exc"))
        self._irregular = {words[0]: words[1:] for words in exceptions}

    def synsets(self, word: str) -> list[Synset]:
        return [self._at(place) for base in self._bases(word) for place in self._places[base]]

    def _bases(self, word: str) -> list[str]:
        """The words in the index that a form may come from."""
        others = self._irregular.get(word)
        if others is None:
            others = [
                word[: -len(ending)] + other
                for ending, other in self._endings
                if word.endswith(ending)
            ]
        return [form for form in dict.fromkeys([word, *others]) if form in self._places]

    def _at(self, place: int) -> Synset:
        """The set whose line begins at a byte of the data."""
        # offset, file, kind, number of words in hexadecimal, then each word and a digit.
        words = self._data[place : self._data.index(b"\n", place)].decode("utf-8").split()
        return Synset(
            tuple(word.partition("(")[0] for word in words[4 : 4 + 2 * int(words[3], 16) : 2])
        )


def _lines(path: Path) -> list[str]:
    return read(path).decode("utf-8").splitlines()
