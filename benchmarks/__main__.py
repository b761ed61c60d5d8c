"""`python -m benchmarks`: one comparison after the other, then the table of all results so far."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import (
    allocation,
    choices,
    encoder_decoder,
    exactness,
    gcg,
    gcg_targets,
    generate,
    masked,
    memory,
    mixed,
    overhead,
    peak,
    power,
    prices,
    quantised,
    replicas,
    scoring,
    training,
    workers,
)
from benchmarks.measure import Comparison, machine

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
#: Where what is no matter of speed alone goes, as pages of their own.
RESULTS = Path(__file__).parents[1] / "results"
#: In the table's order.
COMPARISONS: dict[str, Callable[[str], Comparison]] = {
    "front": scoring.front,
    "behind": scoring.behind,
    "exemplars": scoring.exemplar,
    "gcg": gcg.gcg,
    "choices": choices.choices,
    "prompt-tuning": training.prompt_tuning,
    "p-tuning": training.p_tuning,
    "training-behind": training.behind,
    "mixed-choose": mixed.choose,
    "mixed-generate": mixed.generate,
    "generate": generate.generate,
    "masked": masked.masked,
    "encoder-decoder": encoder_decoder.encoder_decoder,
    "workers": workers.workers,
    "ray": workers.ray,
    "replicas": replicas.replicas,
}
OTHERS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "peak": peak.peak,
    "memory": memory.memory,
    "overhead": overhead.overhead,
}
#: Name -> the page's file without its ending, what measures, and what writes.
PAGES: dict[
    str, tuple[Path, Callable[[], list[dict[str, Any]]], Callable[[dict[str, Any]], str]]
] = {
    "allocation": (RESULTS / "allocation" / "README", allocation.allocation, allocation.report),
    "gcg-targets": (OUT / "gcg-targets", gcg_targets.gcg_targets, gcg_targets.report),
    "exactness": (RESULTS / "reliability" / "exactness", exactness.exactness, exactness.report),
    "prices": (RESULTS / "reliability" / "prices", prices.prices, prices.report),
    "power": (RESULTS / "power" / "README", power.power, power.report),
    "quantised": (RESULTS / "quantised" / "README", quantised.quantised, quantised.report),
}
PEAK_BAR = 0.7


def main() -> None:
    """Run what is named, or all; a file for each, and the table of all files."""
    names = [*COMPARISONS, *OTHERS, *PAGES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; left out: all"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--device", default="cpu", help="where both sides compute; give a GPU an --out of its own"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the table")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if given.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {given.rounds}")
    here = [name for name in given.names if name not in COMPARISONS]
    if given.device != "cpu" and here:
        parser.error(f"measured on the CPU alone, leave out --device: {', '.join(here)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or (names if given.device == "cpu" else list(COMPARISONS)):
        print(name, flush=True)
        if name in PAGES:
            page, measure, report = PAGES[name]
            _page(name, page if given.out == OUT else given.out / name, measure, report)
            continue
        compared = name in COMPARISONS
        rows = COMPARISONS[name](given.device).run(given.rounds) if compared else OTHERS[name]()
        device = given.device if compared else "cpu"
        on = "" if device == "cpu" else f" --device {device}"
        about = {
            "command": f"python -m benchmarks {name} --rounds {given.rounds}{on}",
            "date": date.today().isoformat(),
        }
        found = {**about, "machine": machine(device), "rows": rows}
        (given.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        table = render(
            [json.loads(p.read_text()) for n in names if (p := given.out / f"{n}.json").exists()]
        )
        (given.out / "README.md").write_text(table)
        print(table)


def _page(
    name: str,
    page: Path,
    measure: Callable[[], list[dict[str, Any]]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """Measure, and write what was found as a page of its own."""
    about = {"command": f"python -m benchmarks {name}", "date": date.today().isoformat()}
    found = {**about, "machine": machine(), "rows": measure()}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_name(f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    page.with_suffix(".md").write_text(report(found))
    print(report(found))


def render(files: list[dict[str, Any]]) -> str:
    """The table of all files, in Markdown."""
    rows = [(file, row) for file in files for row in file["rows"]]
    lines = [
        "# Benchmarks",
        "",
        (
            "SmolLM2-135M-Instruct; ours computes in bfloat16 where the work names no dtype. A "
            "ratio is the peer's seconds by ours, the median over"
        ),
        (
            "rounds in which both take turns, and its range: against the peer in float32, and in "
            "bfloat16 as ours. The naive loop"
        ),
        (
            "takes one prompt at a time, so one prompt a round stands for all 64; of prompts with "
            "exemplars, 16 of ours do. Before"
        ),
        "anything is timed, results are compared in float32.",
        "",
        "| work | against | in float32 | bar | in bfloat16 | bar |",
        "|---|---|---|---|---|---|",
    ]
    for _, row in rows:
        if "ratios" in row:
            cells = [_ratio(row, peer) for peer in ("float32", "bfloat16")]
            lines.append(f"| {row['work']} | {row['against']} | {' | '.join(cells)} |")
    lines += [
        "",
        "Whole searches of GCG on random targets have [a page of their own](gcg-targets.md).",
        "",
        "Equal results:",
        "",
    ]
    lines += [f"* {row['work']}: {_results(row)}" for _, row in rows if "results" in row]
    lines += [
        "",
        "## Share of the machine's matrix products",
        "",
        (
            "Useful tokens only, two FLOPs for each of the 106.2 million weights without "
            "embeddings, by the rate at which"
        ),
        (
            "products of 2,048 x 2,048 run in the same dtype between one prompt and the next; "
            f"bar {PEAK_BAR:.0%}. The layers' own"
        ),
        (
            "products take only a part of the time. Norms, activations, positions and attention "
            "take the rest: they do few"
        ),
        (
            "operations for each number that they read. With products at full rate, the share "
            "would be that part."
        ),
        "",
        "| work | share | time within the layers' products | rate of these |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['work']} | {statistics.median(share):.0%} ({min(share):.0%} to {max(share):.0%}) "
        f"| {row['time_in_products']:.0%} | "
        f"{statistics.median(share) / row['time_in_products']:.0%} |"
        for _, row in rows
        if (share := row.get("share_of_products"))
    ]
    lines += [
        "",
        "## Peak memory at ten times the work",
        "",
        "What scoring adds to the model, in a process of its own.",
        "",
        "| work | MiB |",
        "|---|---|",
    ]
    lines += [
        f"| {row['work']} | {', '.join(f'{name} {mib}' for name, mib in row['mib'].items())} |"
        for _, row in rows
        if "mib" in row
    ]
    lines += [
        "",
        "## Search overhead",
        "",
        "Of a search on a planted objective, against evaluations of 64 reviews; bar 5 %.",
        "",
        "| work | ms an evaluation | share of a run, prompt in front | input before prompt |",
    ]
    lines += ["|---|---|---|---|"]
    lines += [
        (
            f"| {row['work']} | {row['milliseconds']:.2f} | {row['share']['front']:.1%} | "
            f"{row['share']['behind']:.1%} |"
        )
        for _, row in rows
        if "share" in row
    ]
    lines += ["", "## Commands and machine", ""]
    for file in files:
        m = file["machine"]
        peaks = ", ".join(
            f"{flops} GFLOP/s in {dtype}" for dtype, flops in m["peak_gflops"].items()
        )
        lines.append(
            f"* `{file['command']}`, {file['date']}: "
            f"{f'{gpu}, CUDA ' + m['cuda'] + ', beside ' if (gpu := m.get('gpu')) else ''}"
            f"{m['cpu']}, {m['threads']} threads, torch "
            f"{m['torch']}, {peaks}"
        )
    return "\n".join([*lines, ""])


def _ratio(row: dict[str, Any], peer: str) -> str:
    if peer not in row["ratios"]:
        return "- | -"
    ratios, bar = row["ratios"][peer], row["bars"].get(peer)
    middle = statistics.median(ratios)
    return f"{middle:.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) | " + (
        f"{bar:g}x" if bar is not None else "-"
    )


def _results(row: dict[str, Any]) -> str:
    remarks = row.get("remarks")
    return (
        f"winner against that of full scoring, round by round: {'; '.join(remarks)}"
        if remarks
        else str(row["results"])
    )


if __name__ == "__main__":
    main()
