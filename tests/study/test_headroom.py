"""What a search can gain is said beforehand, and holds where the truth is known."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from promptsearch import SoftPrompt, TextPrompt, compare
from promptsearch.cli import app
from promptsearch.records.headroom import HEADROOM, GainRecord
from promptsearch.records.load import load_results
from promptsearch.records.sealed import write_record
from promptsearch.report.forecast import print_forecast
from promptsearch.report.foreseen import said
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.slim import write_slim_record
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.headroom import headroom
from promptsearch.study.prepare import prepare
from promptsearch.study.room import (
    by_group,
    gain_of_vectors,
    gain_of_words,
    gain_record,
    noise_of,
    scatter_of,
)
from promptsearch.study.run import Run
from promptsearch.testing.planted import PlantedScorer
from strategies.exemplars import Exemplars

pytestmark = pytest.mark.usefixtures("unreported")

#: Random prompts and examples of a look; prompts and examples of a search, examples to judge it by.
PROMPTS, EXAMPLES, TRIED, SCORED, JUDGED = 24, 96, 300, 64, 2_000


class World:
    """Prompts whose true worth is known: right with a chance, or with losses of a long bad tail.

    Args:
        scatter: The deviation of random prompts' worth.
        best: The worth of the best control above the median of random prompts.
    """

    def __init__(self, scatter, best, seed, binary=True):
        self.rng, self.scatter, self.binary = np.random.default_rng(seed), scatter, binary
        self.controls = best - np.array([0.0, 0.3, 0.6]) * abs(scatter)
        self.difficulty = self.rng.normal(size=EXAMPLES + SCORED + JUDGED)

    def random(self, count):
        worth = self.scatter * self.rng.normal(size=count)
        return worth if self.binary else np.where(worth < 0, 3 * worth, worth)

    def mean(self, worth, ids):
        hard = worth[:, None] + self.difficulty[ids]
        return 1 / (1 + np.exp(-hard)) if self.binary else hard

    def scores(self, worth, ids):
        mean = self.mean(worth, ids)
        noise = self.rng.random(mean.shape), self.rng.normal(size=mean.shape)
        return (noise[0] < mean).astype(float) if self.binary else mean + noise[1]

    def forecast(self):
        ids = np.arange(EXAMPLES)
        table, controls = (self.scores(w, ids) for w in (self.random(PROMPTS), self.controls))
        return gain_record([gain_of_words(table, controls, TRIED, SCORED, self.rng)])

    def truth(self):
        """What a random search gains over the control that looked best on the same examples."""
        ids, rest = np.arange(EXAMPLES, EXAMPLES + SCORED), np.arange(-JUDGED, 0)
        tried = self.random(TRIED)
        found = [w[self.scores(w, ids).mean(1).argmax()] for w in (tried, self.controls)]
        best, control = self.mean(np.array(found), rest).mean(1)
        return best - control


@pytest.mark.parametrize(
    ("scatter", "best", "binary"), [(0.3, 0.4, True), (0.3, 0.2, False), (0.6, 1.5, True)]
)
def test_the_interval_holds_what_a_search_gains(scatter, best, binary):
    held = []
    for seed in range(40):
        world = World(scatter, best, seed, binary)
        gain = world.forecast()
        held.append(gain.low <= world.truth() <= gain.high)
    assert np.mean(held) >= 0.85


def test_no_room_is_no_room_and_room_is_room():
    for scatter, best, least, most in ((0.0, 0.0, 0, 2), (0.3, 1.5, 0, 1), (0.8, 0.0, 19, 20)):
        rooms = sum(World(scatter, best, seed).forecast().room for seed in range(20))
        assert least <= rooms <= most, (scatter, best)


@pytest.mark.parametrize(("optimum", "room"), [(True, False), (False, True)])
def test_on_a_planted_landscape_there_is_room_up_to_the_optimum(optimum, room):
    scorer = PlantedScorer("separable", noise=0.05)
    rng = np.random.default_rng(0)
    prompts, ids = scorer.space.sample(rng, PROMPTS), np.arange(32)
    table = -scorer.score(prompts, ids).losses
    control = scorer.optimum if optimum else prompts[int(np.argsort(table.mean(1))[PROMPTS // 2])]
    controls = -scorer.score([control], ids).losses
    assert gain_record([gain_of_words(table, controls, 300, 32, rng)]).room == room


def test_two_kinds_without_a_gain_make_room_no_more_often_than_one():
    """Each estimate is off by luck: the greater of two is above 0 more often."""
    rng, room = np.random.default_rng(0), [0, 0]
    for _ in range(1000):
        centres = rng.normal(size=2)
        kinds = [centre + rng.normal(size=1000) for centre in centres]
        for count in (1, 2):
            room[count - 1] += gain_record(kinds[:count]).room
    assert 20 < room[0] < 80 and room[1] < 80


def test_examples_of_one_group_count_as_one():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(24, 12))
    assert by_group(scores, None) is scores
    copies = np.repeat(scores, 5, axis=1)
    groups = [place // 5 for place in range(60)]
    assert np.allclose(by_group(copies, groups), scores)
    uneven = [0] * 7 + list(range(1, 54))
    assert np.allclose(by_group(copies, uneven).mean(1), copies.mean(1))


def test_luck_is_taken_off_the_scatter_and_off_what_a_search_finds():
    rng = np.random.default_rng(0)
    worth, luck = rng.normal(0, 0.1, 2_000), rng.normal(0, 0.2, 2_000)
    assert scatter_of(worth + luck, 0.0) == pytest.approx(0.224, rel=0.05)
    assert scatter_of(worth + luck, 0.04) == pytest.approx(0.1, rel=0.2)
    table = worth[:PROMPTS, None] + rng.normal(size=(PROMPTS, 2_000))
    assert noise_of(table) == pytest.approx(1, rel=0.05)
    few, many = (
        gain_record([gain_of_words(table, table[:1], 300, size, np.random.default_rng(1))]).gain
        for size in (16, 4_096)
    )
    assert many - few > 0.08  # rho is 0.37 on 16 examples, and 0.99 on 4,096


def test_a_trained_prompt_gains_what_it_is_better_by():
    rng = np.random.default_rng(0)
    controls, choosing = rng.normal(size=(2, 3, 200))
    controls[1], choosing[1] = controls[1] + 1, choosing[1] + 1  # the one that will be chosen
    gain = gain_record([gain_of_vectors(controls[1] + 0.5, controls, choosing, rng)])
    assert gain.low == pytest.approx(0.5) == gain.high and gain.room
    both = gain_record([np.zeros(4), np.ones(4)])
    assert (both.low, both.gain, both.high) == (1, 1, 1)


def study(**changes):
    rows = [
        {"manual": {"prompts": ["good movie?", "It was"]}},
        "random",
        {"prompt_tuning": {"interval": 2, "batch": 4}},
    ]
    return parse_config(
        {
            **{"name": "s", "model": "given", "task": "films", "budget": 9_000, "length": 2},
            **{"score_on": 8, "strategies": rows, **changes},
        }
    )


@pytest.fixture(scope="module")
def looked(tiny, films):
    """The forecast of a study with a look at what searches can gain."""
    return forecast(study(), tiny, films, look=True)


def test_a_look_scores_controls_and_random_prompts_on_search_and_select(looked, tiny, films):
    (found,) = looked.headroom.tasks
    assert (found.task, found.measure, found.prompts) == ("films", "accuracy", 24)
    shots = max(found.controls, key=len)
    assert set(found.controls) == {"", "good movie?", "It was", shots}
    assert shots.count("It was") == 4  # solved examples
    assert 16 <= found.search <= 20 and (found.select, found.untrained) == (16, "")
    assert 0 <= found.trained <= 1 and found.words and found.vectors
    assert found.best.gain >= max(found.words.low, found.vectors.low)
    tried = next(run.proposals for run in looked.runs if run.label == "random")
    assert found.evaluations == tried

    arena = prepare(study(), tiny, films).arena(films)
    texts = ["", "good movie?", "It was", shots]
    prompts = [TextPrompt(text) for text in texts]
    scores = arena.exact["search"].score(prompts, np.arange(20)).metric
    first = dict(zip(texts, scores.mean(1), strict=True))  # the first 32 examples are 20 here
    whole = dict(zip(texts, scores[:, : found.search].mean(1), strict=True))
    leader = max(texts, key=first.__getitem__)
    for text in texts:  # one that is clearly behind is scored on no more, and stays as far behind
        assert found.controls[text] in (
            pytest.approx(whole[leader] - (first[leader] - first[text])),
            pytest.approx(whole[text]),
        )


def test_a_control_that_is_behind_on_easy_examples_is_not_the_best_by_their_ease(
    tiny, films, monkeypatch
):
    """The first examples are easy: whoever was scored on these alone has a high mean."""
    rows = [{"manual": {"prompts": ["good movie?", "It was"]}}, "random"]
    task = many(films)
    prepared = prepare(study(strategies=rows, budget=10**6), tiny, task)
    arena, easy = prepared.arena(task), 32
    score = arena.exact["search"].score

    def scored(prompts, ids):
        found = score(prompts, ids)
        right = np.where(np.arange(100) < easy, 1.0, 0.5)[ids] * np.ones((len(prompts), 1))
        for row, prompt in zip(right, prompts, strict=True):
            if prompt == TextPrompt("It was"):
                row[ids % 4 == 0] = 0
        return replace(found, metric=right)

    monkeypatch.setattr(arena.exact["search"], "score", scored)
    (found,) = headroom(prepared, {("films", "random"): 50}).tasks
    assert found.search == 100 and found.controls["good movie?"] == pytest.approx(0.66)
    assert found.controls["It was"] == pytest.approx(0.66 - 0.25)


def many(films):
    """The task with search examples enough that some are not among the first few."""
    examples = films.splits["search"].examples
    search = replace(films.splits["search"], examples=examples * 5)
    return replace(films, splits={**films.splits, "search": search})


@pytest.mark.parametrize("rows", [["prompt_tuning"], ["random", "prompt_tuning"]])
def test_a_control_that_the_longest_select_example_does_not_take_is_none(tiny, films, rows):
    """Its scores there would be no numbers, and so would be the forecast."""
    select = films.splits["select"]
    long = replace(select.examples[0], fields={"text": "good film " * 100})
    select = replace(select, examples=(long, *select.examples[1:]))
    task = replace(films, splits={**films.splits, "select": select})
    prompt = "good " * 400
    rows = [{"manual": {"prompts": ["It was", prompt]}}, *rows]
    prepared = prepare(study(strategies=rows, budget=400_000), tiny, task)
    exact = prepared.arena(task).exact
    assert exact["search"].fits(TextPrompt(prompt))
    assert not exact["select"].fits(TextPrompt(prompt))
    (found,) = headroom(prepared, {("films", "random"): 50}).tasks
    assert prompt not in found.controls and "It was" in found.controls
    assert np.isfinite([*asdict(found.vectors).values(), *asdict(found.best).values()]).all()


def test_of_the_sets_of_solved_examples_that_a_row_tries_the_best_is_the_control(
    looked, tiny, films
):
    """One drawn by luck is a weaker control than a row that searches among sets."""
    arena = prepare(study(), tiny, films).arena(films)
    scorer = arena.exact["search"]
    (found,) = looked.headroom.tasks
    shots = max(found.controls, key=len)
    run = Run(arena, "exemplars", "exemplars", Exemplars, {}, 0, 4_500, True, Path())
    drawn = Exemplars(run.objective(arena.searching, run.ledger()), seed=0)
    sets = [prompt for _ in range(4) for prompt in drawn.ask()]
    losses = scorer.score(sets, np.arange(20)).losses.mean(1)
    assert TextPrompt(shots) == sets[int(losses.argmin())] != sets[0]


def test_a_row_of_random_labels_does_not_stand_for_solved_examples(looked, tiny, films):
    rows = ["random", {"exemplars": {"labels": "random"}}]
    prepared = prepare(study(strategies=rows), tiny, films)
    (found,) = headroom(prepared, {("films", "random"): 50}).tasks
    (right,) = looked.headroom.tasks
    assert max(found.controls, key=len) == max(right.controls, key=len)


def test_it_never_reads_the_test_split_and_says_why_nothing_was_trained(tiny, films):
    prepared = prepare(study(strategies=["random"]), tiny, films)
    config = prepared.config.model_copy(update={"budget": 200})
    prepared = replace(prepared, config=config)
    for arena in prepared.arenas.values():
        arena.exact["test"] = None
    (found,) = headroom(prepared, {("films", "random"): 50}).tasks
    assert found.vectors is None and found.words == found.best and found.evaluations == 50
    assert found.trained is None and "budget" in found.untrained


def test_a_trained_prompt_whose_scores_are_no_numbers_is_none(tiny, films, monkeypatch):
    prepared = prepare(study(), tiny, films)
    select = prepared.arena(films).exact["select"]
    score = select.score

    def broken(prompts, ids):
        found = score(prompts, ids)
        bad = np.array([isinstance(prompt, SoftPrompt) for prompt in prompts])
        return replace(found, metric=np.where(bad[:, None], np.nan, found.metric))

    monkeypatch.setattr(select, "score", broken)
    (found,) = headroom(prepared, {("films", "random"): 50}).tasks
    assert found.trained is None and found.vectors is None and found.words == found.best
    assert found.untrained == "it has no finite scores on the select split"


def test_it_is_shown_on_the_terminal_and_in_the_report(looked, tiny, films, tmp_path):
    console = Console(width=120, record=True)
    print_forecast(looked, console)
    told = console.export_text()
    assert "films: " in told and "over the best control" in told and "random prompts" in told
    config = study(strategies=["random"], seeds=1)
    compare(config, out=tmp_path / "s", model=tiny, task=films)
    write_record(tmp_path / "s" / HEADROOM, "headroom", asdict(looked.headroom))
    results = load_results(tmp_path / "s")
    assert results.headroom == looked.headroom
    for page in (to_markdown(results), to_html(results)):
        assert "Expected beforehand: " in page
    write_slim_record(tmp_path / "s", tmp_path / "slim")
    assert load_results(tmp_path / "slim").headroom == looked.headroom


def test_it_says_room_or_no_room_in_plain_words():
    gain = GainRecord(0.08, 0.03, 0.13)
    assert said(gain, "accuracy") == "room of about +8 points (90 %: +3 to +13)"
    low = replace(gain, low=-0.02)
    assert said(low, "accuracy") == "no room seen (+8 points; 90 %: -2 to +13)"
    assert said(gain, "nats") == "room of about +0.08 nats (90 %: +0.03 to +0.13)"


def test_a_file_without_a_look_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("model: m\ntask: capitals\nbudget: 9\nstrategies: [random]")
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "s.yaml"), "--json", "x.json"])
    assert done.exit_code == 2 and "--json writes what --headroom finds: give both" in done.stderr
