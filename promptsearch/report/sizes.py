"""What each strategy takes: in training, on disk, in every request, for several tasks.

This is the field's argument for prompts: one frozen model serves all tasks, and each further task
costs a prompt beside it, where fine-tuning costs a model.
"""

from __future__ import annotations

from promptsearch.records.study import ModelRecord
from promptsearch.report.notation import percent, size, whole
from promptsearch.report.summary import Row

#: Column -> what it shows, in one line; the first one names the row.
COLUMNS = {
    "tuned": "parameters changed while training",
    "stored": (
        "parameters that must be kept to use the prompt, or the changed weights, "
        "and their share of the LM's"
    ),
    "on disk": "size of the file with these, in float32; of words, of their text",
    "added": (
        "tokens that the prompt adds to every request, whether words, vectors, or keys and values; "
        "changed weights add none"
    ),
    "three tasks": (
        "size on disk of what serves three tasks: one model and three prompts, or three models if "
        "no larger"
    ),
}
#: The bytes of a parameter: prompts are kept, selected and tested in float32.
_BYTES = 4
#: The number of tasks for which the sizes are compared.
_TASKS = 3


def cells(row: Row, model: ModelRecord) -> list[str]:
    """The cells of a row: its label, then those of `COLUMNS`.

    Args:
        row: A row of the report.
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


def several(prompt: int, model: ModelRecord) -> str:
    """The size of what serves three tasks; empty where the model's size is not known.

    Args:
        prompt: The bytes of a prompt, or of changed weights, for one task.
        model: The LM.
    """
    if model.parameters is None:
        return ""
    one, prompts = _BYTES * model.parameters, _TASKS * prompt
    return f"{size(one)} + {size(prompts)}" if one + prompts < _TASKS * one else size(_TASKS * one)


def sentence(model: ModelRecord) -> str:
    """The sentence that says how much fine-tuning would take instead."""
    if model.parameters is None:
        return "How large the model is, its endpoint does not say."
    one = _BYTES * model.parameters
    return f"Three fine-tuned models of {size(one)} each (float32) would take {size(_TASKS * one)}."
