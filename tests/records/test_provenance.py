"""Where the library's code came from."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from promptsearch.records import provenance


@pytest.fixture
def installed(monkeypatch):
    """Call it with what pip notes of an installation; None for one from an index."""

    def install(told):
        text = None if told is None else json.dumps(told)
        monkeypatch.setattr(
            provenance, "distribution", lambda name: SimpleNamespace(read_text=lambda path: text)
        )

    return install


def test_the_commit_is_that_of_the_checkout(installed, tmp_path):
    def git(*words):
        told = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(told, capture_output=True, check=True, text=True).stdout.strip()

    installed({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert provenance.commit() is None
    git("init")
    git("commit", "--allow-empty", "--message", "first")
    assert provenance.commit() == git("rev-parse", "HEAD")
    installed({"url": tmp_path.as_uri(), "dir_info": {}})
    assert provenance.commit() is None, "the checkout may have gone on since it was copied"


def test_the_commit_of_a_repository_that_pip_read_is_what_pip_noted(installed):
    installed({"url": "https://host/x", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}})
    assert provenance.commit() == "a" * 40
    installed(None)
    assert provenance.commit() is None
