"""A scorer whose loss is minus a metric: what a search meets that is told to follow one.

Lower stays better: of a metric whose lower scores are the better ones, it is the metric itself. An
example's loss is minus what it adds to the metric: minus its own value where the metric is a mean,
minus its pseudo-value of the jackknife where it is not, so that the mean of the losses is minus the
metric in either case. Choices are known from the losses in nats, and cost what these cost. Text is
generated, and what is generated is charged, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Floats, Generated, Scores
from promptsearch.scoring.protocol import Scorer, WhiteBox
from promptsearch.tasks.answered import chosen, generated
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.metrics.exact_match import ExactMatch
from promptsearch.tasks.metrics.measured import measured_over
from promptsearch.tasks.metrics.metric import Answered, Metric
from promptsearch.tasks.task import Example, Task


class MetricScorer:
    """Scores prompts by a metric, as `promptsearch.scoring.protocol.Scorer`.

    Args:
        scorer: The scorer of the split.
        metric: The metric that the search follows.
        task: The task that the split belongs to.
    """

    def __init__(self, scorer: Scorer, metric: Metric, task: Task) -> None:
        self._scorer, self._metric = scorer, metric
        self._choices, self._decoding = task.choices, task.decoding
        # Whether text is generated.
        self._writes = task.kind == "text"
        self._right = ExactMatch()
        # What was generated last, and where in it: (prompt's key, ids of examples) -> place.
        self._last: tuple[Generated, dict[tuple[str, bytes], int]] | None = None
        self.length, self.fits, self.lead = scorer.length, scorer.fits, scorer.lead
        self.adds = scorer.adds
        self.tail, self.examples = scorer.tail, scorer.examples
        self.demonstrations, self.encode = scorer.demonstrations, scorer.encode

    @property
    def most(self) -> int:
        """The most tokens that are generated for an example with one prompt."""
        return self._decoding.most if self._writes else 0

    @property
    def white_box(self) -> WhiteBox | None:
        """The inside of the LM, for searches that look at more than scores."""
        return self._scorer.white_box

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example."""
        how = repr(self._decoding) if self._writes else ""
        return repr((self._scorer.signature, self._metric.signature, how))

    def context(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens that are read behind its lead, `(examples,)`."""
        return (self.tail if self._writes else self._scorer.context)(examples)

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """The number of times that each example is read with one prompt, shape `(examples,)`."""
        if self._writes:
            return np.ones(len(examples), dtype=np.int64)
        return self._scorer.readings(examples)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The answers that the model generates; what was just scored is not generated again."""
        if self._last is not None and decoding == self._decoding:
            found, known = self._last
            places = [known.get((prompt.key, examples.tobytes()), -1) for prompt in prompts]
            if -1 not in places:
                kept, failed = enumerate(places), found.failures
                return Generated(
                    [found.texts[place] for place in places],
                    [found.ended[place] for place in places],
                    found.tokens[places],
                    computed=0,
                    failures={i: failed[place] for i, place in kept if place in failed},
                )
        return self._scorer.generate(prompts, examples, decoding)

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """The scores of all prompts on all examples.

        A prompt whose answers the metric cannot measure is a failure.
        """
        known = self.examples(examples)
        if self._writes:
            return self._of_text(prompts, examples, known)
        return self._of_choices(self._scorer.score(prompts, examples), known)

    def _of_choices(self, scores: Scores, known: list[Example]) -> Scores:
        losses, metric = np.full_like(scores.losses, np.nan), scores.metric.copy()
        choices = None if scores.choices is None else scores.choices.copy()
        failures = dict(scores.failures)
        for i in range(len(losses)):
            if i in failures:
                continue
            nats = None if choices is None else choices[i]
            rows = chosen(known, self._choices or (), nats, metric[i].tolist())
            try:
                losses[i] = self._parts([rows])
            except TaskError as error:
                failures[i], metric[i] = str(error), np.nan
                if choices is not None:
                    choices[i] = np.nan
        return replace(
            scores,
            losses=losses,
            metric=metric,
            choices=choices,
            failures=failures,
            followed=self._metric.name,
        )

    def _of_text(
        self, prompts: Sequence[Prompt], examples: ExampleIds, known: list[Example]
    ) -> Scores:
        found = self._scorer.generate(prompts, examples, self._decoding)
        ids = examples.tobytes()
        self._last = found, {(prompt.key, ids): i for i, prompt in enumerate(prompts)}
        losses = np.full((len(prompts), len(examples)), np.nan)
        metric, failures = losses.copy(), dict(found.failures)
        for i, texts in enumerate(found.texts):
            if i in failures:
                continue
            drawn = [generated(known, some) for some in zip(*texts, strict=True)]
            try:
                losses[i] = self._parts(drawn)
            except TaskError as error:
                failures[i] = str(error)
                continue
            right = [self._right.statistics(rows)[:, 0] for rows in drawn]
            metric[i] = np.mean(right, axis=0) == 1
        return Scores(
            losses,
            metric,
            None,
            found.computed,
            failures,
            generated=int(found.tokens.sum()),
            followed=self._metric.name,
        )

    def _parts(self, drawn: Sequence[Sequence[Answered]]) -> Floats:
        """Minus what each example adds to the metric over the answers drawn, `(examples,)`.

        Raises:
            TaskError: The metric cannot measure them.
        """
        shares = np.array(measured_over(self._metric, drawn).shares)
        return -shares if self._metric.higher_is_better else shares
