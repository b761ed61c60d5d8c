"""A study on a model behind an endpoint.

The same losses as of a model that is loaded here, and what a server does not give.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from promptsearch import LanguageModel, Task, compare, load_prompt
from promptsearch.errors import (
    EndpointDown,
    ModelError,
    PromptError,
    StrategyError,
    StudyError,
    TemplateError,
)
from promptsearch.export import export_run, verify
from promptsearch.models.endpoint import Endpoint, Unfinished
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.calibrated import CalibratedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.nearest import NearestPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.records.ledger import Ledger
from promptsearch.report import load_results, print_report
from promptsearch.report.forecast import print_forecast
from promptsearch.report.markdown import to_markdown
from promptsearch.scoring import Engine
from promptsearch.scoring.questions import Question, score_questions
from promptsearch.scoring.remote import ServedScorer
from promptsearch.search.objective import Objective
from promptsearch.study.config import load_config, parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.server import Reply, Server, completion
from promptsearch.testing.serving import POOL, served_study, with_model
from promptsearch.testing.tiny import tiny_model

SECRET = "sk-never-to-be-seen-4711"
#: Requests that find out at the start what a server can do: one echo, and two for each text that is
#: compared; of three texts, one goes on with a piece of a character.
START = 6


def model(server, **options):
    """A model behind a server that fails fast."""
    given = {"words": [f" {word}" for word in POOL], **options}
    endpoint = Endpoint(
        server.url, "tiny", seconds=5, retries=1, pause=0.001, parallel=given.pop("parallel", 4)
    )
    return ServedModel(endpoint, **given)


def study(server, strategies=("random",), *, model=(), **changes):
    return served_study(server, strategies, model={"retries": 1, **dict(model)}, **changes)


def only_writes(text):
    """A server that gives no log-probabilities.

    It always writes the same, or what a function of the prompt says.
    """
    return lambda path, content: Reply(
        completion(text(content["prompt"]) if callable(text) else text, 9, 2)
    )


def bound(task, length=2):
    return task.template.bind(length)


@pytest.fixture
def few():
    """Films with fewer examples: each takes a request for each answer."""
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(30)]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 16, "select": 6, "test": 6},
        name="films",
    )


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_losses_equal_those_of_the_same_model_loaded_here(architecture, few):
    """Gemma's texts begin with a token of its own, which the server counts and lists."""
    lm = LanguageModel(*tiny_model(architecture), name="tiny")
    rows = [{"text": f"capital {i}", "label": ["Paris", "Berlin"][i % 2]} for i in range(9)]
    capitals = Task.from_rows(
        rows,
        template="{text} {prompt} is {answer}\n",
        label="label",
        splits={"search": 5, "select": 2, "test": 2},
    )
    several = replace(
        capitals,
        splits={
            name: replace(
                split,
                examples=tuple(
                    replace(e, also=(" the capital",) * (e.id % 2)) for e in split.examples
                ),
            )
            for name, split in capitals.splits.items()
        },
    )
    options = ((" bad", " very good"), (" good", " Paris", " not so good"))
    by_row = replace(
        few,
        choices=None,
        options="options",
        splits={
            name: replace(
                split,
                examples=tuple(
                    replace(e, options=options[e.id % 2], answer=options[e.id % 2][1], choice=1)
                    for e in split.examples
                ),
            )
            for name, split in few.splits.items()
        },
    )
    weighed = replace(by_row, normalise="bytes")
    with Server(with_model(lm)) as server:
        served = model(server)
        for task in (few, capitals, several, by_row, weighed):
            given = bound(task), task.splits["search"], task.choices
            here = Engine(lm, *given, normalise=task.normalise)
            there = ServedScorer(served, *given, normalise=task.normalise)
            ids = np.array([3, 0, 2])
            hard = [lm.encode(" good")[0], lm.encode(" movie")[0]]
            texts = [TextPrompt("Is it a good film?"), TextPrompt("")]
            ours = here.score([HardPrompt(hard), *texts], ids)
            theirs = there.score(
                [HardPrompt([served.encode("good")[0], served.encode("movie")[0]]), *texts], ids
            )
            np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-5)
            np.testing.assert_array_equal(theirs.metric, ours.metric)
            if task.kind == "choices":
                np.testing.assert_allclose(theirs.choices, ours.choices, atol=1e-5)
            # The last task's answers are those of the one before, which are not asked again.
            assert not theirs.failures and bool(theirs.computed) == (task is not weighed)


def test_without_a_text_that_ends_answers_losses_are_those_of_answers_alone(tiny, tmp_path, caplog):
    """A server is sent no end token: the report says so, and the scores have another name."""
    rows = [{"text": f"capital {i}", "label": ["Paris", "Berlin"][i % 2]} for i in range(30)]
    given = {"label": "label", "splits": {"search": 16, "select": 6, "test": 6}, "name": "capitals"}
    endless, ended = (
        Task.from_rows(rows, template="{text} {prompt} is {answer}" + end, **given)
        for end in ("", "\n")
    )
    ids, texts = np.array([3, 0, 2]), [TextPrompt("Is it a good film?")]
    with Server(with_model(tiny)) as server:
        served = model(server)
        alone, whole = (
            ServedScorer(served, bound(task), task.splits["search"], None)
            for task in (endless, ended)
        )
        assert alone.signature != whole.signature
        first = Engine(tiny, bound(endless), endless.splits["search"], None)
        for e, loss in zip(ids, alone.score(texts, ids).losses[0], strict=True):
            row = first.layout(int(e))
            text = bound(endless).render(
                endless.splits["search"].examples[e].fields, [" Is it a good film?"], ""
            )
            whole_row = torch.tensor([[*tiny.encode(text, begins=True), *row.answers[0]]])
            logits = tiny.model(input_ids=whole_row).logits[0].double().log_softmax(-1)
            answer = row.answers[0][:-1]  # without the token that ends it
            steps = logits[-len(answer) - 2 : -2]
            nats = steps.gather(-1, torch.tensor(answer)[:, None]).sum()
            assert loss == pytest.approx(-float(nats), abs=1e-5)
        with caplog.at_level(logging.WARNING):
            results = compare(study(server), out=tmp_path / "s", task=endless)
        assert not results.failed and "cannot be sent the token that ends" in caplog.text
        assert "cannot be sent the token that ends" in to_markdown(results)
        assert results.study.tasks["capitals"].end == ""
        compare(study(server), out=tmp_path / "e", task=ended)
        assert verify(tmp_path / "e" / "capitals" / "random" / "seed0").same


def test_a_server_that_only_writes_must_come_to_the_end(tiny):
    rows = [{"text": f"capital {i}", "label": "Paris"} for i in range(9)]
    splits = {"search": 5, "select": 2, "test": 2}
    said = {"0": " Paris\nThe", "1": "paris\n", "2": " Paris is", "3": " Pari\n"}
    right = {"0": 1, "1": 1, "2": 0, "3": 0}

    def write(prompt):
        return next((text for key, text in said.items() if f"capital {key}" in prompt), "\n")

    for end in ("\n", ""):
        task = Task.from_rows(
            rows, template="{text} {prompt} is {answer}" + end, label="label", splits=splits
        )
        with Server(only_writes(write)) as server:
            scorer = ServedScorer(model(server), bound(task), task.splits["search"], None)
            scores = scorer.score([TextPrompt("x")], np.arange(5))
        for example, metric in zip(task.splits["search"].examples, scores.metric[0], strict=True):
            key = example.fields["text"].split()[1]
            expected = right.get(key, 0) if end else float(key in ("0", "1", "2"))
            assert metric == expected


@pytest.mark.parametrize("reason", ["stop", "length", None])
def test_an_answer_that_the_server_ends_is_at_its_end(reason):
    """A server that does not say so wrote fewer tokens than it was asked for, or as many."""
    said = {"0": " Paris", "1": "paris", "2": " Pari", "3": " Parisian", "4": " Paris\nThe"}
    tokens = {"1": 99}

    def write(path, content):
        key = next((key for key in said if f"capital {key}" in content["prompt"]), "0")
        written = completion(said[key], 9, tokens.get(key, 1))
        written["choices"][0]["finish_reason"] = reason
        return Reply(written)

    template = Template.parse("{text} {prompt} is {answer}\n").bind(2)
    examples = [Example(i, {"text": f"capital {i}"}, " Paris", None) for i in range(5)]
    with Server(write) as server:
        scorer = ServedScorer(model(server), template, Split("search", tuple(examples)), None)
        scores = scorer.score([TextPrompt("x")], np.arange(5))
    ended = {"stop": [1, 1], "length": [0, 0], None: [1, 0]}[reason]
    assert scores.metric[0].tolist() == [*ended, 0, 0, 1]


def test_prices_are_known_beforehand_and_cover_each_request(tiny, few):
    from promptsearch.models.tokens import Tokens

    ids, prompts = np.arange(4), [TextPrompt("Is it good?"), TextPrompt("x")]
    with Server(with_model(tiny)) as server:
        exact = ServedScorer(
            model(server, tokens=Tokens(tiny.tokenizer)),
            bound(few),
            few.splits["search"],
            few.choices,
        )
        prices = [
            int(exact.context(ids).sum() + exact.length(p) * exact.readings(ids).sum())
            for p in prompts
        ]
        scores = exact.score(prompts, ids)
        assert sum(prices) == scores.computed == exact.predict(prompts, ids).tokens
        assert exact.predict(prompts, ids).requests == len(server.requests) - START == 16
        guessed = ServedScorer(model(server), bound(few), few.splits["search"], few.choices)
        assert (
            guessed.length(TextPrompt("abcdefg")) == 3 and guessed.length(HardPrompt([0, 1])) == 2
        )
        assert guessed.lead(ids).sum() == 0


def test_a_server_that_only_writes_gives_zeros_and_ones(few):
    def write(prompt):
        return " Good, I think" if "3" in prompt else "\nbadly made" if "2" in prompt else " bad."

    with Server(only_writes(write)) as server:
        served = model(server)
        scorer = ServedScorer(served, bound(few), few.splits["search"], few.choices)
        ids = np.arange(16)
        scores = scorer.score([TextPrompt("x")], ids)
        texts = [e.fields["text"] for e in few.splits["search"].examples]
        said = ["good" if "3" in t else None if "2" in t else "bad" for t in texts]
        right = [
            s == e.answer.strip() for s, e in zip(said, few.splits["search"].examples, strict=True)
        ]
        assert scores.metric[0].tolist() == right and scores.losses[0].tolist() == [
            1.0 - r for r in right
        ]
        assert scores.choices is None and len(set(said)) == 3
        assert all(r["prompt"].endswith("It was") for r in server.requests if r["max_tokens"] > 1)
        assert scorer.predict([TextPrompt("x")], ids).requests == 16


def test_the_longest_of_the_answers_that_a_text_begins_with_counts():
    with Server(only_writes(" very good")) as server:
        found = score_questions(
            model(server), [Question("Q:", (" very", " very good"), i) for i in (0, 1)]
        )
    assert [f.right for f in found] == [0, 1]


def test_a_token_that_straddles_the_answer_is_a_visible_failure(tiny):
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(9)]
    task = Task.from_rows(
        rows, template="{prompt} {text} g{answer}", label="label", answers={0: "ood", 1: "reat"},
        splits={"search": 5, "select": 2, "test": 2},
    )  # fmt: skip
    with Server(with_model(tiny)) as server:
        scores = ServedScorer(
            model(server), bound(task), task.splits["search"], task.choices
        ).score([TextPrompt("x")], np.arange(2))
    assert np.isnan(scores.losses).all() and np.isnan(scores.metric).all()
    assert "no token of the model begins where 'ood' begins" in scores.failures[0]


def test_a_request_that_fails_for_good_is_a_failure_of_its_prompt_and_is_asked_again_later(
    tiny, few
):
    good, bad = with_model(tiny), Counter()

    def answer(path, content):
        if "unlucky" in content["prompt"]:
            bad["times"] += 1
            return Reply({"error": "no"}, 500)
        return good(path, content)

    with Server(answer) as server:
        scorer = ServedScorer(model(server), bound(few), few.splits["search"], few.choices)
        prompts = [TextPrompt("lucky"), TextPrompt("unlucky")]
        for times in (1, 2):
            scores = scorer.score(prompts, np.arange(2))
            assert list(scores.failures) == [1] and "500" in scores.failures[1]
            assert np.isfinite(scores.losses[0]).all() and np.isnan(scores.losses[1]).all()
            assert (
                bad["times"] == times * 8
            )  # two examples, two answers, two attempts: an error is not kept
        assert scores.computed == 0  # but answers are


def test_results_are_in_order_whatever_comes_first(few):
    def answer(path, content):
        if "story" not in content["prompt"]:
            return Reply(completion("", 9, 1))
        number = int(content["prompt"].split()[2])
        return Reply(
            completion(f" {'good' if number % 2 else 'bad'}", 9, 2), seconds=0.02 * (number % 3)
        )

    with Server(answer) as server:
        served = model(server, parallel=8)
        rows = [Unfinished(f"the story {i}", 3) for i in range(20)]
        found = served.written(rows)
    assert [f.text for f in found] == [" good" if i % 2 else " bad" for i in range(20)]


def test_likely_tokens_and_continuations_of_one_text_are_two_answers(tiny):
    begun = Unfinished("the story", tokens=1)
    with Server(with_model(tiny, echo="none")) as server:
        served = model(server, tokens=tiny.tokens, listed=True)
        ((place,),) = served.listed([begun])
        (found,) = served.written([begun])
    assert found.text == place.token


def test_what_a_server_does_not_show(tiny, few):
    with Server(with_model(tiny)) as server:
        scorer = ServedScorer(model(server), bound(few), few.splits["search"], few.choices)
        space = PromptSpace(tiny.words, 2)
        objective = Objective(scorer, space, Ledger(None), scored=[0], training=[1])
        for look in (
            lambda: objective.prefix_shape,
            lambda: objective.gated_shape,
            lambda: objective.weights,
            lambda: objective.keys_values([1]),
            lambda: objective.states([[1]]),
            lambda: objective.backward(None),
            lambda: objective.loss(None, np.arange(2)),
            lambda: objective.token_gradient(space.prompt([0, 1]), np.arange(2)),
        ):
            with pytest.raises(StrategyError, match="behind an endpoint shows no"):
                look()
        corrected, nearest = CalibratedPrompt("", [0.5, 0]), NearestPrompt((("a", "b"),), 1)
        for prompt in (Weights({}), corrected, nearest):
            kind = type(prompt).__name__
            with pytest.raises(PromptError, match=f"takes HardPrompt or TextPrompt, got a {kind}"):
                objective.evaluate([prompt])
        with pytest.raises(StrategyError, match="shows no prompts that are no text"):
            ServedScorer(
                model(server), bound(few).taking("prefix"), few.splits["search"], few.choices
            )
        with pytest.raises(TemplateError, match="the beginning of"):
            ServedScorer(model(server), bound(few), few.splits["search"], (" a", " ab"))


@pytest.mark.parametrize("named", [True, False], ids=["named", "given"])
@pytest.mark.parametrize(
    "strategy", ["lora", "black_box_tuning", "calibrated", "exemplars_nearest"]
)
def test_strategies_that_need_more_are_refused_before_the_study_starts(
    strategy, named, few, tmp_path
):
    with Server(lambda path, content: Reply({}, 500)) as server:
        given = None if named else model(server)
        with pytest.raises(
            StudyError,
            match="only those work that need scores and propose HardPrompt or TextPrompt",
        ):
            compare(study(server, [strategy]), out=tmp_path / "s", model=given, task=few)
        assert not server.requests and not (tmp_path / "s").exists()


def test_pools_without_a_tokenizer(tiny, few, tmp_path):
    with Server(with_model(tiny)) as server:
        with pytest.raises(StudyError, match="give 'pool' as a list of words"):
            prepare(parse_config(study(server, pool="words")), task=few)
        (tmp_path / "pool.txt").write_text("New York\nfine\n fine\nantidisestablishmentarianism\n")
        config = parse_config(study(server, pool={"file": "pool.txt"}), folder=tmp_path)
        arena = prepare(config, task=few).arena(few)
        assert [arena.space.decode([i]) for i in arena.space.pool] == [
            " New York",
            " fine",
            " antidisestablishmentarianism",
        ]
        manual = prepare(
            parse_config(study(server, [{"manual": {"prompts": ["good?"]}}], pool="words")),
            task=few,
        )
        assert len(manual.arena(few).space.pool) == 1


def test_a_pool_of_a_tokenizer(tiny, few, tmp_path):
    tiny.tokenizer.save_pretrained(tmp_path / "tokenizer")
    with Server(with_model(tiny)) as server:
        given = study(server, pool="words", model={"tokenizer": "./tokenizer"})
        prepared = prepare(parse_config(given, folder=tmp_path), task=few)
        answers = {i for answer in few.choices for i in tiny.encode(answer)}
        assert set(prepared.arena(few).space.pool.tolist()) == set(tiny.words) - answers
        assert prepared.lm.tokenizer_hash == tiny.tokenizer_hash


@pytest.mark.parametrize("given", [500, {"words": 5}, {"task": 5}])
def test_without_a_tokenizer_nobody_knows_words(given, few):
    with Server(lambda path, content: Reply({}, 500)) as server:
        with pytest.raises(
            StudyError,
            match="give 'pool' as a list of words or {file: PATH}, or the model's 'tokenizer'",
        ):
            prepare(parse_config(study(server, pool=given)), task=few)
        assert not server.requests


def test_words_of_the_task_and_the_most_frequent_ones_are_the_tokenizers(tiny, films, tmp_path):
    tiny.tokenizer.save_pretrained(tmp_path / "tokenizer")
    here = {
        "name": "s",
        "model": "tiny",
        "task": "films",
        "budget": 9_000,
        "seeds": 1,
        "length": 2,
        "score_on": 4,
        "strategies": ["random"],
    }
    with Server(with_model(tiny)) as server:
        for pool in (7, {"task": 5}):
            given = study(server, pool=pool, budget=9_000, model={"tokenizer": "./tokenizer"})
            there = prepare(parse_config(given, folder=tmp_path), task=films).arena(films).pool
            assert (
                there
                == prepare(parse_config({**here, "pool": pool}), tiny, films).arena(films).pool
            )


def test_influence_needs_a_model_that_is_loaded_here(tiny, few, tmp_path):
    tiny.tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "pool.txt").write_text("\n".join(POOL))
    with Server(with_model(tiny)) as server:
        for pool, model in (
            ({"file": "pool.txt", "influence": 3}, {}),
            ({"words": 9, "influence": 3}, {"tokenizer": "./tokenizer"}),
        ):
            with pytest.raises(
                StudyError, match="'influence' goes by the embeddings of the pool's words"
            ):
                prepare(
                    parse_config(study(server, pool=pool, model=model), folder=tmp_path), task=few
                )


@pytest.mark.parametrize("answers", [{0: "bad", 1: "good"}, {0: "bad.", 1: "very good."}])
def test_words_of_answers_are_left_out_of_a_pool_without_a_tokenizer(answers, tiny):
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(30)]
    task = Task.from_rows(
        rows, template="{prompt} {text} It was {answer}", label="label", answers=answers,
        splits={"search": 16, "select": 6, "test": 6}, name="films",
    )  # fmt: skip
    with Server(with_model(tiny)) as server:
        pool = (
            prepare(parse_config(study(server, pool=["movie", "good", "bad", "story"])), task=task)
            .arena(task)
            .pool
        )
        assert len(pool.ids) == 2 and "without 2 answer tokens" in pool.made
        with pytest.raises(StudyError, match="the pool of task 'films' is empty"):
            prepare(parse_config(study(server, pool=["good", "bad"])), task=task)


def test_only_whole_answers_in_text_are_left_out_of_a_pool_without_a_tokenizer(tiny):
    rows = [
        {"text": f"city {i}", "label": ["Port of Spain", "Paris", "Rome."][i % 3]}
        for i in range(30)
    ]
    task = Task.from_rows(
        rows,
        template="{prompt} {text} is {answer}",
        label="label",
        splits={"search": 16, "select": 6, "test": 6},
        name="cities",
    )
    with Server(with_model(tiny)) as server:
        arena = prepare(
            parse_config(study(server, pool=["of", "Paris", "Rome", "city"])), task=task
        ).arena(task)
        assert [arena.space.decode([i]) for i in arena.pool.ids] == [" of", " Rome", " city"]


def test_a_template_of_messages_is_refused_and_says_what_to_do(tiny):
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(30)]
    task = Task.from_rows(
        rows,
        template=[{"system": "{prompt}"}, {"user": "{text}"}, {"assistant": "It was{answer}"}],
        label="label",
        answers={0: " bad", 1: " good"},
        splits={"search": 16, "select": 6, "test": 6},
        name="films",
    )
    with (
        Server(with_model(tiny)) as server,
        pytest.raises(TemplateError, match="write it as one text. With 'chat: true'"),
    ):
        prepare(parse_config(study(server)), task=task)


def test_strategies_that_look_at_embeddings_say_so_at_once_or_do_without(tiny, few, tmp_path):
    rows = [{"genetic": {"neighbours": 3}}, "bayesian", {"genetic": {"label": "plain"}}]
    with Server(with_model(tiny)) as server:
        compare(study(server, rows), out=tmp_path / "s", task=few)
    results = {
        path.parts[-3]: json.loads(path.read_text())
        for path in (tmp_path / "s").rglob("result.json")
    }
    assert "shows no embeddings" in results["genetic"]["error"]
    assert not (tmp_path / "s" / "films" / "genetic" / "seed0" / "evaluations.jsonl").exists()
    for label in ("bayesian", "plain"):
        assert results[label]["status"] == "done" and results[label]["spent"] <= 3_000
    assert results["bayesian"]["proposals"] > 8


@pytest.mark.parametrize(
    ("name", "options"),
    [("llm_proposed", {"batch": 3}), ("reflect", {"parents": 1, "minibatch": 2, "merges": 0})],
)
def test_a_served_model_also_proposes(tiny, few, tmp_path, name, options):
    good, texts = with_model(tiny), ["Is the movie good?", "Say how it was.", "Judge this film."]

    def answer(path, content):
        return (
            Reply(completion(texts[content["seed"] % 3], 9, 4))
            if "seed" in content
            else good(path, content)
        )

    with Server(answer) as server:
        strategy = {name: {"longest": 12, "examples": 1, **options}}
        config = study(server, [strategy], pool="words", budget=9_000)
        told = forecast(parse_config(config), task=few)
        assert len(server.requests) == START and told.runs[0].error == ""
        results = compare(config, out=tmp_path / "s", task=few)
        prepared = prepare(parse_config({**config, "proposer": {"chat": True}}), task=few)
        assert prepared.proposing.endpoint.chat and not prepared.lm.endpoint.chat
    assert not results.failed
    assert set(load_prompt(tmp_path / "s" / "films" / name / "seed0").prompt.texts) <= set(texts)
    (log,) = (tmp_path / "s").rglob("proposals.jsonl")
    assert sum(json.loads(line)["price"] for line in log.read_text().splitlines()) % 13 == 0


def test_a_study_from_start_to_export(tiny, few, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("A_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with Server(with_model(tiny)) as server:
        config = study(
            server,
            ["random", {"manual": {"prompts": ["Is the movie good?"]}}],
            model={"key": "A_KEY"},
        )
        results = compare(config, out=tmp_path / "s", task=few)
        assert not results.failed and len(results.runs) == 2
        assert all(0 < run.spent <= 3_000 for run in results.runs)
        assert all(h["Authorization"] == f"Bearer {SECRET}" for h in server.headers)
        about = json.loads((tmp_path / "s" / "study.json").read_text())
        assert (
            about["model"]["served"]["url"] == server.url
            and about["model"]["served"]["scores"] == "nats"
        )
        # The model loaded here gives the winner the same loss.
        run = next(run for run in results.runs if run.label == "random")
        saved = load_prompt(tmp_path / "s" / "films" / "random" / "seed0")
        ours = Engine(tiny, bound(few), few.splits["select"], few.choices).score(
            [saved.prompt], np.arange(6)
        )
        assert abs(float(ours.losses.mean()) - run.select.loss) < 1e-5
        shown = to_markdown(load_results(tmp_path / "s"))
        assert (
            f"tiny, behind the endpoint {server.url}" in shown.replace("\\", "")
            and "losses are nats" in shown
        )

        folder = export_run(
            tmp_path / "s" / "films" / "random" / "seed0", "text", tmp_path / "text", key="A_KEY"
        )
        assert (folder / "prompt.txt").read_text() == "\n".join(saved.prompt.texts) + "\n"
        assert (
            verify(folder, key="A_KEY").same
            and verify(tmp_path / "s" / "films" / "random" / "seed0", key="A_KEY").same
        )
        assert "A_KEY" not in (folder / "certificate.json").read_text()
        card = (folder / "README.md").read_text()
        code = card.split("```python\n")[1].split("```")[0]
        exec(code, {})  # as a user would run it
        with pytest.raises(ModelError, match="behind the endpoint"):
            export_run(tmp_path / "s" / "films" / "random" / "seed0", "vllm", tmp_path / "vllm")
        with pytest.raises(ModelError, match="behind the endpoint"):
            list(saved.apply([{"text": "x"}]))

        # All over again: nothing is asked but what the server can do.
        before = len(server.requests)
        again = compare(config, out=tmp_path / "s", task=few)
        assert [r.test.loss for r in again.runs] == [r.test.loss for r in results.runs]
        assert len(server.requests) - before <= START
        # Killed before the end: the log gives the same numbers back, and only the export looks once
        # more.
        result = tmp_path / "s" / "films" / "random" / "seed0" / "result.json"
        first = json.loads(result.read_text())
        result.unlink()
        before = len(server.requests)
        compare(config, out=tmp_path / "s", task=few)
        second = json.loads(result.read_text())
        assert {k: second[k] for k in ("winner", "select", "test", "ledger", "curve")} == {
            k: first[k] for k in ("winner", "select", "test", "ledger", "curve")
        }
        assert len(server.requests) - before <= START + 12  # six probe examples with two answers
        server_url = server.url
    assert server_url in about["model"]["source"]
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 10 and not any(SECRET.encode() in text for text in texts)
    assert not any(SECRET in record.getMessage() for record in caplog.records)


def test_a_study_of_zeros_and_ones_says_so(few, tmp_path):
    with Server(only_writes(lambda prompt: " good" if "movie" in prompt else " none")) as server:
        results = compare(study(server), out=tmp_path / "s", task=few)
        with pytest.raises(StudyError, match="needs the probabilities of the answers"):
            compare(
                study(server, metric="f1"),
                out=tmp_path / "f",
                task=Task.load(dict(FILMS), tmp_path, metric="f1"),
            )
    assert not results.failed
    (run,) = results.runs
    assert run.test.loss == pytest.approx(1 - run.test.metric)
    console = Console(record=True, width=200)
    print_report(results, console)
    assert "not nats" in console.export_text() and "losses are 0 and 1" in to_markdown(results)
    assert "not nats" in (tmp_path / "s" / "report.html").read_text()


def test_an_endpoint_that_goes_down_ends_the_study_and_what_was_done_is_kept(tiny, few, tmp_path):
    good, left = with_model(tiny), [60]

    def answer(path, content):
        left[0] -= 1
        return (
            good(path, content) if left[0] >= 0 else Reply({"error": "maintenance"}, 503, seconds=0)
        )

    with Server(answer) as server:
        config = study(
            server,
            [{"random": {"batch": 2}}, {"random": {"label": "other"}}],
            model={"parallel": 1},
        )
        with pytest.raises(EndpointDown, match="503"):
            compare(config, out=tmp_path / "s", task=few)
        log = tmp_path / "s" / "films" / "random" / "seed0" / "evaluations.jsonl"
        kept = log.read_text().splitlines()
        assert kept and all(not json.loads(line)["failures"] for line in kept)
        assert not (tmp_path / "s" / "films" / "random" / "seed0" / "result.json").exists()
        left[0] = 10**9
        results = compare(config, out=tmp_path / "s", task=few)
        assert not results.failed and log.read_text().splitlines()[: len(kept)] == kept
        fresh = compare(config, out=tmp_path / "fresh", task=few)
    assert [r.test.loss for r in results.runs] == [r.test.loss for r in fresh.runs]


@pytest.mark.parametrize(
    ("status", "what"),
    [(401, "wants a key"), (404, "no such path or model"), (500, "after 2 attempts")],
)
def test_an_endpoint_that_is_down_from_the_start(status, what, few, tmp_path):
    with (
        Server(lambda path, content: Reply({"error": "no"}, status)) as server,
        pytest.raises(EndpointDown, match=what),
    ):
        compare(study(server), out=tmp_path / "s", task=few)


def test_a_plan_says_tokens_and_requests_and_asks_once(tiny, few, tmp_path):
    with Server(with_model(tiny)) as server:
        config = parse_config(study(server))
        found = forecast(config, task=few)
        assert len(server.requests) == START
        results = compare(config, out=tmp_path / "s", task=few)
        (run,), (expected,) = results.runs, found.runs
        assert (expected.price, expected.proposals) == (run.spent, run.proposals)
        # What is scored again is answered from memory, and so are repeated proposals.
        assert 0.3 * expected.requests < len(server.requests) - 2 * START <= expected.requests
    console = Console(record=True, width=160)
    print_forecast(found, console)
    text = console.export_text()
    assert (
        f"tiny, behind {server.url}, losses are nats" in text
        and f"about {expected.requests:,} requests" in text
    )
    assert "seconds" not in text and "GiB" not in text


FILMS = {
    "name": "films",
    "data": {"path": "films.jsonl"},
    "template": "{prompt} {text} It was {answer}",
    "label": "label",
    "answers": {0: "bad", 1: "good"},
    "splits": {"search": 16, "select": 6, "test": 6},
}


@pytest.fixture(autouse=True)
def film_file(tmp_path):
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(30)]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ('{endpoint: "http://user:pw-4711@host/v1", model: m}', "without user, password or query"),
        ('{endpoint: "http://host/v1?key=pw-4711", model: m}', "without user, password or query"),
        (
            '{endpoint: "http://host/v1", model: m, key: sk-pw-4711}',
            "the name of an environment variable",
        ),
        ('{endpoint: "http://host/v1", model: m, kye: pw-4711}', "Did you mean 'key'"),
        ('{endpoint: "http://host/v1"}', "the key 'model' is missing"),
        (
            '{endpoint: "http://host/v1", model: m, parallel: 0}',
            "model.parallel is 0; expected at least 1",
        ),
    ],
)
def test_what_a_study_file_may_not_say_is_not_repeated(model, what, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"model: {model}\ntask: capitals\nbudget: 9000\nstrategies: [random]\n")
    with pytest.raises(StudyError, match=what) as caught:
        load_config(path)
    assert "4711" not in str(caught.value)
