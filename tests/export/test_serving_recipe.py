"""The recipe of docs/guides/serving.md, run as printed on a server that answers as vLLM does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from promptsearch import LanguageModel, compare
from promptsearch.cli import app
from promptsearch.study.config import parse_config
from promptsearch.testing.server import Server
from promptsearch.testing.serving import with_model
from promptsearch.testing.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("unreported")
PAGE = (Path(__file__).parents[2] / "docs/guides/serving.md").read_text("utf-8")
NAME, URL = "HuggingFaceTB/SmolLM2-135M-Instruct", "http://localhost:8000/v1"
SMALL = {"budget": 6_000, "seeds": 1, "score_on": 4}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands():
    """The commands of the page, as words behind their first."""
    (lines,) = blocks("sh")
    return [line.split() for line in lines.replace("\\\n", "").strip().splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A chat model in a folder, and the data that the page names, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for part in tiny_model("llama"):
        part.save_pretrained("model")
    rows = [{"text": f"good film the story I hate {i}", "label": i % 2} for i in range(24)]
    Path("reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LanguageModel.load("./model", device="cpu")


def study(text, model, **more):
    """A study of the page, made small."""
    found = yaml.safe_load(text) | SMALL | {"model": model} | more
    found["task"] |= {"splits": {"search": 12, "select": 4, "test": 4}}
    return parse_config(found)


def test_a_chat_is_searched_here_and_served_there(here, monkeypatch, capsys):
    config = study(blocks("yaml")[0], "./model")
    exported, served, verified = commands()[1:]
    compare(config, out=Path("runs/chat"))
    assert CliRunner().invoke(app, exported[1:]).exit_code == 0
    assert served[:2] == ["vllm", "serve"] and "--enable-prompt-embeds" in served
    with Server(with_model(here, limit=20)) as server:
        words = [word.replace(URL, server.url).replace(NAME, "./model") for word in verified[1:]]
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0 and "\nthe same: vllm" in "\n" + found.stdout
        (code,) = blocks("python")
        exec(code.replace(URL, server.url).replace(NAME, "./model"), {})
        asked = server.requests[-1]
    assert set(asked) == {"model", "prompt_embeds", "max_tokens", "temperature"}
    ids = here.model.generate(
        inputs_embeds=requested(here), max_new_tokens=1, do_sample=False, pad_token_id=0
    )
    assert capsys.readouterr().out == here.decode(ids[0].tolist()) + "\n"


def requested(lm):
    """What the page sends, shape `(1, tokens, width)`."""
    from promptsearch.export import vllm_requests

    (request,) = vllm_requests("served", [{"text": "a slow and beautiful film"}], lm)
    return request["prompt_embeds"][None]


def test_a_chat_is_searched_on_the_server_itself(here):
    text = blocks("yaml")[1]
    given = yaml.safe_load(text)["model"]
    with Server(with_model(here, limit=20)) as server:
        config = study(text, {**given, "endpoint": server.url, "retries": 0}, budget=2_000)
        results = compare(config, out=Path("runs/words"))
        assert all("messages" in request for request in server.requests if request.get("logprobs"))
    assert [run.label for run in results.runs] == ["random", "evolution"]
    assert all(run.test.loss not in (0.0, 1.0) for run in results.runs)
