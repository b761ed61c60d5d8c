from html.parser import HTMLParser

import pytest

from promptsearch.report import load_results
from promptsearch.report.html import to_html

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"' {{ 7 * 7 }} |\x1b[2J\u202e"
)


class Page(HTMLParser):
    """The elements of a page, and its text; complains about tags that do not match."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data

    def count(self, tag, **attrs):
        return sum(
            t == tag and all(a.get(k.rstrip("_")) == v for k, v in attrs.items())
            for t, a in self.elements
        )


def page(study):
    return Page(to_html(load_results(study.folder)))


def test_the_parts_of_the_page(make_study):
    found = page(make_study(tasks=("reviews", "capitals")).fill())
    assert found.text.index("p_tuning wins with accuracy") < found.text.index("test loss"), (
        "the verdict comes first"
    )
    assert found.count("tbody", class_="row") == 12
    assert found.count("svg", class_="bar") == 12
    assert found.count("figure") == 4, "of each task: the curves, and the front"
    assert found.count("details") == 13, (
        "of each task: space, ensembles, training, control, pairs, each run; and the study file"
    )
    for wanted in (
        *(
            "␣review sentiment | overall tone| feeling",
            "Is this movie review good or bad?",
            "␣sentiment",
            "51 %",
            "0.0043 %",
        ),
        *(
            "How this was made",
            "1234abcd" * 8,
            "budget:100000|seeds:0,1,2",
            "torch 2.13.0",
            "cpu A CPU",
            "model: smollm2-135m-instruct",
        ),
        *(
            "What the columns mean",
            "what selection flattered",
            "All pairs: ",
            "Each run",
            "16 prompts were asked for",
        ),
    ):
        assert wanted in found.text, wanted
    assert "None" not in found.text, "a machine without a GPU says nothing of it"
    assert "regret" not in found.text[: found.text.index("What the columns mean")]


def test_the_page_is_one_file_that_reaches_nothing(make_study):
    found = page(make_study().fill())
    for tag, attrs in found.elements:
        for key, value in attrs.items():
            assert key not in ("src", "data", "action"), (tag, attrs)
            assert not key.endswith("href") or value.startswith("#"), (tag, attrs)
    assert found.count("link") == found.count("iframe") == 0
    policy = next(
        attrs["content"]
        for tag, attrs in found.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_prompts_labels_and_errors_are_text(make_study):
    study = make_study(
        name="hostile", strategies=("manual", "p_tuning", HOSTILE), seeds=(0,)
    ).fill()
    clean = page(study)
    study.study["name"] = study.study["model"]["name"] = study.study["settings"]["name"] = HOSTILE
    study.study["tasks"]["reviews"]["template"] = HOSTILE
    study.write_study()
    winner = {"kind": "text", "key": "k", "texts": [HOSTILE], "text": HOSTILE}
    study.write(study.result("reviews", "manual", 0, winner=winner, stopped=HOSTILE))
    winner = {
        "kind": "soft",
        "key": "k",
        "text": HOSTILE,
        "nearest": [{"token": HOSTILE, "cosine": 0.5}] * 10,
    }
    study.write(study.result("reviews", "p_tuning", 0, winner=winner))
    found = page(study)
    assert [tag for tag, _ in found.elements if tag in ("script", "img")] == ["script"]
    assert not any(key.startswith("on") for _, attrs in found.elements for key in attrs)
    assert "{{ 7 * 7 }}" in found.text
    assert "\x1b" not in found.text and "\u202e" not in found.text
    assert "</script><script>alert(1)</script>" in found.text
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in clean.elements], (
        "no text became an element"
    )


def test_failed_and_missing_runs_stand_at_the_top(make_study):
    study = make_study(strategies=("random", "optuna")).fill()
    study.fail("reviews", "optuna", 1, error="no <memory>")
    study.path("reviews", "random", 2).unlink()
    found = page(study)
    assert found.text.index("no <memory>") < found.text.index("test loss")
    assert "Not made yet: reviews, random, seed 2." in " ".join(found.text.split())
    assert found.text.count("2 of 3 seeds") == 2


def test_references_have_regret_and_a_dotted_key(make_study):
    study = make_study().fill()
    study.write(
        study.result(
            "reviews",
            "exhaustive",
            0,
            reference=True,
            deterministic=True,
            search={"loss": 0.2, "loss_fp32": 0.25},
        )
    )
    found = page(study)
    assert found.count("span", class_="key reference") == 1
    assert found.count("span", class_="key level") == 1
    assert "regret" in found.text[: found.text.index("What the columns mean")]


def test_cells_can_be_sorted_by_value(make_study):
    found = page(make_study().fill())
    columns = found.count("button")
    values = [
        attrs["data-value"]
        for tag, attrs in found.elements
        if tag == "td" and "data-value" in attrs
    ]
    assert len(values) == 6 * columns == 42
    spent = [float(value) for value in values[4::7]]
    assert spent[0] > spent[-1] == 2112


def test_one_seed_is_marked(make_study):
    found = page(make_study(seeds=(0,)).fill())
    assert "† one seed: the interval covers the choice of examples only" in found.text
    assert "†" not in page(make_study(name="three").fill()).text


@pytest.mark.parametrize("strategies", [(), ("manual",)])
def test_a_study_without_searches_has_no_figure(make_study, strategies):
    found = page(make_study(strategies=strategies).fill())
    assert found.count("figure") == 0
    assert found.count("tbody", class_="row") == len(strategies)


def test_a_large_study_stays_below_a_mebibyte_and_the_same(make_study):
    labels = (
        "manual",
        "random",
        "evolution",
        "optuna",
        "prompt_tuning",
        "p_tuning",
        "gcg",
        "hill_climb",
        "cma_es",
    )
    study = make_study(tasks=("a", "b", "c"), strategies=labels, seeds=range(5), examples=50).fill()
    winner = {"kind": "text", "key": "k", "texts": ["x"], "text": "long words " * 5000}
    study.write(study.result("a", "manual", 0, winner=winner))
    results = load_results(study.folder)
    text = to_html(results)
    assert len(text.encode()) < 2**20
    assert text == to_html(results)
