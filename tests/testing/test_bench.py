"""Strategies against random where the optimum is known.

It is known by brute force over everything that the tables say.
"""

from __future__ import annotations

import itertools
import json
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from promptsearch import Strategy, compare
from promptsearch.cli import app
from promptsearch.errors import RecordError, StrategyError, StudyError, UnknownName
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.records.sealed import sealed_line, unseal
from promptsearch.search.plugins import find_strategy
from promptsearch.testing import bench
from promptsearch.testing.ground import Ground, table_ground
from promptsearch.testing.table import TableScorer

WORDS = ["w0", "w1", "w2", "w3"]


def table(pool=4, length=3, examples=5, seed=0, price=40, lead=13):
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.1, 2, (pool**length, examples)).astype(np.float32).astype(np.float64)
    words = [f" w{i}" for i in range(pool)]
    return TableScorer(
        losses, (losses < 0.7).astype(float), torch.randn(pool, 6), words, price, lead, "toy"
    )


class OneByOne(Strategy):
    """Proposes the space in order, one prompt an ask."""

    def __init__(self, objective, *, seed):
        super().__init__(objective, seed=seed)
        self._rows = itertools.product(
            range(len(objective.space.pool)), repeat=objective.space.length
        )

    def ask(self):
        return [self.objective.space.prompt(row) for row in itertools.islice(self._rows, 1)]


def test_a_table_gives_the_losses_and_the_prices_that_it_was_made_with():
    scorer = table()
    objective = scorer.objective(scorer.budget(3))
    prompts = [scorer.space.prompt(row) for row in ([0, 0, 0], [0, 1, 2], [3, 3, 3])]
    found = objective.evaluate(prompts)
    np.testing.assert_allclose(found.losses, scorer.losses[[0, 0 * 16 + 1 * 4 + 2, 63]], atol=1e-6)
    assert objective.ledger.spent == 13 + 3 * 40 and objective.ledger.left == 0
    assert scorer.optimum_value == scorer.losses.mean(1).min() and scorer.median_value == np.median(
        scorer.losses.mean(1)
    )


def test_a_table_comes_back_from_its_file_and_refuses_anything_else(tmp_path):
    scorer = table()
    scorer.save(tmp_path / "t.safetensors")
    again = TableScorer.load(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(again.losses, scorer.losses)
    assert again.words == scorer.words and again.budget(2) == scorer.budget(2)
    (tmp_path / "broken").write_bytes(b"no table")
    for path in (tmp_path / "broken", tmp_path / "none"):
        with pytest.raises(RecordError, match="no table of scores"):
            TableScorer.load(path)
    with pytest.raises(RecordError, match="not whole"):
        TableScorer(
            np.full((4, 2), np.nan), np.zeros((4, 2)), torch.zeros(2, 2), ["a", "b"], 1, 0, "x"
        )
    with pytest.raises(RecordError, match="no table of all prompts"):
        TableScorer(np.ones((5, 2)), np.zeros((5, 2)), torch.zeros(2, 2), ["a", "b"], 1, 0, "x")


def test_a_table_has_no_gradient_and_scores_nothing_but_its_prompts():
    objective = table().objective()
    with pytest.raises(StrategyError, match="scores of hard prompts"):
        objective.loss(torch.zeros(3, 6), [0])
    assert objective.evaluate([SoftPrompt(torch.zeros(3, 6))]).failures


STUDY = {
    "name": "s",
    "budget": 200_000,
    "length": 2,
    "score_on": 4,
    "pool": ["the", "of", "movie"],
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_table_of_a_run_holds_what_the_run_scored(dtype, tmp_path, tiny, films):
    """Exhaustive search on a tiny LM, and every prompt of its space looked up again."""
    study = {**STUDY, "dtype": dtype, "strategies": [{"exhaustive": {"batch": 4}}]}
    compare(study, out=tmp_path, model=tiny, task=films)
    run = tmp_path / "films" / "exhaustive" / "seed0"
    scorer = TableScorer.from_run(run, tiny)
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    ids = sorted({i for line in lines for data in line["prompts"] for i in data["ids"]})
    seen = 0
    for line in lines:
        if line["stage"] == "search":
            prompts = [
                scorer.space.prompt([ids.index(i) for i in data["ids"]]) for data in line["prompts"]
            ]
            np.testing.assert_allclose(
                scorer.score(prompts, scorer.scored).losses, line["losses"], atol=1e-6
            )
            assert [scorer.space.decode(p.ids) for p in prompts] == [
                tiny.decode(data["ids"]) for data in line["prompts"]
            ]
            seen += len(prompts)
    assert (
        seen == 9
        and scorer.budget(9)
        == [line for line in lines if line["stage"] == "search"][-1]["ledger"]["forward"]
    )
    prices = [line["price"] for line in lines if line["stage"] == "search"]
    assert scorer.budget(9) - scorer.budget(5) == prices[1] and scorer.budget(4) == prices[0]
    torch.testing.assert_close(scorer.embeddings, tiny.embeddings[ids].float())
    with pytest.raises(RecordError, match="expected every prompt|Let the run"):
        (run / "evaluations.jsonl").write_bytes(sealed_line(unseal(lines[-1]) | {"n": 0}))
        TableScorer.from_run(run, tiny)


def test_a_run_that_does_not_tell_the_price_of_a_prompt_makes_no_table(tmp_path, tiny, films):
    rows = ["exhaustive", {"manual": {"prompts": ["the movie"]}}]
    compare({**STUDY, "dtype": "float32", "strategies": rows}, out=tmp_path, model=tiny, task=films)
    with pytest.raises(RecordError, match="Run exhaustive with a smaller 'batch'"):
        TableScorer.from_run(tmp_path / "films" / "exhaustive" / "seed0", tiny)
    with pytest.raises(RecordError, match="holds no finished exhaustive search"):
        TableScorer.from_run(tmp_path / "films" / "manual" / "seed0", tiny)


def test_regret_and_the_way_to_it_are_what_brute_force_says(tmp_path):
    """The space in order, one prompt an ask: every figure can be counted."""
    scorer = table()
    scorer.save(tmp_path / "t.safetensors")
    ground = table_ground(tmp_path / "t.safetensors")
    rows = [bench.Row("ordered", f"{__name__}:OneByOne")]
    found = bench.bench(rows, [ground], seeds=1, evaluations=[10, 64])
    values = scorer.losses.mean(1)
    scale = np.median(values) - values.min()
    for line, count in zip(found.itertuples(), [10, 64], strict=True):
        assert line.regret == pytest.approx((values[:count].min() - values.min()) / scale, abs=1e-5)
    for name, share in (("near5", 0.05), ("near1", 0.01)):
        place = int(np.argmax(values <= values.min() + share * scale))
        assert found[name].iloc[1] == place + 1


def test_wins_are_counted_seed_by_seed():
    columns = ["ground", "evaluations", "label", "seed", "regret", "near5", "near1", "error"]
    regrets = {"random": [0.5, 0.4, 0.3], "other": [0.1, 0.4, float("nan")]}
    rows = [
        ("g", 9, label, seed, r, 3.0, float("inf"), "" if r == r else "no")
        for label, rs in regrets.items()
        for seed, r in enumerate(rs)
    ]
    (floor, other) = bench.summary(pd.DataFrame(rows, columns=columns)).to_dict("records")
    assert (other["lower"], other["equal"], other["seeds"], other["failed"]) == (1, 1, 3, 1)
    assert floor["regret"] == 0.4 and other["regret"] == 0.25 and other["near1"] == float("inf")


def test_every_searching_strategy_is_benched_and_those_of_a_table_need_scores_only():
    assert bench.searching(table=False)[0] == bench.searching(table=True)[0] == "random"
    assert (
        {"evolution", "optuna"}
        <= set(bench.searching(table=True))
        < set(bench.searching(table=False))
    )
    assert not {"manual", "exhaustive"} & set(
        bench.searching(table=False)
    ) and "p_tuning" not in bench.searching(table=True)


def test_a_claim_is_what_the_docstring_says():
    assert bench.claims(find_strategy("optuna"), "pairwise") and not bench.claims(
        find_strategy("random"), "separable"
    )


def test_the_command_prints_a_table_and_keeps_what_it_found(tmp_path):
    made = [
        "evolution",
        "optuna: {label: nsga2, sampler: nsga2}",
        "--on",
        "separable",
        "--seeds",
        "2",
        "--evaluations",
        "40",
    ]
    result = CliRunner().invoke(
        app, ["bench-strategies", *made, "--pool", "20", "--length", "2", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    found = pd.read_parquet(tmp_path / "searches.parquet")
    assert sorted(set(found.label)) == ["evolution", "nsga2", "random"] and len(found) == 6
    assert "## separable, 40 evaluations, 2 seeds" in (tmp_path / "README.md").read_text()
    assert "nsga2 *" in result.output and "of 2" in result.output
    told = (tmp_path / "README.md").read_text()
    command = told.split("```sh\n")[1].split("\n```")[0]
    assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert (tmp_path / "README.md").read_text() == told


def test_two_processes_find_what_one_finds():
    rows = bench.with_random([bench.row("evolution")])
    grounds = [Ground("separable", pool=20, length=2)]
    one, two = (bench.bench(rows, grounds, 2, [30], jobs) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--on", "seperable"], UnknownName),
        (["--on", "separable", "--table", "x"], StudyError),
        (["--table", "x", "--pool", "9"], StudyError),
        (["--table", "none"], RecordError),
        (["evolutoin"], UnknownName),
        (["evolution: {bach: 3}"], UnknownName),
        (["[evolution]"], StudyError),
        (["evolution", "evolution"], StudyError),
        (["genetic: {length: 8}"], StudyError),
        (["genetic: {budget: 5}"], StudyError),
        (["genetic: {seeds: 1}"], StudyError),
        (["genetic: {start: {run: random}}"], StudyError),
        (["genetic: {label: random}"], StudyError),
    ],
)
def test_wrong_input_is_named(given, error):
    result = CliRunner().invoke(app, ["bench-strategies", *given])
    assert result.exit_code == 2 and result.output.startswith("error:"), result.output


def test_a_strategy_that_needs_more_than_a_table_has_is_refused(tmp_path):
    table().save(tmp_path / "t.safetensors")
    result = CliRunner().invoke(
        app, ["bench-strategies", "p_tuning", "--table", str(tmp_path / "t.safetensors")]
    )
    assert result.exit_code == 2 and "needs more than the scores" in result.output
