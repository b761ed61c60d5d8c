"""Pruning by influence: against brute force, and the same after a kill.

It is paid once and charged to every run of hard prompts.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import compare
from promptsearch.errors import RecordError, StudyError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.sealed import write_record
from promptsearch.report.facts import facts
from promptsearch.scoring import Engine
from promptsearch.search.pool import Pool, make_pool
from promptsearch.search.pool_pruning import EXAMPLES, FILL, Pruning, clusters
from promptsearch.study.config import parse_config
from promptsearch.study.ending import smallest_budget
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.tasks.task import Split

POOL = {"words": 30, "influence": 5}
STRATEGIES = [
    {"manual": {"prompts": ["the"]}},
    {"random": {"batch": 4}},
    {"evolution": {"batch": 4}},
    {"prompt_tuning": {"interval": 2, "batch": 4}},
]


def study(strategies=STRATEGIES, **changes):
    given = {
        "name": "s",
        "model": "given",
        "task": "films",
        "budget": 12_000,
        "length": 2,
        "score_on": 8,
        "seeds": 1,
    }
    return {**given, "pool": POOL, "strategies": strategies, **changes}


def training(films):
    return films.splits["search"].examples[8:]


def candidates(tiny, films, number=30):
    return make_pool(number, None, films, tiny, ())


def brute_force(tiny, films, ids):
    """The influence of single words that fill the slots, each scored alone."""
    some = tuple(replace(e, id=i) for i, e in enumerate(training(films)[:EXAMPLES]))
    engine = Engine(tiny, films.template.bind(FILL), Split("search", some), films.choices)

    def losses(prompt):
        return engine.score([prompt], np.arange(len(some))).losses[0]

    empty = losses(TextPrompt(""))
    return {i: float(np.abs(losses(HardPrompt([i] * FILL)) - empty).mean()) for i in ids}


def test_influence_is_what_brute_force_finds_and_the_most_influential_words_stay(
    tiny, films, tmp_path
):
    pool = candidates(tiny, films)  # fewer words than clusters: each stands for itself
    pruning = Pruning(pool, 5, films, tiny, training(films))
    truth = brute_force(tiny, films, pool.ids)
    found = {
        pool.ids[group[0]]: value
        for group, value in zip(pruning.groups, pruning.influences(), strict=True)
    }
    assert found == pytest.approx(truth, abs=1e-5)
    assert set(pruning.find(tmp_path).ids) == set(sorted(pool.ids, key=lambda i: -truth[i])[:5])


def test_whole_clusters_stay_until_there_are_enough(tiny, films, tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.search.pool_pruning.CLUSTERS", 6)
    pool = candidates(tiny, films)
    pruning = Pruning(pool, 12, films, tiny, training(films))
    truth = brute_force(tiny, films, [pool.ids[group[0]] for group in pruning.groups])
    order = sorted(pruning.groups, key=lambda group: -truth[pool.ids[group[0]]])
    expected = [pool.ids[place] for group in order for place in group]
    assert list(pruning.find(tmp_path).ids) == expected[:12]
    (path,) = tmp_path.glob("*.json")
    kept = json.loads(path.read_text())["clusters"]
    assert [tried["words"] for tried in kept] == [len(group) for group in order]
    assert [tried["influence"] for tried in kept] == sorted(
        (tried["influence"] for tried in kept), reverse=True
    )


def test_clusters_part_directions_and_begin_with_their_centre():
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    vectors = np.concatenate(
        [centre + np.array([[0.0], [0.05], [0.2]]) * rng.normal(size=(3, 8)) for centre in centres]
    )
    vectors *= rng.uniform(0.1, 10, size=(9, 1))  # lengths say nothing
    groups = clusters(vectors.astype(np.float32), 3)
    assert sorted(sorted(group.tolist()) for group in groups) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    for group in groups:
        unit = vectors[group] / np.linalg.norm(vectors[group], axis=1, keepdims=True)
        distances = np.linalg.norm(unit - unit.mean(0), axis=1)
        assert list(distances) == sorted(distances)
    twins = np.repeat(np.eye(2, 4), 3, axis=0).astype(np.float32)
    assert sorted(map(len, clusters(twins, 5))) == [3, 3], (
        "no more clusters than different rows, and no warning"
    )


def test_the_price_is_that_of_what_is_scored(tiny, films):
    pruning = Pruning(candidates(tiny, films), 5, films, tiny, training(films))
    texts = [f" {e.fields['text']} It was" for e in training(films)[:EXAMPLES]]
    answers = sum(len(tiny.encode(choice)) for choice in films.choices)
    empty = sum(len(tiny.encode(text)) + answers for text in texts)
    assert pruning.price == empty + 30 * (empty + FILL * len(texts))


def test_the_price_is_charged_to_each_run_of_hard_prompts_and_to_no_other(tiny, films, tmp_path):
    found = compare(study(), out=tmp_path, model=tiny, task=films)
    price = found.study.tasks["films"].pool_price
    assert price > 0 and not found.failed
    for run in found.runs:
        paid = price if run.strategy in ("random", "evolution") else 0
        assert run.ledger.pool == paid
        assert (
            run.spent
            == paid + run.ledger.forward + run.ledger.backward + run.ledger.proposer
            <= 12_000
        )
        assert run.curve[0][0] >= paid
    assert found.study.tasks["films"].pool == 5
    about = dict(facts(found))["Task films"]
    assert (
        "pool of 5 tokens: the 5 tokens of most influence on 8 training examples, of 30: the "
        "30 most frequent words"
    ) in about
    assert f"found for {price:,} LM tokens, charged to each run of hard prompts" in about
    assert found.study.tasks["films"].pool_hash[:16] in about
    html = (tmp_path / "report.html").read_text()
    assert "<th>pool</th>" in html and f"<td>{price:,}</td>" in html.replace("\u202f", ",").replace(
        "\u2009", ","
    )
    ids = set(json.loads(next((tmp_path / "pools").glob("*.json")).read_text())["ids"])
    for label in ("random", "evolution"):
        lines = [
            json.loads(line)
            for line in (tmp_path / f"films/{label}/seed0/evaluations.jsonl")
            .read_text()
            .splitlines()
        ]
        assert {i for line in lines for p in line["prompts"] for i in p["ids"]} <= ids


def test_the_pool_is_found_once_and_the_same_again_when_it_is_lost(
    tiny, films, tmp_path, monkeypatch
):
    compare(study(STRATEGIES[:2]), out=tmp_path, model=tiny, task=films)
    (path,) = (tmp_path / "pools").glob("*.json")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Pruning, "influences", lambda self: pytest.fail("the pool was there"))
        compare(study(STRATEGIES[:3]), out=tmp_path, model=tiny, task=films)
    path.unlink()
    assert not compare(study(STRATEGIES), out=tmp_path, model=tiny, task=films).failed
    assert path.read_bytes() == before
    for damage in (
        lambda: path.write_bytes(before[:-20]),
        lambda: write_record(path, "pool", {"ids": [1, 2], "price": 3}),
    ):
        damage()
        with pytest.raises(
            RecordError, match=r"is damaged \(.*\): delete it, and the study finds its pool again"
        ):
            compare(study(STRATEGIES), out=tmp_path, model=tiny, task=films)


def test_a_run_that_goes_on_has_paid_for_the_pool_once(tiny, films, tmp_path):
    compare(study(STRATEGIES[1:2]), out=tmp_path, model=tiny, task=films)
    folder = tmp_path / "films/random/seed0"
    before = json.loads((folder / "result.json").read_text())
    lines = (folder / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "evaluations.jsonl").write_bytes(b"".join(lines[:2]))  # as a kill leaves it
    (folder / "result.json").unlink()
    compare(study(STRATEGIES[1:2]), out=tmp_path, model=tiny, task=films)
    after = json.loads((folder / "result.json").read_text())
    for key in ("spent", "winner", "search", "select", "test", "curve"):
        assert after[key] == before[key]
    assert after["ledger"]["pool"] == before["ledger"]["pool"] > 0


def test_other_settings_of_the_pool_are_refused(tiny, films, tmp_path):
    compare(study(STRATEGIES[:1]), out=tmp_path, model=tiny, task=films)
    with pytest.raises(StudyError, match="made with other settings: pool was"):
        compare(
            study(STRATEGIES[:1], pool={"words": 30, "influence": 6}),
            out=tmp_path,
            model=tiny,
            task=films,
        )


def test_all_lengths_and_kinds_of_a_study_share_the_pool(tiny, films, tmp_path):
    rows = [*STRATEGIES[1:], {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 8}}]
    prepared = prepare(parse_config(study(rows, length=[1, 3])), tiny, films).pruned(tmp_path)
    pools = {arena.pool for arena in prepared.arenas.values()}
    assert len(prepared.arenas) == 4 and len(pools) == 1
    for arena in prepared.arenas.values():
        assert sorted(next(iter(pools)).ids) == arena.space.pool.tolist()


def test_the_plan_and_the_check_of_the_budget_know_the_price(tiny, films, tmp_path):
    given = study(STRATEGIES[1:2])
    planned = forecast(parse_config(given), tiny, films)
    run = compare(given, out=tmp_path, model=tiny, task=films).runs[0]
    assert not list(tmp_path.parent.glob("pools"))
    assert planned.runs[0].price == run.spent
    price = run.ledger.pool
    prepared = prepare(parse_config(given), tiny, films)
    least = smallest_budget(prepared.arena(films))
    with pytest.raises(
        StudyError, match=f"with the {price} of the pool's words, {least + price} tokens"
    ):
        prepare(parse_config({**given, "budget": least + price - 1}), tiny, films)
    prepare(parse_config({**given, "budget": least + price}), tiny, films)
    prepare(
        parse_config({**given, "budget": least + price - 1, "strategies": ["manual"]}), tiny, films
    )


def test_texts_of_words_of_the_pool_pay_for_it(tiny, films, tmp_path):
    words = {"prompts": ["the film"]}
    rows = [
        "grips",
        {"grips": {"label": "given", **words}},
        {"grips": {"label": "written", "substitute": "proposer"}},
        {"grips": {"label": "none", "substitute": "proposer", **words}},
        {"grips": {"label": "started", "substitute": "proposer", "start": {"run": "manual"}}},
        {"verbalizer": {"candidates": 16}},
        {"verbalizer": {"label": "fixed", "candidates": 16, "tries": 0}},
        {"manual": {"prompts": ["the"]}},
        "prompt_tuning",
    ]
    prepared = prepare(parse_config(study(rows)), tiny, films)
    price = prepared.arena(films).pool.price
    paid = {run.label: run.ledger().pool for run in prepared.runs(tmp_path)}
    taking = {"grips", "given", "written", "verbalizer"}
    assert price and paid == {label: price * (label in taking) for label in paid}
    assert len(paid) == len(rows)


def test_what_cannot_be_pruned_is_refused(tiny, films):
    with pytest.raises(
        StudyError, match="has 30 tokens before it is pruned to 30 by influence: lower 'influence'"
    ):
        Pruning(candidates(tiny, films), 30, films, tiny, training(films))
    pruning = Pruning(Pool(tuple(tiny.words[:9]), "words"), 5, films, tiny, training(films))
    score = Engine.score

    def failing(self, prompts, examples):
        return replace(score(self, prompts, examples), failures={0: "it has no text"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "score", failing)
        with pytest.raises(
            StudyError, match="cannot be measured, the empty prompt has no loss: it has no text"
        ):
            pruning.influences()
