"""What the LM answers to examples that a strategy looks at, and what the metric says of it.

An answer to choose from follows from scores. Text is generated, as in selection, and charged: what
was read and what was written. Where the search follows a metric, text was generated for the scores,
and paid with them. Both stand in the run's logs, so that a run which goes on sees the same answers,
whoever gave them: scores among the evaluations, texts among those of the proposer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from numpy.typing import ArrayLike

from promptsearch.errors import StrategyError
from promptsearch.prompts.kinds import own_copy
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds
from promptsearch.search.books import Books
from promptsearch.search.calling import strangers_code
from promptsearch.search.metric_scorer import MetricScorer
from promptsearch.tasks.answered import Reader, chosen, generated
from promptsearch.tasks.examples import Example
from promptsearch.tasks.metrics.metric import Answered


class Answer(NamedTuple):
    """An answer of the LM.

    Args:
        row: The example with the answer, whose output is empty where no more is known of a choice
            than that it is wrong.
        feedback: What the metric says of it, in a line; empty where it says nothing. The metric is
            the one that the search follows, or else the one that the verdict rests on.
    """

    row: Answered
    feedback: str


def read_answers(
    books: Books, prompts: Sequence[Prompt], examples: ArrayLike
) -> list[list[Answer]]:
    """What the LM answers to search examples with prompts; charged where it is new.

    Args:
        books: The books of the run.
        prompts: The prompts, at least one.
        examples: Ids of search examples, shape `(examples,)`. Choices, and texts where a metric is
            followed, cost nothing where the prompts were scored on just these ids before, see
            `Objective.evaluate`.

    Returns:
        For each prompt an answer to each example; none where it fails on them.

    Raises:
        BudgetExhausted: It costs more than is left.
        StrategyError: The ids are none of search examples, the objective has no reader, or the
            metric fails.
    """
    reader = books.reader
    if reader is None:
        raise StrategyError(
            "it asks for answers, but the objective knows the scores alone: make it with a `reader`"
        )
    ids = books.ids(examples)
    # What a strategy is shown is its own.
    known = [replace(each, fields=dict(each.fields)) for each in books.scorer.examples(ids)]
    if known[0].choice is None:
        found = [_written(books, reader, own_copy(prompt), ids, known) for prompt in prompts]
    else:
        found = _chosen(books, reader, prompts, ids, known)
    with strangers_code(f"the feedback of the metric '{reader.metric.name}' failed"):
        return [[Answer(row, str(reader.metric.feedback(row))) for row in rows] for rows in found]


def _chosen(
    books: Books,
    reader: Reader,
    prompts: Sequence[Prompt],
    ids: ExampleIds,
    known: Sequence[Example],
) -> list[list[Answered]]:
    scores = books.evaluate(prompts, ids)
    found = []
    for place, right in enumerate(scores.metric.tolist()):
        nats = None if scores.choices is None else scores.choices[place]
        failed = place in scores.failures
        found.append([] if failed else chosen(known, reader.choices or (), nats, right))
    return found


def _written(
    books: Books, reader: Reader, prompt: Prompt, ids: ExampleIds, known: Sequence[Example]
) -> list[Answered]:
    books.check_untouched()
    prompt.check(books.space, books.scorer.white_box)
    if not books.scorer.fits(prompt):
        return []
    prices, ledger, log = books.prices, books.ledger, books.log.proposals
    # Whether the texts are those of the scores, which pay for them.
    scored = isinstance(books.scorer, MetricScorer)
    if scored:
        books.evaluate([prompt], ids)
    else:
        reserve = prices.set_aside(books.scorer.length(prompt))
        ledger.check(prices.of_answers(prompt, ids, reader.decoding.most), reserve)
    call = json.dumps(["answers", prompt.key, ids.tolist(), log.count])
    digest = hashlib.sha256(call.encode()).hexdigest()[:20]
    line = log.replay(digest)
    if line is None:
        found = books.scorer.generate([prompt], ids, reader.decoding)
        price = 0 if scored else prices.of_answers(prompt, ids, found.tokens[0])
        texts = [] if found.failures else [drawn[0] for drawn in found.texts[0]]
        line = log.append({"request": digest, "texts": texts, "price": price})
    ledger.charge(forward=line["price"])
    ledger.computed += line["price"]  # the same in a run that goes on, whatever is kept
    prices.met(ids)
    return generated(known, line["texts"]) if line["texts"] else []
