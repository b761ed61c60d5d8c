"""Winners of masked models leave the house, and PEFT computes for them what the engine does."""

import ast
import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch.errors import ExportError
from promptsearch.export import export_run, load_prompt, verify
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
from promptsearch.testing.tiny_masked import PACKED_ARCHITECTURES, tiny_masked
from promptsearch.testing.tiny_task import ROWS, saved_from, tiny_engine, tiny_task

peft = pytest.importorskip("peft")

TEMPLATE = "{prompt:3} {text} It was {answer}, I like."
EVERYTHING = np.arange(12)
NEAR = 2e-5


@pytest.fixture(scope="module", params=PACKED_ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_masked(request.param), name=request.param)


@pytest.fixture(scope="module")
def bert():
    return LanguageModel(*tiny_masked("bert"), name="bert")


def numbers_of(kind, lm):
    generator = torch.Generator().manual_seed(1)
    if kind == "weights":
        maps = {n: s for n, s in lm.weights.maps.items() if n.endswith(("query", "value", "Wqkv"))}
        drawn = {}
        for name, (into, out) in maps.items():
            drawn[f"{name}.lora_A"] = torch.randn(2, into, generator=generator) * 0.3
            drawn[f"{name}.lora_B"] = torch.randn(out, 2, generator=generator) * 0.3
        return drawn
    if kind == "prefix":
        return torch.randn(3, *lm.prefix_shape, generator=generator)
    return torch.randn(3, lm.embeddings.shape[1], generator=generator)


def prompt_of(kind, lm):
    if kind == "hard":
        return HardPrompt(lm.words[2:5])
    made = {"weights": Weights, "prefix": PrefixPrompt, "slots": SoftPrompt}
    return made[kind](numbers_of(kind, lm))


def saved_prompt(lm, kind, template=TEMPLATE, answers=("bad movie", "good"), rows=ROWS):
    task = tiny_task(template, answers, rows=rows)
    bound = meeting(task.template, lm).bind(3).taking("slots" if kind == "hard" else kind)
    return saved_from(lm, prompt_of(kind, lm), task, bound, {"task": "films"})


def peft_losses(lm, engine, model, cut=0):
    """Losses of choices by a model of peft, which is given rows without their first tokens."""
    losses = []
    for example in engine.examples(EVERYTHING):
        layout, nats = engine.layout(example.id), []
        for answer in layout.answers:
            own = layout.join(((),) * (len(layout.segments) - 1))[cut:]
            ids = [*own, *[lm.tokens.mask] * len(answer), *layout.join_behind([()])]
            logits = model(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]
            told = logits.log_softmax(-1)[len(own) : len(own) + len(answer)]
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


def test_prompt_tuning_and_p_tuning_are_those_of_peft(bert):
    engine = tiny_engine(bert, TEMPLATE, ("bad movie", "good"))
    vectors = numbers_of("slots", bert).requires_grad_()
    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    model = in_peft(bert, config)
    # PEFT's virtual tokens stand before [CLS], which is the first of them here.
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(torch.cat([bert.embeddings[list(bert.lead)], vectors]))
    theirs = peft_losses(bert, engine, model, cut=1)
    (ours,), (back,) = compare(engine, vectors, theirs, [weight])
    assert torch.allclose(ours, back[1:], atol=1e-5, rtol=1e-4)
    config = peft.PromptEncoderConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=3, encoder_hidden_size=8
    )
    made = in_peft(bert, config).get_prompt(1)[0]
    with torch.no_grad():
        weight.copy_(torch.cat([bert.embeddings[list(bert.lead)], made]))
        theirs = peft_losses(bert, engine, model, cut=1).numpy()
    losses = engine.score([SoftPrompt(made.detach())], EVERYTHING).losses[0]
    assert np.abs(losses - theirs).max() < NEAR


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_prefix_tuning_is_that_of_peft(architecture):
    lm = LanguageModel(*tiny_masked(architecture), name=architecture)
    engine = tiny_engine(lm, TEMPLATE, ("bad movie", "good"), kind="prefix")
    prefix = numbers_of("prefix", lm).requires_grad_()
    model = in_peft(
        lm, peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    )
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(prefix.flatten(1))
    theirs = peft_losses(lm, engine, model)
    (ours,), (back,) = compare(engine, prefix, theirs, [weight])
    assert torch.allclose(ours.flatten(1), back, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["low rank", "scales", "norms", "biases"])
def test_weights_are_those_of_peft(lm, form, draw_weights, weights_in_peft):
    engine = tiny_engine(lm, TEMPLATE, ("bad movie", "good"), kind="weights")
    prompt = draw_weights(lm, form)
    model, named = weights_in_peft(lm, prompt)
    ours = {name: tensor.clone().requires_grad_() for name, tensor in prompt.tensors.items()}
    theirs = peft_losses(lm, engine, model)
    found, wanted = compare(engine, ours, theirs, list(named.values()))
    for mine, back in zip(found, wanted, strict=True):
        assert torch.allclose(mine, back.reshape(mine.shape), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["hard", "slots", "prefix", "weights"])
def test_exports_score_the_same(lm, kind, tmp_path):
    saved = saved_prompt(lm, kind)
    write_saved(saved, lm, tmp_path / "best")
    found = load_prompt(tmp_path / "best")
    assert found.template == saved.template
    found.verify(lm)
    rows = [{**e.fields, "answer": e.answer.strip()} for e in saved.probe]
    scored = PromptedModel(lm, found).score(rows)
    assert np.abs(scored - np.array(saved.losses)).max() < NEAR * 3
    if kind == "prefix" and lm.name not in ("bert", "roberta"):
        return  # transformers gives these no past keys and values, so that PEFT cannot
    export_run(tmp_path / "best", "peft", tmp_path / "peft", model=lm)
    assert verify(tmp_path / "peft", lm).same


def test_text_answers_come_back_filled_in(bert, tmp_path):
    saved = saved_prompt(bert, "hard", answers=None)
    write_saved(saved, bert, tmp_path / "best")
    found = load_prompt(tmp_path / "best")
    found.verify(bert)
    engine = Engine(bert, saved.template, Split("probe", saved.probe), None)
    written = engine.generate([saved.prompt], np.arange(4), Decoding(2)).texts[0]
    rows = [dict(e.fields) for e in saved.probe]
    assert PromptedModel(bert, found).generate(rows, 2) == [text for (text,) in written]


@pytest.mark.parametrize("to", ["kv", "vllm", "text", "lm-eval", "dspy", "mlflow", "promptfoo"])
def test_formats_without_a_meaning_are_refused(bert, tmp_path, to):
    write_saved(saved_prompt(bert, "hard"), bert, tmp_path / "best")
    with pytest.raises(ExportError, match="a masked language model, .* exported as json or peft"):
        export_run(tmp_path / "best", to, tmp_path / "out", model=bert)
    assert not (tmp_path / "out").exists()
    saved = saved_prompt(bert, "hard", TEMPLATE.replace("{answer}", "{answer:pll}"))
    write_saved(saved, bert, tmp_path / "one")
    with pytest.raises(ExportError, match="read token by token"):
        export_run(tmp_path / "one", "peft", tmp_path / "out", model=bert)


@pytest.mark.parametrize("kind", ["hard", "prefix"])
@pytest.mark.parametrize("answers", [("bad movie", "good"), None])
def test_the_code_on_the_card_gives_the_answer(bert, tmp_path, kind, answers, capsys):
    bert.model.save_pretrained(tmp_path / "model")
    bert.tokenizer.save_pretrained(tmp_path / "model")
    lm = LanguageModel.load(str(tmp_path / "model"), device="cpu")
    # The text of a special token within an input is only text.
    rows = [{**row, "text": f"good {lm.tokenizer.sep_token} {row['text']}"} for row in ROWS]
    saved = saved_prompt(lm, kind, answers=answers, rows=rows)
    saved = replace(saved, decoding=Decoding(2))
    write_saved(saved, lm, tmp_path / "best")
    export_run(tmp_path / "best", "peft", tmp_path / "peft", model=lm)
    card = (tmp_path / "peft" / "README.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(tmp_path / "peft")))
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})  # our own code, as a user would run it
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    model, row = PromptedModel(lm, saved), dict(saved.probe[0].fields)
    if answers is None:
        assert printed == model.generate([row], 2)[0].strip()
        return
    (choice,) = model.choose([row])
    found = {name.strip(): p for name, p in ast.literal_eval(printed).items()}
    assert found == pytest.approx(choice.probabilities, abs=1e-5)
