"""The metrics of table-to-text challenges give the numbers of the challenges' own scripts.

The recorded numbers come from pycocoevalcap 1.2 (Cider, Rouge and Meteor after its PTBTokenizer,
with Java) and from `pymteval.py` of the E2E challenge, as gem-metrics-fork 0.1.dev0 has it:

    pip install numpy; pip install --no-deps pycocoevalcap==1.2 gem-metrics-fork==0.1.dev0
    gts, res = ({i: [{"caption": text} for text in texts]} for references and outputs)
    Cider().compute_score(PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res))
    score = NISTScore(); score.append(output, references) for each row; score.score()
"""

import itertools
import math
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.coco_rouge_l import longest_common
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered
from promptsearch.tasks.metrics.tokens import ptb, v13a


def test_cider_is_coco_captions(rows):
    found = measured(find_metric("cider"), rows)
    each = [2.9213554009, 3.2235974168, 0.7212198785, 0.0, 2.4751779875, 0.7910885208]
    assert found.statistics[:, 0] == pytest.approx(each, abs=1e-9)
    assert found.score == pytest.approx(1.6887398674181844, abs=1e-12)


def test_rouge_l_is_coco_captions(rows):
    found = measured(find_metric("coco_rouge_l"), rows)
    each = [0.7011494253, 0.5669144981, 0.2531120332, 0.0, 0.9606299213, 0.4149659864]
    assert found.statistics[:, 0] == pytest.approx(each, abs=1e-9)
    assert found.score == pytest.approx(0.4827953107130069, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'They said "hello" & left -- twice... 20-25 people, e.g. "Mr. Smith".',
            "they said hello & left twice 20-25 people e.g. mr. smith",
        ),
        (
            "The Mill has a rating of 1,000.5 points (out of 5,000).",
            "the mill has a rating of 1,000.5 points -lrb- out of 5,000 -rrb-",
        ),
        ("It isn't kid-friendly: less than £20", "it is n't kid-friendly less than # 20"),
        (
            "They can't; Cotto's and/or a 5-star S&amp;M, I cannot.",
            "they ca n't cotto 's and/or a 5-star s&m i can not",
        ),
        ("In the '60s, 20th century", "in the '60s 20th century"),
    ],
)
def test_words_are_coco_captions(text, words):
    assert " ".join(ptb(text)) == words


def test_without_tokenizer_texts_are_cut_at_spaces(rows):
    cut = [
        Answered(" ".join(ptb(row.output)), tuple(" ".join(ptb(t)) for t in row.references))
        for row in rows
    ]
    for name in ("cider", "coco_rouge_l"):
        assert find_metric(name, {"tokenize": "none"}).of(cut) == find_metric(name).of(rows)


def test_cider_needs_rows_to_weigh_words_by(rows):
    with pytest.raises(TaskError, match="says nothing of one row"):
        measured(find_metric("cider"), rows[:1])


def test_nist_is_pymtevals(rows):
    # `pymteval` counts n-grams of outputs shorter than n as less than none, so those are left out.
    long = [row for row in rows if len(row.output.split()) >= 5]
    assert find_metric("nist").of(long) == pytest.approx(4.912776726348782, abs=1e-12)


def test_the_two_modes_of_nist_differ_by_whose_length_counts():
    rows = [
        Answered("the mill is", ("the mill is a pub near the river",)),
        Answered("a pub", ("it is a pub near the mill", "a pub is near")),
    ]
    given, mean = 5, 8 + (7 + 4) / 2
    padded = (8 + 7 + 4) / 2

    def penalty(length):
        return math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(given / length) ** 2)

    ours, theirs = (find_metric("nist", {"mode": m}).of(rows) for m in ("pymteval", "perl"))
    assert ours / theirs == pytest.approx(penalty(mean) / penalty(padded))
    assert find_metric("nist").of([Answered("", ("a pub",))]) == 0


def test_nists_information_by_hand():
    # Five words, of which "a" stands twice and "b" once: log2(5 / 2) and log2(5 / 1); and "a b"
    # after "a": log2(2 / 1).
    rows = [Answered("a b", ("a b c",)), Answered("d", ("a d",))]
    found = find_metric("nist").of(rows)
    words = (math.log2(5 / 2) + math.log2(5) + math.log2(5)) / 3
    length = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(3 / 5) ** 2)
    assert found == pytest.approx((words + math.log2(2 / 1) / 1) * length)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It costs £20-25, i.e. 1,000.5!", "it costs £20 - 25 , i . e . 1,000.5 !"),
        ("don't stop.", "don't stop ."),
        ("A&amp;B <skipped>x-\ny", "a & b xy"),
        ("(a/b)", "( a / b )"),
    ],
)
def test_words_of_mteval(text, words):
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    assert v13a(text) == words.split()
    assert v13a(text, lowercase=False) == Tokenizer13a()(text).split()


@settings(max_examples=100, deadline=None)
@given(st.text("ab.,-1 '", max_size=20))
def test_words_are_those_of_sacrebleus_13a(text):
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    assert v13a(text, lowercase=False) == Tokenizer13a()(text).split()


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_the_longest_common_subsequence_is_the_longest(one, other):
    def has(text, part):
        rest = iter(text)
        return all(letter in rest for letter in part)

    longest = max(
        size
        for size in range(len(one) + 1)
        if any(has(other, part) for part in itertools.combinations(one, size))
    )
    assert longest_common(one, other) == longest


#: What METEOR's program says of these rows.
COUNTS = """\
14 13 4 5 8 8 3 3 0 0 0 0 0 0 0 0 0 0 0 0 4 11 11
13 10 6 3 5 5 2 2 0 0 0 0 0 0 0 0 1 2 2 1 2 10 10
1 6 0 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1
0 13 0 8 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
12 12 3 4 8 8 3 3 0 0 0 0 0 0 0 0 0 0 0 0 2 11 11
6 4 3 2 1 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 1 2 2
"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """A command `java` that prints a file, and a jar for it to be called with."""
    (tmp_path / "counts").write_text(COUNTS)
    command = tmp_path / "java"
    command.write_text(f"#!/bin/sh\ncat > {tmp_path}/asked\ncat {tmp_path}/counts\n")
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "meteor-1.5.jar").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_meteor_is_what_its_program_makes_of_its_counts(java, rows):
    metric = find_metric("meteor", {"jar": str(java / "meteor-1.5.jar")})
    found = measured(metric, rows)
    assert found.score == pytest.approx(0.3506669073978286, abs=1e-12)
    each = [0.46276637722948316, 0.4851902433086184, 0.08540925266903915, 0.0]
    each += [0.5470058416805914, 0.22217193582433745]
    alone = [found.score_of(row, 1) for row in found.statistics]
    assert alone == pytest.approx(each, abs=1e-12)
    asked = (java / "asked").read_text().splitlines()
    assert asked[2] == "SCORE ||| cotto serves french food in cambridge ||| cotto"
    assert metric.signature == "meteor|version:1.5|lang:en|norm:yes|tok:ptb"


def test_an_answer_that_is_its_reference_adds_no_pieces_to_meteor(java):
    rows = [
        Answered("the mill is a pub", ("the mill is a pub",)),
        Answered("cotto has food in cambridge", ("cotto serves french food in cambridge",)),
        Answered("blue spice is by the river", ("near the river is blue spice",)),
    ]
    (java / "counts").write_text(
        "5 5 3 3 2 2 3 3 0 0 0 0 0 0 0 0 0 0 0 0 1 5 5\n"
        "5 6 2 1 3 3 1 1 0 0 0 0 0 0 0 0 0 0 0 0 2 4 4\n"
        "6 6 3 2 3 3 2 2 0 0 0 0 0 0 0 0 0 0 0 0 3 5 5\n"
    )
    found = measured(find_metric("meteor", {"jar": str(java / "meteor-1.5.jar")}), rows)
    assert found.score == pytest.approx(0.40447666807061183, abs=1e-12)
    assert found.score_of(found.statistics[0], 1) == 1


def test_a_program_that_fails_is_named(java, rows):
    (java / "counts").write_text("1 2 3\n")
    metric = find_metric("meteor", {"jar": str(java / "meteor-1.5.jar")})
    with pytest.raises(TaskError, match="got 1 lines from Java.*expected 23 numbers for each of 6"):
        measured(metric, rows)
    (java / "java").write_text("#!/bin/sh\necho no heap >&2\nexit 3\n")
    with pytest.raises(TaskError, match="'meteor' failed in Java: no heap"):
        measured(metric, rows)


def test_what_meteor_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        TaskError, match="needs Java .* and .*pip install pycocoevalcap.*meteor_nltk"
    ):
        find_metric("meteor", {"jar": str(tmp_path / "none.jar")})


def test_meteor_runs_where_java_and_its_jar_are(rows):
    pytest.importorskip("pycocoevalcap")
    found = measured(find_metric("meteor"), rows)
    assert found.score == pytest.approx(0.3506669073978286, abs=1e-12)
