"""What several tests share: a tiny study that runs in seconds, and a cache for each test."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings

from promptsearch.export import SavedPrompt
from promptsearch.export.peft.weights import weights_files
from promptsearch.models import LanguageModel
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import TunedPrompt, Weights
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.search import books
from promptsearch.search.encoders import attention_maps
from promptsearch.tasks.task import Example, Split, Task
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model

# The same suite passes or fails in the same way for everybody;
# `pytest --hypothesis-profile default` tries new examples.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

torch.set_num_threads(1)  # tests run in parallel, and numbers must not depend on how many there are


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test sees the user's cache or another test's; a downloaded model may stay where it is."""
    monkeypatch.setattr(
        "promptsearch.study.study.cache_folder",
        lambda: tmp_path_factory.mktemp("cache"),
        raising=False,
    )


@pytest.fixture(autouse=True)
def own_loudness():
    """A test's quiet command leaves the log of later tests as it is."""
    yield
    logging.getLogger("promptsearch").setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Killed processes lose nothing that they wrote; only a machine without power would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def unguarded(monkeypatch):
    """Nothing watches the library's code, which takes longer than scores without an LM."""
    monkeypatch.setattr(books, "Guard", lambda: SimpleNamespace(check=lambda: None))


@pytest.fixture(scope="module")
def unreported():
    """Within the module `compare` writes no report, which takes longer than many a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        yield


@pytest.fixture(scope="session")
def killed_at():
    """A function that runs `work` in a process that dies at its `moment`-th durable write.

    It dies by SIGKILL. The function returns whether it got that far.
    """

    def run(moment, work):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # fork beside threads: the child only computes and dies
            child = os.fork()
        if child == 0:
            try:
                count = 0

                def deadly(file):
                    nonlocal count
                    count += 1
                    if count == moment:
                        os.kill(os.getpid(), signal.SIGKILL)

                os.fsync = deadly
                work()
            finally:
                os._exit(0)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    return run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The package as it is installed.

    It is built from a copy: setuptools leaves its `build` folder in the source.
    """
    folder, root = tmp_path_factory.mktemp("wheel"), Path(__file__).parent.parent
    source = folder / "source"
    source.mkdir()
    for name in ("promptsearch", "strategies"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("promptsearch_kit-*.whl")
    return built


@pytest.fixture(scope="session")
def tiny():
    """A tiny Llama."""
    return LanguageModel(*tiny_model("llama"), name="tiny-llama")


@pytest.fixture(scope="session")
def real():
    """The real model, in float32, for tests marked `real`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, the first time
        return LanguageModel.load("smollm2-135m-instruct")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def lm(request):
    """A tiny model of each architecture, which a module may use up."""
    return LanguageModel(*tiny_model(request.param), name=request.param)


@pytest.fixture(scope="module")
def llama():
    """The first of these."""
    return LanguageModel(*tiny_model("llama"), name="llama")


@pytest.fixture(scope="session")
def films():
    """A task of choice with a little structure."""
    parts = ["good film", "the story", "I hate", "capital"]
    rows = [
        {"text": " ".join(parts[i % 4 :] * (1 + i % 3)) + f" {i}", "label": i % 2}
        for i in range(120)
    ]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 40, "select": 16, "test": 20},
        name="films",
    )


def saved_prompt(lm, kind, template, choices, length=3, seed=0):
    """A prompt with a probe that the engine scored, as a run would leave it.

    Args:
        lm: A tiny model.
        kind: `hard`, `text`, `soft`, `prefix`, `gated` (with a gate a layer), `gated heads`,
            `weights` (low-rank ones) or `tuned` (all weights, near the LM's).
        template: With the field `text`, of one text or of messages.
        choices: As they follow the template; None: the text answer " Paris".
        length: Tokens of a slot.
        seed: Draws the prompt.
    """
    generator = torch.Generator().manual_seed(seed)
    bound = render(Template.parse(template), lm).bind(length)
    words = [
        lm.words[i] for i in torch.randint(len(lm.words), (bound.length,), generator=generator)
    ]
    if kind == "prefix":
        bound = bound.taking("prefix")
        prompt = PrefixPrompt(torch.randn(length, *lm.prefix_shape, generator=generator))
    elif kind.startswith("gated"):
        bound = bound.taking("gated")
        _, heads, width = lm.gated_shape
        gates = torch.randn(2, heads if kind == "gated heads" else 1, generator=generator)
        prompt = GatedPrompt(torch.randn(bound.length, 2, width, generator=generator), gates)
    elif kind == "weights":
        bound = bound.taking("weights")
        prompt = drawn_weights(lm, "low rank", seed)
    elif kind in ("soft", "tuned"):
        noise = 0.1 * torch.randn(bound.length, lm.embeddings.shape[1], generator=generator)
        vectors = lm.vocabulary[torch.tensor(words)] + noise
        prompt = SoftPrompt(vectors)
        if kind == "tuned":
            bound = bound.taking("tuned")
            near = {
                n: t + 0.05 * torch.randn(t.shape, generator=generator)
                for n, t in lm.weights.tensors.items()
            }
            prompt = TunedPrompt({"vectors": vectors, **near})
    else:
        prompt = (
            HardPrompt(words)
            if kind == "hard"
            else TextPrompt("What is the answer? The movie was very good")
        )
    texts = [
        "good film",
        "I hate the story",
        "the capital of France",
        "bad",
        "a very good movie and a funny story",
    ]
    answers = choices or (" Paris",)
    probe = tuple(
        Example(
            i,
            {"text": text},
            answers[i % len(answers)],
            None if choices is None else i % len(answers),
        )
        for i, text in enumerate(texts)
    )
    losses = (
        Engine(lm, bound, Split("probe", probe), choices)
        .score([prompt], np.arange(len(probe)))
        .losses[0]
    )
    assert np.isfinite(losses).all()
    return SavedPrompt(
        prompt=prompt,
        template=bound,
        choices=choices,
        about={"model": lm.facts, "task": "films", "strategy": "a_strategy"},
        probe=probe,
        losses=tuple(losses.tolist()),
    )


def drawn_weights(lm, form, seed=0):
    """Weights that PEFT has a type for, unlike the LM's own.

    Args:
        lm: A tiny model.
        form: `low rank`, `scales`, `norms` or `biases`.
        seed: Draws them.
    """
    own, generator, found = lm.weights, torch.Generator().manual_seed(seed), {}

    def near(start):
        return start + 0.3 * torch.randn(start.shape, generator=generator)

    kinds = {name.rpartition(".")[2] for name in own.maps}
    for name, (into, out) in own.maps.items():
        last = name.rpartition(".")[2]
        if form == "low rank" and last in attention_maps(kinds, "queries", "values"):
            found[f"{name}.lora_A"] = near(torch.zeros(2, into))
            found[f"{name}.lora_B"] = near(torch.zeros(out, 2))
        elif form == "scales" and last in attention_maps(kinds, "keys", "values"):
            found[f"{name}.ia3_out"] = near(torch.ones(out))
        elif form == "scales" and last in ("down_proj", "c_proj", "fc2", "wo", "Wo"):
            found[f"{name}.ia3_in"] = near(torch.ones(into))
        elif form == "biases":
            found[f"{name}.bias"] = near(own.tensors.get(f"{name}.bias", torch.zeros(out)))
    if form == "norms":
        found = {name: near(own.tensors[name]) for name in own.below(own.norms)}
    return Weights(found)


def with_weights_in_peft(lm, prompt):
    """PEFT's own modules with the same numbers, and its parameters by our names, with a gradient.

    Args:
        lm: A tiny model, which is copied.
        prompt: Weights that PEFT has a type for.
    """
    import peft

    tensors, config = weights_files(prompt, lm)
    kind = config.pop("peft_type")
    made = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind](**config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(copy.deepcopy(lm.model), made).eval()
    peft.set_peft_model_state_dict(model, tensors)
    held = {name.replace(".default", ""): p for name, p in model.named_parameters()}
    named = {}
    for name in prompt.tensors:
        module, _, part = name.rpartition(".")
        ends = {"ia3_out": "ia3_l", "ia3_in": "ia3_l", "bias": "beft_bias"}
        ends |= {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
        copied = module in lm.weights.norms
        end = f"ln_tuning_layers.{part}" if copied else ends[part]
        named[name] = held[f"base_model.model.{module}.{end}"]
    return model, named


@pytest.fixture(scope="session")
def draw_weights():
    """`drawn_weights`, for tests that import nothing from here."""
    return drawn_weights


@pytest.fixture(scope="session")
def weights_in_peft():
    """`with_weights_in_peft`, for tests that import nothing from here."""
    return with_weights_in_peft


def turned(states, position_embeddings):
    """Queries of one head, shape (tokens, size), turned to their positions."""
    if position_embeddings is None:
        return states
    cos, sin = (part[0] for part in position_embeddings)
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat([-second, first], -1) * sin


def beside(attention, states, positions, vectors, gates):
    """gate * softmax(q k^T * scaling) v of each head, side by side.

    Shape (tokens, heads * size).
    """
    if hasattr(attention, "c_attn"):
        (queries, _, _), (_, keys, values) = (
            attention.c_attn(x).chunk(3, -1) for x in (states, vectors)
        )
    else:
        queries, keys, values = (
            attention.q_proj(states),
            attention.k_proj(vectors),
            attention.v_proj(vectors),
        )
    size = attention.head_dim
    repeats = queries.shape[-1] // keys.shape[-1]
    parts = []
    for head in range(queries.shape[-1] // size):
        own, shared = (
            slice(head * size, (head + 1) * size),
            slice(head // repeats * size, (head // repeats + 1) * size),
        )
        q, k, v = queries[:, own], keys[:, shared], values[:, shared]
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        weights = (turned(q, positions) @ k.T * attention.scaling).softmax(-1)
        parts.append(gates[head if len(gates) > 1 else 0] * weights @ v)
    return torch.cat(parts, -1)


@contextmanager
def attending(lm, prompt):
    """Within, the model's own forward, of one row, attends to a gated prompt, head by head."""
    attentions = [
        module
        for module in lm.model.modules()
        if hasattr(module, "layer_idx") and hasattr(module, "head_dim")
    ]
    with ExitStack() as hooks:
        for place, attention in enumerate(attentions[len(attentions) - len(prompt.gates) :]):
            projection = attention.c_proj if hasattr(attention, "c_attn") else attention.o_proj
            found = {}

            def read(module, inputs, given, place=place, found=found):
                states = (inputs[0] if inputs else given["hidden_states"])[0]
                positions = given.get("position_embeddings")
                found["it"] = beside(
                    module, states, positions, prompt.vectors[:, place], prompt.gates[place]
                )[None]

            hooks.enter_context(attention.register_forward_pre_hook(read, with_kwargs=True))
            if (
                hasattr(attention, "c_attn") and prompt.gates.shape[1] == 1
            ):  # PEFT's form: behind the projection
                hooks.enter_context(
                    projection.register_forward_hook(
                        lambda m, inputs, out, found=found: out + found["it"]
                    )
                )
            else:
                add = lambda m, inputs, found=found: (inputs[0] + found["it"],)  # noqa: E731
                hooks.enter_context(projection.register_forward_pre_hook(add))
        yield


@pytest.fixture(scope="session")
def attending_to():
    """`attending`, for tests that import nothing from here."""
    return attending


@pytest.fixture(scope="session")
def make_saved():
    """`saved_prompt`, for tests that import nothing from here."""
    return saved_prompt


@contextmanager
def hide_below(lm, layers, length):
    """The model's own attention, whose layers below the top `layers` see no row of the cache.

    Args:
        lm: A tiny model.
        layers: The number of layers that see all.
        length: The number of rows that the cache begins with, which the others do not see.
    """

    def hide(module, given, named):
        mask = named["attention_mask"].clone()  # (rows, 1, queries, keys), added to the products
        mask[..., :length] = torch.finfo(mask.dtype).min
        return given, {**named, "attention_mask": mask}

    config = lm.model.config
    own, config._attn_implementation = config._attn_implementation, "eager"
    with ExitStack() as hooks:
        hooks.callback(setattr, config, "_attn_implementation", own)
        for attention in lm.passes.layers.attentions[:-layers]:
            hooks.enter_context(attention.register_forward_pre_hook(hide, with_kwargs=True))
        yield


@pytest.fixture(scope="session")
def hidden_below():
    """What hides the rows of a cache from the layers below the top ones."""
    return hide_below
