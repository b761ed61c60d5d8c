"""Verbalizer: which words stand for the classes, found by what the LM itself predicts.

Gao, Fisch and Chen 2021, "Making Pre-trained Language Models Better Few-shot Learners" (LM-BFF),
arXiv:2012.15723, section 5.1: the vocabulary is pruned to the k words of each class that the LM
expects most behind its examples; the assignments of words to classes that do best on the training
examples are scored on others. Shin et al. 2020, "AutoPrompt", arXiv:2010.15980, equation 1: several
words may stand for a class, and their probabilities are added up.

Differs from the papers: the k words of a class are those that the LM expects behind its examples
more than behind the others', in standard deviations, since what it expects most it expects behind
all of them; assignments are tried out best first, by the loss on the training examples, which costs
no pass through the LM once it has predicted; the LM stays frozen, where LM-BFF fine-tunes it with
each assignment before that is scored; and the prompts change as well: where words were found under
all that are given, words of the best prompt are exchanged, added and left out, some at a time, and
answer words are looked for under the best of these.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from promptsearch import (
    Access,
    Evaluation,
    Objective,
    Prompt,
    Strategy,
    TextPrompt,
    VerbalizedPrompt,
)
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.options import Count

Floats = NDArray[np.float64]
#: Places of words, those of each class: `words` a class.
Assignment = tuple[tuple[int, ...], ...]
#: A text, with or without answer words of its own.
Worded = TextPrompt | VerbalizedPrompt

#: The most assignments from which others are made that differ in one word.
_EXPANDED = 24


class Verbalizer(Strategy):
    """Search the words that stand for the classes, and then the prompt under them.

    Where a class has no training example, nothing tells its words, and the prompt alone changes.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draw of examples, and what is changed in a prompt.
        prompts: The prompts under which words are looked for, a text for the first slot or a list
            with one text for each slot. Left out: the empty prompt.
        words: Words that stand for a class together: many make up for each other's luck.
        candidates: Words of each class that are tried, k in LM-BFF; more where those of several
            classes are the same, so that too few are left.
        keep: Assignments of words that are scored under a prompt, the best on training examples.
        examples: Training examples on which words are looked for, at most.
        tries: Changes of the best prompt that are scored before the best of them is taken; 0 leaves
            the prompts as they are given.

    Raises:
        StrategyError: The task has no classes in common to all rows.
    """

    access: ClassVar[Access] = Access.LOGITS
    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt, VerbalizedPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    paper: Paper | None = Paper(
        100, "prompts", "assignments of words, each fine-tuned, in LM-BFF's README"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        prompts: list[str | list[str]] = [],  # noqa: B006 - read only
        words: Annotated[int, Field(ge=1, le=64)] = 8,
        candidates: Annotated[Count, Field(ge=2)] = 300,
        keep: Count = 4,
        examples: Count = 512,
        tries: Annotated[int, Field(ge=0, le=1_000)] = 8,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._words, self._candidates, self._keep = words, candidates, keep
        self._tries = tries
        drawn = self._rng.permutation(objective.training)[:examples]
        self.examples = np.sort(drawn)
        known = objective.examples(self.examples)
        own = {each.choice: each.answer for each in known}
        if not own or None in own or any(each.options for each in known):
            raise StrategyError(
                "answer words stand for classes, and this task's rows have none in common: take it "
                "for tasks with 'answers' for all rows"
            )
        #: The class of each example, shape `(examples,)`.
        self.classes = np.array([each.choice for each in known])
        self._count = int(self.classes.max()) + 1
        given = prompts if objective.start is None else self.first_texts(list(map(str, prompts)))
        self._given: list[TextPrompt] = list(map(TextPrompt, given)) or [TextPrompt("")]
        self._first = True
        self._waiting: list[TextPrompt] = []  # the prompts under which words are looked for next
        self._looked: set[str] = set()  # the keys of those under which they were looked for
        self._asked: list[Worded] = []
        self._values: dict[str, float] = {}  # loss of all that was scored by key, nats
        self.best: Worded | None = None

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that a class has as many candidates as words."""
        if options["candidates"] < options["words"]:
            raise StrategyError(
                f"{options['candidates']} 'candidates' are fewer than the {options['words']} "
                "'words' of a class: try more, or take fewer words"
            )

    @classmethod
    def takes_words(cls, options: Mapping[str, Any]) -> bool:
        """Where it changes prompts by them."""
        return bool(options["tries"])

    def ask(self) -> Sequence[Prompt]:
        """The given prompts as they are; with answer words; then changes of the best."""
        self._asked = list(self._given) if self._first else []
        while not self._asked and self._waiting:
            self._asked = self._worded(self._waiting.pop(0))
        if not self._asked and self._tries and self.best is not None:
            self._asked = self._changed(self.best)
        return self._asked

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Go on from the best prompt; the best of some changed ones gets words of its own."""
        values = evaluation.values.tolist()
        self._values.update(
            (prompt.key, value) for prompt, value in zip(self._asked, values, strict=True)
        )
        order = np.argsort(values, kind="stable")
        if self._first:  # words are looked for under the most promising one first
            if evaluation.choices is not None:
                self._count = evaluation.choices.shape[-1]
            self._waiting = [self._given[i] for i in order if np.isfinite(values[i])]
            self._first = False
        best = self._asked[order[0]]
        if self.best is None or self._values[best.key] < self._values[self.best.key]:
            self.best = best
        usable = np.isfinite(values[order[0]])  # no words are looked for under one that failed
        if usable and not self._waiting and _words(best).key not in self._looked:
            self._waiting = [_words(best)]

    def _worded(self, prompt: TextPrompt) -> list[Worded]:
        """The prompt with the best assignments of answer words, by the training examples."""
        self._looked.add(prompt.key)
        if self._count < 2 or len(set(self.classes.tolist())) < self._count:
            return []
        told, looked = self.objective.word_logits(prompt, self.examples)
        logits = looked.double().numpy()
        found = assignments(logits, self.classes, self._words, self._candidates, count=self._keep)
        return [
            VerbalizedPrompt(prompt, [[told[i] for i in some] for some in each]) for each in found
        ]

    def _changed(self, best: Worded) -> list[Worded]:
        """The best prompt with one word exchanged, added or left out, under the same answers."""
        found: dict[str, Worded] = {}
        for _ in range(20 * self._tries):
            texts = list(_words(best).texts)
            at = int(self._rng.integers(len(texts)))
            texts[at] = self._edited(texts[at])
            new = TextPrompt(texts)
            own = new if best.answers is None else VerbalizedPrompt(new, best.answers)
            if own.key not in self._values:
                found[own.key] = own
            if len(found) == self._tries:
                break
        return list(found.values())

    def _edited(self, text: str) -> str:
        """The text of a slot with one word exchanged, added or left out, its lines as they are."""
        space, rng = self.objective.space, self._rng
        words, blanks = text.split(), re.split(r"\S+", text)  # blanks around and between words
        count = len(words)
        word = space.decode([int(rng.choice(space.pool))]).strip()
        how = rng.choice(["exchange", "add", "leave out"], p=[0.5, 0.3, 0.2])
        at = int(rng.integers(count + 1))
        if how == "add" or not words:
            words.insert(at, word)
            blanks.insert(min(at + 1, count), " " if count else "")
            return _joined(blanks, words)
        at = min(at, count - 1)
        if how == "exchange":
            words[at] = word
            return _joined(blanks, words)
        # Of the blanks around it those stay that begin or end the text, or else that end a line.
        breaks = [each.count("\n") for each in blanks]
        first = at == 0 or (at < count - 1 and breaks[at] > breaks[at + 1])
        del words[at], blanks[at + 1 if first else at]
        return _joined(blanks, words)


def _joined(blanks: Sequence[str], words: Sequence[str]) -> str:
    """The text in which the words stand among the blanks, which are one more."""
    return "".join(map("".join, zip_longest(blanks, words, fillvalue="")))


def _words(prompt: Worded) -> TextPrompt:
    """What stands in the slots."""
    (words,) = TextPrompt.among([getattr(prompt, "words", prompt)])
    return words


def assignments(
    logits: Floats, classes: NDArray[np.int64], words: int, candidates: int, *, count: int
) -> list[Assignment]:
    """The assignments of words to classes with the lowest loss, tried out best first.

    Args:
        logits: What the LM predicts, shape `(examples, words)`.
        classes: The class of each example, shape `(examples,)`.
        words: Words of a class.
        candidates: Words of each class that are tried.
        count: The assignments that are wanted.
    """
    taken: set[int] = set()
    first, ranked = [], []
    for c in range(int(classes.max()) + 1):
        order = telling(logits, classes == c).tolist()
        # Where other classes have taken its candidates, the words behind them make up for those.
        own = [i for i in order if i not in taken][:words]
        ranked.append(list(dict.fromkeys([*order[:candidates], *own])))
        first.append(own)
        taken.update(own)
    if any(len(some) < words for some in first):
        return []
    # From here on a word is its column among those that any class tries.
    columns = np.unique(np.concatenate(ranked))
    tried = [np.searchsorted(columns, some) for some in ranked]
    probabilities = softmax(logits[:, columns], axis=1).clip(np.finfo(float).tiny)
    begin = tuple(tuple(np.searchsorted(columns, sorted(some)).tolist()) for some in first)
    losses: dict[Assignment, float] = {begin: np.inf}
    done: set[Assignment] = set()
    for _ in range(_EXPANDED):
        best = min((each for each in losses if each not in done), key=losses.__getitem__)
        done.add(best)
        losses |= neighbours(probabilities, classes, best, tried, most=_EXPANDED + count)
        if len(losses) == len(done):
            break
    found = sorted(losses, key=losses.__getitem__)[:count]
    return [tuple(tuple(columns[list(some)].tolist()) for some in each) for each in found]


def telling(logits: Floats, own: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The words, those first that the LM expects behind a class more than behind the others.

    Args:
        logits: What the LM predicts, shape `(examples, words)`.
        own: Whether an example is of the class, shape `(examples,)`.
    """
    apart = logits[own].mean(0) - logits[~own].mean(0)
    return np.argsort(-apart / (logits.std(0) + 1e-9), kind="stable")


def neighbours(
    probabilities: Floats,
    classes: NDArray[np.int64],
    assignment: Assignment,
    tried: Sequence[NDArray[np.int64]],
    *,
    most: int,
) -> dict[Assignment, float]:
    """The assignment and the best that differ from it in one word, with their losses in nats.

    Args:
        probabilities: What the LM predicts, shape `(examples, words)`, each above 0.
        classes: The class of each example, shape `(examples,)`.
        assignment: The words of each class.
        tried: The words of each class that are tried.
        most: How many that differ are wanted.
    """
    taken = {i for some in assignment for i in some}
    # AutoPrompt, equation 1: the probabilities of a class's words are added up. (examples, classes)
    sums = np.stack([probabilities[:, list(some)].sum(1) for some in assignment], 1)
    answered = np.log(sums[np.arange(len(sums)), classes])  # the right answers, shape (examples,)
    found = {assignment: float((np.log(sums.sum(1)) - answered).mean())}
    changes: list[tuple[int, int, int]] = []  # the class, the word that goes, the one that comes
    losses = []
    for c, own in enumerate(assignment):
        mine = classes == c
        others = np.delete(sums, c, 1).sum(1)[:, None]  # (examples, 1)
        new = np.array([i for i in tried[c].tolist() if i not in taken], dtype=np.int64)
        for old in own:
            rest = probabilities[:, [i for i in own if i != old]].sum(1)[:, None]
            with_new = probabilities[:, new] + rest  # (examples, new)
            right = np.log(with_new[mine]).sum(0) + answered[~mine].sum()
            losses.append((np.log(with_new + others).sum(0) - right) / len(classes))
            changes += [(c, old, word) for word in new.tolist()]
    values = np.concatenate(losses)
    for i in np.argsort(values, kind="stable")[:most].tolist():
        c, old, word = changes[i]
        changed = tuple(sorted({*assignment[c]} - {old} | {word}))
        found[(*assignment[:c], changed, *assignment[c + 1 :])] = float(values[i])
    return found
