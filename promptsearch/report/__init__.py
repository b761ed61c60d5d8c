"""What a study found: read, printed, and written as Markdown, HTML and Parquet."""

from promptsearch.records.load import load_results as load_results
from promptsearch.records.results import Results as Results
from promptsearch.report.terminal import print_report as print_report
from promptsearch.report.write import write_report as write_report
