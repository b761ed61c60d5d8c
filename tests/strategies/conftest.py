"""What is not traced for coverage: searches over many seeds, which pass the lines of single ones.

Tracing makes a search without an LM take half as long again.
"""

from __future__ import annotations

import pytest

#: How the names of these tests begin.
OVER_SEEDS = ("test_beats_random", "test_finds_the_best_of_a_hundred")


def pytest_collection_modifyitems(items):
    """Mark them for pytest-cov."""
    for item in items:
        if item.name.startswith(OVER_SEEDS):
            item.add_marker(pytest.mark.no_cover)
