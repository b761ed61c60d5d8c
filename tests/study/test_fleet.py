"""The processes of a study have the same model, data and code; what has not is told apart."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
import yaml

from promptsearch import compare
from promptsearch.errors import RecordError, StudyError
from promptsearch.records.load import load_begun, load_study
from promptsearch.records.provenance import code, versions
from promptsearch.records.sealed import write_record
from promptsearch.report import load_results
from promptsearch.report.facts import facts
from promptsearch.search.plugins import find_strategy
from promptsearch.study import study as studying
from promptsearch.study.execution.fleet import differing
from promptsearch.testing.rerun import DyingLog, Killed
from promptsearch.testing.tiny import tiny_model

OTHER = "0123456789ab"
STUDY = {
    "name": "fleet",
    "budget": 2_000,
    "seeds": 1,
    "length": 2,
    "score_on": 4,
    "strategies": [{"manual": {"prompts": ["good movie?"]}}, "random"],
}

pytestmark = pytest.mark.usefixtures("unreported")


@pytest.fixture
def other_code(monkeypatch):
    """This process has other code, as one of another version would."""
    monkeypatch.setattr("promptsearch.records.provenance.code", lambda: OTHER)


def test_a_shard_with_other_code_is_refused_or_recorded(tiny, films, tmp_path, request):
    told = []

    def shard(place, **more):
        compare(
            STUDY,
            out=tmp_path,
            model=tiny,
            task=films,
            shard=(place, 2),
            progress=told.append,
            **more,
        )

    shard(1)
    (shown,) = [event.message for event in told if event.stage == "note"]
    record = load_study(tmp_path)
    wanted = [record.model.hash, record.model.tokenizer_hash, record.dtype, code()]
    wanted += [split.hash for split in record.tasks["films"].splits.values()]
    assert shown.startswith("shard 1 of 2 on ") and all(each[:12] in shown for each in wanted)
    assert record.versions["code"] == code() and record.mixed == ()
    request.getfixturevalue("other_code")
    refused = f"shard 2 of 2 on .*: it has code {OTHER} instead of {code()}.*--mixed"
    with pytest.raises(StudyError, match=refused):
        shard(2)
    assert load_study(tmp_path) == record and len(load_results(tmp_path).runs) == 1
    for _ in range(2):
        shard(2, mixed=True)
    found = load_results(tmp_path)
    assert len(found.runs) == 2 and found.study.mixed == ({"code": OTHER},)
    assert found.study.versions == record.versions
    assert ("Made beside with", f"code {OTHER}") in facts(found)
    # Each run says what it was made with.
    begun = [json.loads(path.read_text())["versions"] for path in tmp_path.rglob("run.json")]
    assert sorted(each["code"] for each in begun) == sorted([OTHER, code()])


def test_a_call_that_goes_on_with_other_code_is_recorded(tiny, films, tmp_path, caplog, request):
    """It may: a library was updated. One that finds all runs done has made none with it."""

    def call(**more):
        return compare({**STUDY, **more}, out=tmp_path, model=tiny, task=films)

    before = call().study
    request.getfixturevalue("other_code")
    assert call().study == before and "takes part" not in caplog.text
    for _ in range(2):
        found = call(seeds=2)
        assert found.study.mixed == ({"code": OTHER},)
        assert (found.study.versions, found.study.device) == (before.versions, before.device)
    assert ("Made beside with", f"code {OTHER}") in facts(found)
    assert caplog.text.count(f"this process takes part with code {OTHER}") == 1


class Backwards(find_strategy("random")):
    """As other code might: it proposes the same prompts the other way round."""

    def ask(self):
        return super().ask()[::-1]


@pytest.fixture
def dying(monkeypatch):
    """A context in which a run dies at a line of its log."""

    @contextmanager
    def die(at, how):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("promptsearch.study.run.RunLog", lambda folder: DyingLog(folder, at, how))
            yield

    return die


def test_a_run_names_all_code_that_made_lines_of_its_log(
    tiny, films, tmp_path, dying, request, monkeypatch
):
    """Code whose replay is refused made none: the record still names the code to go on with."""

    def call():
        compare({**STUDY, "strategies": ["random"]}, out=tmp_path, model=tiny, task=films)
        return load_begun(path)

    path = tmp_path / "films" / "random" / "seed0" / "run.json"
    with dying(2, "after"):
        call()
    first = load_begun(path)
    assert first.versions["code"] == code() and first.earlier == ()
    request.getfixturevalue("other_code")
    with monkeypatch.context() as patch:
        patch.setattr("promptsearch.study.entries.find_strategy", lambda name: Backwards)
        with pytest.raises(RecordError, match="go on with the code that wrote it"):
            call()
    assert load_begun(path) == first
    last = call()
    assert last.versions["code"] == OTHER and last.earlier == (first.made_with,)


def test_a_run_that_goes_on_from_a_state_names_its_code_before_it_adds_a_line(
    tiny, films, tmp_path, dying, request
):
    rows = [{"prompt_tuning": {"interval": 2, "batch": 4}}]

    def call():
        given = {**STUDY, "budget": 6_000, "strategies": rows}
        compare(given, out=tmp_path, model=tiny, task=films)

    with dying(1, "before"):
        call()
    request.getfixturevalue("other_code")
    with dying(1, "after"):
        call()
    (path,) = tmp_path.rglob("run.json")
    assert load_begun(path).versions["code"] == OTHER


def test_a_call_that_goes_on_on_another_device_is_recorded(tiny, films, tmp_path):
    before = compare(STUDY, out=tmp_path, model=tiny, task=films).study
    path = tmp_path / "study.json"
    told = {**asdict(before), "device": "cuda:0"}
    write_record(path, "study", told)
    after = compare({**STUDY, "seeds": 2}, out=tmp_path, model=tiny, task=films).study
    assert (after.device, after.mixed) == ("cuda:0", ({"device": "cpu"},))
    assert "|device:cuda:0|" in after.signature


def test_a_call_that_goes_on_on_another_machine_is_recorded(tiny, films, tmp_path, caplog):
    """Or with less room for keys and values; how much memory the rest has changes no number."""

    def call(**more):
        return compare({**STUDY, **more}, out=tmp_path, model=tiny, task=films)

    before = asdict(call().study)
    machine = {**before["machine"], "cpu": "First CPU at 2 GHz", "memory_gib": 0.1}
    begun = {**before, "machine": machine, "memory": 2**60}
    write_record(tmp_path / "study.json", "study", begun)
    found = call(seeds=2)
    room = f"{before['memory'] / 2**30:.3g} GiB for keys and values"
    assert found.study.mixed == ({"cpu": before["machine"]["cpu"], "memory": room},)
    assert found.study.machine["cpu"] == "First CPU at 2 GHz"
    told = f"cpu {before['machine']['cpu']}, memory {room}"
    assert ("Made beside with", told) in facts(found) and f"takes part with {told}," in caplog.text


def test_a_limit_in_seconds_goes_on_on_the_same_machine_alone(tiny, films, tmp_path):
    given = {**STUDY, "max_seconds": 1000.0}
    before = asdict(compare(given, out=tmp_path, model=tiny, task=films).study)
    begun = {**before, "machine": {**before["machine"], "cpu": "First CPU at 2 GHz"}}
    write_record(tmp_path / "study.json", "study", begun)
    with pytest.raises(StudyError, match="cpu, on which max_seconds depends, was First CPU at 2"):
        compare({**given, "seeds": 2}, out=tmp_path, model=tiny, task=films)


def test_a_shard_takes_what_another_settled_while_it_loaded(tiny, films, tmp_path, monkeypatch):
    """The last digits depend on threads and memory, and the folder records those of the first."""
    loading, made = studying.prepare, []

    def shard(place, **more):
        compare({**STUDY, **more}, out=tmp_path, model=tiny, task=films, shard=(place, 2))

    def late(*given):
        prepared = loading(*given)
        if not made:
            made.append("the other")
            shard(2, memory="1MB", threads=2)
        made.append((prepared.memory, torch.get_num_threads()))
        return prepared

    monkeypatch.setattr(studying, "prepare", late)
    shard(1)
    assert made[1] == made[-1] == (1_000_000, 2)
    assert len(made) == 4 and made[2] != made[-1] and torch.get_num_threads() == 1
    record = load_study(tmp_path)
    assert (record.memory, record.machine["threads"]) == (1_000_000, 2)


@pytest.fixture
def file(tmp_path):
    """The study with a model and data that workers load."""
    for part in tiny_model("llama"):
        part.save_pretrained(tmp_path / "model")
    words = [(word, place) for word in ("good", "bad") for place in range(9)]
    rows = [{"text": f"a {word} movie {place}", "label": word} for word, place in words]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "name": "films",
        "data": {"path": "rows.jsonl"},
        "template": "{prompt} {text} It was{answer}",
        "label": "label",
        "answers": {"good": " good", "bad": " bad"},
        "splits": {"search": 8, "select": 4, "test": 4},
    }
    study = {**STUDY, "model": "./model", "task": task, "memory": "1MB"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    return tmp_path / "study.yaml"


@pytest.mark.parametrize("shard", [None, (1, 1)])
def test_a_worker_with_other_code_is_refused_or_recorded(file, tmp_path, other_code, shard):
    with pytest.raises(StudyError, match=rf"worker \d+ is not like .* instead of {OTHER}"):
        compare(file, out=tmp_path / "out", workers=1, shard=shard)
    assert not list((tmp_path / "out").rglob("evaluations.jsonl"))
    compare(file, out=tmp_path / "out", workers=1, shard=shard, mixed=True)
    found = load_results(tmp_path / "out")
    assert len(found.runs) == 2 and found.study.versions["code"] == OTHER
    (other,) = found.study.mixed
    assert other == {"code": other["code"]} and other["code"] != OTHER


def test_what_only_one_of_them_tells_is_no_difference():
    assert differing({"torch": "1", "model": "a"}, {"torch": "2", "code": "x"}) == {"torch": "2"}
    assert len(code()) == 12 and versions()["code"] == code()
