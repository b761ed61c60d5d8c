"""A study goes on from its slim record: what is finished counts, and only the rest is run."""

from __future__ import annotations

import re
import shutil

import pytest

from promptsearch import compare, load_prompt
from promptsearch.errors import PromptError, StudyError
from promptsearch.export import export_run, verify, winners
from promptsearch.export.saved import write_saved
from promptsearch.prompts.nearest import NearestPrompt
from promptsearch.report import load_results
from promptsearch.report.slim import write_slim_record
from promptsearch.testing.tiny_task import saved_from

SOFT = {"prompt_tuning": {"interval": 2, "batch": 4}}
WORDS = {"nearest_tokens": {"start": {"run": "prompt_tuning"}}}


def study(*strategies, **changes):
    return {
        "name": "s",
        "budget": 9_000,
        "length": 2,
        "score_on": 8,
        "seeds": 1,
        "strategies": [SOFT, "random", *strategies],
        **changes,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny, films):
    folder = tmp_path_factory.mktemp("whole")
    compare(study(), out=folder, model=tiny, task=films)
    return folder


def test_it_runs_only_what_is_missing_and_takes_it_in(whole, tiny, films, tmp_path):
    folder = tmp_path / "slim"
    write_slim_record(whole, folder)
    told = []
    results = compare(
        study(WORDS), out=folder, model=tiny, task=films, progress=lambda p: told.append(p)
    )
    assert [p.run for p in told if p.message == "in an earlier call"] == [
        "films/prompt_tuning/seed0",
        "films/random/seed0",
    ]
    assert [path.name for path in (folder / "films").iterdir()] == ["nearest_tokens"]
    before = load_results(whole).runs
    assert results.runs[:2] == before and results.runs[2].start is not None
    again = tmp_path / "again"
    write_slim_record(folder, again)
    assert load_results(again).runs == results.runs
    assert not (again / "films").exists()


def test_its_winners_load_as_from_the_folder_of_their_run(whole, tiny, tmp_path):
    write_slim_record(whole, tmp_path / "slim")
    for label in ("prompt_tuning", "random"):
        run = tmp_path / "slim" / "films" / label / "seed0"
        assert load_prompt(run).prompt == load_prompt(whole / "films" / label / "seed0").prompt
        assert verify(run, tiny).same
        assert (export_run(run, "json", tmp_path / label, model=tiny) / "prompt.json").exists()


def test_winners_of_every_kind_without_numbers_are_kept(whole, tiny, films, tmp_path):
    """Solved examples for each input are a store, with neither ids nor texts for the slots."""
    shutil.copytree(whole, tmp_path / "whole")
    template = films.template.bind(1)
    store = NearestPrompt((("good film", "good film It was good"),), 1)
    best = tmp_path / "whole" / "films" / "random" / "seed0" / "best"
    write_saved(saved_from(tiny, store, films, template), tiny, best)
    write_slim_record(tmp_path / "whole", tmp_path / "slim")
    found = load_prompt(tmp_path / "slim" / "films" / "random" / "seed0")
    assert found.prompt == store and verify(best, tiny).same


def test_other_settings_are_refused_as_in_the_folder_of_the_study(whole, tiny, films, tmp_path):
    write_slim_record(whole, tmp_path / "slim")
    with pytest.raises(StudyError, match="budget was 9000, now it is 8000"):
        compare(study(budget=8_000), out=tmp_path / "slim", model=tiny, task=films)
    given = study() | {"strategies": [{"random": {"batch": 3}}]}
    with pytest.raises(StudyError, match=r"options was \{\}, now it is \{'batch': 3\}"):
        compare(given, out=tmp_path / "slim", model=tiny, task=films)


def test_what_can_be_exported_no_more_is_said(whole, tiny, films, tmp_path, monkeypatch):
    monkeypatch.setattr(winners, "LARGEST", 10)
    folder = tmp_path / "slim"
    write_slim_record(whole, folder)
    told = []
    results = compare(
        study(WORDS), out=folder, model=tiny, task=films, progress=lambda p: told.append(p)
    )
    (note,) = [p.message for p in told if p.stage == "note"]
    assert re.search(r"1 of 2 runs .* count as done, .*: films/prompt_tuning/seed0$", note)
    assert len(results.runs) == 2 and "does not hold the winner" in results.failed[0].error
    with pytest.raises(PromptError, match="does not hold the winner of films/prompt_tuning/seed0"):
        load_prompt(folder / "films" / "prompt_tuning" / "seed0")


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_file_of_winners_is_named(whole, tmp_path, damage):
    write_slim_record(whole, tmp_path / "slim")
    path = tmp_path / "slim" / "winners.safetensors"
    path.write_bytes(
        path.read_bytes().replace(b'\\"key\\":\\"', b'\\"key\\":\\"../', 1)
        if damage is None
        else damage
    )
    with pytest.raises(PromptError, match=r"winners\.safetensors"):
        load_prompt(tmp_path / "slim" / "films" / "random" / "seed0")
    shutil.rmtree(tmp_path / "slim")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"prompt": 5}', '{"prompt": {"kind": "a"}}'])
def test_a_damaged_winner_is_named_and_leaves_no_study(whole, tmp_path, content):
    shutil.copytree(whole, tmp_path / "whole")
    path = tmp_path / "whole" / "films" / "random" / "seed0" / "best" / "prompt.json"
    good = path.read_text()
    path.write_text(content)
    with pytest.raises(PromptError, match=rf"{re.escape(str(path))} is damaged"):
        write_slim_record(tmp_path / "whole", tmp_path / "slim")
    path.write_text(good)
    write_slim_record(tmp_path / "whole", tmp_path / "slim")
    assert load_results(tmp_path / "slim").runs == load_results(whole).runs


def test_numbers_of_an_earlier_winner_are_not_packed(whole, tiny, tmp_path):
    shutil.copytree(whole, tmp_path / "whole")
    best = tmp_path / "whole" / "films" / "prompt_tuning" / "seed0" / "best"
    (best / f"{'0' * 20}.safetensors").write_bytes(b"earlier")
    write_slim_record(tmp_path / "whole", tmp_path / "slim")
    assert verify(tmp_path / "slim" / "films" / "prompt_tuning" / "seed0", tiny).same
