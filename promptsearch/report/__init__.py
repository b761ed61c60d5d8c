"""What a study found: read, printed, and written as Markdown, HTML and Parquet.

The names are imported when they are first used: to show a table, nobody waits for what draws.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.records.load import load_results as load_results
    from promptsearch.records.models import is_of_models as is_of_models
    from promptsearch.records.models import load_models as load_models
    from promptsearch.records.results import Results as Results
    from promptsearch.report.across_pages import write_models_report as write_models_report
    from promptsearch.report.terminal import print_models as print_models
    from promptsearch.report.terminal import print_report as print_report
    from promptsearch.report.write import write_pages as write_pages
    from promptsearch.report.write import write_report as write_report

#: Name -> the module that defines it.
_HOMES = {
    "Results": "records.results",
    "is_of_models": "records.models",
    "load_models": "records.models",
    "load_results": "records.load",
    "print_models": "report.terminal",
    "print_report": "report.terminal",
    "write_models_report": "report.across_pages",
    "write_pages": "report.write",
    "write_report": "report.write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptsearch.report' has no attribute '{name}'")
    return getattr(importlib.import_module(f"promptsearch.{_HOMES[name]}"), name)
