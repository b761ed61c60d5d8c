"""What a score of the engine depends on besides prompt, example and the weights as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from promptsearch.models import LanguageModel
from promptsearch.models.device import card
from promptsearch.records.provenance import code_of, cpu, installed
from promptsearch.scoring.answer_ids import end_ids
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template

#: The packages whose code scores depend on: none that another version left is taken for ours.
_CODE = tuple(f"promptsearch.{name}" for name in ("models", "prompts", "scoring", "tasks"))
#: What a model's configuration says of the folder that it came from, and not of the model.
_ORIGIN = "_name_or_path"


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
    told = {key: value for key, value in lm.model.config.to_dict().items() if key != _ORIGIN}
    config = json.dumps(told, sort_keys=True, default=str)
    text = choices is None and all(example.options is None for example in split.examples)
    return (
        code_of(*_CODE),
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
        installed()["transformers"],
        torch.get_num_threads(),
        # Processors of other kinds round otherwise, and cards, all of which are called cuda:0.
        cpu(),
        *filter(None, map(card, lm.devices)),
        *(() if normalise == "none" else (normalise,)),
        # What ends a text answer, read and generated; answers to choose from have no end.
        *(("end", template.end or end_ids(template, lm), sorted(lm.ends)) if text else ()),
    )
