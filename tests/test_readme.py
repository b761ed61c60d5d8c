"""What the README and the documentation show works as they show it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import promptsearch
from promptsearch.cli import app
from promptsearch.search.listing import known_strategies
from promptsearch.search.strategy import Strategy
from promptsearch.study.config import load_config
from promptsearch.testing.conformance import StrategyConformance

ROOT = Path(__file__).parent.parent
WRITING, FIRST = "docs/tutorials/write-a-strategy.md", "docs/tutorials/first-study.md"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts
)
TEXTS = {
    name: (ROOT / name).read_text("utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", *PAGES)
}


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a language, without their indentation."""
    return [
        textwrap.dedent(code)
        for code in re.findall(
            rf"^ *```{language}\n(.*?)^ *```", TEXTS[name], re.DOTALL | re.MULTILINE
        )
    ]


def plug_in(name: str, strategy: str) -> type[Strategy]:
    """A strategy of the module `mine.py` that a file shows."""
    (code,) = [code for code in blocks(name, "python") if code.startswith("# mine.py")]
    module = sys.modules[f"shown_in_{name}"] = ModuleType(f"shown_in_{name}")
    exec(code, module.__dict__)
    found: type[Strategy] = getattr(module, strategy)
    return found


class TestHillClimb(StrategyConformance):
    strategy = plug_in(WRITING, "HillClimb")


class TestMine(StrategyConformance):
    strategy = plug_in("README.md", "Mine")
    options = {"batch": 4}
    planted = None  # it is random search


STUDIES = [(name, code) for name in ("README.md", FIRST) for code in blocks(name, "yaml")]


@pytest.mark.parametrize(
    ("name", "study"), STUDIES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(STUDIES)]
)
def test_a_study_that_is_shown_is_right(name: str, study: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(study, "utf-8")
    config = load_config(tmp_path / "study.yaml")
    assert config.name in ("capitals", "movie-reviews") and len(config.strategies) >= 4


def test_the_study_of_the_readme_is_short_and_lies_among_the_examples(tmp_path: Path) -> None:
    (study,) = blocks("README.md", "yaml")
    (tmp_path / "study.yaml").write_text(study, "utf-8")
    assert (
        load_config(tmp_path / "study.yaml").model_dump()
        == load_config(ROOT / "examples" / "movie-reviews.yaml").model_dump()
    )
    assert study.count("\n") <= 11 and TEXTS["README.md"].count("\n") <= 150


@pytest.mark.parametrize("name", [FIRST, "docs/tutorials/use-a-winner.md"])
def test_the_names_of_a_python_example_are_public(name: str) -> None:
    (example,) = [code for code in blocks(name, "python") if "load_prompt" in code]
    compile(example, name, "exec")
    (names,) = re.findall(r"^from promptsearch import (.*)$", example, re.MULTILINE)
    for each in names.split(", "):
        assert callable(getattr(promptsearch, each))


def test_the_commands_that_are_shown_exist() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = [
        found
        for name in TEXTS
        for found in re.findall(
            r"^promptsearch ([a-z][\w-]*)(.*?)(?:  +#|$)",
            "\n".join(blocks(name, "sh")),
            re.MULTILINE,
        )
    ]
    assert {"compare", "plan", "report", "export", "apply", "verify"} <= {name for name, _ in shown}
    for name, rest in shown:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert set(re.findall(r" (--\w+)", rest)) <= options


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_in_the_makefile(target: str) -> None:
    assert f"make {target}" in TEXTS["README.md"]
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_code_is_not_wider_than_a_page(name: str) -> None:
    code = re.findall(r"^ *```[a-z]+\n(.*?)^ *```", TEXTS[name], re.DOTALL | re.MULTILINE)
    assert [line for block in code for line in block.splitlines() if len(line) > 90] == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXTS[name]):
        assert ((ROOT / name).parent / target).exists(), target


def test_the_reference_pages_say_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_architecture_of_contributing_names_files_that_exist_and_no_file_twice() -> None:
    text = TEXTS["CONTRIBUTING.md"]
    way = text[text.index("## The way of a comparison") : text.index("The bill beforehand")]
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", way)
    assert len(named) == len(set(named)) > 30
    for name in named:
        assert (ROOT / "promptsearch" / name).is_file(), name


def test_the_readme_counts_the_strategies() -> None:
    found = [point for points in known_strategies().values() for point in points]
    own = [point for point in found if point.value.startswith("promptsearch.strategies")]
    assert f"measures them: {len(own)} strategies," in TEXTS["README.md"]
