"""Read back with a parser of Markdown: what counts is what a reader's program makes of it."""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from promptsearch.report import load_results
from promptsearch.report.escaped import code, escape
from promptsearch.report.markdown import to_markdown

HOSTILE = (
    "a | b `x` ``y`` **bold** <script>alert(1)</script> [l](http://x) \\| $z$ _u_ ~~s~~ &amp; "
    "![i](j)\n# head\n- item"
)


def render(text):
    return MarkdownIt("commonmark").enable("table").enable("strikethrough").render(text)


def cells(html):
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]


@pytest.fixture
def page(make_study):
    return to_markdown(load_results(make_study(tasks=("reviews", "capitals")).fill().folder))


def test_every_row_has_every_column(page):
    table = cells(render(page))
    assert table[0] == ["strategy", "accuracy", "test loss", "gap", "tokens", "seconds", "access"]
    assert [row[0] for row in table[1:7]] == [
        "p_tuning", "prompt_tuning", "evolution", "optuna", "random", "manual (control)",
    ]  # fmt: skip
    assert all(len(row) == 7 for row in table[1:7])
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", table[1][1])
    sizes = table[8:14]  # the table of space follows
    assert table[7][2] == "stored" and all(len(row) == 6 for row in sizes)
    assert sizes[0][:3] == ["p_tuning", "1,990,000", "5,760 (0.0043 %)"]


def test_flops_stand_beside_tokens_where_they_are_known(make_study):
    study = make_study(strategies=("random", "optuna"), seeds=(0, 1)).fill()
    assert "FLOPs" not in to_markdown(load_results(study.folder))
    for seed, flops in ((0, 2.5e12), (1, 3.7e12)):
        study.write(study.result("reviews", "random", seed, flops=flops))
    told = to_markdown(load_results(study.folder))
    rows = {row[0]: row for row in cells(render(told)) if len(row) == 8}
    assert rows["strategy"][4:6] == ["tokens", "FLOPs"]
    assert (rows["random"][5], rows["optuna"][5]) == ("3.1 TFLOPs", "")
    assert "- **FLOPs**: the floating-point operations" in told


def test_the_parts_are_there(page):
    html = render(page)
    assert html.index("p_tuning wins with accuracy") < html.index("<table>"), (
        "the verdict comes first"
    )
    assert "<code>␣review sentiment | overall tone| feeling</code>" in html
    assert "Always giving the most frequent answer: 0.510" in html
    for wanted in (
        "How this was made",
        "1234abcd" * 8,
        "torch 2.13.0",
        "budget:100000",
        "promptsearch compare study.yaml --out movie-reviews",
    ):
        assert wanted in html
    assert html.count("<h2>") == 4


@pytest.mark.parametrize(
    "text", [HOSTILE, "|", "`", "``", "\\", "\\|", "a`|", " ", "<b>", "*x*", "_x_|", "&#124;"]
)
def test_code_is_one_cell_and_comes_out_as_it_went_in(text):
    html = render(f"| a | b |\n|---|---|\n| {code(text, in_table=True)} | end |\n")
    shown = re.search(r"<td>(.*?)</td>\n<td>end</td>", html, re.DOTALL)
    assert shown, html
    plain = unescape(re.sub("</?code>", "", shown.group(1)))
    assert plain == (text.replace("\n", "⏎") if text != " " else "␣")


@pytest.mark.parametrize("text", [HOSTILE, "`", "``a`", "\\", "a | b", "<b>&amp;*x*"])
def test_code_in_a_line_comes_out_as_it_went_in(text):
    shown = re.fullmatch(r"<p>x <code>(.*)</code> y</p>\n", render(f"x {code(text)} y"))
    assert shown
    assert unescape(shown.group(1)) == text.replace("\n", "⏎")


@pytest.mark.parametrize("text", [HOSTILE, "# no heading", "- no item", "1. one", "a_b_c", "<i>"])
def test_escaped_text_stays_text(text):
    html = render("x " + escape(text))
    assert not re.search("<(?!/?p>)", html), html


def test_a_sentence_of_our_own_is_never_cut(make_study):
    """However long the template in a line of facts is; a stranger's error is cut."""
    study = make_study(strategies=("manual", "random"), seeds=(0,)).fill()
    study.study["tasks"]["reviews"]["template"] = f"{'x' * 5_000} {{prompt}}{{answer}}"
    study.write_study()
    study.fail("reviews", "random", 0, error="e" * 5_000)
    page = to_markdown(load_results(study.folder))
    (facts,) = (line for line in page.splitlines() if line.startswith("- Task reviews:"))
    assert "more characters" not in facts and "x" * 5_000 in facts
    (error,) = (line for line in page.splitlines() if line.startswith("- failed: "))
    assert "(3,000 more characters)" in error


def test_hostile_labels_prompts_and_errors_break_nothing(make_study):
    study = make_study(strategies=("manual", HOSTILE, "random"), seeds=(0,)).fill()
    study.write(
        study.result(
            "reviews",
            "manual",
            0,
            winner={"kind": "text", "key": "k", "texts": [HOSTILE], "text": HOSTILE},
        )
    )
    study.fail("reviews", "random", 0, error=HOSTILE)
    page = to_markdown(load_results(study.folder))
    html = render(page)
    assert "<script" not in html
    assert "<strong>bold" not in html
    assert html.count("<h2>") == 4
    assert all(len(row) == 7 for row in cells(html)[:3])
