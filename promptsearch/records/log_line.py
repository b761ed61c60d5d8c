"""What a line of a run's log must hold, and what it says twice must agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from promptsearch.prompts.kinds import KINDS
from promptsearch.records.ledger import Ledger, total
from promptsearch.records.scores import Floats

#: The order in which a run passes through its stages; those of answers generate text.
STAGES = (
    *("search", "rescore", "rescore_answers", "select", "select_answers"),
    *("anytime", "empty", "test", "test_answers"),
)
#: Distances in nats: numbers that are closer than the first are the same, as each has six decimals;
#: choices that are closer than the second may count as a tie or not.
_ROUNDING, _TIE = 1e-5, 1e-4


def check_evaluation(line: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """See that a line is an evaluation that agrees with itself and with the line before.

    Its scores must agree with each other, and its ledger with its scores and the ledger before.

    Args:
        line: The line as it was read.
        before: The line before, which passed.

    Raises:
        ValueError: It is none, or contradicts; the message says where.
        KeyError: A key is missing.
        TypeError: A value is of another type.
    """
    stage, prompts = line["stage"], line["prompts"]
    if stage not in STAGES or (before and STAGES.index(stage) < STAGES.index(before["stage"])):
        raise ValueError(f"the stage {stage!r} has no place there")
    if not all(prompt["key"].isalnum() and prompt["kind"] in KINDS for prompt in prompts):
        raise ValueError("a prompt has no key or kind")
    if not (isinstance(line["seconds"], (int, float)) and line["seconds"] >= 0):
        raise ValueError("its seconds are below 0")
    if stage == "search":
        _whole(line["price"], "price")
    _whole(line["computed"], "computed")
    _whole(line.get("asks", 0), "asks")  # logs of old do not count them
    _check_failures(line, len(prompts))
    if stage.endswith("_answers"):
        _check_texts(line, len(prompts))
    else:
        _check_scores(line, len(prompts))
    _check_ledger(line, before)


def check_proposal(line: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """See that a line is a proposer's answer.

    Args:
        line: The line as it was read.
        before: The line before.

    Raises:
        ValueError: It is none; `KeyError` and `TypeError` as in `check_evaluation`.
    """
    if not all(isinstance(text, str) for text in line["texts"]) or not isinstance(
        line["texts"], list
    ):
        raise ValueError("its texts are no texts")
    if not isinstance(line["request"], str):
        raise ValueError("its request has no name")
    _whole(line["price"], "price")


def scored_examples(line: Mapping[str, Any]) -> int | None:
    """How many examples the prompts of a line were scored on; None where all of them failed."""
    rows = line["losses"] if "losses" in line else line["texts"]
    return next((len(row) for row in rows if row is not None), None)


def _check_failures(line: Mapping[str, Any], prompts: int) -> None:
    failures = line["failures"]
    if not all(
        key.isdecimal() and int(key) < prompts and isinstance(failures[key], str)
        for key in failures
    ):
        raise ValueError("its failures are of no prompt")


def _check_texts(line: Mapping[str, Any], prompts: int) -> None:
    """Each prompt that did not fail has an answer, and whether it ended, for each example."""
    texts, ended = line["texts"], line["ended"]
    if len(texts) != prompts or len(ended) != prompts or not isinstance(line["examples"], str):
        raise ValueError(f"{prompts} prompts have {len(texts)} rows of answers")
    for i, (row, ends) in enumerate(zip(texts, ended, strict=True)):
        if (row is None) != (str(i) in line["failures"]) or (row is None) != (ends is None):
            raise ValueError(f"prompt {i} failed and has answers, or has none and did not fail")
        if row is None:
            continue
        if list(map(len, row)) != list(map(len, ends)) or not all(
            isinstance(text, str) for drawn in row for text in drawn
        ):
            raise ValueError(f"the answers of prompt {i} are no texts, or one lacks its end")
        if not all(end in (0, 1) for drawn in ends for end in drawn):
            raise ValueError(f"whether the answers of prompt {i} ended is neither 0 nor 1")
    _whole(line["generated"], "generated")


def _check_scores(line: Mapping[str, Any], prompts: int) -> None:
    losses, metric, choices, failures = (
        line["losses"],
        line["metric"],
        line["choices"],
        line["failures"],
    )
    examples = (
        len(line["examples"]) if isinstance(line["examples"], list) else scored_examples(line) or 0
    )
    if isinstance(line["examples"], list):
        for example in line["examples"]:
            _whole(example, "examples")
    elif not isinstance(line["examples"], str):
        raise ValueError("its examples have no name")
    if (
        len(losses) != prompts
        or len(metric) != prompts
        or not (choices is None or len(choices) == prompts)
    ):
        raise ValueError(
            f"{prompts} prompts have {len(losses)} rows of losses and {len(metric)} of the metric"
        )
    for i in range(prompts):
        row, right = _numbers(losses[i], (examples,)), _numbers(metric[i], (examples,))
        if not (np.isnan(row) == np.isnan(right)).all():
            raise ValueError(f"losses and metric of prompt {i} are of other examples")
        if str(i) in failures and not np.isnan(row).all():
            raise ValueError(f"prompt {i} failed, and has losses")
        if choices is not None and choices[i] is not None and "followed" not in line:
            _check_choices(row, right, _numbers(choices[i], (examples, len(choices[i][0]))), i)
    values = line.get("values")
    if values is not None:
        _numbers(values, (prompts,))
    if "followed" in line and not isinstance(line["followed"], str):
        raise ValueError("the metric that it follows has no name")
    _whole(line.get("generated", 0), "generated")
    if "finished" in line:
        _whole(line["seen"], "seen")
        if not isinstance(line["finished"], bool):
            raise ValueError("its race neither ended nor was cut off")


def _check_choices(losses: Floats, right: Floats, choices: Floats, prompt: int) -> None:
    """A loss is that of one choice; it is right where no other is as probable.

    An example has two choices at least. Where others have more, nothing stands behind its own.
    """
    seen = ~np.isnan(losses)
    given = ~np.isnan(choices)
    if not given[seen, :2].all() or given[~seen].any() or (given[:, 1:] > given[:, :-1]).any():
        raise ValueError(f"losses and choices of prompt {prompt} are of other examples")
    # What an example does not have is as improbable as can be.
    nats, losses, right = np.where(given, choices, -np.inf)[seen], losses[seen], right[seen]
    if (np.abs(nats + losses[:, None]).min(1, initial=np.inf) > _ROUNDING).any():
        raise ValueError(f"a loss of prompt {prompt} is that of none of its choices")
    ordered = np.sort(nats, axis=1)
    leads = ordered[:, -1] + losses < _TIE
    alone = ordered[:, -1] - ordered[:, -2] > _TIE
    if ((right == 1) & ~leads).any() or ((right == 0) & leads & alone).any():
        raise ValueError(f"losses and metric of prompt {prompt} contradict each other")


def _check_ledger(line: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    ledger = line["ledger"]
    if ledger.keys() != Ledger().to_json().keys():
        raise ValueError(f"its ledger has the figures {', '.join(ledger)}")
    for name, figure in ledger.items():
        if name != "budget" or figure is not None:
            _whole(figure, name)
    if ledger["budget"] is not None and total(ledger) - ledger["brought"] > ledger["budget"]:
        raise ValueError("its ledger is over its budget")
    if before is None:
        return
    old = before["ledger"]
    fixed = ("budget", "pool", "brought")
    if any(
        ledger[name] != old[name] if name in fixed else ledger[name] < old[name] for name in ledger
    ):
        raise ValueError("its ledger is behind that of the line before")
    if line["stage"] == "search" and ledger["forward"] - old["forward"] < line["price"]:
        raise ValueError("its ledger lacks its price")


def _numbers(row: Any, shape: tuple[int, ...]) -> Floats:
    """Numbers of this shape, NaN where there are none."""
    found = np.full(shape, np.nan) if row is None else np.array(row, dtype=np.float64)
    if found.shape != shape or np.isinf(found).any():
        raise ValueError(f"a row has the shape {found.shape}, expected {shape}")
    return found


def _whole(number: Any, name: str) -> None:
    if type(number) is not int or number < 0:
        raise ValueError(f"its {name} is {str(number)[:40]!r}, no whole number from 0 up")
