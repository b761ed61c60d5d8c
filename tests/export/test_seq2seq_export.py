"""Winners of encoder-decoder models leave the house, and PEFT computes what the engine does."""

import ast
import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch.errors import ExportError, PromptError
from promptsearch.export import SavedPrompt, export_run, load_prompt, verify
from promptsearch.export.peft.read import read_peft
from promptsearch.export.peft.write import write_peft
from promptsearch.export.prompted import PromptedModel
from promptsearch.export.saved import write_saved
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import meeting
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq
from promptsearch.testing.tiny_task import ROWS, tiny_engine, tiny_task

peft = pytest.importorskip("peft")

TEMPLATE = "{prompt:3} {text} It was {answer}"
CHOICES = ("bad movie", "good")
EVERYTHING = np.arange(12)
NEAR = 2e-5
TASK = "SEQ_2_SEQ_LM"


@pytest.fixture(scope="module", params=["t5", "bart"])
def lm(request):
    layers = 3 if request.param == "bart" else 2
    return LanguageModel(*tiny_seq2seq(request.param, layers=layers), name=request.param)


@pytest.fixture(scope="module")
def t5():
    return LanguageModel(*tiny_seq2seq("t5"), name="t5")


def numbers_of(kind, lm):
    generator = torch.Generator().manual_seed(1)
    if kind == "weights":
        ends = ("q", "v", "q_proj", "v_proj")
        drawn = {}
        for name, (into, out) in lm.weights.maps.items():
            if name.endswith(ends):
                drawn[f"{name}.lora_A"] = torch.randn(2, into, generator=generator) * 0.3
                drawn[f"{name}.lora_B"] = torch.randn(out, 2, generator=generator) * 0.3
        return drawn
    if kind in ("prefix", "decoder"):
        layers = lm.prefix_layers[kind == "decoder"]
        return torch.randn(3, layers, *lm.prefix_shape[1:], generator=generator)
    return torch.randn(3, lm.embeddings.shape[1], generator=generator)


def dealt(lm):
    """PEFT's numbers for a decoder, and the layers of them that those of the decoder get."""
    layers = lm.prefix_layers[1]
    # The first of each two, and again from the beginning.
    return numbers_of("decoder", lm), [2 * i % layers for i in range(layers)]


def prompt_of(kind, lm):
    if kind == "decoder":
        numbers, order = dealt(lm)
        return PrefixPrompt(numbers[:, order])
    if kind == "hard":
        return HardPrompt(lm.words[2:5])
    made = {"weights": Weights, "prefix": PrefixPrompt}
    return made.get(kind, SoftPrompt)(numbers_of(kind, lm))


def saved_prompt(lm, kind, answers=CHOICES, rows=ROWS):
    task = tiny_task(TEMPLATE, answers, rows=rows)
    bound = meeting(task.template, lm).bind(3)
    bound = bound.taking({"hard": "slots", "decoder": "prefix"}.get(kind, kind))
    split = task.splits["search"]
    engine = Engine(lm, bound, split, task.choices)
    prompt = prompt_of(kind, lm)
    return SavedPrompt(
        prompt=prompt,
        template=bound,
        choices=task.choices,
        about={"model": lm.facts, "task": "films"},
        probe=split.examples[:4],
        losses=tuple(engine.score([prompt], np.arange(4)).losses[0].tolist()),
    )


def peft_losses(lm, engine, model, cut=0):
    """Losses of choices by a model of peft, which is given rows without their first tokens."""
    losses = []
    for example in engine.examples(EVERYTHING):
        layout, nats = engine.layout(example.id), []
        row = layout.join(((),) * (len(layout.segments) - 1))[cut:]
        for answer in layout.answers:
            begun = torch.tensor([[*layout.start, *answer[:-1]]])
            logits = model(input_ids=torch.tensor([row]), decoder_input_ids=begun).logits[0]
            told = logits[-len(answer) :].log_softmax(-1)
            nats.append(told[range(len(answer)), list(answer)].sum())
        losses.append(-torch.stack(nats).log_softmax(0)[example.choice])
    return torch.stack(losses)


def in_peft(lm, config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(copy.deepcopy(lm.model), config).eval()


def compare(engine, numbers, theirs, their_numbers):
    """Losses and gradients of both sides."""
    ours = engine.loss(numbers, EVERYTHING)
    listed = list(numbers.values()) if isinstance(numbers, dict) else [numbers]
    found = torch.autograd.grad(ours, listed)
    wanted = torch.autograd.grad(theirs.mean(), their_numbers)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach().mean()), abs=NEAR)
    return found, wanted


def test_prompt_tuning_and_p_tuning_are_those_of_peft(lm):
    engine = tiny_engine(lm, TEMPLATE, CHOICES)
    vectors, cut = numbers_of("slots", lm).requires_grad_(), len(lm.lead)
    config = peft.PromptTuningConfig(task_type=TASK, num_virtual_tokens=3 + cut)
    model = in_peft(lm, config)
    # PEFT's virtual tokens stand before the lead, which is the first of them here.
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight[: 3 + cut].copy_(torch.cat([lm.vocabulary[list(lm.lead)], vectors]))
    theirs = peft_losses(lm, engine, model, cut)
    (ours,), (back,) = compare(engine, vectors, theirs, [weight])
    assert torch.allclose(ours, back[cut : 3 + cut], atol=1e-5, rtol=1e-4)
    config = peft.PromptEncoderConfig(task_type=TASK, num_virtual_tokens=3, encoder_hidden_size=8)
    made = in_peft(lm, config).get_prompt(1)[0, :3]
    with torch.no_grad():
        weight[: 3 + cut].copy_(torch.cat([lm.vocabulary[list(lm.lead)], made]))
        theirs = peft_losses(lm, engine, model, cut).numpy()
    losses = engine.score([SoftPrompt(made.detach())], EVERYTHING).losses[0]
    assert np.abs(losses - theirs).max() < NEAR


def test_prefix_tuning_of_the_decoder_is_that_of_peft(lm):
    engine = tiny_engine(lm, TEMPLATE, CHOICES, kind="prefix")
    numbers, order = dealt(lm)
    prefix = numbers.requires_grad_()
    model = in_peft(lm, peft.PrefixTuningConfig(task_type=TASK, num_virtual_tokens=3))
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(prefix.flatten(1))
    theirs = peft_losses(lm, engine, model)
    ours, (back,) = (
        engine.loss(prefix[:, order], EVERYTHING),
        torch.autograd.grad(theirs.mean(), [weight]),
    )
    assert float(ours.detach()) == pytest.approx(float(theirs.detach().mean()), abs=NEAR)
    (ours,) = torch.autograd.grad(ours, [prefix])
    assert torch.allclose(ours.flatten(1), back, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["low rank", "scales", "norms", "biases"])
def test_weights_are_those_of_peft(lm, form, draw_weights, weights_in_peft):
    engine = tiny_engine(lm, TEMPLATE, CHOICES, kind="weights")
    prompt = draw_weights(lm, form)
    model, named = weights_in_peft(lm, prompt)
    ours = {name: tensor.clone().requires_grad_() for name, tensor in prompt.tensors.items()}
    theirs = peft_losses(lm, engine, model)
    found, wanted = compare(engine, ours, theirs, list(named.values()))
    for mine, back in zip(found, wanted, strict=True):
        assert torch.allclose(mine, back.reshape(mine.shape), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["hard", "slots", "prefix", "decoder", "weights"])
def test_exports_score_the_same(lm, kind, tmp_path):
    saved = saved_prompt(lm, kind)
    write_saved(saved, lm, tmp_path / "best")
    found = load_prompt(tmp_path / "best")
    assert found.template == saved.template
    found.verify(lm)
    rows = [{**e.fields, "answer": e.answer.strip()} for e in saved.probe]
    scored = PromptedModel(lm, found).score(rows)
    assert np.abs(scored - np.array(saved.losses)).max() < NEAR * 3
    if kind == "prefix":
        with pytest.raises(ExportError, match="PEFT holds a prefix of the decoder alone"):
            export_run(tmp_path / "best", "peft", tmp_path / "peft", model=lm)
        own = replace(saved, prompt=PrefixPrompt(numbers_of("decoder", lm)))
        if lm.name == "t5":  # of two layers
            with pytest.raises(ExportError, match="a decoder's 2 layers the same prefix"):
                write_peft(own, lm, tmp_path)
        return
    export_run(tmp_path / "best", "peft", tmp_path / "peft", model=lm)
    assert verify(tmp_path / "peft", lm).same


@pytest.mark.parametrize("kind", ["slots", "decoder"])
def test_folders_of_peft_itself_are_read(t5, tiny, kind, tmp_path):
    made = {"slots": peft.PromptTuningConfig, "decoder": peft.PrefixTuningConfig}[kind]
    model = in_peft(t5, made(task_type=TASK, num_virtual_tokens=3))
    numbers = numbers_of(kind, t5)
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight[:3] = numbers.flatten(1)
    model.save_pretrained(tmp_path)
    assert read_peft(tmp_path, t5) == (
        SoftPrompt(numbers) if kind == "slots" else prompt_of("decoder", t5)
    )
    with pytest.raises(PromptError, match="for a model of encoder and decoder; 'tiny-llama' is a"):
        read_peft(tmp_path, tiny)


def test_text_answers_come_back(lm, tmp_path):
    saved = saved_prompt(lm, "hard", answers=None)
    write_saved(saved, lm, tmp_path / "best")
    found = load_prompt(tmp_path / "best")
    found.verify(lm)
    engine = Engine(lm, saved.template, Split("probe", saved.probe), None)
    written = engine.generate([saved.prompt], np.arange(4), Decoding(3)).texts[0]
    rows = [dict(e.fields) for e in saved.probe]
    assert PromptedModel(lm, found).generate(rows, 3) == [text for (text,) in written]


@pytest.mark.parametrize("to", ["kv", "vllm", "text", "lm-eval", "dspy", "mlflow", "promptfoo"])
def test_formats_without_a_meaning_are_refused(t5, tmp_path, to):
    write_saved(saved_prompt(t5, "hard"), t5, tmp_path / "best")
    with pytest.raises(ExportError, match="an encoder-decoder model, .* exported as json or peft"):
        export_run(tmp_path / "best", to, tmp_path / "out", model=t5)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "answers"), [("hard", CHOICES), ("decoder", None)])
def test_the_code_on_the_card_gives_the_answer(lm, tmp_path, kind, answers, capsys):
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    found = LanguageModel.load(str(tmp_path / "model"), device="cpu")
    # The text of a special token within an input is only text.
    rows = [{**row, "text": f"good {lm.tokenizer.eos_token} {row['text']}"} for row in ROWS]
    saved = saved_prompt(found, kind, answers=answers, rows=rows)
    saved = replace(saved, decoding=Decoding(4))
    write_saved(saved, found, tmp_path / "best")
    export_run(tmp_path / "best", "peft", tmp_path / "peft", model=found)
    card = (tmp_path / "peft" / "README.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(tmp_path / "peft")))
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})  # our own code, as a user would run it
    printed = capsys.readouterr().out.strip().splitlines()[-1:]
    model, row = PromptedModel(found, saved), dict(saved.probe[0].fields)
    if answers is None:
        assert printed == ([model.generate([row], 4)[0].strip()] if printed else [])
        return
    (choice,) = model.choose([row])
    shares = {name.strip(): p for name, p in ast.literal_eval(printed[0]).items()}
    assert shares == pytest.approx(choice.probabilities, abs=1e-5)
