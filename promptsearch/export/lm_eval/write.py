"""A task folder for lm-evaluation-harness, which scores the prompt on the test split.

`TASK.yaml` holds the prompt and the template, `test.jsonl` the rows: the texts of the fields, and
the right answer. The harness is not needed here. An export is checked by reading the folder as the
harness does, see `promptsearch.tasks.lm_eval`: its rows are those that were tested, by their hash,
and the text before each answer is the one that was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import ExportError, TaskError
from promptsearch.export.lm_eval.read import DATA, ROWS, read_folder, task_name
from promptsearch.export.lm_eval.rows import (
    ALIASES,
    GOLD,
    OPTIONS,
    OWN,
    REFERENCES,
    bare,
    names_of,
    row_of,
)
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.text import check_text, whole_text
from promptsearch.export.variables import pieces
from promptsearch.files import write_aside
from promptsearch.models.protocol import TextModel
from promptsearch.plain.yaml import write_yaml
from promptsearch.printable import brief
from promptsearch.scoring.layout import prompt_texts
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.jinja import jinja_literal
from promptsearch.tasks.lm_eval.reading import Reading
from promptsearch.tasks.task import Split, Task

#: Length by which log-probabilities are divided -> the harness's accuracy.
_ACCURACIES = {"none": "acc", "characters": "acc_norm", "bytes": "acc_bytes"}
#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

lm = HFLM(pretrained=model, tokenizer=tokenizer{options})
tasks = TaskManager(include_path=".", include_defaults=False)
found = lm_eval.simple_evaluate(lm, tasks=[{name!r}], task_manager=tasks)
print(found["results"][{name!r}])
"""
_SERVED = """\
lm_eval --include_path . --tasks {name} --model local-{kind}completions \\
    --model_args base_url={url}/{chat}completions,model={model}
"""


def write_lm_eval(saved: SavedPrompt, lm: TextModel, folder: Path, task: Task) -> None:
    """Write `TASK.yaml` and `test.jsonl`.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the files go; it is named in none of them, so that it can be moved.
        task: The task that the prompt was tested on.

    Raises:
        ExportError: No text holds the prompt, or the harness would read something else.
    """
    check_text(saved, lm)
    names = names_of(saved.template)
    test = task.splits["test"]
    name = task_name(saved)
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": DATA,
        "test_split": "test",
        "doc_to_text": _template(whole_text(saved, lm), names),
        "target_delimiter": "",
        **(_generated(saved, task, lm) if saved.text else _chosen(saved)),
        "metadata": {"version": 1.0},
    }
    rows = [json.dumps(row_of(each, saved.template), ensure_ascii=False) for each in test.examples]
    write_aside(folder / ROWS, "\n".join(rows) + "\n")
    written = write_yaml(config, width=10**6)
    write_aside(folder / f"{name}.yaml", written)
    _check_rows(saved, lm, folder, test)


def lm_eval_usage(saved: SavedPrompt, lm: TextModel) -> str:
    """Code that scores the prompt with the harness: Python, or a command for a server.

    Args:
        saved: What was exported.
        lm: The LM.
    """
    name, served = task_name(saved), lm.served
    if served:
        chat = "chat/" if served.get("chat") else ""
        return _SERVED.format(
            name=name,
            kind=chat.replace("/", "-"),
            chat=chat,
            url=served["url"],
            model=served["model"],
        )
    # A chat template writes what a row begins with; otherwise the tokenizer does.
    options = ", add_bos_token=False" if saved.template.messages else ""
    return USAGE.format(name=name, options=options)


def lm_eval_note(saved: SavedPrompt) -> str:
    """What the card says of the metric.

    Args:
        saved: What was exported.
    """
    metric = saved.about.get("metric", "the metric")
    if saved.text:
        same = metric == "exact_match"
        theirs = "`exact_match`, of the answer without whitespace around it"
    else:
        same = metric == "accuracy" and saved.normalise in _ACCURACIES
        theirs = f"`{_ACCURACIES.get(saved.normalise, 'acc')}`"
    told = (
        "is the value above"
        if same
        else f"is another measure than `{metric}`, which lm-eval does not have"
    )
    return (
        f"lm-eval gives {theirs}, which {told}. Score in float32 for the same number. "
        "`promptsearch verify` reads the folder as lm-eval does; it does not run it.\n"
    )


def _template(whole: str, names: Mapping[str, str]) -> str:
    """A text with `{field}`s in it as a Jinja template."""
    written = ""
    for literal, field in pieces(whole):
        written += jinja_literal(literal) + ("" if field is None else f"{{{{ {names[field]} }}}}")
    # The name of a field alone stands for the field.
    return f'{{{{ "{written}" }}}}' if written in (*names.values(), *OWN) else written


def _chosen(saved: SavedPrompt) -> dict[str, Any]:
    metric = _ACCURACIES.get(saved.normalise, "acc")
    own = saved.choices is None
    choices = OPTIONS if own else [bare(text, saved.template) for text in saved.choices or ()]
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": choices,
        "doc_to_target": GOLD,
        "target_delimiter": " " if saved.template.answer_space else "",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
    }


def _generated(saved: SavedPrompt, task: Task, lm: TextModel) -> dict[str, Any]:
    decoding = saved.decoding
    options = task.metrics.get("exact_match", {})
    exact: dict[str, Any] = {"metric": "exact_match", "aggregation": "mean"}
    exact |= {"higher_is_better": True}
    if options.get("lowercase"):
        exact["ignore_case"] = True
    if options.get("punctuation") is False:
        exact["ignore_punctuation"] = True
    end = saved.template.end or saved.template.end_token
    return {
        "output_type": "generate_until",
        "doc_to_target": f"{{{{ ({REFERENCES} + {ALIASES}) | map('trim') | list }}}}",
        "generation_kwargs": {
            "until": [end] if end else [],
            "max_gen_toks": decoding.tokens,
            "do_sample": bool(decoding.temperature),
            **({"temperature": decoding.temperature} if decoding.temperature else {}),
            **({"top_p": decoding.top_p} if decoding.top_p != 1 else {}),
            **({"num_beams": decoding.beams} if decoding.beams > 1 else {}),
            **({"length_penalty": decoding.length_penalty} if decoding.beams > 1 else {}),
            **({} if lm.served else _unbent(decoding)),
        },
        "filter_list": [
            {
                "name": "answer",
                "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [exact],
    }


def _unbent(decoding: Decoding) -> dict[str, Any]:
    """What keeps a model that is loaded by `transformers` from adding its own way, or 50 for k."""
    return {"repetition_penalty": 1.0, **({"top_k": 0} if decoding.temperature else {})}


def _check_rows(saved: SavedPrompt, lm: TextModel, folder: Path, test: Split) -> None:
    """See that the harness gives the model exactly the text that was measured, row by row.

    Raises:
        ExportError: It does not; the message names the first row.
    """
    file, documents, _ = read_folder(saved, folder)
    reading = Reading(file, documents.fields)
    texts = prompt_texts(saved.template, lm, saved.prompt)
    for example, document in zip(test.examples, documents.rows, strict=True):
        place = f"test example {example.id}"
        wanted = saved.template.render(example.fields, texts, "")
        try:
            found = reading.question(document, place)
        except TaskError as error:
            raise ExportError(f"lm-eval would not read the text of {error}") from error
        if found != wanted:
            raise ExportError(
                f"lm-eval would read {brief(found)} on {place}, and not {brief(wanted)}"
            )
