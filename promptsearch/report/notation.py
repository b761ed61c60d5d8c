"""The notation of numbers and prompts, the same in all reports."""

from __future__ import annotations

import math
import re

from promptsearch.printable import printable

#: The note that explains †.
ONE_SEED = "† one seed: the interval covers the choice of examples only, not the luck of the seed"

#: The mark of a strategy with a run that has no export; a line below the table says why.
NO_EXPORT = "‡"

#: The note about losses where a model writes text and gives no scores.
ERRORS = "Losses are 0 (the text that the model writes is right) and 1 (it is wrong), not nats."

_MARKS = str.maketrans({"\n": "⏎", "\t": "⇥"})


def visible(text: str, limit: int | None = 2000) -> str:
    """A prompt on one line, with what the eye would miss made visible.

    Args:
        text: Any text, hostile text included.
        limit: The most characters shown; of further ones, the number is given. None where all are
            shown, as of a sentence of our own.

    Returns:
        Printable characters only: spaces at the ends and in rows become ␣, line breaks ⏎, tabs ⇥,
        and others are escaped.
    """
    rest = 0 if limit is None else len(text) - limit
    text = re.sub(r"^ +| +$| {2,}", lambda spaces: "␣" * len(spaces.group()), text[:limit])
    shown = printable(text.translate(_MARKS))
    return f"{shown} … ({rest:,} more characters)" if rest > 0 else shown


def in_slots(text: str) -> str:
    """The text of a winner with ` | ` between its slots, as a report shows it.

    The space with which the words of a slot begin is the one behind the bar. Slots that are empty
    behind the last words are not shown.

    Args:
        text: What the slots hold, joined by ` | `.
    """
    text = re.sub(r"(?<=[^ |])( \| )+$", "", text)
    return re.sub(r" \|  (?=\S)", " | ", text)


def number(value: float | None, digits: int = 3) -> str:
    """A score or a loss; ∞ where nothing is known, – where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """A p-value in a sentence: `p = 0.0003`, or that it is below what anybody tells apart."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def could_show(difference: float) -> str:
    """The smallest difference that would have been significant, or that none would have been."""
    return "none" if math.isinf(difference) else number(difference)


def signed(value: float) -> str:
    """A difference, always with its sign; one of rounding alone is +0.000."""
    return f"{0.0 if abs(value) < 1e-9 else value:+.3f}"


def money(value: float | None) -> str:
    """A sum of money, of whatever currency, with three digits that count; empty for none."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else whole(value)


def whole(value: float) -> str:
    """A count, with commas."""
    return f"{value:,.0f}"


def count(mean: float) -> str:
    """A mean of counts: with a digit behind the point below a hundred, where there is one."""
    return whole(mean) if mean >= 99.95 else f"{mean:.3g}"


def short(value: float | None) -> str:
    """A count in at most five characters: 950, 98.8k, 1.2M; – where there is none."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def flops(count: float | None) -> str:
    """A number of floating-point operations: 27 TFLOPs, 3.14 PFLOPs; empty for none."""
    if count is None:
        return ""
    for unit, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {letter}FLOPs"
    return f"{count / 1e6:.3g} MFLOPs"


def size(count: float) -> str:
    """A number of bytes: 312 bytes, 23 kB, 1.61 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def percent(share: float) -> str:
    """A share with two digits that count, as a percentage."""
    if 0 < share < 1e-5:
        return "< 0.001 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def probability(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
