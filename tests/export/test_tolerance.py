"""What verification allows: as much as float32 cannot hold.

On any model, for any answers, and whatever a certificate says.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel
from promptsearch.errors import ExportError
from promptsearch.export import FORMATS, export_run, load_prompt, verify
from promptsearch.export.saved import write_saved
from promptsearch.export.tolerance import Scored, allowed_distance, scored
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.scoring import Engine
from promptsearch.scoring.answers import answer_scores, choice_scores
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model

PLACES = {
    "in front": "{prompt:3} {text} It was {answer}",
    "among anchors": "{prompt:2} movie {prompt:1} {text} It was {answer}",
    "behind": "{text} {prompt:3} It was {answer}",
    "chat": [{"user": "{text} {prompt:3} it"}, {"assistant": "It was {answer}"}],
}
KINDS = [
    *((kind, place) for kind in ("hard", "text", "soft") for place in PLACES),
    *((kind, place) for kind in ("prefix", "gated", "weights") for place in ("in front", "chat")),
]


def sample(number, lengths):
    """Some of all models, prompts, places and lengths of answers, always the same ones."""
    cases = [(*case, tokens) for case in product(ARCHITECTURES, KINDS) for tokens in lengths]
    return [
        pytest.param(lm, kind, place, tokens, id=f"{lm}-{kind}-{place}-{tokens}")
        for lm, (kind, place), tokens in sorted(Random(0).sample(cases, number))
    ]


def answer(lm, first, tokens):
    """An unlikely answer of so many tokens at least."""
    words = ("movie", "Paris", "the", "terrible", "capital", "of", "a", "review")
    text = first
    while len(lm.encode(text)) < tokens:
        text += f" {words[(len(text) * len(first)) % len(words)]}"
    return text


def write(saved, lm, folder):
    folder.mkdir()
    write_saved(saved, lm, folder)
    return folder


def test_a_long_answer_is_added_up_in_float64(lm):
    """Forty tokens at 7 nats each: float32 would take steps of 3e-5."""
    states = torch.randn(40, lm.embeddings.shape[1], generator=torch.Generator().manual_seed(0))
    states, target = 3 * states, list(range(40))
    logits = lm.passes.logits(states).double()
    expected = float(logits.log_softmax(-1)[range(40), target].sum())
    found = answer_scores(lm, states, [target], [target])
    assert found.dtype == torch.float64 and expected < -200
    assert abs(float(found[0, 0]) - expected) < 2e-6
    losses, _, _ = choice_scores(
        torch.tensor([[-250.0, -250.0 - 1e-6]], dtype=torch.float64), torch.tensor([1])
    )
    assert float(losses[0]) == pytest.approx(np.log(2) + 0.5e-6, abs=1e-9)


def test_the_noise_of_a_model_is_that_of_its_float32(lm):
    """It foretells how far log-probabilities lie from float64, without computing any."""
    double, rng = in_float64(lm), np.random.default_rng(0)
    errors = []
    for _ in range(20):
        ids = torch.tensor(rng.choice(lm.words, 24))[None]
        with torch.inference_mode():
            single, exact = (
                m(input_ids=ids).logits[0].double().log_softmax(-1) for m in (lm.model, double)
            )
        errors.append((single - exact).numpy())
    assert 0.3 < np.sqrt(np.mean(np.square(errors))) / lm.noise < 1.2
    assert LanguageModel(lm.model, lm.tokenizer).noise == lm.noise, "the same at every look"


def in_float64(lm):
    """The model in float64; its norms too, which transformers computes in float32."""
    model = lm.to(torch.float64).model
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm(module)
    return model


def norm(module):
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    scale = module.weight + ("Gemma" in type(module).__name__)
    return lambda states: (
        scale * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + epsilon)
    )


def test_what_is_allowed_follows_from_answers_and_model(llama):
    choices = (" good", answer(llama, " bad", 7), answer(llama, " a movie", 30))
    examples = [Example(i, {}, choice, i) for i, choice in enumerate(choices)]
    lengths = [llama.count_answer(choice) for choice in choices]
    template = Template.parse("{prompt} {text}{answer}")
    assert [scored(llama, template, e, choices).tokens for e in examples] == [
        lengths[0] + lengths[2],
        lengths[1] + lengths[2],
        lengths[2] + lengths[1],
    ]
    text = replace(examples[2], choice=None, also=(choices[0],))
    assert scored(llama, template, text, None) == (lengths[2] + 1, False, 1), "with its end"
    ends = replace(template, end="\n")
    assert scored(llama, ends, text, None).tokens == llama.count_answer(choices[2] + "\n")
    by_row = replace(examples[0], options=choices)
    assert scored(llama, template, by_row, None) == scored(llama, template, examples[0], choices)
    weighed = scored(llama, template, examples[0], choices, "tokens")
    assert weighed == (lengths[0] + lengths[2], True, 1)
    one, hundred = (allowed_distance(llama, Scored(n), 3.0) - 1e-6 for n in (1, 100))
    assert hundred == pytest.approx(10 * one)
    assert allowed_distance(llama, Scored(1, length=4), 3.0) - 1e-6 == pytest.approx(one / 4)
    likely, even = (
        allowed_distance(llama, Scored(4, True), loss) - 1e-6 for loss in (1e-4, np.log(2))
    )
    assert likely == pytest.approx(2e-4 * even, rel=1e-3), (
        "nothing can move a loss that the others have no part in"
    )


@pytest.mark.parametrize(
    ("lm", "kind", "place", "tokens"), sample(110, (0, 1, 30)), indirect=["lm"]
)
def test_right_exports_verify_in_every_format(lm, make_saved, tmp_path, kind, place, tokens):
    choices = (answer(lm, " good", tokens), answer(lm, " bad", tokens)) if tokens else None
    saved = make_saved(lm, kind, PLACES[place], choices)
    best, made = write(saved, lm, tmp_path / "best"), 0
    for to in FORMATS:
        try:
            found = verify(export_run(best, to, tmp_path / to, model=lm), lm)
        except ExportError as error:
            assert "away from what was measured" not in str(error)
            continue
        assert found.same, f"{to}: {found}"
        made += 1
    assert made


def wrongs(prompt, lm):
    """The prompt with each fault that it can have."""
    if isinstance(prompt, HardPrompt):
        first, *rest = prompt.ids
        yield HardPrompt([lm.words[lm.words.index(first) - 1], *rest])
        yield HardPrompt([*rest, first])
    elif isinstance(prompt, TextPrompt):
        yield TextPrompt([prompt.texts[0] + "s", *prompt.texts[1:]])
    else:
        name, first = next(iter(prompt.tensors.items()))
        if not isinstance(prompt, Weights):
            yield type(prompt).load({**prompt.tensors, name: first.roll(1, 0)})
        off = first.clone()
        off[0] *= 1.01
        for changed in (off, first.bfloat16().float(), first.half().float()):
            yield type(prompt).load({**prompt.tensors, name: changed})


@pytest.mark.parametrize(("lm", "kind", "place", "tokens"), sample(90, (0, 7)), indirect=["lm"])
def test_wrong_exports_do_not(lm, make_saved, tmp_path, kind, place, tokens):
    """Those that move a loss by more than ten times what rounding usually does.

    That is 0.6 of a standard deviation.
    """
    choices = (answer(lm, " good", tokens), answer(lm, " bad", tokens)) if tokens else None
    saved = make_saved(lm, kind, PLACES[place], choices)
    engine, ids = (
        Engine(lm, saved.template, Split("probe", saved.probe), choices),
        np.arange(len(saved.probe)),
    )
    count = np.array([scored(lm, saved.template, e, choices).tokens for e in saved.probe])
    share = 1 if choices is None else -np.expm1(-np.array(saved.losses))
    noise = 0.6 * lm.noise * np.sqrt(count) * share + 5e-7
    for number, prompt in enumerate(wrongs(saved.prompt, lm)):
        moved = np.abs(engine.score([prompt], ids).losses[0] - saved.losses)
        if (moved > 10 * noise).any():
            folder = write(replace(saved, prompt=prompt), lm, tmp_path / str(number))
            assert not verify(folder, lm).same
            with pytest.raises(
                ExportError, match="nats per scored token away from what was measured"
            ):
                load_prompt(folder).verify(lm)


@pytest.mark.parametrize("claim", [{"tolerance": 1e9}, {"name": "x", "served": None}])
def test_a_strangers_certificate_allows_nothing(llama, make_saved, tmp_path, claim):
    saved = make_saved(llama, "hard", PLACES["in front"], (" very bad", " good"))
    for to in ("json", "kv", "text"):
        folder = export_run(
            write(saved, llama, tmp_path / f"best-{to}"), to, tmp_path / to, model=llama
        )
        path = folder / ("prompt.json" if to == "json" else "certificate.json")
        data = json.loads(path.read_text())
        data["probe"][1]["loss"] += 2e-4
        data["scored_tokens"] = 10**9
        data["tolerance"] = 1e9
        data["model"] |= claim
        path.write_text(json.dumps(data))
        found = verify(folder, llama)
        assert not found.same and found.tolerance < 1e-4


def test_a_prompt_is_not_bent_by_wide_logits(tmp_path, make_saved):
    """Where logits are ten times as large, so is what float32 cannot hold."""
    model, tokenizer = tiny_model("llama", seed=1)
    narrow = LanguageModel(model, tokenizer, name="narrow").noise
    other, tokenizer = tiny_model("llama", seed=1)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(10)
    wide = LanguageModel(other, tokenizer, name="wide")
    assert 5 < wide.noise / narrow < 20
    saved = make_saved(wide, "soft", PLACES["behind"], None)
    best = write(saved, wide, tmp_path / "best")
    assert verify(export_run(best, "vllm", tmp_path / "vllm", model=wide), wide).same
