"""Where searches begin: at a text, or at the winner of another run, whatever its kind."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from promptsearch import HardPrompt, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.prompts.space import PromptSpace
from promptsearch.search.plugins import find_strategy
from promptsearch.study.arena import Arena
from promptsearch.tasks.notation import Slot
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny_task import tiny_task

WORDS = ["coordinate", "genetic", "evolution", "bayesian", "gcg", "autoprompt"]
TEXTS = ["grips", "joint", "llm_proposed", "llm_evolution", "reflect", "verbalizer"]


def started(name, start, **options):
    scorer = PlantedScorer("separable", pool=20, length=4)
    objective = scorer.objective()
    objective.start = start
    return find_strategy(name)(objective, seed=0, **options)


def pool():
    return PlantedScorer("separable", pool=20, length=4).space.pool.tolist()


@pytest.mark.parametrize("name", WORDS)
def test_a_search_for_words_begins_at_words_and_at_texts(name):
    first, second, *_ = pool()
    wanted = HardPrompt([first, second] * 2)
    assert find_strategy(name).starts_from >= {HardPrompt, TextPrompt}
    for start in (wanted, TextPrompt(f"w{first} w{second}")):
        asked = list(started(name, start).ask())
        assert asked[0] == wanted and asked.count(wanted) == 1
    size = len(started(name, None).ask())
    assert len(asked) == size
    outside = next(i for i in range(48) if i not in pool())
    with pytest.raises(StrategyError, match=rf"not in the pool of 20: 'w{outside}'"):
        list(started(name, TextPrompt(f"w{outside}")).ask())


@pytest.mark.parametrize("name", ["prompt_tuning", "black_box_tuning"])
def test_vectors_that_start_from_a_text_begin_at_its_loss(name, tiny):
    length = len(tiny.encode(" good film"))
    task = tiny_task(f"{{text}} It was {{prompt:{length}}} {{answer}}")
    objective = objective_on(Arena.build(task, tiny, torch.float32, length, tiny.words, 8))
    (start,) = find_strategy(name)(objective, seed=0, text="good film").ask()
    values = [objective.evaluate([each]).values[0] for each in (start, TextPrompt("good film"))]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


#: Texts of two slots by the numbers of their words, and of the words that fill 3 and 2 tokens.
FILLED = [
    (["0", "1 2 0"], "00012"),
    (["0 1", "2"], "01022"),
    (["0 1", ""], "01010"),
    (["", "2 1"], "21212"),
    (["0", "1", "2"], "00012"),
]


def in_two_slots():
    """A planted objective whose prompts fill two slots, of 3 and 2 tokens."""
    scorer = PlantedScorer("separable", pool=20, length=5)
    scorer.space = PromptSpace(
        scorer.space.pool,
        5,
        scorer.space.decode,
        slots=[Slot(3, space=True), Slot(2, space=False)],
        embeddings=lambda: scorer.embeddings,
    )
    return scorer.objective()


def ids_of(numbers):
    return [pool()[int(number)] for number in numbers]


def written(texts):
    return [" ".join(f"w{i}" for i in ids_of(text.split())) for text in texts]


@pytest.mark.parametrize(("texts", "wanted"), FILLED)
def test_vectors_that_start_from_a_text_have_its_words_in_their_slots(texts, wanted):
    objective = in_two_slots()
    objective.start = TextPrompt(written(texts))
    (start,) = find_strategy("prompt_tuning")(objective, seed=0).ask()
    assert torch.equal(start.vectors, objective.embeddings[ids_of(wanted)])


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize(("texts", "wanted"), FILLED)
def test_a_search_for_words_begins_at_a_text_with_a_part_for_each_slot(name, texts, wanted):
    objective = in_two_slots()
    objective.start = TextPrompt(written(texts))
    assert list(find_strategy(name)(objective, seed=0).ask())[0] == HardPrompt(ids_of(wanted))


def test_a_search_for_words_begins_at_no_empty_text():
    for texts in ([""], ["", " "]):
        with pytest.raises(StrategyError, match="won by the empty prompt"):
            started("coordinate", TextPrompt(texts))


@pytest.mark.parametrize("name", [*WORDS, "pez"])
def test_a_winner_begins_with_the_nearest_words_where_the_pool_lacks_its_own(name, caplog):
    scorer = PlantedScorer("separable", pool=20, length=4)
    one, two = [i for i in range(48) if i not in pool()][:2]
    first = pool()[3]
    vectors = normalize(scorer.embeddings, dim=1)
    cosines = vectors[[one, two]] @ vectors[pool()].T
    near, other = (pool()[place] for place in cosines.argmax(1).tolist())
    asked = list(started(name, HardPrompt([first, one, two, one])).ask())
    assert asked[0] == HardPrompt([first, near, other, near])
    assert f"not in the pool of 20 here: 'w{one}', 'w{two}'" in caplog.text
    assert f"it starts with 'w{near}', 'w{other}'" in caplog.text


def test_a_winner_that_a_pool_of_one_word_lacks_begins_with_that_word():
    scorer = PlantedScorer("separable", pool=1, length=4)
    objective = scorer.objective()
    (word,) = scorer.space.pool.tolist()
    objective.start = HardPrompt([(word + 1) % len(scorer.embeddings)] * 4)
    assert find_strategy("gcg")(objective, seed=0).ask()[0] == HardPrompt([word] * 4)


class Closed(PlantedScorer):
    """Shows no embeddings, as a model behind an endpoint."""

    @property
    def embeddings(self):
        raise StrategyError("no embeddings")


def test_without_embeddings_a_winner_of_other_words_is_no_beginning():
    objective = Closed("separable", pool=20, length=4).objective()
    outside = next(i for i in range(48) if i not in pool())
    objective.start = HardPrompt([outside] * 4)
    with pytest.raises(StrategyError, match=f"here: 'w{outside}'; .* give a pool that holds them"):
        find_strategy("evolution")(objective, seed=0)


@pytest.mark.parametrize("name", TEXTS)
def test_a_search_for_texts_begins_at_a_text(name):
    assert find_strategy(name).starts_from == {TextPrompt}
    solved = "the example number 3 no\n"
    assert TextPrompt(solved) in list(started(name, TextPrompt([solved, ""])).ask())
    for texts in ([""], ["  "], ["a", "b"]):
        with pytest.raises(StrategyError, match="expected a text for the first slot to start from"):
            started(name, TextPrompt(texts))
    with pytest.raises(StrategyError, match="at 'prompts' and at the run that 'start' names"):
        started(name, TextPrompt("a"), prompts=["b"])
