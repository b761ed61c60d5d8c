"""The writer of a study's report into the study's folder."""

from __future__ import annotations

from pathlib import Path

from promptsearch.files import write_aside
from promptsearch.records.load import load_results
from promptsearch.records.results import Results
from promptsearch.report.frame import run_table, to_parquet
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown


def write_report(
    folder: Path | str, *, trust_code: bool = False, lengths: tuple[str, str] | None = None
) -> Path:
    """Write `report.md`, `report.html` and `runs.parquet` into a study's folder.

    Each file is written whole or not at all.

    Args:
        folder: The study's folder.
        trust_code: Whether functions that the study names may be called, as for `load_results`.
        lengths: The names of the two metrics that are drawn against prompt length; None for each
            task's own and the first beside it.

    Returns:
        The path of `report.html`.

    Raises:
        StudyError: The folder is no study's.
        RecordError: One of its files is damaged.
        UnknownName: A task has no such metric.
    """
    return write_pages(load_results(folder, trust_code=trust_code), lengths)


def write_pages(results: Results, lengths: tuple[str, str] | None = None) -> Path:
    """Write the report of results that were read already, as `write_report`.

    Args:
        results: The study's results.
        lengths: As for `write_report`.
    """
    write_aside(results.folder / "runs.parquet", to_parquet(run_table(results)))
    write_aside(results.folder / "report.md", to_markdown(results))
    path = results.folder / "report.html"
    write_aside(path, to_html(results, lengths))
    return path
