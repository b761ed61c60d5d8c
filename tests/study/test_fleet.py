"""What other machines are told of a study, and when they are refused."""

from __future__ import annotations

import importlib.util

import pytest

from promptsearch import compare
from promptsearch.errors import StudyError
from promptsearch.study.config import parse_config
from promptsearch.study.execution.fleet import check_fleet, shown_by
from promptsearch.study.execution.mirror import apply
from promptsearch.study.execution.portable import portable
from promptsearch.study.execution.wire import Order
from promptsearch.study.prepare import prepare


def test_a_study_is_the_same_on_a_machine_without_its_folder_and_a_mixed_fleet_is_refused(
    study, home, tmp_path
):
    (home / "words.txt").write_text("good\nmovie\nthe\n")
    data = {"path": f"../{home.name}/rows.jsonl"}
    here = study(pool={"file": "words.txt"}, task={**task(study()), "data": data}, seeds=1)
    shown = shown_by(prepare(here))
    told, files = portable(here)
    apply(files, tmp_path)
    there = prepare(parse_config(told, folder=tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["rows.jsonl", "words.txt"]
    assert there.lm.name == str(home / "model")

    def order(mixed=False, **changes):
        return Order({}, "", "", 1, 1, [], shown={**shown, **changes}, mixed=mixed)

    assert f"model {shown['model']}, tokenizer " in check_fleet(there, order())
    with pytest.raises(StudyError, match=r"torch is .* there, and 1\.0 here\. .*'mixed: true'"):
        check_fleet(there, order(torch="1.0"))
    check_fleet(there, order(mixed=True, torch="1.0", processor="another", code="0"))
    for key in ("model", "tokenizer", "data", "dtype"):
        with pytest.raises(StudyError, match=rf"{key} is .*; give all machines the same$"):
            check_fleet(there, order(mixed=True, **{key: "0"}))


def task(config):
    return config.model_dump()["tasks"][0]


def test_where_runs_are_made_is_no_setting_of_the_study(study):
    where = {"ray": {"address": "head:6379", "num_gpus": 0.5, "resources": {"a": 1}}}
    assert "execution" not in study(execution=where).model_dump()
    assert study(execution=where).execution.ray.num_gpus == 0.5
    with pytest.raises(StudyError, match=r"ray:// is made on a machine of the cluster"):
        study(execution={"ray": {"address": "ray://head:10001"}})


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(study, tmp_path):
    with pytest.raises(StudyError, match=r"install it as 'promptsearch-kit\[ray\]'"):
        compare(study(), out=tmp_path, ray="local")
