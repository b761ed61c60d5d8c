"""Gated prompts in the engine, and their gradient.

Against a plain forward with hooks, one row at a time (law 3).
"""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, Olmo2Config

from promptsearch.errors import ModelError, PromptError
from promptsearch.models import LanguageModel
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring import sharing as plan
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

LAYERS, LENGTH = 3, 4
FRONT, BEHIND = "{prompt} {text} It was {answer}", "{text} {prompt} It was {answer}"
TWO = ("bad movie", "good movie")  # of two tokens each
make_engine = partial(tiny_engine, answers=TWO, length=LENGTH, kind="gated")
EVERYTHING = np.arange(12)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_model(request.param, layers=LAYERS))


@pytest.fixture(scope="module")
def llama():
    return LanguageModel(*tiny_model("llama", layers=LAYERS))


def make_prompts(lm, layers=2, form="head", count=3, length=LENGTH, seed=0):
    _, heads, width = lm.gated_shape
    generator = torch.Generator().manual_seed(seed)
    gates = (layers, heads if form == "head" else 1)
    return [
        GatedPrompt(
            torch.randn(length, layers, width, generator=generator),
            torch.randn(gates, generator=generator),
        )
        for _ in range(count)
    ]


def plain(lm, engine, example, prompt, attending_to):
    """Summed log-probability of each answer, and the tokens of the longest.

    By the model's own forward, one row at a time.
    """
    layout = engine.layout(example.id)
    found = []
    for answer in layout.answers:
        with torch.inference_mode(), attending_to(lm, prompt):
            logits = (
                lm.model(input_ids=torch.tensor([[*layout.segments[1], *answer]]))
                .logits[0]
                .double()
            )
        steps = logits[-len(answer) - 1 : -1].log_softmax(-1)
        found.append(sum(float(step[token]) for step, token in zip(steps, answer, strict=True)))
    return found, max(map(len, layout.answers))


@pytest.mark.parametrize("form", ["head", "layer"])
@pytest.mark.parametrize("layers", [1, 2, LAYERS])
def test_losses_are_those_of_a_plain_forward_head_by_head(lm, layers, form, attending_to):
    for template, answers in ((FRONT, ("bad", "good")), (BEHIND, ("bad", "very good indeed"))):
        engine = make_engine(lm, template, answers=answers)
        prompts = make_prompts(lm, layers, form, count=2)
        scores = engine.score(prompts, EVERYTHING)
        assert not scores.failures
        for p, prompt in enumerate(prompts):
            for example in engine.examples(EVERYTHING[::3]):
                found, tokens = plain(lm, engine, example, prompt, attending_to)
                expected = torch.tensor(found).log_softmax(-1)
                assert (
                    np.abs(scores.choices[p, example.id] - expected.numpy()).max() < 1e-5 * tokens
                )
        assert np.abs(scores.losses[0] - scores.losses[1]).max() > 0.01, "prompts matter"


def test_text_answers_too(lm, attending_to):
    engine = make_engine(lm, answers=None)
    (prompt,) = make_prompts(lm, count=1)
    losses = engine.score([prompt], EVERYTHING).losses[0]
    for example in engine.examples(EVERYTHING):
        found, tokens = plain(lm, engine, example, prompt, attending_to)
        assert abs(losses[example.id] + found[0]) < 1e-5 * tokens


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_with_gates_of_zero_it_is_the_empty_prompt_to_the_last_digit(lm, template, monkeypatch):
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)  # the same rows in the same passes
    task = tiny_task(template, TWO)
    empty = Engine(lm, task.template.bind(LENGTH), task.splits["search"], task.choices)
    empty.rows.plan.choose = lambda slots, examples: "nothing"
    (prompt,) = make_prompts(lm, count=1)
    found = make_engine(lm, template).score(
        [GatedPrompt(prompt.vectors, torch.zeros_like(prompt.gates))], EVERYTHING
    )
    assert np.array_equal(found.losses, empty.score([TextPrompt("")], EVERYTHING).losses)


@pytest.mark.parametrize("keep", [False, True])
def test_a_loss_does_not_depend_on_batch_order_or_what_is_kept(lm, monkeypatch, keep):
    prompts = make_prompts(lm)
    together = make_engine(lm).score(prompts, EVERYTHING).losses
    order = np.random.default_rng(1).permutation(12)
    assert (
        np.abs(
            make_engine(lm, keep=keep).score(prompts[::-1], order).losses[::-1] - together[:, order]
        ).max()
        < 1e-5 * 2
    )
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (
        np.abs(make_engine(lm, keep=keep).score(prompts, EVERYTHING).losses - together).max()
        < 1e-5 * 2
    )


def test_prompts_of_more_and_fewer_layers_and_both_forms_stand_in_one_call(lm):
    prompts = [
        *make_prompts(lm, 1),
        *make_prompts(lm, LAYERS, "layer", 2),
        *make_prompts(lm, 2, seed=3),
    ]
    engine = make_engine(lm, keep=True)
    together = engine.score(prompts, EVERYTHING).losses
    alone = np.concatenate([engine.score([prompt], EVERYTHING).losses for prompt in prompts])
    assert np.abs(together - alone).max() < 1e-5 * 2


@pytest.mark.parametrize("form", ["head", "layer"])
def test_the_training_loss_is_the_scored_loss_and_its_gradient_is_right(lm, form):
    engine, examples = make_engine(lm, answers=None, keep=True), np.array([3, 0, 5])
    (prompt,) = make_prompts(lm, form=form, count=1)
    numbers = tuple(tensor.clone().requires_grad_() for tensor in prompt.tensors.values())
    loss = engine.loss(numbers, examples)
    assert loss.item() == pytest.approx(engine.score([prompt], examples).losses.mean(), abs=1e-5)
    gradients = torch.autograd.grad(loss, numbers)
    for which, (tensor, gradient) in enumerate(zip(numbers, gradients, strict=True)):
        for seed in range(2):
            direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
            direction /= direction.norm()
            step = 2e-2
            ends = []
            for sign in (1, -1):
                moved = [t.detach() for t in numbers]
                moved[which] = moved[which] + sign * step * direction
                ends.append(float(engine.loss(tuple(moved), examples)))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
                float((gradient * direction).sum()), rel=0.05, abs=1e-3
            )
    assert (gradients[0].abs().sum(-1) > 0).all() and (gradients[1] != 0).all(), (
        "all vectors and gates get a gradient"
    )


def test_at_gates_of_zero_only_the_gates_have_a_gradient(llama):
    (prompt,) = make_prompts(llama, count=1)
    numbers = (
        prompt.vectors.clone().requires_grad_(),
        torch.zeros_like(prompt.gates).requires_grad_(),
    )
    make_engine(llama).loss(numbers, EVERYTHING).backward()
    assert not numbers[0].grad.any() and (numbers[1].grad != 0).all()


def test_gradients_do_not_depend_on_how_the_rows_are_packed(llama, monkeypatch):
    def gradients():
        numbers = tuple(
            tensor.clone().requires_grad_()
            for tensor in make_prompts(llama, count=1)[0].tensors.values()
        )
        make_engine(llama).loss(numbers, EVERYTHING).backward()
        return torch.cat([tensor.grad.flatten() for tensor in numbers])

    together = gradients()
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (gradients() - together).abs().max() < 1e-6


def test_the_price_is_the_prompt_and_the_whole_row_wherever_the_slots_were(lm):
    for template in (FRONT, BEHIND):
        engine = make_engine(lm, template)
        example = engine.examples(np.array([5]))[0]
        text = lm.encode((" " if template == FRONT else "") + f"{example.fields['text']} It was")
        answers = sum(len(lm.encode(f" {answer}")) for answer in TWO)
        assert engine.lead(np.array([5]))[0] == 0
        assert engine.context(np.array([5]))[0] == len(lm.lead) + len(text) + answers
        assert engine.length(make_prompts(lm, count=1)[0]) == LENGTH


def test_layers_below_the_adapted_ones_are_computed_once_for_all_prompts_and_kept(llama):
    engine, prompts = make_engine(llama, keep=True), make_prompts(llama, 1)
    rows = int(engine.rows.memory.held.sum())
    assert engine.score(prompts, EVERYTHING).computed == pytest.approx(
        rows * (2 / 3 + 3 / 3), abs=1
    )
    assert engine.score(prompts, EVERYTHING).computed == pytest.approx(rows * 3 / 3, abs=1)
    assert engine.kept == (rows, rows * 32 * 4), "a float32 of each of 32 dimensions"
    forgetful = make_engine(llama)
    assert [forgetful.score(prompts, EVERYTHING).computed for _ in range(2)] == [
        pytest.approx(rows * 5 / 3, abs=1)
    ] * 2
    entered = []
    with llama.passes.layers.attentions[0].register_forward_hook(
        lambda module, inputs, output: entered.append(1)
    ):
        engine.loss(tuple(prompts[0].tensors.values()), EVERYTHING)
        assert not entered, "training reads what scoring left"
        engine.loss(tuple(make_prompts(llama, 2)[0].tensors.values()), EVERYTHING)
        assert entered, "another first layer is another state"


def test_the_plan_knows_what_is_computed(llama):
    for keep in (False, True):
        engine, prompts = (
            make_engine(llama, answers=("bad", "good"), keep=keep),
            make_prompts(llama),
        )
        engine.score(prompts, EVERYTHING)
        prediction = engine.predict(prompts, EVERYTHING)
        assert prediction.sharing == "layers"
        assert prediction.tokens == pytest.approx(
            engine.score(prompts, EVERYTHING).computed, rel=0.01
        )


def test_memory_for_half_of_the_examples_keeps_what_fits(llama):
    held = make_engine(llama).rows.memory.held
    room = int(held[:6].sum())
    engine, prompts = make_engine(llama, memory=room * 32 * 4, keep=True), make_prompts(llama)
    first, again = (engine.score(prompts, EVERYTHING) for _ in range(2))
    assert 0 < engine.kept[0] < room and first.computed > again.computed
    assert np.array_equal(first.losses, again.losses), "what is kept changes no digit"
    with pytest.raises(
        ModelError,
        match=(
            r"a memory of 100 bytes does not hold the states of search example \d+: \d+ tokens of "
            "128"
        ),
    ):
        make_engine(llama, memory=100)


def test_out_of_memory_halves_the_passes_and_goes_on(llama, monkeypatch):
    prompts = make_prompts(llama)
    expected = make_engine(llama).score(prompts, EVERYTHING).losses
    for name in ("above", "entering"):
        real = getattr(llama.passes, name)

        def small(layer, states, forest, real=real):
            if len(states) > 60:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(layer, states, forest)

        monkeypatch.setattr(llama.passes, name, small)
    assert np.abs(make_engine(llama).score(prompts, EVERYTHING).losses - expected).max() < 1e-5 * 2


def test_bfloat16_is_near(llama):
    prompts = make_prompts(llama)
    exact, fast = (
        make_engine(model).score(prompts, EVERYTHING).losses
        for model in (llama, llama.to(torch.bfloat16))
    )
    assert 0 < np.abs(exact - fast).max() < 0.3


def test_each_kind_of_prompt_under_its_own_template_only(llama):
    engine, (prompt,) = make_engine(llama), make_prompts(llama, count=1)
    prefix = PrefixPrompt(torch.zeros(LENGTH, *llama.prefix_shape))
    for other in (HardPrompt(llama.words[:LENGTH]), SoftPrompt(llama.vocabulary[:LENGTH]), prefix):
        with pytest.raises(
            PromptError,
            match=f"under this template gated prompts are scored, got a {type(other).__name__}",
        ):
            engine.score([prompt, other], EVERYTHING)
    task = tiny_task()
    for kind in ("slots", "prefix"):
        other = Engine(
            llama, task.template.bind(LENGTH).taking(kind), task.splits["search"], task.choices
        )
        with pytest.raises(PromptError, match="got a GatedPrompt"):
            other.score([prompt], EVERYTHING)


@pytest.mark.parametrize(
    ("vectors", "gates"),
    [((3, 2, 32), (2, 4)), ((4, 5, 32), (5, 4)), ((4, 2, 16), (2, 4)), ((4, 2, 32), (2, 3))],
)
def test_another_length_or_model_is_refused(llama, vectors, gates):
    engine, numbers = make_engine(llama), (torch.zeros(vectors), torch.zeros(gates))
    expected = r"has shape \(4, [23], 32\) and \([23], 4\) under this template and model, got \("
    with pytest.raises(PromptError, match=expected):
        engine.score([GatedPrompt(*numbers)], EVERYTHING)
    with pytest.raises(PromptError, match=expected):
        engine.loss(numbers, EVERYTHING)


def test_it_takes_none_of_the_models_positions(llama):
    assert make_engine(llama, length=600).length(make_prompts(llama, count=1, length=600)[0]) == 600


def test_not_finite_prompts_are_failures(llama):
    (good,) = make_prompts(llama, count=1)
    bad = GatedPrompt(good.vectors * float("nan"), good.gates)
    scores = make_engine(llama).score([bad, good], EVERYTHING)
    assert list(scores.failures) == [0] and np.isfinite(scores.losses[1]).all()


# Models that take none.


def stranger(config):
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return LanguageModel(model, tiny_model("llama")[1], "stranger")


SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def test_a_model_whose_attention_is_not_known_takes_no_gated_prompt():
    with pytest.raises(
        ModelError,
        match=(
            "'stranger' takes no gated prompt: its GPTNeoXAttention has neither k_proj and v_proj"
        ),
    ):
        make_engine(stranger(GPTNeoXConfig(**SIZES)))
    with pytest.raises(
        ModelError, match="'stranger' takes no gated prompt"
    ):  # it normalises all heads together
        make_engine(stranger(Olmo2Config(**SIZES, num_key_value_heads=2, pad_token_id=2)))
    model, tokenizer = tiny_model("llama")
    model.config.layer_types = ["chunked_attention", "full_attention"]
    with pytest.raises(
        ModelError, match="takes no gated prompt: its attention cannot be exchanged"
    ):
        make_engine(LanguageModel(model, tokenizer))
