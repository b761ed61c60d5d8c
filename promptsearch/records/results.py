"""What a study found, as values; the fields have the names of the JSON files' keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Model:
    """The LM of a study.

    Its fields are its name, the hashes of its weights and its tokenizer, its number of parameters,
    and where it came from. For a model behind an endpoint the number of parameters is None, and
    `served` says where and how it is served, see `promptsearch.models.remote`.
    """

    name: str
    hash: str
    tokenizer_hash: str
    parameters: int | None
    source: str
    served: dict[str, Any] | None = None


@dataclass(frozen=True)
class Split:
    """The size of a split, in examples, and the hash of its content."""

    size: int
    hash: str


@dataclass(frozen=True)
class Noise:
    """What the search's arithmetic does to losses, in nats.

    Args:
        example: The largest difference from float32 on one example.
        prompt: The largest difference from float32 of a prompt's mean.
        beside: The most by which an example's loss moves when its prompt is scored alone instead of
            beside others.
    """

    example: float
    prompt: float
    beside: float


@dataclass(frozen=True)
class TaskInfo:
    """A task of a study.

    Args:
        kind: `choices` or `text`.
        template: With its slots.
        metric: The name of the metric; higher is better.
        splits: `search`, `select` and `test`.
        choices: The answers to choose from; None for text answers.
        majority: Share of the most frequent answer in the test split.
        pool: Tokens that a hard prompt may use.
        noise: What the search's dtype does to losses, in nats; None where it was not measured.
        pool_made: How the pool was made; empty where an earlier version made the study.
        pool_hash: The hash of the pool's token ids.
        pool_price: LM tokens that finding it took, charged to each run of hard prompts.
        notes: What was dropped from the data, or read otherwise than it may look.
    """

    kind: str
    template: str
    metric: str
    splits: dict[str, Split]
    choices: list[str] | None
    majority: float
    pool: int
    noise: Noise | None = None
    pool_made: str = ""
    pool_hash: str = ""
    pool_price: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """The settings that all runs share, as `study.json` has them.

    Args:
        settings: The resolved study file.
        budget: LM tokens per run.
        score_on: Search examples per evaluation.
        max_seconds: The time limit of a run; None for none.
        strategies: Labels in the order of the study file.
        families: Label -> the label that the rows of a sweep over prompt lengths share; others are
            left out.
        tasks: Task name -> task.
        memory: Bytes that might go to keys and values; None where an earlier version made the
            study.
        race: Whether clearly worse prompts were scored on some examples only.
        signature: The long form, see `promptsearch.records.signature`, for readers of the file.
    """

    name: str
    version: str
    settings: dict[str, Any]
    model: Model
    dtype: str
    device: str
    machine: dict[str, Any]
    versions: dict[str, str]
    budget: int
    seeds: list[int]
    score_on: int
    max_seconds: float | None
    strategies: list[str]
    tasks: dict[str, TaskInfo]
    memory: int | None = None
    race: bool = False
    families: dict[str, str] = field(default_factory=dict)
    signature: str = ""

    def family(self, label: str) -> str:
        """What a row of a sweep shares with those of other lengths; for other rows, the label."""
        return self.families.get(label, label)


@dataclass(frozen=True)
class Nearest:
    """The word whose embedding is nearest to a vector of a soft prompt, by cosine."""

    token: str
    cosine: float


@dataclass(frozen=True)
class Winner:
    """The prompt that a run chose.

    Args:
        kind: `hard`, `text`, `soft`, `prefix` or `weights`.
        key: Its name in logs.
        text: As a reader sees it.
        nearest: For a soft prompt, one word a vector.
    """

    kind: str
    key: str
    text: str
    nearest: tuple[Nearest, ...] = ()


@dataclass(frozen=True)
class SearchScore:
    """Loss on `score_on` in nats: in the dtype of the search, and in fp32."""

    loss: float
    loss_fp32: float


@dataclass(frozen=True)
class Score:
    """Loss in nats and metric on a split; the metric is None where its function gave none."""

    loss: float
    metric: float | None


@dataclass(frozen=True)
class TestScore:
    """The one look at the test split.

    Args:
        loss: Mean nats.
        metric: The task's metric; None where its function gave none.
        losses: Nats of each example.
        correct: 1 right, 0 wrong, of each example.
        predictions: Index of the chosen answer of each example; None for text answers.
        labels: Index of the right answer of each example; None for text answers.
        shares: What each example adds to a metric that is a function of the study's author, see
            `tasks.metrics`; None for other metrics, where it failed, and where an earlier version
            made the run.
        metric_failed: Why a number or the shares of such a metric are missing.
    """

    loss: float
    metric: float | None
    losses: tuple[float, ...]
    correct: tuple[float, ...]
    predictions: tuple[int, ...] | None
    labels: tuple[int, ...] | None
    shares: tuple[float, ...] | None = None
    metric_failed: str = ""


@dataclass(frozen=True)
class Beginning:
    """The winner of another run, which a run started from.

    Args:
        run: The label of that run.
        seed: The seed of that run.
        kind: The prompt's kind.
        key: The prompt's name in logs.
        text: The prompt as a reader sees it.
        spent: LM tokens on that run's bill.
        select: The winner's scores on the select split.
        test: The winner's scores on the test split.
    """

    run: str
    seed: int
    kind: str
    key: str
    text: str
    spent: int
    select: Score
    test: Score


@dataclass(frozen=True)
class Training:
    """How the training of a run went.

    Args:
        rate: Peak learning rate; None where the run ended before a range test had found one.
        steps: Optimizer steps.
        before: Search loss in nats of the first prompt; None where it could not be scored.
        after: The least search loss in nats.
        gradients: Norms of the gradient of the prompt at the first steps.
        reached: Share of the prompt's tokens, or of the changed tensors, that a gradient reached in
            these steps.
        clipped: Share of the steps whose gradient was clipped.
        moved: Distance of the last prompt from the first one, as a share of the first one's norm;
            None where several tensors are trained.
        winner: The winner's loss in nats on the select split.
        empty: The empty prompt's loss on the same examples; None where it cannot be scored.
        findings: What looks wrong, in words.
    """

    rate: float | None
    steps: int
    before: float | None
    after: float
    gradients: tuple[float, ...]
    reached: float
    clipped: float
    moved: float | None
    winner: float
    empty: float | None
    findings: tuple[str, ...]


@dataclass(frozen=True)
class NoExport:
    """Why the winner of a run has no export.

    Either it scored differently when it was loaded again, or it could not be loaded or written.
    """

    error: str


@dataclass(frozen=True)
class Run:
    """A finished run, as its `result.json` has it.

    Args:
        budget: LM tokens; None for no limit.
        ledger: Tokens by kind; `brought` are those of the run that it started from, which are on
            the bill, but not of its budget.
        spent: Tokens charged, with those brought.
        stopped: Why the search ended.
        proposals: Distinct prompts scored on all of `score_on`.
        failures: Prompts that could not be scored.
        length: Prompt tokens of the winner.
        trainable: Parameters tuned.
        stored: Parameters that have to be kept to use the prompt.
        curve: Pairs of tokens spent and least loss so far.
        gap: Test loss minus fp32 loss on `score_on`, in nats: what selection flattered.
        bytes: The size of the file with the stored parameters, or of the prompt's text; None where
            an earlier version made the run.
        training: None where nothing was trained, or an earlier version made the run.
        start: None where it started from no other run.
        export: None where the winner was exported, and scored the same when it was loaded again.
        signature: The short form, see `promptsearch.records.signature`; empty where an earlier
            version made the run.
    """

    task: str
    strategy: str
    label: str
    seed: int
    options: dict[str, Any]
    access: Literal["scores", "gradients", "weights"]
    searches: bool
    reference: bool
    deterministic: bool
    budget: int | None
    ledger: dict[str, int | None]
    spent: int
    seconds: float
    stopped: str
    proposals: int
    failures: int
    length: int
    trainable: int
    stored: int
    dtype: str
    curve: tuple[tuple[float, float], ...]
    winner: Winner
    search: SearchScore
    select: Score
    test: TestScore
    gap: float
    bytes: int | None = None
    training: Training | None = None
    start: Beginning | None = None
    export: NoExport | None = None
    signature: str = ""


@dataclass(frozen=True)
class FailedRun:
    """A run that ended with an error; it is tried again when the study is run again.

    Args:
        deterministic: Whether the strategy would have run once only.
    """

    task: str
    strategy: str
    label: str
    seed: int
    options: dict[str, Any]
    error: str
    deterministic: bool = False


@dataclass(frozen=True)
class Results:
    """Everything that a report is made of.

    Args:
        folder: The study's folder.
        study: What its runs share.
        runs: Finished, in the order of tasks, strategies and seeds.
        failed: Failed, in the same order.
        unfinished: Task, label and seed of the runs that are still to be made.
        trust_code: Whether the modules that the study names as metrics may be imported.
    """

    folder: Path
    study: Study
    runs: tuple[Run, ...]
    failed: tuple[FailedRun, ...]
    unfinished: tuple[tuple[str, str, int], ...]
    trust_code: bool = False
