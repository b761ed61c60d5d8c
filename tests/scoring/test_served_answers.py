"""Answers of scorers that hold no model: servers write them, tables have none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch.errors import StrategyError
from promptsearch.models.endpoint import Endpoint
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.protocol import price_of_generation
from promptsearch.scoring.remote import ServedScorer
from promptsearch.tasks.decoding import Decoding
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.server import Reply, Server
from promptsearch.testing.serving import with_model
from promptsearch.testing.table import TableScorer
from promptsearch.testing.tiny_task import tiny_task


@pytest.fixture(scope="module")
def task():
    return tiny_task(answers=None)


@pytest.fixture
def prompts(tiny):
    return [HardPrompt(tiny.words[:2]), HardPrompt(tiny.words[2:4])]


def scorer_of(server, tiny, task, end=""):
    endpoint = Endpoint(server.url, "tiny", seconds=5, retries=1, pause=0.001)
    template = replace(task.template.bind(2), end=end)
    served = ServedModel(endpoint, tokens=tiny.tokens)
    return ServedScorer(served, template, task.splits["search"], None)


def test_a_server_writes_what_the_same_model_here_does_up_to_the_end(tiny, task, prompts):
    ids = np.arange(3)
    engine = Engine(tiny, task.template.bind(2), task.splits["search"], None)
    here = engine.generate(prompts, ids, Decoding(6))
    stop = here.texts[0][0][0][4:6]
    with Server(with_model(tiny)) as server:
        scorer = scorer_of(server, tiny, task)
        found = scorer.generate(prompts, ids, Decoding(6))
        cut = scorer_of(server, tiny, task, stop).generate(prompts[:1], ids[:1], Decoding(6))
    assert found.texts == here.texts
    assert found.ended == here.ended == [[(False,)] * 3] * 2
    assert found.tokens.tolist() == here.tokens.tolist() == [[6] * 3] * 2
    assert price_of_generation(scorer, 2, ids, 6) == 3 * 8 + int(scorer.tail(ids).sum())
    assert cut.texts == [[(here.texts[0][0][0].partition(stop)[0],)]]
    assert cut.ended == [[(True,)]]
    assert server.requests[-1]["stop"] == [stop]


def test_samples_are_requests_with_seeds_of_their_own(tiny, task, prompts):
    drawn = Decoding(6, temperature=0.5, top_p=0.9, samples=2)
    with Server(with_model(tiny)) as server:
        scorer = scorer_of(server, tiny, task)
        scorer.generate(prompts[:1], np.arange(2), Decoding(1))
        server.requests.clear()
        found = scorer.generate(prompts[:1], np.arange(2), drawn)
        assert len({request["seed"] for request in server.requests}) == 4
        asked = {(request["temperature"], request["top_p"]) for request in server.requests}
        assert asked == {(0.5, 0.9)}
        assert [len(texts) for texts in found.texts[0]] == [2, 2]
        assert found.tokens.tolist() == [[12, 12]]
        with pytest.raises(StrategyError, match="does not search with 2 beams"):
            scorer.generate(prompts, np.arange(2), Decoding(6, beams=2))


def test_what_a_server_refuses_is_a_failure_and_what_it_says_of_the_end_is_believed(
    tiny, task, prompts
):
    refused = task.splits["search"].examples[1].fields["text"]

    def answer(path, content):
        if f" {refused} It" in content["prompt"]:
            return Reply({"error": "no"}, 400)
        return Reply({"choices": [{"text": " yes", "finish_reason": "stop"}]})

    with Server(answer) as server:
        scorer = scorer_of(server, tiny, task)
        found = scorer.generate(prompts, np.arange(2), Decoding(6))
        assert list(found.failures) == [0, 1]
        assert found.failures[0].startswith("search example 1: ")
        assert found.texts == [[(), ()]] * 2
        assert not found.tokens.any()
        found = scorer.generate(prompts[:1], np.array([0, 2]), Decoding(6))
        assert (found.texts, found.failures) == ([[(" yes",), (" yes",)]], {})
        assert found.ended == [[(True,), (True,)]]


def test_a_table_generates_nothing_and_says_so():
    table = TableScorer(
        np.ones((4, 3)), np.ones((4, 3)), torch.zeros(2, 4), (" a", " b"), 30, 0, "films"
    )
    with pytest.raises(StrategyError, match="a table of scores generates no answers"):
        table.generate([HardPrompt([0, 1])], np.arange(2), Decoding(6))


def test_a_planted_objective_answers_right_where_it_scores_so():
    scorer = PlantedScorer("separable", failing=0.3)
    rng = np.random.default_rng(0)
    prompts = [scorer.optimum, *scorer.space.sample(rng, 20)]
    ids = scorer.scored
    scores, found = scorer.score(prompts, ids), scorer.generate(prompts, ids, Decoding(4))
    right = [example.answer for example in scorer.examples(ids)]
    assert found.failures == scores.failures != {}
    for i, row in enumerate(found.texts):
        if i in found.failures:
            assert row == [()] * len(ids)
            continue
        hits = [texts == (text,) for texts, text in zip(row, right, strict=True)]
        assert hits == (scores.metric[i] == 1).tolist()
    assert all(texts == (text,) for texts, text in zip(found.texts[0], right, strict=True))
