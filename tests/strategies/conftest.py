"""What tests of searches without an LM leave out, as it would take longer than these searches."""

from __future__ import annotations

import pytest

#: How the names of tests begin that search over many seeds.
OVER_SEEDS = ("test_beats_random", "test_finds_the_best_of_a_hundred")


@pytest.fixture(autouse=True)
def unguarded_functions(request):
    """Nothing watches the library's code: a test of the conformance suite's classes does that."""
    if request.cls is None:
        request.getfixturevalue("unguarded")


def pytest_collection_modifyitems(items):
    """Coverage is not traced over many seeds, which pass the lines that one passes."""
    for item in items:
        if item.name.startswith(OVER_SEEDS):
            item.add_marker(pytest.mark.no_cover)
