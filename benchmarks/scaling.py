"""`python -m benchmarks.scaling`: a recorded study on up to 64 nodes, simulated.

What each run took, wrote and started from is recorded; who makes it when is what
`promptsearch/study/execution/hand_out.py` says: a worker that is free is given the run with the
longest way to go, as far as the runs that have ended tell what a run takes. Written are
`results/scaling`: a page, a figure, and the numbers.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from promptsearch.records.load import load_results
from promptsearch.report.drawing import STYLE, colour, svg
from promptsearch.study.events import Progress
from promptsearch.study.execution.hand_out import next_of
from promptsearch.study.time_left import TimeLeft

ROOT = Path(__file__).parents[1]
NODES = (1, 2, 4, 8, 16, 32, 64)
#: The seeds of the larger study: each of the recorded ones stands for several.
SEEDS = 30


@dataclass(frozen=True)
class Assumptions:
    """What is not recorded.

    Args:
        loading: Seconds in which a worker imports torch, loads the model and lays out the data.
        model: Bytes of the model that a node fetches before its first run.
        store: Bytes a second that the place gives out where models lie, to all nodes together.
        network: Bytes a second that the machine which leads takes in.
        write: Seconds that it takes to write a file, or lines of a log, to its disk.
        files: The files that a run writes at its end.
        evaluation: Bytes of a log for each prompt that a search proposes.
        result: Bytes of a run's result and certificate.
        tail: Seconds in which a worker is given its next run.
    """

    loading: float = 15.0
    model: float = 270e6
    store: float = 1.25e9
    network: float = 1.25e9
    write: float = 0.004
    files: int = 8
    evaluation: float = 2e3
    result: float = 100e3
    tail: float = 0.3


@dataclass(frozen=True)
class Piece:
    """A run, as it is simulated.

    Args:
        name: Its name.
        seconds: What it takes on a node.
        size: The bytes that it sends to the machine that leads.
        source: The name of the run that it starts from; None where it starts from none.
        waiting: What is known of it before it begins.
    """

    name: str
    seconds: float
    size: float
    source: str | None
    waiting: Progress

    @property
    def done(self) -> Progress:
        """What is told when it has ended."""
        return replace(self.waiting, stage="done", seconds=self.seconds)


#: The seconds that a run will take, by its name and the runs that have ended; None: not known.
Knowledge = Callable[[str, Sequence[Piece]], float | None]


def recorded(folder: Path, given: Assumptions, seeds: int | None = None) -> list[Piece]:
    """The runs of a slim record in the order in which they are handed out.

    Args:
        folder: The record.
        given: What is not recorded.
        seeds: How many seeds there are; left out: those that were recorded.
    """
    results = load_results(folder)
    known = results.study.seeds
    turns = [known[i % len(known)] for i in range(seeds or len(known))]
    found = []
    for turn, seed in enumerate(turns):
        for label in results.study.strategies:
            run = next((r for r in results.runs if (r.label, r.seed) == (label, seed)), None)
            if run is None or (run.deterministic and turn):
                continue
            size = run.proposals * given.evaluation + given.result + (run.bytes or 0)
            source = None if run.start is None else f"{run.start.run}/{turn}"
            name = f"{label}/{turn}"
            facts = {"row": label, "access": run.access, "searches": run.searches}
            waiting = Progress(name, 1, 1, "waiting", budget=run.budget, facts=facts)
            found.append(Piece(name, run.seconds, size, source, waiting))
    names = {piece.name for piece in found}
    # A run of one seed that stands for all is where the others start from, too.
    return [
        replace(p, source=p.source.rpartition("/")[0] + "/0")
        if p.source and p.source not in names
        else p
        for p in found
    ]


class Learned:
    """What a study knows of its runs: as much as those that have ended told.

    Args:
        pieces: The runs.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._account, self._told = TimeLeft(), set[str]()
        for piece in pieces:
            self._account(piece.waiting)

    def __call__(self, name: str, done: Sequence[Piece]) -> float | None:
        """What a run will take, in seconds; None where nothing is known."""
        for piece in done:
            if piece.name not in self._told:
                self._told.add(piece.name)
                self._account(piece.done)
        return self._account.expected(name)


def simulated(
    pieces: Sequence[Piece], nodes: int, given: Assumptions, knowledge: Knowledge
) -> float:
    """The seconds from the start to the last result, with one worker a node.

    Args:
        pieces: The runs, in the study's order.
        nodes: How many nodes there are.
        given: What is not recorded.
        knowledge: What is known of the runs when they are handed out.
    """
    ready = given.loading + nodes * given.model / given.store
    # Each run ends when those of all other nodes do, and theirs are written first.
    tail = given.tail + nodes * given.files * given.write
    free = [(ready, node) for node in range(nodes)]
    left, ends = list(pieces), dict[str, float]()
    running: list[tuple[float, str]] = []
    while left:
        now, node = heapq.heappop(free)
        done = [piece for piece in pieces if ends.get(piece.name, now + 1) <= now]
        unmade = {piece.name for piece in pieces} - {piece.name for piece in done}
        piece = next_of(left, unmade, lambda name: knowledge(name, done))  # noqa: B023
        if piece is None:  # it waits until a run ends
            after = min(end for end, _ in running if end > now)
            heapq.heappush(free, (after, node))
            continue
        left.remove(piece)
        ends[piece.name] = now + piece.seconds
        running.append((ends[piece.name], piece.name))
        heapq.heappush(free, (ends[piece.name] + tail, node))
    # The machine that leads takes in what others compute, and can be no faster than its network.
    return max(*ends.values(), ready + sum(p.size for p in pieces) / given.network)


def bound(pieces: Sequence[Piece], nodes: int, given: Assumptions) -> float:
    """The seconds below which no order can come: an equal share, or the longest chain of runs."""
    by_name = {piece.name: piece for piece in pieces}

    def chain(piece: Piece) -> float:
        return piece.seconds + (chain(by_name[piece.source]) if piece.source else 0.0)

    share = sum(piece.seconds for piece in pieces) / nodes
    ready = given.loading + nodes * given.model / given.store
    return ready + max(share, *map(chain, pieces))


def measured(pieces: Sequence[Piece], given: Assumptions) -> list[dict[str, Any]]:
    """A row for each number of nodes."""
    seconds = {piece.name: piece.seconds for piece in pieces}
    one = simulated(pieces, 1, given, lambda name, done: 0.0)
    return [
        {
            "nodes": nodes,
            "seconds": round(took := simulated(pieces, nodes, given, Learned(pieces)), 1),
            "faster": round(one / took, 2),
            "in_order": round(one / simulated(pieces, nodes, given, lambda *_: 0.0), 2),
            "all_known": round(one / simulated(pieces, nodes, given, lambda n, _: seconds[n]), 2),
            "bound": round(one / bound(pieces, nodes, given), 2),
        }
        for nodes in NODES
    ]


def main() -> None:
    """Simulate, and write the page, the figure and the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--study", default="reference-capitals", help="a folder of results/")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "scaling")
    asked = parser.parse_args()
    given = Assumptions()
    folder = ROOT / "results" / asked.study
    pieces = {n: recorded(folder, given, n) for n in (None, SEEDS)}
    found = {len(each): measured(each, given) for each in pieces.values()}
    asked.out.mkdir(parents=True, exist_ok=True)
    numbers = {"study": asked.study, "assumptions": asdict(given), "runs": found}
    (asked.out / "scaling.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (asked.out / "scaling.svg").write_text(_figure(found) + "\n")
    (asked.out / "README.md").write_text(_page(asked.study, given, list(pieces.values()), found))
    print((asked.out / "README.md").read_text())


def _figure(found: dict[int, list[dict[str, Any]]]) -> str:
    """How much faster, against the number of nodes."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "promptsearch scaling"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(NODES, NODES, color="#9aa3b0", linestyle=":", label="as many times as nodes")
        for place, (runs, rows) in enumerate(found.items()):
            line = [row["faster"] for row in rows]
            limit = [row["bound"] for row in rows]
            axes.plot(NODES, line, "o-", color=colour(place), label=f"{runs} runs")
            axes.plot(NODES, limit, "--", color=colour(place), label=f"{runs} runs, bound")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(NODES, [str(n) for n in NODES])
        axes.set_yticks(NODES, [str(n) for n in NODES])
        axes.set_xlabel("nodes, one worker each")
        axes.set_ylabel("times faster than one node (simulated)")
        axes.legend(frameon=False)
        return svg(figure)


def _page(
    study: str,
    given: Assumptions,
    pieces: Sequence[Sequence[Piece]],
    found: dict[int, list[dict[str, Any]]],
) -> str:
    sent = sum(p.size for p in pieces[-1])
    lines = [
        "# Scaling to 64 nodes, simulated",
        "",
        f"`python -m benchmarks.scaling --study {study}`. Nothing here was measured on 64",
        f"nodes: the runs of [`{study}`](../{study}/report.md) are handed out as `--ray` does,",
        "each with the seconds that were recorded on one core.",
        "",
        "![times faster against nodes](scaling.svg)",
        "",
    ]
    for runs, rows in found.items():
        longest = max(p.seconds for p in next(each for each in pieces if len(each) == runs))
        lines += [
            f"## {runs} runs, the longest of {longest:.0f} s",
            "",
            "| nodes | minutes | times faster | a node's share used | in the study's order | "
            "all durations known | bound |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['nodes']} | {row['seconds'] / 60:.1f} | {row['faster']:.1f} | "
            f"{row['faster'] / row['nodes']:.0%} | {row['in_order']:.1f} | "
            f"{row['all_known']:.1f} | {row['bound']:.1f} |"
            for row in rows
        ]
        lines.append("")
    return "\n".join([*lines, _assumed(given, sent)])


def _assumed(given: Assumptions, sent: float) -> str:
    """What is not recorded, for readers; `sent` are the bytes of the larger study."""
    return f"""Times faster: runs with the longest way to go are handed out first, by what those
that have ended tell of the others. Beside it: in the study's order; and if all durations were known
beforehand. Bound: an equal share for each node, or the longest chain of runs that start from one
another.

## Assumptions

* A run takes on every node what was recorded. The larger study has {SEEDS} seeds: each recorded
  seed stands for several. No score is found in a cache.
* All nodes are there at the start, and none is lost. A worker is ready {given.loading:g} s after
  its node has fetched a model of {given.model / 1e6:g} MB, from a place that gives
  {given.store / 1e9:g} GB/s to all nodes together.
* Logs come back in pieces while nodes compute, at most two a second from each. At its end a run
  writes {given.files} files at {given.write * 1e3:g} ms each (measured: 20 kB and a flush, on a
  shared virtual disk), and those of one run of every other node are written first. Its worker is
  given the next run {given.tail:g} s later.
* A log has {given.evaluation / 1e3:g} kB for each prompt that was proposed, a result and its
  certificate {given.result / 1e3:g} kB, and exports what was recorded: {sent / 1e6:,.0f} MB for the
  larger study, which the machine that leads takes in at {given.network / 1e9:g} GB/s. Checkpoints
  are not counted.
"""


if __name__ == "__main__":
    main()
