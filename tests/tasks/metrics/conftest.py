"""Rows on which metrics of text are held against their peers."""

import pytest

from promptsearch.tasks.metrics.metric import Answered

#: Rows with one to four references, with what breaks tokenizers in them.
ROWS = [
    Answered(
        "Blue Spice is a family-friendly pub near the river, with 5-star food.",
        (
            "The Blue Spice is a 5-star, family-friendly pub by the river.",
            "Near the river is Blue Spice, a pub. It's family-friendly and rated 5 stars.",
        ),
    ),
    Answered(
        "the cost is less than £20 and children aren't allowed",
        (
            "It costs less than £20 and isn't kid-friendly.",
            "Less than £20, but not for children.",
            "Children aren't allowed; prices are below £20.",
        ),
    ),
    Answered("Cotto", ("Cotto serves French food in Cambridge.",)),
    Answered("", ("The Mill has a rating of 1,000.5 points (out of 5,000).",)),
    Answered(
        'They said "hello" & left -- twice... 20-25 people, e.g. "Mr. Smith".',
        (
            'They said "hello" and left twice: 20-25 people, e.g. "Mr. Smith"!',
            "Mr. Smith & 20-25 people left.",
            "They can't say hello, can they?",
            "Hello!",
        ),
    ),
    Answered("The Mill The Mill The Mill", ("The Mill is a pub.", "The Mill, a pub")),
]


@pytest.fixture(scope="session")
def rows():
    return ROWS
