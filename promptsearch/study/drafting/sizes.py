"""How large a drafted study is: its splits, the examples of an evaluation, and the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from promptsearch.errors import TaskError
from promptsearch.search.halving import rounds
from promptsearch.search.ranking import FINALISTS, SELECTED
from promptsearch.study.drafting.columns import Column
from promptsearch.study.drafting.protocol import Protocol, references_of, tokens_of
from promptsearch.study.drafting.roles import Roles

#: The fewest different inputs that three splits can be made of.
FEWEST = 20
#: The most examples of each split, and the share of all that select and test get.
_MOST = {"search": 512, "select": 256, "test": 1000}
_SELECT, _TEST = 0.2, 0.3
#: LM tokens that an evaluation, and the selection of a winner, should not exceed by much.
_EVALUATION, _SELECTION = 2000, 30_000
#: Evaluations that the budget pays for, beside the selection among the best prompts, and how many
#: of these are of solved examples.
_EVALUATIONS, _SOLVED = 60, 5
#: Prompt tokens, as a study has them by default, and the most tokens of solved examples.
LENGTH, _SHOWN = 5, 400


@dataclass(frozen=True)
class Sizes:
    """How large a study is.

    Args:
        splits: The examples of each split.
        row: About the LM tokens of a row.
        score_on: Search examples per evaluation.
        budget: LM tokens of a run.
        shots: Solved examples in a prompt.
        group: The field whose equal values make a group, each of which fits into any split; None
            where there is none.
    """

    splits: dict[str, int]
    row: int
    score_on: int
    budget: int
    shots: int
    group: Column | None


def choose_sizes(roles: Roles, protocol: Protocol) -> Sizes:
    """Choose sizes that the data allow, and a budget that fits them.

    A group that no sizes fit is left out, which is added to `roles.checks`.

    Args:
        roles: What the fields are for.
        protocol: How the task is put and answered.

    Raises:
        TaskError: There are too few rows.
    """
    inputs = list(zip(*(column.texts for column in roles.inputs), strict=True))
    different = len(set(inputs))
    if different < FEWEST:
        raise TaskError(
            f"the data hold {different} different inputs in {len(inputs)} rows: expected at least "
            f"{FEWEST}, to search, select and test on different ones"
        )
    row = _row(inputs, roles, protocol)
    select = min(int(_SELECT * different), _MOST["select"], max(32, _SELECTION // (SELECTED * row)))
    test = min(int(_TEST * different), _MOST["test"])
    group, largest = roles.group, _largest(inputs, roles)
    if max(select, largest) + max(test, largest) + largest > different:
        assert group is not None
        roles.checks.append(
            f"whether rows of one '{group.name}' may stand in several splits: it was not taken for "
            f"a group, since the largest one has {largest:,} of {different:,} different inputs, "
            "which leaves too few for the other splits"
        )
        group, largest = None, 0
    select, test = max(select, largest), max(test, largest)
    search = min(different - select - test, max(_MOST["search"], largest))
    score_on = min(128, search // 2, max(16, _EVALUATION // row // 8 * 8))
    evaluation = score_on * row
    fresh = sum(count * len(places) for count, places in rounds(FINALISTS, select))
    selection = FINALISTS * evaluation + fresh * (row + protocol.tokens)
    shots = max(1, min(4, _SHOWN // row, search - score_on))
    budget = selection + _EVALUATIONS * evaluation + _SOLVED * shots * evaluation
    splits = {"search": search, "select": select, "test": test}
    return Sizes(splits, row, score_on, _rounded(budget), shots, group)


def _largest(inputs: Sequence[tuple[str | None, ...]], roles: Roles) -> int:
    """The most different rows of one group; 0 where there are no groups."""
    if roles.group is None:
        return 0
    options = roles.options.lists if roles.options is not None else [None] * len(inputs)
    rows = set(zip(roles.group.texts, inputs, options, strict=True))
    return max(Counter(name for name, _, _ in rows).values())


def _row(inputs: Sequence[tuple[str | None, ...]], roles: Roles, protocol: Protocol) -> int:
    """About the LM tokens of a row with its answers."""
    texts = sum(tokens_of(text) for row in inputs for text in row if text) / len(inputs)
    words = tokens_of(protocol.template) - sum(len(c.name) + 2 for c in roles.inputs) // 3
    label, options = roles.label, roles.options
    if protocol.answers is not None:
        answer = float(sum(map(tokens_of, protocol.answers.values())))
    elif options is not None:
        answer = sum(tokens_of(text) * n for text, n in options.counts.items()) / options.rows
    else:
        answer = sum(tokens_of(text) * n for text, n in label.counts.items()) / label.rows
        if protocol.references is not None:
            answer *= protocol.references / references_of(label)
    return int(texts + words + LENGTH + answer) + 1


def _rounded(number: float) -> int:
    """The number with two digits, rounded up."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return int(-(-number // step) * step)
