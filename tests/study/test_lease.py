"""Leases: one holder at a time, on one machine or many."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from promptsearch.errors import FileError
from promptsearch.study.execution.lease import DEAD, LEASES, Lease, elsewhere, held


def test_one_of_many_threads_holds_a_lease_at_a_time(tmp_path):
    inside, most, made = [], [], []

    def work(number):
        for _ in range(5):
            with held(tmp_path, "task/label/seed0", patience=60) as other:
                assert other is None
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(number)
                made.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert max(most) == 1 and len(made) == 20


def test_a_held_lease_names_its_holder_and_others_are_free(tmp_path):
    with held(tmp_path, "a/b/seed1") as mine, held(tmp_path, "a/b/seed1") as other:
        assert mine is None and other is not None
        assert other.process == os.getpid() and str(other).startswith(f"process {os.getpid()} on ")
        with held(tmp_path, "a/b/seed10") as free:
            assert free is None
    with held(tmp_path, "a/b/seed1") as again:
        assert again is None


def test_what_a_killed_process_held_is_free_at_once(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from promptsearch.study.execution.lease import Lease
        assert Lease(Path(sys.argv[1]), "x").take() is None
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    assert subprocess.run(command).returncode == -9
    assert len(list(tmp_path.glob("x.*.lease"))) == 1
    assert Lease(tmp_path, "x").take() is None


def test_another_machine_holds_a_lease_as_long_as_it_shows_life(tmp_path):
    lease = Lease(tmp_path / LEASES, "x")
    assert lease.take() is None
    (path,) = (tmp_path / LEASES).glob("*.lease")
    told = json.loads(path.read_text())
    lease.release()
    theirs = path.with_name(f"x.{'0' * 32}.lease")
    theirs.write_text(json.dumps({**told, "place": "another", "machine": "far\x1b\naway"}))
    holder = lease.take()
    assert holder is not None and holder.machine == "far\\x1b away"
    assert elsewhere(tmp_path)
    old = time.time() - DEAD - 5
    os.utime(theirs, (old, old))
    assert not elsewhere(tmp_path)
    assert lease.take() is None
    assert not theirs.exists()


def test_a_process_number_that_another_process_has_now_holds_nothing(tmp_path):
    lease = Lease(tmp_path, "x")
    assert lease.take() is None
    (path,) = tmp_path.glob("*.lease")
    told = json.loads(path.read_text())
    lease.release()
    path.write_text(json.dumps({**told, "begun": told["begun"] - 60}))
    assert Lease(tmp_path, "x").take() is None


def test_a_file_that_says_nothing_holds_nothing(tmp_path):
    for content in ("", "{", "[]", '{"process": "a"}', '{"process": 1e999}'):
        (tmp_path / f"x.{'1' * 32}.lease").write_text(content)
        lease = Lease(tmp_path, "x")
        assert lease.take() is None
        lease.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_holder_whose_file_cannot_be_read_is_not_robbed(tmp_path, monkeypatch, number):
    holder = Lease(tmp_path, "x")
    assert holder.take() is None
    (path,) = tmp_path.glob("x.*.lease")
    opening = os.open

    def faulty(file, *given, **more):
        if str(file).endswith(".lease"):
            raise OSError(number, os.strerror(number))
        return opening(file, *given, **more)

    monkeypatch.setattr(os, "open", faulty)
    for look in (Lease(tmp_path, "x").take, Lease(tmp_path, "x").holder):
        with pytest.raises(FileError, match=rf"cannot read .*{path.name}"):
            look()
    assert path.exists()
    monkeypatch.undo()
    assert Lease(tmp_path, "x").take() is not None
    holder.release()


def test_a_lease_that_goes_while_it_is_read_is_free(tmp_path, monkeypatch):
    """Of a file that another machine deletes, a network file system says that it is stale."""
    path = tmp_path / f"x.{'1' * 32}.lease"
    path.write_text("{}")
    opening = os.open

    def late(file, *given, **more):
        if str(file).endswith(".lease"):
            path.unlink()
            raise OSError(errno.ESTALE, "stale")
        return opening(file, *given, **more)

    monkeypatch.setattr(os, "open", late)
    assert Lease(tmp_path, "x").holder() is None and not path.exists()


def test_leases_that_cannot_be_listed_are_no_free_ones(tmp_path, monkeypatch):
    def refuse(*given):
        raise PermissionError(errno.EACCES, "no right")

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FileError, match="cannot read"):
        Lease(tmp_path, "x").holder()


def test_a_holder_lives_though_the_clock_was_set(tmp_path, monkeypatch):
    assert Lease(tmp_path, "x").take() is None
    began, booted = psutil.Process.create_time, psutil.boot_time
    # Both come from the same clock: a system counts from its start.
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: began(process) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 3600)
    assert Lease(tmp_path, "x").take() is not None


def test_works_with_long_names_have_leases_of_their_own(tmp_path):
    names = [f"{'t' * 100}/{'+' * 99}{end}/seed{seed}" for end in "ab" for seed in (0, 1)]
    leases = [Lease(tmp_path, name) for name in names]
    assert [lease.take() for lease in leases] == [None] * 4
    assert all(Lease(tmp_path, name).take() is not None for name in names)
