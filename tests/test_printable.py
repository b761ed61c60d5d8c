"""What files and strangers say reaches a terminal as text.

No control character, no markup, no turned direction.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from typer.testing import CliRunner

from promptsearch.cli import app
from promptsearch.errors import StudyError
from promptsearch.printable import Terminal, brief, printable, printable_json
from promptsearch.report.progress import Display

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\x7fe\u202ef\x00g\rh\ud800"


def hidden(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c != "\n"]


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_but_what_can_be_seen_is_left_and_what_could_be_seen_stays(text: str) -> None:
    assert not hidden(printable(text))
    if not hidden(text):
        assert printable(text) == text


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=[])) | st.integers() | st.booleans(), st.lists
    )
)
def test_json_means_the_same_and_can_be_looked_at(value: object) -> None:
    assert json.loads(printable_json(value)) == value and not hidden(printable_json(value))


def test_json_holds_no_number_that_json_does_not_know() -> None:
    row = {"a": float("nan"), "b": [np.int64(3), np.float32(0.5), np.bool_(True)], "c": (np.inf,)}
    assert printable_json(row, default=str) == '{"a": null, "b": [3, 0.5, true], "c": [null]}'


def test_a_long_or_large_value_is_cut() -> None:
    assert brief("x" * 1_000).endswith("...") and len(brief("x" * 1_000)) == 80
    assert brief(10**5_000) == "a number of more than 80 digits"
    assert brief("a\nb") == "'a\\nb'" and brief(5) == "5"


def test_a_terminal_shows_its_own_colours_and_nobody_elses() -> None:
    out = io.StringIO()
    terminal = Terminal(
        file=out, force_terminal=True, color_system="standard", width=200, markup=False
    )
    table = Table("name")
    table.add_row(HOSTILE)
    terminal.print(HOSTILE, table, style="red")
    shown = out.getvalue()
    assert "\x1b[31m" in shown and "a\\x1b[31mb" in shown.replace("\x1b[0m", "")
    for part in ("\x1b]0;", "\x07", "\x9b", "\x7f", "\u202e", "\x00", "\r", "\ud800"):
        assert part not in shown


def test_progress_and_log_lines_show_no_markup_and_no_control_characters() -> None:
    from promptsearch.study.events import Progress

    out = io.StringIO()
    with Display(Terminal(file=out, width=200)) as display:
        display(Progress("task/[red]label[/red]/seed0", 1, 1, "failed", message=f"[bold]{HOSTILE}"))
    assert (
        "[red]label[/red]" in out.getvalue()
        and "[bold]a\\x1b" in out.getvalue()
        and not hidden(out.getvalue())
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", f"{HOSTILE[:8]}.yaml"],
        ["compare", "study.yaml"],
        ["compare", "study.yaml", "--set", "\x1b[31m=5"],
        ["search", "random", "--study", "study.yaml", "-o", "\x1b[31m=5"],
        ["search", "\x1b[31m", "--task", "capitals"],
        ["report", "\x1b[31m"],
        ["apply", "\x1b[31m", "--input", "-"],
        ["verify", "\x1b[31m"],
        ["export", "\x1b[31m", "--to", "json", "--out", "o"],
        ["strategies", "\x1b[31m"],
        ["tasks", "\x1b[31m"],
        ["bench-strategies", "\u202e"],
    ],
)
def test_messages_show_no_control_characters(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text('model: m\n"bad\\e[31mkey": 5\n')
    Path("rows.jsonl").write_text("{}\n")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "error: " in done.stderr and not hidden(done.output)
    assert "\\x1b" in done.stderr or "\\u202e" in done.stderr


def commanded(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell runs in a folder; there `promptsearch` is the command line."""
    command = command.replace("promptsearch", f"{shlex.quote(sys.executable)} -m promptsearch")
    environment = {**os.environ, **variables}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_what_a_terminal_cannot_show_is_escaped(encoding: str, tmp_path: Path) -> None:
    labels = ("sch\u00f6n", "\U0001f600")
    rows = "".join(f"film {i},{labels[i % 2]}\n" for i in range(60))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}", "utf-8")
    done = commanded("promptsearch init films.csv", tmp_path, PYTHONIOENCODING=encoding)
    told = "'label' has 2 values: sch\u00f6n, '\\ud83d\\ude00'"
    assert done.returncode == 0 and told in done.stdout.decode(encoding), done


def test_closed_streams_lead_nowhere(tmp_path: Path) -> None:
    done = commanded("promptsearch tasks >&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert commanded("promptsearch tasks none >&- 2>&-", tmp_path).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [["compare", "s.yaml", "--\x1b[31m"], ["apply", "x", "--input", "\x1b[31m"], ["\x1b[31m"]],
)
def test_nor_do_those_of_the_command_line_itself(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "\\x1b" in done.stderr and not hidden(done.output)


def test_results_of_strangers_show_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    import promptsearch.export

    def broken(*_: object, **__: object) -> None:
        # Whole characters only: pytest's workers cannot send a half one of a captured log.
        logging.getLogger("promptsearch").warning(
            "log %s", HOSTILE.encode(errors="ignore").decode()
        )
        raise StudyError(f"in [red]{HOSTILE}")

    monkeypatch.setattr(promptsearch.export, "verify", broken)
    done = CliRunner().invoke(app, ["verify", "x"])
    assert "in [red]a\\x1b[31mb" in done.stderr and not hidden(done.output)
