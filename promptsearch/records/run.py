"""What a run leaves: the schema of `result.json`, for its writer and readers.

The fields have the names of the file's keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from promptsearch.records.ledger import MOST_CACHED, Statement
from promptsearch.records.measured import ExamplesRecord, ScoreRecord


@dataclass(frozen=True)
class StartRecord:
    """The run that another one starts from.

    Args:
        run: Its label.
        seed: Its seed.
        key: The key of its winner.
        task: Its task; None where it is the same.
    """

    run: str
    seed: int
    key: str
    task: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class SettingsRecord:
    """What a run is told to do.

    Args:
        strategy: The strategy's name.
        label: Names the row in reports.
        options: The options as the study file gives them.
        seed: The strategy's seed.
        budget: LM tokens; None for no limit.
        length: Prompt tokens where the template does not fix them.
        start: None where it starts from no other run.
    """

    strategy: str
    label: str
    options: dict[str, Any]
    seed: int
    budget: int | None
    length: int
    start: StartRecord | None


@dataclass(frozen=True)
class NearestRecord:
    """The word whose embedding is nearest to a vector of a soft prompt, by cosine."""

    token: str
    cosine: float


@dataclass(frozen=True)
class WinnerRecord:
    """The prompt that a run chose.

    Args:
        kind: The prompt's kind, as in `promptsearch.prompts`.
        key: Its name in logs.
        text: As a reader sees it.
        ids: The token ids of a hard prompt.
        texts: The texts of a text prompt, one a slot.
        answers: The words that stand for each class under the prompt, in the order of the task's
            answers; None where these are the task's own.
        shape: The shape of a prompt made of vectors.
        numbers: How many numbers a prompt of changed weights has.
        nearest: For a soft prompt, one word a vector.
        bias: What a calibrated prompt adds to each choice, in nats.
    """

    kind: str
    key: str
    text: str
    ids: tuple[int, ...] | None = None
    texts: tuple[str, ...] | None = None
    answers: tuple[tuple[str, ...], ...] | None = None
    shape: tuple[int, ...] | None = None
    numbers: int | None = None
    nearest: tuple[NearestRecord, ...] = ()
    bias: tuple[float, ...] | None = None

    @property
    def own_losses(self) -> bool:
        """Whether its losses are of other answers or of changed chances: they compare with none."""
        return self.bias is not None or self.answers is not None


@dataclass(frozen=True)
class SearchRecord:
    """Loss on `score_on` in nats: in the dtype of the search, and in float32."""

    loss: float
    loss_fp32: float


@dataclass(frozen=True)
class BeginningRecord(StartRecord):
    """The winner of another run, which a run started from.

    Args:
        run: The label of that run.
        seed: The seed of that run.
        key: The prompt's name in logs.
        task: The task of that run; None where it is the same. The scores are those on it.
        kind: The prompt's kind.
        text: The prompt as a reader sees it.
        spent: LM tokens on that run's bill.
        select: The winner's scores on the select split.
        test: The winner's scores on the test split.
    """

    kind: str
    text: str
    spent: int
    select: ScoreRecord
    test: ScoreRecord

    @property
    def named(self) -> StartRecord:
        """What names it in the settings of the run that starts from it."""
        return StartRecord(self.run, self.seed, self.key, task=self.task)


@dataclass(frozen=True)
class TrainingRecord:
    """How the training of a run went.

    Args:
        length: The number of the prompt's parts: rows, one a token, or several tensors.
        unit: What a part is called.
        rate: Peak learning rate; None where the run ended before a range test had found one.
        tried: What the range test saw: each rate with the loss in nats after its step.
        steps: Optimizer steps.
        before: Search loss in nats of the first prompt; None where it could not be scored.
        after: The least search loss in nats.
        gradients: Norms of the gradient of the prompt at the first steps.
        reached: Share of the prompt's tokens, or of the changed tensors, that a gradient reached in
            these steps.
        clipped: Share of the steps whose gradient was clipped.
        moved: Distance of the last prompt from the first one, as a share of the first one's norm;
            None where several tensors are trained.
        diverged: Why training ended early; empty where it did not.
        winner: The winner's loss in nats on the select split.
        empty: The empty prompt's loss on the same examples; None where it cannot be scored.
        findings: What looks wrong, in words.
    """

    length: int
    unit: str
    rate: float | None
    tried: tuple[tuple[float, float], ...]
    steps: int
    before: float | None
    after: float
    gradients: tuple[float, ...]
    reached: float
    clipped: float
    moved: float | None
    diverged: str
    winner: float
    empty: float | None
    findings: tuple[str, ...]


#: What a paper counts: prompts that are scored, or optimizer steps.
Unit = Literal["prompts", "steps"]


@dataclass(frozen=True)
class Paper:
    """What a run of a strategy takes in its paper.

    Args:
        count: How many there are of the unit, at least 1.
        unit: Prompts that are scored, or optimizer steps.
        told: How the paper or its authors' code says it.
    """

    count: int
    unit: Unit
    told: str


@dataclass(frozen=True)
class NoExportRecord:
    """Why the winner of a run has no export.

    Either it scored differently when it was loaded again, or it could not be loaded or written.
    """

    error: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """How a finished run ended.

    Args:
        budget: LM tokens; None for no limit.
        ledger: Tokens by kind; `brought` are those of the run that it started from, which are on
            the bill, but not of its budget.
        spent: Tokens charged, with those brought.
        stopped: Why the search ended.
        proposals: Prompts that the search scored, once for each set of examples: all of
            `score_on`, or a minibatch.
        failures: Prompts that could not be scored.
        length: Prompt tokens of the winner.
        trainable: Parameters tuned.
        stored: Parameters that have to be kept to use the prompt.
        training: None where nothing was trained.
        dtype: The dtype of the search.
        curve: Pairs of tokens spent and least loss so far.
        select_curve: Pairs of tokens spent and loss in float32 on the select split of the prompt
            that was the best of the search by then; older records have none.
        start: None where it started from no other run.
        gap: Test loss minus float32 loss on `score_on`, in nats: what selection flattered.
        export: None where the winner was exported, and scored the same when it was loaded again.
        bytes: The size of the file with the stored parameters, or of the prompt's text; None where
            nobody measured it.
        signature: The short form, see `promptsearch.records.signature`; where a file has an empty
            one, its reader makes it.
        cost: The most that its tokens cost in money, in the currency of the endpoint's prices; None
            where there are none.
        control: Whether it is a control, which searches must beat to be worth their price; None
            where it was recorded before strategies said so.
        flops: The floating-point operations that its tokens stand for; None where sizes of models
            are not known, and in records of older prices.
        paper: What a run takes in the strategy's paper; None where nobody said so.
    """

    status: Literal["done"] = "done"
    task: str
    strategy: str
    label: str
    seed: int
    options: dict[str, Any]
    access: Literal["scores", "logits", "gradients", "weights"]
    searches: bool
    reference: bool
    deterministic: bool
    budget: int | None
    ledger: Statement
    spent: int
    seconds: float
    stopped: str
    proposals: int
    failures: int
    length: int
    trainable: int
    stored: int
    training: TrainingRecord | None
    dtype: str
    curve: tuple[tuple[int, float], ...]
    start: BeginningRecord | None
    winner: WinnerRecord
    search: SearchRecord
    select: ExamplesRecord
    test: ExamplesRecord
    gap: float
    export: NoExportRecord | None
    bytes: int | None
    signature: str
    cost: float | None = None
    control: bool | None = None
    flops: float | None = None
    paper: Paper | None = None
    select_curve: tuple[tuple[int, float], ...] = ()

    @property
    def timed(self) -> bool:
        """Whether its seconds tell how long it takes: it computed most of its scores itself."""
        return self.ledger.cached_share <= MOST_CACHED

    def told(self, length: int) -> SettingsRecord:
        """What it was told to do.

        Args:
            length: Prompt tokens where the template does not fix them, which it does not say.
        """
        start = None if self.start is None else self.start.named
        return SettingsRecord(
            self.strategy, self.label, self.options, self.seed, self.budget, length, start
        )

    def as_beginning(self, task: str) -> BeginningRecord:
        """What a run of a task says of this one, from whose winner it starts."""
        return BeginningRecord(
            run=self.label,
            seed=self.seed,
            key=self.winner.key,
            kind=self.winner.kind,
            text=self.winner.text,
            task=None if task == self.task else self.task,
            spent=self.spent,
            select=ScoreRecord(self.select.loss, self.select.metric),
            test=ScoreRecord(self.test.loss, self.test.metric),
        )


@dataclass(frozen=True, kw_only=True)
class FailedRecord:
    """How a run ended that failed; it is tried again when the study is run again.

    Args:
        deterministic: Whether the strategy would have run once only.
        error: Why it failed.
    """

    status: Literal["failed"] = "failed"
    task: str
    strategy: str
    label: str
    seed: int
    options: dict[str, Any]
    deterministic: bool
    error: str
