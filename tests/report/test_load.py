import pytest

from promptsearch.errors import RecordError, StudyError
from promptsearch.records.sealed import write_record
from promptsearch.report import load_results


def test_a_whole_study(make_study):
    study = make_study(tasks=("reviews", "capitals")).fill()
    results = load_results(study.folder)
    assert len(results.runs) == 2 * (1 + 5 * 3)
    assert not results.failed and not results.unfinished
    first = results.runs[0]
    assert (first.task, first.label, first.seed) == ("reviews", "manual", 0)
    assert [run.label for run in results.runs[:16]] == [
        label for label in study.study["strategies"] for _ in range(1 if label == "manual" else 3)
    ]
    assert first.test.losses == tuple(study.result("reviews", "manual", 0)["test"]["losses"])
    assert results.study.tasks["capitals"].splits["test"].size == 200


def test_failed_and_unfinished_runs_are_listed(make_study):
    study = make_study(strategies=("manual", "random")).fill()
    study.fail("reviews", "random", 2, error="no memory")
    study.path("reviews", "random", 1).unlink()
    results = load_results(study.folder)
    assert [run.seed for run in results.runs if run.label == "random"] == [0]
    assert [(run.label, run.seed, run.error) for run in results.failed] == [
        ("random", 2, "no memory")
    ]
    assert results.unfinished == (("reviews", "random", 1),), (
        "manual is deterministic: one run is all of it"
    )


def test_a_row_with_fewer_seeds_than_the_study_is_finished_when_it_has_them(make_study):
    study = make_study(strategies=("manual", "random")).fill()
    for seed in (1, 2):
        study.path("reviews", "random", seed).unlink()
    rows = [{"manual": {"label": "manual"}}, {"random": {"label": "random", "seeds": 1}}]
    study.study["settings"]["strategies"] = rows
    study.write_study()
    assert not load_results(study.folder).unfinished


def test_a_folder_without_a_study(make_study, tmp_path):
    make_study(name="inner")
    with pytest.raises(StudyError, match=r"study\.json.*none in .*Did you mean .*inner\?"):
        load_results(tmp_path)
    with pytest.raises(StudyError, match=r"promptsearch compare STUDY\.yaml --out FOLDER"):
        load_results(tmp_path / "nowhere")


def damage(result, *keys, value):
    *path, last = keys
    for key in path:
        result = result[key]
    if value is None:
        del result[last]
    else:
        result[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (("test", "loss"), None, "test.loss: Field required"),
        (("spent",), "many", "spent: Input should be a valid integer"),
        (("access",), "magic", "access: Input should be 'scores', 'logits', 'gradients' or"),
        (("test", "correct"), [1, 0], "test.correct has 2 entries, the test split 200 examples"),
    ],
)
def test_a_damaged_result_is_named_with_its_key(make_study, keys, value, complaint):
    study = make_study().fill()
    result = study.result("reviews", "random", 1)
    damage(result, *keys, value=value)
    write_record(study.path("reviews", "random", 1), "result", result)
    with pytest.raises(RecordError) as caught:
        load_results(study.folder)
    assert str(study.path("reviews", "random", 1)) in str(caught.value)
    assert complaint in str(caught.value)
    assert "delete it and run the study again" in str(caught.value)


@pytest.mark.parametrize("content", ["", '{"status": "do', "[1, 2]", "\ufffd"])
def test_half_a_file_is_named(make_study, content):
    study = make_study().fill()
    study.path("reviews", "random", 1).write_bytes(
        content.encode("utf-16") if content == "\ufffd" else content.encode()
    )
    with pytest.raises(RecordError, match=r"seed1.result\.json is damaged"):
        load_results(study.folder)


def test_a_damaged_study_file_is_named(make_study):
    study = make_study()
    write_record(study.folder / "study.json", "study", {**study.study, "budget": None})
    with pytest.raises(RecordError, match=r"study\.json is damaged \(budget: .*new folder"):
        load_results(study.folder)


def test_a_run_of_a_task_that_the_study_does_not_have(make_study):
    study = make_study().fill()
    write_record(study.path("tides", "random", 0), "result", study.result("tides", "random", 0))
    with pytest.raises(RecordError, match="task 'tides'; study.json has reviews"):
        load_results(study.folder)


@pytest.mark.parametrize("name", ["study.json", "reviews/random/seed1/result.json"])
def test_a_folder_of_another_version_gets_one_message(make_study, name):
    path = make_study().fill().folder / name
    whole = path.read_text()
    path.write_text(whole.replace('-2"', '-1"', 1))
    with pytest.raises(RecordError, match=r"another version of promptsearch .*-1.*-2.*use that"):
        load_results(path.parents[0] if name == "study.json" else path.parents[3])
