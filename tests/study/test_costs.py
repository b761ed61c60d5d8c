"""What a run may cost in money: it ends like the budget does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from promptsearch import Task, compare
from promptsearch.errors import BudgetExhausted, StudyError
from promptsearch.models.endpoint import Endpoint, Price
from promptsearch.models.remote import ServedModel
from promptsearch.records.ledger import Fare, Ledger, Rates
from promptsearch.search.proposer import RemoteProposing
from promptsearch.study.config import parse_config
from promptsearch.study.costs import cost_of, fare_of, flops_of
from promptsearch.testing.server import Server
from promptsearch.testing.serving import served_study, with_model


@pytest.fixture(scope="module")
def task():
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(24)]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 12, "select": 6, "test": 6},
        name="films",
    )


def study(server, price, strategies=("random",), *, model=(), **changes):
    given = {"budget": 1_000_000, **changes}
    return served_study(server, strategies, model={"price": price, **dict(model)}, **given)


def run_of(server, task, out, *given, **changes):
    (run,) = compare(study(server, *given, **changes), out=out, task=task).runs
    return run


def test_a_cost_ends_a_run_where_the_budget_that_it_buys_does(tiny, task, tmp_path):
    with Server(with_model(tiny)) as server:
        price = {"input": 2.0, "output": 0}
        by_tokens = run_of(server, task, tmp_path / "a", price, budget=3_000)
        by_money = run_of(server, task, tmp_path / "b", price, max_cost=3_000 * 2e-6)
    assert by_money.winner == by_tokens.winner and by_money.test.loss == by_tokens.test.loss
    assert by_money.spent == by_tokens.spent > 2_500 and by_money.proposals > 5
    # What it cost is recorded and shown, whether or not it had a limit.
    assert by_money.cost == by_tokens.cost == pytest.approx(by_money.spent * 2e-6)
    page = (tmp_path / "a" / "report.md").read_text()
    assert "| tokens | cost | seconds |" in page and f"| {by_money.cost:.3g} |" in page
    assert "- **cost**: the most that the charged tokens" in page
    html = (tmp_path / "a" / "report.html").read_text()
    assert f'<td data-value="{by_money.cost}">{by_money.cost:.3g}</td>' in html


@pytest.mark.parametrize("lists", [True, False])
def test_what_is_really_asked_costs_no_more(tiny, task, lists, tmp_path):
    """Prices of written tokens count, be they those of answers or the one behind an echo."""
    most, price = 0.008, {"input": 1.0, "output": 10.0}
    lm = with_model(tiny, echo="straight" if lists else "none", lists=lists)
    with Server(lm) as server:
        run = run_of(server, task, tmp_path, price, max_cost=most)
        begun = [r for r in server.requests if "It was" in r["prompt"]]
    read = sum(len(tiny.encode(r["prompt"], begins=True)) for r in begun)
    written = sum(int(r["max_tokens"]) for r in begun)
    tested = 6 * (2 if lists else 1)
    share = (len(begun) - tested) / len(begun)  # the look at the test split is on no bill
    real = share * (read * 1.0 + written * 10.0) / 1e6
    assert 0.2 * most < real <= most and run.proposals > 5


def test_a_proposer_has_its_own_price():
    ledger = Ledger(1_000, rates=Rates(most=1.0, model=0.001, proposer=0.01))
    ledger.charge(forward=400, proposer=20)
    assert ledger.cost == pytest.approx(0.6) and 399 <= ledger.left <= 400
    with pytest.raises(BudgetExhausted, match="may cost 0.41, but 0.4 of the max_cost of 1 are"):
        ledger.check(0, 0, 41)
    ledger.check(0, 0, 40)
    with pytest.raises(BudgetExhausted, match="max_cost"):
        ledger.charge(forward=300, reserve=101)
    free = Ledger(1_000, rates=Rates(most=1.0, proposer=0.01))
    assert free.left == 1_000 and free.to_json() == Ledger(1_000).to_json()
    with pytest.raises(BudgetExhausted, match="of 1000 are left"):
        free.charge(forward=1_001)


def test_a_cost_is_part_of_what_a_folder_holds(tiny, task, tmp_path):
    price = {"input": 2.0, "output": 8.0}
    with Server(with_model(tiny)) as server:
        run_of(server, task, tmp_path, price, max_cost=0.01)
        with pytest.raises(StudyError, match="max_cost was 0.01, now it is 0.02"):
            run_of(server, task, tmp_path, price, max_cost=0.02)


def test_a_cost_without_a_price_and_impossible_prices_are_refused():
    given = study(type("Server", (), {"url": "http://localhost:1/v1"}), None, max_cost=1)
    with pytest.raises(StudyError, match="'max_cost' needs a price: give the endpoint"):
        parse_config(given)
    for price in ({"input": -1, "output": 0}, {"input": 1}, 3):
        with pytest.raises(StudyError, match="price"):
            parse_config({**given, "model": {**given["model"], "price": price}})
    proposer = {**given["model"], "price": {"input": 1, "output": 2}}
    assert parse_config({**given, "model": "a", "proposer": proposer}).max_cost == 1


def served(price=None, parameters=None):
    end = Endpoint("http://localhost:1/v1", "m", price=price and Price(*price))
    return ServedModel(end, words=[" a"], parameters=parameters)


def test_a_proposer_costs_by_its_price_or_else_by_its_size(tiny):
    assert fare_of(tiny, tiny) == Fare()
    own, theirs = served((2e-6, 5e-6), 10**9), served((1e-6, 8e-6), 7 * 10**9)
    assert fare_of(theirs, own) == Fare(0.5, 4.0, "price")
    assert fare_of(served(parameters=7 * 10**9), own) == Fare(7.0, 7.0, "parameters")
    larger = fare_of(served((1e-6, 8e-6), 5 * tiny.flops.token), tiny)
    assert larger == Fare(10.0, 10.0, "parameters"), "two FLOPs a weight"
    for other in (served(), served((0.0, 0.0))):
        assert fare_of(other, tiny) == Fare(1.0, 1.0, "unknown")


@pytest.mark.parametrize("fare", [Fare(), Fare(3.0, 3.0, "parameters")])
def test_flops_follow_from_what_is_charged(tiny, fare):
    arena = SimpleNamespace(lm=tiny)
    ledger = Ledger(forward=100, backward=50, proposer=30)
    assert flops_of(arena, fare, ledger) == 180 * tiny.flops.token
    # What a token of the proposer takes is not known.
    assert flops_of(arena, Fare(by="unknown"), ledger) is None
    assert flops_of(arena, Fare(by="unknown"), Ledger(forward=1)) == tiny.flops.token
    assert flops_of(SimpleNamespace(lm=served()), fare, ledger) is None


def test_what_a_fare_brings_onto_the_bill_costs_no_more_money(tiny):
    price, fare = Price(1e-6, 8e-6), Fare(10.0, 10.0, "parameters")
    proposing = RemoteProposing(served(price).endpoint)
    exact = {"search": None, "select": None}
    arena = SimpleNamespace(
        task=SimpleNamespace(kind="choices"), follows=None, by_metric=False, exact=exact
    )
    charged = Ledger(proposer=fare.of(200, 30))
    assert cost_of(arena, proposing, fare, charged) == pytest.approx(230 * 8e-6)
