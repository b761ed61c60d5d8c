"""What each strategy takes, and what three tasks take beside one model."""

import pytest

from promptsearch.records.study import ModelRecord
from promptsearch.report import load_results
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.sizes import COLUMNS, cells, sentence, several
from promptsearch.report.summary import summarise

MODEL = ModelRecord("small", "hash", "hash", parameters=1_000_000, source="here", served=None)


def test_three_prompts_stand_beside_one_model():
    assert several(5_000, MODEL) == "4 MB + 15 kB"


def test_weights_as_large_as_the_model_need_no_model_beside_them():
    assert several(4_000_000, MODEL) == "12 MB"
    assert several(1_000_000, MODEL) == "4 MB + 3 MB", "a quarter of the weights"


def test_the_sentence_says_what_fine_tuning_would_take():
    assert sentence(MODEL) == "Three fine-tuned models of 4 MB each (float32) would take 12 MB."


@pytest.fixture
def results(make_study):
    return load_results(make_study().fill().folder)


def test_rows_say_what_is_tuned_stored_and_added(results):
    (task,) = summarise(results)
    table = {row.label: cells(row, results.study.model)[1:] for row in task.rows}
    assert list(COLUMNS) == ["tuned", "stored", "on disk", "added", "three tasks"]
    assert table["p_tuning"] == [
        "1,990,000",
        "5,760 (0.0043 %)",
        "23.1 kB",
        "10",
        "538 MB + 69.4 kB",
    ]
    assert table["manual"] == ["0", "9 (< 0.001 %)", "33 bytes", "5", "538 MB + 99 bytes"]


def test_the_table_stands_in_the_reports(results):
    for text in (to_html(results), to_markdown(results)):
        assert "23.1 kB" in text and "would take 1.61 GB" in text and "three tasks" in text
