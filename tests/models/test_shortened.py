"""Copies of the packaged model with fewer layers, and what heals them."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from promptsearch import LanguageModel
from promptsearch.errors import ModelError
from promptsearch.models import packaged, shortened
from promptsearch.testing.tiny import tiny_model

NAME = "smollm2-135m-instruct"


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A tiny model in place of the packaged one, in a cache of its own, and little text."""
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(shortened, "sentences", lambda tokenizer: text(tokenizer))

    def convert(gguf, folder):
        for part in tiny_model("llama", layers=3):
            part.save_pretrained(folder)

    monkeypatch.setattr(packaged, "convert_gguf", convert)
    monkeypatch.setattr(packaged, "_download", lambda folder: folder)
    return packaged.packaged_model()


def text(tokenizer):
    """Sentences to train on and others, shape (rows, 16) each."""
    line = "This film is very good and the story is funny. I hate the movie.\n"
    rows = torch.tensor(tokenizer(line * 60).input_ids[:800]).view(-1, 16)
    return rows[:-5], rows[-5:]


def test_a_copy_is_the_first_layers_as_transformers_would_load_them(whole):
    lm = LanguageModel.load(f"{NAME}:layers=2")
    theirs = AutoModelForCausalLM.from_pretrained(whole, num_hidden_layers=2).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(lm.model(input_ids=ids).logits, theirs(input_ids=ids).logits)
    assert (lm.name, lm.facts["layers"]) == (f"{NAME}:layers=2", 2)
    hashes = {LanguageModel.load(name).hash for name in (NAME, f"{NAME}:layers=1", lm.name)}
    assert len(hashes) == 3


def test_what_a_kill_left_of_a_copy_is_removed_by_the_next_call(whole, monkeypatch):
    making, places = shortened.shorten, []

    def watched(model, layers, folder, **more):
        places.append(folder.parent)
        making(model, layers, folder, **more)

    monkeypatch.setattr(shortened, "shorten", watched)
    made = packaged.packaged_model(f"{NAME}:layers=1")
    made.rename(places[0])  # as if it had been killed before it was done
    other = made.with_name(f"{made.name}-healed.part-1")  # which another process makes now
    other.mkdir()
    assert packaged.packaged_model(f"{NAME}:layers=1") == made
    assert {path for path in made.parent.iterdir() if path.is_dir()} == {whole, made, other}


def test_a_healed_copy_predicts_better_what_it_has_not_seen(whole):
    lm = LanguageModel.load(f"{NAME}:layers=1+healed")
    raw = LanguageModel.load(f"{NAME}:layers=1")
    folder = packaged.packaged_model(lm.name)
    told = json.loads((folder / "healing.json").read_text())
    _, held_out = text(lm.tokenizer)
    assert shortened.perplexity(lm.model, held_out) == pytest.approx(told["after"], rel=1e-5)
    assert shortened.perplexity(raw.model, held_out) == pytest.approx(told["before"], rel=1e-5)
    assert told["after"] < 0.9 * told["before"]
    assert torch.equal(lm.embeddings, raw.embeddings) and lm.hash != raw.hash
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert packaged.packaged_model(lm.name) == folder, "it is made once"
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_healing_twice_gives_the_same_weights():
    found = []
    for seed in range(2):
        model, tokenizer = tiny_model("llama")
        torch.manual_seed(seed)
        shortened.heal(model, *text(tokenizer))
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_model_that_healing_would_harm_stays_as_it_was(monkeypatch):
    model, tokenizer = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows, held_out = text(tokenizer)
    monkeypatch.setattr(shortened, "RATE", 50.0)
    told = shortened.heal(model, rows, held_out)
    assert not told["after"] < told["before"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_sentences_and_those_held_out_are_no_labels_and_not_the_same():
    _, tokenizer = tiny_model("llama")
    trained, held_out = shortened.sentences(tokenizer)
    assert trained.shape[1] == held_out.shape[1] == shortened.ROW
    assert 8 < len(trained) / len(held_out) < 10
    texts = [tokenizer.decode(rows.flatten()).split("\n") for rows in (trained, held_out)]
    assert "Great for the jawbone." in texts[0] and "label" not in " ".join(texts[0])
    # The first is held out, the last one of each cut off; the same short sentence may stand twice.
    assert texts[1][0].startswith("So there is no way for me to plug it in here")
    assert len(set(texts[0]) & set(texts[1])) < 5


@pytest.mark.parametrize(
    "copy", ["layers=3", "layers=0", "layers=x", "layers=1,heald", "depth=2", "layers=99999"]
)
def test_a_copy_that_there_is_not_is_refused(whole, copy):
    with pytest.raises(ModelError, match=r"expected .*:layers=N\+healed, with N from 1 to 2"):
        LanguageModel.load(f"{NAME}:{copy}")
