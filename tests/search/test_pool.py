"""The pool: where its words come from, and law 2 for all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import Task
from promptsearch.errors import StudyError
from promptsearch.search.pool import (
    answer_tokens,
    make_pool,
    pointwise_mutual_information,
    task_words,
)
from promptsearch.tasks.task import Example


def examples(*texts_and_labels):
    return [
        Example(i, {"text": text}, "", label) for i, (text, label) in enumerate(texts_and_labels)
    ]


def training(task):
    return task.splits["search"].examples[8:]


def words_of(lm, ids):
    return [lm.decode([i]).strip() for i in ids]


@pytest.fixture(scope="module")
def facts():
    """A task of text answers; "Paris" and "Berlin" are one token each, the others several."""
    cities = ["Paris", "Berlin", "City of the good", "Rotterdam"]
    rows = [{"name": f"the movie capital {i}", "capital": cities[i % 4]} for i in range(60)]
    sizes = {"search": 30, "select": 10, "test": 20}
    return Task.from_rows(
        rows, template="{prompt} {name} is {answer}", label="capital", splits=sizes, name="facts"
    )


def test_mutual_information_is_that_of_a_table_computed_by_hand():
    # Two labels, 6 and 4 examples. Smoothing adds 5 examples, 3 of the first label and 2 of the
    # second.
    found = pointwise_mutual_information([[5, 0], [3, 2], [0, 1]], [6, 4])
    expected = np.log([[(8 / 10) / 0.6, (2 / 10) / 0.4], [1, 1], [(3 / 6) / 0.6, (3 / 6) / 0.4]])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(
        pointwise_mutual_information([[2, 0]], [4, 0]), [[0, 0]]
    )  # a label that nothing has


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
    st.permutations([0, 1]),
)
def test_mutual_information_does_not_depend_on_the_order_of_the_labels(rows, order):
    counts, totals = np.array(rows), np.array([9, 9])
    found = pointwise_mutual_information(counts, totals)
    np.testing.assert_allclose(
        pointwise_mutual_information(counts[:, order], totals[order]), found[:, order]
    )


def test_words_of_the_task_are_ranked_by_what_they_tell_of_the_label(tiny):
    # "funny" and "hate" each stand in 3 examples of one label, "story" in 1, "the" in all; of
    # "don't" no part is a word.
    data = examples(
        ("the funny, funny movie", 1),
        ("the funny story", 1),
        ("funny the", 1),
        ("I hate the movie", 0),
        ("hate the", 0),
        ("don't hate the", 0),
    )
    ranked = words_of(tiny, task_words(tiny.words, tiny, data, 2))
    assert set(ranked[:2]) == {"funny", "hate"} and ranked[-2:] == ["the", "movie"]
    assert set(ranked) == {"funny", "hate", "the", "movie", "story", "I"}


def test_a_word_of_one_example_tells_less_than_one_of_many(tiny):
    data = examples(*[("good", 1)] * 9, ("good", 0), ("story", 1), *[("film", 0)] * 8)
    ranked = words_of(tiny, task_words(tiny.words, tiny, data, 2))
    assert ranked.index("good") < ranked.index("story")


def test_words_of_a_task_with_text_answers_are_those_that_it_has_more_than_texts_in_general(tiny):
    frequent, rare = words_of(tiny, (tiny.words[0], tiny.words[-1]))
    ranked = words_of(
        tiny, task_words(tiny.words, tiny, examples(*[(f"{frequent} {rare}", None)] * 5), None)
    )
    assert ranked == [rare, frequent]
    both = examples(*[(f"{frequent} {rare}", None)] * 2, *[(f"{frequent}", None)] * 30)
    assert words_of(tiny, task_words(tiny.words, tiny, both, None)) == [frequent, rare]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_pool_holds_answer_or_special_tokens(tiny, films, facts, tmp_path_factory, data):
    task = data.draw(st.sampled_from([films, facts]))
    single = [tiny.decode([i]) for i in tiny.words] + ["good", " bad", "Paris", "Berlin"]
    listed = data.draw(st.lists(st.sampled_from(single), min_size=1, max_size=20))
    path = tmp_path_factory.mktemp("pool") / "words.txt"
    path.write_text("\n".join(listed))
    number = data.draw(st.integers(1, len(tiny.words) - 4))
    kinds = ["words", number, tuple(listed), dict(file=str(path)), dict(words=number), dict(task=2)]
    given = data.draw(st.sampled_from(kinds))
    try:
        pool = make_pool(given, Path(), task, tiny, training(task))
    except StudyError as error:
        assert "is empty" in str(error)
        return
    forbidden = answer_tokens(task, tiny) | tiny.added
    assert pool.ids and len(set(pool.ids)) == len(pool.ids) and not forbidden & set(pool.ids)
    assert forbidden & set(tiny.words), "there was something to leave out"
    if isinstance(given, int):
        assert len(pool.ids) == number


def test_answer_tokens_are_all_of_the_choices_and_text_answers_of_one_token(tiny, films, facts):
    assert words_of(tiny, sorted(answer_tokens(films, tiny))) == words_of(
        tiny, sorted(tiny.encode(" good bad" + " good")[:2])
    )
    assert set(words_of(tiny, answer_tokens(facts, tiny))) == {"Paris", "Berlin"}, (
        "everyday words of long answers may stay"
    )


def test_what_a_list_may_not_hold_is_left_out_and_told(tiny, films):
    tiny_ids = {w: tiny.encode(f" {w}")[0] for w in ("movie", "the")}
    pool = make_pool(("movie", "good", "the", " good", "movie"), Path(), films, tiny, ())
    assert pool.ids == tuple(tiny_ids.values())
    assert pool.made == "3 words of a list without 1 answer tokens ( good)"
    with pytest.raises(
        StudyError,
        match=(
            "'films' is empty: all of the 2 words of a list are left out, 2 answer "
            r"tokens \( good"
        ),
    ):
        make_pool(("good", "bad"), Path(), films, tiny, ())


def test_added_tokens_are_left_out_of_a_list(films):
    from promptsearch.models import LanguageModel
    from promptsearch.testing.tiny import tiny_model

    model, tokenizer = tiny_model("llama")
    tokenizer.add_tokens(
        [" wonderful"]
    )  # an added token that is no special one: the tokenizer finds it in plain text
    lm = LanguageModel(model, tokenizer)
    assert len(lm.encode(" wonderful")) == 1
    with pytest.raises(
        StudyError, match=r"1 answer tokens \( good\) and 1 special or added tokens \( wonderful\)"
    ):
        make_pool(("wonderful", "good"), Path(), films, lm, ())


def test_words_are_mined_from_training_examples_only(tiny, films):
    source = dict(task=4)
    pool = make_pool(source, Path(), films, tiny, training(films))
    spoilt = {
        name: replace(
            split,
            examples=tuple(
                replace(e, fields={"text": "hate the capital Rome question"}, choice=1 - e.choice)
                if name != "search" or e.id < 8
                else e
                for e in split.examples
            ),
        )
        for name, split in films.splits.items()
    }
    assert make_pool(source, Path(), replace(films, splits=spoilt), tiny, training(films)) == pool
    other = [
        replace(e, choice=i % 2, fields={"text": "funny story, very boring"})
        for i, e in enumerate(training(films))
    ]
    assert make_pool(source, Path(), films, tiny, other) != pool


def test_a_larger_test_split_leaves_the_pool_as_it_is(tiny):
    from promptsearch.study.config import parse_config
    from promptsearch.study.prepare import prepare

    rows = [
        {"text": f"the {w} movie {i}", "label": i % 2}
        for i, w in enumerate(["story", "funny", "capital", "hate"] * 40)
    ]

    def pool(test):
        task = Task.from_rows(
            rows,
            template="{prompt} {text} It was {answer}",
            label="label",
            answers={0: "bad", 1: "good"},
            splits={"search": 40, "select": 10, "test": test},
            name="films",
        )
        config = {
            "model": "given",
            "task": "films",
            "budget": 90_000,
            "seeds": 1,
            "score_on": 8,
            "length": 2,
            "strategies": ["random"],
        }
        prepared = prepare(parse_config({**config, "pool": {"task": 4}}), tiny, task)
        return prepared.arena(task).pool

    assert pool(10) == pool(100)


def test_bad_pools_are_refused_with_what_is_there(tiny, films, tmp_path):
    def refused(given, complaint):
        with pytest.raises(StudyError, match=complaint):
            make_pool(given, tmp_path, films, tiny, training(films))

    usable = len(tiny.words) - 2
    refused(
        usable + 1,
        (
            f"the pool wants {usable + 1} words, but this tokenizer has {usable} that are no "
            "answers of task 'films'"
        ),
    )
    refused(
        dict(task=500),
        (
            "the pool wants 500 words of the task, but the 32 search examples of 'films' .* "
            "lower 'task'"
        ),
    )
    refused(dict(file="none.txt"), "cannot read the pool from .*none.txt: No such file")
    (tmp_path / "empty.txt").write_text("\n  \n")
    refused(
        dict(file="empty.txt"),
        "the file of the pool .*empty.txt is empty: expected one word a line",
    )
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    refused(dict(file="latin.txt"), "cannot read the pool from .*latin.txt: it is not UTF-8 text")
    (tmp_path / "long.txt").write_text("movie\ngood movie\n")
    refused(dict(file="long.txt"), "the word 'good movie' of the pool is 2 tokens of this model")
    (tmp_path / "marked.txt").write_text("\ufeffmovie\r\nthe\r\n", "utf-8", newline="")
    assert len(make_pool(dict(file="marked.txt"), tmp_path, films, tiny, ()).ids) == 2
    nameless = replace(films, choices=tuple(tiny.decode([i]) for i in tiny.words))
    with pytest.raises(
        StudyError,
        match=f"'films' is empty: .* tokens {len(tiny.words)} are a space and ASCII letters",
    ):
        make_pool("words", tmp_path, nameless, tiny, ())
