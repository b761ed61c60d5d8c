"""A prompt's kind is an object: who asks for it, and what one more kind touches."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import promptsearch
from promptsearch import HardPrompt, PromptedModel, SavedPrompt, SoftPrompt, TextPrompt
from promptsearch.errors import ExportError, PromptError, StrategyError
from promptsearch.export.certificate import check_held
from promptsearch.prompts.calibrated import CalibratedPrompt
from promptsearch.prompts.kinds import KINDS, own_copy, prompt_from_json, sampled_under
from promptsearch.prompts.nearest import NearestPrompt
from promptsearch.prompts.numbers import Parts, tensors_of
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.vectors import VectorPrompt
from promptsearch.prompts.verbalized import VerbalizedPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.kinds import PLACINGS
from promptsearch.tasks.placement import PLACEMENTS
from promptsearch.testing.tiny_task import tiny_engine

PACKAGE = Path(promptsearch.__file__).parent
STRATEGIES = PACKAGE.parent / "strategies"
BASES = {"Prompt", "TrainedPrompt", "VectorPrompt", "NamedPrompt"}
CLASSES = {kind.__name__ for kind in KINDS.values()} | BASES
NAMES = {*KINDS, *PLACEMENTS}


def questions(source: str) -> Iterator[str]:
    """The places where code asks for a prompt's kind: `isinstance`, or a comparison of names.

    `text` and `weights` have other meanings too, so a name counts where a kind is compared with it.
    A task's kind is another one, and so is that of a column of data: these may be `text`.
    """
    for node in ast.walk(ast.parse(source)):
        words = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            if words & CLASSES:
                yield ast.unparse(node)
        elif isinstance(node, ast.Compare):
            constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            asked = ast.unparse(node)
            if re.search(r"\b(task|info|column|self)\.kind\b", asked):
                constants.discard("text")
            if constants & NAMES and "kind" in asked:
                yield asked


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_has_samples(kind, tiny):
    space = PromptSpace(tiny.words, 3, tiny.decode)
    found = kind.samples(space, tiny_engine(tiny), np.random.default_rng(0), 2)
    assert [type(each) for each in found] == [kind] * 2
    assert all(own_copy(each).key == each.key for each in found)


def test_code_that_asks_for_a_kind_is_found():
    source = """
isinstance(prompt, SoftPrompt | Weights)
template.kind not in ("slots", "tuned")
data["kind"] == "hard"
to == "text"
task.kind == "text"
isinstance(error, ValueError)
"""
    assert len(list(questions(source))) == 3


def test_few_places_ask_for_a_prompts_kind():
    """Outside `prompts/` and `scoring/kinds.py`: whoever adds a kind need not look for more."""
    found = []
    for root in (PACKAGE, STRATEGIES):
        for path in root.rglob("*.py"):
            if path.parent.name != "prompts" and path != PACKAGE / "scoring" / "kinds.py":
                text = path.read_text("utf-8")
                found += [f"{path.relative_to(root.parent)}: {one}" for one in questions(text)]
    assert len(found) <= 10, "\n".join(found)


def test_each_kind_of_template_has_its_row_and_its_samples():
    assert set(PLACINGS) == set(PLACEMENTS)
    for placement, placing in PLACINGS.items():
        assert placing.trained.placement == placement
        assert sampled_under(placement).placement == placement


@dataclass(frozen=True, eq=False)
class LowRankPrompt(VectorPrompt):
    """One more kind: vectors that are the product of two small matrices, which are stored.

    This class and its entry in `KINDS` are all that it needs.
    """

    kind = "low rank"
    noun = "a low-rank prompt"
    shapes = {"left": ("length", "rank"), "right": ("rank", "width")}

    left: torch.Tensor
    right: torch.Tensor

    @classmethod
    def parts_of(cls, numbers):
        left, right = tensors_of(numbers)
        return Parts(vectors=left @ right)

    @classmethod
    def wanted(cls, found, length, sizes):
        rank = found[0][1]
        return (length, rank), (rank, sizes.embeddings.shape[1])

    @classmethod
    def samples(cls, space, model, rng, count):
        raise NotImplementedError


@pytest.fixture
def low_rank(tiny, monkeypatch):
    monkeypatch.setitem(KINDS, LowRankPrompt.kind, LowRankPrompt)
    generator = torch.Generator().manual_seed(0)
    width = tiny.embeddings.shape[1]
    return LowRankPrompt(
        torch.randn(3, 2, generator=generator), torch.randn(2, width, generator=generator)
    )


def test_one_more_kind_is_scored_and_used(low_rank, tiny, films):
    same = SoftPrompt(low_rank.left @ low_rank.right)
    assert low_rank.numbers < same.numbers and low_rank.length == 3
    template, split = films.template.bind(3), films.splits["search"]
    engine, ids = Engine(tiny, template, split, films.choices), np.arange(8)
    others = HardPrompt(tiny.words[:3]), same
    losses = engine.score([others[0], low_rank, same], ids).losses
    assert np.array_equal(losses[1], losses[2]) and not np.array_equal(losses[0], losses[1])
    rows = [{"text": "good film"}, {"text": "I hate the story"}]
    used = [
        list(
            PromptedModel(
                tiny,
                SavedPrompt(
                    prompt=prompt,
                    template=template,
                    choices=films.choices,
                    about={},
                    probe=(),
                    losses=(),
                ),
            ).apply(rows)
        )
        for prompt in (low_rank, same)
    ]
    assert used[0] == used[1]


def test_one_more_kind_is_saved_copied_and_described(low_rank, tiny, tmp_path):
    low_rank.save(tmp_path)
    assert prompt_from_json(low_rank.to_json(), tmp_path) == low_rank
    copy = own_copy(low_rank)
    assert copy == low_rank and copy is not low_rank
    assert low_rank.key in low_rank.described(tiny, tiny.decode)["text"]
    assert LowRankPrompt.tokens_in(low_rank.to_json(), 9) == 3


def test_one_more_kind_is_refused_where_it_does_not_fit(low_rank, tiny, films):
    with pytest.raises(ExportError, match="a low rank prompt is numbers, and no text holds it"):
        check_held(low_rank, "text")
    template = films.template.bind(4)
    engine = Engine(tiny, template, films.splits["search"], films.choices)
    with pytest.raises(PromptError, match=r"has shape \(4, 2\) and \(2, 32\) .* got \(3, 2\)"):
        engine.score([low_rank], np.arange(2))


def test_a_kind_that_is_not_registered_is_none_of_the_librarys(tiny):
    prompt = LowRankPrompt(torch.zeros(3, 2), torch.zeros(2, 4))
    with pytest.raises(StrategyError, match="expected a prompt of the library's kinds"):
        own_copy(prompt)
    with pytest.raises(PromptError, match="expected a prompt of kind hard, text"):
        prompt_from_json(prompt.to_json(), Path())


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt("\ud800"),
        CalibratedPrompt("a\udfff", [0.0]),
        NearestPrompt((("a", "\ud800"),), 1),
        VerbalizedPrompt(TextPrompt("a"), [" b", " \ud800"]),
        VerbalizedPrompt(TextPrompt("\ud800"), [" b", " c"]),
    ],
)
def test_half_a_character_is_refused_before_a_tokenizer_meets_it(prompt):
    with pytest.raises(StrategyError, match=f"{type(prompt).__name__} .*holds half a character"):
        own_copy(prompt)
