"""METEOR as NLTK defines it, near version 1.0 (Banerjee and Lavie 2005, aclanthology.org/W05-0909).

Words match as they are, by their Porter stems, or as synonyms of WordNet. It is not METEOR 1.5,
which papers after 2014 report, and its numbers do not compare with those: see `meteor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from promptsearch.tasks.metrics.libraries import require
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed
from promptsearch.tasks.metrics.tokens import v13a
from promptsearch.tasks.metrics.wordnet import WordNet

#: Where Debian's package wordnet-base puts WordNet.
DEBIAN = Path("/usr/share/wordnet")


class MeteorNltk(Metric):
    """The mean over rows of NLTK's METEOR against the best reference.

    Args:
        wordnet: The folder with the files of WordNet (`index.noun`, `data.noun`, ...); left out:
            NLTK's own data where they are installed, or else Debian's.
    """

    name = "meteor_nltk"
    mean = True
    alone = False

    def __init__(self, *, wordnet: str | None = None) -> None:
        require("nltk", self.name)
        self.folder = wordnet

    @property
    def signature(self) -> str:
        """Says the parameters, how words are cut, and NLTK's version."""
        return signed(
            self.name, alpha=0.9, beta=3, gamma=0.5, case="lc", tok="13a", nltk=version("nltk")
        )

    def over(self, wordnet: Any) -> Self:
        """The same metric over this WordNet.

        Args:
            wordnet: An object with NLTK's `synsets(word)`.
        """
        self.__dict__["_wordnet"] = wordnet
        return self

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The best score over the references."""
        from nltk.translate.meteor_score import meteor_score

        return np.array(
            [
                [
                    meteor_score(
                        [v13a(text) for text in row.references],
                        v13a(row.output),
                        wordnet=self._wordnet,
                    )
                ]
                for row in rows
            ],
            dtype=np.float64,
        )

    @cached_property
    def _wordnet(self) -> Any:
        """WordNet, from the folder that is named, or else from the first place that has it."""
        if self.folder is not None:
            return WordNet(Path(self.folder))
        from nltk.corpus import wordnet

        try:
            wordnet.ensure_loaded()
        except LookupError:
            return WordNet(DEBIAN)
        return wordnet
