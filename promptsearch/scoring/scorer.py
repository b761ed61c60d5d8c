"""The one place that asks where a model runs.

A model that is loaded here is scored by an engine, a served one by requests to its server. The lead
of an example is what stands in its row before the first slot. What is kept stays from call to call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.engine import Engine
from promptsearch.scoring.protocol import Scorer
from promptsearch.scoring.remote import ServedScorer
from promptsearch.scoring.sharing import Prediction
from promptsearch.scoring.tree import Path
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template


class SplitScorer(Scorer, Protocol):
    """A scorer that also says what it would compute."""

    def check_joints(self, space: PromptSpace) -> None:
        """Check that the tokens that are scored are those of the text that a run keeps.

        Args:
            space: The hard prompts.
        """

    def predict(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Prediction:
        """A prediction of what `score` would compute."""

    def anatomy(self) -> Mapping[str, float]:
        """The tokens of a row that are `static`, `input` and `answer`, mean over the examples."""

    def kept_lead(self, example: int) -> Path:
        """The ids of an example's lead where it is kept from call to call, else nothing.

        Args:
            example: The example's id.
        """

    def forget(self) -> None:
        """Throw away what is kept from call to call, so that it is computed anew."""

    @property
    def kept(self) -> tuple[int, int]:
        """The number of tokens for which something is kept from call to call, and its bytes."""


def make_scorer(
    model: TextModel,
    template: Template,
    split: Split,
    choices: Sequence[str] | None,
    *,
    normalise: Normalise = "none",
    memory: int | None = None,
    keep: bool = False,
) -> SplitScorer:
    """The scorer of prompts on a split with a model.

    Args:
        model: The model, in the dtype to score in.
        template: The template, bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: See `Engine`.
        memory: See `Engine`.
        keep: See `Engine`.

    Raises:
        PromptSearchError: The reasons are those of `Engine` and `ServedScorer`.
    """
    if isinstance(model, ServedModel):
        return ServedScorer(model, template, split, choices, normalise)
    lm = loaded(model, "scored like this")
    return Engine(lm, template, split, choices, normalise=normalise, memory=memory, keep=keep)


def loaded(model: TextModel, what: str) -> LanguageModel:
    """The model itself, if it is loaded here.

    Args:
        model: Any model.
        what: What is to be done with it, for the message "the model ... cannot be ...".

    Raises:
        ModelError: The model is served elsewhere.
    """
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"the model '{model.name}' runs behind the endpoint {model.device} and cannot be {what}"
        )
    return model
