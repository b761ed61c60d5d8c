"""Hostile protocols: official splits, groups, references, options, draws, metrics, decoding.

Each study is refused in a moment with its key, row or file, or it runs, and then every number that
it says is a number. The keys are also set against data that do not keep what they promise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attack.case import Case
from attack.damage import PLAIN, RAW, Raw, edit, paths, to_text
from attack.lab import Lab
from attack.study_files import finite

COMPARE = ["compare", "study.yaml", "--out", "out"]
Rows = list[dict[str, Any]]
_WORDS = ("good film", "I hate", "the story", "capital city")


def rows(count: int = 36) -> Rows:
    """Rows with a field for each key of a task."""
    return [
        {
            "text": f"{_WORDS[i % 4]} {i}",
            "label": i % 2,
            "name": ("bad", "good")[i % 2],
            "author": {"id": f"a{i // 3}"},
            "lang": ("en", "de", "fr")[i // 6 % 3],
            "set": ("train", "train", "extra", "dev", "test", "test")[i % 6],
            "refs": ["The city", f"It is {i}"][: 1 + i % 2],
            "also": [["a city"], []][i % 2],
            "options": ["The city", "good film", "the story"],
            "place": i % 3,
            "mr": f"name[{_WORDS[i % 4]}], area[city {i}]",
        }
        for i in range(count)
    ]


def texts(lab: Lab) -> dict[str, Any]:
    """A study of text answers with every key that these have."""
    return lab.study(
        task={
            "name": "d",
            "data": {"search": {"path": "a.jsonl"}, "test": {"path": "b.jsonl"}},
            "where": {"lang": ["en", "de"]},
            "group": "author.id",
            "template": "{prompt} {text} Answer: {answer}\n",
            "label": "refs",
            "references": 1,
            "aliases": {"field": "also"},
            "splits": {"search": 8, "select": 4, "test": 6},
            "decoding": {"tokens": 4, "beams": 2, "length_penalty": 0.6},
            "metric": {"bleu": {"lowercase": True}},
            "metrics": ["exact_match", {"slot_error": {"field": "mr"}}, "rougeL", "nist", "cider"],
        },
        budget=8_000,
        select_by="metric",
    )


def followed(lab: Lab) -> dict[str, Any]:
    """A search that follows a metric of answers that are drawn."""
    given = texts(lab)
    given["task"]["decoding"] = {
        "tokens": 3,
        "temperature": 0.8,
        "top_p": 0.9,
        "samples": 2,
        "seed": 3,
    }
    given |= {"objective": "exact_match", "budget": 8_000, "race": False}
    given["strategies"] = [{"random": {"batch": 2, "seeds": 1}}, {"manual": {"prompts": ["The"]}}]
    return given


def options(lab: Lab) -> dict[str, Any]:
    """Answers that differ by row, a column that splits, and a task for each language."""
    return lab.study(
        task={
            "name": "d",
            "data": {
                "path": "a.jsonl",
                "column": "set",
                "search": ["train", "extra"],
                "select": "dev",
                "test": "test",
            },
            "each": "lang",
            "template": "{prompt} {text} {answer}",
            "label": "place",
            "answers": {"field": "options"},
            "normalise": "characters",
            "splits": {},
        },
        score_on=2,
        budget=4_000,
    )


def labels(lab: Lab) -> dict[str, Any]:
    """The label's own values, few of each class, drawn anew by each seed."""
    return lab.study(
        task={
            "name": "d",
            "data": {"path": "a.jsonl"},
            "template": "{prompt} {text} It was {answer}",
            "label": "name",
            "answers": "labels",
            "splits": {"search": {"per_class": 4}, "select": {"per_class": 2}, "test": 8},
            "metric": "balanced_accuracy",
            "metrics": ["f1", "calibration_error"],
        },
        draw="seed",
        seeds=[0, 4],
        strategies=[{"manual": {"prompts": ["The"], "seeds": 1}}, {"random": {"batch": 4}}],
        score_on=4,
    )


STUDIES: tuple[Callable[[Lab], dict[str, Any]], ...] = (texts, followed, options, labels)


def case_of(row: str, what: str, study: Any, files: Mapping[str, bytes] | None = None) -> Case:
    """A study beside `a.jsonl` and `b.jsonl`, or others in their place."""

    def prepare(folder: Path) -> None:
        for name in ("a.jsonl", "b.jsonl"):
            some = rows() if name == "a.jsonl" else rows(60)[36:]
            (folder / name).write_text(lines_of(some), "utf-8")
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        (folder / "study.yaml").write_bytes(to_text(study).encode("utf-8", "surrogatepass"))

    return Case(row, what, [COMPARE], prepare, finite)


def lines_of(some: Rows) -> str:
    """Rows as JSONL."""
    return "".join(to_text(row) + "\n" for row in some)


def edited(rng: random.Random, lab: Lab) -> Case:
    """One value of such a study replaced, left out, or beside an unknown key."""
    make = rng.choice(STUDIES)
    whole = make(lab)
    inside = [path for path in paths(whole)[1:] if path[0] not in ("model", "strategies")]
    what, data = edit(whole, rng, rng.choice(inside))
    return case_of("13 protocols", f"{make.__name__}: {what}", data)


#: Key -> values of the right type that may not fit the data, the model or each other.
_VALUES: dict[str, Sequence[Any]] = {
    "data": (
        {"search": {"path": "a.jsonl"}, "test": {"path": "a.jsonl"}},
        {"test": {"path": "b.jsonl"}},
        {"search": {"path": "a.jsonl"}, "test": {"path": "b.jsonl", "where": {"lang": "en"}}},
        {"search": {"path": "a.jsonl", "where": {"lang": "xx"}}, "test": {"path": "b.jsonl"}},
        {"search": {"path": "a.jsonl", "where": {}}, "test": {"path": "b.jsonl", "where": 3}},
        {"search": {"path": "a.jsonl"}, "path": "b.jsonl"},
        {"search": {"path": "nothing.jsonl"}, "test": {"path": "b.jsonl"}},
        {"select": {"path": "a.jsonl"}, "test": {"hub": "../x", "split": "test"}},
        {"path": "a.jsonl", "column": "set", "search": "train", "test": ["test", "none"]},
        {"path": "a.jsonl", "column": "nothing", "search": "train"},
        {"path": "a.jsonl", "column": "set"},
        {"path": "a.jsonl", "column": "author", "search": "a1"},
        {"path": "a.jsonl", "column": "set", "search": "train", "select": "train"},
    ),
    "where": (
        {"lang": "xx"},
        {"nothing": "x"},
        {"author": "a1"},
        {"author.id": ["a1", "a2"]},
        {"lang": []},
        {},
        {"label": [True, 1, 1.0]},
        {"refs": "The city"},
        {"lang": ["en"] * 5000},
        {"\x1b[31m": "x"},
    ),
    "join": (
        {"refs": " "},
        {"refs": [" ", " "]},
        {"text": " "},
        {"author": " "},
        {"nothing": " "},
        {"refs": []},
        {"refs": "\x1b[31m"},
        {"refs": "x" * 10**6, "also": ""},
        {"options": " | "},
    ),
    "each": ("lang", "text", "nothing", "author", "refs", "label", "\x1b[31m", ""),
    "group": ("author", "author.id", "lang", "text", "refs", "nothing", "label", ""),
    "references": (1, 2, 10**9, 0, -1, True, 1.5),
    "label": ("refs", "place", "name", "author.id", "author", "options", "nothing"),
    "answers": (
        "labels",
        "label",
        {"field": "options"},
        {"field": "refs"},
        {"field": "text"},
        {"field": "nothing"},
        {"field": "author"},
        {"field": "options", "x": 1},
        {"field": "bad", "good": "good"},
    ),
    "aliases": ({"field": "also"}, {"field": "text"}, {"field": "author"}, {"The city": ["a"]}, {}),
    "splits": (
        {"search": {"per_class": 4}, "select": {"per_class": 2}, "test": {"per_class": 2}},
        {"search": {"per_class": 10**6}, "select": 2, "test": 4},
        {"search": {"per_class": 0}, "select": 2, "test": 4},
        {"search": 8, "select": {"per_class": 1}, "test": 10**9},
        {"search": 1, "select": 1, "test": 1},
        {},
    ),
    "normalise": ("tokens", "bytes", "characters", "words", "none", 1, None),
    "decoding": (
        {"tokens": 10**6},
        {"tokens": 1},
        {"beams": 500},
        {"beams": 2, "temperature": 1.0, "samples": 3},
        {"temperature": 1e-300},
        {"temperature": 1e300},
        {"temperature": Raw("1e999")},
        {"top_p": 0},
        {"top_p": 1e-12, "temperature": 1.0},
        {"samples": 4},
        {"samples": 50, "temperature": 0.5},
        {"length_penalty": -1e300, "beams": 2},
        {"length_penalty": Raw(".nan"), "beams": 2},
        {"seed": 2**64, "temperature": 1.0},
        {"max_tokens": 3},
    ),
    "template": (
        "{prompt} {text} {answer}END",
        "{prompt} {text} {answer} ",
        "{prompt} {text} {answer}{text}",
        "{prompt} {author.id} {answer}\n",
        "{prompt} {author} {answer}",
        "{prompt} {refs} {answer}",
        "{prompt} {text} {answer}\x1b[31m",
        "{prompt} {text}{answer}\n\n",
        "{prompt} {nothing.at.all} {answer}",
    ),
    "metric": (
        "bleu",
        "chrf",
        {"ter": {}},
        {"bleu": {"order": 3}},
        {"bleu": None},
        {"slot_error": {}},
        {"slot_error": {"field": "nothing"}},
        {"slot_error": {"field": "author"}},
        {"rougeL": {"stem": "yes"}},
        {"judge": {}},
        {"judge": {"question": "Is {answer} right?", "proposer": {"model": "x"}}},
        {"bertscore": {"encoder": "../nothing"}},
        {"bertscore": {"model": "/dev/zero"}},
        {"f1": {"average": "x"}},
        "token_f1",
        "valid_json",
        "calibration_error",
        "meteor_nltk",
        "canary_of_attack:f",
        {"accuracy": {}, "f1": {}},
        {},
    ),
}
_VALUES["metrics"] = (
    [],
    ["bleu", "bleu"],
    ["bleu", {"bleu": {"lowercase": True}}],
    *([value] for value in _VALUES["metric"]),
    ["exact_match"] * 300,
)
#: The same for keys of the study itself.
_OUTSIDE: dict[str, Sequence[Any]] = {
    "objective": (*_VALUES["metric"], "accuracy", "loss"),
    "select_by": ("metric", "loss", "best", None, 1),
    "draw": ("seed", "once", "each", True, None),
    "seeds": (2, [0, 0], [5, 1], [], 0, 10**9, [-1], [2**64]),
    "race": (True,),
    "score_on": (1, 4, 10**6),
}


def chosen(rng: random.Random, lab: Lab) -> Case:
    """One or two keys set to values of the right type, which may fit nothing else."""
    make = rng.choice(STUDIES)
    data, told = make(lab), []
    for _ in range(rng.choice([1, 1, 2])):
        outside = rng.random() < 0.25
        table = _OUTSIDE if outside else _VALUES
        key = rng.choice(sorted(table))
        value = rng.choice(list(table[key]))
        (data if outside else data["task"])[key] = value
        told.append(f"{key} = {str(value)[:60]}")
    case = case_of("13 protocols", f"{make.__name__}: {'; '.join(told)}", data)
    case.trusted = any("canary_of_attack" in line for line in told)  # the user's own file
    return case


def fields(rng: random.Random, lab: Lab) -> Case:
    """A value of a row that is not what its key promises."""
    make = rng.choice(STUDIES)
    some, i = rows(), rng.randrange(8)
    key = rng.choice(["refs", "also", "options", "place", "author", "lang", "set", "name", "mr"])
    value = rng.choice(
        [
            *PLAIN,
            *(Raw(raw) for raw in RAW.values()),
            ["The city", "The city"],
            ["", " "],
            ["The city", None],
            ["The city"] * 3000,
            ["a", ["b"]],
            {"id": None},
            {"id": ["x"]},
            99,
            1.0,
            "1",
            "The city\nand more",
            "\x1b[31mcity",
            "a b " * 4000,
        ]
    )
    for row in some[i :: rng.choice([1, 36])]:
        row[key] = value
    if rng.random() < 0.2:
        del some[i][key]
    content = lines_of(some).encode("utf-8", "surrogatepass")
    what = f"{make.__name__}: row {i + 1}, {key} = {str(value)[:40]!r}"
    return case_of("4 fields of protocols", what, make(lab), {"a.jsonl": content})


def uneven(rng: random.Random, lab: Lab) -> Case:
    """Data that leave little: one group, one class, the same texts in all splits, few rows."""
    make = rng.choice(STUDIES)
    way = rng.choice(["one group", "one class", "same texts", "few", "a huge group", "one text"])
    some, files = rows(), {}
    if way == "one group":
        some = [{**row, "author": {"id": "x"}} for row in some]
    elif way == "a huge group":
        some = [{**row, "author": {"id": "x" if i > 3 else i}} for i, row in enumerate(some)]
    elif way == "one class":
        some = [{**row, "label": 1, "name": "good", "place": 0} for row in some]
    elif way == "few":
        some = some[: rng.choice([0, 1, 2, 5])]
    elif way == "one text":
        some = [{**row, "text": "the story"} for row in some]
    else:
        files["b.jsonl"] = lines_of(some).encode()
    files["a.jsonl"] = lines_of(some).encode()
    return case_of("4 what data leave", f"{make.__name__}: {way}", make(lab), files)


MAKERS = (edited, chosen, fields, uneven, chosen)
