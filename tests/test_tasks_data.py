"""The built-in task `capitals`: facts, aliases and splits."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

import promptsearch
from promptsearch.plain.yaml import read_yaml
from promptsearch.study.settings.task import TaskConfig
from promptsearch.tasks.task import Task, builtin_tasks

FOLDER = Path(promptsearch.__file__).parent / "tasks" / "builtin"
ROWS = [json.loads(line) for line in (FOLDER / "capitals.jsonl").read_text("utf-8").splitlines()]
CAPITALS = {row["capital"] for row in ROWS}
FILE, _ = read_yaml((FOLDER / "capitals.yaml").read_text("utf-8"), "capitals.yaml")
ALIASES: dict[str, list[str]] = FILE["aliases"]


def plain(text: str) -> str:
    """Without marks on letters."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def test_the_capitals_are_facts_about_243_countries_and_territories() -> None:
    assert len(ROWS) == 243
    assert all(list(row) == ["name", "capital", "continent"] for row in ROWS)
    assert all(
        isinstance(value, str) and value == value.strip() != ""
        for row in ROWS
        for value in row.values()
    )
    assert len({row["name"] for row in ROWS}) == 243
    # Only Jamaica's and Norfolk Island's capitals have the same name.
    assert [
        name for name, count in Counter(row["capital"] for row in ROWS).items() if count > 1
    ] == ["Kingston"]
    # Counts by continent as in the source, research on it included Antarctica's two territories.
    assert Counter(row["continent"] for row in ROWS) == {
        "Africa": 57,
        "Asia": 52,
        "Europe": 51,
        "North America": 41,
        "Oceania": 26,
        "South America": 14,
        "Antarctica": 2,
    }
    known = {row["name"]: row["capital"] for row in ROWS}
    assert (known["France"], known["Japan"], known["Brazil"]) == ("Paris", "Tokyo", "Brasília")


def test_every_alias_belongs_to_a_capital_and_to_one_only() -> None:
    assert set(ALIASES) <= CAPITALS
    given = [alias for aliases in ALIASES.values() for alias in aliases]
    assert all(isinstance(alias, str) and alias == alias.strip() != "" for alias in given)
    assert len(given) == len(set(given))
    # The Seychelles' capital is Victoria, an older name of Hong Kong's City of Victoria; Guyana's
    # is Georgetown, another spelling of the Cayman Islands' George Town. Both are right where they
    # stand.
    assert set(given) & CAPITALS == {"Victoria", "Georgetown"}


def test_a_capital_with_marks_has_an_alias_without() -> None:
    marked = [capital for capital in CAPITALS if plain(capital) != capital]
    assert len(marked) == 15
    assert [capital for capital in marked if plain(capital) not in ALIASES[capital]] == []


def test_a_saint_may_be_abbreviated_and_written_out() -> None:
    saints = [capital for capital in CAPITALS if capital.startswith("Saint")]
    assert len(saints) == 6
    for capital in saints:
        assert capital.replace("Saint", "St").replace("-", " ") in ALIASES[capital]
    # The full stop ends an answer.
    assert [text for text in (*CAPITALS, *sum(ALIASES.values(), [])) if "." in text] == []


@pytest.mark.parametrize(
    ("capital", "alias"),
    [
        ("Washington", "Washington, DC"),
        ("City of San Marino", "San Marino"),
        ("Kyiv", "Kiev"),
        ("Bangkok", "Krung Thep Maha Nakhon"),
    ],
)
def test_well_known_other_names_count(capital: str, alias: str) -> None:
    assert alias in ALIASES[capital]


@pytest.mark.parametrize(
    ("capital", "other"),
    [
        ("Colombo", "Kotte"),
        ("Lobamba", "Mbabane"),
        ("New Delhi", "Delhi"),
        ("Pretoria", "Cape Town"),
    ],
)
def test_other_cities_do_not_count(capital: str, other: str) -> None:
    assert capital in CAPITALS
    assert other not in ALIASES.get(capital, [])


def test_the_file_has_the_keys_of_a_study_files_task() -> None:
    task = TaskConfig.model_validate({"name": "capitals", **FILE})
    assert task.answers is None  # free text
    assert (task.splits.search, task.splits.select, task.splits.test) == (128, 48, 64)


def test_the_task_can_be_loaded_by_its_name() -> None:
    told = builtin_tasks()["capitals"]
    assert told == "Name the capital of a country or territory (243 facts, free text answers)."
    task = Task.load("capitals")
    assert task.kind == "text"
    assert {name: len(split) for name, split in task.splits.items()} == {
        "search": 128,
        "select": 48,
        "test": 64,
    }
    names = [example.fields["name"] for split in task.splits.values() for example in split.examples]
    assert len(set(names)) == 240
    asked = {e.fields["name"]: e for split in task.splits.values() for e in split.examples}
    aliases = next(e.aliases for e in asked.values() if e.answer == " Yaoundé")
    assert aliases == (" Yaounde",)


def test_the_notice_names_origin_and_licence() -> None:
    notice = (FOLDER / "NOTICE").read_text("utf-8")
    assert "countries-list, version 3.4.1" in notice
    assert "MIT License" in notice
    assert "Copyright (c) 2014 Annexare Studio" in notice
