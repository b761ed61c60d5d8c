"""METEOR as NLTK has it: by hand, and with a WordNet of two words read from files."""

import pytest

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered


class Lemma:
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


class Synset:
    def __init__(self, names):
        self._lemmas = [Lemma(name) for name in names]

    def lemmas(self):
        return self._lemmas


class Vendored:
    """What NLTK asks of a WordNet."""

    def synsets(self, word):
        return [Synset(["pub", "tavern"])] if word in ("pub", "tavern") else []


def score(output, *references):
    metric = find_metric("meteor_nltk").over(Vendored())
    return measured(metric, [Answered(output, references)]).score


def by_hand(matches, given, wanted, chunks):
    """Banerjee and Lavie with NLTK's parameters."""
    precision, recall = matches / given, matches / wanted
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


def test_words_stems_and_synonyms_match():
    assert score("the pub", "The pub") == pytest.approx(by_hand(2, 2, 2, 1))
    assert score("a tavern", "the pub") == pytest.approx(by_hand(1, 2, 2, 1))
    assert score("he serves", "he serving food") == pytest.approx(by_hand(2, 2, 3, 1))
    assert score("cheap a the", "the pub cheap") == pytest.approx(by_hand(2, 3, 3, 2))
    assert score("", "the pub") == 0
    assert score("the pub", "nothing", "The pub") == pytest.approx(by_hand(2, 2, 2, 1))


def index(lemma, offset, pos):
    return f"{lemma} {pos} 1 0 1 0 {offset:08d}\n"


@pytest.fixture
def wordnet(tmp_path):
    """A folder in WordNet's format, as Debian has it, without `lexnames`."""
    data = "00000000 06 n 02 pub 0 tavern 0 000 | tavern; a place to drink\n"
    (tmp_path / "data.noun").write_text(data)
    (tmp_path / "index.noun").write_text(index("pub", 0, "n") + index("tavern", 0, "n"))
    for pos in ("verb", "adj", "adv"):
        (tmp_path / f"data.{pos}").write_text("")
        (tmp_path / f"index.{pos}").write_text("")
    for pos in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"{pos}.exc").write_text("")
    return tmp_path


def test_wordnet_is_read_from_its_files(wordnet):
    metric = find_metric("meteor_nltk", {"wordnet": str(wordnet)})
    assert metric.of([Answered("a tavern", ("the pub",))]) == pytest.approx(by_hand(1, 2, 2, 1))
    assert metric.of([Answered("a river", ("the pub",))]) == 0


def test_a_missing_wordnet_is_named(tmp_path):
    with pytest.raises(TaskError, match="needs WordNet, which is not in .*wordnet-base"):
        measured(find_metric("meteor_nltk", {"wordnet": str(tmp_path)}), [Answered("a", ("b",))])
