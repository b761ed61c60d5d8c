"""METEOR 1.5 (Denkowski and Lavie 2014, doi:10.3115/v1/W14-3348), matched by its authors' program.

The program is Java, and comes with the package pycocoevalcap (104 MB). It aligns words by form,
stem, synonym and paraphrase, and gives 23 counts a row; what follows from their sums is computed
here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed
from promptsearch.tasks.metrics.tokens import ptb

#: Parameters for English (section 3): balance of precision and recall, penalty for chunks, weight
#: of content words, and weights of matches by form, stem, synonym and paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.array([1.0, 0.6, 0.8, 0.6])
#: The counts of a row.
_COUNTS = 23
#: Seconds that the program may take to start, and for a row.
_START, _ROW = 120, 1


class Meteor(Metric):
    """METEOR of all rows together, each against its best reference, for English.

    Args:
        jar: The path of `meteor-1.5.jar`, with its folder `data` beside it; left out: the one in
            the package pycocoevalcap.
        tokenize: `ptb` for words as coco-caption cuts them, and the E2E challenge; `none` leaves
            texts to the program.
    """

    name = "meteor"
    alone = False

    def __init__(self, *, jar: str | None = None, tokenize: Literal["ptb", "none"] = "ptb") -> None:
        self.tokenize = tokenize
        self._java, self._jar = shutil.which("java"), _found(jar)
        if self._java is None or not self._jar.exists():
            lacking = [
                *([] if self._java else ["Java (the command java)"]),
                *([] if self._jar.exists() else [f"{self._jar}: pip install pycocoevalcap"]),
            ]
            raise TaskError(
                f"the metric 'meteor' needs {' and '.join(lacking)}. Without Java there is "
                "'meteor_nltk', an older definition whose numbers do not compare"
            )

    @property
    def signature(self) -> str:
        """Says the version, the language, and how words are cut."""
        return signed(self.name, version="1.5", lang="en", norm="yes", tok=self.tokenize)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The program's counts, of the reference that gives the best score."""
        lines = [
            " ||| ".join(["SCORE", *map(self._text, row.references), self._text(row.output)])
            for row in rows
        ]
        command = [str(self._java), "-Xmx2G", "-jar", str(self._jar), "-", "-", "-stdio"]
        try:
            done = subprocess.run(
                [*command, "-l", "en", "-norm"],
                input="\n".join(lines) + "\n",
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_START + _ROW * len(rows),
                cwd=self._jar.parent,
                check=True,
            )
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stderr", None) or error).strip()[-300:]
            raise TaskError(f"the metric 'meteor' failed in Java: {said}") from error
        found = [line.split() for line in done.stdout.splitlines()]
        if len(found) != len(rows) or any(len(counts) != _COUNTS for counts in found):
            raise TaskError(
                f"the metric 'meteor' got {len(found)} lines from Java, such as "
                f"{done.stdout[:80]!r}: expected {_COUNTS} numbers for each of {len(rows)} rows"
            )
        counts = np.array(found, dtype=np.float64)
        given, wanted, chunks, matched, theirs = counts[:, [0, 1, 20, 21, 22]].T
        # A text that matches a whole reference in one piece is in no pieces, in sums as well.
        counts[(matched == given) & (theirs == wanted) & (chunks == 1), 20] = 0
        return counts

    def score(self, sums: Floats, rows: int) -> float:
        """Equations 1 to 4."""
        given, wanted, given_function, wanted_function = sums[:4]
        # For each stage: content words of output and reference, then function words of both.
        stages = sums[4:20].reshape(4, 4)
        chunks, *matched = sums[20:]
        weights = np.array([_DELTA, _DELTA, 1 - _DELTA, 1 - _DELTA])
        counted = _STAGES @ (stages * weights)
        precision = _share(
            counted[0] + counted[2],
            _DELTA * (given - given_function) + (1 - _DELTA) * given_function,
        )
        recall = _share(
            counted[1] + counted[3],
            _DELTA * (wanted - wanted_function) + (1 - _DELTA) * wanted_function,
        )
        if not precision or not recall:
            return 0.0
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        return float(mean * (1 - _GAMMA * (chunks / (sum(matched) / 2)) ** _BETA))

    def _text(self, text: str) -> str:
        words = ptb(text) if self.tokenize == "ptb" else text.replace("|||", " ").split()
        return " ".join(words)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _found(jar: str | None) -> Path:
    if jar is not None:
        return Path(jar).resolve()
    spec = find_spec("pycocoevalcap")
    folder = next(iter(spec.submodule_search_locations or []), "") if spec else "pycocoevalcap"
    return Path(folder).resolve() / "meteor" / "meteor-1.5.jar"
