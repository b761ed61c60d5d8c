"""Beside the papers: what a run took here, and what it takes in its paper."""

from promptsearch.report import load_results
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown

PAPERS = {
    "p_tuning": {"count": 30_000, "unit": "steps", "told": "of 32 | (section 3)"},
    "evolution": {"count": 8_000, "unit": "prompts", "told": "calls"},
}


def test_each_row_whose_paper_says_so_is_held_beside_it(make_study):
    study = make_study().fill()
    for label, paper in PAPERS.items():
        for seed in range(3):
            made = study.result("reviews", label, seed)
            study.write({**made, "proposals": 150 + 3 * seed, "paper": paper})
    results = load_results(study.folder)
    told = to_markdown(results)
    assert "| `p_tuning` | 64 steps | 30,000 steps: of 32 \\| (section 3) |" in told
    assert "| `evolution` | 153 prompts | 8,000 prompts: calls |" in told
    assert "- **in its paper**:" in told
    page = to_html(results)
    assert "<td>153 prompts</td><td>8,000 prompts: calls</td>" in page


def test_older_records_have_no_such_part(make_study):
    results = load_results(make_study().fill().folder)
    assert "papers" not in to_markdown(results) and "Beside the papers" not in to_html(results)
