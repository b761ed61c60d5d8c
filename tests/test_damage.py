"""Damaged folders.

Whatever stands in a file of a study, it is told, or the numbers are those of the whole study.
"""

import json
import os
import resource
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from promptsearch import compare, files
from promptsearch.cli import app
from promptsearch.errors import FileError, PromptSearchError, RecordError, StudyError
from promptsearch.records.log import read_log
from promptsearch.records.sealed import seal, sealed_line, unseal
from promptsearch.report import load_results
from promptsearch.report.live import LiveReport
from promptsearch.study import cell

STRATEGIES = ["random", {"prompt_tuning": {"interval": 2, "batch": 4}}]
TUNED, DRAWN = "films/prompt_tuning/seed0", "films/random/seed0"


def study(strategies=STRATEGIES, **changes):
    return {
        "name": "s",
        "budget": 5_000,
        "length": 2,
        "score_on": 8,
        "seeds": 1,
        "strategies": strategies,
        **changes,
    }


def numbers(results):
    """What a study found, times and what a cache saved left out."""
    return {
        run.label: (
            run.winner,
            run.search,
            run.select,
            run.test,
            run.curve,
            run.spent,
            run.gap,
            run.stopped,
        )
        for run in results.runs
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny, films):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "promptsearch.study.study.cache_folder", lambda: tmp_path_factory.mktemp("cache")
        )
        folder = tmp_path_factory.mktemp("whole")
        compare(study(), out=folder, model=tiny, task=films)
    return folder


@pytest.fixture(scope="module")
def whole(finished):
    return numbers(load_results(finished))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, tiny, films):
    """A study that was stopped on its way.

    random is done, prompt_tuning has a state, finalists and a log.
    """
    folder, append, lines = tmp_path_factory.mktemp("interrupted"), files.append, []

    def counted(path, content):
        if path.parent.parent.name == "prompt_tuning":
            lines.append(content)
        if len(lines) > 4:
            raise KeyboardInterrupt
        append(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "promptsearch.study.study.cache_folder", lambda: tmp_path_factory.mktemp("cache")
        )
        patch.setattr("promptsearch.search.loop.SAVING_SHARE", 1e9)  # at every chance
        patch.setattr("promptsearch.records.log.append", counted)
        with pytest.raises(KeyboardInterrupt):
            compare(study(), out=folder, model=tiny, task=films)
    assert (folder / TUNED / "state.safetensors").exists() and not (
        folder / TUNED / "result.json"
    ).exists()
    return folder


def contents(raw):
    """Everything that may stand in a file in place of what was written."""
    rng = np.random.default_rng(0)
    for cut in (0, 1, len(raw) // 3, len(raw) // 2, len(raw) - 2, len(raw) - 1):
        yield raw[:cut]
    for place in rng.integers(len(raw), size=25).tolist():
        yield raw[:place] + bytes([raw[place] ^ 1 << int(rng.integers(8))]) + raw[place + 1 :]
    yield from (
        b"null",
        b"[]\n",
        b"{}\n",
        b"1\n",
        b'"x"',
        b"\0" * 100,
        b"\xff\xfe\x00",
        os.urandom(200),
        raw + b"x",
        raw + raw,
    )
    yield from (b"[" * 100_000, b'{"a":' * 100_000 + b"\n", b"[" * 100_000 + b"]" * 100_000 + b"\n")


def edits(data):
    """JSON with a key left out, or a number or text changed, everywhere in turn.

    The checksum stays.
    """
    found = []

    def walk(value, put):
        if isinstance(value, dict):
            for key in value:
                found.append(lambda copy, key=key, put=put: put(copy).pop(key))
                walk(value[key], lambda copy, key=key, put=put: put(copy)[key])
                if not isinstance(value[key], (dict, list)):
                    other = value[key] + 1 if isinstance(value[key], (int, float)) else "other"
                    found.append(
                        lambda copy, key=key, put=put, other=other: put(copy).update({key: other})
                    )
        elif isinstance(value, list) and value:
            found.append(lambda copy, put=put: put(copy).pop())
            walk(value[0], lambda copy, put=put: put(copy)[0])

    walk(data, lambda copy: copy)
    for edit in found:
        copy = json.loads(json.dumps(data))
        edit(copy)
        yield json.dumps(copy).encode()


@pytest.mark.parametrize(
    "name", ["study.json", f"{TUNED}/result.json", f"{TUNED}/run.json", f"{DRAWN}/result.json"]
)
def test_report_tells_of_damage_or_shows_the_same_numbers(finished, whole, tmp_path, name):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    path = folder / name
    raw = path.read_bytes()
    refused = 0
    for content in [*contents(raw), *edits(json.loads(raw))]:
        path.write_bytes(content)
        try:
            assert numbers(load_results(folder)) == whole, content[:300]
        except PromptSearchError as error:
            refused += 1
            assert str(path) in str(error) and str(error).isprintable()
    assert refused > 60
    path.write_bytes(raw)
    assert numbers(load_results(folder)) == whole


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda r: r["test"].update(loss=r["test"]["loss"] + 0.1), "gap is"),
        (lambda r: r["test"]["losses"].__setitem__(0, 9.0), "test.loss is"),
        (lambda r: r["test"]["losses"].pop(), "test.losses has 19 entries"),
        (lambda r: r["test"].update(metric=1.0), "test.metric is"),
        (lambda r: r["test"].update(correct=[1] * 20), "test.correct contradicts"),
        (
            lambda r: r["test"].update(predictions=[2] * 20),
            "test.predictions has 2, and the task 2 choices",
        ),
        (lambda r: r["test"].update(labels=[-1] * 20), "test.labels"),
        (lambda r: r["test"].update(labels=None), "predictions or labels"),
        (lambda r: r["select"].update(loss=0.0), "select.loss is"),
        (lambda r: r["select"].update(metric=2.0), "select.metric is"),
        (lambda r: r.update(spent=1), "spent is 1"),
        (lambda r: r["ledger"].update(forward=0), "its ledger adds up to"),
        (lambda r: r.update(budget=4_999), "its budget"),
        (
            lambda r: (r.update(budget=6_000), r["ledger"].update(budget=6_000)),
            "that of the study 5000",
        ),
        (
            lambda r: (r.update(budget=r["spent"]), r["ledger"].update(budget=r["spent"])),
            "that of the study 5000",
        ),
        (lambda r: (r.update(spent=9_999), r["ledger"].update(forward=9_999)), "of a budget"),
        (lambda r: r.update(gap=0.0), "gap is"),
        (lambda r: r.update(curve=r["curve"][::-1]), "its curve goes back"),
        (lambda r: r["search"].update(loss=0.0), "search.loss is 0.0"),
        (lambda r: r.update(seed=1), "its seed 1 is none|of seed 1"),
        (lambda r: r.update(label="other"), "its label is 'other', and that in run.json 'random'"),
        (lambda r: r.update(strategy="other"), "its strategy is"),
        (lambda r: r.update(options={"batch": 3}), "its options is"),
        (lambda r: r.update(status="maybe"), "expected 'done' or 'failed'"),
        (lambda r: r.update(task="other"), "is of the task 'other'"),
        (lambda r: r.update(task=[]), r"is of the task \[\]"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused_whatever_its_checksum(
    finished, tmp_path, edit, complaint
):
    shutil.copytree(finished, tmp_path / "study")
    path = tmp_path / "study" / DRAWN / "result.json"
    data = unseal(json.loads(path.read_bytes()))
    edit(data)
    path.write_text(json.dumps(seal(data)))
    with pytest.raises(RecordError, match=complaint):
        load_results(tmp_path / "study")


def _rows(rows):
    return lambda s: s["settings"].update(strategies=rows)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_rows(None), "settings.strategies: expected a list, got None"),
        (_rows("random"), "settings.strategies: expected a list, got 'random'"),
        (_rows([{}]), "settings.strategies.0: expected one name with its options, got {}"),
        (_rows(["random"]), "settings.strategies.0: expected one name with its options"),
        (_rows([{"random": None}]), "settings.strategies.0: expected one name with its options"),
        (_rows([{"random": {}}]), "settings.strategies.0 has no label"),
        (_rows([{"a": {"label": "a", "seeds": "2"}}]), "settings.strategies.0: expected a whole"),
        (
            lambda s: s["tasks"]["films"]["splits"].pop("select"),
            "tasks.films.splits has no 'select'",
        ),
        (lambda s: s["tasks"]["films"]["splits"].pop("test"), "tasks.films.splits has no 'test'"),
    ],
)
def test_a_study_of_another_shape_is_refused_whatever_its_checksum(
    finished, tmp_path, edit, complaint
):
    shutil.copytree(finished, tmp_path / "study")
    path = tmp_path / "study" / "study.json"
    data = unseal(json.loads(path.read_bytes()))
    edit(data)
    path.write_text(json.dumps(seal(data)))
    with pytest.raises(RecordError, match=rf"study\.json is damaged \({complaint}"):
        load_results(tmp_path / "study")


def test_a_result_in_another_place_is_refused(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    shutil.copytree(folder / DRAWN, folder / "films" / "copy" / "seed0")
    with pytest.raises(RecordError, match="lies in another folder, too"):
        load_results(folder)
    shutil.copytree(folder / "films" / "copy" / "seed0", folder / "films" / "third" / "seed5")
    with pytest.raises(
        RecordError, match="of seed 0, and its folder of another|another folder, too"
    ):
        load_results(folder)


def test_a_log_is_read_as_it_was_written_or_refused(finished, tmp_path):
    raw = (finished / DRAWN / "evaluations.jsonl").read_bytes()
    path = tmp_path / "evaluations.jsonl"
    lines = read_log(finished / DRAWN / "evaluations.jsonl")[0]
    first = raw[: raw.index(b"\n") + 1]
    rest = raw[len(first) :]
    refused = 0
    for content in [*contents(raw), *(edit + b"\n" + rest for edit in edits(json.loads(first)))]:
        path.write_bytes(content)
        try:
            found, size = read_log(path)
            assert found == lines[: len(found)] and size <= len(content)
        except RecordError as error:
            refused += 1
            assert "delete it alone" in str(error)
        assert path.read_bytes() == content
    assert refused > 60


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (
            lambda line: line["losses"].__setitem__(0, line["losses"][0][:1]),
            "losses and metric|could not|shape",
        ),
        (lambda line: line["losses"].pop(), "rows of losses"),
        (lambda line: line["metric"].pop(), "of the metric"),
        (lambda line: line["choices"].pop(), "rows of losses"),
        (
            lambda line: line["losses"][0].__setitem__(0, 7.0),
            "a loss of prompt 0 is that of none of its choices",
        ),
        (
            lambda line: line["metric"][0].__setitem__(0, 1 - line["metric"][0][0]),
            "losses and metric of prompt 0 contradict",
        ),
        (lambda line: line["choices"][0].__setitem__(0, [-5.0, -6.0]), "none of its choices"),
        (lambda line: line.update(ledger=None), "NoneType"),
        (lambda line: line.update(prompts=[{}]), "key"),
        (lambda line: line["ledger"].update(forward=-1), "no whole number"),
        (lambda line: line["ledger"].update(forward=True), "no whole number"),
        (lambda line: line["ledger"].update(forward=99_999), "over its budget"),
        (lambda line: line["ledger"].pop("cached"), "figures"),
        (lambda line: line.update(price=None), "no whole number"),
        (lambda line: line.update(stage="test"), "no evaluation|has no place|this is not"),
        (lambda line: line.update(failures={"99": "no"}), "failures are of no prompt"),
        (lambda line: line.update(failures={"0": "no"}), "failed, and has losses"),
        (lambda line: line.update(examples=[0, -1]), "examples"),
        (lambda line: line.update(seconds=-1), "seconds"),
    ],
)
def test_a_line_that_contradicts_itself_is_refused_whatever_its_checksum(
    finished, tmp_path, edit, complaint
):
    first, *rest = (finished / DRAWN / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
    line = unseal(json.loads(first))
    edit(line)
    path = tmp_path / "evaluations.jsonl"
    path.write_bytes(b"".join([sealed_line(line), *rest]))
    with pytest.raises(RecordError, match=complaint):
        read_log(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda line: line.update(
            {name: [row[:3] for row in line[name]] for name in ("losses", "metric", "choices")}
        ),
        lambda line: line["ledger"].update(forward=line["ledger"]["forward"] + 1),
    ],
)
def test_a_line_that_agrees_with_itself_but_not_with_the_run_is_refused(
    finished, tiny, films, tmp_path, edit
):
    shutil.copytree(finished, tmp_path / "study")
    run = tmp_path / "study" / DRAWN
    (run / "result.json").unlink()
    log = run / "evaluations.jsonl"
    rest = [unseal(json.loads(raw)) for raw in log.read_bytes().splitlines()]
    place = next(i for i, line in enumerate(rest) if line["stage"] == "rescore")
    edit(rest[place])
    lines = rest[: place + 1]
    log.write_bytes(b"".join(sealed_line(each) for each in lines))
    before = log.read_bytes()
    with pytest.raises(RecordError, match=r"line \d+ has .* and the run has"):
        compare(study(), out=tmp_path / "study", model=tiny, task=films)
    assert log.read_bytes() == before and not (run / "result.json").exists()


def test_damage_in_one_run_loses_no_other(tiny, films, tmp_path, finished, whole):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (folder / DRAWN / "result.json").write_bytes(b"{")
    shutil.rmtree(folder / TUNED)
    with pytest.raises(
        RecordError,
        match=r"random/seed0/result\.json is damaged .*delete it and run the study again",
    ):
        compare(study(), out=folder, model=tiny, task=films)
    assert (folder / TUNED / "result.json").exists(), "the others were made"
    assert (folder / DRAWN / "result.json").read_bytes() == b"{", (
        "and the damaged one is left as it is"
    )
    (folder / DRAWN / "result.json").unlink()  # as it was told
    assert numbers(compare(study(), out=folder, model=tiny, task=films)) == whole


def test_a_bug_in_one_run_stays_a_traceback_and_loses_no_other(tiny, films, tmp_path, monkeypatch):
    export = cell.export_winner

    def buggy(arena, winner, result, run):
        if result.label == "random":
            raise ZeroDivisionError("a bug of ours")
        return export(arena, winner, result, run)

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(cell, "export_winner", buggy)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="a bug of ours"):
                compare(study(), out=tmp_path, model=tiny, task=films, progress=told.append)
            assert (tmp_path / "report.md").exists()
            assert (tmp_path / TUNED / "result.json").exists(), "the others were made"
            assert not (tmp_path / DRAWN / "result.json").exists()
    said = [step.message for step in told if step.stage == "failed"]
    assert said == ["ZeroDivisionError: a bug of ours"] * 2
    assert not compare(study(), out=tmp_path, model=tiny, task=films).unfinished


@pytest.mark.parametrize("damage", [b"{", b"null", b"[" * 100_000, None])
def test_a_study_without_its_record_is_not_gone_on_with(tiny, films, tmp_path, finished, damage):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (folder / "study.json").unlink()
    if damage is not None:
        (folder / "study.json").write_bytes(damage)
    with pytest.raises(RecordError, match=r"study\.json is (damaged|missing).*restore it"):
        compare(study(), out=folder, model=tiny, task=films)
    assert (folder / "study.json").exists() == (damage is not None)


def first_finalist(folder):
    return min((folder / TUNED / "finalists").iterdir())


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: None, None),
        (lambda folder: (folder / TUNED / "state.safetensors").write_bytes(b"x"), None),
        (lambda folder: (folder / TUNED / "state.safetensors").unlink(), None),
        (lambda folder: first_finalist(folder).write_bytes(b"cut"), None),
        (lambda folder: shutil.rmtree(folder / TUNED / "finalists"), None),
        (lambda folder: (folder / TUNED / "evaluations.jsonl").unlink(), None),
        (lambda folder: (folder / TUNED / "run.json").unlink(), None),
        (
            lambda folder: (folder / TUNED / "run.json").write_bytes(b"[" * 100_000),
            "delete it alone",
        ),
        (
            lambda folder: (folder / TUNED / "evaluations.jsonl").write_bytes(b"{}\n"),
            "delete it alone",
        ),
    ],
)
def test_an_interrupted_run_ends_with_the_same_numbers(
    interrupted, whole, tiny, films, tmp_path, damage, complaint
):
    folder = tmp_path / "study"
    shutil.copytree(interrupted, folder)
    damage(folder)
    if complaint:
        with pytest.raises(RecordError, match=complaint) as caught:
            compare(study(), out=folder, model=tiny, task=films)
        named = str(caught.value).split(" is damaged")[0].split(", line")[0]
        os.unlink(named)  # the one next step
    assert numbers(compare(study(), out=folder, model=tiny, task=films)) == whole
    assert not list(folder.rglob("*.part")) and not (folder / TUNED / "finalists").exists()


def test_after_room_is_made_the_same_command_gives_the_same_numbers(
    whole, tiny, films, tmp_path, monkeypatch
):
    """The disk is full at one write after the other, and each time half of it had been written."""
    write, count, moment = files._write_all, 0, 0
    monkeypatch.setattr("promptsearch.search.loop.SAVING_SHARE", 1e9)

    def full(file, content):
        nonlocal count
        count += 1
        if count == moment:
            file.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write(file, content)

    monkeypatch.setattr(files, "_write_all", full)
    # The page of a running study is left out, whose failure stops nothing.
    monkeypatch.setattr(LiveReport, "__call__", lambda self, event: None)
    failed = 0
    for moment in (1, 2, 3, 5, 7, 8, 11, 13, 16, 4, 6, 9):  # noqa: B007 - `full` reads it
        count = 0
        try:
            compare(study(), out=tmp_path, model=tiny, task=films)
        except FileError as error:
            failed += 1
            assert (
                "no space is left on the disk. What was written before is safe; make room"
                in str(error)
            )
        assert not list(tmp_path.rglob("*.part"))
    assert failed >= 9
    moment = 0
    assert numbers(compare(study(), out=tmp_path, model=tiny, task=films)) == whole


def test_a_limit_of_the_system_on_files_is_told(whole, tiny, films, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(FileError, match="larger than files may become"):
            compare(study(), out=tmp_path, model=tiny, task=films)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert numbers(compare(study(), out=tmp_path, model=tiny, task=films)) == whole


def a_file(path):
    path.write_text("mine")


def a_file_below(path):
    (path / "films").mkdir(parents=True)
    (path / "films" / "random").write_text("mine")


def a_file_as_leases(path):
    path.mkdir()
    (path / ".leases").write_text("mine")


def a_folder_as_study(path):
    (path / "study.json").mkdir(parents=True)


def a_pipe_as_study(path):
    path.mkdir()
    os.mkfifo(path / "study.json")


def a_link_as_study(path):
    path.mkdir()
    (path / "study.json").symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage",
    [a_file, a_file_below, a_file_as_leases, a_folder_as_study, a_pipe_as_study, a_link_as_study],
)
def test_what_stands_in_the_way_is_named_and_left_as_it_is(tiny, films, tmp_path, damage):
    damage(tmp_path / "out")
    with pytest.raises(FileError, match="stands where|leads nowhere"):
        compare(study(["random"]), out=tmp_path / "out", model=tiny, task=films)
    found = [path for path in (tmp_path / "out", *tmp_path.rglob("random")) if path.is_file()]
    assert all(path.read_text() == "mine" for path in found)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_an_out_that_cannot_be(tiny, films, tmp_path, name):
    with pytest.raises(FileError, match="longer than the disk allows|no file can have such a name"):
        compare(study(["random"]), out=tmp_path / name, model=tiny, task=films)


@pytest.mark.parametrize("name", ["study.json", f"{DRAWN}/result.json", f"{DRAWN}/run.json"])
@pytest.mark.parametrize(
    "damage", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path), None]
)
def test_the_command_report_ends_with_2_and_one_line(finished, tmp_path, name, damage):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    path = folder / name
    path.unlink()
    if damage:
        damage(path)
    found = CliRunner().invoke(app, ["report", str(folder)])
    if (
        damage is None and name != "study.json"
    ):  # then the run was not made yet, or tells its settings itself
        assert found.exit_code == 0
        return
    assert (
        found.exit_code == 2
        and found.stderr.startswith("error: ")
        and found.stderr.count("\n") == 1
    )


def test_an_error_of_the_system_that_nobody_met_is_one_line(monkeypatch, tmp_path):
    def fail(folder, **_):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("promptsearch.report.load_results", fail)
    found = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert (
        found.exit_code == 2
        and "Permission denied" in found.stderr
        and found.stderr.count("\n") == 1
    )


def test_other_settings_are_found_without_run_json(finished, tiny, films, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (folder / DRAWN / "run.json").unlink()
    with pytest.raises(StudyError, match=r"options was \{\}, now it is \{'batch': 3\}"):
        compare(study([{"random": {"batch": 3}}]), out=folder, model=tiny, task=films)
