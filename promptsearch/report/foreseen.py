"""What searches were expected to gain, in words: the same on the terminal and in the report."""

from __future__ import annotations

from promptsearch.records.headroom import GainRecord, HeadroomRecord
from promptsearch.records.results import Results
from promptsearch.report.notation import number, visible


def sentence(found: HeadroomRecord) -> str:
    """What the best search of a task can gain over the best control."""
    return f"{said(found.best, found.measure)} over the best control"


def lines(found: HeadroomRecord) -> list[tuple[str, str]]:
    """What it rests on, by name."""
    kinds = [("words", found.words), ("vectors", found.vectors)]
    told = [(name, said(gain, found.measure)) for name, gain in kinds if gain is not None]
    if found.untrained:
        told.append(("vectors", f"not looked at: {visible(found.untrained, 200)}"))
    best = max(found.controls, key=found.controls.__getitem__)
    score = "accuracy" if found.measure == "accuracy" else "minus loss"
    control = f"{visible(best, 60) or '(empty)'}, best of {len(found.controls)}"
    seen = (
        f"{found.prompts} random prompts, {score} {number(found.level)}, their true scatter "
        f"{number(found.spread)}, on {found.search} search and {found.select} select examples"
    )
    return [
        *told,
        ("control", f"{control}: {score} {number(found.controls[best])}"),
        ("seen", seen),
    ]


def said(gain: GainRecord, measure: str) -> str:
    """A gain in plain words, with its 90 % interval."""
    ends = f"90 %: {_amount(gain.low, measure)} to {_amount(gain.high, measure)}"
    if gain.room:
        return f"room of about {_amount(gain.gain, measure)} {_unit(measure)} ({ends})"
    return f"no room seen ({_amount(gain.gain, measure)} {_unit(measure)}; {ends})"


def forecast_of(results: Results, task: str) -> str:
    """What was expected of a task; empty where nobody looked, or at another model or budget."""
    found, study = results.headroom, results.study
    asked = (study.model.name, study.budget)
    alike = found is not None and (found.model, found.settings.get("budget")) == asked
    tasks = found.tasks if found is not None and alike else ()
    return next((sentence(each) for each in tasks if each.task == task), "")


def _amount(gain: float, measure: str) -> str:
    return f"{100 * gain:+.0f}" if measure == "accuracy" else f"{gain:+.2f}"


def _unit(measure: str) -> str:
    return "points" if measure == "accuracy" else "nats"
