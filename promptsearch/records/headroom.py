"""What a search can gain on a task, as it was forecast: the schema of `headroom.json`.

The file is written by `promptsearch plan STUDY --headroom --json FILE`, before any run is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The name of the record in a study's folder.
HEADROOM = "headroom.json"


@dataclass(frozen=True)
class GainRecord:
    """What the best search of a kind is expected to be above the best control.

    Args:
        gain: The median of what is expected: a share of right answers, or nats.
        low: The lower end of the 90 % interval.
        high: Its upper end.
    """

    gain: float
    low: float
    high: float

    @property
    def room(self) -> bool:
        """Whether there is room for a search: the whole interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True)
class HeadroomRecord:
    """What a search can gain on one task.

    Args:
        task: The task's name.
        measure: `accuracy`, or `nats` where answers are text: how much lower the loss is.
        search: Search examples on which random prompts and the best controls were scored.
        select: Select examples on which the trained prompt and these controls were scored.
        prompts: The random prompts that were scored.
        evaluations: The prompts that a search of the study tries.
        controls: The controls as a reader sees them -> their scores on search examples, higher is
            better; those that were clearly behind on the first few were scored on no more, and
            stand as far below the best one there as they were behind it.
        level: The mean score of random prompts.
        spread: The scatter of the true scores of random prompts' better half about their median,
            what the examples' luck explains taken off.
        trained: The score of the short soft run on the select examples; None where there was none.
        untrained: Why there was none; empty where there was one.
        words: The gain of the best search for words; None where the study has no such search.
        vectors: The gain of the best trained prompt; None where the study trains none, or nothing
            could be trained.
        best: The gain of the better of both.
        tokens: LM tokens that went through the model for it.
    """

    task: str
    measure: str
    search: int
    select: int
    prompts: int
    evaluations: int
    controls: dict[str, float]
    level: float
    spread: float
    trained: float | None
    untrained: str
    words: GainRecord | None
    vectors: GainRecord | None
    best: GainRecord
    tokens: int


@dataclass(frozen=True)
class StudyHeadroomRecord:
    """What a search can gain in a study.

    Args:
        name: The study's name.
        model: The name of its model.
        version: The version of promptsearch.
        commit: Its commit; None where it was not installed from a repository.
        settings: The resolved study file.
        tasks: Its tasks, in order; those without prompts in slots are left out.
    """

    name: str
    model: str
    version: str
    commit: str | None
    settings: dict[str, Any]
    tasks: tuple[HeadroomRecord, ...]
