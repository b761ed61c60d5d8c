"""The text before an answer: description, solved examples, question; as the harness writes it.

It follows `ConfigurableTask.fewshot_context` and `build_qa_turn` of version 0.4.13, without a chat
template. Solved examples are drawn as `simple_evaluate` draws them with its default seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random

from promptsearch.errors import TaskError
from promptsearch.printable import brief
from promptsearch.tasks.lm_eval.config import TaskFile
from promptsearch.tasks.lm_eval.reading import Document, Reading
from promptsearch.tasks.lm_eval.solving import Solvers

#: The seed of `simple_evaluate` for solved examples.
_SEED = 1234


class Contexts:
    """Writes the texts of a split, document by document in their order.

    Args:
        file: The task's file.
        reading: Reads its documents.
        solvers: The documents that are solved before those of the split.

    Raises:
        TaskError: There are too few solvers.
    """

    def __init__(self, file: TaskFile, reading: Reading, solvers: Solvers) -> None:
        self._file, self._reading, self._random = file, reading, Random(_SEED)
        self._count = file.config.num_fewshot or 0
        self._pool, self._without = solvers
        default = file.config.fewshot_config.sampler == "default"
        needed = self._count + bool(self._count and self._without and default)
        if len(self._pool) < needed:
            raise TaskError(
                f"{file.path}: num_fewshot is {self._count}, which takes {needed} documents; "
                f"there are {len(self._pool)} to take solved examples from"
            )

    def text(self, document: Document, place: str) -> str:
        """What stands before the answer.

        Args:
            document: The document.
            place: Where it stands, for messages.
        """
        reading, config = self._reading, self._file.config
        parts = [reading.description(document, place)]
        parts += [self._solved(each, place) for each in self._drawn(document, place)]
        question, prefix = reading.question(document, place), reading.prefix(document, place)
        parts += [question, _between(question, prefix, config.target_delimiter), prefix]
        return "".join(parts)

    def answer(self, document: Document, answer: str, place: str) -> str:
        """A text answer as it goes on behind the text, with what stands between them."""
        prefix = self._reading.prefix(document, place)
        if not prefix:
            return self._file.config.target_delimiter + answer
        return _between(prefix, answer, " ") + answer

    def _drawn(self, document: Document, place: str) -> Sequence[Document]:
        """The documents that are solved before this one."""
        if not self._count:
            return ()
        if self._file.config.fewshot_config.sampler == "first_n":
            return list(islice(self._others(self._pool, document), self._count))
        if not self._without:
            return self._random.sample(self._pool, self._count)
        found = list(self._others(self._random.sample(self._pool, self._count + 1), document))
        if len(found) < self._count:  # several are the same as this one
            others = list(self._others(self._pool, document))
            if len(others) < self._count:
                raise TaskError(
                    f"{place}: num_fewshot is {self._count}, and only {len(others)} documents are "
                    "other than this one: take away those that stand twice, or lower num_fewshot"
                )
            found = self._random.sample(others, self._count)
        return found[: self._count]

    def _others(self, pool: Iterable[Document], document: Document) -> Iterator[Document]:
        return (each for each in pool if not (self._without and each == document))

    def _solved(self, document: Document, place: str) -> str:
        """A solved example with what stands behind it."""
        given, config, reading = self._file.config.fewshot_config, self._file.config, self._reading
        place = f"{place}, a solved example before it"
        question = reading.question(document, place, given.doc_to_text)
        target = reading.target(document, place, given.doc_to_target)
        prefix = reading.prefix(document, place, given.gen_prefix)
        wanted = given.doc_to_choice if given.doc_to_choice is not None else config.doc_to_choice
        if isinstance(target, int) and wanted is not None:
            choices = reading.choices(document, place, given.doc_to_choice)
            target = choices[target] if -len(choices) <= target < len(choices) else target
        if isinstance(target, list) and target:
            target = target[0]
        between = _given(given.target_delimiter, config.target_delimiter)
        behind = _given(given.fewshot_delimiter, config.fewshot_delimiter)
        if target is None or target == "":  # the harness then writes no answer
            return question + _between(question, prefix, between) + prefix
        if not isinstance(target, str):
            raise TaskError(f"{place}: the answer is {brief(target)}: expected a text")
        behind_question = _between(question, prefix, between) if prefix else between
        answer = prefix + _between(prefix, target, " ") + target
        return question + behind_question + answer + behind


def _given(own: str | None, otherwise: str) -> str:
    return otherwise if own is None else own


def _between(before: str, behind: str, delimiter: str) -> str:
    """The delimiter, where neither of the two texts has whitespace there already."""
    if not before or not behind or before[-1].isspace() or behind[0].isspace():
        return ""
    return delimiter
