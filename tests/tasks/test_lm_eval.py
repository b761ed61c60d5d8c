"""Tasks of lm-evaluation-harness are read as it reads them; the harness itself is the oracle.

Where it is not installed, only what is written down here is compared.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import datasets
import pytest

from promptsearch.errors import StudyError, TaskError
from promptsearch.study.config import load_config, parse_config
from promptsearch.tasks.lm_eval.rows import read_lm_eval
from promptsearch.tasks.task import Task

HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(
    not HARNESS, reason="lm-eval is not installed: pip install -c constraints.txt lm-eval"
)


@pytest.fixture(autouse=True)
def own_data_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


DOCUMENTS = [
    {
        "question": f"What is {n} plus one",
        "support": f"Numbers follow each other. {n} is a number. ",
        "options": {"text": [str(n), str(n + 1), f"{n} again"], "label": ["A", "B", "C"]},
        "key": "B",
        "gold": 1,
        "answers": [f"number {n + 1}", str(n + 1), f"number {n + 1}"],
        "word": ["odd", "even"][n % 2],
        "Number": n,
    }
    for n in range(24)
]
DATA = """\
dataset_path: json
dataset_kwargs: {data_files: {train: train.jsonl, validation: dev.jsonl, test: test.jsonl}}
training_split: train
validation_split: validation
test_split: test
"""
CHOICE = f"task: numbers\n{DATA}output_type: multiple_choice\n"
TEXT = f"task: numbers\n{DATA}output_type: generate_until\n"
TASKS = {
    "own choices": CHOICE
    + """\
doc_to_text: "{{support.lstrip()}}\\nQuestion: {{question}}?\\nAnswer:"
doc_to_choice: "{{options.text}}"
doc_to_target: "{{options.label.index(key)}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "fixed choices": CHOICE
    + """\
doc_to_text: "{{question}}?"
doc_to_choice: [odd, even]
doc_to_target: word
description: "Say whether the sum is odd or even.\\n\\n"
""",
    "fields": CHOICE
    + """\
doc_to_text: question
doc_to_choice: {a: odd, b: even}
doc_to_target: "{{ ['odd', 'even'].index(word) }}"
target_delimiter: "\\n"
metric_list: [{metric: acc}]
""",
    "space at the end": CHOICE
    + """\
doc_to_text: "{{support}}"
doc_to_choice: [odd, even]
doc_to_target: word
target_delimiter: ""
""",
    "prefix": CHOICE
    + """\
doc_to_text: "{{question}}?"
gen_prefix: "It is"
doc_to_choice: [odd, even]
doc_to_target: word
num_fewshot: 2
""",
    "examples": CHOICE
    + """\
doc_to_text: "{{question}}?"
doc_to_choice: "{{options.text}}"
doc_to_target: gold
fewshot_split: validation
num_fewshot: 3
fewshot_delimiter: "\\n---\\n"
""",
    "first examples": CHOICE
    + """\
doc_to_text: "{{question}}?"
doc_to_choice: [odd, even]
doc_to_target: word
fewshot_split: test
fewshot_config: {sampler: first_n}
num_fewshot: 2
""",
    "written examples": TEXT
    + """\
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answers[0]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5, do_sample: false}
num_fewshot: 2
fewshot_config:
  sampler: first_n
  samples:
    - {question: What is one plus one, answers: ["two"]}
    - {question: What is two plus two, answers: ["four"]}
    - {question: What is nine plus one, answers: ["ten"]}
""",
    "several targets": TEXT
    + """\
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answers}}"
generation_kwargs: {until: ["\\n", "</s>"], max_gen_toks: 5, do_sample: false}
filter_list:
  - name: clean
    filter: [{function: remove_whitespace}, {function: take_first}]
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true}]
""",
    "text with a prefix": TEXT
    + """\
doc_to_text: "Q: {{question}}"
doc_to_target: "{{Number}}"
gen_prefix: "The answer is"
generation_kwargs: {until: ".", max_gen_toks: 5}
num_fewshot: 1
fewshot_split: train
""",
}


@pytest.fixture
def folder(tmp_path):
    for name, part in (("train", DOCUMENTS[:12]), ("dev", DOCUMENTS[12:18])):
        write_rows(tmp_path / f"{name}.jsonl", part)
    write_rows(tmp_path / "test.jsonl", DOCUMENTS[18:])
    return tmp_path


def write_rows(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def put(folder: Path, text: str, name: str = "task.yaml") -> str:
    (folder / name).write_text(text)
    return name


def joined(task, row):
    """The texts behind the slot, with each answer: what a model reads of a row."""
    template = task.keys["template"]
    assert template.startswith("{prompt} {text}")
    space = " " if template.startswith("{prompt} {text} {answer}") else ""
    options = row.get("options") if "answers" in task.keys else row["label"]
    return [row["text"] + space + option for option in options]


# What the harness itself makes of these files.


def harness_task(folder: Path, name: str = "numbers"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(folder), include_defaults=False)
        task = manager.load([name])["tasks"][name]
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(1234)
        task.build_all_requests(rank=0, world_size=1)
    return task


@needs_harness
@pytest.mark.parametrize("name", TASKS)
def test_a_model_reads_what_it_reads_in_the_harness(folder, monkeypatch, name):
    monkeypatch.chdir(folder)  # to which the harness takes paths as relative
    ours = read_lm_eval(put(folder, TASKS[name]), folder)
    theirs = harness_task(folder)
    found = [text for row in ours.rows["test"] for text in joined(ours, row)]
    if "answers" in ours.keys:
        expected = ["".join(each.args) for each in theirs.instances]
        right = [theirs.doc_to_target(doc) for doc in theirs.eval_docs]
        choices = [theirs.doc_to_choice(doc) for doc in theirs.eval_docs]
        places = [
            c.index(t) if isinstance(t, str) else t for c, t in zip(choices, right, strict=True)
        ]
        shared = ours.keys["answers"] != {"field": "options"}
        given = [
            row["label"] if shared else row["options"].index(row["label"])
            for row in ours.rows["test"]
        ]
        assert given == places
        assert found == expected
        return
    contexts = [each.args[0] for each in theirs.instances]
    assert [row["text"] for row in ours.rows["test"]] == contexts
    targets = [theirs.doc_to_target(doc) for doc in theirs.eval_docs]
    listed = [t if isinstance(t, list) else [t] for t in targets]
    for row, some in zip(ours.rows["test"], listed, strict=True):
        assert [text.strip() for text in row["label"]] == list(dict.fromkeys(map(str, some)))


@needs_harness
def test_an_installed_task_is_found_by_its_name():
    from promptsearch.tasks.lm_eval.config import read_task_file

    file = read_task_file("sciq", Path())
    assert file.path.name == "sciq.yaml" and file.config.dataset_path == "allenai/sciq"
    with pytest.raises(TaskError, match="the installed lm-eval has no task 'sciqq'. Did you mean"):
        read_task_file("sciqq", Path())
    with pytest.raises(TaskError, match="is the Python function utils.process_docs"):
        read_task_file("hellaswag", Path())
    with pytest.raises(TaskError, match="'mmlu' is a group of lm-eval's tasks"):
        read_task_file("mmlu", Path())


# What they give, written down.


def test_rows_of_choices(folder):
    task = read_lm_eval(put(folder, TASKS["own choices"]), folder)
    assert task.name == "numbers" and {k: len(v) for k, v in task.rows.items()} == {
        "test": 6,
        "search": 12,
        "select": 6,
    }
    row = task.rows["search"][1]
    assert row["text"] == (
        "Numbers follow each other. 1 is a number. \nQuestion: What is 1 plus one?\nAnswer:"
    )
    assert (row["options"], row["label"]) == (["1", "2", "1 again"], "2")
    assert row.place == "numbers, split train, document 2"
    assert task.keys == {
        "template": "{prompt} {text} {answer}",
        "label": "label",
        "metric": "accuracy",
        "normalise": "none",
        "answers": {"field": "options"},
    }
    assert task.notes == ("metrics of lm-eval's that are not computed here: acc_norm",)


def test_a_place_is_no_text_of_another_choice(folder):
    for name in ("train", "dev", "test"):
        rows = [
            {"asked": f"{name} {n}", "choices": [["1", "0"], ["0", "1"]][n % 2]} for n in range(6)
        ]
        write_rows(folder / f"{name}.jsonl", [{**row, "gold": 0} for row in rows])
    text = CHOICE + "doc_to_text: asked\ndoc_to_choice: choices\ndoc_to_target: gold\n"
    task = Task.load({"lm_eval": put(folder, text)}, folder)
    examples = task.splits["test"].examples
    assert {example.choice for example in examples} == {0}
    assert {example.answer for example in examples} == {" 0", " 1"}


def test_a_document_that_cannot_be_answered_is_named(folder):
    rows = [{"asked": f"q{n}", "choices": ["x", "y"], "right": "x"} for n in range(4)]
    write_rows(folder / "test.jsonl", [*rows, {**rows[0], "choices": ["x", "x "], "right": None}])
    keys = "doc_to_text: asked\ndoc_to_target: right\n"
    files = {"train: train.jsonl, validation: dev.jsonl, ": ""}
    splits = {"training_split: train\nvalidation_split: validation\n": ""}
    choice, text = (f"{head}{keys}" for head in (CHOICE + "doc_to_choice: choices\n", TEXT))
    for old, new in (files | splits).items():
        choice, text = choice.replace(old, new), text.replace(old, new)
    where = "^numbers, split test, document 5: doc_to_{} of task.yaml "
    with pytest.raises(
        TaskError, match=where.format("choice") + r"gives \['x', 'x '\]: .* two texts"
    ):
        read_lm_eval(put(folder, choice), folder)
    with pytest.raises(TaskError, match=where.format("target") + r"has no value \(null\)"):
        read_lm_eval(put(folder, text), folder)


def test_answers_that_all_rows_share_are_the_tasks_own(folder):
    task = read_lm_eval(put(folder, TASKS["fixed choices"]), folder)
    assert task.keys["answers"] == {0: "odd", 1: "even"}
    assert task.rows["test"][0]["text"].startswith("Say whether the sum is odd or even.\n\nWhat")


def test_whitespace_at_the_end_of_a_text_goes_to_the_answers(folder):
    task = read_lm_eval(put(folder, TASKS["space at the end"]), folder)
    assert task.keys["template"] == "{prompt} {text} {answer}"
    assert task.rows["test"][0]["text"].endswith("is a number.")
    other = read_lm_eval(put(folder, TASKS["fields"]), folder)
    assert other.keys["answers"] == {0: "\nodd", 1: "\neven"}
    assert other.keys["template"] == "{prompt} {text}{answer}"


def test_rows_of_text_have_an_end_and_several_answers(folder):
    task = read_lm_eval(put(folder, TASKS["several targets"]), folder)
    assert task.keys["template"] == "{prompt} {text} {answer}\n"
    assert task.rows["test"][0]["label"] == ["number 19", "19"]
    assert task.keys["metric"] == {"exact_match": {"lowercase": True, "punctuation": False}}
    assert task.keys["decoding"] == {"tokens": 5} and task.notes == ()
    other = read_lm_eval(put(folder, TASKS["written examples"]), folder)
    assert other.rows["test"][0]["text"] == (
        "Q: What is one plus one\nA: two\n\nQ: What is two plus two\nA: four\n\n"
        "Q: What is 18 plus one\nA:"
    )
    assert other.notes == (
        "whitespace around an answer does not count here; in lm-eval it does, since the task has "
        "no filter remove_whitespace",
    )


def test_the_metric_of_a_study_may_be_a_further_one_of_the_task(folder):
    metrics = "metric_list: [{metric: exact_match}, {metric: bleu}, {metric: chrf}]\n"
    asked = {"lm_eval": put(folder, TASKS["text with a prefix"] + metrics)}
    task = Task.load(asked, folder, metric="bleu")
    assert list(task.measures) == ["bleu", "chrf"]
    assert list(Task.load({**asked, "metric": "bleu"}, folder).measures) == ["bleu", "chrf"]
    with pytest.raises(TaskError, match="'bleu' is asked for twice"):
        Task.load({**asked, "metric": "bleu", "metrics": ["bleu"]}, folder)


def test_what_does_nothing_where_answers_are_generated_is_left_out(folder):
    written = "generation_kwargs: {until: ., max_gen_toks: 5, top_p: 0.9, length_penalty: 2.0"
    for more, expected in (
        ("do_sample: false, temperature: 0.5", {}),
        ("repetition_penalty: 1.0, top_k: 0", {}),
        ("temperature: 0.5", {"temperature": 0.5, "top_p": 0.9}),
        ("num_beams: 3", {"beams": 3, "length_penalty": 2.0}),
    ):
        kwargs = 'generation_kwargs: {until: ".", max_gen_toks: 5'
        text = TASKS["text with a prefix"].replace(kwargs, f"{written}, {more}")
        task = read_lm_eval(put(folder, text), folder)
        assert task.keys["decoding"] == {"tokens": 5, **expected}


def test_what_is_missing_is_drawn_from_what_is_there(folder):
    text = TASKS["fixed choices"]
    two = read_lm_eval(put(folder, text.replace("test_split: test\n", "")), folder)
    assert {name: len(rows) for name, rows in two.rows.items()} == {"test": 6, "search": 12}
    lines = text.replace("training_split: train\n", "").replace(
        "validation_split: validation\n", ""
    )
    one = read_lm_eval(put(folder, lines), folder)
    assert {name: len(rows) for name, rows in one.rows.items()} == {"data": 6}


def test_a_file_includes_others_and_its_own_keys_win(folder):
    put(folder, TASKS["fixed choices"].replace("task: numbers", "task: base"), "_base_yaml")
    own = "include: _base_yaml\ntask: numbers\ndoc_to_text: question\ntag: [math]\n"
    task = read_lm_eval(put(folder, own), folder)
    assert task.name == "numbers" and "?" not in task.rows["test"][0]["text"]
    put(folder, "include: task.yaml\n", "_base_yaml")
    with pytest.raises(TaskError, match="includes itself"):
        read_lm_eval("task.yaml", folder)


def test_lengths_are_those_of_the_harness(folder):
    text = TASKS["own choices"].replace("{metric: acc}, {metric: acc_norm}", "{metric: acc_norm}")
    task = read_lm_eval(put(folder, text), folder)
    assert task.keys["normalise"] == "characters"
    text = TASKS["fields"].replace("metric: acc", "metric: acc_bytes")
    with pytest.raises(TaskError, match=r"between text and choices stands \['\\n'\]"):
        read_lm_eval(put(folder, text), folder)


BAD = {
    "function": (CHOICE + "doc_to_text: !function utils.f\n", "doc_to_text is the Python function"),
    "function in a list": (
        CHOICE + "metric_list:\n  - metric: !function utils.f\n",
        "line 9: metric is the Python function utils.f, and nothing",
    ),
    "tag": (CHOICE + "doc_to_text: !!python/name:os.system\n", "the tag .* is not read"),
    "class": ("task: numbers\nclass: {}\n".replace("{}", "code.Task"), "'class' asks for a task"),
    "group": ("group: all\ntask: [a, b]\n", "'group' asks for a group of tasks: name one"),
    "key": (TASKS["fields"] + "doc_to_txt: a\n", "unknown key 'doc_to_txt'. Did you mean"),
    "kind": (TASKS["fields"].replace("multiple_choice", "loglikelihood"), "output_type is 'logl"),
    "type": (TASKS["fields"] + "num_fewshot: two\n", "'num_fewshot': Input should be a valid int"),
    "metric": (
        TASKS["fields"].replace("metric: acc", "metric: f1"),
        "its metrics are f1: expected",
    ),
    "filter": (
        TASKS["several targets"].replace("function: remove_whitespace", "function: regex"),
        "its answers go through the filter clean: expected one that is made of remove_whitespace",
    ),
    "ends": (
        TASKS["several targets"].replace('"</s>"', '"."'),
        r"generation ends at several texts, \['\\n', '.'\]: expected one",
    ),
    "option": (
        TASKS["several targets"].replace("ignore_case: true", "regexes_to_ignore: [a]"),
        "the metric exact_match has the option 'regexes_to_ignore', which is not known",
    ),
    "generation": (
        TASKS["several targets"].replace("do_sample: false", "top_k: 4"),
        "generation_kwargs has the key 'top_k', which is not known here",
    ),
    "mapping for a number": (
        TASKS["several targets"].replace("max_gen_toks: 5", "max_gen_toks: {kind: x}"),
        "generation_kwargs.max_gen_toks is .*: expected a number, at most 1,000,000,000",
    ),
    "infinity": (
        TASKS["several targets"].replace("max_gen_toks: 5", "max_gen_toks: .inf"),
        "generation_kwargs.max_gen_toks is inf: expected a number",
    ),
    "not a number": (
        TASKS["several targets"].replace("do_sample: false", "temperature: .nan"),
        "generation_kwargs.temperature is nan: expected a number",
    ),
    "text for beams": (
        TASKS["several targets"].replace("do_sample: false", "num_beams: two"),
        "generation_kwargs.num_beams is 'two': expected a number",
    ),
    "filter of numbers": (
        TASKS["several targets"].replace("function: remove_whitespace", "3"),
        "'filter_list.0.filter.0",
    ),
    "repeats": (TASKS["several targets"] + "repeats: 3\n", "repeats is 3: expected 1"),
    "file": (TASKS["fields"].replace("test.jsonl", "tests.jsonl"), "data file .* does not exist"),
    "split": (TASKS["fields"].replace("test_split: test", "test_split: tset"), "no split 'tset'"),
    "kwargs": (
        TASKS["fields"].replace("{data_files", "{streaming: true, data_files"),
        "dataset_kwargs has the key 'streaming': expected data_dir",
    ),
    "pickle": (
        TASKS["fields"].replace("dataset_path: json", "dataset_path: pandas"),
        "dataset_path 'pandas' reads pickles, which could run code",
    ),
    "field": (
        TASKS["fields"].replace("doc_to_text: question", 'doc_to_text: "{{quest}}"'),
        "split test, document 1: doc_to_text of task.yaml fails: 'quest' is undefined",
    ),
    "choices": (
        TASKS["fields"].replace("doc_to_choice: {a: odd, b: even}", 'doc_to_choice: "{{word}}"'),
        "document 1: doc_to_choice of task.yaml gives 'odd': expected a list",
    ),
    "target": (
        TASKS["fixed choices"].replace("doc_to_target: word", "doc_to_target: key"),
        "document 1: doc_to_target of task.yaml gives 'B': expected one of the 2 choices, or its",
    ),
    "inputs": (
        TASKS["fixed choices"].replace('doc_to_text: "{{question}}?"', 'doc_to_text: "{{gold}}"'),
        "doc_to_text gives the number 1, so that each choice would stand in a text of its own",
    ),
    "sampler": (
        TASKS["first examples"].replace("first_n", "balanced"),
        "solved examples are drawn by 'balanced': expected default or first_n",
    ),
    "examples": (
        TASKS["first examples"].replace("num_fewshot: 2", "num_fewshot: 90"),
        "num_fewshot is 90, which takes 90 documents; there are 6",
    ),
    "yaml": ("task: [", "this is not YAML"),
    "no mapping": ("- a\n", "expected the keys of an lm-eval task"),
    "no split": (
        TASKS["fields"]
        .replace("validation_split: validation\n", "")
        .replace("test_split: test", ""),
        "it names no test_split and no validation_split",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named(folder, name):
    text, reason = BAD[name]
    (folder / "utils.py").write_text("raise SystemExit('imported')\n")
    with pytest.raises(TaskError, match=reason):
        read_lm_eval(put(folder, text), folder)


def test_documents_that_are_the_same_leave_too_few_to_solve(folder):
    write_rows(folder / "test.jsonl", [DOCUMENTS[18], DOCUMENTS[18], DOCUMENTS[19]])
    text = TASKS["first examples"].replace("fewshot_config: {sampler: first_n}\n", "")
    with pytest.raises(TaskError, match="num_fewshot is 2, and only 1 documents are other"):
        read_lm_eval(put(folder, text), folder)


def test_a_name_needs_the_package(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match="'sciq' is no file, and the package lm-eval, which brings"):
        read_lm_eval("sciq", folder)
    with pytest.raises(TaskError, match="cannot read the lm-eval task .*none.yaml"):
        read_lm_eval("none.yaml", folder)


# As a task of a study.


def study(task):
    return parse_config(
        {"model": "m", "task": task, "budget": 1000, "strategies": ["random"]}, source="study.yaml"
    )


def test_a_study_names_it_and_may_say_otherwise(folder):
    put(folder, TASKS["own choices"], "my_numbers.yaml")
    config = study({"lm_eval": "my_numbers.yaml", "normalise": "bytes", "splits": {"search": 8}})
    (given,) = config.tasks
    assert given.name == "my_numbers" and study(given.model_dump()).tasks == config.tasks
    task = Task.load(given.model_dump(exclude_none=True), folder)
    assert (task.name, task.normalise, task.metric) == ("my_numbers", "bytes", "accuracy")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "search": 8,
        "select": 6,
        "test": 6,
    }
    assert task.options_by_row and "acc_norm" in task.notes[0]
    example = next(e for e in task.splits["test"].examples if "What is 19" in e.fields["text"])
    assert example.options == (" 19", " 20", " 19 again") and example.choice == 1


def test_a_task_of_text_becomes_one_with_references(folder):
    put(folder, TASKS["several targets"])
    task = Task.load({"lm_eval": "task.yaml"}, folder)
    assert task.template.end == "\n" and task.decoding.tokens == 5 and task.kind == "text"
    example = next(e for e in task.splits["test"].examples if "What is 19" in e.fields["text"])
    assert example.references == (" number 20", " 20")
    assert task.measures["exact_match"].lowercase
    few = Task.load({"lm_eval": "task.yaml", "references": 1}, folder)
    assert all(len(e.references) == 1 for e in few.splits["test"].examples)


def test_a_split_alone_is_drawn_from(folder):
    text = TASKS["fixed choices"]
    lines = text.replace("training_split: train\n", "").replace("test_split: test\n", "")
    put(folder, lines)
    task = Task.load(
        {"lm_eval": "task.yaml", "splits": {"search": 2, "select": 1, "test": 3}}, folder
    )
    assert task.choices == (" odd", " even") and len(task.splits["test"]) == 3
    with pytest.raises(TaskError, match="the split 'search' needs at least 1 example"):
        Task.load({"lm_eval": "task.yaml"}, folder)


ONE = "\n".join(line for line in CHOICE.splitlines() if line[:5] not in ("train", "valid")) + "\n"
SOLVED = """\
doc_to_text: "{{question}}?"
doc_to_choice: [odd, even]
doc_to_target: word
num_fewshot: 2
"""


@pytest.mark.parametrize(
    ("head", "sizes"),
    {
        "one split": (ONE, {"search": 15, "select": 5, "test": 10}),
        "one split, the first ones": (
            f"{ONE}fewshot_config: {{sampler: first_n}}\n",
            {"search": 15, "select": 5, "test": 10},
        ),
        "no training split": (
            CHOICE.replace("training_split: train\n", ""),
            {"search": 10, "select": 5},
        ),
        "no validation split": (
            CHOICE.replace("validation_split: validation\n", ""),
            {"search": 15, "select": 5},
        ),
        "the scored split": (f"{CHOICE}fewshot_split: test\n", {}),
        "the select split": (f"{CHOICE}fewshot_split: validation\n", {}),
        "another split": (f"{CHOICE}fewshot_split: train\n", {}),
    }.values(),
)
def test_no_search_reads_an_answer_of_select_or_test(tmp_path, head, sizes):
    every = [{**DOCUMENTS[0], "question": f"What is {n}", "word": "odd"} for n in range(90)]
    # Some documents stand in two splits.
    test = every[37:39] + every[57:]
    for name, some in {"train": every[:40], "dev": every[35:60], "test": test}.items():
        write_rows(tmp_path / f"{name}.jsonl", some)
    put(tmp_path, head + SOLVED)
    task = Task.load({"lm_eval": "task.yaml", "splits": sizes}, tmp_path)
    for drawn in (task, task.drawn(1)):
        parts = {name: split.examples for name, split in drawn.splits.items()}
        asked = {
            name: {example.fields["text"].split("\n\n")[-1] for example in some}
            for name, some in parts.items()
        }
        assert not asked["search"] & asked["select"]
        assert not asked["test"] & (asked["search"] | asked["select"])
        for name, unread in (("search", ("select", "test")), ("select", ("test",))):
            for example in parts[name]:
                *solved, own = example.fields["text"].split("\n\n")
                shown = {text.removesuffix(" odd") for text in solved}
                assert len(solved) == 2 and own not in shown
                assert not any(shown & asked[other] for other in unread)


def test_what_is_set_aside_to_be_solved_is_told(folder):
    put(folder, ONE + SOLVED)
    splits = {"search": 2, "select": 1, "test": 1}
    task = Task.load({"lm_eval": "task.yaml", "splits": splits}, folder)
    assert task.notes[-1] == (
        "before all texts are solved 2 documents of the split 'test', not any that lm-eval takes: "
        "none of them is an example that selects or tests"
    )


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ({"lm_eval": "a.yaml", "template": "{prompt}"}, "unknown key 'template'"),
        ({"lm_eval": ""}, "lm_eval is ''; expected"),
        ({"lm_eval": ["a"]}, "expected text"),
        ({"lm_eval": "a", "normalise": "byte"}, "unknown length to normalise by 'byte'"),
    ],
)
def test_what_a_study_cannot_say_is_named(task, reason):
    with pytest.raises(StudyError, match=reason):
        study(task)


def test_the_example_is_a_study_of_a_task_of_the_harness():
    examples = Path(__file__).parents[2] / "examples"
    (given,) = load_config(examples / "lm-eval.yaml").tasks
    task = Task.load(given.model_dump(exclude_none=True), examples)
    assert task.name == "movie_reviews" and task.choices == (" negative", " positive")
    assert len(task.splits["test"]) == 500
    assert task.splits["test"].examples[0].fields["text"].endswith("\nSentiment:")
