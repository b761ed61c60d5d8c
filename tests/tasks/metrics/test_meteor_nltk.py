"""METEOR as NLTK has it: by hand, and with a WordNet of two words read from files."""

import pytest

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered
from promptsearch.tasks.metrics.wordnet import WordNet


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


@pytest.fixture
def folder(tmp_path):
    """A folder in WordNet's format, as Debian has it."""
    licence = "  1 This is the licence.\n"
    sets = {
        "noun": ["pub 0 tavern 1", "goose 0", "box 0"],
        "verb": ["serve 0 wait_on 0"],
        "adj": ["cheap 0 inexpensive(p) 0"],
        "adv": [],
    }
    for part, lines in sets.items():
        data, places = licence, {}
        for line in lines:
            words = line.split()[::2]
            for word in words:
                places[word.partition("(")[0]] = len(data)
            data += f"{len(data):08d} 06 n {len(words):02x} {line} 000 | words\n"
        (tmp_path / f"data.{part}").write_text(data)
        index = [f"{word} n 1 2 @ ~ 1 0 {place:08d}  \n" for word, place in places.items()]
        (tmp_path / f"index.{part}").write_text(licence + "".join(index))
        (tmp_path / f"{part}.exc").write_text("geese goose\n" if part == "noun" else "")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "synonyms"),
    [
        ("pub", ["pub", "tavern"]),
        ("Taverns", ["pub", "tavern"]),
        ("geese", ["goose"]),
        ("boxes", ["box"]),
        ("serving", ["serve", "wait_on"]),
        ("cheaper", ["cheap", "inexpensive"]),
        ("inexpensive", ["cheap", "inexpensive"]),
        ("river", []),
    ],
)
def test_synonyms_are_found_whatever_the_ending(folder, word, synonyms):
    found = [lemma.name() for each in WordNet(folder).synsets(word) for lemma in each.lemmas()]
    assert found == synonyms


def test_wordnet_is_read_from_its_files(folder):
    metric = find_metric("meteor_nltk", {"wordnet": str(folder)})
    assert metric.of([Answered("a tavern", ("the pub",))]) == pytest.approx(by_hand(1, 2, 2, 1))
    assert metric.of([Answered("a river", ("the pub",))]) == 0


def test_a_missing_wordnet_is_named(tmp_path):
    with pytest.raises(TaskError, match="WordNet is not in .*wordnet-base"):
        measured(find_metric("meteor_nltk", {"wordnet": str(tmp_path)}), [Answered("a", ("b",))])
