"""Tasks: data in three disjoint, locked splits, a template, the answers and a metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from promptsearch.errors import TaskError, UnknownName
from promptsearch.tasks.data import read_data
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.examples import Answers, read_examples
from promptsearch.tasks.examples import Example as Example
from promptsearch.tasks.metrics import find_metric, named
from promptsearch.tasks.metrics.measured import check_metric
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.template import Template

#: The names of a task's splits: prompts are searched, then selected, then tested.
SPLITS = ("search", "select", "test")
_BUILTIN = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class Split:
    """Examples that belong together, in a fixed order.

    Args:
        name: `search`, `select` or `test`.
        examples: All of them.
    """

    name: str
    examples: tuple[Example, ...]

    @property
    def hash(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of all examples in their order."""
        rows = [_content(e) for e in self.examples]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:20]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.examples)


@dataclass(frozen=True)
class Task:
    """A task: what is to be solved.

    Args:
        name: The name of its folder, and of its part in reports.
        template: The template, unbound: slots without a length get the study's.
        choices: The answers' texts for tasks of choice; None where they differ by row, or where the
            answer is free text.
        splits: `search`, `select` and `test`, with no text in common.
        metric: The name of the metric that the verdict is about.
        notes: For the report, what was dropped from the data or read otherwise than it may look.
        options_by_row: Whether each example has answers of its own to choose from.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        decoding: How answers are generated.
        metrics: The names of the metrics that are reported beside it, in their order, each with its
            options; the options of `metric` itself stand here, too, where it has any.
    """

    name: str
    template: Template
    choices: tuple[str, ...] | None
    splits: Mapping[str, Split]
    metric: str
    notes: tuple[str, ...] = ()
    options_by_row: bool = False
    normalise: Normalise = "none"
    decoding: Decoding = Decoding()
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def measures(self) -> dict[str, Metric]:
        """All its metrics by name, that of the verdict first."""
        options = {self.metric: self.metrics.get(self.metric, {}), **self.metrics}
        return {name: find_metric(name, given) for name, given in options.items()}

    @property
    def kind(self) -> Literal["choices", "text"]:
        """How the task is answered."""
        return "text" if self.choices is None and not self.options_by_row else "choices"

    @staticmethod
    def from_rows(
        rows: Iterable[Mapping[str, Any]],
        *,
        template: str | Sequence[Mapping[str, str]],
        label: str,
        splits: Mapping[str, int],
        answers: Mapping[Any, str] | None = None,
        aliases: Mapping[str, Sequence[str]] | None = None,
        metric: str | Mapping[str, Mapping[str, Any] | None] | None = None,
        metrics: Sequence[str | Mapping[str, Mapping[str, Any] | None]] = (),
        name: str = "task",
    ) -> Task:
        """A task from rows of data.

        The rows' texts alone decide which row falls into which split: rows are ordered by a hash of
        their texts, so the order of the file makes no difference. Where several rows have the same
        text, one is kept, so no text stands in two splits.

        Args:
            rows: Rows of the data, each field name -> value; `promptsearch.tasks.fields` says which
                text a value has.
            template: A text, or messages, `{role: content}` each; see
                `promptsearch.tasks.template`.
            label: The field that holds the right answer.
            splits: The number of examples of `search`, `select` and `test`.
            answers: Label value -> answer text, for tasks of choice. Left out: the label's text is
                the answer.
            aliases: Answer text -> other texts that count as right; text answers only.
            metric: The metric that the verdict is about, its name or `{name: options}`; left out:
                `accuracy`, or `exact_match` for text answers.
            metrics: Further ones, which are reported beside it.
            name: The task's name.

        Raises:
            TaskError: A field or an answer is missing or has no text, or there is too little data.
            TemplateError: The template cannot be read.
        """
        parsed = Template.parse(template)
        given = list(rows)
        if not given:
            raise TaskError("the data are empty: expected at least one row for each split")
        try:
            meant = Answers(answers, aliases, parsed, label)
        except TaskError as error:
            raise TaskError(f"task '{name}': {error}") from error
        if parsed.end and meant.choices is not None:
            raise TaskError(
                f"task '{name}': the template {parsed.text!r} has {parsed.end!r} behind "
                "{answer}, which ends text answers, but this task has answers to choose from, "
                "which have no end: leave it out, or make it a part of each answer"
            )
        if metric is None:
            metric = "exact_match" if meant.choices is None else "accuracy"
        main, options = _named(metric, metrics)
        examples, notes = read_examples(given, parsed, meant)
        parts = _split(examples, splits, name, len(given))
        task = Task(name, parsed, meant.choices, parts, main, tuple(notes), metrics=options)
        for measure in task.measures.values():
            check_metric(measure, None if task.choices is None else len(task.choices))
        return task

    @staticmethod
    def load(
        source: str | Mapping[str, Any],
        folder: Path | None = None,
        *,
        metric: str | Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> Task:
        """A built-in task by name, or a task as a study file describes it.

        Args:
            source: The name, or the mapping under the key `task` of a study file.
            folder: The folder to which relative data paths are relative; left out: the current one.
            metric: The metric to use instead of the task's own.

        Raises:
            UnknownName: No built-in task has the name.
            TaskError: The data cannot be read, or `from_rows` refuses them.
        """
        if isinstance(source, str):
            path = builtin_task(source)
            source = {"name": source, **yaml.safe_load(path.read_text("utf-8"))}
            folder = path.parent
        given = {
            key: value
            for key, value in source.items()
            if key not in ("description", "data") and value is not None
        }
        data = source["data"]
        file = data.get("path")
        given.setdefault(
            "name", Path(file).stem if file else str(data.get("hub", "task")).rpartition("/")[2]
        )
        return Task.from_rows(
            read_data(data, folder or Path()), **{**given, **({"metric": metric} if metric else {})}
        )


def builtin_tasks() -> dict[str, str]:
    """The built-in tasks: name -> what it is, in one line."""
    return {
        path.stem: str(yaml.safe_load(path.read_text("utf-8"))["description"])
        for path in sorted(_BUILTIN.glob("*.yaml"))
    }


def builtin_task(name: str) -> Path:
    """The file of a built-in task.

    Args:
        name: The task's name.

    Raises:
        UnknownName: No built-in task has the name.
    """
    known = builtin_tasks()
    if name not in known:
        raise UnknownName("task", name, known)
    return _BUILTIN / f"{name}.yaml"


def _content(example: Example) -> list[Any]:
    """What a split's hash depends on; what an example does not have is left out."""
    more = (example.also, example.options, example.group)
    plain = [dict(example.fields), example.answer, list(example.aliases)]
    return [*plain, *more] if any(more) else plain


def _named(
    metric: str | Mapping[str, Mapping[str, Any] | None],
    metrics: Sequence[str | Mapping[str, Mapping[str, Any] | None]],
) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """The name of the main metric, and the options of all that have any or are no main one."""
    main, options = named(metric)
    found: dict[str, Mapping[str, Any]] = {main: options} if options else {}
    for name, given in map(named, metrics):
        if name == main or name in found:
            raise TaskError(f"the metric '{name}' is asked for twice: expected each name once")
        found[name] = given
    return main, found


def _split(
    examples: Sequence[Example], sizes: Mapping[str, int], task: str, rows: int
) -> dict[str, Split]:
    for name in sizes:
        if name not in SPLITS:
            raise UnknownName("split", name, SPLITS)
    for name in SPLITS:
        if int(sizes.get(name, 0)) < 1:
            raise TaskError(
                f"task '{task}': the split '{name}' needs at least 1 example, "
                f"got {sizes.get(name, 0)}"
            )
    wanted = sum(sizes[name] for name in SPLITS)
    if wanted > len(examples):
        raise TaskError(
            f"task '{task}': the splits want {wanted} examples "
            f"({', '.join(f'{n}: {sizes[n]}' for n in SPLITS)}), "
            f"but the data hold {len(examples)} different ones in {rows} rows"
        )
    splits, begin = {}, 0
    for name in SPLITS:
        part = examples[begin : begin + sizes[name]]
        numbered = tuple(replace(e, id=i) for i, e in enumerate(part))
        splits[name] = Split(name, numbered)
        begin += sizes[name]
    return splits
