"""How answers are generated: a part of a task's protocol, and of what its metric means."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from promptsearch.errors import TaskError, UnknownName
from promptsearch.printable import brief

#: The largest exponent of a length, either way: with it any length's power is still a number.
_PENALTY = 40


@dataclass(frozen=True)
class Decoding:
    """The way in which answers are generated.

    Args:
        tokens: The most tokens of an answer, its end among them; at least 1.
        beams: The number of beams of the search; 1 is greedy decoding.
        length_penalty: The exponent of a hypothesis' length, by which its summed log-probability is
            divided (Wu et al. 2016, arXiv:1609.08144, eq. 14, in the form of transformers); only
            with more than one beam.
        temperature: The number that logits are divided by before a token is drawn; 0 draws nothing
            and takes the most probable token.
        top_p: The probability that the candidates have together from which a token is drawn
            (Holtzman et al. 2020, arXiv:1904.09751, section 3.1); only with a temperature.
        samples: The number of answers that are drawn for each row; above 1 only with a temperature.
        seed: The seed of what is drawn, only with a temperature; each row has a generator of its
            own.

    Raises:
        TaskError: A number is none, is out of its range, or stands where it means nothing.
    """

    tokens: int = 32
    beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, whole = getattr(self, each.name), isinstance(each.default, int)
            known = isinstance(value, numbers.Integral if whole else numbers.Real)
            if isinstance(value, bool) or not known:
                kind = "a whole number" if whole else "a number"
                raise TaskError(f"decoding: expected {each.name} to be {kind}, got {brief(value)}")
        for name in ("tokens", "beams", "samples"):
            if getattr(self, name) < 1:
                raise TaskError(
                    f"decoding: expected {name} of at least 1, got {getattr(self, name)!r}"
                )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise TaskError(
                f"decoding: expected a temperature of 0 or above, got {self.temperature!r}"
            )
        if not 0 < self.top_p <= 1:
            raise TaskError(f"decoding: expected top_p above 0, and 1 at most, got {self.top_p!r}")
        if not abs(self.length_penalty) <= _PENALTY:  # nor is it NaN
            raise TaskError(
                f"decoding: expected a length_penalty between -{_PENALTY} and {_PENALTY}, got "
                f"{self.length_penalty!r}"
            )
        if self.samples > 1 and not self.temperature:
            raise TaskError(
                f"decoding: {self.samples} samples are all the same without a temperature: "
                "set one above 0, or take 1 sample"
            )
        for name in ("top_p", "seed"):
            if getattr(self, name) != getattr(type(self), name) and not self.temperature:
                raise TaskError(
                    f"decoding: nothing is drawn without a temperature, but {name} is "
                    f"{getattr(self, name)!r}: set a temperature above 0, or leave {name} out"
                )
        if self.length_penalty != 1 and self.beams == 1:
            raise TaskError(
                f"decoding: a length_penalty compares beams, and {self.length_penalty!r} changes "
                "nothing with one: take more beams, or leave it out"
            )
        if self.beams > 1 and self.temperature:
            raise TaskError(
                f"decoding: {self.beams} beams draw nothing, but the temperature is "
                f"{self.temperature:g}: expected 1 beam, or a temperature of 0"
            )

    @staticmethod
    def of(given: Decoding | Mapping[str, Any] | None) -> Decoding:
        """A way as Python users give it.

        Args:
            given: The way itself, or its arguments; None for the defaults.

        Raises:
            UnknownName: There is no such argument.
            TaskError: There are no arguments in it, or one is wrong.
        """
        if given is None or isinstance(given, Decoding):
            return given or Decoding()
        if not isinstance(given, Mapping):
            raise TaskError(f"decoding is {brief(given)}: expected a mapping like {{'tokens': 32}}")
        names = [each.name for each in fields(Decoding)]
        if strange := next((name for name in given if name not in names), None):
            raise UnknownName("option of decoding", str(strange), names)
        return Decoding(**given)

    @property
    def most(self) -> int:
        """The most tokens that are generated for a row: those of all beams and samples."""
        return self.tokens * self.beams * self.samples

    def seeds(self, row: str) -> tuple[int, ...]:
        """The seeds of a row's samples, which depend on no other row; below 2 ** 31.

        Args:
            row: The row's name, such as its split and its example's id.
        """
        texts = [f"{self.seed} {row} {i}" for i in range(self.samples)]
        return tuple(int.from_bytes(hashlib.sha256(t.encode()).digest()[:4]) >> 1 for t in texts)

    @property
    def signature(self) -> str:
        """The way in a few words, such as `greedy, 32 tokens` or `5 beams, 40 tokens`.

        The seed of what is drawn belongs to it, as other answers have other scores; 0 goes unnamed.
        """
        if self.temperature:
            how = f"temperature {self.temperature:g}, top-p {self.top_p:g}, {self.samples} samples"
            how += f", seed {self.seed}" if self.seed else ""
        else:
            how = "greedy" if self.beams == 1 else f"{self.beams} beams"
            how += "" if self.length_penalty == 1 else f", length penalty {self.length_penalty:g}"
        return f"{how}, {self.tokens} tokens"
