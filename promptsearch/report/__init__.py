"""What a study found: read, printed, and written as Markdown, HTML and Parquet."""

from promptsearch.records.load import load_results as load_results
from promptsearch.records.models import is_of_models as is_of_models
from promptsearch.records.models import load_models as load_models
from promptsearch.records.results import Results as Results
from promptsearch.report.across_pages import write_models_report as write_models_report
from promptsearch.report.terminal import print_models as print_models
from promptsearch.report.terminal import print_report as print_report
from promptsearch.report.write import write_report as write_report
