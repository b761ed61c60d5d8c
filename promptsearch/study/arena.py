"""An arena: what all runs on one task with one prompt length and kind of template share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from promptsearch.errors import ModelError, StudyError, Tampered
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.kinds import sampled_under
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.layout import begins_row
from promptsearch.scoring.protocol import Scorer, inside, price_of
from promptsearch.scoring.scorer import SplitScorer, make_scorer
from promptsearch.search.metric_scorer import MetricScorer
from promptsearch.search.pool import Pool
from promptsearch.study.aims import Aims
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.task import SPLITS, Example, Split, Task
from promptsearch.tasks.template import Template


def scored_size(task: Task, score_on: int) -> int:
    """How many search examples every prompt is scored on: at most half of the split.

    They are the first ones.

    Args:
        task: The task.
        score_on: How many are wanted.

    Raises:
        StudyError: The split is too small.
    """
    size = min(score_on, len(task.splits["search"]) // 2)
    if size < 1:
        raise StudyError(
            f"task '{task.name}': the search split needs at least 2 examples, one to score on and "
            "one to train on"
        )
    return size


@dataclass(frozen=True)
class Arena:
    """What all runs on one task with one prompt length and kind of template share.

    Args:
        task: The task.
        lm: The LM in float32.
        dtype: The dtype of the search.
        template: The bound template; for prompts that stand apart from the text, such as a prefix,
            with its one slot in front.
        space: The hard prompts.
        searching: The search split in the search's dtype.
        exact: Each split in float32.
        score_on: Search examples per evaluation.
        pool: The tokens of hard prompts, with their price.
        measures: The task's metrics by name, that of the verdict first.
        follows: The metric that searches follow; None for the loss.
        by_metric: Whether the winner is selected by the first of the metrics, not by its loss.
    """

    task: Task
    lm: TextModel
    dtype: torch.dtype
    template: Template
    space: PromptSpace
    searching: SplitScorer
    exact: dict[str, SplitScorer]
    score_on: int
    pool: Pool
    measures: Mapping[str, Metric]
    follows: Metric | None = None
    by_metric: bool = False

    @staticmethod
    def build(
        task: Task,
        lm: TextModel,
        dtype: torch.dtype,
        length: int,
        pool: Pool | Sequence[int],
        score_on: int,
        memory: int | None = None,
        kind: Kind = "slots",
        aims: Aims | None = None,
        tested: SplitScorer | None = None,
    ) -> Arena:
        """Bind the template and lay out all examples.

        Args:
            task: The task.
            lm: The LM in float32.
            dtype: The dtype of the search.
            length: Prompt tokens where the template does not fix them.
            pool: The pool of hard prompts; token ids alone cost nothing.
            score_on: Search examples per evaluation, at most half of the split.
            memory: Bytes for keys and values.
            kind: The prompts' kind.
            aims: What searches follow, and what answers are measured by; left out: the loss, and
                the task's metrics.
            tested: The test split in float32 where an arena of another draw has it already.

        Raises:
            TemplateError: The answers or the examples do not fit the model.
        """
        template = task.template.bind(length).taking(kind)

        # The runs of a study come back to the same examples: all splits are kept, each in its share
        # of the memory.
        share = None if memory is None else memory // (len(SPLITS) + (dtype != lm.dtype))

        def engine(model: TextModel, split: Split) -> SplitScorer:
            return make_scorer(
                model,
                template,
                split,
                task.choices,
                normalise=task.normalise,
                memory=share,
                keep=True,
            )

        exact = {
            name: tested if tested and name == "test" else engine(lm, task.splits[name])
            for name in SPLITS
        }
        searching = (
            exact["search"] if dtype == lm.dtype else engine(lm.to(dtype), task.splits["search"])
        )
        pool = pool if isinstance(pool, Pool) else Pool(tuple(pool), "tokens")
        bound = task.template.bind(length)
        first = partial(lm.decode, begins=begins_row(bound, lm)[0])
        space = PromptSpace(
            pool.ids,
            bound.length,
            lm.decode,
            slots=bound.slots,
            first=first,
            embeddings=lambda: inside(searching, "embeddings").embeddings,
        )
        size = scored_size(task, score_on)
        return Arena(
            *(task, lm, dtype, template, space, searching, exact, size, pool),
            measures=task.measures if aims is None else aims.measures[task.name],
            follows=None if aims is None else aims.follows,
            by_metric=aims is not None and aims.by_metric,
        )

    def taking(self, pool: Pool) -> Arena:
        """The same arena with another pool."""
        return replace(self, pool=pool, space=self.space.over(pool.ids))

    @property
    def scored(self) -> ExampleIds:
        """Ids of the search examples that every prompt is scored on.

        They are the first ones of a split in hashed order.
        """
        return np.arange(self.score_on)

    @property
    def training(self) -> ExampleIds:
        """Ids of the other search examples, which may be trained on, shape `(training,)`."""
        return np.arange(self.score_on, len(self.task.splits["search"]))

    @cached_property
    def bare(self) -> SplitScorer:
        """The select split in float32 under the template's text alone: for the empty prompt.

        It is the same for all lengths and kinds.
        """
        task = self.task
        return make_scorer(
            self.lm,
            task.template.bind(1),
            task.splits["select"],
            task.choices,
            normalise=task.normalise,
        )

    def samples(self, rng: np.random.Generator, count: int) -> Sequence[Prompt]:
        """Prompts to try the arena out with, at random: as costly as those that a run proposes."""
        kind = sampled_under(self.template.kind)
        if not kind.trained:  # words ask nothing of the model, which may stand behind an endpoint
            return self.space.sample(rng, count)
        white_box = inside(self.exact["search"], "embeddings, keys and values")
        return kind.samples(self.space, white_box, rng, count)

    def ids(self, split: str) -> ExampleIds:
        """Ids of the examples of a split on which prompts are compared: of search, `scored`."""
        return self.scored if split == "search" else np.arange(len(self.task.splits[split]))

    def examples(self, split: str) -> list[Example]:
        """These examples themselves."""
        return [self.task.splits[split].examples[i] for i in self.ids(split)]

    def writes(self, split: str) -> bool:
        """Whether text is generated on a split: always on test, else where a metric decides."""
        wanted = {"search": self.follows, "select": self.selects_by, "test": self.measures}
        return self.task.kind == "text" and wanted[split] is not None

    @property
    def races(self) -> bool:
        """Whether a part of the examples tells how good a prompt is: not of every metric."""
        return self.follows is None or self.follows.mean

    @property
    def selects_by(self) -> Metric | None:
        """The metric by which the winner is selected; None for the loss."""
        return self.measures[self.task.metric] if self.by_metric else None

    @property
    def tells(self) -> Metric:
        """The metric that says what is wrong with an answer: what is followed, or else reported."""
        return self.follows or self.measures[self.task.metric]

    @property
    def rescores(self) -> bool:
        """Whether the best prompts are scored again: a search in float32 has their losses."""
        return self.searching is not self.exact["search"] or self.follows is not None

    def followed(self, scorer: Scorer) -> tuple[Scorer, int]:
        """What searches score with, and the most tokens that it generates for an example.

        Args:
            scorer: The scorer of the search split, or what stands in for it.
        """
        if self.follows is None:
            return scorer, 0
        following = MetricScorer(scorer, self.follows, self.task)
        return following, following.most

    @property
    def price_of_evaluation(self) -> int:
        """The most that a prompt of the usual length costs on `score_on`, in tokens."""
        scorer, most = self.followed(self.exact["search"])
        return price_of(scorer, self.template.length, self.scored) + most * len(self.scored)

    def check_unchanged(self) -> None:
        """See that the LM's weights are as they were loaded.

        Raises:
            ModelError: They are not.
        """
        for model in self._models():
            model.check_unchanged()

    def watch(self) -> Callable[[], None]:
        """What tells a change of the weights from now on, at no cost while there is none.

        Returns:
            A function that raises `Tampered` where something has written to them in place.
        """
        written = [model.integrity.versions for model in self._models()]

        def look() -> None:
            nonlocal written
            if (now := [model.integrity.versions for model in self._models()]) != written:
                self.check_untouched()
                written = now

        return look

    def check_untouched(self) -> None:
        """Compare the weights with those that were loaded, and bring these back.

        Raises:
            Tampered: Something has written to them.
        """
        try:
            self.check_unchanged()
        except ModelError as error:
            whole = all(model.integrity.restore() for model in self._models())
            for scorer in (self.searching, self.bare, *self.exact.values()):
                scorer.forget()
            advice = (
                "leave the LM's weights alone, and propose other ones as `Weights` or `TunedPrompt`"
            )
            raise Tampered(
                f"{error}. They must not be written to: {advice}", mended=whole
            ) from error

    def _models(self) -> list[LanguageModel]:
        """The LM in the dtypes that score; none where it runs elsewhere."""
        models = [self.lm.to(dtype) for dtype in dict.fromkeys((self.lm.dtype, self.dtype))]
        return [model for model in models if isinstance(model, LanguageModel)]
