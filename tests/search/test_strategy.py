"""Strategies are found by entry point or by module:Class.

Their options are checked and documented.
"""

import inspect
import re
import subprocess
import sys
import textwrap
from typing import Literal

import numpy as np
import pytest

import promptsearch.search.strategy
from promptsearch import Strategy, UnknownName
from promptsearch.errors import StrategyError
from promptsearch.search.listing import known_strategies
from promptsearch.search.loop import search
from promptsearch.search.options import check_options, options_of
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.testing.planted import planted_objective

GOOD = """
    from promptsearch import Strategy

    class Mine(Strategy):
        def ask(self):
            return []
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a plug-in package: modules, and an entry point of the group for each name."""

    def install(package, modules, names):
        root = tmp_path / package
        info = root / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        points = "".join(f"{name} = {value}\n" for name, value in names.items())
        (info / "entry_points.txt").write_text(f"[promptsearch.strategies]\n{points}")
        for name, code in modules.items():
            (root / f"{name}.py").write_text(textwrap.dedent(code))
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(root))

    return install


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that is not on sys.path, as for a console script."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return folder


class Sampler(Strategy):
    """Draws prompts.

    More about it: nothing to see.

    Args:
        objective: As always.
        seed: As always.
        batch: Prompts in each ask,
            on two lines.
        mode (str): With its type in brackets.
        names: A list.

    Raises:
        StrategyError: never: this is no option.
    """

    def __init__(
        self,
        objective,
        *,
        seed: int,
        batch: int = 4,
        mode: Literal["a", "b"] = "a",
        names: list[str],
        secret=None,
    ):
        super().__init__(objective, seed=seed)
        self.options = batch, mode, names, secret

    def ask(self):
        return self.objective.space.sample(None, 1)


def test_built_in_strategies_come_in_by_the_same_door():
    built_in = {
        "manual",
        "random",
        "exhaustive",
        "evolution",
        "optuna",
        "prompt_tuning",
        "p_tuning",
    }
    assert built_in <= set(known_strategies())
    for name in built_in:
        assert issubclass(find_strategy(name), Strategy)
        assert all(option.text for option in options_of(find_strategy(name))), name


def test_a_strangers_strategy_is_found_by_its_entry_point(install):
    install("stranger", {"stranger_a": GOOD}, {"strange": "stranger_a:Mine"})
    assert find_strategy("strange").__name__ == "Mine"


def test_an_unknown_name_gets_a_suggestion(install):
    install("stranger", {"stranger_b": GOOD}, {"strange": "stranger_b:Mine"})
    with pytest.raises(
        UnknownName,
        match=r"unknown strategy 'stange'\. Did you mean 'strange'\? Known: .*random.*strange",
    ):
        find_strategy("stange")


def test_a_name_claimed_twice_names_both_claims(install):
    install("one", {"one_module": GOOD}, {"strange": "one_module:Mine"})
    install("two", {"two_module": GOOD}, {"strange": "two_module:Mine"})
    with pytest.raises(StrategyError) as error:
        find_strategy("strange")
    for part in (
        "'strange' is claimed by several",
        "one_module:Mine (one)",
        "two_module:Mine (two)",
        "module:Class",
    ):
        assert part in str(error.value)
    assert find_strategy("one_module:Mine") is not find_strategy("two_module:Mine")


def test_the_same_claim_seen_twice_is_one(install):
    install("one", {"same_module": GOOD}, {"strange": "same_module:Mine"})
    install("copy", {}, {"strange": "same_module:Mine"})
    assert find_strategy("strange").__name__ == "Mine"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise RuntimeError('no GPU')",
            "the strategy 'broken' cannot be loaded: RuntimeError: no GPU",
        ),
        (
            "import nowhere_to_be_found",
            "cannot be loaded: ModuleNotFoundError: .*nowhere_to_be_found",
        ),
        ("Mine = 3", "'broken' is 3, which is not a subclass of promptsearch.Strategy"),
        ("class Mine: pass", "which is not a subclass of promptsearch.Strategy"),
        (
            "from promptsearch import Strategy\nclass Mine(Strategy): pass",
            "the strategy 'broken' lacks ask",
        ),
        ("class Other: pass", "cannot be loaded: AttributeError"),
    ],
)
def test_a_broken_plug_in_is_named_and_the_others_live(install, code, message):
    install(
        "broken",
        {"broken_module": code, "whole_module": GOOD},
        {"broken": "broken_module:Mine", "whole": "whole_module:Mine"},
    )
    with pytest.raises(StrategyError, match=message):
        find_strategy("broken")
    assert find_strategy("whole").__name__ == "Mine"
    assert find_strategy("random")
    assert {"broken", "whole", "random"} <= set(known_strategies())


def test_module_and_class_are_found_in_the_current_folder(here):
    (here / "local_strategy.py").write_text(textwrap.dedent(GOOD))
    assert find_strategy("local_strategy:Mine").__name__ == "Mine"


def test_a_name_without_colon_does_not_look_into_the_current_folder(here):
    before = list(sys.path)
    (here / "lonely.py").write_text(textwrap.dedent(GOOD))
    with pytest.raises(UnknownName):
        find_strategy("lonely")
    assert sys.path == before


def test_a_module_that_is_not_there_is_named(here):
    with pytest.raises(
        StrategyError, match="'absent_module:Mine' cannot be loaded: ModuleNotFoundError"
    ):
        find_strategy("absent_module:Mine")


def test_names_are_listed_without_importing_any_strategy():
    code = (
        "import sys, promptsearch.search.listing as s; assert 'optuna' in s.known_strategies() "
        "and 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_are_read_from_signature_and_docstring():
    options = {option.name: option for option in options_of(Sampler)}
    assert list(options) == ["batch", "mode", "names", "secret"]
    assert (options["batch"].type, options["batch"].default) == ("int", 4)
    assert options["batch"].text == "Prompts in each ask, on two lines."
    assert options["mode"].text == "With its type in brackets."
    assert options["mode"].type == "Literal['a', 'b']"
    assert options["names"].required and not options["batch"].required
    assert options["names"].text == "A list."
    assert options["secret"].text == ""


def test_options_are_converted_as_annotated_and_filled_up_with_defaults():
    assert check_options("s", Sampler, {"batch": "7", "names": ["x"]}) == {
        "batch": 7,
        "mode": "a",
        "names": ["x"],
        "secret": None,
    }


def test_what_has_no_annotation_may_be_anything():
    value = object()
    assert check_options("s", Sampler, {"names": [], "secret": value})["secret"] is value


@pytest.mark.parametrize("wrong", ["bach", "objective", "seed"])
def test_an_option_that_is_none_gets_a_suggestion(wrong):
    with pytest.raises(
        UnknownName,
        match=f"unknown option of strategy 's' '{wrong}'.*Known: batch, mode, names, secret",
    ):
        check_options("s", Sampler, {"names": [], wrong: 3})
    with pytest.raises(UnknownName, match=r"Did you mean 'batch'\?"):
        check_options("s", Sampler, {"names": [], "bach": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": [], "batch": "many"},
            "strategy 's', option 'batch': expected a whole number, got 'many'",
        ),
        ({"names": [], "batch": 2.5}, "option 'batch': expected a whole number, got 2.5"),
        ({"names": [], "mode": "c"}, "option 'mode': .*'a' or 'b', got 'c'"),
        ({"names": ["x", 3]}, "option 'names.1': expected text .*, got 3"),
        ({}, "strategy 's' needs the option 'names': A list"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_given(options, message):
    with pytest.raises(StrategyError, match=message):
        check_options("s", Sampler, options)


def test_make_strategy_checks_options_and_names_a_constructor_that_fails():
    strategy = make_strategy("s", Sampler, planted_objective(), 3, {"names": ["x"], "batch": 2})
    assert strategy.seed == 3 and strategy.options == (2, "a", ["x"], None)

    class Failing(Sampler):
        def __init__(self, objective, *, seed):
            raise KeyError("weights")

    with pytest.raises(StrategyError, match="the strategy 's' cannot be made: KeyError: 'weights'"):
        make_strategy("s", Failing, planted_objective(), 0, {})


def test_a_state_without_restore_is_a_bug_of_the_author():
    with pytest.raises(NotImplementedError, match="restore\\(\\) must take it back"):
        Sampler(planted_objective(), seed=0, names=[]).restore(None)


def test_random_search_of_the_docstring_is_five_lines_and_works():
    (code,) = re.findall(
        r"five lines:\n\n((?: {4}.*\n|\n)+)", inspect.getdoc(promptsearch.search.strategy) + "\n"
    )
    names = {"np": np, "Strategy": Strategy}
    exec(textwrap.dedent(code), names)
    objective = planted_objective()
    search(names["Random"](objective, seed=0))
    assert objective.affordable(4) == 0


def test_an_author_may_import_what_annotates_the_objective_for_type_checkers_alone(here):
    code = """
        from __future__ import annotations
        from typing import TYPE_CHECKING, Literal
        from promptsearch import Strategy
        if TYPE_CHECKING:
            from pathlib import Path
            from promptsearch import Objective

        class Mine(Strategy):
            def __init__(self, objective: Objective, *, seed: int, mode: Literal["a"] = "a"):
                super().__init__(objective, seed=seed)
            def ask(self):
                return []

        class Other(Mine):
            def __init__(self, objective: Objective, *, seed: int, place: Path | None = None):
                super().__init__(objective, seed=seed)
    """
    (here / "typed_mine.py").write_text(textwrap.dedent(code))
    assert check_options("mine", find_strategy("typed_mine:Mine"), {}) == {"mode": "a"}
    with pytest.raises(
        StrategyError,
        match="'Path | None' of the option 'place' of Other is not known where the class is",
    ):
        options_of(find_strategy("typed_mine:Other"))


def test_a_module_that_ends_the_program_is_named(here):
    (here / "ends_mine.py").write_text("raise SystemExit(0)")
    with pytest.raises(
        StrategyError,
        match="'ends_mine:Mine' cannot be loaded: ImportError: the module ends the program",
    ):
        find_strategy("ends_mine:Mine")
