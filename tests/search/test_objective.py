"""The books of the objective, whatever a strategy asks for.

Properties over random asks, budgets and failures.
"""

import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import (
    GatedPrompt,
    HardPrompt,
    PrefixPrompt,
    SoftPrompt,
    TextPrompt,
    TunedPrompt,
    Weights,
)
from promptsearch.errors import BudgetExhausted, PromptError, StrategyError
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.scoring.protocol import Adds
from promptsearch.search.books import books_of
from promptsearch.search.objective import FINALISTS, FREE_PROPOSALS, Objective
from promptsearch.testing.planted import PlantedScorer

PROMPTS = list(itertools.product(range(4), repeat=2))  # indices into a pool of 4
SETTINGS = settings(max_examples=40, deadline=None)


class Counting(PlantedScorer):
    """Counts what it scores; can be told to refuse."""

    calls = 0
    closed = False

    def score(self, prompts, examples):
        assert not self.closed, "the scorer was called although the scores were known"
        self.calls += 1
        return super().score(prompts, examples)


def scorer(failing=0.0):
    return Counting("pairwise", pool=4, length=2, examples=12, failing=failing)


asks = st.lists(
    st.tuples(
        st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=6),
        st.none() | st.lists(st.integers(6, 11), min_size=1, max_size=3, unique=True),
    ),
    min_size=1,
    max_size=12,
)
evaluations = st.floats(0, 25)
reserves = st.integers(0, 300)
failing = st.sampled_from([0.0, 0.4])


def drive(objective, asked):
    """Evaluate one ask after the other, as the loop does: the evaluations, and why it ended."""
    told = []
    for rows, examples in asked:
        try:
            told.append(objective.evaluate([objective.space.prompt(row) for row in rows], examples))
        except BudgetExhausted as end:
            return told, str(end)
    return told, None


def picture(objective, told, end):
    """All that must not depend on kills and caches."""
    spent = {
        name: value
        for name, value in objective.ledger.to_json().items()
        if name not in ("cached", "computed")
    }
    ranking = [(item.value, item.order, item.prompt) for item in objective.ranking]
    return (
        [repr(evaluation) for evaluation in told],
        end,
        spent,
        ranking,
        books_of(objective).to_json()["lead_paid"],
    )


def budgeted(source, share, reserve, **options):
    return source.objective(
        int(share * source.budget(1)), reserve=lambda lengths: reserve * lengths[0], **options
    )


@SETTINGS
@given(asks, evaluations, reserves, failing)
def test_the_budget_is_never_exceeded_and_selection_stays_payable(asked, share, reserve, fail):
    objective = budgeted(scorer(fail), share, reserve)
    seen = []
    books_of(objective).listener = lambda books: seen.append(books.ledger.left)
    drive(objective, asked)
    assert objective.ledger.spent <= objective.ledger.budget
    assert all(left >= 2 * reserve for left in seen)
    assert objective.ledger.spent == 0 or seen


@SETTINGS
@given(asks, evaluations, reserves, failing)
def test_each_line_is_charged_its_price_and_each_lead_once(asked, share, reserve, fail):
    source = scorer(fail)
    objective = budgeted(source, share, reserve)
    drive(objective, asked)
    total, met = 0, set()
    for line in objective.log.lines:
        ids = source.scored if line["examples"] == "score_on" else np.array(line["examples"])
        fresh = np.array([i for i in ids.tolist() if i not in met], dtype=np.int64)
        met.update(fresh.tolist())
        price = len(line["prompts"]) * int((source.context(ids) + 2).sum()) + int(
            source.lead(fresh).sum()
        )
        total += price
        assert line["price"] == price and line["ledger"]["forward"] == total
    assert objective.ledger.spent == objective.ledger.forward == total


@SETTINGS
@given(asks, failing)
def test_the_same_prompt_twice_is_free_and_gives_the_same_scores(asked, fail):
    source = scorer(fail)
    objective = source.objective()
    first, _ = drive(objective, asked)
    spent, calls = objective.ledger.spent, source.calls
    source.closed = True
    again, end = drive(objective, asked)
    assert end is None and (objective.ledger.spent, source.calls) == (spent, calls)
    for one, other in zip(first, again, strict=True):
        assert other.price == other.computed == 0
        np.testing.assert_array_equal(one.losses, other.losses)
        np.testing.assert_array_equal(one.values, other.values)
        assert one.failures == other.failures
    keys = [
        (prompt["key"], str(line["examples"]))
        for line in objective.log.lines
        for prompt in line["prompts"]
    ]
    assert len(keys) == len(set(keys))


@SETTINGS
@given(st.permutations(PROMPTS), st.integers(0, 15), st.integers(0, 200), reserves)
def test_an_ask_beyond_the_budget_is_scored_in_order_as_far_as_it_reaches(
    rows, count, spare, reserve
):
    source = scorer()
    each = source.budget(1) - source.budget(0)
    budget = source.budget(count) + 2 * reserve + spare % each
    objective = source.objective(budget, reserve=lambda lengths: reserve * lengths[0])
    with pytest.raises(
        BudgetExhausted, match=f"16 prompts were asked for and {count} could be paid"
    ):
        objective.evaluate([source.space.prompt(row) for row in rows])
    scored = [tuple(prompt["ids"]) for line in objective.log.lines for prompt in line["prompts"]]
    assert scored == [source.space.prompt(row).ids for row in rows[:count]]
    assert len(objective.ranking) == min(count, FINALISTS)
    assert objective.affordable(2) == 0


def test_a_long_text_is_passed_over_for_shorter_ones_behind_it_until_none_of_an_ask_fits():
    source = scorer()
    short, long = [TextPrompt(f"w{i} w{i}") for i in range(9)], TextPrompt(" ".join(["w1"] * 99))
    budget = source.budget(7)

    def told(objective):
        first = objective.evaluate([short[0], long, short[1], short[2], long])
        second = objective.evaluate([long, *short[3:5]])
        with pytest.raises(BudgetExhausted, match="5 prompts were asked for and 2 could be paid"):
            objective.evaluate([long, *short[5:]])
        return first, second

    with tempfile.TemporaryDirectory() as name:
        whole = source.objective(budget, log=RunLog(Path(name)))
        first, second = told(whole)
        for evaluation, places in ((first, [1, 4]), (second, [0])):
            assert list(evaluation.failures) == places and evaluation.unpaid == len(places)
            assert np.isnan(evaluation.losses[places]).all()
            assert np.isinf(evaluation.values[places]).all()
            assert np.isfinite(np.delete(evaluation.values, places)).all()
        assert whole.ledger.spent == budget
        source.closed = True
        resumed = source.objective(budget, log=RunLog(Path(name)))
        assert repr(told(resumed)) == repr((first, second)) and resumed.ledger == whole.ledger


@SETTINGS
@given(asks, failing)
def test_the_incumbent_never_gets_worse_and_the_ranking_holds_the_best(asked, fail):
    objective = scorer(fail).objective()
    best, values = [], {}
    for rows, examples in asked:
        prompts = [objective.space.prompt(row) for row in rows]
        evaluation = objective.evaluate(prompts, examples)
        best.append(objective.ranking[0].value if objective.ranking else float("inf"))
        if examples is None:
            values.update(
                {p: v for p, v in zip(prompts, evaluation.values, strict=True) if np.isfinite(v)}
            )
    assert best == sorted(best, reverse=True)
    # Ties go to the earlier one, and a dict keeps the order of first entry.
    expected = sorted(values.items(), key=lambda item: item[1])[:FINALISTS]
    assert [(item.prompt, item.value) for item in objective.ranking] == expected
    assert objective.finalists() == list(objective.ranking)


@SETTINGS
@given(asks, failing)
def test_values_are_mean_losses_and_failures_are_infinite_and_unscored(asked, fail):
    source = scorer(fail)
    for (rows, examples), evaluation in zip(
        asked, drive(source.objective(), asked)[0], strict=True
    ):
        ids = source.scored if examples is None else np.array(examples)
        expected = source.score([source.space.prompt(row) for row in rows], ids)
        np.testing.assert_array_equal(evaluation.examples, ids)
        np.testing.assert_allclose(evaluation.losses, expected.losses, atol=1e-6)
        assert sorted(evaluation.failures) == sorted(expected.failures)
        for i, value in enumerate(evaluation.values):
            failed = i in evaluation.failures
            assert value == (np.inf if failed else evaluation.losses[i].mean())
            assert (
                np.isnan(evaluation.losses[i]).all()
                == np.isnan(evaluation.metric[i]).all()
                == failed
            )
        assert not any(
            i in evaluation.failures
            for i in range(len(rows))
            if source.space.prompt(rows[i]) == source.optimum
        )


@SETTINGS
@given(asks, evaluations, reserves, failing, st.integers(0, 12))
def test_a_replay_gives_the_same_books_without_scoring_what_the_log_knows(
    asked, share, reserve, fail, lost
):
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "evaluations.jsonl"
        whole = budgeted(scorer(fail), share, reserve, log=RunLog(Path(name)))
        expected = picture(whole, *drive(whole, asked))
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        kept = max(0, len(lines) - lost)
        log.write_bytes(b"".join(lines[:kept]))
        source = scorer(fail)
        resumed = budgeted(source, share, reserve, log=RunLog(Path(name)))
        assert picture(resumed, *drive(resumed, asked)) == expected
        assert source.calls == len(lines) - kept
        assert resumed.ledger == whole.ledger


@SETTINGS
@given(asks, failing, st.integers(0, 12))
def test_saved_books_and_the_rest_of_the_log_give_the_same_books(asked, fail, at):
    with tempfile.TemporaryDirectory() as name:
        at = min(at, len(asked))
        whole = scorer(fail).objective(log=RunLog(Path(name)))
        early, _ = drive(whole, asked[:at])
        saved = books_of(whole).to_json()
        late, _ = drive(whole, asked[at:])
        source = scorer(fail)
        source.closed = True
        resumed = source.objective(log=RunLog(Path(name)))
        books_of(resumed).recover(saved)
        assert picture(resumed, early + drive(resumed, asked[at:])[0], None) == picture(
            whole, early + late, None
        )
        assert books_of(resumed).to_json() == books_of(whole).to_json()


@SETTINGS
@given(asks, evaluations, reserves, failing)
def test_a_full_cache_gives_the_same_numbers_and_is_charged(asked, share, reserve, fail):
    with tempfile.TemporaryDirectory() as name:
        cache = ScoreCache(Path(name) / "scores.db")
        cold = budgeted(scorer(fail), share, reserve, cache=cache)
        expected = picture(cold, *drive(cold, asked))
        source = scorer(fail)
        warm = budgeted(source, share, reserve, cache=cache)
        assert picture(warm, *drive(warm, asked)) == expected
        cache.close()
        assert source.calls == sum(
            bool(line["failures"]) for line in warm.log.lines
        )  # failures are never cached
        assert warm.ledger.cached == sum(
            line["price"] for line in warm.log.lines if not line["failures"]
        )


@pytest.mark.parametrize("batch", [1, 8])
def test_a_thousand_free_proposals_in_a_row_end_the_run(batch, unguarded):
    objective = scorer().objective()
    known = [objective.space.prompt(row) for row in PROMPTS[:batch]]
    objective.evaluate(known)
    for _ in range(FREE_PROPOSALS // batch - 1):
        objective.evaluate(known)
    objective.evaluate(
        [objective.space.prompt(PROMPTS[-1])]
    )  # something new: the count starts again
    for _ in range(FREE_PROPOSALS // batch - 1):
        objective.evaluate(known)
    with pytest.raises(BudgetExhausted, match="1000 proposals in a row had all been scored before"):
        objective.evaluate(known)


def test_a_repeat_beside_a_new_prompt_is_free():
    objective = scorer().objective()
    one, two = (objective.space.prompt(row) for row in PROMPTS[:2])
    objective.evaluate([one])
    evaluation = objective.evaluate([one, two, one, two])
    assert evaluation.price == objective.price([two])
    assert (
        evaluation.values[0] == evaluation.values[2]
        and evaluation.values[1] == evaluation.values[3]
    )


def test_scores_on_other_examples_never_rank():
    objective = scorer().objective()
    objective.evaluate([objective.space.prompt(PROMPTS[0])], objective.training)
    assert not objective.ranking


def test_minibatches_hold_none_of_the_scored_examples():
    objective = scorer().objective()
    rng = np.random.default_rng(0)
    drawn = [objective.minibatch(rng, 4) for _ in range(100)]
    assert set(np.concatenate(drawn)) == set(objective.training) and not set(
        np.concatenate(drawn)
    ) & set(objective.scored)
    assert all(len(set(batch)) == 4 for batch in drawn)
    assert len(objective.minibatch(rng, 50)) == 50  # more than there are: with replacement


def test_what_is_told_cannot_change_the_books():
    objective = scorer().objective()
    prompt = objective.space.prompt(PROMPTS[3])
    evaluation = objective.evaluate([prompt])
    before = evaluation.losses.copy()
    for array in (evaluation.values, evaluation.losses, evaluation.metric, evaluation.examples):
        array[:] = 0
    np.testing.assert_array_equal(objective.evaluate([prompt]).losses, before)


def test_a_gradient_step_is_charged_forward_backward_and_the_lead_forward_once():
    source = scorer()
    objective = source.objective()
    vectors = torch.zeros(2, 8, requires_grad=True)
    ids = np.array([7, 9])
    tokens = int(source.context(ids).sum()) + 2 * 2
    for step in (1, 2):
        objective.loss(vectors, ids).backward()
        assert objective.ledger.backward == step * tokens
        assert objective.ledger.forward == step * tokens + int(source.lead(ids).sum())
    assert vectors.grad.abs().sum() > 0


def test_a_strategy_that_needs_scores_only_is_handed_no_white_box():
    source = scorer()
    objective = Objective(
        source,
        source.space,
        Ledger(None),
        scored=source.scored,
        training=source.training,
        white_box=False,
    )
    for look in (
        lambda: objective.weights,
        lambda: objective.keys_values([1]),
        lambda: objective.states([[1]]),
        lambda: objective.backward(torch.zeros(2, 8)),
        lambda: objective.loss(torch.zeros(2, 8), [7]),
        lambda: objective.token_gradient(source.optimum, [7]),
    ):
        with pytest.raises(StrategyError, match="it asks for .* needs scores only: set 'access'"):
            look()
    # What its prompts must look like, it may know; and whatever it proposes can be scored.
    assert objective.prefix_shape == source.prefix_shape
    assert torch.equal(objective.embeddings, source.embeddings)
    assert not objective.evaluate([SoftPrompt(torch.zeros(2, 8)), Weights({})]).failures
    assert objective.ledger.backward == 0


def test_a_gradient_step_that_cannot_be_paid_changes_nothing():
    source = scorer()
    ids = np.array([7, 9])
    price = 2 * (int(source.context(ids).sum()) + 2 * 2) + int(source.lead(ids).sum())
    vectors = torch.zeros(2, 8)
    source.objective(price + 20, reserve=lambda lengths: 10 * lengths[0]).loss(vectors, ids)
    objective = source.objective(price + 19, reserve=lambda lengths: 10 * lengths[0])
    with pytest.raises(
        BudgetExhausted, match=f"{price} tokens are wanted and 20 are set aside for selection"
    ):
        objective.loss(vectors, ids)
    assert objective.ledger.spent == 0 and books_of(objective).to_json()["lead_paid"] == []


def test_the_keys_and_values_of_a_text_are_charged_by_the_token():
    objective = scorer().objective(24, reserve=lambda lengths: 10 * lengths[0])
    assert tuple(objective.keys_values([1, 2, 3]).shape) == (3, *objective.prefix_shape)
    assert (objective.ledger.forward, objective.ledger.computed, objective.ledger.backward) == (
        3,
        3,
        0,
    )
    with pytest.raises(
        BudgetExhausted, match="3 tokens are wanted and 20 are set aside for selection"
    ):
        objective.keys_values([1, 2, 3])
    assert objective.ledger.spent == 3


def test_states_of_rows_are_charged_by_the_token_with_one_before_each_row():
    objective = scorer().objective(24, reserve=lambda lengths: 10 * lengths[0])
    assert tuple(objective.states([[1, 2], []]).shape) == (2, 8)
    assert (objective.ledger.forward, objective.ledger.computed) == (4, 4)
    with pytest.raises(BudgetExhausted, match="5 tokens are wanted and 20 are set aside"):
        objective.states([[1, 2, 3, 4]])
    assert objective.ledger.spent == 4


class Beside(PlantedScorer):
    """Whose prompts stand beside the text: a token of it costs an eighth more for each position."""

    def adds(self, length):
        return Adds(0, length / 8)


@pytest.mark.parametrize("layers", [None, 1, 2])
def test_a_step_beside_the_text_pays_for_its_attention_and_twice_for_the_gradient_of_it(layers):
    """A prefix (None), or a gated prompt: its gradient crosses its own layers only."""
    source = Beside("pairwise", pool=4, length=2, examples=12)
    objective, ids = source.objective(), np.array([7, 9])
    numbers = torch.zeros(2, *source.prefix_shape)
    prompt, share = PrefixPrompt(numbers), 1.0
    if layers:
        numbers = torch.zeros(2, layers, 8), torch.zeros(layers, 2)
        prompt, share = GatedPrompt(*numbers), layers / 2
    text, lead = int(source.context(ids).sum()), int(source.lead(ids).sum())
    forward = text + math.ceil(text / 4) + lead
    assert objective.price([prompt], ids) == forward
    assert objective.training_price(prompt) == source.context(objective.training).sum() * 1.25
    assert objective.backward(numbers) == share * 1.5 / 1.25
    objective.loss(numbers, ids)
    ledger = objective.ledger
    assert (ledger.forward, ledger.backward) == (forward, math.ceil(share * text * 1.5))
    once = math.ceil(text * (1 - share)) + lead
    assert ledger.computed == 2 * share * text + once, "given keys and values are not computed"
    objective.loss(numbers, ids)
    assert objective.ledger.computed == 4 * share * text + once, "the layers below, once"


def test_the_price_of_a_text_depends_on_its_length():
    objective = scorer().objective()
    short, long = objective.price([TextPrompt("a")]), objective.price([TextPrompt("a b c")])
    assert long - short == 2 * len(objective.scored)


@pytest.mark.parametrize("budget", [None, 0, 1, 700, 5000])
def test_affordable_is_what_can_be_paid(budget):
    source = scorer()
    objective = source.objective(budget, reserve=lambda lengths: 30 * lengths[0])
    count = objective.affordable(2)
    if budget is None:
        assert count > 10**12
        return
    prompts = [objective.space.prompt(row) for row in PROMPTS]
    payable = len(prompts)
    try:
        objective.evaluate(prompts)
    except BudgetExhausted:
        payable = sum(len(line["prompts"]) for line in objective.log.lines)
    assert payable == min(count, len(prompts))


def test_time_over_ends_the_run_but_not_a_replay(tmp_path):
    source = scorer()
    whole = source.objective(log=RunLog(tmp_path))
    drive(whole, [([row], None) for row in PROMPTS[:3]])
    resumed = source.objective(log=RunLog(tmp_path))
    books_of(resumed).seconds = -1.0
    told, end = drive(resumed, [([row], None) for row in PROMPTS[:5]])
    assert len(told) == 3 and end == "the run's -1 seconds are over"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (HardPrompt([1]), "a hard prompt here has 2 tokens, got 1"),
        (HardPrompt([999, 999]), r"the tokens \[999, 999\] are not in the pool of 4 tokens"),
        (SoftPrompt(torch.zeros(3, 8)), r"a soft prompt here has shape \(2, 8\), got \(3, 8\)"),
        (SoftPrompt(torch.zeros(2, 9)), r"a soft prompt here has shape \(2, 8\), got \(2, 9\)"),
        (
            PrefixPrompt(torch.zeros(3, 2, 2, 1, 8)),
            r"a prefix prompt here has shape \(2, 2, 2, 1, 8\), got \(3, 2, 2, 1, 8\)",
        ),
        (
            GatedPrompt(torch.zeros(3, 1, 8), torch.zeros(1, 2)),
            r"a gated prompt here has shape \(2, 1, 8\) and \(1, 2\), got \(3, 1, 8\) and \(1, 2\)",
        ),
        (
            GatedPrompt(torch.zeros(2, 3, 8), torch.zeros(3, 1)),
            r"a gated prompt here has shape \(2, 2, 8\) and \(2, 1\), got \(2, 3, 8\) and \(3, 1\)",
        ),
        (
            TunedPrompt({"vectors": torch.zeros(3, 8)}),
            r"a tuned prompt here has shape \(2, 8\), got \(3, 8\)",
        ),
        (
            PrefixPrompt(torch.zeros(2, 3, 2, 1, 8)),
            r"a prefix prompt here has shape \(2, 2, 2, 1, 8\), got \(2, 3, 2, 1, 8\)",
        ),
    ],
)
def test_a_prompt_outside_the_space_is_refused_before_anything_is_charged(prompt, message):
    objective = scorer().objective()
    with pytest.raises(StrategyError, match=message):
        objective.evaluate([objective.space.prompt(PROMPTS[0]), prompt])
    assert objective.ledger.spent == 0


def test_weights_that_the_model_does_not_have_are_refused_with_and_without_vectors():
    objective = scorer().objective()
    for prompt in (
        Weights({"x.y": torch.zeros(1)}),
        TunedPrompt({"vectors": torch.zeros(2, 8), "x.y": torch.zeros(1)}),
    ):
        with pytest.raises(PromptError, match="belong to nothing in this model"):
            objective.evaluate([prompt])
    assert objective.ledger.spent == 0


def test_a_step_of_a_tuned_prompt_crosses_all_layers_and_pays_its_weights():
    source = scorer()
    objective = source.objective()
    numbers = {"vectors": torch.zeros(2, 8), "norm.weight": torch.ones(8)}
    ids = np.array([7, 9])
    tokens, lead = int(source.context(ids).sum()) + 2 * 2, int(source.lead(ids).sum())
    assert objective.price([TunedPrompt(numbers)], ids) == tokens + lead
    objective.loss(numbers, ids)
    share = 8 / source.weights.total
    ledger = objective.ledger
    assert (ledger.forward, ledger.backward) == (tokens + lead, math.ceil((1 + share) * tokens))
    assert ledger.computed == math.ceil((2 + share) * tokens) + lead
    assert objective.backward({"norm.weight": torch.ones(8)}) == share, (
        "without vectors nothing below is crossed"
    )


@pytest.mark.parametrize("examples", [[], [12], [-1], [0.5], [[1, 2]], ["a"], 3])
def test_examples_that_do_not_exist_are_refused_before_anything_is_charged(examples):
    objective = scorer().objective()
    with pytest.raises(
        StrategyError, match="expected ids of search examples, whole numbers from 0 to 11"
    ):
        objective.evaluate([objective.space.prompt(PROMPTS[0])], examples)
    assert objective.ledger.spent == 0


def test_ids_of_all_examples_are_paid_apart_from_none_and_once():
    """So that a run of an older log goes on at the same prices."""
    objective = scorer().objective()
    prompts = [objective.space.prompt(PROMPTS[0])]
    assert objective.evaluate(prompts).price > 0
    assert objective.evaluate(prompts, objective.scored).price > 0
    assert objective.evaluate(prompts, objective.scored).price == 0


def test_an_empty_ask_is_refused():
    with pytest.raises(StrategyError, match="at least one prompt"):
        scorer().objective().evaluate([])


def test_what_is_brought_is_on_the_bill_but_not_of_the_budget():
    ledger = Ledger(100, brought=70)
    assert (ledger.spent, ledger.left) == (70, 100)
    ledger.charge(forward=60, backward=40)
    assert (ledger.spent, ledger.left, ledger.to_json()["brought"]) == (170, 0, 70)
    with pytest.raises(BudgetExhausted):
        ledger.charge(forward=1)
