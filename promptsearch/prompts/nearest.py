"""Prompts of the nearest examples: before each input other solved examples, those most like it.

Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", arXiv:2101.06804 (KATE). The
prompt is a store of solved examples; what stands before an input is taken from it by the model's
own input embeddings: the mean over a text's tokens, without what all texts have in common, compared
by cosine. That costs no pass through the LM, and is the same whatever else is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from promptsearch.errors import PromptError
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Content, Open, Prompt, Reader, Sizes, Space, digest
from promptsearch.prompts.text import TextPrompt, plain
from promptsearch.tasks.template import Template

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NearestPrompt(Prompt):
    """A store of solved examples, of which each input is shown those that are most like it.

    Args:
        store: The examples: the text of the input, see `text_of_input`, and the solved text.
        shots: The number of examples before an input; all of a store that has fewer.
        separator: Stands behind each example.

    Raises:
        PromptError: The store is empty, or `shots` is below 1.
    """

    kind = "nearest"
    noun = "a prompt of the nearest examples"
    sized: ClassVar[bool] = False
    written: ClassVar[bool] = False

    store: tuple[tuple[str, str], ...]
    shots: int
    separator: str = "\n"
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the numbers, and make the key."""
        if not self.store or self.shots < 1:
            raise PromptError(
                f"expected at least one example in the store and one to show, got "
                f"{len(self.store)} and {self.shots}"
            )
        content = json.dumps([self.store, self.shots, self.separator]).encode()
        object.__setattr__(self, "key", digest(self.kind, content))

    @property
    def length(self) -> None:
        """None: a tokenizer says how many tokens a text has."""
        return None

    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """What might stand there: the first examples of the store, whatever the input."""
        return self._shown(range(min(self.shots, len(self.store)))).fill(template)

    def before(self, reader: Reader) -> Callable[[Mapping[str, str]], TextPrompt]:
        """What gives the prompt of an input: its nearest examples, the nearest one last."""
        texts = [text for text, _ in self.store]
        known = np.stack([_embedded(reader, text) for text in texts])  # (examples, width)
        centre = known.mean(0)
        directions = _directions(known - centre)

        def met(fields: Mapping[str, str]) -> TextPrompt:
            given = _directions(_embedded(reader, text_of_input(fields))[None] - centre)[0]
            # The sort is stable: of examples as near as each other the earlier ones are taken.
            nearest = np.argsort(-(directions @ given), kind="stable")[: self.shots]
            return self._shown(nearest[::-1].tolist())

        return met

    def _shown(self, places: Sequence[int]) -> TextPrompt:
        return TextPrompt("".join(self.store[i][1] + self.separator for i in places))

    @property
    def shown(self) -> str:
        """The size of the store."""
        return f"prompt of the {self.shots} nearest of {len(self.store)} solved examples"

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The size of the store as `text`."""
        return {"text": f"the {self.shots} nearest of {len(self.store)} solved examples"}

    def refuses(self, to: str) -> str | None:
        """The reason why only `json` holds the prompt: no text is the same before all inputs."""
        if to == "json":
            return None
        return (
            f"{self.noun} is another text before each input, which no {to} holds: export it as json"
        )

    def to_json(self) -> dict[str, Any]:
        """The whole store."""
        own = {"shots": self.shots, "separator": self.separator}
        return {"kind": self.kind, "key": self.key, **own, "store": [list(e) for e in self.store]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt of the store."""
        shots, separator, store = (data.get(name) for name in ("shots", "separator", "store"))
        if (
            type(shots) is not int
            or not isinstance(separator, str)
            or not isinstance(store, list)
            or not all(isinstance(e, list) and [type(t) for t in e] == [str, str] for e in store)
        ):
            raise PromptError(
                "expected 'shots', 'separator' and 'store' of a nearest prompt as a whole number, "
                "a text, and a list of pairs of texts"
            )
        return cls(tuple((text, solved) for text, solved in store), shots, separator)

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> None:
        """None: a tokenizer says how many tokens a text has."""
        return None

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of the same texts, each a plain string."""
        store = tuple((plain(text), plain(solved)) for text, solved in prompt.store)
        return cls(store, int(prompt.shots), plain(prompt.separator))

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Stores of one empty example, whose cost is that of the template alone."""
        return [cls((("", ""),), 1, "")] * count

    def to_train(self, model: Open) -> Numbers:
        """Nothing: no gradient reaches a text."""
        raise PromptError("no gradient reaches solved examples: train vectors instead")


def text_of_input(fields: Mapping[str, str]) -> str:
    """The text by which inputs are compared: the values of their fields, a line each."""
    return "\n".join(str(fields[name]) for name in sorted(fields))


def _embedded(reader: Reader, text: str) -> Floats:
    """The mean of a text's input embeddings, shape `(width,)`; zeros where it has no tokens."""
    vocabulary = reader.vocabulary
    if not (ids := reader.encode(text)):
        return np.zeros(vocabulary.shape[1])
    rows = vocabulary[torch.tensor(ids, device=vocabulary.device)]
    found: Floats = rows.detach().double().cpu().mean(0).numpy()
    return found


def _directions(vectors: Floats) -> Floats:
    """The vectors with a length of 1, shape `(vectors, width)`; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = vectors / np.where(lengths > 0, lengths, 1)
    return found
