"""Drafts: from a file of data to a study that runs, with nothing written by hand."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import promptsearch
from promptsearch import compare
from promptsearch.cli import app
from promptsearch.errors import TaskError
from promptsearch.plain.yaml import read_yaml
from promptsearch.study.config import load_config
from promptsearch.study.drafting.draft import draft
from promptsearch.study.drafting.writing import quoted
from promptsearch.tasks.task import Task

#: Files of data of many kinds, those of the built-in tasks.
DATA = Path(promptsearch.__file__).parent / "tasks" / "builtin"
FILMS = ("good", "bad", "funny", "boring", "great", "terrible")
PLACES = ("France", "Italy", "Spain", "Japan", "Germany")


def write(folder, name, rows):
    """The rows as a file of the kind that its name says."""
    path = folder / name
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def reviews(count=60):
    return [
        {
            "id": str(i),
            "text": f"This film is {FILMS[i % 6]} and the story is {FILMS[i // 6 % 6]} {i}.",
            "label": "negative" if i % 2 else "positive",
        }
        for i in range(count)
    ]


def questions(count=60):
    return [
        {
            "question": f"What is the capital of {PLACES[i % 5]} {i}?",
            "choices": [["Paris", "Rome"], ["Madrid", "Tokyo", "Berlin"]][i % 2],
            "answer": i % 2,
        }
        for i in range(count)
    ]


def capitals(count=60):
    words = ("Paris", "Rome", "Madrid", "Tokyo", "Berlin")
    return [
        {"name": f"{PLACES[i % 5]} {i}", "capital": f"{words[i % 5]} {i}"} for i in range(count)
    ]


def descriptions(count=60):
    """Inputs with one or two references each, of five words."""
    return [
        {
            "mr": f"film[{FILMS[i % 6]}], place[{PLACES[i % 5]} {i}]",
            "references": [
                f"A {FILMS[i % 6]} movie about {PLACES[i % 5]} {i}.",
                f"The movie about {PLACES[i % 5]} {i} is {FILMS[i % 6]}.",
            ][: 1 + i % 2],
        }
        for i in range(count)
    ]


def summaries(count=60):
    """Long inputs, each with a text that is much shorter."""
    return [
        {
            "document": f"The story {i} is about {PLACES[i % 5]}. "
            + f"It was {FILMS[i % 6]}. " * 8,
            "summary": f"A {FILMS[i % 6]} story {i} about {PLACES[i % 5]}.",
        }
        for i in range(count)
    ]


def pairs(count=60):
    """Three questions on each passage, with an answer of one word."""
    return [
        {
            "passage": f"The movie {i // 3} is good and the story is {FILMS[i // 3 % 6]}.",
            "question": f"How is the {('movie', 'story', 'text')[i % 3]} {i}?",
            "answer": f"{FILMS[i % 6]} {i}",
        }
        for i in range(count)
    ]


#: Six kinds of tasks: the rows, the file, and what the draft's task must say.
KINDS = {
    "choices": (
        reviews(),
        "reviews.csv",
        {"label": "label", "answers": {"negative": "negative", "positive": "positive"}},
    ),
    "options": (
        questions(),
        "questions.jsonl",
        {"label": "answer", "answers": {"field": "choices"}, "metric": "accuracy"},
    ),
    "short": (
        capitals(),
        "capitals.json",
        {"label": "capital", "answers": None, "metric": "exact_match"},
    ),
    "references": (descriptions(), "films.jsonl", {"label": "references", "answers": None}),
    "long": (summaries(), "news.jsonl", {"label": "summary", "answers": None}),
    "grouped": (
        pairs(),
        "passages.csv",
        {"label": "answer", "group": "passage", "metric": "exact_match"},
    ),
}


def drafted(folder, kind, **given):
    rows, name, _ = KINDS[kind]
    path = write(folder, name, rows)
    return draft(path, folder / "study.yaml", **given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_is_of_the_kind_of_its_data(kind, tmp_path):
    text = drafted(tmp_path, kind).text
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    (task,) = load_config(tmp_path / "study.yaml").tasks
    said = {key: value for key, value in read_yaml(text, "study.yaml")[0]["task"].items()}
    for key, value in KINDS[kind][2].items():
        assert said.get(key) == value
    splits = Task.load(task.model_dump(exclude_none=True), tmp_path).splits
    assert sum(map(len, splits.values())) <= 60
    assert min(map(len, splits.values())) >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_give_the_same_draft(kind, tmp_path):
    first = drafted(tmp_path, kind)
    assert drafted(tmp_path, kind) == first
    assert first.said and all("\n" not in line for line in (*first.said, *first.checks))


@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_runs_from_data_to_report(kind, tmp_path, tiny, monkeypatch):
    rows, name, _ = KINDS[kind]
    write(tmp_path, name, rows)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init", name, "--out", "study.yaml"])
    assert result.exit_code == 0, result.output
    assert "study.yaml" in result.output and "promptsearch compare" in result.output
    # Only the model is another one: there is none at hand that is small enough for a test.
    results = compare(load_config(Path("study.yaml"), SMALL), out="out", model=tiny)
    assert [run.error for run in results.failed] == []
    assert len(results.runs) == 5
    assert (tmp_path / "out" / "report.html").exists()


#: What makes the runs short: they have the same parts.
SMALL = (
    "budget=20000",
    "pool=50",
    "seeds=1",
    "task.splits.search=16",
    "task.splits.select=6",
    "task.splits.test=8",
)


def test_every_line_of_a_draft_is_explained(tmp_path):
    before = ""
    for line in drafted(tmp_path, "choices").text.splitlines():
        plain = line.strip()
        explained = "#" in line or before.startswith("#") or plain in ("task:", "strategies:")
        assert explained or plain.split(":")[0] in ("negative", "positive"), line
        before = plain


def test_the_fields_can_be_named(tmp_path):
    rows = [{**row, "title": row["text"][::-1], "stars": i % 5} for i, row in enumerate(reviews())]
    path = write(tmp_path, "reviews.jsonl", rows)
    own = draft(path, tmp_path / "s.yaml", label="stars", inputs=["title"]).text
    said = read_yaml(own, "s.yaml")[0]["task"]
    assert said["label"] == "stars" and "{title}" in said["template"]
    assert "{text}" not in said["template"]
    assert list(said["answers"]) == [0, 1, 2, 3, 4]


def test_a_second_candidate_for_the_label_is_said(tmp_path):
    rows = [{**row, "category": f"c{i % 3}"} for i, row in enumerate(reviews())]
    found = draft(write(tmp_path, "reviews.jsonl", rows), tmp_path / "s.yaml")
    assert any(
        "'label' is the right answer" in line and "category" in line for line in found.checks
    )
    assert any("--label" in line for line in found.checks)


def test_a_field_that_names_the_labels_gives_the_answers(tmp_path):
    names = ("bad", "good")
    rows = [{"text": f"film {i}", "label": i % 2, "label_text": names[i % 2]} for i in range(60)]
    text = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml").text
    assert read_yaml(text, "s")[0]["task"]["answers"] == {0: "bad", 1: "good"}


def test_answers_have_no_spaces_around_them(tmp_path):
    rows = [{"text": f"film {i}", "label": (" good", "bad ")[i % 2]} for i in range(60)]
    text = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml").text
    assert read_yaml(text, "s")[0]["task"]["answers"] == {" good": "good", "bad ": "bad"}


def test_numbers_as_labels_are_to_be_checked(tmp_path):
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(60)]
    found = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml")
    assert any("answers" in line and "number" in line for line in found.checks)


NUMBERED = {
    "a score": [{"text": f"film {i}", "score": i / 8} for i in range(40)],
    "a price": [{"description": f"a film {i}", "price": i % 4} for i in range(40)],
    "a short word": [{"y": i % 2, "word": f"word{i}"} for i in range(40)],
}


@pytest.mark.parametrize("rows", NUMBERED.values(), ids=NUMBERED)
def test_a_number_beside_the_only_text_is_never_the_input(rows, tmp_path):
    found = []
    for name in ("rows.csv", "rows.jsonl"):
        try:
            found.append(draft(write(tmp_path, name, rows), tmp_path / "s.yaml").text)
        except TaskError as error:
            found.append(str(error))
    assert found[0].replace(".csv", ".jsonl") == found[1]


def test_a_number_beside_a_text_of_few_values_is_the_input(tmp_path):
    rows = [{"number": i, "parity": ("even", "odd")[i % 2]} for i in range(60)]
    text = draft(write(tmp_path, "numbers.csv", rows), tmp_path / "s.yaml").text
    said = read_yaml(text, "s")[0]["task"]
    assert said["label"] == "parity" and "{number}" in said["template"]


def test_a_rare_label_is_not_measured_by_accuracy(tmp_path):
    rows = [{"text": f"film {i}", "label": "yes" if i % 10 else "no"} for i in range(100)]
    text = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml").text
    assert read_yaml(text, "s")[0]["task"]["metric"] == "f1"


def test_an_author_makes_a_group(tmp_path):
    rows = [{**row, "author": f"a{i % 20}"} for i, row in enumerate(reviews())]
    found = draft(write(tmp_path, "reviews.jsonl", rows), tmp_path / "s.yaml")
    assert read_yaml(found.text, "s")[0]["task"]["group"] == "author"


def test_splits_are_as_large_as_the_largest_group(tmp_path):
    """Of inputs this long, few would select, and the groups are larger."""
    rows = [
        {
            "text": f"A film {i}. " + "It goes on. " * 60,
            "label": "ab"[i % 2],
            "author": f"a{i % 10}",
        }
        for i in range(500)
    ]
    found = draft(write(tmp_path, "reviews.jsonl", rows), tmp_path / "s.yaml")
    said = read_yaml(found.text, "s")[0]["task"]
    assert said["group"] == "author" and min(said["splits"].values()) == 50
    assert any(line.startswith("group: 'author', by its name") for line in found.said)


def test_a_group_that_fits_no_splits_is_left_out_and_said(tmp_path):
    """One group in ten holds nearly all that differs: each other one has the same few inputs."""
    rows = [{"text": f"film {i}", "author": "a0"} for i in range(40)]
    rows += [{"text": f"film {i % 4}", "author": f"a{1 + i % 11}"} for i in range(440)]
    rows = [{**row, "label": "ab"[i % 2]} for i, row in enumerate(rows)]
    found = draft(write(tmp_path, "reviews.jsonl", rows), tmp_path / "s.yaml")
    assert "group" not in read_yaml(found.text, "s")[0]["task"]
    assert not any(line.startswith("group:") for line in found.said)
    (check,) = [line for line in found.checks if "several splits" in line]
    assert "'author'" in check and "40 of 40 different inputs" in check


HAN = "今天气很好我们一起去公园散步然后回家吃饭看书写字"


def test_texts_without_spaces_are_as_long_as_they_are(tmp_path):
    rows = [
        {"article": HAN[i % 24 :] * 9 + f"{i}", "summary": HAN[i % 8 : 16 + i % 8] + HAN[i // 8]}
        for i in range(60)
    ]
    found = draft(write(tmp_path, "news.jsonl", rows), tmp_path / "s.yaml")
    assert any(line.startswith("answer: a longer text") for line in found.said)
    said = read_yaml(found.text, "s")[0]["task"]
    assert (said["metric"], said["metrics"]) == ("chrf", ["token_f1"])  # which read all letters


def test_pairs_in_both_directions_are_said(tmp_path):
    rows = [{"word": f"w{i}", "opposite": f"v{i}"} for i in range(40)]
    path = write(tmp_path, "pairs.csv", rows)
    assert not draft(path, tmp_path / "s.yaml").checks
    rows += [{"word": row["opposite"], "opposite": row["word"]} for row in rows[:9]]
    (check,) = draft(write(tmp_path, "pairs.csv", rows), tmp_path / "s.yaml").checks
    assert check.startswith("18 rows") and "group" in check


def test_of_many_references_few_count_in_the_loss(tmp_path):
    rows = [{**row, "references": row["references"] * 4} for row in descriptions()]
    for row in rows:
        row["references"] = [f"{text} {k}" for k, text in enumerate(row["references"])]
    found = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml")
    assert read_yaml(found.text, "s")[0]["task"]["references"] == 2


@pytest.mark.parametrize("names", ["ABC", "123"])
def test_options_are_their_texts_where_the_label_is_what_they_are_called_by(names, tmp_path):
    for number, row in enumerate(rows := questions()):
        called = list(names[: len(row["choices"])])
        row |= {
            "answerKey": called[number % 2],
            "choices": {"text": row["choices"], "label": called},
        }
        del row["answer"]
    found = draft(write(tmp_path, "questions.jsonl", rows), tmp_path / "s.yaml")
    said = read_yaml(found.text, "s")[0]["task"]
    assert said["answers"] == {"field": "choices.text", "names": "choices.label"}
    (tmp_path / "s.yaml").write_text(found.text, "utf-8")
    (given,) = load_config(tmp_path / "s.yaml").tasks
    task = Task.load(given.model_dump(exclude_none=True), tmp_path)
    right = {row["question"]: " " + row["choices"]["text"][n % 2] for n, row in enumerate(rows)}
    for example in task.splits["test"].examples:
        assert example.answer == right[example.fields["question"]]


def test_options_that_the_label_does_not_name_are_said(tmp_path):
    rows = [{**row, "answer": "AB"[row["answer"]]} for row in questions()]
    found = draft(write(tmp_path, "questions.jsonl", rows), tmp_path / "s.yaml")
    assert any("'choices', which looks like options" in check for check in found.checks)


def test_long_labels_are_read_back(tmp_path):
    labels = ["a" * 1_020, "b: " * 400 + "b", "c" * 5_000]
    rows = [{"text": f"film {i}", "label": labels[i % 3]} for i in range(60)]
    text = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml").text
    answers = read_yaml(text, "s")[0]["task"]["answers"]
    assert answers == dict(zip(labels, labels, strict=True))


@pytest.mark.parametrize("name", ["pools", "nul", "COM1"])
def test_data_whose_name_no_study_can_have_are_drafted_under_another_one(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, f"{name}.csv", reviews())
    result = CliRunner().invoke(app, ["init", f"{name}.csv"])
    assert result.exit_code == 0, result.output
    assert load_config(Path(f"{name}-study.yaml")).name == f"{name}-study"
    assert load_config(Path(f"{name}-study.yaml")).tasks[0].name == f"{name}-task"


def test_a_label_beyond_all_numbers_is_no_place_among_the_options(tmp_path):
    rows = [{**row, "answer": "9" * 400 if row["answer"] else "0"} for row in questions()]
    found = draft(write(tmp_path, "questions.jsonl", rows), tmp_path / "s.yaml")
    assert any("'choices', which looks like options" in check for check in found.checks)


def test_dates_are_labels_where_they_are_named(tmp_path):
    days = [datetime.date(2020, 1, 1 + i % 2) for i in range(60)]
    texts = [f"film {i}" for i in range(60)]
    rows = pyarrow.table({"text": texts, "mood": ["happy", "sad"] * 30, "when": days})
    pyarrow.parquet.write_table(rows, path := tmp_path / "films.parquet")
    text = draft(path, tmp_path / "s.yaml", label="when").text
    assert list(read_yaml(text, "s")[0]["task"]["answers"]) == ["2020-01-01", "2020-01-02"]
    said = read_yaml(draft(path, tmp_path / "s.yaml").text, "s")[0]["task"]
    assert said["label"] == "mood" and "{when}" not in said["template"]


def test_classes_are_known_by_their_names(tmp_path):
    names = datasets.Features(
        {"text": datasets.Value("string"), "mood": datasets.ClassLabel(names=["happy", "sad"])}
    )
    rows = {"text": [f"film {i}" for i in range(60)], "mood": [0, 1] * 30}
    datasets.Dataset.from_dict(rows, names).to_parquet(tmp_path / "films.parquet")
    text = draft(tmp_path / "films.parquet", tmp_path / "s.yaml").text
    assert read_yaml(text, "s")[0]["task"]["answers"] == {"happy": "happy", "sad": "sad"}


def test_nested_fields_are_named_with_points(tmp_path):
    rows = [
        {"translation": {"en": f"the film number {i} is good", "de": f"der Film {i} ist sehr gut"}}
        for i in range(60)
    ]
    found = draft(write(tmp_path, "films.jsonl", rows), tmp_path / "s.yaml")
    said = read_yaml(found.text, "s")[0]["task"]
    assert said["label"] == "translation.de" and "{translation.en}" in said["template"]


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "No",
        "null",
        "1",
        "1.0",
        "a: b",
        "#x",
        "{a}",
        "é",
        "\x7f",
        "\u2028",
        '"',
        "",
        " a",
        "~",
    ],
    ids=repr,
)
def test_quoted_text_is_read_back(text):
    assert read_yaml(f"{quoted(text)}: {quoted(text)}", "a text")[0] == {text: text}


#: Wrong inputs of `init`: the file, its content, further arguments, and what the message names.
WRONG = {
    "absent": ("none.csv", None, [], "none.csv"),
    "unknown kind": ("data.xlsx", "a", [], "unknown kind"),
    "empty": ("data.jsonl", "", [], "no row"),
    "header only": ("data.csv", "text,label\n", [], "no row"),
    "one field": ("data.jsonl", [{"text": f"a {i}"} for i in range(60)], [], "--label"),
    "one value": (
        "data.jsonl",
        [{"text": f"a {i}", "label": "x"} for i in range(60)],
        [],
        "one value only",
    ),
    "few rows": ("data.jsonl", reviews(9), [], "9 different inputs"),
    "unknown label": ("data.jsonl", reviews(), ["--label", "lable"], "label"),
    "unknown text": ("data.jsonl", reviews(), ["--text", "texts"], "text"),
    "text is label": (
        "data.jsonl",
        reviews(),
        ["--text", "text", "--label", "text"],
        "expected two",
    ),
    "no text": (
        "data.jsonl",
        [{"x": i / 7, "y": i / 3, "label": i % 2} for i in range(60)],
        [],
        "--text",
    ),
    "no JSON": ("data.jsonl", "text,label\n", [], "not JSON"),
    "label missing in a row": (
        "data.jsonl",
        [*reviews(), {"id": "99", "text": "a b", "label": ""}],
        [],
        "line 61",
    ),
    "a list without a text": (
        "data.jsonl",
        [*descriptions(), {"mr": "film[none]", "references": []}],
        [],
        "line 61",
    ),
    "a list of numbers": (
        "data.jsonl",
        [{"text": f"a {i}", "references": [i, i]} for i in range(60)],
        ["--label", "references"],
        "has no text",
    ),
    "lists as the text": ("data.jsonl", questions(), ["--text", "choices"], "holds lists"),
    "lists beside the text": (
        "data.jsonl",
        questions(),
        ["--text", "question", "--text", "choices"],
        "the study file can join a list to one text",
    ),
    "not a name": ("data.csv", "my text,label\n" + "a,b\nc,d\n" * 30, [], "my text"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_clear_message(wrong, tmp_path, monkeypatch):
    name, content, more, message = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    if isinstance(content, str):
        (tmp_path / name).write_text(content, "utf-8")
    elif content is not None:
        write(tmp_path, name, content)
    result = CliRunner().invoke(app, ["init", name, *more])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_a_file_that_exists_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "reviews.csv", reviews())
    Path("reviews.yaml").write_text("mine", "utf-8")
    result = CliRunner().invoke(app, ["init", "reviews.csv"])
    assert result.exit_code == 2 and "exists" in result.stderr
    assert Path("reviews.yaml").read_text("utf-8") == "mine"


def test_the_study_may_lie_in_a_linked_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("real/deep").mkdir(parents=True)
    Path("link").symlink_to("real/deep")
    write(tmp_path, "reviews.csv", reviews())
    result = CliRunner().invoke(app, ["init", "reviews.csv", "--out", "link/a.yaml"])
    assert result.exit_code == 0, result.output
    (task,) = load_config(Path("link/a.yaml")).tasks
    assert task.data.path == "../../reviews.csv"
    assert Task.load(task.model_dump(exclude_none=True), Path("link")).splits


def test_the_study_may_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "reviews.csv", reviews())
    result = CliRunner().invoke(app, ["init", "reviews.csv", "--out", "studies/a.yaml"])
    assert result.exit_code == 0, result.output
    (task,) = load_config(Path("studies/a.yaml")).tasks
    assert task.data.path == "../reviews.csv"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("antonyms", {"label": "antonyms", "group": "family", "metric": "exact_match"}),
        ("capitals", {"label": "continent", "metric": "accuracy"}),
        ("elements", {"label": "period", "metric": "accuracy"}),
        ("movie-reviews", {"label": "label", "metric": "accuracy"}),
        ("past-tenses", {"label": "past", "group": "stem", "metric": "exact_match"}),
        ("questions", {"label": "references", "answers": None}),
        ("sentences", {"label": "label", "metric": "accuracy"}),
        ("which-capital", {"label": "answer", "answers": {"field": "options"}}),
    ],
)
def test_data_of_other_hands_are_drafted(name, said, tmp_path):
    found = read_yaml(draft(DATA / f"{name}.jsonl", tmp_path / "s.yaml").text, "s")[0]["task"]
    assert {key: found.get(key) for key in said} == said
