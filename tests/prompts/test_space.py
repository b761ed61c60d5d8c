"""The space of hard prompts: beginnings of prompts, and neighbours of tokens."""

import numpy as np
import pytest
import torch

from promptsearch import HardPrompt, TextPrompt
from promptsearch.errors import StrategyError, TaskError
from promptsearch.models import LanguageModel
from promptsearch.prompts import space
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring.layout import slots_of
from promptsearch.search.objective import Objective
from promptsearch.study.arena import Arena
from promptsearch.tasks.notation import Slot
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import WORDS, tiny_model
from promptsearch.testing.tiny_task import tiny_task
from promptsearch.testing.tiny_tokenizers import tokenizer_of


def table(rows=30, width=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width))).float()


def brute_force(vectors, pool, token, count):
    """Cosines one by one, in float64."""
    rows = vectors.double().numpy()
    cosine = {
        i: rows[i] @ rows[token] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[token])
        for i in pool
        if i != token
    }
    return sorted(cosine, key=lambda i: -cosine[i])[:count]


@pytest.mark.parametrize("chunk", [1, 40, 2**22])
def test_neighbours_are_the_nearest_by_cosine_for_tokens_in_and_outside_the_pool(
    monkeypatch, chunk
):
    monkeypatch.setattr(space, "_COSINES", chunk)
    vectors, pool = table(), [3, 8, 21, 4, 17, 29, 11]
    found = PromptSpace(pool, 2, embeddings=lambda: vectors).neighbours(range(30), 4)
    assert found.shape == (30, 4)
    for token in range(30):
        assert found[token].tolist() == brute_force(vectors, pool, token, 4)


def test_neighbours_do_not_look_at_the_lengths_of_vectors():
    vectors = table()
    scaled = vectors * torch.linspace(0.1, 10, 30)[:, None]
    first, second = (
        PromptSpace(range(30), 2, embeddings=lambda rows=rows: rows).neighbours([5], 9)
        for rows in (vectors, scaled)
    )
    assert first.tolist() == second.tolist()


def test_a_pool_has_no_more_neighbours_than_other_tokens_and_equal_ones_come_in_order():
    vectors = torch.ones(6, 3)
    found = PromptSpace([1, 3, 5], 2, embeddings=lambda: vectors)
    assert found.neighbours([3, 0], 10).tolist() == [[1, 5], [1, 3]]
    assert found.neighbours([], 2).shape == (0, 2)
    assert PromptSpace([1], 2, embeddings=lambda: vectors).neighbours([1], 3).shape == (1, 0)


def test_embeddings_are_not_asked_for_before_a_neighbour_is():
    def explode():
        raise AssertionError("asked for too early")

    PromptSpace([1, 2], 2, embeddings=explode)


def test_without_embeddings_there_are_no_neighbours():
    with pytest.raises(StrategyError, match="made without embeddings"):
        PromptSpace([1, 2], 2).neighbours([1], 1)
    with pytest.raises(StrategyError, match="at least 1 neighbour, got 0"):
        PromptSpace([1, 2], 2, embeddings=table).neighbours([1], 0)


def test_slots_of_another_length_are_refused():
    with pytest.raises(TaskError, match="the slots of a prompt of 3 tokens have 2 tokens"):
        PromptSpace([1, 2], 3, slots=[Slot(2, space=False)])


@pytest.mark.parametrize(
    "text",
    [
        "{prompt} {text} It was {answer}",
        "The {prompt:2} {text} is {prompt:3} {answer}",
        "The movie{prompt} is {answer}",
    ],
)
def test_a_beginning_puts_the_same_tokens_into_the_slots_as_the_whole_prompt(tiny, text):
    template = Template.parse(text).bind(5)
    pool = [tiny.encode(word)[0] for word in WORDS]
    words = PromptSpace(pool, template.length, tiny.decode, slots=template.slots)
    whole = words.sample(np.random.default_rng(0), 1)[0]
    full = slots_of(template, tiny, whole)
    for length in range(5):
        prompt = words.beginning(whole.ids[:length])
        assert isinstance(prompt, TextPrompt) and len(prompt.texts) == len(template.slots)
        slots, left = slots_of(template, tiny, prompt), length
        for found, of_whole in zip(slots, full, strict=True):
            assert found == of_whole[:left]
            left = max(0, left - len(of_whole))
    assert words.beginning(whole.ids) == whole and isinstance(
        words.beginning(whole.ids), HardPrompt
    )


def test_what_a_strategy_sees_begins_a_row_as_the_space_itself():
    """This tokenizer puts a space before what begins a row, which is none of its text."""
    lm = LanguageModel(tiny_model("llama")[0], tokenizer_of("prepend"))
    task = tiny_task("{prompt}{text} It was {answer}")
    arena = Arena.build(task, lm, torch.float32, 3, lm.words, 8)
    scored, training = np.arange(8), np.arange(8, 12)
    objective = Objective(
        arena.searching, arena.space, Ledger(None), scored=scored, training=training
    )
    ids = lm.words[:2]
    found, wanted = (space.beginning(ids) for space in (objective.space, arena.space))
    assert found == wanted != PromptSpace(lm.words, 3, lm.decode).beginning(ids)
    assert slots_of(task.template.bind(3), lm, found) == (tuple(ids),)


def test_the_space_of_a_task_knows_its_slots_and_the_models_embeddings(tiny, films):
    arena = Arena.build(films, tiny, torch.float32, 2, tiny.words, 8)
    good = tiny.encode(" good")[0]
    assert arena.space.beginning([good]) == TextPrompt([" good"])
    (found,) = arena.space.neighbours([good], 3)
    assert found.tolist() == brute_force(tiny.embeddings.detach(), tiny.words, good, 3)
