"""How a strategy reads its prompts with inputs that say nothing, and what it pays for that."""

from __future__ import annotations

from promptsearch.prompts.kinds import own_copy
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import Floats
from promptsearch.scoring.protocol import inside
from promptsearch.search.books import Books


def read_content_free(books: Books, prompt: Prompt, text: str) -> Floats | None:
    """How probable each choice is where an input says nothing; charges what is read.

    It is no evaluation: no line of the log has it. A run that goes on reads it again, and pays for
    it as before.

    Args:
        books: The books of the run.
        prompt: The prompt.
        text: What every field of the input holds, such as `N/A`.

    Returns:
        Log-probabilities over the choices in nats, shape `(choices,)`; None where the prompt cannot
        be scored so, as where nothing then stands before the answer.

    Raises:
        BudgetExhausted: The tokens cost more than is left.
        StrategyError: The task has no choices that are the same in all rows, or nothing but scores
            comes from the model.
    """
    books.check_untouched()
    prompt = own_copy(prompt)
    prompt.check(books.space, books.scorer.white_box)
    blank = inside(books.scorer, "input without content").content_free(text)
    ledger, prices = books.ledger, books.prices
    ledger.charge(
        forward=blank.price(prompt), reserve=prices.set_aside(books.scorer.length(prompt))
    )
    nats, computed = blank.read(prompt)
    ledger.computed += computed
    return nats
