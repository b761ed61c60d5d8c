import logging

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from promptsearch.errors import StrategyError
from promptsearch.records.log import RunLog
from promptsearch.search.loop import search
from promptsearch.search.options import check_options
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.optuna import WINDOW, Optuna
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestTpe(StrategyConformance):
    strategy = Optuna
    options = {"sampler": "tpe"}
    planted = "separable"
    few = 40
    evaluations = 200


class TestNsga2(StrategyConformance):
    strategy = Optuna
    options = {"sampler": "nsga2"}
    planted = "separable"
    seeds = 5


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_beats_random_on_pairwise_too(sampler):
    class Case(StrategyConformance):
        strategy = Optuna
        options = {"sampler": sampler}
        planted = "pairwise"
        evaluations = 200
        seeds = 5

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def columns(objective):
    """The indices into the pool that were proposed at each position, in order: a list for each."""
    ids = [prompt["ids"] for line in objective.log.lines for prompt in line["prompts"]]
    return np.searchsorted(objective.space.pool, ids).T.tolist()


def test_tpe_keeps_to_a_shortlist_that_is_renewed_after_two_windows():
    scorer = PlantedScorer("separable", pool=500)
    objective = scorer.objective(scorer.budget(2 * WINDOW + 80))
    strategy = Optuna(objective, seed=0, sampler="tpe", shortlist=16)
    seen = []
    ask = strategy.ask

    def listen():
        prompts = ask()
        lists = list(strategy.tokens.values())
        for prompt in prompts:
            assert all(
                index in tokens
                for index, tokens in zip(scorer.space.indices(prompt), lists, strict=True)
            )
        seen.append(lists)
        return prompts

    strategy.ask = listen
    search(strategy)
    renewed = [i for i in range(1, len(seen)) if not np.array_equal(seen[i], seen[i - 1])]
    assert WINDOW / 8 < renewed[0] <= 2 * WINDOW / 8  # repeats count in the window too
    for old, new in zip(seen[0], seen[renewed[0]], strict=True):
        assert len(set(old)) == len(set(new)) == 16
        assert len(set(old) & set(new)) >= 8


def test_the_best_tokens_stay_in_a_renewed_shortlist():
    scorer = PlantedScorer("separable", pool=500, length=2)
    objective = scorer.objective(scorer.budget(2 * WINDOW))
    strategy = Optuna(objective, seed=0, sampler="tpe", shortlist=16)
    search(strategy)
    told = strategy.told()[-WINDOW:]
    best = min(told, key=lambda trial: trial.values[0]).params
    strategy.renew(told)
    assert all(best[name] in tokens for name, tokens in strategy.tokens.items())
    kept = strategy.told()
    assert 0 < len(kept) <= WINDOW
    assert all(
        trial.params[name] in tokens for trial in kept for name, tokens in strategy.tokens.items()
    )


def test_tpe_never_looks_at_many_more_than_two_windows():
    scorer = PlantedScorer("separable", pool=500, length=2)
    objective = scorer.objective(scorer.budget(5 * WINDOW))
    strategy = Optuna(objective, seed=0, sampler="tpe")
    sizes = []
    tell = strategy.tell

    def listen(prompts, evaluation):
        tell(prompts, evaluation)
        sizes.append(len(strategy.told()))

    strategy.tell = listen
    search(strategy)
    assert max(sizes) < 2 * WINDOW + 5 * 8 and len(sizes) > 5 * WINDOW / 8 - 1


def test_nsga2_draws_from_the_whole_pool():
    scorer = PlantedScorer("separable", pool=500, length=2)
    objective = scorer.objective(scorer.budget(200))
    search(Optuna(objective, seed=0, sampler="nsga2", shortlist=2))
    assert min(len(set(column)) for column in columns(objective)) > 20


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_repeats_cost_nothing_and_do_not_end_a_run_that_has_prompts_left(sampler):
    objective = planted_objective(pool=6, length=2, budget=None)
    assert search(Optuna(objective, seed=0, sampler=sampler)) == "nothing left to propose"
    scored = [prompt["key"] for line in objective.log.lines for prompt in line["prompts"]]
    assert len(scored) == len(set(scored)) == 36


def shown(path):
    return [
        optuna.load_study(study_name=name, storage=f"sqlite:///{path}")
        for name in optuna.get_all_study_names(f"sqlite:///{path}")
    ]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_dashboards_file_holds_every_prompt_once_also_after_a_kill(tmp_path, sampler):
    scorer = PlantedScorer("separable", failing=0.2)
    folder = tmp_path / "run"
    folder.mkdir()
    for _ in range(2):
        objective = scorer.objective(scorer.budget(28), log=RunLog(folder))
        search(Optuna(objective, seed=0, sampler=sampler, storage=str(tmp_path / "study.db")))
        log = (folder / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "evaluations.jsonl").write_bytes(
            b"".join(log[:2])
        )  # as a kill leaves it; the next process replays these
    (study,) = shown(tmp_path / "study.db")
    trials = {trial.user_attrs["prompt"]: trial for trial in study.trials}
    lines = objective.log.lines[:-1]  # the last ask could not be paid in full, so it is not told
    prompts = [prompt for line in lines for prompt in line["prompts"]]
    losses = [row for line in lines for row in line["losses"]]
    assert len(study.trials) == len(trials) == len(prompts)
    for prompt, row in zip(prompts, losses, strict=True):
        trial = trials[scorer.space.decode(prompt["ids"])]
        assert (
            list(trial.params.values())
            == np.searchsorted(scorer.space.pool, prompt["ids"]).tolist()
        )
        assert (
            (trial.state is TrialState.FAIL)
            if row is None
            else (trial.value == pytest.approx(np.mean(row)))
        )


def test_other_tasks_and_seeds_may_share_the_dashboards_file(tmp_path):
    for task, seed in ((0, 0), (0, 1), (1, 0), (0, 0)):
        scorer = PlantedScorer("separable", seed=task)
        search(
            Optuna(
                scorer.objective(scorer.budget(8)), seed=seed, storage=str(tmp_path / "study.db")
            )
        )
    assert len(shown(tmp_path / "study.db")) == 3


def test_runs_with_other_models_or_templates_share_the_dashboards_file(tmp_path):
    for name in ("a model", "another model", "a model"):
        scorer = PlantedScorer("separable")
        scorer.signature = name
        objective = scorer.objective(scorer.budget(8))
        search(Optuna(objective, seed=0, storage=str(tmp_path / "study.db")))
    assert len(shown(tmp_path / "study.db")) == 2


def test_the_dashboard_changes_no_proposal(tmp_path):
    runs = []
    for storage in (None, str(tmp_path / "study.db")):
        scorer = PlantedScorer("separable")
        objective = scorer.objective(scorer.budget(30))
        search(Optuna(objective, seed=0, storage=storage))
        runs.append(columns(objective))
    assert runs[0] == runs[1]


def test_optuna_is_silent_and_the_root_logger_untouched(capfd):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    scorer = PlantedScorer("separable")
    search(Optuna(scorer.objective(scorer.budget(20)), seed=0))
    assert (root.level, list(root.handlers)) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "gp"}, "option 'sampler': .*'tpe' or 'nsga2'"),
        ({"shortlist": 1}, "'shortlist' must be at least 2, got 1"),
        ({"batch": 0}, "'batch' must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Optuna, planted_objective(), 0, options)


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:hunter2@db/x",
        "postgresql+psycopg://db/x?user=me&password=hunter2",
        "mysql+pymysql://me:hun/ter2@db/x",
        "postgresql://db/x?sslkey=/key&sslpassword=hunter2",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Ddb%3BPWD%3Dhunter2",
        "postgresql://me:@db:hunter2/x",  # no URL
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(storage):
    with pytest.raises(StrategyError, match="'storage'") as raised:
        check_options("optuna", Optuna, {"storage": storage})
    assert "ter2" not in str(raised.value)


@pytest.mark.parametrize(
    "storage",
    [
        "study.db",
        "sqlite:///study.db",
        "postgresql://me@db/x?passfile=/home/me/.pgpass&sslmode=require",
        "mysql://db/x?read_default_file=~/.my.cnf",
    ],
)
def test_a_url_without_a_secret_is_taken(storage):
    assert check_options("optuna", Optuna, {"storage": storage})["storage"] == storage
