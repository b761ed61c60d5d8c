"""What other machines are told of a study, and what a study file may say of them."""

from __future__ import annotations

import importlib.util

import pytest

from promptsearch import compare
from promptsearch.errors import StudyError
from promptsearch.study.config import parse_config
from promptsearch.study.execution.fleet import shown_by
from promptsearch.study.execution.mirror import apply
from promptsearch.study.execution.portable import portable
from promptsearch.study.prepare import prepare


def test_a_study_is_the_same_on_a_machine_without_its_folder(study, home, tmp_path):
    (home / "words.txt").write_text("good\nmovie\nthe\n")
    data = {"path": f"../{home.name}/rows.jsonl"}
    here = study(pool={"file": "words.txt"}, task={**task(study()), "data": data}, seeds=1)
    shown = shown_by(prepare(here))
    told, files = portable(here)
    apply(files, tmp_path)
    there = prepare(parse_config(told, folder=tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["rows.jsonl", "words.txt"]
    assert there.lm.name == str(home / "model")
    assert shown_by(there) == shown


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
