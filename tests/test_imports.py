"""The house: a room imports only rooms below it, and no file or class outgrows a reader.

The import law is checked on what is installed, where strategies lie inside the package.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
#: What breaks each contract: a file of the package, and a line that must not stand there.
BREAKS = {
    "A room imports only rooms below it": ("models/device.py", "import promptsearch.tasks.task"),
    "No circle": ("prompts/space.py", "import promptsearch.prompts.strange"),
    "No strategy imports a strategy": (
        "strategies/random.py",
        "import promptsearch.strategies.gcg",
    ),
    "Nothing in promptsearch imports a strategy": (
        "search/loop.py",
        "import promptsearch.strategies.random",
    ),
    "Only models and testing import transformers": ("export/text.py", "import transformers"),
}


def lint(site: Path) -> dict[str, bool]:
    """Contract -> whether it is kept."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    found = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    said = {
        name: f"{name} KEPT" in found.stdout
        for name in (contract["name"] for contract in CONTRACTS)
    }
    assert all(
        f"{name} KEPT" in found.stdout or f"{name} BROKEN" in found.stdout for name in said
    ), found.stdout + found.stderr
    return said


@pytest.fixture
def site(wheel: Path, tmp_path: Path) -> Path:
    """A folder with the package as it is installed."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept(site: Path) -> None:
    assert all(lint(site).values())


def test_every_contract_can_be_broken(site: Path) -> None:
    package = site / "promptsearch"
    (package / "prompts" / "strange.py").write_text("import promptsearch.prompts.space\n")
    for place, line in BREAKS.values():
        path = package / place
        path.write_text((path.read_text("utf-8") if path.exists() else "") + f"\n{line}\n", "utf-8")
    assert not any(lint(site).values())
    assert BREAKS.keys() == {contract["name"] for contract in CONTRACTS}


def test_few_files_stand_loose() -> None:
    loose = {path.name for path in (ROOT / "promptsearch").glob("*.py")}
    assert len(loose) <= 10, sorted(loose)


def code() -> list[Path]:
    files = [
        path for room in ("promptsearch", "strategies") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 200
    return files


def test_no_file_or_class_outgrows_a_reader() -> None:
    texts = {path: path.read_text("utf-8") for path in code()}
    lines = {path.name: text.count("\n") for path, text in texts.items()}
    classes = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in lines.items() if count > 350} == {}
    assert {name: count for name, count in classes.items() if count > 300} == {}


def test_no_line_is_wider_than_a_page() -> None:
    """Ruff does not count a comment to it or to mypy at the end of a line."""
    files = [path for room in (".", "*") for path in ROOT.glob(f"{room}/*.py")]
    for room in ("promptsearch", "tests"):
        files += (ROOT / room).rglob("*.py")
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in {*files}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if len(line) > 100
    ]
    assert wide == []


def test_docstrings_name_the_thing_before_they_say_of_what() -> None:
    bare = re.compile(r'^\s*("""|#: |\w+: )?Of ')
    found = [
        f"{path.name}:{number}"
        for path in code()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if bare.match(line)
    ]
    assert found == []
