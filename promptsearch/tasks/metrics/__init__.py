"""Metrics of answers: one file each, found by name; `metric.py` says what a metric is.

Touch it to measure answers in another way. A metric imports neither models nor searches: what it
asks, such as an encoder, is handed in.
"""

from promptsearch.tasks.metrics.registry import METRICS as METRICS
from promptsearch.tasks.metrics.registry import find_metric as find_metric
from promptsearch.tasks.metrics.registry import known_metrics as known_metrics
from promptsearch.tasks.metrics.registry import named as named
