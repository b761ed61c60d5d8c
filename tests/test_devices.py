"""The same on every device: on pretended cards anywhere, and on GPUs where there are some.

A pretended card refuses tensors that were left on the CPU or on another card; they get a process of
their own. Only a GPU shows what rounding, the order of its additions and its memory do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from torch import nn
from transformers import AutoModelForCausalLM, Mamba2Config

from promptsearch import LanguageModel, compare
from promptsearch.errors import ModelError, StudyError
from promptsearch.models.device import make_repeatable
from promptsearch.models.device_map import check_cards, check_whole
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.provenance import machine
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, slots_of
from promptsearch.scoring.prefix_cache import Kept
from promptsearch.search.calling import strangers_code
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Split
from promptsearch.testing.card import CARDS, pretended_card
from promptsearch.testing.rerun import Killed, results_of, without_times
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_masked import MASKED_ARCHITECTURES, tiny_masked
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq
from promptsearch.testing.tiny_task import tiny_engine

pytestmark = pytest.mark.usefixtures("unreported")

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
GPU = [pytest.mark.gpu, no_gpu]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs here")
#: Whether this is the process of the pretended card.
PRETENDED = "PRETENDED_CARD" in os.environ
on_card = pytest.mark.skipif(not PRETENDED, reason="the pretended card has its own process")

#: Kind -> template.
KINDS = {
    "hard": "{prompt} The film: {text} It was{answer}",
    "text": "{text}: {prompt} It was{answer}",
    "soft": "The movie {text} {prompt} It was{answer}",
    "prefix": "{prompt} {text} It was{answer}",
    "gated": "{prompt} {text} It was{answer}",
    "gated heads": "{prompt} {text} It was{answer}",
    "weights": "{prompt} {text} It was{answer}",
    "tuned": "{prompt} {text} is{answer}",
}
#: Architecture -> answers: of one token each, of several, and written freely.
ANSWERS = {
    "llama": (" bad", " good"),
    "gpt2": (" a very bad movie", " good"),
    "gemma3": None,
    "qwen3": (" the capital", " good"),
}
#: Strategies that read embeddings and gradients themselves, and one for each kind of prompt.
STRATEGIES = [
    {"gcg": {"batch": 4, "width": 4}},
    {"pez": {"batch": 4, "interval": 1, "rate": 0.5}},
    {"black_box_tuning": {"dimensions": 4}},
    {"prompt_tuning": {"interval": 1, "batch": 4, "rate": "auto"}},
    {"nearest_tokens": {"start": {"run": "prompt_tuning"}}},
    {"prefix_tuning": {"interval": 1, "batch": 4, "hidden": 8}},
    {"llama_adapter": {"interval": 1, "batch": 4}},
    {"fine_tuning_top2": {"interval": 1, "batch": 4}},
    {"lora": {"interval": 1, "batch": 4, "rank": 2}},
    {"p_tuning_lm": {"interval": 1, "batch": 4, "encoder": "lstm", "hidden": 8}},
]
OTHERS = [
    {"manual": {"prompts": ["good movie?", "It was"]}},
    {"exemplars": {"shots": 2}},
    "random",
    {"evolution": {"batch": 4}},
    {"optuna": {"shortlist": 8}},
    {"beam": {"width": 2}},
    "coordinate",
    {"genetic": {"population": 4, "children": 4}},
    {"bayesian": {"first": 4, "batch": 4, "candidates": 100}},
    {"bdpl": {"batch": 4}},
    {"rlprompt": {"batch": 4}},
    {"grips": {"prompts": ["good movie?"]}},
    "llm_proposed",
    {"llm_evolution": {"prompts": ["good movie?", "It was"]}},
    {"reflect": {"prompts": ["good movie?"], "minibatch": 4, "examples": 1, "longest": 12}},
    {"autoprompt": {"batch": 4}},
    {"p_tuning": {"interval": 2, "batch": 4, "encoder": "lstm", "hidden": 8}},
    {"fine_tuning": {"interval": 1, "batch": 4}},
    {"adapter": {"interval": 1, "batch": 4, "share": 0.1}},
]


@pytest.fixture(params=["card" if PRETENDED else pytest.param("cuda", marks=GPU)])
def device(request):
    """A device that is no CPU."""
    if request.param == "cuda":
        yield torch.device("cuda")
        return
    with pretended_card() as card:
        yield card


@pytest.fixture(
    params=["cards" if PRETENDED else pytest.param("cuda", marks=[pytest.mark.gpu, two_gpus])]
)
def devices(request):
    """Two devices that are no CPU."""
    if request.param == "cuda":
        yield torch.device("cuda:0"), torch.device("cuda:1")
        return
    with pretended_card():
        yield tuple(map(torch.device, CARDS))


@pytest.fixture
def gpu():
    yield torch.device("cuda")
    torch.use_deterministic_algorithms(False)  # the next model turns it on again


def tiny_on(device, architecture="llama", **sizes):
    model, tokenizer = tiny_model(architecture, **sizes)
    model.to(device).tie_weights()  # pretended weights are other objects than those before
    return LanguageModel(model, tokenizer, name=architecture)


def spread(model, devices):
    """The upper half of each stack of layers on the second device, and all else on the first.

    The hooks are those with which `transformers` loads a model by `device_map`.
    """
    first, second = devices
    places = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{k}.") for k in places):
            upper = len(module) // 2
            places |= {f"{name}.{i}": (first, second)[i >= upper] for i in range(len(module))}
    for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        if not any(name.startswith(f"{place}.") for place in places):
            places[name.rpartition(".")[0] or name] = first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that BART's bias behind the head is in no module
        dispatch_model(model, places, main_device=first).tie_weights()
    return model


def tiny_spread(devices, architecture="llama", make=tiny_model):
    model, tokenizer = make(architecture)
    return LanguageModel(spread(model, devices), tokenizer, name=architecture)


def seeded():
    return torch.Generator().manual_seed(0)


def study(strategies, budget=2_500, **changes):
    base = {"name": "s", "length": 2, "score_on": 8, "seeds": 1, "dtype": "float32"}
    return {**base, "budget": budget, "strategies": strategies, **changes}


@pytest.mark.skipif(PRETENDED or torch.cuda.is_available(), reason="there is a card")
def test_all_that_runs_on_any_device_runs_on_a_pretended_card():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "card"]
    done = subprocess.run(
        [*command, __file__],
        env=os.environ | {"PRETENDED_CARD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@on_card
def test_the_pretended_card_refuses_what_a_gpu_refuses():
    with pretended_card() as card:
        there, here = torch.arange(4.0, device=card), torch.arange(4.0)
        places = torch.tensor([0, 2], device=card)
        assert (there.device.type, there.cpu().device.type) == ("card", "cpu")
        for mix in (
            lambda: there + here,
            lambda: here[places],
            lambda: here.index_select(0, places),
            lambda: torch.cat([there, here]),
            lambda: torch.stack([there.sum(), here.sum()]),
            lambda: there.index_put((places,), here[:2]),
            there.numpy,
        ):
            with pytest.raises(RuntimeError, match=r"one device|subclasses"):
                mix()
        there[:2] = 7  # numbers, and what is copied, may come from anywhere
        there[2:] = here[:2]
        assert (there[places.cpu()] * 2).tolist() == [14, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_cpu(kind, device, lm, make_saved):
    saved = make_saved(lm, kind, KINDS[kind], ANSWERS[lm.name])
    saved.verify(tiny_on(device, lm.name))


@pytest.mark.parametrize("answer", ["{answer}", "{answer:pll}"])
@pytest.mark.parametrize("architecture", MASKED_ARCHITECTURES)
def test_masked_models_give_the_losses_of_the_cpu(architecture, answer, device):
    model, tokenizer = tiny_masked(architecture)
    template = "{prompt:2} {text} It was {answer}, and {prompt:1} the story.".replace(
        "{answer}", answer
    )
    found, prompt = [], None
    for where in ("cpu", device):
        model.to(where).tie_weights()
        lm = LanguageModel(model, tokenizer, name=architecture)
        lm.check(gradients=True)
        prompt = prompt or HardPrompt(lm.words[:3])
        found.append(tiny_engine(lm, template, None).score([prompt], np.arange(12)).losses)
    np.testing.assert_allclose(*found, atol=1e-4)


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_encoder_decoder_models_score_and_write_as_on_the_cpu(architecture, device):
    model, tokenizer = tiny_seq2seq(architecture)
    found = []
    for where in ("cpu", device):
        model.to(where).tie_weights()
        lm = LanguageModel(model, tokenizer, name=architecture)
        lm.check(gradients=True)
        prompts = [HardPrompt(lm.words[:3])]
        engine = tiny_engine(lm, "{prompt:2} {text} with {prompt:1}: {answer}", None)
        written = engine.generate(prompts, np.arange(12), Decoding(4, beams=2)).texts
        found.append((engine.score(prompts, np.arange(12)).losses, written))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_the_cpu(architecture, device, make_saved):
    here, found = LanguageModel(*tiny_model(architecture), name=architecture), []
    for kind in ("soft", "prefix"):
        saved = make_saved(here, kind, KINDS[kind], None)
        split = Split("probe", saved.probe)
        for lm in (here, tiny_on(device, architecture)):
            rows = saved.prompt.parts.vectors if kind == "soft" else saved.prompt.parts.keys_values
            numbers = rows.clone().requires_grad_()
            Engine(lm, saved.template, split, None).loss(numbers, np.arange(5)).backward()
            found.append(numbers.grad)
            assert numbers.grad.device.type == "cpu"
    for ours, theirs in (found[:2], found[2:]):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "way",
    [Decoding(5), Decoding(5, beams=3), Decoding(5, temperature=1.0, top_p=0.9, samples=2)],
    ids=["greedy", "beams", "drawn"],
)
@pytest.mark.parametrize("kind", ["soft", "prefix", "gated"])
def test_answers_are_those_of_the_cpu(kind, way, device, make_saved):
    lm = LanguageModel(*tiny_model("llama"), name="llama")
    saved = make_saved(lm, kind, KINDS[kind], None)
    split, there = Split("probe", saved.probe), tiny_on(device)
    texts = [
        Engine(one, saved.template, split, None).generate([saved.prompt], np.arange(5), way).texts
        for one in (lm, there)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("auto", marks=GPU)])
def test_strategies_of_each_kind_run(dtype, device, films, tmp_path):
    slow = (
        () if device.type == "cuda" else ("black_box_tuning", "prefix_tuning", "fine_tuning_top2")
    )
    chosen = [each for each in STRATEGIES if not set(each) & set(slow)]
    given = study(chosen, dtype=dtype)
    results = compare(given, out=tmp_path, model=tiny_on(device), task=films)
    assert results.failed == () and len(results.runs) == len(chosen)


# Layers on two devices.


@on_card
def test_a_pretended_card_refuses_what_lies_on_another():
    with pretended_card():
        one, other = (torch.arange(4.0, device=card).requires_grad_() for card in CARDS)
        places = torch.tensor([0, 2], device=CARDS[1])
        for mix in (
            lambda: one + other,
            lambda: one * other.sum(),
            lambda: one[places],
            lambda: one.index_select(0, places),
            lambda: torch.cat([one, other]),
        ):
            with pytest.raises(RuntimeError, match="one device"):
                mix()
        (one.to(CARDS[1]) * other).sum().backward()
        assert (str(one.grad.device), str(other.grad.device)) == CARDS
        assert one.grad.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [*((kind, "llama") for kind in KINDS), ("gated", "gpt2"), ("weights", "gpt2")],
)
def test_losses_on_two_devices_are_those_of_one(kind, architecture, devices, make_saved):
    here = LanguageModel(*tiny_model(architecture), name=architecture)
    saved = make_saved(here, kind, KINDS[kind], ANSWERS[architecture])
    lm = tiny_spread(devices, architecture)
    lm.check(gradients=True)
    assert lm.devices == devices and lm.device == devices[0]
    assert lm.passes.trees  # else a model is scored row by row, which takes other ways
    saved.verify(lm)


def test_keys_and_values_lie_where_their_layers_do(devices):
    lm = tiny_spread(devices)
    assert [part.device for part in lm.passes.kept.parts] == list(devices)
    assert [v.device for _, v in lm.passes.cached(torch.zeros(lm.prefix_shape)[..., None, :])] == [
        devices[0],
        devices[1],
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "t5", "bart", "bert"])
def test_gradients_and_answers_on_two_devices_are_those_of_one(architecture, devices):
    make = {"t5": tiny_seq2seq, "bart": tiny_seq2seq, "bert": tiny_masked}.get(
        architecture, tiny_model
    )
    here, found, texts = LanguageModel(*make(architecture), name=architecture), [], []
    numbers = {
        "slots": torch.randn(3, here.embeddings.shape[1], generator=seeded()),
        "prefix": torch.randn(3, *here.prefix_shape, generator=seeded()),
    }
    for lm in (here, tiny_spread(devices, architecture, make)):
        lm.check(gradients=True)
        assert lm.passes.trees == here.passes.trees
        for kind, start in numbers.items():
            engine = tiny_engine(lm, "{prompt} {text} with: {answer}", None, kind=kind)
            given = start.clone().requires_grad_()
            loss = engine.loss(given, np.arange(6))
            loss.backward()
            found.append(torch.cat([loss.detach()[None], given.grad.flatten()]))
        if lm.family.writes:
            engine = tiny_engine(lm, "{text} {prompt} with: {answer}", None)
            prompts = [HardPrompt(here.words[:3])]
            texts.append(engine.generate(prompts, np.arange(6), Decoding(4, beams=2)).texts)
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-3, atol=1e-5)
    assert texts[:1] == texts[1:]


def test_strategies_train_and_search_on_two_devices(devices, films, tmp_path):
    chosen = [each for each in STRATEGIES if set(each) & {"gcg", "llama_adapter", "lora"}]
    results = compare(study(chosen), out=tmp_path, model=tiny_spread(devices), task=films)
    assert results.failed == () and len(results.runs) == len(chosen)


def test_a_copy_in_another_dtype_lies_as_the_model_and_is_apart_from_it(devices):
    lm = tiny_spread(devices)
    copy = lm.to(torch.bfloat16)
    copy.check()
    places = [[weight.device for weight in one.model.parameters()] for one in (lm, copy)]
    assert places[0] == places[1] and copy.devices == devices
    copy.model.to(torch.float64)
    assert lm.dtype == torch.float32 and lm.integrity.digest() == lm.hash
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.add_(1)
    assert lm.integrity.digest() != lm.hash


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("balanced", "auto", ""), "expected device_map auto"),
        (("auto", "cpu", ""), "names one device"),
        (("auto", "auto", "int8"), "not those that are kept in int8"),
        (("auto", "auto", ""), "torch sees none here"),
    ],
)
def test_what_cannot_be_spread_is_refused(given, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=says):
        check_cards(*given)


def test_a_model_that_the_gpus_do_not_hold_is_refused():
    model = nn.Linear(2, 2)
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    check_whole(model)
    model.hf_device_map |= {"model.layers.2": "cpu", "lm_head": "disk"}
    with pytest.raises(ModelError, match="2 of its 4 parts would stay outside"):
        check_whole(model)


@pytest.mark.parametrize("more", [{"workers": 2}, {"replicas": 2}])
def test_a_spread_model_leaves_no_gpu_for_other_processes(more, tmp_path):
    given = study(["random"], device_map="auto", model="none", task="capitals", **more)
    workers = given.pop("workers", 0)
    with pytest.raises(StudyError, match="takes all GPUs of a machine for one model"):
        compare(given, out=tmp_path, workers=workers)


@pytest.mark.gpu
@two_gpus
def test_a_model_is_loaded_onto_two_gpus(tmp_path):
    model, tokenizer = tiny_model("llama", layers=8)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    one = LanguageModel.load(str(tmp_path), device="cuda:0")
    lm = LanguageModel.load(str(tmp_path), device_map="auto")
    assert len(lm.devices) == 2 and lm.hash == one.hash
    prompts = [HardPrompt(lm.words[:3])]
    found = [tiny_engine(each).score(prompts, np.arange(12)).losses for each in (one, lm)]
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.fixture
def as_before(monkeypatch):
    """The settings of the process, put back afterwards."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    own = torch.utils.deterministic.fill_uninitialized_memory
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = own
    torch.backends.cudnn.allow_tf32 = flags[0]
    torch.backends.cuda.enable_cudnn_sdp(flags[1])


def test_a_gpu_is_told_to_compute_the_same_each_time_and_a_cpu_is_not(as_before):
    make_repeatable(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":0:0"
    make_repeatable(torch.device("cuda"))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.cudnn_sdp_enabled()
    # A model that needs it may have turned on warnings only: the next model leaves it so.
    torch.use_deterministic_algorithms(True, warn_only=True)
    make_repeatable(torch.device("cuda"))
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_what_a_strategy_does_to_them_is_put_back(as_before):
    make_repeatable(torch.device("cuda"))
    with strangers_code("it failed"):
        torch.use_deterministic_algorithms(True, warn_only=True)
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_pass_that_does_not_fit_is_let_go_before_its_halves_run():
    """What it holds is most of the memory."""

    class Pass:
        pass

    failed = []

    def run(items):
        own = Pass()
        assert not any(seen() for seen in failed), "an earlier pass is still there"
        if len(items) > 1:
            failed.append(weakref.ref(own))
            raise torch.OutOfMemoryError("CUDA ran out")
        return [torch.tensor(item) for item in items]

    kept = Kept(run, lambda item: 1, [1, 2, 3, 4], [torch.device("cpu")])
    assert [int(found) for found in kept.get([3, 1])] == [3, 1] and len(failed) == 3


# What only a GPU shows.


@pytest.mark.gpu
@no_gpu
def test_every_other_strategy_runs(gpu, films, tmp_path):
    results = compare(study(OTHERS, 9_000), out=tmp_path, model=tiny_on(gpu), task=films)
    assert results.failed == () and len(results.runs) == len(OTHERS)
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["device"].startswith("cuda") and torch.cuda.get_device_name() in str(record)
    assert machine()["cuda"] == torch.version.cuda


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_runs_that_train_are_the_same_again_and_after_a_kill(
    dtype, gpu, films, tmp_path, monkeypatch
):
    """Larger than the other models: gradients are then summed up by many threads."""

    training = [each for each in STRATEGIES if not {"black_box_tuning", "pez"} & set(each)]

    def work(name):
        lm = tiny_on(gpu, layers=2, width=128)
        compare(study(training, 4_000, dtype=dtype), out=tmp_path / name, model=lm, task=films)
        return without_times(results_of(tmp_path / name))

    whole = work("whole")
    assert work("again") == whole
    for moment in (9, 14, 19, 24):
        writes = 0

        def deadly(file, moment=moment):
            nonlocal writes
            writes += 1
            if writes == moment:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "fsync", deadly)
            work("killed")
    assert work("killed") == whole


@pytest.mark.gpu
@no_gpu
def test_passes_that_do_not_fit_go_in_halves(gpu, make_saved, caplog):
    """A model of 40 MB on a card with little room: the same losses as with all of it."""
    here = LanguageModel(*tiny_model("llama", width=256, layers=4), name="llama")
    saved = make_saved(here, "soft", KINDS["soft"], ANSWERS["gpt2"])
    probe = tuple(replace(saved.probe[i % 5], id=i) for i in range(400))
    there = tiny_on(gpu, width=256, layers=4)

    def losses(prompts):
        engine = Engine(there, saved.template, Split("probe", probe), saved.choices)
        return engine.score([saved.prompt] * prompts, np.arange(len(probe))).losses

    free = losses(8)
    torch.cuda.empty_cache()
    total, held = torch.cuda.mem_get_info()[1], torch.cuda.memory_reserved()
    try:
        torch.cuda.set_per_process_memory_fraction((held + 48 * 2**20) / total)
        tight = losses(8)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: from now on passes of" in caplog.text
    np.testing.assert_allclose(tight, free, atol=1e-4)


@pytest.mark.gpu
@no_gpu
def test_a_card_without_room_for_one_row_says_so(gpu, make_saved):
    here = LanguageModel(*tiny_model("llama"), name="llama")
    saved, there = make_saved(here, "hard", KINDS["hard"], None), tiny_on(gpu)
    engine = Engine(there, saved.template, Split("probe", saved.probe), None)
    torch.cuda.empty_cache()
    taken = []
    try:
        torch.cuda.set_per_process_memory_fraction(64 * 2**20 / torch.cuda.mem_get_info()[1])
        while True:  # down to less than torch takes at a time
            try:
                taken.append(torch.empty(512, dtype=torch.uint8, device=gpu))
            except torch.OutOfMemoryError:
                break
        with pytest.raises(ModelError, match="the memory of cuda:0 does not hold one row"):
            engine.score([saved.prompt], np.arange(5))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens_are_those_of_transformers(architecture, beams, gpu, make_saved):
    here = LanguageModel(*tiny_model(architecture), name=architecture)
    saved, lm = make_saved(here, "hard", KINDS["hard"], None), tiny_on(gpu, architecture)
    split = Split("probe", saved.probe)
    engine = Engine(lm, saved.template, split, None)
    found = engine.generate([saved.prompt], np.arange(5), Decoding(12, beams=beams))
    slots = slots_of(saved.template, lm, saved.prompt)
    for example, (text,) in zip(saved.probe, found.texts[0], strict=True):
        row = lay_out(saved.template, lm, example, None).join(slots)
        ids = lm.model.generate(
            torch.tensor([row], device=gpu),
            attention_mask=torch.ones(1, len(row), dtype=torch.long, device=gpu),
            max_new_tokens=12,
            num_beams=beams,
            early_stopping=False,
            do_sample=False,
            eos_token_id=sorted(lm.ends),
            pad_token_id=0,
        )[0, len(row) :].tolist()
        end = next((i for i, token in enumerate(ids) if token in lm.ends), len(ids))
        assert text == lm.decode([token for token in ids[:end] if token not in lm.added])


@pytest.mark.gpu
@no_gpu
def test_a_recurrent_model_is_scored_as_on_the_cpu(gpu, make_saved):
    sizes = {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
    config = Mamba2Config(vocab_size=512, num_hidden_layers=2, expand=2, chunk_size=8, **sizes)
    _, tokenizer = tiny_model("llama")
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # of the model, that it has no kernels; and of torch
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        saved = make_saved(LanguageModel(model, tokenizer, "mamba"), "hard", KINDS["hard"], None)
        lm = LanguageModel(model.to(gpu), tokenizer, "mamba")
        lm.check()
        saved.verify(lm)


@pytest.mark.gpu
@no_gpu
def test_a_model_that_differs_from_run_to_run_is_scored_with_a_warning(gpu, make_saved, caplog):
    def count(numbers):
        torch.histc(numbers, 4)  # CUDA has no form of it that is the same each time

    here = LanguageModel(*tiny_model("llama"), name="llama")
    saved, lm = make_saved(here, "hard", KINDS["hard"], None), tiny_on(gpu)
    lm.model.register_forward_hook(lambda *given: count(given[2].logits))
    lm.model.base_model.register_forward_hook(lambda *given: count(given[2].last_hidden_state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, at each histogram
        lm.check()
        saved.verify(lm)
    assert "LlamaForCausalLM differs on a GPU from run to run" in caplog.text
