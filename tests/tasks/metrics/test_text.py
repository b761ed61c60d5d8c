"""Metrics of text equal the libraries and scripts that the field compares by."""

import importlib.util

import numpy as np
import pytest

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import check_metric, measured
from promptsearch.tasks.metrics.metric import Answered


def random_rows(rows=60, seed=0):
    """Rows of a small vocabulary, with one to three references of which outputs are made."""
    rng = np.random.default_rng(seed)
    words = [
        "the",
        "a",
        "pub",
        "mill",
        "near",
        "is",
        "serves",
        "food",
        "cheap",
        "river",
        "by",
        "it",
    ]
    found = []
    for _ in range(rows):
        texts = [
            " ".join(rng.choice(words, size=rng.integers(3, 15))) for _ in range(rng.integers(1, 4))
        ]
        output = [w for w in texts[0].split() if rng.random() < 0.8] + list(
            rng.choice(words, size=rng.integers(0, 4))
        )
        found.append(Answered(" ".join(output), tuple(texts)))
    return found


@pytest.mark.parametrize(
    ("name", "options", "peer", "arguments"),
    [
        ("bleu", {}, "BLEU", {}),
        ("bleu", {"lowercase": True}, "BLEU", {"lowercase": True}),
        ("bleu", {"tokenize": "intl", "smooth_method": "add-k"}, "BLEU", None),
        ("chrf", {}, "CHRF", {}),
        ("chrf", {"word_order": 2, "lowercase": True}, "CHRF", None),
        ("ter", {}, "TER", {}),
        ("ter", {"normalized": True, "case_sensitive": True}, "TER", None),
    ],
)
def test_sacrebleus_metrics_are_sacrebleus(name, options, peer, arguments, rows):
    from sacrebleu import metrics

    theirs = getattr(metrics, peer)(**(options if arguments is None else arguments))
    metric = find_metric(name, options)
    found = measured(metric, rows)
    hypotheses = [row.output for row in rows]
    # As sacrebleu's command line has them: the first reference of all rows, then the second one.
    columns = [[(*row.references, *[None] * 4)[i] for row in rows] for i in range(4)]
    assert found.score == pytest.approx(theirs.corpus_score(hypotheses, columns).score, abs=1e-10)
    assert metric.signature == f"{name}|{theirs.get_signature()}"
    assert "nrefs:var" in metric.signature


def test_every_reference_counts_however_few_other_rows_have(rows):
    metric = find_metric("ter")
    texts = rows[4].references
    assert metric.of([rows[2], Answered(texts[3], texts)]) < metric.of(
        [rows[2], Answered(texts[3], texts[:3])]
    )


@pytest.mark.parametrize("text", ["今天天气很好", "Сегодня 3 градуса", "ήλιος"])
def test_rouge_refuses_letters_that_it_does_not_read(text):
    rows = [Answered(text, (text,))] * 3
    with pytest.raises(TaskError, match=rf"^the metric 'rougeL' reads .*'{text}' .* take chrf or"):
        check_metric(find_metric("rougeL"), "text", rows)
    for name in ("chrf", "coco_rouge_l"):
        check_metric(find_metric(name), "text", rows)
        assert measured(find_metric(name), rows).score == pytest.approx(
            100 if name == "chrf" else 1
        )
    check_metric(find_metric("rougeL"), "text", [Answered("", ("Die Größe der Bäume",))])


@pytest.mark.parametrize("stemmer", [False, True])
@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_the_librarys(name, stemmer, rows):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer([name], use_stemmer=stemmer)
    found = measured(find_metric(name, {"stemmer": stemmer}), rows)
    for row, value in zip(rows, found.statistics[:, 0], strict=True):
        each = [theirs.score(text, row.output)[name].fmeasure for text in row.references]
        assert value == max(each)
    assert found.score == pytest.approx(np.mean(found.statistics))


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter", "nist", "slot_error"])
def test_sums_of_drawn_rows_give_the_score_of_the_drawn_rows(name):
    rng = np.random.default_rng(0)
    rows = [
        Answered(row.output, row.references, {"mr": f"name[{row.references[0].split()[0]}]"})
        for row in random_rows()
    ]
    metric = find_metric(name)
    found = measured(metric, rows)
    for take in rng.integers(60, size=(5, 60)):
        drawn = found.score_of(found.statistics[take].sum(0), 60)
        if name not in ("nist", "slot_error"):  # there all rows say what words weigh, or exist
            assert drawn == pytest.approx(metric.of([rows[i] for i in take]), rel=1e-9)
    assert np.mean(found.shares) == pytest.approx(found.score)


def test_squads_f1_by_hand():
    def score(output, *references, **options):
        return find_metric("token_f1", options).of([Answered(output, references)])

    assert score("The cat sat", "a cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert score("dog dog", "dog") == pytest.approx(2 * 1 / 3)
    assert score("Cat!", "dog", "cat") == 1
    assert score("", "dog") == 0 and score("the", "a") == 1
    assert score("Cat", "cat", lowercase=False) == 0


def test_valid_json():
    metric = find_metric("valid_json", {"keys": ["name"]})

    def value(text):
        return metric.of([Answered(text, ("x",))])

    assert value('{"name": "Ada", "year": 1815}') == 1
    assert value('{"year": 1815}') == 0 and value("[1]") == 0 and value('{"name": "Ada"') == 0
    assert value('{"name": NaN}') == 0 and value('{"name": 1} and more') == 0
    assert metric.feedback(Answered('{"year": 1}', ("x",))) == "the object lacks the keys name"
    assert "no JSON" in metric.feedback(Answered("{", ("x",)))
    assert find_metric("valid_json").of([Answered("3", ("x",))]) == 1


@pytest.mark.parametrize(
    ("name", "package"),
    [("bleu", "sacrebleu"), ("rougeL", "rouge_score"), ("meteor_nltk", "nltk")],
)
def test_a_missing_library_is_named_with_what_to_install(name, package, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "promptsearch.tasks.metrics.libraries.find_spec",
        lambda wanted: None if wanted == package else real(wanted),
    )
    with pytest.raises(TaskError, match=rf"'{name}' needs the package {package}: .*\[metrics\]"):
        find_metric(name)
