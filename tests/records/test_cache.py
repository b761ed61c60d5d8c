"""The cache of scores: what it holds is what was put there.

Where it cannot be used, the study goes on without it.
"""

import json
import os
import sqlite3
from contextlib import closing

import pytest

from promptsearch import compare
from promptsearch.records.cache import ScoreCache

SCORES = {"losses": [[0.5]], "metric": [[1.0]], "choices": None, "failures": {}, "computed": 3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "scores.sqlite"


def put(path, name="a", scores=SCORES):
    cache = ScoreCache(path)
    cache.put(name, scores)
    cache.close()


def get(path, name="a"):
    cache = ScoreCache(path)
    try:
        return cache.get(name)
    finally:
        cache.close()


def change(path, content):
    database = sqlite3.connect(path)
    with database:
        database.execute("update scores set content = ?", (content,))
    database.close()


def test_what_was_put_is_got_and_stays(path, caplog):
    put(path)
    put(path, scores=SCORES | {"computed": 4})
    assert get(path) == SCORES and get(path, "b") is None and not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "null",
        "[]",
        "{}",
        json.dumps(SCORES),
        "[" * 100_000,
        b"\xff",
        7,
        '{"losses": NaN}',
        '{"checksum": "0"}',
    ],
)
def test_a_damaged_entry_is_made_anew(path, content):
    put(path)
    change(path, content)
    assert get(path) is None
    put(path)
    assert get(path) == SCORES


def test_one_digit_or_another_call_is_damage(path):
    put(path)
    content = sqlite3.connect(path).execute("select content from scores").fetchone()[0]
    for other in (content.replace("0.5", "0.4"), content.replace('"a"', '"b"')):
        assert other != content
        change(path, other)
        assert get(path) is None
        put(path)


def no_database(path):
    path.parent.mkdir()
    path.write_text("not a database, but long enough to be read as the head of one " * 4)


def file_above(path):
    path.parent.write_text("")


def folder(path):
    path.mkdir(parents=True)


def pipe(path):
    path.parent.mkdir()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [no_database, file_above, folder, pipe])
def test_a_file_that_is_no_cache_is_told_once_and_not_used(path, damage, caplog):
    damage(path)
    cache = ScoreCache(path)
    cache.put("a", SCORES)
    assert cache.get("a") is None
    assert (
        caplog.text.count("are not used") == 1
        and "no number changes" in caplog.text
        and "delete" not in caplog.text
    )
    cache.close()


def test_a_file_that_fails_later_is_told_once_and_not_used(path, caplog):
    put(path)
    cache = ScoreCache(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("drop table scores")
    assert cache.get("a") is None
    cache.put("a", SCORES)
    assert caplog.text.count("are not used") == 1
    cache.close()


def test_a_lock_held_is_no_damage(path, caplog, monkeypatch):
    put(path)
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, timeout, **more: connect(path, timeout=0.01, **more)
    )
    holder = connect(path, isolation_level=None)
    holder.execute("begin exclusive")
    cache = ScoreCache(path)
    cache.put("b", SCORES)
    assert "locked" in caplog.text and "delete" not in caplog.text
    cache.close()
    holder.execute("rollback")
    assert get(path) == SCORES


def test_a_full_disk_is_no_damage(path, caplog):
    cache = ScoreCache(path)
    cache._db.execute("pragma max_page_count = 3")
    for number in range(100):
        cache.put(str(number), {**SCORES, "losses": [[0.123456] * 500]})
    assert (
        "full" in caplog.text
        and caplog.text.count("are not used") == 1
        and "delete" not in caplog.text
    )


def test_a_study_gets_its_numbers_without_a_cache(tiny, films, tmp_path, monkeypatch):
    def found(name):
        monkeypatch.setattr(
            "promptsearch.study.study.cache_folder", lambda: tmp_path / f"cache of {name}"
        )
        study = {
            "name": "s",
            "budget": 5_000,
            "length": 2,
            "score_on": 8,
            "seeds": 1,
            "strategies": ["random"],
        }
        (run,) = compare(study, out=tmp_path / name, model=tiny, task=films).runs
        return run.test, run.curve, run.spent

    whole = found("whole")
    (tmp_path / "cache of damaged").mkdir()
    (tmp_path / "cache of damaged" / "scores.sqlite").write_bytes(
        b"SQLite format 3\0" + b"?" * 5_000
    )
    assert found("damaged") == whole
