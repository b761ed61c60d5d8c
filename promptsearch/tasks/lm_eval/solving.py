"""Which documents are solved before a text, so that no search reads an answer that it must not.

What the harness scores is read with the solved examples that the harness takes. Searches read the
texts of the other splits: before these are solved only documents that nobody is tested on, or
selects by. Where the search split shares its documents with another of ours, some are set aside,
which solve and are no examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from promptsearch.errors import TaskError
from promptsearch.tasks.lm_eval.config import TaskFile
from promptsearch.tasks.lm_eval.documents import Documents
from promptsearch.tasks.lm_eval.reading import Document, Reading

#: The ways in which solved examples are drawn.
_SAMPLERS = ("default", "first_n")
#: One document of so many is set aside where splits of ours share them.
_ONE_OF = 10


class Solvers(NamedTuple):
    """The documents that the solved examples of a split's texts are drawn from.

    Args:
        documents: These, in order.
        without: Whether the document itself is left out.
    """

    documents: Sequence[Document] = ()
    without: bool = False


class Solving(NamedTuple):
    """What is solved before the texts of each split.

    Args:
        solvers: Our split -> its solvers.
        aside: The identities of the documents that are no examples.
        notes: What is done otherwise than in the harness.
    """

    solvers: Mapping[str, Solvers]
    aside: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def solving_of(
    file: TaskFile,
    reading: Reading,
    splits: Mapping[str, Documents],
    sources: Mapping[str, str],
) -> Solving:
    """What is solved before the texts of a task.

    Args:
        file: The task's file.
        reading: Reads its documents.
        splits: The documents of each split that the task names.
        sources: Our split -> the official one that it comes from.

    Raises:
        TaskError: Solved examples are drawn in a way that is not known here.
    """
    config, given = file.config, file.config.fewshot_config
    if not config.num_fewshot:
        return Solving(dict.fromkeys(sources, Solvers()))
    if given.sampler not in _SAMPLERS:
        raise TaskError(
            f"{file.path}: solved examples are drawn by '{given.sampler}': expected "
            f"{' or '.join(_SAMPLERS)}"
        )
    solved = given.split or config.fewshot_split
    source = solved or config.training_split or config.validation_split or sources["test"]
    written = given.samples if solved is None else None
    pool: Sequence[Document] = splits[source].rows if written is None else written
    # The harness leaves out the document itself only where it draws from the test split that the
    # file names, also where it names none; elsewhere no document may solve itself.
    theirs = {
        name: Solvers(pool, solved == config.test_split if name == "test" else source == split)
        for name, split in sources.items()
    }
    if written is not None:
        return Solving(theirs)
    return _Unread(file, reading, splits, sources).solving(theirs, source)


class _Unread:
    """Keeps from searches what they must not read solved.

    Args:
        file: The task's file.
        reading: Reads its documents.
        splits: The documents of each split that the task names.
        sources: Our split -> the official one that it comes from.
    """

    def __init__(
        self,
        file: TaskFile,
        reading: Reading,
        splits: Mapping[str, Documents],
        sources: Mapping[str, str],
    ) -> None:
        self._file, self._reading, self._splits, self._sources = file, reading, splits, sources
        #: The official split whose documents are searched; whether select shares them, and test.
        self._own = sources.get("search", sources["test"])
        self._shared, self._alone = "select" not in sources, "search" not in sources
        self._hidden = {
            identity
            for name in ("test", "select")
            if (split := sources.get(name, self._own)) != self._own
            for identity in self._identities(split)
        }

    def solving(self, theirs: Mapping[str, Solvers], source: str) -> Solving:
        """The solvers of all splits, those of the one that the harness scores as there.

        Args:
            theirs: Our split -> the solvers that the harness takes.
            source: The official split that these come from.
        """
        pool = self._open(source)
        if not pool:  # all of them are tested, or selected by
            source, pool = self._own, self._open(self._own)
        if self._shared and source == self._own:
            pool = self._part(pool)
        documents = [document for _, document in pool]
        searched = [name for name in self._sources if name != "test" or self._alone]
        ours = {
            name: Solvers(documents, source == self._sources[name] and not self._shared)
            for name in searched
        }
        aside = frozenset(identity for identity, _ in pool if self._shared)
        if all(len(documents) == len(theirs[name].documents) for name in searched):
            return Solving({**theirs, **ours}, aside)
        whose = "all texts" if self._alone else "the texts of search and select"
        note = (
            f"before {whose} are solved {len(documents)} documents of the split '{source}', not "
            "any that lm-eval takes: none of them is an example that selects or tests"
        )
        return Solving({**theirs, **ours}, aside, (note,))

    def _open(self, split: str) -> list[tuple[str, Document]]:
        """The documents of a split that are not hidden, each with its identity."""
        known = zip(self._identities(split), self._splits[split].rows, strict=True)
        return [
            (identity, document) for identity, document in known if identity not in self._hidden
        ]

    def _identities(self, split: str) -> list[str]:
        return [
            self._reading.identity(document, f"{self._file.config.task}, split {split}")
            for document in self._splits[split].rows
        ]

    def _part(self, pool: list[tuple[str, Document]]) -> list[tuple[str, Document]]:
        """The documents that are set aside: the first ones, or those of the least hashes."""
        config = self._file.config
        count = config.num_fewshot or 0
        if config.fewshot_config.sampler == "first_n":
            return pool[:count]
        ordered = sorted(pool, key=lambda each: sha256(each[0].encode()).digest())
        return ordered[: max(count, len(pool) // _ONE_OF)]
