"""Files that fail, in every way that a disk has.

What happened is said, what is whole stays, and nothing hangs.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptsearch import files
from promptsearch.errors import FileError, PromptSearchError, RecordError
from promptsearch.files import append, exists, make_folder, read, sweep, write_aside, write_json
from promptsearch.plain.json import DEPTH, parse_json
from promptsearch.records.log import read_log
from promptsearch.records.sealed import read_record, seal, sealed_line, unseal, write_record

#: What the system may say when something is written -> what we say.
SAID = {
    errno.ENOSPC: "no space is left on the disk.*make room",
    errno.EDQUOT: "quota",
    errno.EFBIG: "larger than files may become",
    errno.EACCES: "no right",
    errno.EPERM: "no right",
    errno.EROFS: "can only be read",
    errno.EIO: "the disk reports a fault",
    errno.EMFILE: "too many files are open",
    errno.ENAMETOOLONG: "longer than the disk allows",
    errno.ESTALE: "[Ss]tale",
}


def fails(code):
    """Something that fails as the system does."""

    def fail(*args, **more):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", SAID)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_write_that_fails_is_told_and_the_old_file_is_whole(tmp_path, monkeypatch, code, call):
    path = tmp_path / "a.json"
    write_aside(path, "old")
    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", fails(code))
        else:
            patch.setattr(f"pathlib.Path.{call}", fails(code))
        with pytest.raises(
            FileError, match=rf"cannot write .*a\.json: .*{SAID[code]}.*goes on"
        ) as caught:
            write_aside(path, "new")
    assert "delete" not in str(caught.value) and "safe" in str(caught.value)
    assert caught.value.everywhere == (
        code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE)
    )
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_containers_whose_processes_have_one_number_write_one_file(tmp_path, monkeypatch):
    path, replace = tmp_path / "a.json", Path.replace

    def meanwhile(aside, target):
        monkeypatch.setattr(Path, "replace", replace)
        write_aside(path, "theirs")
        return replace(aside, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    write_aside(path, "ours")
    assert path.read_text() == "ours" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("written", [0, 1, 5])
def test_half_a_line_is_taken_back(tmp_path, monkeypatch, written):
    path = tmp_path / "log"
    append(path, b"whole\n")

    def part(file, content):
        file.write(content[:written])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_all", part)
        with pytest.raises(FileError, match="no space is left"):
            append(path, b"another\n")
    append(path, b"next\n")
    assert path.read_bytes() == b"whole\nnext\n"


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def nowhere(path):
    path.symlink_to("nowhere")


def circle(path):
    path.symlink_to(path)


def endless(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    path.touch()
    os.truncate(path, 10 << 30)


@pytest.mark.parametrize("thing", [pipe, folder, nowhere, circle, endless, sparse])
def test_what_stands_in_place_of_a_record_is_told_at_once(tmp_path, thing):
    path = tmp_path / "result.json"
    thing(path)
    assert exists(path)
    for reading in (lambda: read(path), lambda: read_record(path, "result", "restore it")):
        with pytest.raises(
            FileError, match=r"cannot read .*result\.json: .*Nothing was changed"
        ) as caught:
            reading()
        assert "delete" not in str(caught.value)
    with pytest.raises(PromptSearchError, match=r"result\.json"):
        read_log(path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EPERM])
def test_what_cannot_be_read_is_told_and_not_called_damaged(tmp_path, monkeypatch, code):
    path = tmp_path / "study.json"
    write_record(path, "study", {"a": 1})
    monkeypatch.setattr(os, "open", fails(code))
    with pytest.raises(FileError, match=SAID[code]):
        read_record(path, "study", "delete it")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\ud800"])
def test_names_that_no_file_can_have(tmp_path, name):
    for call in (
        exists,
        read,
        make_folder,
        lambda path: write_aside(path, "x"),
        lambda path: append(path, b"x"),
    ):
        with pytest.raises(
            FileError, match="longer than the disk allows|no file can have such a name"
        ) as caught:
            call(tmp_path / name)
        assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for call in (
        make_folder,
        lambda path: write_aside(path / "a", "x"),
        lambda path: append(path / "b" / "c", b"x"),
    ):
        with pytest.raises(FileError, match="a file stands where a folder should be"):
            call(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine" and not exists(tmp_path / "file" / "a")


def test_what_dead_processes_began_is_swept_and_that_of_living_ones_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        owners = {
            "dead": 2**22 + 1,
            "huge": 10**30,
            "living": other.pid,
            "old": other.pid,
            "own": os.getpid(),
            "no": "x",
        }
        parts = {
            name: tmp_path / "run" / f".{name}.json.ab.{owner}.part"
            for name, owner in owners.items()
        }
        (tmp_path / "run").mkdir()
        for path in parts.values():
            path.write_text("half")
        os.utime(parts["old"], (0, 0))
        sweep(tmp_path)
        assert {name for name, path in parts.items() if path.exists()} == {"living", "no"}
        other.communicate(b"\n")


def test_half_characters_are_written_as_json_escapes_them(tmp_path):
    write_record(tmp_path / "a.json", "run", {"text": "\ud800é"})
    assert read_record(tmp_path / "a.json", "run", "") == {"text": "\ud800é"}


# JSON within limits.


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "nested deeper"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "too large"),
        (f'{{"a": 1{"0" * 30}}}', "64 bits"),
        (f'{{"a": 1{"0" * 5_000}}}', "64 bits"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands there twice"),
        (b"\xff\xfe", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("", "Expecting value"),
    ],
)
def test_json_beyond_its_limits_is_refused(content, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_json(content)


def test_json_within_its_limits_is_read():
    text = '{"a": [1, -9223372036854775808, 0.5, null, true, "\\ud800"]}'
    assert parse_json(text) == json.loads(text)
    assert parse_json("[" * DEPTH + "]" * DEPTH)


# Checksums.


def test_a_record_comes_back_as_it_was_written_and_may_be_indented_anew(tmp_path):
    data = {"a": (1, 2.5, 1e-7), "é": {"b": None}, 3: "x"}
    write_record(tmp_path / "a.json", "run", data)
    expected = {"a": [1, 2.5, 1e-7], "é": {"b": None}, "3": "x"}
    assert read_record(tmp_path / "a.json", "run", "") == expected
    found = json.loads((tmp_path / "a.json").read_text())
    assert (
        list(found)[0] == "format"
        and list(found)[-1] == "checksum"
        and len(found["checksum"]) == 16
    )
    (tmp_path / "a.json").write_text(json.dumps(found, indent=4))
    assert read_record(tmp_path / "a.json", "run", "") == expected
    assert unseal(parse_json(sealed_line({"n": 0, "x": "é\n"}))) == {"n": 0, "x": "é\n"}


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(RecordError, match="not finite: it was not written"):
        write_record(tmp_path / "a.json", "run", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"a": 1}, "written by another version of promptsearch .*'promptsearch-run-1'.*--out"),
        (seal({"format": "promptsearch-run-2", "a": 1}), "another version .*'promptsearch-run-2'"),
        (
            {"format": "promptsearch-run-1", "a": 1},
            r"is damaged \(its checksum is missing\): do this",
        ),
        (
            seal({"format": "promptsearch-run-1", "a": 1}) | {"a": 2},
            r"is damaged \(its checksum says that it was changed\)",
        ),
        (
            seal({"format": "promptsearch-run-1", "a": 1}) | {"format": "promptsearch-rum-1"},
            "is damaged",
        ),
        (None, "expected a JSON object, got NoneType"),
        ([1], "expected a JSON object, got list"),
    ],
)
def test_other_versions_and_damage_are_told_apart(tmp_path, content, complaint):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=complaint):
        read_record(tmp_path / "a.json", "run", "do this")


def test_a_list_of_plain_values_is_one_line_and_an_object_in_a_list_has_its_own(tmp_path):
    data = {"a": [1.5, None, "é\n"], "b": [[1, 2], [3, 4]], "c": [{"d": []}, {}], "e": {}}
    write_json(tmp_path / "a.json", data)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == data
    assert text == (
        '{\n "a": [1.5, null, "é\\n"],\n "b": [[1, 2], [3, 4]],\n "c": [\n  {\n   "d": []\n  },\n'
        '  {}\n ],\n "e": {}\n}\n'
    )
