"""A few tests on the real model: what tiny random models cannot show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from promptsearch import HardPrompt, SoftPrompt, Task, TextPrompt
from promptsearch.export import export_run
from promptsearch.export.saved import SavedPrompt, write_saved
from promptsearch.prompts.space import PromptSpace
from promptsearch.scoring import Engine
from promptsearch.scoring.joints import check_joints
from promptsearch.study.config import load_config
from promptsearch.study.prepare import prepare
from promptsearch.tasks.task import Split

pytestmark = pytest.mark.real

ROWS = [
    {"text": text, "label": label}
    for label, texts in (
        (
            1,
            [
                "A gripping film from start to finish.",
                "Warm, funny and wise.",
                "One of the best of the year!",
                "I loved every minute",
            ],
        ),
        (
            0,
            [
                "Dull, and far too long.",
                "A waste of time and talent.",
                "Painfully unfunny.",
                "I hated every minute",
            ],
        ),
    )
    for text in texts
]


EXAMPLES = Path(__file__).parents[1] / "examples"
#: Studies of data that lie beside their file, or of a model that a command makes.
OTHERS = {"e2e", "prefix-length", "masked-facts"}


@pytest.fixture(scope="module")
def lm(real):
    return real


@pytest.fixture(scope="module")
def reviews():
    return Task.from_rows(
        ROWS,
        template="{prompt} {text} It was{answer}",
        label="label",
        answers={0: " bad", 1: " good"},
        splits={"search": 4, "select": 2, "test": 2},
    )


def test_it_is_the_model_that_results_name(lm):
    lm.check()
    assert lm.parameters == 134_515_008 and lm.context == 8192 and lm.lead == ()
    assert len(lm.words) > 30_000 and lm.decode(lm.words[1:2]).strip().isalpha()


def test_the_capital_of_france(lm):
    task = Task.load("capitals")
    template = task.template.bind(1)
    for split in task.splits.values():
        check_joints(template, lm, split, None, PromptSpace(lm.words, 2, lm.decode))
    example = next(
        e for split in task.splits.values() for e in split.examples if e.fields["name"] == "France"
    )
    split = Split("one", (replace(example, id=0),))
    ids = [lm.encode(" The")[0], lm.encode(" of")[0]]
    scores = Engine(lm, template, split, None).score(
        [HardPrompt(ids), TextPrompt(["The", "of"])], np.array([0])
    )
    assert scores.metric.tolist() == [[1.0], [1.0]] and scores.losses.max() < 2


def test_a_loss_does_not_depend_on_its_batch(lm, reviews):
    template = reviews.template.bind(4)
    engine = Engine(lm, template, reviews.splits["search"], reviews.choices)
    prompts = PromptSpace(lm.words, 4, lm.decode).sample(np.random.default_rng(0), 3)
    together = engine.score(prompts, np.arange(4)).losses
    alone = np.array(
        [[engine.score([p], np.array([e])).losses[0, 0] for e in range(4)] for p in prompts]
    )
    assert np.abs(together - alone).max() < 1e-5


def test_bfloat16_is_near_and_not_equal(lm, reviews):
    template = reviews.template.bind(4)
    prompts = PromptSpace(lm.words, 4, lm.decode).sample(np.random.default_rng(0), 2)
    exact, fast = (
        Engine(model, template, reviews.splits["search"], reviews.choices)
        .score(prompts, np.arange(4))
        .losses
        for model in (lm, lm.to(torch.bfloat16))
    )
    assert 0 < np.abs(exact - fast).max() < 0.3


@pytest.mark.parametrize("to", ["peft", "kv", "vllm"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_an_export_has_equal_losses(lm, reviews, tmp_path, kind, to):
    template = reviews.template.bind(4)
    hard = PromptSpace(lm.words, 4, lm.decode).sample(np.random.default_rng(1), 1)[0]
    prompt = hard if kind == "hard" else SoftPrompt(lm.vocabulary[torch.tensor(hard.ids)] + 0.05)
    split = reviews.splits["search"]
    losses = Engine(lm, template, split, reviews.choices).score([prompt], np.arange(4)).losses[0]
    saved = SavedPrompt(
        prompt=prompt,
        template=template,
        choices=reviews.choices,
        about={"model": lm.facts},
        probe=split.examples,
        losses=tuple(losses),
    )
    (tmp_path / "a").mkdir()
    write_saved(saved, lm, tmp_path / "a")
    export_run(
        tmp_path / "a", to, tmp_path / "b", model=lm
    )  # scores the probe through the library it is for, or refuses
    assert next((tmp_path / "b").glob("*.safetensors")).stat().st_size > 4 * 4 * 576


def test_a_few_steps_of_prompt_tuning_lower_the_loss(lm, reviews):
    engine = Engine(
        lm.to(torch.bfloat16), reviews.template.bind(4), reviews.splits["search"], reviews.choices
    )
    vectors = lm.vocabulary[torch.tensor(lm.words[:4])].clone().requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=0.03)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = engine.loss(vectors, np.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in (EXAMPLES, EXAMPLES / "reference", EXAMPLES / "confidence")
        for path in sorted(folder.glob("*.yaml"))
        if path.stem not in OTHERS
    ],
    ids=lambda path: path.stem,
)
def test_each_example_can_begin(lm, path):
    """Budgets pay for what they have to, and words of the pool join with the text of all data."""
    prepare(load_config(path), lm)
