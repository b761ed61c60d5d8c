"""What each strategy takes: while it trains, on disk, in every request, and for several tasks beside one model.

The argument of the field for prompts: one frozen model serves all tasks, and each further task costs a prompt where fine-tuning
costs a model.
"""

from __future__ import annotations

from promptsearch.records.results import Model
from promptsearch.report.notation import percent, size, whole
from promptsearch.report.summary import Row

#: Column -> what it shows, in one line; the first one names the row.
COLUMNS = {
    "tuned": "parameters changed while training",
    "stored": "parameters that must be kept to use the prompt, or the changed weights, and their share of the LM's",
    "on disk": "size of the file with these, in float32; of words, of their text",
    "added": "tokens that the prompt adds to every request, whether words, vectors, or keys and values; changed weights add none",
    "three tasks": "size on disk of what serves three tasks: one model and three prompts, or three models if no larger",
}
#: Bytes of a parameter: prompts are kept, selected and tested in float32.
_BYTES = 4
_TASKS = 3


def cells(row: Row, model: Model) -> list[str]:
    """The cells of a row: label, then those of `COLUMNS`.

    Args:
        row: Of the report.
        model: The LM.
    """
    best = row.best
    return [
        row.label,
        whole(best.trainable),
        whole(best.stored) + (f" ({percent(row.share)})" if best.stored else ""),
        "" if best.bytes is None else size(best.bytes),
        str(best.length),
        "" if best.bytes is None else several(best.bytes, model),
    ]


def several(prompt: int, model: Model) -> str:
    """Sizes of what serves three tasks with a prompt, or weights, of so many bytes each."""
    if model.parameters is None:
        return ""
    one, prompts = _BYTES * model.parameters, _TASKS * prompt
    return f"{size(one)} + {size(prompts)}" if one + prompts < _TASKS * one else size(_TASKS * one)


def sentence(model: Model) -> str:
    """What fine-tuning would take instead."""
    if model.parameters is None:
        return "How large the model is, its endpoint does not say."
    one = _BYTES * model.parameters
    return f"Three fine-tuned models of {size(one)} each (float32) would take {size(_TASKS * one)}."
