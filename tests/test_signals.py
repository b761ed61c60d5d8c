"""Ctrl-C, SIGTERM and SIGHUP, once and twice, on real processes.

And a study in a library's hands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from promptsearch import compare
from promptsearch.report import load_results

STOPPED = "stopped. Nothing is lost: the same command goes on from here.\n"
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]

#: Commands beside the real ones: one waits, one takes long over its end, as a report may, one turns
#: the signal into an error.
COMMANDS = """
    import sys, time
    from promptsearch import cli, __main__
    from promptsearch.errors import ModelError

    def ready():
        print("ready", flush=True)
        time.sleep(30)

    @cli.app.command()
    def wait():
        ready()

    @cli.app.command()
    def slow():
        try:
            ready()
        finally:
            ready()

    @cli.app.command()
    def turned():
        try:
            ready()
        except BaseException as error:
            raise ModelError("a library broke in the middle") from error

    __main__.main()
"""


def defaults() -> None:
    """Handle signals as in a terminal: a shell ignores some of them in the background."""
    for number, _ in CODES:
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: str, before: Callable[[], object] = defaults) -> subprocess.Popen[str]:
    code = [sys.executable, "-c", textwrap.dedent(COMMANDS), *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(code, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("command", ["wait", "turned"])
@pytest.mark.parametrize(("number", "code"), CODES)
def test_every_signal_ends_in_one_line_and_128_and_its_number(
    command: str, number: signal.Signals, code: int
) -> None:
    process = start(command)
    process.send_signal(number)
    assert (process.communicate(timeout=20), process.returncode) == (("", STOPPED), code)


@pytest.mark.parametrize(("second", "code"), CODES)
def test_a_second_signal_ends_at_once_and_says_nothing(second: signal.Signals, code: int) -> None:
    process = start("slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(second)
    assert (process.communicate(timeout=20), process.returncode) == (
        ("", ""),
        130,
    )  # of the first one


def test_a_signal_that_is_ignored_from_outside_stays_so() -> None:
    process = start("wait", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=20)[1], process.returncode) == (STOPPED, 143)


def test_a_signal_while_the_command_line_is_imported_is_quiet() -> None:
    code = """
        import os, signal, sys

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "promptsearch.cli":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Finder())
        from promptsearch.__main__ import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=defaults,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", STOPPED, 130)


def test_a_study_that_is_stopped_is_reported_and_goes_on(  # type: ignore[no-untyped-def]
    tiny, films, tmp_path: Path
) -> None:
    before = [signal.getsignal(number) for number, _ in CODES]
    study = {
        "budget": 9_000,
        "length": 2,
        "score_on": 8,
        "seeds": 2,
        "strategies": ["manual", "random"],
    }

    page, refresh = tmp_path / "report.html", 'http-equiv="refresh"'

    def stop(progress: object) -> None:
        if getattr(progress, "number", 0) == 2 and getattr(progress, "stage", "") == "search":
            assert refresh in page.read_text("utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(study, out=tmp_path, model=tiny, task=films, progress=stop)
    assert [signal.getsignal(number) for number, _ in CODES] == before
    assert "not made yet" in (tmp_path / "report.md").read_text(
        "utf-8"
    ) and refresh not in page.read_text("utf-8")
    assert len(load_results(tmp_path).runs) == 1
    assert len(compare(study, out=tmp_path, model=tiny, task=films).runs) == 3


@pytest.mark.parametrize(
    "arguments", [["tasks"], ["schema"], ["strategies"], ["strategies", "random"]]
)
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        code = [sys.executable, "-m", "promptsearch", *arguments]
        done = subprocess.run(code, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", 141)


def test_a_module_beside_the_results_is_not_taken_for_a_library(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("print('mine')")
    code = [sys.executable, "-m", "promptsearch", "--version"]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "mine" not in done.stdout
    assert json.dumps(done.stderr) == '""'
