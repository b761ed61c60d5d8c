"""Five ordinary tasks of five kinds, six strategies each: no run may be lost.

Two of five such tasks once lost a run to a check that had passed every test.
`python -m attack.tasks DATA` runs them with the real model on a folder of JSONL files (see `TASKS`
for the names and fields) and prints how each run ended.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch import compare

#: Hard and soft, in front and among the words; each of them writes another kind of export.
STRATEGIES: list[Any] = [
    {"manual": {"prompts": ["Answer with one word."]}},
    "random",
    "genetic",
    "gcg",
    {"prompt_tuning": {"length": 8}},
    {"prefix_tuning": {"length": 4}},
]
_SPLITS = {"search": 96, "select": 32, "test": 64}
_CONTINENTS = (
    "Africa",
    "Antarctica",
    "Asia",
    "Europe",
    "North America",
    "Oceania",
    "South America",
)
#: What a study file would hold under `task`, one a kind of answer.
TASKS: dict[str, dict[str, Any]] = {
    # Two answers of one token.
    "sentences": {
        "data": {"path": "sentiment_labelled_sentences.jsonl"},
        "template": "{prompt} {text} It was {answer}",
        "label": "label",
        "answers": {0: "bad", 1: "good"},
    },
    # Seven answers, some of two words.
    "continents": {
        "data": {"path": "countries.jsonl"},
        "template": "{prompt} {name} is a country in {answer}",
        "label": "continent",
        "answers": {name: name for name in _CONTINENTS},
        "splits": {"search": 96, "select": 32, "test": 64},
    },
    # Answers of many tokens that begin alike.
    "parts of speech": {
        "data": {"path": "wordnet_antonyms.jsonl"},
        "template": "{prompt} The word {word}, the opposite of {antonym},{answer}",
        "label": "pos",
        "answers": {
            "adj": " is a word that tells how a thing or a person is, in short an adjective",
            "noun": " is a word that names a thing, a person or an idea, in short a noun",
            "verb": " is a word that tells what somebody does or what happens, in short a verb",
            "adv": " is a word that tells how, when or where something is done, in short an adverb",
        },
    },
    # A short text that is spelled.
    "symbols": {
        "data": {"path": "elements.jsonl"},
        "template": "{prompt} The symbol of {name} is {answer}",
        "label": "symbol",
        "splits": {"search": 48, "select": 24, "test": 40},
    },
    # A whole sentence.
    "antonyms": {
        "data": {"path": "wordnet_antonyms.jsonl"},
        "template": "{word} ({pos}) {prompt} is the opposite of {answer}",
        "label": "antonym",
    },
}


def study(name: str, data: Path, budget: int) -> Mapping[str, Any]:
    """The study of one task.

    Args:
        name: A key of `TASKS`.
        data: The folder with its file.
        budget: LM tokens of each run.
    """
    task = {"splits": _SPLITS, **TASKS[name]}
    path = str((data / task["data"]["path"]).resolve())
    return {
        "name": name.replace(" ", "-"),
        "model": "smollm2-135m-instruct",
        "task": {**task, "name": name.replace(" ", "-"), "data": {"path": path}},
        "length": 3,
        "pool": 500,
        "budget": budget,
        "score_on": 16,
        "seeds": 1,
        "strategies": STRATEGIES,
    }


def main() -> None:
    """Run the tasks that are named, or all, and count."""
    parser = argparse.ArgumentParser(prog="python -m attack.tasks", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with the JSONL files")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TASKS)}; left out: all")
    parser.add_argument("--budget", type=int, default=40_000, help="LM tokens of each run")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"), help="where the studies go")
    given = parser.parse_args()
    runs = lost = 0
    for name in given.names or TASKS:
        found = compare(
            study(name, given.data, given.budget), out=given.out / name.replace(" ", "-")
        )
        for run in found.runs:
            runs += 1
            print(
                (
                    f"{name:16} {run.label:16} test loss {run.test.loss:.4f}  metric "
                    f"{run.test.metric:.3f}"
                ),
                flush=True,
            )
        for run in found.failed:
            lost += 1
            print(f"{name:16} {run.label:16} LOST: {run.error}", flush=True)
    print(f"{runs} runs done, {lost} lost")
    raise SystemExit(lost > 0)


if __name__ == "__main__":
    main()
