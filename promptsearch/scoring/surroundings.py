"""What a score of the engine depends on besides prompt, example and the weights as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from promptsearch.models import LanguageModel
from promptsearch.models.device import card
from promptsearch.scoring.answer_ids import end_ids
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template

#: The version of the engine, a part of every cache key: raise it when scores may change.
ENGINE = 6


def surroundings(
    lm: LanguageModel,
    template: Template,
    split: Split,
    choices: Sequence[str] | None,
    normalise: Normalise,
    held: tuple[int, int],
) -> tuple[object, ...]:
    """The parts of an engine's signature.

    Args:
        lm: The model.
        template: The template, bound.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        held: The number of examples for which something is kept, and of tokens held at a time.
    """
    # The weights alone do not say all that the model computes.
    config = json.dumps(lm.model.config.to_dict(), sort_keys=True, default=str)
    text = choices is None and all(example.options is None for example in split.examples)
    return (
        ENGINE,
        *held,
        lm.hash,
        lm.tokenizer_hash,
        template.text,
        template.length,
        split.hash,
        *template.marks,
        choices,
        hashlib.sha256(config.encode()).hexdigest()[:20],
        str(lm.dtype),
        str(lm.device),
        torch.__version__,
        torch.get_num_threads(),
        # Cards of other kinds round otherwise, and all of them are called cuda:0.
        *filter(None, map(card, lm.devices)),
        *(() if normalise == "none" else (normalise,)),
        # What ends a text answer; answers to choose from have no end.
        *(("end", template.end or end_ids(template, lm)) if text else ()),
    )
