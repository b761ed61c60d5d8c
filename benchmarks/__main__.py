"""`python -m benchmarks`: one comparison after the other, then the table of all that was measured so far."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import choices, gcg, memory, overhead, scoring, training
from benchmarks.measure import Comparison, machine

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
#: In the table's order.
COMPARISONS: dict[str, Callable[[], Comparison]] = {
    "front": scoring.front,
    "behind": scoring.behind,
    "exemplars": scoring.exemplar,
    "gcg": gcg.gcg,
    "choices": choices.choices,
    "prompt-tuning": training.prompt_tuning,
    "p-tuning": training.p_tuning,
    "training-behind": training.behind,
}
OTHERS: dict[str, Callable[[], list[dict[str, Any]]]] = {"memory": memory.memory, "overhead": overhead.overhead}
PEAK_BAR = 0.7


def main() -> None:
    """Run what is named, or all; a file for each, and the table of all files."""
    names = [*COMPARISONS, *OTHERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; left out: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the table")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if given.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {given.rounds}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or names:
        print(name, flush=True)
        rows = COMPARISONS[name]().run(given.rounds) if name in COMPARISONS else OTHERS[name]()
        about = {"command": f"python -m benchmarks {name} --rounds {given.rounds}", "date": date.today().isoformat()}
        found = {**about, "machine": machine(), "rows": rows}
        (given.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        table = render([json.loads(p.read_text()) for n in names if (p := given.out / f"{n}.json").exists()])
        (given.out / "README.md").write_text(table)
    print(table)


def render(files: list[dict[str, Any]]) -> str:
    """The table of all files, in Markdown."""
    rows = [(file, row) for file in files for row in file["rows"]]
    lines = [
        "# Benchmarks",
        "",
        "SmolLM2-135M-Instruct; ours in bf16, the peer in fp32 and in bf16, in turns within one process each. A ratio is the",
        "peer's seconds by ours: the median over the rounds, and its range. Results are compared in fp32 before anything is",
        "timed. The share of the peak counts useful tokens only, two FLOPs for each of the 106.2 million weights without",
        "embeddings, against the best product of two 2,048 x 2,048 matrices in the same dtype, measured in each round.",
        "Peak memory is what scoring adds to the model.",
        "",
        "| work | against | in fp32 | bar | in bf16 | bar | share of the peak | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, row in rows:
        if "ratios" in row:
            cells = [_ratio(row, peer) for peer in ("float32", "bfloat16")]
            share = row["share_of_peak"]
            peak = f"{statistics.median(share):.0%} ({min(share):.0%} to {max(share):.0%}), bar {PEAK_BAR:.0%}" if share else ""
            lines.append(f"| {row['work']} | {row['against']} | {' | '.join(cells)} | {peak} | {row['peak_memory_mib']} |")
    lines += ["", "Results: " + "; ".join(dict.fromkeys(row["results"] for _, row in rows if "results" in row)) + ".", ""]
    lines += ["## Peak memory at ten times the work", "", "| work | MiB |", "|---|---|"]
    lines += [
        f"| {row['work']} | {', '.join(f'{name} {mib}' for name, mib in row['mib'].items())} |" for _, row in rows if "mib" in row
    ]
    lines += ["", "## Search overhead", "", "| work | ms an evaluation | share of a run, prompt in front | input before prompt |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {row['work']} | {row['milliseconds']:.2f} | {row['share']['front']:.1%} | {row['share']['behind']:.1%} |"
        for _, row in rows
        if "share" in row
    ]
    lines += ["", "## Commands and machine", ""]
    for file in files:
        m = file["machine"]
        peaks = ", ".join(f"{flops} GFLOP/s in {dtype}" for dtype, flops in m["peak_gflops"].items())
        lines.append(f"* `{file['command']}`, {file['date']}: {m['cpu']}, {m['threads']} threads, torch {m['torch']}, {peaks}")
    return "\n".join([*lines, ""])


def _ratio(row: dict[str, Any], peer: str) -> str:
    ratios, bar = row["ratios"][peer], row["bars"].get(peer)
    middle = statistics.median(ratios)
    return f"{middle:.1f}x ({min(ratios):.1f} to {max(ratios):.1f}) | " + (f"{bar:g}x" if bar is not None else "-")


if __name__ == "__main__":
    main()
