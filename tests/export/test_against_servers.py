"""Exports that a server is asked about, not the model here: the stand-in answers as vLLM does."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from promptsearch import LanguageModel
from promptsearch.cli import app
from promptsearch.errors import EndpointError, ExportError
from promptsearch.export import export_run, verify
from promptsearch.export.saved import write_saved
from promptsearch.models.endpoint import Endpoint
from promptsearch.testing.server import Reply, Server, completion
from promptsearch.testing.serving import with_model
from promptsearch.testing.tiny import tiny_model

TEMPLATE = "{prompt:3} {text} It was{answer}"
CHOICES = (" a bad film.", " good")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """Loaded from a folder, as `verify` loads it."""
    folder = tmp_path_factory.mktemp("llama")
    for part in tiny_model("llama"):
        part.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture
def export(lm, make_saved, tmp_path):
    def make(kind, to):
        best = tmp_path / "best"
        best.mkdir()
        write_saved(make_saved(lm, kind, TEMPLATE, CHOICES, 3), lm, best)
        return export_run(best, to, tmp_path / to, model=lm)

    return make


def at(server):
    return Endpoint(server.url, "tiny", seconds=5, retries=0)


@pytest.mark.parametrize(
    ("kind", "to"), [("hard", "text"), ("text", "text"), ("soft", "vllm"), ("hard", "vllm")]
)
def test_a_server_of_the_same_model_gives_the_same_losses_and_another_does_not(
    lm, export, kind, to
):
    folder = export(kind, to)
    with Server(with_model(lm, limit=20)) as server:
        seen = verify(folder, lm, server=at(server))
        if to == "vllm":
            asked = [request for request in server.requests if "prompt_embeds" in request]
            assert {len(request["allowed_token_ids"]) for request in asked} == {1}
    assert seen.same and seen.to == to and seen.distance < 1e-5 and seen.tolerance > 1e-3
    other = LanguageModel(*tiny_model("llama", seed=2), name="other")
    with Server(with_model(other, limit=20)) as server:
        assert not verify(folder, lm, server=at(server)).same


def test_a_server_that_takes_no_embeddings_is_named(lm, export):
    folder = export("soft", "vllm")
    with Server(with_model(lm)) as server:
        good = with_model(lm)

        def ignores(path, content):
            given = {k: v for k, v in content.items() if k != "allowed_token_ids"}
            return good(path, given)

        with Server(ignores) as careless, pytest.raises(EndpointError, match="was to write"):
            verify(folder, lm, server=at(careless))

        def refuses(path, content):
            embedded = "prompt_embeds" in content
            return Reply({"error": "a text, please"}, 400) if embedded else good(path, content)

        with Server(refuses) as strict, pytest.raises(EndpointError, match="a text, please"):
            verify(folder, lm, server=at(strict))
        with pytest.raises(ExportError, match="expected one of text, vllm"):
            verify(folder.parent / "best", lm, server=at(server))


def test_a_server_without_an_echo_cannot_say(lm, export):
    folder = export("text", "text")
    with (
        Server(lambda path, content: Reply(completion("no", 3, 1))) as server,
        pytest.raises(ExportError, match="cannot say whether the export scores the same"),
    ):
        verify(folder, lm, server=at(server))


def test_the_command_asks_the_server_that_it_is_told(lm, export):
    folder = export("text", "text")
    with Server(with_model(lm)) as server:
        run = CliRunner().invoke
        told = ["verify", str(folder), "--server", server.url]
        done = run(app, [*told, "--served", "tiny"])
        assert done.exit_code == 0 and "the same: text" in done.output
        assert run(app, told).exit_code != 0
