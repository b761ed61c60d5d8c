"""A strategy holds no door: ten ways to cheat, each caught or gaining nothing.

And the next run gets the same numbers.
"""

import gc
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from promptsearch import Access, Ask, HardPrompt, Strategy, compare
from promptsearch.errors import StrategyError, Tampered
from promptsearch.models import LanguageModel
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.search.bill import check_bill
from promptsearch.search.books import books_of
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import make_strategy
from promptsearch.testing.doors import doors
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.tiny import tiny_model

BUDGET = 6_000

pytestmark = pytest.mark.usefixtures("unreported")


class Samples(Strategy):
    """Proposes at random; what it does beside is the test's."""

    batch = 4

    def __init__(self, objective, *, seed):
        super().__init__(objective, seed=seed)
        self.rng, self.told = np.random.default_rng(seed), 0
        self.begin()

    def begin(self):
        """Before the first ask."""

    def cheat(self, evaluation):
        """After each evaluation."""

    def ask(self):
        return self.objective.space.sample(self.rng, self.batch)

    def tell(self, prompts, evaluation):
        self.told += 1
        self.cheat(evaluation)


class Embeddings(Samples):
    access = Access.WEIGHTS

    def begin(self):
        self.objective.embeddings.mul_(0.5)
        self.objective.embeddings.numpy()[:] = 0
        for tensor in self.objective.weights.tensors.values():
            tensor.zero_()


class Budget(Samples):
    def begin(self):
        self.objective.ledger.budget = 60_000


class Hides(Samples):
    def cheat(self, evaluation):
        self.objective.ledger.forward = 0


class Scored(Samples):
    def begin(self):
        self.objective.scored[:] = 0


class Told(Samples):
    def cheat(self, evaluation):
        for array in (
            evaluation.values,
            evaluation.losses,
            evaluation.metric,
            evaluation.choices,
            evaluation.examples,
        ):
            array[...] = 0


class Closure(Samples):
    def cheat(self, evaluation):
        arena = self.objective._reserve.__closure__[0].cell_contents
        arena.exact["test"].score(self.ask(), np.arange(4))


class Folder(Samples):
    def cheat(self, evaluation):
        json.loads((self.objective.log._folder.parents[1] / "study.json").read_text())


class Others(Samples):
    def cheat(self, evaluation):
        found = [
            value
            for value in (
                getattr(self.objective.log, name, None) for name in ("_folder", "folder", "path")
            )
            if value
        ]
        results = [
            path for folder in found for path in Path(folder).parents[2].rglob("result.json")
        ]
        assert results, "it finds no way to another run's result"


class Writes(Samples):
    """Leaves losses of zero for what comes next in the shared cache, and changes what is there."""

    folder = None

    def cheat(self, evaluation):
        with sqlite3.connect(Writes.folder / "scores.sqlite", timeout=30) as db:
            for name, content in db.execute("select name, content from scores").fetchall():
                fake = json.dumps({**json.loads(content), "losses": [[0.0] * 8] * 4})
                db.execute("update scores set content = ? where name = ?", (fake, name))


class Price(Samples):
    def begin(self):
        Objective.price = lambda self, prompts, examples=None: 0
        Ledger.charge = lambda self, **named: None


class Model(Samples):
    """Finds the LM by the garbage collector, which nobody can forbid."""

    def cheat(self, evaluation):
        models = [
            each
            for each in gc.get_objects()
            if type(each) is LanguageModel and each.name == "cheated"
        ]
        for model in models:
            model.model.get_input_embeddings().weight.data.mul_(0.5)


CHEATS = {
    Embeddings: None,
    Budget: "cannot assign to field 'budget'",
    Hides: "cannot assign to field 'forward'",
    Scored: "read-only",
    Told: None,
    Closure: "no attribute '_reserve'",
    Folder: "no attribute '_folder'",
    Others: "it finds no way to another run's result",
    Writes: None,
    Price: "`promptsearch.records.ledger.Ledger.charge`, ",
    Model: "weights of the model 'cheated' were changed",
}


def study(folder, films, rows, monkeypatch, seeds=1):
    """Runs of these rows on a fresh tiny model and a cache of their own."""
    cache = folder / "cache"
    monkeypatch.setattr("promptsearch.study.study.cache_folder", lambda: cache)
    Writes.folder = cache
    lm = LanguageModel(*tiny_model("llama"), name="cheated")
    settings = {
        "name": "doors",
        "strategies": rows,
        "length": 2,
        "budget": BUDGET,
        "score_on": 8,
        "seeds": seeds,
    }
    compare({**settings, "dtype": "float32"}, out=folder / "study", model=lm, task=films)
    read = lambda path: json.loads(path.read_text())  # noqa: E731
    return {path.parts[-3]: read(path) for path in sorted((folder / "study").rglob("result.json"))}


def numbers(result):
    """What a run found and paid, but for two things.

    They are the time that it took, and what was computed instead of read from the cache.
    """
    ledger = {
        name: value
        for name, value in result["ledger"].items()
        if name not in ("cached", "computed")
    }
    return {**result, "ledger": ledger, "seconds": 0, "checksum": ""}


@pytest.fixture(scope="module")
def honest(tmp_path_factory, films):
    with pytest.MonkeyPatch.context() as patch:
        return study(
            tmp_path_factory.mktemp("honest"), films, [f"{__name__}:Samples", "random"], patch
        )


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_cheat_is_named_or_gains_nothing_and_changes_no_other_run(
    cheat, tmp_path, films, honest, monkeypatch
):
    name = f"{__name__}:{cheat.__name__}"
    found = study(tmp_path, films, [name, f"{__name__}:Samples", "random"], monkeypatch)
    cheated, *others = found[cheat.__name__], found["Samples"], found["random"]
    assert [numbers(other) for other in others] == [
        numbers(honest["Samples"]),
        numbers(honest["random"]),
    ]
    if CHEATS[cheat] is None:
        for key in ("search", "select", "test", "winner", "spent", "curve"):
            assert cheated[key] == honest["Samples"][key]
    else:
        assert cheated["status"] == "failed" and CHEATS[cheat] in cheated["error"]


def test_a_run_that_cheated_leaves_no_log_to_go_on_from(tmp_path, films, monkeypatch):
    found = study(tmp_path, films, [f"{__name__}:Model"], monkeypatch)
    assert found["Model"]["status"] == "failed"
    assert not list((tmp_path / "study").rglob("evaluations.jsonl"))


class Forgets(Strategy):
    def __init__(self, objective, *, seed):
        self.rng = np.random.default_rng(seed)

    def ask(self):
        return self.objective.space.sample(self.rng, 4)


class Early(Strategy):
    def __init__(self, objective, *, seed):
        self.length = self.objective.space.length

    def ask(self):
        return []


class Other(Strategy):
    def __init__(self, objective, *, seed):
        super().__init__(PlantedScorer("separable").objective(), seed=seed)

    def ask(self):
        return []


class Nonsense(Samples):
    def ask(self):
        return 17


class Generates(Samples):
    def ask(self):
        return (prompt for prompt in super().ask())


class Endless(Samples):
    def ask(self):
        return range(10**12)


class Many(Samples):
    def ask(self):
        return super().ask() * 300_000


class Mixed(Samples):
    def ask(self):
        return [*super().ask(), "text"]


class Ids(Samples):
    def ask(self):
        prompt = super().ask()[0]
        object.__setattr__(prompt, "ids", ("a", None))
        return [prompt]


class Subclassed(HardPrompt):
    key = "0" * 20


class Forged(Samples):
    proposes = frozenset({Subclassed})


class Badly(Samples):
    def ask(self):
        return Ask(super().ask(), {"a": 1})


class TellRaises(Samples):
    def tell(self, prompts, evaluation):
        raise ZeroDivisionError("of my own")


class Exits(Samples):
    def ask(self):
        raise SystemExit(3)


class Base(Samples):
    def ask(self):
        raise BaseException("of no kind")


class Recurses(Samples):
    def ask(self):
        return self.ask()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Unreadable(Samples):
    def ask(self):
        raise Mute


class Records(Samples):
    """Raises what would end a study where the core says it."""

    def ask(self):
        from promptsearch.errors import RecordError

        raise RecordError("the log is damaged")


class NoState(Samples):
    def state(self):
        return {"x": 1}


class Complex(Samples):
    def state(self):
        from promptsearch import State

        return State({3: "no tensor"}, {"x": {1, 2}})


class Training(Samples):
    training = 5


class Trainable(Samples):
    trainable = "many"


class Proposes(Samples):
    proposes = HardPrompt


class Accesses(Samples):
    access = "scores"


class Finalists(Samples):
    finalists = "3"


class Twice(Samples):
    deterministic = "no"
    starts_from = None


BROKEN = {
    Forgets: "let its __init__ begin with `super().__init__(objective, seed=seed)`",
    Early: "let its __init__ begin with `super().__init__(objective, seed=seed)`",
    Other: "an objective that is not the run's: let its __init__ begin with",
    Nonsense: "Nonsense.ask returned int; expected a list of prompts",
    Generates: "Generates.ask returned generator; expected a list of prompts",
    Endless: "Endless.ask returned 1,000,000,000,000 prompts; at most",
    Many: "Many.ask returned 1,200,000 prompts; at most",
    Mixed: "Mixed.ask returned str; the class says that it proposes HardPrompt",
    Ids: "holds no prompt, or was changed after it was made",
    Forged: "Forged.proposes is",
    Badly: "expected ids of search examples",
    TellRaises: "TellRaises.tell failed: ZeroDivisionError: of my own",
    Exits: "Exits.ask failed: SystemExit: 3",
    Base: "Base.ask failed: BaseException: of no kind",
    Recurses: "Recurses.ask failed: RecursionError",
    Unreadable: "Unreadable.ask failed: Mute: (its message cannot be read)",
    Records: "Records.ask failed: RecordError: the log is damaged",
    NoState: "NoState.state failed: AttributeError",
    Complex: "Complex.state failed: AttributeError",
    Training: "and a `Training`, or None, as `training`, got int and int",
    Trainable: "expected a whole number as `trainable`",
    Proposes: (
        "Proposes.proposes is \"<class 'promptsearch.prompts.hard.HardPrompt'>\": write a set "
        "of kinds of prompt"
    ),
    Accesses: "Accesses.access is 'scores': write one of Access.SCORES",
    Finalists: "Finalists.finalists is '3': write a whole number of at least 1",
    Twice: "Twice.deterministic is 'no': write True or False",
}


def test_whatever_part_of_the_contract_is_broken_only_its_own_runs_fail(
    tmp_path, films, honest, monkeypatch
):
    found = study(
        tmp_path,
        films,
        [*(f"{__name__}:{each.__name__}" for each in BROKEN), "random"],
        monkeypatch,
    )
    assert numbers(found["random"]) == numbers(honest["random"])
    for broken, message in BROKEN.items():
        result = found[broken.__name__]
        assert result["status"] == "failed" and message in result["error"], (broken, result)


class Meddles(Samples):
    """Changes all that it can around it."""

    def ask(self):
        import os
        import random
        import warnings

        os.chdir("/")
        np.random.seed(1), random.seed(1), torch.manual_seed(1)  # noqa: B018
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        return super().ask()


def test_what_a_strategy_changes_around_it_is_put_back(tmp_path, films, honest, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    found = study(Path(), films, [f"{__name__}:Meddles", "random"], monkeypatch)
    assert Path.cwd() == tmp_path and torch.get_num_threads() == 1 and torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32 and np.geterr()["divide"] == "warn"
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and np.random.get_state()[1].tolist() == before[1]
    )
    assert numbers(found["random"]) == numbers(honest["random"])
    for key in ("search", "select", "test", "winner"):
        assert found["Meddles"][key] == honest["Samples"][key]


@pytest.mark.parametrize("access", list(Access))
def test_nothing_within_six_steps_of_an_objective_belongs_to_the_core(access, tmp_path):
    scorer = PlantedScorer("separable")
    cache = ScoreCache(tmp_path / "scores.sqlite")
    objective = scorer.objective(scorer.budget(20), log=RunLog(tmp_path), cache=cache)
    strategy = make_strategy("samples", Samples, objective, 0, {})
    objective.evaluate(strategy.ask())
    strategy.more = [
        objective.proposer,
        objective.log,
        objective.weights,
        objective.ledger,
        objective.examples([0]),
    ]
    strategy.seen = [
        objective.embeddings,
        objective.space.neighbours([int(objective.space.pool[0])], 2),
        objective.ranking,
    ]
    assert doors(strategy) == []
    strategy.more.append(lambda: scorer)
    assert doors(strategy) == ["Samples.more[5].<cell 0> is a PlantedScorer"]
    cache.close()


def test_what_is_handed_out_is_a_copy_or_cannot_be_changed():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(20))
    for array in (objective.scored, objective.training):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.setflags(write=True)
    objective.examples([0])[0].fields["text"] = "other"
    assert objective.demonstrations([0]) == scorer.demonstrations([0])
    objective.space.length, objective.space.decode = 9, None
    prompt = scorer.space.sample(np.random.default_rng(0), 1)[0]
    value = objective.evaluate([prompt]).values[0]
    objective.log.lines[0]["losses"][0][0] = 0.0
    objective.ranking[0].prompt.__dict__["ids"] = ()
    assert objective.ranking[0].prompt == prompt and np.mean(
        objective.log.lines[0]["losses"][0]
    ) == pytest.approx(value)
    with pytest.raises(AttributeError):
        objective.evaluate = None


def test_a_cache_entry_that_something_else_wrote_is_scored_again(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put("a", {"x": 1})
    assert cache.get("a") == {"x": 1}
    with sqlite3.connect(tmp_path / "scores.sqlite") as db:
        db.execute("insert into scores values ('b', '{\"x\": 2}')")
        db.execute("insert into scores select 'c', content from scores where name = 'a'")
    assert cache.get("b") is None and cache.get("c") is None
    cache.put("b", {"x": 3})
    assert cache.get("b") == {"x": 3}
    cache.close()


def test_an_objective_of_nothing_is_refused():
    from promptsearch.search.loop import search

    strategy = Samples.__new__(Samples)
    strategy.objective = "none"
    with pytest.raises(StrategyError, match="expected the objective of the run, got str"):
        search(strategy)


def test_the_bill_is_counted_anew_from_the_log():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(8))
    objective.evaluate(scorer.space.sample(np.random.default_rng(0), 4))
    objective.evaluate(scorer.space.sample(np.random.default_rng(1), 2), [20, 21])
    books = books_of(objective)

    def count():
        check_bill(books.ledger, books.log.lines, scorer, scorer.scored, scorer.space.length)

    count()
    books.ledger.forward -= scorer.budget(1)
    with pytest.raises(
        Tampered, match="what the search scored costs .* tokens at least, but its account says"
    ):
        count()
    books.ledger.forward = scorer.budget(9)
    with pytest.raises(
        Tampered, match="tokens were spent: a strategy must leave prices and ledger alone"
    ):
        count()
