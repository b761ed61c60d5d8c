"""The one place that asks where a model runs: an engine for those that are loaded here, requests to those that are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import Ids
from promptsearch.scoring.engine import Engine
from promptsearch.scoring.protocol import Scorer
from promptsearch.scoring.remote import ServedScorer
from promptsearch.scoring.sharing import Prediction
from promptsearch.scoring.tree import Path
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template


class SplitScorer(Scorer, Protocol):
    """A scorer that also says what it would compute."""

    def check_joints(self, space: PromptSpace) -> None:
        """See that what is scored is the tokens of the text that is kept."""

    def predict(self, prompts: Sequence[Prompt], examples: Ids) -> Prediction:
        """What `score` would compute."""

    def anatomy(self) -> Mapping[str, float]:
        """Tokens of a row that are `static`, `input` and `answer`, mean over the examples."""

    def kept_lead(self, example: int) -> Path:
        """The ids before the first slot of an example where they are kept from call to call, else nothing."""

    def forget(self) -> None:
        """Compute anew what is kept from call to call."""

    @property
    def kept(self) -> tuple[int, int]:
        """Tokens of which something is kept from call to call, and its bytes."""


def make_scorer(
    model: TextModel,
    template: Template,
    split: Split,
    choices: Sequence[str] | None,
    *,
    memory: int | None = None,
    keep: bool = False,
) -> SplitScorer:
    """What scores prompts on a split with a model.

    Args:
        model: In the dtype to score in.
        template: Bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None for text answers.
        memory: See `Engine`.
        keep: See `Engine`.

    Raises:
        PromptSearchError: As `Engine` and `ServedScorer`.
    """
    if isinstance(model, ServedModel):
        return ServedScorer(model, template, split, choices)
    return Engine(
        loaded(model, "scored like this"), template, split, choices, memory=memory, keep=keep
    )


def loaded(model: TextModel, what: str) -> LanguageModel:
    """The model, where it is loaded here.

    Args:
        model: Any.
        what: What is to be done with it: "the model ... cannot be ...".

    Raises:
        ModelError: It is not.
    """
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"the model '{model.name}' runs behind the endpoint {model.device} and cannot be {what}"
        )
    return model
