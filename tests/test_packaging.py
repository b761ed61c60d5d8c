"""What is installed: every folder, strategy and data file; and the repository's own files."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
POINTS = PROJECT["project"]["entry-points"]["promptsearch.strategies"]
STRATEGY_FILES = sorted(
    path.stem for path in (ROOT / "strategies").glob("*.py") if path.stem != "__init__"
)


def test_every_folder_is_in_the_list_of_packages() -> None:
    """A forgotten one does no harm in a checkout, and is missing once installed."""
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "promptsearch").rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | {"promptsearch.strategies"}


def test_every_strategy_file_has_an_entry_point() -> None:
    """By its own name; a variant of its method may have another one, which goes on from it."""
    assert set(STRATEGY_FILES) <= set(POINTS)
    for name, value in POINTS.items():
        package, _, file = value.partition(":")[0].rpartition(".")
        assert package == "promptsearch.strategies" and file in STRATEGY_FILES
        assert name == file or (name not in STRATEGY_FILES and name.startswith(f"{file}_"))


def test_the_installed_entry_points_are_those_of_the_project() -> None:
    """A new line is only seen after `pip install -e .`; say so here and not in a strange place."""
    for group, points in PROJECT["project"]["entry-points"].items():
        installed = {
            point.name: point.value
            for point in entry_points(group=group)
            if point.dist is not None and point.dist.name == "promptsearch-kit"
        }
        assert installed == points


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_strategy_imports_the_core_only_and_is_documented(name: str) -> None:
    place, _, found = POINTS[name].partition(":")
    source = (ROOT / "strategies" / f"{place.rpartition('.')[2]}.py").read_text("utf-8")
    assert (
        re.findall(r"^\s*(?:from|import) (?:promptsearch\.)?strategies\b", source, re.MULTILINE)
        == []
    )
    strategy = getattr(importlib.import_module(place), found)
    documented = inspect.getdoc(strategy) or ""
    for parameter in inspect.signature(strategy).parameters.values():
        if parameter.name not in ("objective", "seed"):
            assert f"{parameter.name}: " in documented


def test_the_command_is_installed() -> None:
    (point,) = entry_points(group="console_scripts", name="promptsearch")
    assert point.value == "promptsearch.__main__:main"


def test_the_constraints_pin_what_is_installed_and_torch_exactly() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    pins = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    assert all(re.fullmatch(r"==[^*,]+", str(r.specifier)) for r in pins.values())
    assert str(pins["torch"]) == "torch==2.13.0"
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(r for extra in PROJECT["project"]["optional-dependencies"].values() for r in extra),
    ]
    for requirement in map(Requirement, wanted):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(str(pin.specifier).removeprefix("=="))


def test_what_is_imported_is_declared() -> None:
    declared = {canonicalize_name(Requirement(r).name) for r in PROJECT["project"]["dependencies"]}
    extras = {
        canonicalize_name(Requirement(r).name)
        for extra in (
            *("peft", "metrics", "quantised", "ray"),
            *("mlflow", "tensorboard", "trackio", "wandb"),
        )
        for r in PROJECT["project"]["optional-dependencies"][extra]
    }
    names = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
    imported: dict[str, Path] = {}
    for folder in ("promptsearch", "strategies"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    imported.update({alias.name.partition(".")[0]: path for alias in node.names})
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported[node.module.partition(".")[0]] = path
    strangers = {
        canonicalize_name(names.get(n, n)): p
        for n, p in imported.items()
        if n not in sys.stdlib_module_names
    }
    strangers = {
        n: p
        for n, p in strangers.items()
        if n not in declared | extras | {"promptsearch", "pydantic-core"}
    }
    assert {
        n: p
        for n, p in strangers.items()
        if not (n in ("pytest", "tokenizers") and "testing" in p.parts)
    } == {}


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
    assert distribution("promptsearch-kit").metadata["License-Expression"] == "Apache-2.0"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text("utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("\nmake test")
    assert "make test" in (ROOT / "README.md").read_text("utf-8")


def test_the_wheel_holds_every_file_that_is_needed(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "promptsearch").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in held
    for path in (ROOT / "strategies").iterdir():
        if path.is_file():
            assert f"promptsearch/strategies/{path.name}" in held
