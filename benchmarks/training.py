"""A step of training a soft prompt on 16 reviews, against two peers.

They are PEFT, and a full forward and backward pass.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Comparison, Side, clock, equal
from benchmarks.work import BEHIND, FRONT, engine, load, reviews
from promptsearch import LanguageModel, Task
from promptsearch.strategies.p_tuning import _Encoder

LENGTH, BATCH, STEPS = 10, 16, 4


def _batches(number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(number)
    return [rng.choice(512, BATCH, replace=False) for _ in range(STEPS)]


def prompt_tuning(device: str) -> Comparison:
    """Prompt tuning."""
    import peft

    return _against_peft(
        device,
        "a step of prompt tuning, batch 16",
        lambda: peft.PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=LENGTH),
    )


def p_tuning(device: str) -> Comparison:
    """P-tuning: the encoder runs once a step on either side."""
    import peft

    def config() -> Any:
        return peft.PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=LENGTH,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=288,
        )  # of either direction: 576 together, as in ours

    return _against_peft(
        device, "a step of P-tuning (LSTM encoder), batch 16", config, encoder=True
    )


def _trainer(width: int, encoder: bool) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """What makes the prompt's vectors, and what is trained."""
    torch.manual_seed(0)
    if not encoder:
        vectors = torch.randn(LENGTH, width).mul_(0.02).requires_grad_()
        return lambda: vectors, [vectors]
    module = _Encoder("lstm", LENGTH, width, width, 0.02)
    return module, list(module.parameters())


def _ours(lm: LanguageModel, task: Task, encoder: bool) -> Side:
    scorer = engine(lm, task, LENGTH)
    make, trained = _trainer(lm.embeddings.shape[1], encoder)
    before = bool(scorer.lead(np.arange(1)).any())
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def run(number: int) -> float:
        chosen = _batches(number)
        for ids in (
            chosen if before else []
        ):  # what stands before the prompt is kept from the first epoch on
            scorer.loss(make().detach(), ids)

        def steps() -> None:
            for ids in chosen:
                optimizer.zero_grad()
                scorer.loss(make(), ids).backward()
                optimizer.step()

        return clock(steps)[0] / STEPS

    return run


def _peft(lm: LanguageModel, task: Task, config: Any) -> Side:
    """As PEFT's documentation trains: padded texts, labels at the answer, the model's own loss."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = peft.get_peft_model(copy.deepcopy(lm.model), config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def run(number: int) -> float:
        def steps() -> None:
            for ids in _batches(number):
                optimizer.zero_grad()
                model(**padded(lm, task, ids)).loss.backward()
                optimizer.step()

        return clock(steps)[0] / STEPS

    return run


def padded(lm: LanguageModel, task: Task, ids: np.ndarray) -> dict[str, torch.Tensor]:
    """Reviews with their answers, padded on the right; all labels but the answer's are ignored."""
    examples = [task.splits["search"].examples[i] for i in ids]
    rows = [lm.encode(f" {e.fields['text']} It was{e.answer}") for e in examples]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = torch.full_like(tokens, -100)
    for i, row in enumerate(rows):
        labels[i, len(row) - 1] = row[-1]
    found = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(lm.device) for name, tensor in found.items()}


def _against_peft(
    device: str, work: str, config: Callable[[], Any], encoder: bool = False
) -> Comparison:
    models, task = load(device), _as_text(reviews(FRONT))
    peers = {name: _peft(lm, task, config()) for name, lm in models.items()}

    def check() -> str:
        """The vectors of PEFT's prompt on both sides: they have the same loss and gradient."""
        import peft

        lm, ids = models["float32"], _batches(0)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = peft.get_peft_model(copy.deepcopy(lm.model), config())
        made: list[torch.Tensor] = []
        prompt = given.get_prompt
        given.get_prompt = lambda *args, **kwargs: made.append(prompt(*args, **kwargs)) or made[-1]
        theirs = given(**padded(lm, task, ids)).loss
        (gradient,) = torch.autograd.grad(theirs, made[0])
        vectors = made[0][0].detach().cpu().requires_grad_()
        ours = engine(lm, task, LENGTH).loss(vectors, ids)
        ours.backward()
        gradient = gradient.sum(0).cpu()
        equal(vectors.grad, gradient, 1e-3 * float(gradient.abs().max()))
        return f"{equal(float(ours), float(theirs), 1e-5)}, gradients within a thousandth"

    bars = {"float32": 4.0, "bfloat16": 2.0}
    return Comparison(
        {work: _ours(models["bfloat16"], task, encoder)}, peers, "PEFT", {work: bars}, check
    )


def _as_text(task: Task) -> Task:
    """The same examples with text answers, whose loss is over the whole vocabulary as PEFT's is."""
    splits = {
        n: replace(s, examples=tuple(replace(e, choice=None) for e in s.examples))
        for n, s in task.splits.items()
    }
    return replace(task, choices=None, splits=splits)


def behind(device: str) -> Comparison:
    """A soft prompt after the input: keys and values of the input are kept."""
    models, task = load(device), reviews(BEHIND)

    def peer(name: str) -> Side:
        lm = models[name]
        vectors = torch.randn(LENGTH, lm.embeddings.shape[1]).mul_(0.02).requires_grad_()
        optimizer = torch.optim.AdamW([vectors], lr=1e-3)

        def run(number: int) -> float:
            def steps() -> None:
                for ids in _batches(number):
                    optimizer.zero_grad()
                    full_loss(lm, task, vectors, ids).backward()
                    optimizer.step()

            return clock(steps)[0] / STEPS

        return run

    def check() -> str:
        lm = models["float32"]
        vectors, ids = lm.vocabulary[5 : 5 + LENGTH].cpu().clone(), _batches(0)[0]
        with torch.no_grad():
            return equal(
                float(engine(lm, task, LENGTH).loss(vectors, ids)),
                float(full_loss(lm, task, vectors, ids)),
                1e-5,
            )

    peers = {name: peer(name) for name in models}
    work = "a step with the soft prompt after the input, batch 16, from the second epoch on"
    against = "full forward and backward of transformers"
    return Comparison(
        {work: _ours(models["bfloat16"], task, False)},
        peers,
        against,
        {work: {"bfloat16": 4.0}},
        check,
    )


def full_loss(
    lm: LanguageModel, task: Task, vectors: torch.Tensor, ids: np.ndarray
) -> torch.Tensor:
    """The whole row of every example through the model, padded on the right."""
    examples = [task.splits["search"].examples[i] for i in ids]
    device = lm.device
    between = torch.tensor(lm.encode(" It was"), device=device)
    rows = []
    for e in examples:
        text = torch.tensor(lm.encode(e.fields["text"]), device=device)
        rows.append(
            torch.cat(
                [lm.passes.embed(text), vectors.to(device, lm.dtype), lm.passes.embed(between)]
            )
        )
    lengths = torch.tensor([len(row) for row in rows], device=device)
    embedded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = (torch.arange(embedded.shape[1], device=device) < lengths[:, None]).long()
    logits = (
        lm.model(inputs_embeds=embedded, attention_mask=mask)
        .logits[torch.arange(len(rows), device=device), lengths - 1]
        .float()
    )
    words = torch.tensor([lm.encode(f" {c.strip()}")[0] for c in task.choices], device=device)
    right = torch.tensor([e.choice for e in examples], device=device)
    return torch.nn.functional.cross_entropy(logits[:, words], right)
