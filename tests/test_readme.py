"""What README and CONTRIBUTING show works as they show it."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import promptsearch
from promptsearch.cli import app
from promptsearch.search.strategy import Strategy
from promptsearch.study.config import load_config
from promptsearch.testing.conformance import StrategyConformance

ROOT = Path(__file__).parent.parent
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md")}


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a language, without their indentation."""
    return [
        textwrap.dedent(code) for code in re.findall(rf"^ *```{language}\n(.*?)^ *```", TEXTS[name], re.DOTALL | re.MULTILINE)
    ]


def plug_in(name: str, strategy: str) -> type[Strategy]:
    """A strategy of the module `mine.py` that a file shows."""
    (code,) = [code for code in blocks(name, "python") if code.startswith("# mine.py")]
    module = sys.modules[f"shown_in_{name}"] = ModuleType(f"shown_in_{name}")
    exec(code, module.__dict__)
    found: type[Strategy] = getattr(module, strategy)
    return found


class TestHillClimb(StrategyConformance):
    strategy = plug_in("README.md", "HillClimb")


class TestMine(StrategyConformance):
    strategy = plug_in("CONTRIBUTING.md", "Mine")
    options = {"batch": 4}
    planted = None  # it is random search


def test_the_study_of_the_readme_is_right(tmp_path: Path) -> None:
    (study,) = blocks("README.md", "yaml")
    (tmp_path / "study.yaml").write_text(study, "utf-8")
    config = load_config(tmp_path / "study.yaml")
    assert config.name == "movie-reviews"
    assert [row.name for row in config.strategies] == ["manual", "manual", "random", "evolution", "optuna", "p_tuning"]


def test_the_names_of_the_python_example_are_public() -> None:
    example = next(code for code in blocks("README.md", "python") if "load_prompt" in code)
    compile(example, "README.md", "exec")
    (names,) = re.findall(r"^from promptsearch import (.*)$", example, re.MULTILINE)
    for name in names.split(", "):
        assert callable(getattr(promptsearch, name))


def test_the_commands_of_the_readme_exist() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = re.findall(r"^promptsearch ([a-z][\w-]*)(.*?)(?:  +#|$)", "\n".join(blocks("README.md", "sh")), re.MULTILINE)
    assert {"compare", "search", "strategies", "export", "apply"} <= {name for name, _ in shown}
    for name, rest in shown:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert set(re.findall(r" (--\w+)", rest)) <= options


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_in_the_makefile(target: str) -> None:
    assert f"make {target}" in TEXTS["README.md"]
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXTS[name]):
        assert (ROOT / target).exists(), target
