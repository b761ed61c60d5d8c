"""Log-probabilities of a text that may be those of its neighbours.

Found out at the start, mended, or done without.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from promptsearch import LanguageModel, Task, compare
from promptsearch.export import verify
from promptsearch.models.endpoint import Endpoint, find_way
from promptsearch.models.remote import ServedModel
from promptsearch.models.tokens import Tokens
from promptsearch.prompts.text import TextPrompt
from promptsearch.report import load_results, print_report
from promptsearch.report.markdown import to_markdown
from promptsearch.scoring import Engine
from promptsearch.scoring.remote import ServedScorer
from promptsearch.search.alike import ENOUGH, Alike, was_blind
from promptsearch.testing.server import Reply, Server, completion
from promptsearch.testing.serving import served_study, with_model
from promptsearch.testing.tiny import tiny_model

SPLITS = {"search": 16, "select": 6, "test": 6}


def films(answers=("bad", "good")):
    rows = [{"text": f"the story {i}", "label": i % 2} for i in range(30)]
    given = dict(enumerate(answers))
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers=given,
        splits=SPLITS,
        name="films",
    )


def way(server, listed=False):
    return find_way(Endpoint(server.url, "tiny", seconds=5, retries=0), listed=listed)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("echo", ["straight", "early", "late"])
@pytest.mark.parametrize(
    "lists", [True, False]
)  # without, the names of tokens tell, where a model does not repeat itself
def test_a_shift_by_one_place_is_found_and_mended(echo, architecture, lists):
    if architecture == "gemma3" and not lists:
        pytest.skip("this tiny model writes each token again and again")
    lm = LanguageModel(*tiny_model(architecture), name="tiny")
    task = films(("bad film", "very good"))
    with Server(with_model(lm, echo=echo, lists=lists)) as server:
        served = ServedModel(Endpoint(server.url, "tiny", seconds=5, retries=0), words=[" good"])
        assert served.way.scores == "nats" and served.way.echo.reading == echo
        template, split = task.template.bind(2), task.splits["search"]
        prompts, ids = [TextPrompt("Is it good?"), TextPrompt("x")], np.arange(4)
        ours = Engine(lm, template, split, task.choices).score(prompts, ids)
        theirs = ServedScorer(served, template, split, task.choices).score(prompts, ids)
    if (
        echo == "late"
    ):  # only the tokens of a list are known, and a tiny model's fill no list of a hundred
        known = ~np.isnan(theirs.losses).all(axis=1)
        assert all("is not among the 100 tokens" in reason for reason in theirs.failures.values())
        np.testing.assert_allclose(theirs.losses[known], ours.losses[known], atol=1e-5)
    else:
        assert not theirs.failures
        np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-5)


def test_other_scores_are_other_models(tiny):
    hashes = []
    for echo in ("straight", "early", "late", "none"):
        with Server(with_model(tiny, echo=echo)) as server:
            served = ServedModel(Endpoint(server.url, "tiny", seconds=5, retries=0))
            served.endpoint.__dict__["url"] = server.url
            hashes.append((served.way.shifted, served.hash))
    assert [shifted for shifted, _ in hashes] == [False, True, True, False]
    assert len({digest for _, digest in hashes}) == 4


def test_an_echo_that_is_wrong_otherwise_is_not_believed(tiny):
    with Server(with_model(tiny, echo="same")) as server:
        found = way(server)
    assert (
        found.scores == "errors"
        and "not those of the tokens beside which they stand" in found.reason
    )


def test_answers_of_one_token_are_scored_by_what_is_written_where_the_echo_is_no_good(
    tiny, tmp_path
):
    tiny.tokenizer.save_pretrained(tmp_path / "tokenizer")
    task = films()
    with Server(with_model(tiny, echo="none")) as server:
        assert way(server, listed=True).scores == "first" and way(server).scores == "errors"
        served = ServedModel(
            Endpoint(server.url, "tiny", seconds=5, retries=0),
            tokens=Tokens(tiny.tokenizer),
            listed=True,
        )
        template, split = task.template.bind(2), task.splits["search"]
        prompts, ids = [TextPrompt("Is it good?"), TextPrompt("x")], np.arange(8)
        ours = Engine(tiny, template, split, task.choices).score(prompts, ids)
        theirs = ServedScorer(served, template, split, task.choices).score(prompts, ids)
        assert not theirs.failures and theirs.choices is not None
        told = []
        config = served_study(
            server, model={"tokenizer": str(tmp_path / "tokenizer")}, budget=1_500
        )
        results = compare(config, out=tmp_path / "s", task=task, progress=told.append)
        (run,) = results.runs
        assert verify(tmp_path / "s" / "films" / "random" / "seed0").same
    np.testing.assert_allclose(theirs.losses, ours.losses, atol=1e-5)
    np.testing.assert_allclose(theirs.choices, ours.choices, atol=1e-5)
    note = next(each.message for each in told if each.stage == "note")
    assert "most probable tokens of what it writes" in note and "echo is not offered" in note
    about = json.loads((tmp_path / "s" / "study.json").read_text())["model"]["served"]
    assert about["scores"] == "first" and about["most"] == 1000
    assert "most probable tokens of what it writes" in to_markdown(results)
    assert run.test.loss != run.test.metric


def test_what_the_losses_are_is_said_at_the_start(tiny, tmp_path):
    for number, (echo, lists, what) in enumerate(
        (
            ("straight", True, "losses are nats"),
            ("late", True, "the log-probabilities of the 100 most probable tokens only"),
            ("early", True, "one place off and are put right"),
            ("same", True, "most probable tokens of what it writes"),
            ("same", False, "0 and 1, not nats"),
        )
    ):
        told, out = [], tmp_path / str(number)
        with Server(with_model(tiny, echo=echo, lists=lists)) as server:
            compare(served_study(server, budget=1_500), out=out, task=films(), progress=told.append)
        (note,) = [each for each in told if each.stage == "note"]
        assert what in note.message and server.url in note.message
        assert [each.stage for each in told].index("note") == 1
        assert what.split(",")[0] in to_markdown(load_results(out))


def test_a_search_whose_scores_are_all_alike_stops_and_says_why(tmp_path):
    with Server(lambda path, content: Reply(completion("no idea", 9, 2))) as server:
        config = served_study(server, budget=60_000)
        results = compare(config, out=tmp_path / "s", task=films())
    (run,) = results.runs
    assert was_blind(run.stopped) and ENOUGH <= run.proposals <= ENOUGH + 16 and run.spent < 60_000
    assert "had the same losses on 4 examples (1 on each)" in run.stopped
    console = Console(record=True, width=4000)
    print_report(results, console)
    assert (
        "all scores were alike" in console.export_text()
        and "all scores were alike" in to_markdown(results)
    )
    assert "all scores were alike" in (tmp_path / "s" / "report.html").read_text()


def test_a_small_search_whose_scores_are_all_alike_says_so_at_its_end(tmp_path):
    with Server(lambda path, content: Reply(completion("no idea", 9, 2))) as server:
        results = compare(served_study(server), out=tmp_path / "s", task=films())
    assert (
        was_blind(results.runs[0].stopped) and "The search ended because" in results.runs[0].stopped
    )


def test_one_other_loss_is_enough_to_go_on():
    def line(key, losses):
        return {
            "stage": "search",
            "examples": "score_on",
            "prompts": [{"key": key}],
            "losses": [losses],
        }

    alike, lines = Alike(served=True), [line(str(i), [1.0, 0.0]) for i in range(ENOUGH - 1)]
    alike.look(lines)
    assert not alike.blind and was_blind(alike.reason("x"))
    alike.look([*lines, line("0", [1.0, 0.0])])  # the same prompt again
    assert not alike.blind
    lines.append(line("0", [1.0, 0.0]))
    alike.look([*lines, line("new", [1.0, 0.0])])
    assert alike.blind
    alike.look(
        [*lines, line("new", [1.0, 0.0]), line("failed", None), line("other", [1.0, 0.000001])]
    )
    assert not alike.blind and alike.reason("x") == "x"
