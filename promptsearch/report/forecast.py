"""The bill of a study on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from promptsearch.models.endpoint.way import losses_of
from promptsearch.report import foreseen
from promptsearch.report.notation import short, visible
from promptsearch.study.forecast import Forecast, TaskForecast
from promptsearch.study.spreading import Spreading

#: Way of sharing -> what is computed once for several prompts or examples.
_SHARED = {
    "nothing": "nothing, since that would not pay",
    "input": "each input, with what prompts begin alike",
    "prompt": "each prompt, by all examples",
    "layers": "the layers below those that attend to prompts, by all prompts",
}
#: The same where rows of the model share nothing.
_APART = "nothing, since what stands before a token depends on what stands behind it"


def print_forecast(found: Forecast, console: Console) -> None:
    """Print what each task computes and shares, and what each strategy will take.

    Args:
        found: The forecast, from `promptsearch.study.forecast.forecast`.
        console: The console to print on.
    """
    if found.served:
        console.print(Text(f"{found.model}, behind {found.device}, {losses_of(found.served)}"))
    else:
        console.print(Text(_arithmetic(found)))
    for task in found.tasks:
        console.print(
            Text(f"\n{visible(task.name)}, prompts of {task.prompt} tokens", style="bold")
        )
        _print_facts(_facts(task), console)
    console.print()
    console.print(_table(found))
    for run in found.runs:
        if run.error:
            console.print(
                Text(f"{visible(run.task)}, {visible(run.label)} would fail: ", style="red")
                + Text(visible(run.error))
            )
    for look in found.headroom.tasks if found.headroom else ():
        told = f"\n{visible(look.task)}: {foreseen.sentence(look)}"
        console.print(Text(told, style="bold"), soft_wrap=True)
        _print_facts(foreseen.lines(look), console)
    number = sum(run.runs * run.requests for run in found.runs)
    requests = f"about {number:,} requests; how long they take is the server's. "
    if not found.served:
        known = (
            f"about {duration(found.seconds)}, "
            f"{duration(found.seconds - _runs(found))} of them before the first run"
        )
        # With a local LM, only a proposer gets requests.
        requests = f"{known}, and {requests}" if number else f"{known}. "
    if found.workers is not None:
        console.print(Text(_workers(found, found.workers)))
    console.print(
        Text("In all: ", style="bold")
        + Text(requests)
        + Text(
            "What the folder or the cache holds already, and an early end by 'patience', "
            "is not counted."
        )
    )


def _print_facts(facts: Sequence[tuple[str, str]], console: Console) -> None:
    for name, value in facts:
        console.print(Text(f"  {name:<10}", style="dim") + Text(value), soft_wrap=True)


def _arithmetic(found: Forecast) -> str:
    memory = f"{found.memory / 2**30:.1f} GiB for keys and values at most"
    return (
        f"{found.model}, searched in {found.dtype} on {found.device}, {_threads(found)}, {memory}"
    )


def _threads(found: Forecast) -> str:
    return f"{found.threads} thread{'' if found.threads == 1 else 's'}"


def _runs(found: Forecast) -> float:
    """The seconds from the first run to the end of the last one."""
    return found.work if found.workers is None else found.workers.seconds


def _workers(found: Forecast, workers: Spreading) -> str:
    """What each worker takes, and what they save."""
    if found.served:
        return f"{workers.count} workers ask the server at once"
    told = (
        f"{workers.count} workers of {_threads(found)}, at most"
        f" {workers.memory / 2**30:.1f} GiB each: {duration(found.work)} of work in "
        f"{duration(workers.seconds)}"
    )
    if workers.crowded > 1:
        told += f"; a run takes {workers.crowded:.1f} times as long, for want of cores"
    return told


def _facts(task: TaskForecast) -> list[tuple[str, str]]:
    parts = task.anatomy
    speeds = [
        f"{1 / speed.token:,.0f} tokens a second {name}"
        for name, speed in (
            ("searching", task.calibration.search),
            ("in float32", task.calibration.exact),
            ("in training steps", task.calibration.training),
        )
        if speed is not None and speed.token > 0
    ]
    way = _SHARED[task.sharing] if task.shares else _APART
    shared = (
        f"{way}: {task.shown} prompts x {task.score_on} examples are {task.asked:,} tokens, "
        f"{task.computed:,} of them computed"
    )
    kept = (
        f"{task.kept:,} tokens before the prompt, {task.kept_bytes / 2**20:,.0f} MiB"
        if task.kept
        else "nothing"
    )
    here = [("shared", shared), ("kept", kept), ("measured", ", ".join(speeds))]
    return [
        ("template", visible(task.template)),
        (
            "a row",
            f"{parts['static']:.0f} tokens static, {task.prompt} prompt, "
            f"{parts['input']:.1f} input, {parts['answer']:.1f} answers (mean)",
        ),
        # For a model behind an endpoint, nothing is shared, kept or measured.
        *(here if speeds else []),
    ]


def _table(found: Forecast) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("strategy", no_wrap=True, max_width=24, overflow="ellipsis")
    last = ("requests",) if found.served else ("computed", "a run", "in all")
    for name in ("runs", "prompts", "tokens", *last):
        table.add_column(name, no_wrap=True, justify="right")
    several = len({run.task for run in found.runs}) > 1
    for run in found.runs:
        label = visible(f"{run.task}, {run.label}" if several else run.label)
        times = [short(run.computed), duration(run.seconds), duration(run.runs * run.seconds)]
        ends = [f"{run.requests:,}"] if found.served else times
        known = [f"{run.proposals:,}", short(run.price), *ends]
        cells = [str(run.runs), *([""] * (len(known) - 1) + ["fails"] if run.error else known)]
        table.add_row(*map(Text, (label, *cells)))
    return table


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 5 min, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
