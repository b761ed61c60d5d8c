"""A slim record holds every number of a study, and its report, in eight files."""

import json
from dataclasses import asdict, replace

import pytest

from promptsearch.errors import PromptSearchError, RecordError, StudyError
from promptsearch.plain.yaml import read_yaml
from promptsearch.records.load import load_results
from promptsearch.records.sealed import write_record
from promptsearch.report import write_report
from promptsearch.report.facts import study_yaml
from promptsearch.report.slim import write_slim_record

FILES = {
    "report.md",
    "study.yaml",
    "study.json",
    "runs.csv",
    "scores.parquet",
    "curves.parquet",
    "winners.safetensors",
    "slim.json",
}
START = {
    "run": "prompt_tuning",
    "seed": 0,
    "key": "0123456789abcdef0123",
    "kind": "soft",
    "text": 'a, "b"\n',
    "spent": 40_000,
    "select": {"loss": 0.25, "metric": 0.91},
    "test": {"loss": 0.28, "metric": None},
}


@pytest.fixture
def study(make_study):
    """A study with all that a record may hold: empty texts, None, lists, commas, a failed run."""
    made = make_study(strategies=("manual", "random", "prompt_tuning"), seeds=(0, 1)).fill()
    made.fail("reviews", "random", 1, error='no memory,\n"none"')
    found = made.result("reviews", "random", 0)
    made.write(
        {
            **found,
            "options": {"name": "5", "of": [1, None, {"a": True}]},
            "winner": {**found["winner"], "text": "42"},
            "start": START,
            "spent": 75_000,
            "ledger": {**found["ledger"], "brought": 40_000},
            "export": {"error": "null"},
            "stopped": "",
        }
    )
    return made


def test_it_holds_the_same_records_and_the_same_report_to_the_byte(study, tmp_path):
    out = tmp_path / "slim" / study.folder.name
    write_slim_record(study.folder, out)
    assert {path.name for path in out.iterdir()} == FILES
    whole, slim = load_results(study.folder), load_results(out)
    assert replace(slim, folder=whole.folder) == whole
    assert [json.dumps(asdict(run)) for run in slim.runs] == [
        json.dumps(asdict(run)) for run in whole.runs
    ]
    write_report(study.folder)
    assert (out / "report.md").read_bytes() == (study.folder / "report.md").read_bytes()
    before = (out / "report.md").read_bytes()
    write_report(out)
    assert (out / "report.md").read_bytes() == before


@pytest.mark.parametrize(
    "start",
    [{"task": "reviews"}, {"text": "x" * 200_000}, {"text": "one\rtwo"}],
    ids=["of another task", "long", "with a carriage return"],
)
def test_whatever_a_start_says_is_read_back(study, tmp_path, start):
    found = study.result("reviews", "random", 0)
    study.write({**found, "start": START | start})
    write_slim_record(study.folder, tmp_path / "slim")
    assert load_results(tmp_path / "slim").runs == load_results(study.folder).runs


def test_a_slim_record_of_a_slim_record_is_the_same(study, tmp_path):
    write_slim_record(study.folder, tmp_path / "one" / "x")
    write_slim_record(tmp_path / "one" / "x", tmp_path / "two" / "x")
    for name in FILES:
        one, two = ((tmp_path / folder / "x" / name).read_bytes() for folder in ("one", "two"))
        assert one == two, name


@pytest.mark.parametrize(
    "text", ["08", "1e3", "1.5e3", "1e-3", "+.5", "null", "no", "12:30", "", "a\x85b", "one\rtwo"]
)
def test_a_text_of_the_study_file_is_read_as_the_same_text(text):
    settings = {text: [text, {"answer": text}]}
    assert read_yaml(study_yaml(settings), "study.yaml")[0] == settings


def test_a_run_in_a_folder_of_its_own_takes_the_place_of_the_kept_one(study, tmp_path):
    write_slim_record(study.folder, tmp_path / "slim")
    result = study.agreeing(study.result("reviews", "random", 1))
    path = tmp_path / "slim" / "reviews" / "random" / "seed1" / "result.json"
    write_record(path, "result", result)
    results = load_results(tmp_path / "slim")
    assert not results.failed and [run.seed for run in results.runs if run.label == "random"] == [
        0,
        1,
    ]


def test_it_is_not_written_over_a_study(study, tmp_path):
    with pytest.raises(StudyError, match="holds a study already: name a new folder"):
        write_slim_record(study.folder, study.folder)


@pytest.mark.parametrize("name", ["slim.json", "runs.csv", "scores.parquet", "curves.parquet"])
def test_a_file_that_was_changed_is_not_believed(study, tmp_path, name):
    write_slim_record(study.folder, tmp_path / "slim")
    path = tmp_path / "slim" / name
    raw = path.read_bytes()
    for content in (b"", raw[:-2], raw.replace(b"1", b"2", 1), None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        try:
            found = load_results(tmp_path / "slim")
        except PromptSearchError as error:
            assert str(path) in str(error)
        else:  # without its mark, no run is known
            assert name == "slim.json" and content is None and not found.runs
    path.write_bytes(raw)
    assert load_results(tmp_path / "slim").runs


def test_tables_that_contradict_each_other_are_refused_whatever_their_checksums(study, tmp_path):
    from promptsearch.records.slim import write_slim

    write_slim_record(study.folder, tmp_path / "slim")
    runs = load_results(study.folder).runs
    write_slim([replace(runs[0], gap=0.5), *runs[1:]], "", tmp_path / "slim")
    with pytest.raises(RecordError, match=r"runs\.csv is damaged \(gap is 0\.5"):
        load_results(tmp_path / "slim")
