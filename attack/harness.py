"""Hostile tasks of lm-evaluation-harness: its keys, and templates that are none."""

from __future__ import annotations

import json
import random
from typing import Any

from attack.case import Case
from attack.damage import edit, hostile, to_text
from attack.lab import Lab
from attack.protocols import case_of

CHOICES: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "a.jsonl", "test": "b.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}} It was",
    "doc_to_choice": ["bad", "good"],
    "doc_to_target": "label",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
GENERATED: dict[str, Any] = {
    **CHOICES,
    "output_type": "generate_until",
    "doc_to_target": "{{refs[0]}}",
    "doc_to_choice": None,
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}
_TEMPLATES = (
    "{{",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "{{ text * 10**9 }}",
    "{% include 'x' %}",
    "{{ nothing.at.all }}",
    "{{ cycler.__init__.__globals__.os.system('x') }}",
    "{{ text | list | join('\x1b[31m') }}",
    "",
    "!function canary_of_attack.f",
    "{{ [1] | random }}",
    "{{ 1 / 0 }}",
    "label",
    "{% set x = [] %}{% for i in range(99999) %}{{ x.append(x) or '' }}{% endfor %}{{ x }}",
)


def harness(rng: random.Random, lab: Lab) -> Case:
    """A task of lm-evaluation-harness with a value changed, or a template that is none."""
    given = json.loads(json.dumps(rng.choice([CHOICES, GENERATED])))
    if rng.random() < 0.5:
        what, given = edit(given, rng)
    else:
        key = rng.choice(["doc_to_text", "doc_to_target", "doc_to_choice", "process_docs"])
        given[key] = rng.choice(_TEMPLATES)
        what = f"{key} = {given[key][:60]!r}"
    splits = {"search": 8, "select": 4, "test": 6}
    task: dict[str, Any] = {"lm_eval": "mine.yaml", "splits": splits}
    if rng.random() < 0.2:
        task[rng.choice(["normalise", "references", "metric", "lm_eval"])] = hostile(rng)[1]
    content = to_text(given).encode("utf-8", "surrogatepass")
    study = lab.study(task=task, budget=4_000)
    return case_of("13 tasks of lm-eval", what, study, {"mine.yaml": content})


MAKERS = (harness,)
