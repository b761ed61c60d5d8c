"""Prompts of words with answer words of their own: which words stand for a class.

Schick and Schuetze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural
Language Inference" (PET), arXiv:2001.07676, section 3.1, call the map from classes to words a
verbalizer. Shin et al. 2020, "AutoPrompt", arXiv:2010.15980, equation 1: where several words stand
for a class, their probabilities are added up. The loss stays what it is for answers to choose from:
minus the log of the softmax over the classes, at the right one. So losses under different words
compare, as losses of the same classes; the answer that such a prompt gives is a class of the task,
not a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from promptsearch.errors import PromptError, StrategyError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import AnswerWords, Content, Open, Prompt, Sizes, Space, digest
from promptsearch.prompts.text import TextPrompt, plain
from promptsearch.tasks.template import Template


@dataclass(frozen=True)
class VerbalizedPrompt(Prompt):
    """A prompt of words under which other words stand for the classes of the task.

    Args:
        words: What fills the slots.
        answers: For each class, in the order of the task's answers, the words that stand for it, as
            they stand behind the template: the same number for each class, and each a single token.
    """

    kind = "verbalized"
    noun = "a prompt with answer words"
    sized: ClassVar[bool] = False

    words: HardPrompt | TextPrompt
    answers: AnswerWords
    key: str = field(init=False, repr=False, compare=False)

    def __init__(
        self, words: HardPrompt | TextPrompt, answers: Sequence[str | Sequence[str]]
    ) -> None:
        told = tuple((some,) if isinstance(some, str) else tuple(some) for some in answers)
        every = [word for some in told for word in some]
        if len(told) < 2 or not told[0] or len({len(some) for some in told}) > 1:
            raise PromptError(
                "expected at least two classes with as many answer words each, got "
                f"{[list(some) for some in told]}"
            )
        if not all(every) or len(set(every)) < len(every):
            raise PromptError(f"expected answer words that differ, got {every}")
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "answers", told)
        content = json.dumps([words.key, told]).encode()
        object.__setattr__(self, "key", digest(self.kind, content))

    @property
    def length(self) -> int | None:
        """That of the words in the slots."""
        return self.words.length

    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """The words of each slot."""
        return self.words.fill(template, first)

    def check(self, space: Space, sizes: Sizes | None) -> None:
        """Refuse words outside the space, and tokens of the pool that give an answer away."""
        self.words.check(space, sizes)
        given = {space.decode([i]).strip() for i in getattr(self.words, "ids", ())}
        if told := [word for some in self.answers for word in some if word.strip() in given]:
            raise StrategyError(
                f"the answer word {told[0]!r} stands in the prompt as well, which gives it away: "
                "propose words for the slots that answer nothing"
            )

    @property
    def shown(self) -> str:
        """The words with their answers."""
        return f"{self.words.shown} with the answer words {list(map(list, self.answers))}"

    def to_json(self) -> dict[str, Any]:
        """The ids or texts in the slots, and the answer words of each class."""
        own = {**self.words.to_json(), "kind": self.kind, "key": self.key}
        return {**own, "answers": [list(some) for some in self.answers]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt of the ids or texts and of the answer words."""
        told = data.get("answers")
        if not isinstance(told, list | tuple) or not all(
            isinstance(some, list | tuple) and all(isinstance(word, str) for word in some)
            for some in told
        ):
            raise PromptError(
                f"expected 'answers' of a {cls.kind} prompt as a list of words for each class, "
                f"got {str(told)[:80]!r}"
            )
        return cls(_kind(data).from_json(data, folder), told)

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int | None:
        """That of the words in the slots."""
        return _kind(data).tokens_in(data, length)

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of the same words and answers, each a plain string."""
        kind = HardPrompt if type(prompt.words) is HardPrompt else TextPrompt
        answers = [list(map(plain, some)) for some in prompt.answers]
        return cls(kind.copied(prompt.words), answers)

    def refuses(self, to: str) -> str | None:
        """Only the library's own format knows which words stand for which class."""
        if to == "json":
            return None
        return (
            f"the format {to} has no place for {self.noun}, of which each stands for a class of "
            "the task: export it as json"
        )

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Prompts of the space, with the first two words of a text for the answers."""
        return [cls(HardPrompt(words.ids), [" a", " b"]) for words in space.sample(rng, count)]

    def to_train(self, model: Open) -> Numbers:
        """What training from the words alone begins at."""
        return self.words.to_train(model)


def _kind(data: Mapping[str, Any]) -> type[HardPrompt] | type[TextPrompt]:
    """The kind of what stands in the slots: a hard prompt has ids."""
    return TextPrompt if data.get("ids") is None else HardPrompt
