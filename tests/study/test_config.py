"""Study files: what they may say, and the one clear message for everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import StudyError
from promptsearch.study.config import config_schema, load_config, parse_config
from promptsearch.study.entries import entries_of
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.metrics import known_metrics

STUDY = """\
name: movie-reviews
model: smollm2-135m-instruct
task:
  data: {path: reviews.jsonl}
  template: "{prompt} {text} It was{answer}"
  label: label
  answers: {0: " bad", 1: " good"}
  splits: {search: 512, select: 256, test: 1000}
length: 5
budget: 400000
seeds: 3
strategies:
  - manual: {prompts: ["Is it good or bad?"]}
  - random
  - p_tuning: {length: 10, encoder: lstm, rate: 1e-3}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str, name: str = "study.yaml") -> StudyConfig:
    Path(name).write_text(text, "utf-8")
    return load_config(Path(name), overrides)


def complaint(text: str, *overrides: str, name: str = "study.yaml") -> str:
    with pytest.raises(StudyError) as caught:
        load(text, *overrides, name=name)
    return str(caught.value)


def test_a_study_file_is_read_with_its_defaults(folder: Path) -> None:
    config = load(STUDY)
    assert (config.name, config.budget, config.score_on, config.dtype, config.device) == (
        "movie-reviews",
        400000,
        128,
        "auto",
        "auto",
    )
    assert config.seeds == (0, 1, 2)
    (task,) = config.tasks
    assert task.answers == {"0": " bad", "1": " good"}
    assert (task.splits.search, task.splits.select, task.splits.test) == (512, 256, 1000)
    assert task.name == "reviews"  # of its data file
    assert [s.label for s in config.strategies] == ["manual", "random", "p_tuning"]
    assert config.strategies[2].length == 10
    assert config.strategies[2].options == {
        "encoder": "lstm",
        "rate": 0.001,
    }  # length is the core's, not the strategy's


def test_toml_and_json_say_the_same_as_yaml(folder: Path) -> None:
    toml = """
    model = "m"
    task = "capitals"
    budget = 1000
    seeds = [1, 5]
    strategies = ["random", {p_tuning = {encoder = "mlp"}}]
    """
    as_toml = load(toml, name="one.toml")
    assert as_toml.name == "one"  # the file's name
    data = {
        "model": "m",
        "task": "capitals",
        "budget": 1000,
        "seeds": [1, 5],
        "strategies": ["random", {"p_tuning": {"encoder": "mlp"}}],
    }
    assert load(json.dumps(data), name="one.json").model_dump() == as_toml.model_dump()
    assert load(json.dumps(data), name="one.JSON").model_dump() == as_toml.model_dump()


def test_json_is_read_as_json_is(folder: Path) -> None:
    data = {"name": "s", "model": "m", "task": "capitals", "budget": 1000, "pool": ["😀"]}
    text = json.dumps({**data, "strategies": ["random"]}, indent="\t")
    assert "\\ud83d\\ude00" in text
    assert load(text, name="s.json").pool == ("😀",)
    told = "s.json, line 5: this is not JSON: Expecting ',' delimiter"
    assert complaint(text.replace('"capitals",', '"capitals"'), name="s.json") == told
    assert complaint('{"name": "s", "name": "t"}', name="s.json") == (
        "s.json: the key 'name' stands there twice"
    )
    wrong = json.dumps({**data, "strategies": ["random"], "pool": 5, "seeds": "x"}, indent=1)
    assert complaint(wrong, name="s.json").startswith("s.json, line 10: seeds is 'x'")


def test_a_study_is_never_called_what_no_folder_can_be_called(folder: Path) -> None:
    assert load(STUDY.replace("name: movie-reviews\n", ""), name="aux.yaml").name == "aux-study"


def test_a_list_of_models_is_read_by_either_name_and_one_model_as_before(folder: Path) -> None:
    one = load(STUDY)
    assert one.models == ("smollm2-135m-instruct",)
    assert "transfer" not in one.model_dump()  # what an older study recorded stays the same
    several = load(STUDY.replace("model: smollm2-135m-instruct", "models: [a/b, ./c]"))
    again = load(STUDY, "model=[a/b, ./c]", "transfer=true")
    assert several.models == again.models == ("a/b", "./c")
    assert parse_config(json.loads(again.model_dump_json())).transfer is True
    assert several.on("a/b") == load(STUDY, "model=a/b") == again.on("a/b")


def test_what_was_read_can_be_written_and_read_again(folder: Path) -> None:
    assert load(STUDY, "pool=2000").pool == 2000
    config = load(
        STUDY, "pool={file: words.txt}", "strategies.1={random: {label: floor, budget: 1000}}"
    )
    dumped = json.loads(json.dumps(config.model_dump(mode="json")))
    assert parse_config(dumped, folder=config.folder) == config
    assert dumped["pool"] == {"file": "words.txt"}
    assert dumped["strategies"][1] == {"random": {"label": "floor", "budget": 1000}}
    assert str(folder) not in json.dumps(dumped)  # settings do not depend on where the study lies


def test_paths_are_relative_to_the_study_file(folder: Path) -> None:
    (folder / "studies").mkdir()
    config = load(STUDY, "model=../models/small.gguf", name="studies/study.yaml")
    assert config.folder == Path("studies")
    (model,) = config.models
    assert Path(config.source(model)) == Path("models/small.gguf").resolve()
    assert load(STUDY).source("smollm2-135m-instruct") == "smollm2-135m-instruct"


def test_overrides_reach_into_mappings_and_lists(folder: Path) -> None:
    config = load(
        STUDY,
        "budget=5e4",
        "task.splits.test=200",
        "strategies.2.p_tuning.encoder=mlp",
        "task.metric=f1",
    )
    assert config.budget == 50000
    assert config.tasks[0].splits.test == 200
    assert config.tasks[0].metric == "f1"
    assert config.strategies[2].options["encoder"] == "mlp"


def test_overrides_reach_keys_that_are_numbers(folder: Path) -> None:
    config = load(STUDY, 'task.answers.0=" poor"')
    assert config.tasks[0].answers == {"0": " poor", "1": " good"}


def test_several_tasks_and_one_strategy_twice(folder: Path) -> None:
    config = load(
        STUDY.replace("task:\n", "tasks:\n- name: a\n").replace(
            "strategies:\n", "strategies:\n  - random: {label: other, batch: 4}\n"
        )
        + "  - plugins.mine:Mine: {depth: 2}\n"
    )
    assert [t.name for t in config.tasks] == ["a"]
    assert [s.label for s in config.strategies] == ["other", "manual", "random", "p_tuning", "Mine"]
    assert load(STUDY, "task=null", "task=capitals").tasks == ("capitals",)


def test_a_length_is_a_number_or_a_list_to_sweep(folder: Path) -> None:
    assert (load(STUDY).length, load(STUDY).lengths) == (5, (5,))
    config = load(STUDY, "length=[1, 5, 20]")
    assert config.length == config.lengths == (1, 5, 20)
    assert (
        parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), folder=config.folder)
        == config
    )
    assert "length is 0; expected at least 1" in complaint(STUDY, "length=0")
    assert "length.1 is 0; expected at least 1" in complaint(STUDY, "length=[1, 0]")
    for wrong in ("[]", "[3, 3]"):
        assert "expected a whole number of at least 1, or a list of different ones" in complaint(
            STUDY, f"length={wrong}"
        )
    assert "length is 'short'; expected a whole number" in complaint(STUDY, "length=short")


def test_yaml_has_no_traps(folder: Path) -> None:
    """YAML 1.1 reads these as a boolean, a text, an octal number, minutes and a date."""
    text = STUDY.replace(
        '{0: " bad", 1: " good"}', "{no: off, yes: 010.0x, 12:30: 2024-01-01, 007: 1_x}"
    ).replace("seeds: 3", "seeds: 010")
    config = load(text)
    assert config.tasks[0].answers == {
        "no": "off",
        "yes": "010.0x",
        "12:30": "2024-01-01",
        "7": "1_x",
    }
    assert len(config.seeds) == 10
    assert load(STUDY, "max_seconds=1e2").max_seconds == 100.0


@given(st.booleans() | st.integers() | st.floats(allow_nan=False) | st.none())
def test_single_values_mean_what_json_means(value: object) -> None:
    from promptsearch.plain.yaml import read_yaml

    assert read_yaml(f"a: {json.dumps(value).replace('Infinity', '.inf')}", "x")[0] == {"a": value}


TEXT = "expected text (in quotes where it looks like something else)."
POOL = (
    "expected words, a number of words, a list of words, {task: N}, {file: PATH} or {words: N, "
    "influence: N}."
)
QUOTES = "A text with braces or a colon needs quotes around it."
KNOWN = (
    "budget, device, device_map, draw, dtype, execution, length, max_cost, max_seconds, memory, "
    "metric, model, models, name, objective, pool, proposer, race, replicas, score_on, seeds, "
    "select_by, strategies, task, tasks, threads, track, transfer"
)

WRONG = {
    "model twice": (
        STUDY + "models: [a, b]\n",
        "study.yaml: give either 'model' or 'models', not both.",
    ),
    "a model of a list": (
        STUDY.replace("model: smollm2-135m-instruct", "models: [a, 3]"),
        "study.yaml, line 2: models.1 is 3; expected text (in quotes where it looks like something "
        "else).",
    ),
    "transfer of one model": (
        STUDY + "transfer: true\n",
        "study.yaml, line 16: transfer is true; expected a list of models beside it, to whose "
        "other members winners go.",
    ),
    "unknown key": (
        STUDY.replace("budget:", "buget:"),
        f"study.yaml, line 10: unknown key 'buget'. Did you mean 'budget'? Known: {KNOWN}.",
    ),
    "keys that are the same number": (
        STUDY.replace('{0: " bad", 1: " good"}', '{1: " bad", true: " good"}'),
        "study.yaml, line 7: this is not YAML: the key 'True' stands twice, first in line 7 as "
        "'1': put quotes around both. A text with braces or a colon needs quotes around it.",
    ),
    "a bracket that is never closed": (
        STUDY + "pool: [a, b\n",
        "study.yaml, line 16: this is not YAML: expected ',' or ']', but got '<stream end>'.",
    ),
    "a quote that is never closed": (
        STUDY + 'name: "a\n',
        "study.yaml, line 16: this is not YAML: found unexpected end of stream.",
    ),
    "unknown nested key": (
        STUDY.replace("template:", "templat:"),
        "study.yaml, line 5, in task: unknown key 'templat'. Did you mean 'template'? "
        "Known: aliases, answers, data, decoding, description, each, group, join, label, metric, "
        "metrics, name, normalise, references, splits, template, where.",
    ),
    "unknown key two levels down": (
        STUDY.replace("select: 256", "selct: 256"),
        (
            "study.yaml, line 8, in task.splits: unknown key 'selct'. Did you mean 'select'? "
            "Known: search, select, test."
        ),
    ),
    "missing key": (
        STUDY.replace("model: smollm2-135m-instruct\n", ""),
        "study.yaml: the key 'model' is missing; "
        "expected a language model: a Hub name, a folder, a .gguf file, smollm2-135m-instruct; "
        "NAME:quantise=int8 or NAME:quantise=nf4, whose layers keep their weights in 8 or 4 bits; "
        "or {endpoint: URL, model: NAME}; a list of them runs every task and strategy on each.",
    ),
    "missing nested key": (
        STUDY.replace("  label: label\n", ""),
        (
            "study.yaml, line 3, in task: the key 'label' is missing; expected the field that "
            "holds the right answer, or a list of right answers."
        ),
    ),
    "no task": (
        STUDY[: STUDY.index("task:")] + STUDY[STUDY.index("length:") :],
        "study.yaml: the key 'task' is missing; "
        "expected a built-in task's name, or a mapping with data, template, label and splits; or "
        "{lm_eval: FILE or NAME}.",
    ),
    "task and tasks": (
        STUDY + "tasks: [capitals]\n",
        "study.yaml: give either 'task' or 'tasks', not both.",
    ),
    "text for a number": (
        STUDY.replace("test: 1000", "test: many"),
        "study.yaml, line 8: task.splits.test is 'many'; expected a whole number.",
    ),
    "boolean for a number": (
        STUDY.replace("length: 5", "length: true"),
        "study.yaml, line 9: length is true; expected a whole number.",
    ),
    "fraction": (
        STUDY.replace("length: 5", "length: 2.5"),
        "study.yaml, line 9: length is 2.5; expected a whole number.",
    ),
    "too small": (
        STUDY.replace("400000", "0"),
        "study.yaml, line 10: budget is 0; expected at least 1.",
    ),
    "empty value": (
        STUDY.replace("label: label", "label:"),
        (
            "study.yaml, line 6: task.label is empty; expected text (in quotes where it looks "
            "like something else)."
        ),
    ),
    "number for an answer": (
        STUDY.replace('" bad"', "5"),
        (
            "study.yaml, line 7: task.answers.0 is 5; expected text (in quotes where it looks "
            "like something else)."
        ),
    ),
    "template without quotes": (
        STUDY.replace('"{prompt} {text} It was{answer}"', "{prompt} {text} It was{answer}"),
        f"study.yaml, line 5: this is not YAML: expected <block end>, but found '{{'. {QUOTES}",
    ),
    "template that is a mapping": (
        STUDY.replace('"{prompt} {text} It was{answer}"', "{prompt}"),
        f"study.yaml, line 5: task.template is a mapping with the key prompt; {TEXT}",
    ),
    "key twice": (
        STUDY + "length: 6\n",
        "study.yaml, line 16: this is not YAML: the key 'length' stands twice, first in line 9.",
    ),
    "nested key twice": (
        STUDY.replace("search: 512,", "search: 512, search: 5,"),
        (
            "study.yaml, line 8: this is not YAML: the key 'search' stands twice, first in line "
            f"8. {QUOTES}"
        ),
    ),
    "tab": (
        STUDY.replace("  label: label", "\tlabel: label"),
        "study.yaml, line 6: this is not YAML: found character '\\t' that cannot start any token.",
    ),
    "alias in itself": (
        "a: &a [*a]\n",
        "study.yaml, line 1: this is not YAML: an alias stands inside what it names.",
    ),
    "list": (
        "- a\n- b\n",
        (
            "study.yaml: expected a study's keys (model, task, budget, strategies, ...), found a "
            "list of 2"
        ),
    ),
    "empty file": (
        "",
        "study.yaml: expected a study's keys (model, task, budget, strategies, ...), found empty",
    ),
    "no strategies": (
        STUDY[: STUDY.index("strategies:")] + "strategies: []\n",
        "study.yaml, line 12: strategies is an empty list; expected at least 1 of them.",
    ),
    "strategy with two names": (
        STUDY.replace("  - random\n", "  - {random: {}, evolution: {}}\n"),
        "study.yaml, line 14: strategies.1 is a mapping with the keys random, evolution; "
        "expected a strategy's name, or one name with its options: {NAME: {OPTION: VALUE}}.",
    ),
    "options that are no mapping": (
        STUDY.replace("  - random\n", "  - random: 5\n"),
        "study.yaml, line 14: strategies.1 is a mapping with the key random; "
        "expected the options of 'random' as a mapping: {OPTION: VALUE}.",
    ),
    "wrong reserved option": (
        STUDY.replace("length: 10", "length: ten"),
        "study.yaml, line 15: strategies.2.p_tuning.length is 'ten'; expected a whole number.",
    ),
    "same label": (
        STUDY + "  - random: {batch: 5}\n",
        (
            "study.yaml, line 12: two of the strategies are called 'random'; tell them apart with "
            "{NAME: {label: LABEL}}."
        ),
    ),
    "label that is a path": (
        STUDY.replace("- random\n", "- random: {label: ../up}\n"),
        "study.yaml, line 14: strategies.1.random.label is '../up'; "
        "expected a name that can be a folder's: letters, digits and . _ + -, beginning with a "
        "letter or digit.",
    ),
    "seeds": (
        STUDY.replace("seeds: 3", "seeds: [1, 1]"),
        "study.yaml, line 11: seeds is a list of 2; "
        "expected a number of seeds of at least 1, or a list of different whole numbers of at "
        "least 0.",
    ),
    "dtype": (
        STUDY + "dtype: bf16\n",
        (
            "study.yaml, line 16, in dtype: unknown dtype 'bf16'. Did you mean 'bfloat16'? Known: "
            "auto, bfloat16, float16, float32."
        ),
    ),
    "device": (
        STUDY + "device: gpu\n",
        "study.yaml, line 16: device is 'gpu'; expected auto, cpu, cuda, cuda:1 or mps.",
    ),
    "metric": (
        STUDY + "metric: acuracy\n",
        "study.yaml, line 16, in metric: unknown metric 'acuracy'. Did you mean 'accuracy'? "
        f"Known: {', '.join(sorted([*known_metrics(), 'module:Class', 'module:function']))}.",
    ),
    "metric with an unknown name and options": (
        STUDY + "metric: {blue: {lowercase: true}}\n",
        "study.yaml, line 16, in metric: unknown metric 'blue'. Did you mean 'bleu'? "
        f"Known: {', '.join(sorted([*known_metrics(), 'module:Class', 'module:function']))}.",
    ),
    "two metrics in one": (
        STUDY + "metric: {bleu: {}, ter: {}}\n",
        "study.yaml, line 16, in metric: a metric is NAME, or {NAME: {OPTION: VALUE}}; "
        "got {'bleu': {}, 'ter': {}}.",
    ),
    "pool of numbers": (
        STUDY + "pool: [the, 5]\n",
        (
            "study.yaml, line 16: pool.1 is 5; expected text (in quotes where it looks like "
            "something else)."
        ),
    ),
    "pool by an unknown name": (
        STUDY + "pool: all\n",
        f"study.yaml, line 16: pool is 'all'; {POOL}",
    ),
    "pool that is a fraction": (STUDY + "pool: 2.5\n", f"study.yaml, line 16: pool is 2.5; {POOL}"),
    "pool of two sources": (
        STUDY + "pool: {task: 5, file: words.txt}\n",
        "study.yaml, line 16: pool is a mapping with the keys task, file; expected one of words, "
        "task and file, with or without "
        "influence.",
    ),
    "pool of no source": (
        STUDY + "pool: {influence: 5}\n",
        "study.yaml, line 16: pool is a mapping with the key influence; expected one of words, "
        "task and file, with or without "
        "influence.",
    ),
    "pool of no words of the task": (
        STUDY + "pool: {task: 0}\n",
        "study.yaml, line 16: pool.task is 0; expected at least 1.",
    ),
    "pool of no influence": (
        STUDY + "pool: {words: 5, influence: -1}\n",
        "study.yaml, line 16: pool.influence is -1; expected at least 1.",
    ),
    "unknown bytes": (
        STUDY + "memory: 8 gigs\n",
        "study.yaml, line 16: memory is '8 gigs'; expected a number of bytes, such as 8GB.",
    ),
    "one of two": (
        STUDY + "select_by: f1\n",
        "study.yaml, line 16: select_by is 'f1'; expected 'loss' or 'metric'.",
    ),
    "pool of none": (STUDY + "pool: 0\n", "study.yaml, line 16: pool is 0; expected at least 1."),
    "task that is a number": (
        STUDY[: STUDY.index("task:")] + "task: 5\n" + STUDY[STUDY.index("length:") :],
        "study.yaml, line 3: task is 5; expected a mapping of keys to values.",
    ),
    "empty pool": (
        STUDY + "pool: []\n",
        "study.yaml, line 16: pool is an empty list; expected at least one word.",
    ),
    "two sources": (
        STUDY.replace("{path: reviews.jsonl}", "{path: a.jsonl, hub: b/c}"),
        (
            "study.yaml, line 4: task.data is a mapping with the keys path, hub; expected either "
            "path (a file) or hub (owner/name)."
        ),
    ),
    "revision of a file": (
        STUDY.replace("{path: reviews.jsonl}", "{path: a.jsonl, revision: main}"),
        "study.yaml, line 4: task.data is a mapping with the keys path, revision; "
        "expected config, revision and split beside hub only, not beside path.",
    ),
    "time": (
        STUDY + "max_seconds: 0\n",
        "study.yaml, line 16: max_seconds is 0; expected more than 0.0.",
    ),
    "a truth value for the time": (
        STUDY + "max_seconds: true\n",
        "study.yaml, line 16: max_seconds is true; expected a number.",
    ),
    "a truth value for the cost": (
        STUDY + "max_cost: true\n",
        "study.yaml, line 16: max_cost is true; expected a number.",
    ),
    "a truth value for replicas": (
        STUDY + "replicas: true\n",
        "study.yaml, line 16: replicas is true; expected a whole number.",
    ),
    "a truth value for memory": (
        STUDY + "memory: true\n",
        "study.yaml, line 16: memory is true; expected a number of bytes, such as 8GB.",
    ),
    "memory below nothing": (
        STUDY + "memory: -5\n",
        "study.yaml, line 16: memory is -5; expected a number of bytes, such as 8GB.",
    ),
    "a tracker twice": (
        STUDY + "track: [tensorboard, tensorboard]\n",
        "study.yaml, line 16: track is a list of 2; expected each tracker once.",
    ),
}


TASK_KEYS = {
    "answers by another name": (
        "answers: label",
        "line 7, in task.answers: unknown answers 'label'. Did you mean 'labels'? Known: labels.",
    ),
    "a number for answers": (
        "answers: 5",
        "line 7: task.answers is 5; expected a mapping of keys to values.",
    ),
    "another length": (
        "normalise: byte",
        "line 7, in task.normalise: unknown length to normalise by 'byte'. Did you mean 'bytes'? "
        "Known: bytes, characters, none, tokens.",
    ),
    "no references": ("references: 0", "line 7: task.references is 0; expected at least 1."),
    "a filter that is a text": (
        "where: lang",
        "line 7: task.where is 'lang'; expected a mapping of keys to values.",
    ),
    "a filter without values": (
        "where: {lang: []}",
        "line 7: task.where.lang is an empty list; expected at least 1 of them.",
    ),
    "a group that is a list": (
        "group: [a]",
        f"line 7: task.group is a list of 1; {TEXT}",
    ),
    "decoding by another name": (
        "decoding: {beam: 5}",
        "line 7, in task.decoding: unknown key 'beam'. Did you mean 'beams'? Known: beams, "
        "length_penalty, samples, seed, temperature, tokens, top_p.",
    ),
    "samples without a temperature": (
        "decoding: {samples: 5}",
        "line 7, in task.decoding: decoding: 5 samples are all the same without a temperature: "
        "set one above 0, or take 1 sample.",
    ),
    "aliases of a number": (
        "aliases: {field: 5}",
        "line 7: task.aliases.field is 5; expected a list.",
    ),
}


@pytest.mark.parametrize(("key", "message"), TASK_KEYS.values(), ids=TASK_KEYS.keys())
def test_a_wrong_key_of_a_task_gets_one_clear_message(folder: Path, key: str, message: str) -> None:
    lines = STUDY.splitlines()
    lines[6] = f"  {key}"
    assert complaint("\n".join(lines)) == f"study.yaml, {message}"


DATA = {
    "a column without values": (
        "{path: a.jsonl, column: set}",
        "line 4: task.data is a mapping with the keys path, column; expected column and, beside "
        "it, its values in one or more splits.",
    ),
    "values without a column": (
        "{path: a.jsonl, test: dev}",
        "line 4: task.data is a mapping with the keys path, test; expected column and, beside it, "
        "its values in one or more splits.",
    ),
    "a test source alone": (
        "{test: {path: a.jsonl}}",
        "line 4: task.data is a mapping with the key test; expected a source for search or "
        "select, too: nothing is drawn from test.",
    ),
    "a split by another name": (
        "{search: {path: a.jsonl}, dev: {path: b.jsonl}}",
        "line 4, in task.data: unknown key 'dev'. Known: search, select, test.",
    ),
    "a source that is a text": (
        "{search: a.jsonl}",
        "line 4: task.data.search is 'a.jsonl'; expected a mapping of keys to values.",
    ),
    "two sources in one": (
        "{search: {path: a.jsonl, hub: b/c}}",
        "line 4: task.data.search is a mapping with the keys path, hub; expected either path (a "
        "file) or hub (owner/name).",
    ),
}


@pytest.mark.parametrize(("data", "message"), DATA.values(), ids=DATA.keys())
def test_wrong_data_get_one_clear_message(folder: Path, data: str, message: str) -> None:
    text = STUDY.replace("{path: reviews.jsonl}", data)
    assert complaint(text) == f"study.yaml, {message}"


def test_sizes_are_wanted_of_splits_that_are_drawn(folder: Path) -> None:
    few = STUDY.replace("{search: 512, select: 256, test: 1000}", "{select: 256}")
    assert complaint(few) == (
        "study.yaml, line 8, in task: the size of the split 'search' is missing; expected a "
        "number of examples, or a source of its own under data."
    )
    own = "{search: {path: a.jsonl}, test: {hub: b/c, split: test}}"
    config = load(few.replace("{path: reviews.jsonl}", own))
    assert config.tasks[0].name == "a"
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    column = "{path: a.jsonl, column: set, search: [train, dev], select: 1, test: test}"
    config = load(
        STUDY.replace("  splits: {search: 512, select: 256, test: 1000}\n", "").replace(
            "{path: reviews.jsonl}", column
        )
    )
    assert config.tasks[0].data.search == ("train", "dev")
    assert config.tasks[0].data.select == "1"
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    classes = "{search: {per_class: 16}, select: {per_class: 8}, test: 1000}"
    config = load(STUDY.replace("{search: 512, select: 256, test: 1000}", classes))
    assert config.tasks[0].splits.search.per_class == 16
    assert parse_config(config.model_dump()) == config
    wrong = STUDY.replace("search: 512", "search: {per_class: 0}")
    assert complaint(wrong) == (
        "study.yaml, line 8: task.splits.search.per_class is 0; expected at least 1."
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("answers: labels", "labels"),
        ("answers: {field: options}", {"field": "options"}),
        ("answers: {field: o.text, names: o.key}", {"field": "o.text", "names": "o.key"}),
        ("aliases: {field: more}", {"field": "more"}),
        ("aliases: {field: [meadow]}", {"field": ("meadow",)}),
        ("where: {lang: en, n: [0, 1.0, true]}", {"lang": "en", "n": ("0", "1", "true")}),
        ("decoding: {tokens: 40, beams: 5}", None),
    ],
)
def test_the_keys_of_a_task_have_every_form(folder: Path, key: str, value: object) -> None:
    config = load(STUDY.replace('answers: {0: " bad", 1: " good"}', key))
    name = key.partition(":")[0]
    given = config.tasks[0].model_dump(exclude_none=True)[name]
    assert value is None or given == value
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_study_gets_one_clear_message(folder: Path, text: str, message: str) -> None:
    assert complaint(text) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "buget=5",
            (
                "study.yaml, --set buget: unknown key 'buget'. Did you mean 'budget'? Known: "
                f"{KNOWN}."
            ),
        ),
        (
            "task.splits.test=x",
            (
                "study.yaml, --set task.splits.test: task.splits.test is 'x'; expected a whole "
                "number."
            ),
        ),
        ("budget", "--set budget: expected KEY=VALUE or KEY.KEY=VALUE"),
        (".a=1", "--set .a: expected KEY=VALUE or KEY.KEY=VALUE"),
        ("budget.more=5", "--set budget.more: 'budget' is 400000, which has no key 'more'"),
        (
            "strategies.9=random",
            ("--set strategies.9: 'strategies' is a list of 3; expected a place in it, found '9'"),
        ),
        (
            "budget={",
            (
                f"--set budget, line 1: this is not YAML: expected the node content, but found "
                f"'<stream end>'. {QUOTES}"
            ),
        ),
    ],
)
def test_a_wrong_override_is_named(folder: Path, override: str, message: str) -> None:
    assert complaint(STUDY, override) == message


@pytest.mark.parametrize("override", ["model.key=sk-1", "strategies.9.key=sk-1", "budget={sk-1"])
def test_the_value_of_an_override_may_be_a_secret(folder: Path, override: str) -> None:
    assert "sk-1" not in complaint(STUDY, override)


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(
        StudyError, match=r"^cannot read the study file none\.yaml: No such file or directory$"
    ):
        load_config(Path("none.yaml"))
    Path("latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(StudyError, match="it is not UTF-8 text"):
        load_config(Path("latin.yaml"))
    assert (
        complaint("a", name="study.txt")
        == "the study file study.txt is of an unknown kind: expected .yaml, .yml, .toml or .json"
    )
    assert complaint("budget = = 5", name="study.toml").startswith(
        "study.toml: this is not TOML: Invalid value (at line 1"
    )
    assert complaint('budgt = 5\nmodel = "m"', name="study.toml").startswith(
        "study.toml, line 1: unknown key 'budgt'. Did you mean 'budget'?"
    )


def test_a_mapping_is_checked_like_a_file_and_left_alone() -> None:
    data = {
        "model": "m",
        "task": "capitals",
        "budget": 10,
        "strategies": [{"random": {"batch": 4}}],
    }
    assert parse_config(data, ["budget=20", "strategies.0.random.batch=8"]).strategies[
        0
    ].options == {"batch": 8}
    assert data == {
        "model": "m",
        "task": "capitals",
        "budget": 10,
        "strategies": [{"random": {"batch": 4}}],
    }
    with pytest.raises(StudyError, match=r"^the study: budget is 'x'; expected a whole number\.$"):
        parse_config({**data, "budget": "x"})


@pytest.mark.parametrize(
    "name", ["runs.csv", "Curves.parquet", "finished.json", "winners.safetensors", "study.yaml"]
)
def test_a_task_is_not_called_like_a_file_of_the_study(folder: Path, name: str) -> None:
    with pytest.raises(StudyError, match="expected another name"):
        load(STUDY.replace("task:\n", f"task:\n  name: {name}\n"))


def test_the_schema_knows_every_key_and_both_forms_of_tasks_and_models() -> None:
    schema = config_schema()
    assert set(KNOWN.split(", ")) == set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["budget", "strategies"]
    assert schema["allOf"] == [
        {"oneOf": [{"required": ["task"]}, {"required": ["tasks"]}]},
        {"oneOf": [{"required": ["model"]}, {"required": ["models"]}]},
    ]
    assert all("description" in value for value in schema["properties"].values())
    assert {"type": "integer"} in schema["properties"]["seeds"]["anyOf"]


def test_reading_a_study_needs_no_torch() -> None:
    code = (
        "import sys, promptsearch.study.config; print([m for m in ('torch', 'transformers', "
        "'datasets') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in (EXAMPLES, EXAMPLES / "reference", EXAMPLES / "confidence")
        for path in folder.glob("*.yaml")
    ),
    ids=lambda p: p.stem,
)
def test_the_examples_are_right(path: Path) -> None:
    config = load_config(path)
    assert config.name in (path.stem, f"{path.parent.name}-{path.stem}")
    assert len(entries_of(config)) >= len(config.strategies)  # their options are right, too
