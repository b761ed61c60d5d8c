"""How answers are generated: a part of a task's protocol, and of what its metric means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """The way in which answers are generated.

    Args:
        tokens: The most tokens of an answer, its end among them; at least 1.
        beams: The number of beams of the search; 1 is greedy decoding.
        length_penalty: The exponent of a hypothesis' length, by which its summed log-probability is
            divided (Wu et al. 2016, arXiv:1609.08144, eq. 14, in the form of transformers); it
            matters for more than one beam only.
        temperature: The number that logits are divided by before a token is drawn; 0 draws nothing
            and takes the most probable token.
        top_p: The probability that the candidates have together from which a token is drawn
            (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).
        samples: The number of answers that are drawn for each row; above 1 only with a temperature.
        seed: The seed of what is drawn; each row has a generator of its own.
    """

    tokens: int = 32
    beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0

    @property
    def signature(self) -> str:
        """The way in a few words, such as `greedy, 32 tokens` or `5 beams, 40 tokens`."""
        if self.temperature:
            how = f"temperature {self.temperature:g}, top-p {self.top_p:g}, {self.samples} samples"
        else:
            how = "greedy" if self.beams == 1 else f"{self.beams} beams"
            how += "" if self.length_penalty == 1 else f", length penalty {self.length_penalty:g}"
        return f"{how}, {self.tokens} tokens"
