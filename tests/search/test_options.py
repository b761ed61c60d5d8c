"""Options of strategies, read from annotations before there is a model: ranges and types."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from typer.testing import CliRunner

from promptsearch.cli import app
from promptsearch.errors import OptionError, PromptSearchError, StrategyError
from promptsearch.search.listing import known_strategies
from promptsearch.search.options import Count, Positive, Share, check_options, options_of
from promptsearch.search.plugins import find_strategy
from promptsearch.search.strategy import Strategy
from promptsearch.study.config import load_config
from promptsearch.study.prepare import prepare


class Ranged(Strategy):
    """Has an option of each kind.

    Args:
        count: A count.
        least: A count of its own.
        share: A share.
        rate: A rate.
        free: Any number.
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        objective,
        *,
        seed,
        count: Count = 4,
        least: Annotated[Count, Field(ge=2)] = 2,
        share: Share = 0.5,
        rate: Positive | Literal["auto"] = "auto",
        free: float = 1.0,
        sizes: list[Count] = [1],  # noqa: B006 - read only
    ):
        super().__init__(objective, seed=seed)

    @classmethod
    def check(cls, options):  # type: ignore[no-untyped-def]
        if options["least"] > options["count"]:
            raise StrategyError("'least' must be at most 'count'")

    def ask(self):  # type: ignore[no-untyped-def]
        return []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "strategy 'r': 'count' must be at least 1, got 0"),
        ({"count": 10**30}, f"strategy 'r': 'count' must be at most 100,000, got {10**30}"),
        ({"least": 1}, "strategy 'r': 'least' must be at least 2, got 1"),
        ({"share": 1.5}, "strategy 'r': 'share' must be at most 1, got 1.5"),
        ({"share": -0.5}, "strategy 'r': 'share' must be at least 0, got -0.5"),
        ({"rate": 0}, "strategy 'r': 'rate' must be above 0, got 0"),
        ({"rate": float("inf")}, "strategy 'r': 'rate' must be a finite number, got inf"),
        ({"free": float("nan")}, "strategy 'r': 'free' must be a finite number, got nan"),
        ({"sizes": [1, 0]}, "strategy 'r': 'sizes.1' must be at least 1, got 0"),
        ({"least": 5}, "strategy 'r': 'least' must be at most 'count'"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_the_range(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        check_options("r", Ranged, options)
    assert str(caught.value) == message


def test_a_list_of_options_shows_the_ranges() -> None:
    shown = {option.name: option.type for option in options_of(Ranged)}
    assert shown == {
        "count": "int from 1 to 100,000",
        "least": "int from 2 to 100,000",
        "share": "float from 0 to 1",
        "rate": "float, above 0 | Literal['auto']",
        "free": "float",
        "sizes": "list[int from 1 to 100,000]",
    }
    done = CliRunner().invoke(app, ["strategies", "random"], env={"COLUMNS": "200"})
    assert "int from 1 to 100,000" in done.stdout


@pytest.mark.parametrize("name", sorted(known_strategies()))
def test_every_number_of_a_built_in_strategy_has_a_range_that_its_default_is_in(name: str) -> None:
    strategy = find_strategy(name)
    needed = {"prompts": ["x"], "tasks": ["x", "y"]}
    own = {option.name for option in options_of(strategy)}
    given = {key: value for key, value in needed.items() if key in own}
    check_options(name, strategy, given)
    for option in options_of(strategy):
        if option.type.startswith(("int", "float")):
            assert "from" in option.type or "above" in option.type or "at least" in option.type, (
                name,
                option,
            )
            with pytest.raises(StrategyError, match="must be|expected|valid"):
                check_options(name, strategy, {**given, option.name: -1})
            if option.type.startswith("int"):
                with pytest.raises(StrategyError, match="must be at most"):
                    check_options(name, strategy, {**given, option.name: 10**30})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "random: {batch: 1" + "0" * 30 + "}",
            "line 6: strategy 'random': 'batch' must be at most 100,000",
        ),
        (
            "random: {\n      batch: 0}",
            "line 7: strategy 'random': 'batch' must be at least 1, got 0",
        ),
        (
            "random: {bach: 5}",
            "line 6: unknown option of strategy 'random' 'bach'. Did you mean 'batch'?",
        ),
        ("rndom", "line 6: unknown strategy 'rndom'. Did you mean 'random'?"),
        (
            "p_tuning: {batch: 4, accumulate: 5}",
            "line 6: strategy 'p_tuning': 'accumulate' splits a batch of 4 examples",
        ),
        ("evolution: {optimizer: x}", "line 6: unknown optimizer 'x'"),
        (
            "ranged_plugin:Mine: {size: 99}",
            "line 6: strategy 'ranged_plugin:Mine': 'size' must be at most 9, got 99",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_its_line_before_data_or_model_are_looked_for(
    row: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = """
        from typing import Annotated
        from pydantic import Field
        from promptsearch import Strategy

        class Mine(Strategy):
            def __init__(self, objective, *, seed, size: Annotated[int, Field(ge=1, le=9)] = 5):
                super().__init__(objective, seed=seed)
            def ask(self):
                return []
    """
    Path("ranged_plugin.py").write_text(textwrap.dedent(code))
    study = f"model: not-there\ntask: capitals\nbudget: 1000\nstrategies:\n  - manual\n  - {row}\n"
    Path("study.yaml").write_text(study)
    with pytest.raises(PromptSearchError) as caught:
        prepare(load_config(Path("study.yaml")))
    assert str(caught.value).startswith(f"study.yaml, {message}")
