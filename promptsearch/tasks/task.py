"""Tasks: data in three disjoint, locked splits, a template, the answers and a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from promptsearch.errors import FieldError, TaskError, UnknownName
from promptsearch.tasks.answered import as_if_answered
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.drawing import WHOLE, Drawing, draw_up
from promptsearch.tasks.examples import Example as Example
from promptsearch.tasks.joining import joined
from promptsearch.tasks.lm_eval.rows import read_lm_eval
from promptsearch.tasks.metrics import METRICS, find_metric
from promptsearch.tasks.metrics.asked import Given, asked_metrics, with_metric
from promptsearch.tasks.metrics.measured import check_metric
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.normalise import NORMALISES, Normalise
from promptsearch.tasks.reading import make_answers, one_of_each, read_rows, spelling
from promptsearch.tasks.sources import (
    Sources,
    name_of,
    placed,
    read_sources,
    rows_of_each,
    rows_where,
)
from promptsearch.tasks.splits import SPLITS as SPLITS
from promptsearch.tasks.splits import Split as Split
from promptsearch.tasks.splits import sizes_of
from promptsearch.tasks.template import Template

_BUILTIN = Path(__file__).parent / "builtin"


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
        options: The field that lists a row's own answers to choose from; None where rows have none.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        decoding: How answers are generated.
        metrics: The names of the metrics that are reported beside it, in their order, each with its
            options; the options of `metric` itself stand here, too, where it has any.
        family: The name that the tasks of one key `each` share; empty for a task alone.
        drawing: What its splits are drawn from; None where they were given as they are.
    """

    name: str
    template: Template
    choices: tuple[str, ...] | None
    splits: Mapping[str, Split]
    metric: str
    notes: tuple[str, ...] = ()
    options: str | None = None
    normalise: Normalise = "none"
    decoding: Decoding = Decoding()
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    family: str = ""
    drawing: Drawing | None = field(default=None, compare=False, repr=False)

    @property
    def measures(self) -> dict[str, Metric]:
        """All its metrics by name, that of the verdict first."""
        options = {self.metric: self.metrics.get(self.metric, {}), **self.metrics}
        return {name: find_metric(name, given) for name, given in options.items()}

    @property
    def kind(self) -> Literal["choices", "text"]:
        """How the task is answered."""
        return "text" if self.choices is None and not self.options_by_row else "choices"

    @property
    def options_by_row(self) -> bool:
        """Whether each example has answers of its own to choose from."""
        return self.options is not None

    def drawn(self, seed: int) -> Task:
        """The task with search and select examples of a seed's own, from all that test leaves.

        The test split stays as it is.

        Args:
            seed: The seed; the same one draws the same examples.

        Raises:
            TaskError: The task was not made from rows.
        """
        if self.drawing is None:
            raise TaskError(f"task '{self.name}' was not made from rows: nothing can be drawn")
        return replace(self, splits=self.drawing.splits(seed)[0])

    @staticmethod
    def from_rows(
        rows: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]],
        *,
        template: str | Sequence[Mapping[str, str]],
        label: str,
        splits: Mapping[str, Any] | None = None,
        answers: Mapping[Any, Any] | Literal["labels"] | None = None,
        aliases: Mapping[Any, Any] | None = None,
        references: int | None = None,
        group: str | None = None,
        identity: str | None = None,
        normalise: Normalise = "none",
        decoding: Decoding | Mapping[str, Any] | None = None,
        metric: Given | None = None,
        metrics: Sequence[Given] = (),
        name: str = "task",
    ) -> Task:
        """A task from rows of data.

        The rows' texts alone decide which row falls into which split: rows are ordered by a hash of
        their texts, so the order of the file makes no difference. Where several rows have the same
        text, one is kept, so no text stands in two splits. See `promptsearch.tasks.drawing` for
        splits with rows of their own.

        Args:
            rows: Rows of the data, each field name -> value; `promptsearch.tasks.fields` says which
                text a value has. Or the rows of each split that has its own, by its name.
            template: A text, or messages, `{role: content}` each; see
                `promptsearch.tasks.template`.
            label: The field that holds the right answer, or a list of right answers.
            splits: The number of examples of `search`, `select` and `test`, or `{"per_class": N}`;
                one may be left out that has rows of its own, and takes all of them.
            answers: Label value -> answer text, for tasks of choice; `labels` for the label's own
                values; `{"field": NAME}` for the answers that a field of each row lists, with
                `"names": NAME` beside it where the label is a name of one that another field lists.
                Left out: the label's text is the answer.
            aliases: Answer text -> other texts that count as right, or `{"field": NAME}` for those
                that a field of each row holds; text answers only.
            references: How many of a row's right answers count in the loss; left out: all.
            group: The field that names a row's group; rows of one group stay in one split.
            identity: The field whose text says which rows are the same, where more stands in their
                texts than what is asked; left out: their texts and options.
            normalise: What the log-probability of an answer to choose from is divided by: its
                number of `tokens`, `bytes` or `characters`, or nothing (`none`).
            decoding: How text answers are generated, or the arguments of `Decoding`.
            metric: The metric that the verdict is about, its name or `{name: options}`; left out:
                `accuracy`, or `exact_match` for text answers.
            metrics: Further ones, which are reported beside it.
            name: The task's name.

        Raises:
            TaskError: A field or an answer is missing or has no text, there is too little data, or
                an argument is of another kind.
            UnknownName: There is no such split, metric, length to normalise by or way of decoding.
            TemplateError: The template cannot be read.
        """
        parsed = Template.parse(template)
        sources = placed(rows)
        every = [row for some in sources.values() for row in some]
        sizes = sizes_of(splits or {}, list(sources), name)
        try:
            meant = make_answers(parsed, label, every, answers, aliases, references)
        except FieldError:  # it names the row
            raise
        except TaskError as error:
            raise TaskError(f"task '{name}': {error}") from error
        if normalise not in NORMALISES:
            raise UnknownName("length to normalise by", str(normalise), NORMALISES)
        read = {source: read_rows(some, meant, group, identity) for source, some in sources.items()}
        single, notes = one_of_each(read, meant)
        notes += spelling(every, [each for some in read.values() for each in some], meant)
        counts = {source: len(some) for source, some in sources.items()}
        drawing, told = draw_up(name, single, counts, sizes, meant.choices)
        parts, more = drawing.splits()
        if metric is None:
            metric = "accuracy" if meant.choices or meant.options else "exact_match"
        main, options = asked_metrics(metric, metrics)
        task = Task(
            name,
            parsed,
            meant.choices,
            parts,
            main,
            (*meant.told, *notes, *told, *more),
            options=meant.options,
            normalise=normalise,
            decoding=Decoding.of(decoding),
            metrics=options,
            drawing=drawing,
        )
        task.check()
        return task

    def check(self) -> None:
        """See that metrics and normalisation fit the answers.

        Raises:
            TaskError: They do not.
        """
        if self.kind == "text" and self.normalise != "none":
            raise TaskError(
                f"task '{self.name}': 'normalise' compares answers to choose from, and this task's "
                "are texts: leave it out"
            )
        for name, measure in self.measures.items():
            self.check_metric(name, measure)

    def check_metric(self, name: str, metric: Metric) -> None:
        """See that a metric fits the answers, and works on rows of the test split.

        Args:
            name: Its name in study files.
            metric: The metric.

        Raises:
            TaskError: It does not.
        """
        # One of texts that the study's author wrote costs its own number if it fails, never the
        # study; of choices, where a function will do, a slip is told at once.
        tried = name in METRICS or self.kind == "choices"
        rows = as_if_answered(self.splits["test"].examples, self.choices) if tried else ()
        check_metric(metric, self.kind, rows)
        if self.options_by_row and name in ("balanced_accuracy", "f1"):
            raise TaskError(
                f"task '{self.name}': the metric '{name}' is about classes, but the answers "
                "of rows have only their places in common: take accuracy"
            )

    @staticmethod
    def load(
        source: str | Mapping[str, Any],
        folder: Path | None = None,
        *,
        metric: Given | None = None,
    ) -> Task:
        """A built-in task by name, or a task as a study file describes it.

        Args:
            source: The name, or the mapping under the key `task` of a study file.
            folder: The folder to which relative data paths are relative; left out: the current one.
            metric: The metric to use instead of the task's own; it may be one of its further ones.

        Raises:
            UnknownName: No built-in task has the name.
            TaskError: The data cannot be read, `from_rows` refuses them, or there are several tasks
                under the key `each`.
        """
        found = Task.load_each(source, folder, metric=metric)
        if found[0].family:
            raise TaskError(
                f"'each' makes {len(found)} tasks of '{found[0].family}': load them with "
                "Task.load_each"
            )
        return found[0]

    @staticmethod
    def load_each(
        source: str | Mapping[str, Any],
        folder: Path | None = None,
        *,
        metric: Given | None = None,
    ) -> list[Task]:
        """A task, or with the key `each` one of every value of a field, called `NAME-VALUE`.

        Args:
            source: See `load`, like the other arguments.
            folder: The folder to which relative data paths are relative.
            metric: The metric to use instead of the task's own; it may be one of its further ones.

        Raises:
            UnknownName: No built-in task has the name, or no row a field or value of `where`.
            TaskError: The data cannot be read, or `from_rows` refuses them.
        """
        if isinstance(source, str):
            path = builtin_task(source)
            source = {"name": source, **yaml.safe_load(path.read_text("utf-8"))}
            folder = path.parent
        given = {key: value for key, value in source.items() if value is not None}
        given.pop("description", None)
        given = with_metric(given, metric)
        if (asked := given.pop("lm_eval", None)) is not None:
            theirs = read_lm_eval(asked, folder or Path())
            keys = with_metric(theirs.keys, given.get("metric"))
            task = _from_sources(theirs.rows, {"name": theirs.name, **keys, **given})
            return [replace(task, notes=(*theirs.notes, *task.notes))]
        data, where = given.pop("data", None), given.pop("where", {})
        each, join = given.pop("each", None), given.pop("join", {})
        sources, notes = read_sources(data, folder or Path())
        given.setdefault("name", name_of(data))
        if join:
            sources = {source: joined(some, join) for source, some in sources.items()}
        if where:
            sources, told = rows_where(sources, where)
            notes += told
        if each is None:
            found = [_from_sources(sources, given)]
        else:
            name = str(given["name"])
            found = [
                replace(_from_sources(some, {**given, "name": part}), family=name)
                for part, some in rows_of_each(sources, each, name).items()
            ]
        return [replace(task, notes=(*notes, *task.notes)) for task in found]


def _from_sources(sources: Sources, given: Mapping[str, Any]) -> Task:
    return Task.from_rows(sources.get(WHOLE, sources), **given)


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
