"""Every format gives the certificate's losses, and its card works as printed.

Each is read by the library that it is for.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
import warnings
from itertools import product
from random import Random
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from promptsearch import LanguageModel, PrefixPrompt, PromptedModel
from promptsearch.errors import ExportError, ModelError, PromptError, UnknownName
from promptsearch.export import FORMATS, export_run, load_prompt, verify, vllm_requests
from promptsearch.export.saved import write_saved
from promptsearch.scoring.ready import embedded
from promptsearch.tasks.decoding import Decoding
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_tokenizers import tokenizer_of

FRONT, ANCHORS, BEHIND = (
    "{prompt:3} {text} It was {answer}",
    "{prompt:2} movie {prompt:1} {text} It was {answer}",
    "{text} {prompt:3} It was {answer}",
)
WORDS, SENTENCES = (" bad", " good"), (" very bad", " good")
FORMATS_OF = {  # what can hold a prompt in front
    "hard": ("json", "kv", "peft", "text", "vllm"),
    "text": ("json", "kv", "peft", "text", "vllm"),
    "soft": ("json", "kv", "cartridge", "peft", "vllm"),
    "prefix": ("json", "kv", "cartridge", "peft"),
}
CASES = [
    *((kind, to) for kind, formats in FORMATS_OF.items() for to in formats),
    *((kind, to) for kind in ("gated", "weights") for to in ("json", "peft")),
    ("tuned", "json"),
]
MODELS = (*ARCHITECTURES, "llama prepend")
CARDS = [  # each kind, format and form of the answers on three of the models
    pytest.param(lm, kind, to, choices, id=f"{lm}-{kind}-{to}-{name}")
    for (kind, to), (name, choices) in product(CASES, {"choices": WORDS, "text": None}.items())
    for lm in Random(f"{kind} {to} {name}").sample(MODELS, 3)
]


@pytest.fixture(scope="module", params=MODELS)
def lm(request, tmp_path_factory):
    """Loaded from a folder, as the cards load it.

    The last one has a tokenizer that marks the beginning of a text.
    """
    architecture, _, tokenization = request.param.partition(" ")
    folder = tmp_path_factory.mktemp(architecture)
    model, tokenizer = tiny_model(architecture)
    tokenizer = tokenizer_of(tokenization) if tokenization else tokenizer
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture
def export(make_saved, tmp_path):
    """Make a prompt, save it and export it."""

    def make(lm, kind, to, template=FRONT, choices=SENTENCES, length=3):
        saved = make_saved(lm, kind, template, choices, length)
        best = tmp_path / "best"
        best.mkdir()
        write_saved(saved, lm, best)
        return saved, export_run(best, to, tmp_path / to, model=lm)

    return make


def skip_what_peft_cannot(lm, kind, to):
    if (kind, to) == ("gated", "peft") and lm.model.config.model_type not in ("llama", "gpt2"):
        pytest.skip("PEFT adapts no attention of this model")


@pytest.mark.parametrize(("kind", "to"), CASES)
def test_every_format_gives_the_losses_again_and_is_verified(lm, export, kind, to):
    skip_what_peft_cannot(lm, kind, to)
    saved, folder = export(
        lm, kind, to, template=ANCHORS if kind in ("hard", "soft", "tuned") else FRONT
    )
    found = verify(folder, lm)
    assert (found.to, found.probe, found.same) == (to, 5, True) and found.distance < 2e-6
    losses = FORMATS[to].score(saved, lm, folder)
    assert losses == pytest.approx(saved.losses, abs=1e-5)
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert (
        header["base_model"]
        and header["library_name"]
        and {"promptsearch", to} <= set(header["tags"])
    )
    assert ("weights" if kind == "weights" else f"{kind}-prompt") in header["tags"]
    assert ("Changed weights for films" in card) == (kind == "weights")
    assert ("the model itself is not changed" in card) == (kind not in ("weights", "tuned"))
    certificate = json.loads(
        (folder / ("prompt.json" if to == "json" else "certificate.json")).read_text()
    )
    assert (
        certificate["model"]["hash"] == lm.hash
        and certificate["model"]["tokenizer_hash"] == lm.tokenizer_hash
    )
    assert certificate["template"] == saved.template.text and len(certificate["probe"]) == 5
    assert not [
        path
        for path in folder.iterdir()
        if path.suffix not in (".json", ".safetensors", ".md", ".txt")
    ]


def run_card(folder, monkeypatch):
    """Run the code on a card in its folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        warnings.filterwarnings("ignore", "Position ids are not supported")
        exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize(("lm", "kind", "to", "choices"), CARDS, indirect=["lm"])
def test_the_code_of_the_card_answers_as_we_do(lm, export, kind, to, choices, monkeypatch, capsys):
    skip_what_peft_cannot(lm, kind, to)
    saved, folder = export(lm, kind, to, choices=choices)
    monkeypatch.setitem(sys.modules, "vllm", stand_in_for_vllm())
    run_card(folder, monkeypatch)
    printed = capsys.readouterr().out
    model = PromptedModel(lm, saved)
    row = saved.probe[0].fields
    if choices is None:
        (expected,) = model.generate([row])
        assert (
            repr(expected.strip()) in printed
            if to == "json"
            else expected.strip() == printed.strip()
        )
    elif to == "vllm":
        assert printed.strip() == model.choose([row])[0].answer
    else:
        expected = model.choose([row])[0].probabilities
        shares = [float(number) for number in re.findall(r"0\.\d+(?:e-\d+)?|\d\.\d+e-\d+", printed)]
        assert shares == pytest.approx(list(expected.values()), abs=1e-5)


@pytest.mark.parametrize("to", ["kv", "peft", "text"])
def test_the_code_of_the_card_takes_the_text_of_a_special_token_for_text(
    make_saved, tmp_path, monkeypatch, capsys, to
):
    for part in tiny_model("llama"):
        part.save_pretrained(tmp_path / "model")
    lm = LanguageModel.load(str(tmp_path / "model"), device="cpu")
    saved = make_saved(lm, "text", FRONT, WORDS)
    marked = f"good {lm.tokenizer.eos_token} film"
    probe = [dataclasses.replace(saved.probe[0], fields={"text": marked}), *saved.probe[1:]]
    saved = dataclasses.replace(saved, probe=tuple(probe))
    saved = dataclasses.replace(saved, losses=tuple(saved.score_probe(lm)))
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    folder = export_run(tmp_path / "best", to, tmp_path / to, model=lm)
    run_card(folder, monkeypatch)
    found = ast.literal_eval(capsys.readouterr().out)
    expected = PromptedModel(lm, saved).choose([saved.probe[0].fields])[0].probabilities
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("to", ["kv", "text"])
def test_the_code_of_the_card_writes_as_the_task_says_and_not_as_the_model_does(
    make_saved, tmp_path, monkeypatch, capsys, to, beams
):
    model, tokenizer = tiny_model("llama", seed=3)
    model.generation_config.repetition_penalty = 1.9
    model.generation_config.no_repeat_ngram_size = 1
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    lm = LanguageModel.load(str(tmp_path / "model"), device="cpu")
    saved = make_saved(lm, "text", FRONT, None)
    saved = dataclasses.replace(saved, decoding=Decoding(tokens=16, beams=beams))
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    folder = export_run(tmp_path / "best", to, tmp_path / to, model=lm)
    run_card(folder, monkeypatch)
    (row,) = PromptedModel(lm, saved).apply([saved.probe[0].fields])
    assert capsys.readouterr().out.strip() == row["answer"] != ""


def stand_in_for_vllm():
    """A module that answers requests as vLLM would.

    It answers greedily, from embeddings, among the allowed tokens.
    """
    module = ModuleType("vllm")
    module.SamplingParams = lambda **given: SimpleNamespace(**given)

    class LLM:
        def __init__(self, base, enable_prompt_embeds=False):
            assert enable_prompt_embeds
            self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(base)

        def generate(self, requests, sampling):
            assert sampling.temperature == 0
            return [
                SimpleNamespace(outputs=[SimpleNamespace(text=self.one(request, sampling))])
                for request in requests
            ]

        def one(self, request, sampling):
            row, ids = request["prompt_embeds"], []
            assert row.ndim == 2 and row.device.type == "cpu"
            ends = {self.tokenizer.eos_token_id, *getattr(sampling, "stop_token_ids", ())}
            while len(ids) < sampling.max_tokens and not ends & {*ids}:
                with torch.no_grad():
                    logits = self.model(inputs_embeds=row[None]).logits[0, -1]
                    allowed = getattr(sampling, "allowed_token_ids", None)
                    ids.append(
                        max(allowed, key=lambda i: float(logits[i]))
                        if allowed
                        else int(logits.argmax())
                    )
                    row = torch.cat(
                        [row, self.model.get_input_embeddings()(torch.tensor(ids[-1:]))]
                    )
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            return text.partition(getattr(sampling, "stop", None) or "\0")[0]

    module.LLM = LLM
    return module


@pytest.mark.parametrize("kind", ["hard", "soft", "text"])
def test_peft_generates_from_a_front_prompt_what_we_generate(lm, export, kind):
    import peft

    saved, folder = export(lm, kind, "peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = peft.PeftModel.from_pretrained(lm.model, str(folder)).eval()
    row = torch.tensor([lm.encode(saved.template.segments[-1].format(text="the good story"))])
    asked = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Position ids are not supported")
        made = wrapped.generate(input_ids=row, attention_mask=torch.ones_like(row), **asked)
    (mine,) = PromptedModel(lm, saved).generate([{"text": "the good story"}], 20)
    ids = [i for i in made[0, row.shape[1] :].tolist() if i not in lm.special.ids | lm.ends]
    assert lm.decode(ids) == mine != ""


@pytest.mark.parametrize("kind", list(FORMATS_OF))
def test_keys_and_values_give_all_logits_of_the_row(lm, export, kind):
    """Longer than Gemma's window, whose cache forgets what is too far back."""
    saved, folder = export(lm, kind, "kv", template="{prompt} {text} It was{answer}", length=20)
    numbers = load_file(folder / "keys_values.safetensors")["keys_values"]
    tokens = 20 if kind != "text" else len(lm.encode(saved.prompt.texts[0], begins=True))
    assert tuple(numbers.shape) == (*lm.prefix_shape[:3], tokens + len(lm.lead), lm.prefix_shape[3])
    cache = DynamicCache(
        [(keys[None], values[None]) for keys, values in numbers], config=lm.model.config
    )
    text = torch.tensor([lm.encode(" the good story It was")])
    with torch.no_grad():
        theirs = lm.model(input_ids=text, past_key_values=cache).logits[0]
        if kind == "prefix":
            first = DynamicCache(
                [(k[None], v[None]) for k, v in saved.prompt.keys_values.permute(1, 2, 3, 0, 4)],
                config=lm.model.config,
            )
            ids = torch.tensor([[*lm.lead, *text[0].tolist()]])
            whole = lm.model(input_ids=ids, past_key_values=first).logits[0]
        else:
            rows = embedded(lm, saved.prompt, saved.template, {"text": "the good story"})
            whole = lm.model(inputs_embeds=rows[None]).logits[0]
    assert (theirs - whole[-len(theirs) :]).abs().max() < 1e-5


def test_what_was_compiled_is_a_prefix_here_too(llama, export):
    saved, folder = export(llama, "soft", "kv")
    numbers = load_file(folder / "keys_values.safetensors")["keys_values"]
    prefix = PrefixPrompt(numbers.permute(3, 0, 1, 2, 4))
    again = dataclasses.replace(saved, prompt=prefix, template=saved.template.taking("prefix"))
    assert again.score_probe(llama) == pytest.approx(saved.losses, abs=1e-5)


@pytest.mark.parametrize("template", [FRONT, ANCHORS, BEHIND])
@pytest.mark.parametrize("kind", ["hard", "soft", "text"])
def test_requests_for_vllm_are_whole_rows(lm, export, kind, template):
    saved, folder = export(lm, kind, "vllm", template=template)
    rows = [{"text": "the good story", "id": 1}, {"text": "bad"}]
    requests = vllm_requests(folder, rows, lm)
    for request, row in zip(requests, rows, strict=True):
        assert list(request) == ["prompt_embeds"]
        assert torch.equal(
            request["prompt_embeds"], embedded(lm, saved.prompt, saved.template, row)
        )
    with pytest.raises(PromptError, match="input 1 lacks the field 'text'; it has body"):
        vllm_requests(folder, [{"body": "a"}], lm)


# What is refused on the way out.


@pytest.mark.parametrize(
    ("kind", "template", "to", "reason"),
    [
        ("soft", BEHIND, "kv", "the input stands before a slot: export it as json or vllm"),
        (
            "hard",
            BEHIND,
            "peft",
            "the input stands before a slot: export it as json or vllm, or as text",
        ),
        (
            "prefix",
            FRONT,
            "vllm",
            "no keys and values from outside: export a prefix as kv, peft or json",
        ),
        ("soft", FRONT, "text", "no text holds it exactly: export it as json, peft or kv"),
        ("soft", "{prompt}{answer}", "kv", "nothing stands between prompt and answer"),
    ],
)
def test_a_format_that_cannot_hold_a_prompt_names_those_that_can(
    llama, export, tmp_path, kind, template, to, reason
):
    with pytest.raises(ExportError, match=reason):
        export(llama, kind, to, template=template)
    assert not (tmp_path / to).exists()


# What is refused, or told, on the way in.


def changed(folder, **changes):
    name = "certificate.json" if (folder / "certificate.json").exists() else "prompt.json"
    data = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**data, **changes}))


NUMBERS = {
    "json": "*.safetensors",
    "kv": "keys*.safetensors",
    "peft": "adapter*.safetensors",
    "vllm": "prompt*.safetensors",
}


@pytest.mark.parametrize("to", ["kv", "peft", "vllm"])
def test_other_numbers_are_not_the_same(llama, export, to):
    _, folder = export(llama, "soft", to)
    (path,) = folder.glob(NUMBERS[to])
    tensors = {name: tensor + 0.01 for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    found = verify(folder, llama)
    assert not found.same and found.distance > found.tolerance


def test_another_text_is_not_the_same(llama, export):
    _, folder = export(llama, "hard", "text")
    path = folder / "template.txt"
    path.write_text("Really " + path.read_text())
    assert not verify(folder, llama).same
    path.write_text("{name}")
    with pytest.raises(
        PromptError, match="template.txt is missing or damaged: '{name}' is the place of no field"
    ):
        verify(folder, llama)


@pytest.mark.parametrize("to", list(NUMBERS))
def test_damaged_numbers_are_named(llama, export, to):
    _, folder = export(llama, "soft", to)
    (path,) = folder.glob(NUMBERS[to])
    whole = path.read_bytes()
    for content in (whole[:50], b"", b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(PromptError, match="cannot read the numbers|is damaged"):
            verify(folder, llama)
    path.unlink()
    with pytest.raises(PromptError, match="cannot read the numbers|is damaged"):
        verify(folder, llama)


@pytest.mark.parametrize("to", list(NUMBERS))
def test_a_pickle_is_never_loaded(llama, export, to, tmp_path):
    _, folder = export(llama, "soft", to)
    (path,) = folder.glob(NUMBERS[to])
    trap = tmp_path / "trap"
    for name in ("adapter_model.bin", "prompt.pt", "x.pkl"):
        torch.save(Trap(trap), folder / name)
        with pytest.raises(PromptError, match=f"holds a pickle, {name}, which could run code"):
            verify(folder, llama)
        (folder / name).rename(path)  # under the name of the safetensors
        with pytest.raises(PromptError, match="cannot read the numbers|is damaged"):
            verify(folder, llama)
    assert not trap.exists()


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("to", ["json", "kv", "peft", "vllm"])
def test_another_model_is_named_by_what_differs(llama, export, to):
    _, folder = export(llama, "soft", to)
    for other, what in (
        ({"width": 48}, "width 32"),
        ({"layers": 3}, "layers 2"),
        ({"seed": 1}, f"hash {llama.hash}"),
    ):
        with pytest.raises(ModelError, match=f"found for the model 'llama' with {what}"):
            verify(folder, LanguageModel(*tiny_model("llama", **other), name="other"))


def test_numbers_for_another_model_are_named_by_what_differs(llama, export):
    """The certificate is of the model, the numbers are not."""
    _, folder = export(llama, "soft", "kv")
    path = folder / "keys_values.safetensors"
    numbers = load_file(path)["keys_values"]
    for other, what in (
        (numbers[:1], "layers 1; 'llama' has 2"),
        (numbers[:, :, :1], "key heads 1; 'llama' has 2"),
    ):
        save_file({"keys_values": other.contiguous()}, path)
        with pytest.raises(PromptError, match=f"is for a model with {what}"):
            verify(folder, llama)
    save_file({"keys": numbers}, path)
    with pytest.raises(PromptError, match="expected a tensor 'keys_values' of shape"):
        verify(folder, llama)


def test_a_prefix_beyond_the_context_is_named(llama, export):
    _, folder = export(llama, "soft", "kv")
    path = folder / "keys_values.safetensors"
    save_file({"keys_values": torch.zeros(2, 2, 2, 510, 8)}, path)
    with pytest.raises(
        PromptError,
        match="a prompt of 510 tokens with an input of .* is longer than the 512 tokens",
    ):
        verify(folder, llama)


def test_a_peft_prefix_beyond_the_context_is_named(llama, export):
    _, folder = export(llama, "prefix", "peft")
    save_file({"prompt_embeddings": torch.zeros(512, 64)}, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "num_virtual_tokens": 512}))
    with pytest.raises(PromptError, match="has 512 virtual tokens, but 'llama' reads at most 512"):
        verify(folder, llama)


@pytest.mark.parametrize("to", ["json", "kv", "vllm"])
def test_slots_that_do_not_match_the_template_are_named(llama, export, to):
    _, folder = export(llama, "soft", to, template=ANCHORS)
    changed(folder, lengths=[3])
    with pytest.raises(
        PromptError, match=r"gives the lengths \[3\], but its template .* has 2 slots"
    ):
        verify(folder, llama)


def test_a_prompt_of_another_length_than_its_slots_is_named(llama, export):
    _, folder = export(llama, "soft", "json", template=ANCHORS)
    changed(folder, lengths=[2, 2])
    with pytest.raises(
        PromptError, match=r"has 3 tokens, but the slots of the template .* take 2 \+ 2"
    ):
        verify(folder, llama)


def test_a_damaged_certificate_is_named(llama, export, tmp_path):
    _, folder = export(llama, "soft", "kv")
    path = folder / "certificate.json"
    whole = path.read_text()
    for content in (
        "{",
        "[]",
        whole.replace('"probe"', '"prob"'),
        whole.replace('"lengths"', '"length"'),
    ):
        path.write_text(content)
        with pytest.raises(PromptError, match="certificate.json is damaged"):
            verify(folder, llama)
    path.write_text(whole.replace("promptsearch-certificate-1", "promptsearch-certificate-9"))
    with pytest.raises(
        PromptError, match="has the format 'promptsearch-certificate-9', this version reads"
    ):
        verify(folder, llama)
    path.write_text(whole.replace('"export": "kv"', '"export": "kw"'))
    with pytest.raises(UnknownName, match="unknown export format 'kw'"):
        verify(folder, llama)
    with pytest.raises(PromptError, match="holds no prompt"):
        verify(tmp_path / "nowhere", llama)
    with pytest.raises(
        PromptError,
        match="holds no prompt: expected a finished run's folder, or a folder with prompt.json",
    ):
        load_prompt(folder)
