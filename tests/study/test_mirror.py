"""A run's folder seen by another machine: at any moment what a kill could have left."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import RecordError
from promptsearch.files import append, cut, remove, write_aside
from promptsearch.study.execution.mirror import Change, Mirror, apply, contents

ROUNDS = 40


def write(folder):
    """What a run writes, in its order: a proposal before the evaluation that it led to."""
    for number in range(ROUNDS):
        append(folder / "proposals.jsonl", f"{number}\n".encode())
        append(folder / "evaluations.jsonl", f"{number}".encode() + b"." * 3000 + b"\n")
        write_aside(folder / "state.safetensors", f"{number}" * 100)
    for name in ("prompt.json", "numbers.safetensors"):
        write_aside(folder / "best" / name, name)
    write_aside(folder / "result.json", "done")
    remove(folder / "state.safetensors")


def lines(path):
    content = path.read_bytes() if path.exists() else b""
    assert content == b"" or content.endswith(b"\n")
    return [int(line.partition(b".")[0]) for line in content.splitlines()]


def test_a_copy_is_at_any_moment_what_a_kill_could_have_left(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    writer = threading.Thread(target=write, args=(here,))
    mirror, looks, grown = Mirror(here), 0, 0
    writer.start()
    while True:
        last = not writer.is_alive()
        changes = mirror.changes()
        looks += bool(changes)
        for change in changes:
            grown += change.after > 0
            apply([change], there)  # and here the study's own process may be killed
            evaluations = lines(there / "evaluations.jsonl")
            assert evaluations == list(range(len(evaluations)))
            assert len(evaluations) <= len(lines(there / "proposals.jsonl"))
            if (there / "result.json").exists():
                assert len(evaluations) == ROUNDS
                assert (there / "best" / "numbers.safetensors").exists()
        if last:
            break
    assert looks > 3 and grown > 3
    assert contents(there) == contents(here)
    assert not (there / "state.safetensors").exists()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["", "a\n", "bb\nccc\n"]), st.booleans()),
        st.tuples(st.just("replace"), st.sampled_from(["x", "yy"]), st.sampled_from(["f", "g/f"])),
        st.tuples(st.just("remove"), st.just(""), st.sampled_from(["f", "g/f", "log.jsonl"])),
        st.tuples(st.just("look"), st.just(""), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS)
def test_a_copy_holds_what_its_folder_holds_but_for_half_a_line(operations, tmp_path_factory):
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    mirror, log, half = Mirror(here), here / "log.jsonl", 0
    for kind, text, more in [*operations, ("look", "", False)]:
        if kind == "append":
            if half:  # a log whose process was killed is cut before it grows
                cut(log, log.stat().st_size - half)
            half = 4 if more else 0
            append(log, text.encode() + b"half"[:half])
        elif kind == "replace":
            write_aside(here / more, text)
        elif kind == "remove":
            remove(here / more)
            half = 0 if more == "log.jsonl" else half
        else:
            changes = mirror.changes()
            for change in changes:
                assert isinstance(change.content, bytes | None)
            apply(changes, there)
            assert mirror.changes() == []
    expected = {
        path.relative_to(here): path.read_bytes() for path in here.rglob("*") if path.is_file()
    }
    if half:
        expected[log.relative_to(here)] = log.read_bytes()[:-half]
    found = {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()}
    assert found == expected


def test_a_large_checkpoint_stays_behind_and_its_end_is_told(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_aside(here / "state.safetensors", "12345")
    mirror = Mirror(here, largest=4)
    assert mirror.changes() == []
    apply(contents(here), there)
    remove(here / "state.safetensors")
    apply(mirror.changes(), there)
    assert not (there / "state.safetensors").exists()


def test_what_does_not_fit_a_copy_is_refused(tmp_path):
    append(tmp_path / "log.jsonl", b"a\n")
    with pytest.raises(RecordError, match=r"has 2 bytes, and had 4 when it was last written"):
        apply([Change("log.jsonl", b"b\n", 4)], tmp_path)
    for path in ("../out", "/out"):
        with pytest.raises(RecordError, match="outside its run's folder"):
            apply([Change(path, b"")], tmp_path / "inside")
