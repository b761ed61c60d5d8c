"""The report's lines on what is reached without a language model."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from promptsearch.report import load_results
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.terminal import print_report

BAR = "TF-IDF + logistic regression"


def pages(results):
    """The report in its three forms."""
    console = Console(file=StringIO(), width=120)
    print_report(results, console)
    return to_markdown(results), to_html(results), console.file.getvalue()


def test_floors_stand_beside_the_table(make_study):
    results = load_results(make_study().fill().folder)
    assert not any("language model, by" in page or BAR in page for page in pages(results))
    tasks = {
        name: replace(task, floors={BAR: 0.8125}) for name, task in results.study.tasks.items()
    }
    known = replace(results, study=replace(results.study, tasks=tasks))
    for page in pages(known):
        assert BAR in page and ("0.812" in page or "0.813" in page)
