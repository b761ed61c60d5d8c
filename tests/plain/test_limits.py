"""Study files and command lines beyond all measure.

They are refused by a stated limit, with the key and the line, at once.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from promptsearch.errors import StudyError
from promptsearch.study.config import load_config, parse_config

STUDY = """\
name: study
model: m
task:
  data: {path: d.jsonl}
  template: "{prompt} {text} It was{answer}"
  label: label
  splits: {search: 32, select: 16, test: 16}
budget: 60000
strategies: [random]
"""
KEYS = {"model": "m", "task": "capitals", "budget": 1000, "strategies": ["random"]}
TOML = 'model = "m"\ntask = "capitals"\nstrategies = ["random"]\nbudget = 1000\n'

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300))
MANY = (
    "a study may have 10,000 values at most, aliases counted as what they name: put long lists "
    "into files"
)
DEEP = "lists and mappings stand within each other at most 20 deep"
DIGITS = "a whole number may have 100 digits at most; a text of digits needs quotes around it"


def complaint(text: str | bytes, name: str = "study.yaml", overrides: tuple[str, ...] = ()) -> str:
    Path(name).write_bytes(
        text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    )
    begin = time.process_time()
    with pytest.raises(StudyError) as caught:
        load_config(Path(name), overrides)
    assert time.process_time() - begin < 2  # a second, on a machine that does nothing else
    return str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS + STUDY, MANY),
        (CHAIN + STUDY, DEEP),
        ("a: " + "[" * 100_000, f"line 1: {DEEP}"),
        ("a: " + "{a: " * 30_000 + "}" * 30_000, f"line 1: {DEEP}"),
        ("- " * 5_000 + "x", f"line 1: {DEEP}"),
        (STUDY + "pool: [" + "x, " * 20_000 + "]", f"line 10: {MANY}"),
        (
            STUDY + "# " + "x" * 300_000,
            "it is longer than the 262,144 characters that a study may have",
        ),
        (STUDY.replace("60000", "9" * 5_000), f"line 8: {DIGITS}"),
        (STUDY.replace("60000", "6_"), "line 8: budget is '6_'; expected a whole number."),
        (
            STUDY.replace("60000", "!!int abc"),
            "line 8: the tag 'tag:yaml.org,2002:int' is not read: write the plain value",
        ),
        (
            STUDY.replace("60000", "!!bool maybe"),
            "line 8: the tag 'tag:yaml.org,2002:bool' is not read",
        ),
        (
            STUDY.replace("60000", "!!timestamp x"),
            "line 8: the tag 'tag:yaml.org,2002:timestamp' is not read",
        ),
        (
            STUDY.replace("60000", "!!python/name:os.system"),
            "line 8: the tag 'tag:yaml.org,2002:python/name:os.system' is not",
        ),
        (STUDY.replace("60000", "!mine x"), "line 8: the tag '!mine' is not read"),
        (
            STUDY.replace("model: m", 'model: "\\uD800"'),
            "line 2: model: the text holds half a character",
        ),
        (STUDY.replace("model: m", 'model: "\\UFFFFFFFF"'), "line 2: this is not YAML"),
        (
            STUDY.replace("model: m", 'model: "a\\0b"'),
            "line 2: model: the text holds a NUL character",
        ),
        (
            STUDY.replace("model: m", "model: \x07"),
            "line 2: this is not YAML: the character U+0007 cannot stand in it",
        ),
        (
            STUDY.replace("60000", "1" + "0" * 30),
            "line 8: budget is 1" + "0" * 30 + "; expected at most 1000000000000000.",
        ),
        (STUDY.replace("60000", ".nan"), "line 8: budget is nan; expected"),
        (STUDY + "max_seconds: .inf", "line 10: max_seconds is inf; expected"),
        (
            STUDY + "seeds: 1000000",
            "line 10: seeds is 1000000; expected at most 1,000 seeds, each below 2**32.",
        ),
        (
            STUDY + "seeds: [4294967296]",
            "line 10: seeds is a list of 1; expected at most 1,000 seeds, each below 2**32.",
        ),
        (STUDY + "length: 999999999", "line 10: length is 999999999; expected at most 10000."),
        (
            STUDY + f"length: {list(range(1, 200))}",
            "line 10: length is a list of 199; expected at most 100 of them.",
        ),
        (STUDY + "memory: 9" + "0" * 40, "line 10: memory is"),
        (STUDY + "device: cuda:99999999", "line 10: device is 'cuda:99999999'"),
        (
            STUDY.replace("{prompt}", "{prompt:999999999}"),
            "line 5, in task.template: .* has a slot {prompt:999999999}: ",
        ),
        (
            STUDY.replace("{prompt}", "{prompt:" + "9" * 5_000 + "}"),
            "a number of tokens, like {prompt:3}, at most 10,000",
        ),
        (STUDY.replace("{prompt}", "{prompt}" * 5_000), "has 5,000 slots: expected at most 64"),
        (
            STUDY.replace("{prompt}", "{prompt!r}"),
            "line 5, in task.template: .* expected a plain name",
        ),
        (
            STUDY.replace("name: study", "name: " + "n" * 300),
            "line 1: name is .*; expected a name of at most 100 characters",
        ),
        (STUDY.replace("name: study", "name: CON"), "line 1: name is 'CON'; expected another name"),
        (
            STUDY.replace("[random]", "[random: {label: nul}]"),
            "line 9: strategies.0.random.label is 'nul'; expected another",
        ),
        (
            STUDY.replace("[random]", "[random: {label: 'a.'}]"),
            "strategies.0.random.label is 'a.'; expected another name",
        ),
        (
            STUDY.replace("[random]", '[random: {label: "a\\nb"}]'),
            "expected a name that can be a folder's",
        ),
        (
            STUDY.replace("[random]", "[random: {budget: 1" + "0" * 40 + "}]"),
            "strategies.0.random.budget is .*expected at most",
        ),
        (
            STUDY.replace(
                "[random]",
                "[random, " + ", ".join(f"random: {{label: r{i}}}" for i in range(150)) + "]",
            )
            + "seeds: 1000",
            "line 9: this is a study of 151,000 runs .*; expected at most 100,000.",
        ),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_its_line(text: str, message: str) -> None:
    assert re.search(message if ".*" in message else re.escape(message), complaint(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOML.replace("1000", "9" * 5_000), DIGITS),
        ("a = " + "[" * 100_000, DEEP),
        ("a = " + "[" * 50 + "]" * 50, f"line 1: a.{'.'.join('0' * 20)}: {DEEP}"),
        (".".join("a" * 60) + " = 1", DEEP),
        (".".join("a" * 50_000) + " = 1", DEEP),
        ("x" * 250_000, "this is not TOML"),
        (
            TOML.replace("1000", "1" + "0" * 30),
            "line 4: budget is 1" + "0" * 30 + "; expected at most",
        ),
        (TOML.replace("1000", "inf"), "line 4: budget is inf"),
        (TOML + "max_seconds = nan", "line 5: max_seconds is nan; expected"),
        (
            TOML.replace("1000", "2024-01-01"),
            "line 4: budget is datetime.date(2024, 1, 1); expected",
        ),
        (TOML + "pool = [" + "'x'," * 20_000 + "]", MANY),
        (TOML + "# " + "x" * 300_000, "it is longer than"),
        (
            TOML.replace('task = "capitals"\n', "") + "[task]\nlabel = 5",
            "line 4, in task: the key 'data' is missing",
        ),
    ],
)
def test_toml_is_held_to_the_same_limits(text: str, message: str) -> None:
    assert message in complaint(text, "study.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, DEEP),
        (json.dumps({**KEYS, "budget": 10**30}), "budget is 1" + "0" * 30),
        ('{"budget": ' + "9" * 5_000 + "}", DIGITS),
        (json.dumps({**KEYS, "pool": ["x"] * 20_000}), MANY),
        (json.dumps({**KEYS, "model": "\ud800"}), "half a character"),
    ],
)
def test_json_is_held_to_the_same_limits(text: str, message: str) -> None:
    assert message in complaint(text, "study.json")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget=" + "9" * 5_000, DIGITS),
        ("budget=!!int 5", "the tag 'tag:yaml.org,2002:int' is not read"),
        ("budget=" + "[" * 100_000, DEEP),
        ("budget=" + "x" * 1_000_000, "it is longer than"),
        ("a." * 5_000 + "a=1", DEEP),
        ("strategies." + "9" * 5_000 + "=x", "'strategies' is a list of 1; expected a place in it"),
        ("a=&a [*a]", "an alias stands inside what it names"),
        ("seeds=1000000", "--set seeds: seeds is 1000000; expected at most 1,000 seeds"),
    ],
)
def test_overrides_are_held_to_the_same_limits(override: str, message: str) -> None:
    found = complaint(STUDY, overrides=(override,))
    assert message in found and len(found) < 6_000


def test_a_mapping_is_held_to_the_same_limits() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, object] = dict(KEYS)
    circle["pool"] = circle
    for data, message in (
        ({**KEYS, "pool": deep}, DEEP),
        (circle, DEEP),
        ({**KEYS, "budget": 10**5_000}, DIGITS),
        ({**KEYS, "model": "x" * 300_000}, "it is longer than"),
    ):
        with pytest.raises(StudyError, match=message):
            parse_config(data)


def test_a_study_file_that_is_no_file_is_not_read() -> None:
    Path("folder.yaml").mkdir()
    os.mkfifo("pipe.yaml")
    for name in ("folder.yaml", "pipe.yaml"):
        with pytest.raises(
            StudyError, match=f"cannot read the study file {name}: it is a .*, not a file"
        ):
            load_config(Path(name))


def test_names_made_of_file_names_are_folders_names() -> None:
    for stem in ("_x", "..", "é" * 50, "x" * 150, "a b."):
        name = f"{stem}.yaml"
        Path(name).write_text(
            STUDY.replace("name: study\n", "").replace("d.jsonl", f"'{stem}.jsonl'"), "utf-8"
        )
        config = load_config(Path(name))
        assert 0 < len(config.name) <= 100 and config.tasks[0].name  # type: ignore[union-attr]
