"""Six tasks of six kinds go from a file of data to a report by two commands each: no run is lost.

`python -m attack.tasks` writes the files, of as many formats, from rows of the built-in tasks, then
runs `promptsearch init` and `promptsearch compare` on each with the real model, and writes what
`init` took for what and how each run ended to a page. Nothing of a study file is written by hand.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promptsearch
from promptsearch.plain.yaml import read_yaml
from promptsearch.report import load_results

BUILTIN = Path(promptsearch.__file__).parent / "tasks" / "builtin"
Rows = list[dict[str, Any]]
_HEAD = """# Six tasks of six kinds

From a file of data to a report by two commands each, and nothing written by hand:

    promptsearch init FILE
    promptsearch compare FILE.yaml{changed}

{tasks} tasks, with SmolLM2-135M-Instruct, one seed: {runs} runs done, {lost} lost. They tell if
one is lost, not which strategy is better. All of it is made again, the files from rows of the
built-in tasks, by

    OMP_NUM_THREADS=1 python -m attack.tasks{flag} --page results/reliability/tasks.md
"""
_COLUMNS = ("task", "file", "template by `init`", "answers", "search / select / test", "metric")
_DRAFTED = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
_ENDED = "| task | strategy | test loss | metric |\n|---|---|---:|---:|"


@dataclass(frozen=True)
class Given:
    """A file of data.

    Args:
        name: The task's, as the page calls it.
        file: The file's name.
        form: What stands in it, in words.
        write: Writes it.
    """

    name: str
    file: str
    form: str
    write: Callable[[Path], None]


def rows_of(task: str, most: int = 120) -> Rows:
    """Rows of a built-in task, from all over its file: few, so that all runs end in an hour."""
    lines = (BUILTIN / f"{task}.jsonl").read_text("utf-8").strip().split("\n")
    rows = [row for row in map(json.loads, lines) if "canary" not in row]
    return rows[:: max(1, len(rows) // most)][:most]


def reviews(path: Path) -> None:
    """CSV of a review and whether it is favourable, in words."""
    rows = [(row["text"], "yes" if row["label"] else "no") for row in rows_of("movie-reviews")]
    _write_csv(path, ["id", "comment", "favourable"], [(i, *row) for i, row in enumerate(rows)])


def continents(path: Path) -> None:
    """JSON with fields in fields, and a few labels."""
    known = [row for row in rows_of("capitals") if row["continent"] != "Antarctica"]
    places = [
        {
            "place": {"country": row["name"], "capital": row["capital"]},
            "continent": row["continent"],
        }
        for row in known
    ]
    path.write_text(json.dumps({"version": 1, "data": places}, ensure_ascii=False), "utf-8")


def few(path: Path) -> None:
    """Packed JSONL of 96 rows whose labels are numbers, with a field that names them."""
    rows = rows_of("sentences", 96)
    names = {0: "negative", 1: "positive"}
    lines = [
        json.dumps({"sentence": r["text"], "label": r["label"], "label_text": names[r["label"]]})
        for r in rows
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def quiz(path: Path) -> None:
    """JSONL of questions with options of their own, the right one by its place."""
    lines = [
        json.dumps(
            {
                "question": {"stem": f"What is the capital of {row['name']}?"},
                "choices": {"text": row["options"]},
                "answer": row["answer"],
            },
            ensure_ascii=False,
        )
        for row in rows_of("which-capital")
    ]
    path.write_text("\n".join(lines), "utf-8")


def verbs(path: Path) -> None:
    """TSV of a verb and its past tense."""
    rows = [(row["verb"], row["past"]) for row in rows_of("past-tenses")]
    _write_csv(path, ["infinitive", "past_tense"], rows, delimiter="\t")


def facts(path: Path) -> None:
    """Parquet of a fact and a list of questions that it answers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = rows_of("questions")
    table = {
        "source": [row["input"].removeprefix("Fact: ") for row in rows],
        "targets": [row["references"] for row in rows],
    }
    pq.write_table(pa.table(table), path)


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Any], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(head)
        writer.writerows(rows)


GIVEN = (
    Given("reviews", "reviews.csv", "CSV: a text, yes or no", reviews),
    Given("continents", "continents.json", "JSON, fields in fields: a class of six", continents),
    Given("few rows", "few.jsonl.gz", "packed JSONL: 96 rows, labels with names", few),
    Given("quiz", "quiz.jsonl", "JSONL: options that differ by row", quiz),
    Given("verbs", "verbs.tsv", "TSV: a short text", verbs),
    Given("facts", "facts.parquet", "Parquet: a longer text, several references", facts),
)


def draft(given: Given, folder: Path) -> Path:
    """The study file that `init` drafts of a file of data."""
    given.write(folder / given.file)
    study = folder / f"{given.file.partition('.')[0]}.yaml"
    study.unlink(missing_ok=True)
    _command(["init", given.file, "--out", study.name], folder)
    return study


def _command(words: Sequence[str], folder: Path) -> int:
    print("promptsearch", *words, flush=True)
    return subprocess.run(
        [sys.executable, "-m", "promptsearch", *words], cwd=folder, check=False
    ).returncode


def page(done: Sequence[Given], folder: Path, budget: int | None) -> tuple[str, int]:
    """The page: what was given, what `init` made of it, how each run ended; and the runs lost."""
    drafted, ended, lost, runs = [], [], 0, 0
    for given in done:
        stem = given.file.partition(".")[0]
        config = read_yaml((folder / f"{stem}.yaml").read_text("utf-8"), stem)[0]
        task, found = config["task"], load_results(folder / stem)
        answers = task.get("answers", "text")
        kind = answers if isinstance(answers, str) else ", ".join(map(str, answers.values()))
        splits = " / ".join(str(size) for size in task["splits"].values())
        template = json.dumps(task["template"], ensure_ascii=False)
        cells = [given.name, given.form, f"`{template}`", kind, splits, task["metric"]]
        drafted.append("| " + " | ".join(cells) + " |")
        for run in found.runs:
            runs += 1
            metric = "" if run.test.metric is None else f"{run.test.metric:.3f}"
            ended.append(f"| {given.name} | {run.label} | {run.test.loss:.4f} | {metric} |")
        for fault in found.failed:
            lost += 1
            ended.append(f"| {given.name} | {fault.label} | lost | {fault.error} |")
    changed = "" if budget is None else f" --set budget={budget}"
    head = _HEAD.format(
        tasks=len(done), runs=runs, lost=lost, changed=changed, flag=f" --budget {budget}"
    )
    parts = (head, _DRAFTED, *drafted, "", _ENDED, *ended)
    return "\n".join(parts) + "\n", lost


def main() -> None:
    """Draft, run, and write the page; 1 where a run was lost."""
    parser = argparse.ArgumentParser(prog="python -m attack.tasks", description=__doc__)
    parser.add_argument("--budget", type=int, help="LM tokens of each run; left out: as drafted")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"), help="the folder of all")
    parser.add_argument("--page", type=Path, help="the file of the table; left out: none")
    parser.add_argument("names", nargs="*", help="of the tasks; left out: all")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    changed = [] if asked.budget is None else ["--set", f"budget={asked.budget}"]
    for given in GIVEN:
        if given.name in (asked.names or [given.name]):
            study = draft(given, asked.out)
            out = ["--out", study.stem, "--quiet"]
            _command(["compare", study.name, *changed, *out], asked.out)
    done = [given for given in GIVEN if (asked.out / given.file.partition(".")[0]).is_dir()]
    text, lost = page(done, asked.out, asked.budget)
    print(text)
    if asked.page:
        asked.page.write_text(text, "utf-8")
    raise SystemExit(lost > 0)


if __name__ == "__main__":
    main()
