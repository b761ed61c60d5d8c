"""What came of attacks: counted, shown and kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from attack.case import OUTCOMES


def counted(
    kind: str, found: list[dict[str, Any]], seed: int, seconds: int, against: Path
) -> dict[str, Any]:
    """The counts of a kind, and of faults that look alike the first one."""
    rows: dict[str, Counter[str]] = {}
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in found:
        rows.setdefault(one["row"], Counter())[one["outcome"]] += 1
        if one["outcome"] != "clear":
            alike = (
                one["row"],
                one["outcome"],
                re.sub(r"[0-9]+|'[^']*'|\"[^\"]*\"", "#", one["line"])[:60],
            )
            kept = first.setdefault(
                alike,
                {key: one[key] for key in ("row", "outcome", "what", "line", "input")}
                | {"alike": 0},
            )
            kept["alike"] += 1
    return {
        "command": f"python -m attack --only {kind} --count {len(found)} --seed {seed}",
        "commit": _commit(against),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "inputs": len(found),
        "outcomes": {
            name: count for name in OUTCOMES if (count := sum(row[name] for row in rows.values()))
        },
        "rows": {
            row: {name: c[name] for name in OUTCOMES if c[name]}
            for row, c in sorted(rows.items(), key=lambda r: _order(r[0]))
        },
        "faults": list(first.values()),
    }


def show(kind: str, known: dict[str, Any]) -> int:
    """Print the counts of a kind and the command that repeats each fault.

    Returns the number of faults.
    """
    print(
        f"\n{kind}: {known['inputs']} inputs in {known['seconds']} s: {_listed(known['outcomes'])}"
    )
    for row, outcomes in known["rows"].items():
        print(f"  {row}: {_listed(outcomes)}")
    for fault in known["faults"]:
        print(
            f"  {fault['outcome']} ({fault['alike']}x) [{fault['row']}] {fault['what'][:120]}\n"
            f"    {fault['line']}"
        )
        print(f"    python -m attack --only {kind} --input {fault['input']}")
    return int(sum(fault["alike"] for fault in known["faults"]))


def keep(out: Path, kind: str, known: dict[str, Any]) -> None:
    """Write `counts.json`, in which other kinds stay as they are, and the table of all."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "counts.json"
    kinds = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kinds[kind] = known
    path.write_text(json.dumps(kinds, indent=1, ensure_ascii=True) + "\n")
    (out / "README.md").write_text(render(kinds))


def render(kinds: dict[str, dict[str, Any]]) -> str:
    """The table, in Markdown."""
    lines = [
        "# Reliability",
        "",
        (
            "Hostile inputs with fixed seeds, made by `make attack`. An input is clear where the "
            "command ends in"
        ),
        (
            "time with a message and an exit code, and what it says agrees with the undisturbed "
            "study. Hang: 10"
        ),
        (
            "seconds without progress. Died: ended by a signal that it should answer. "
            "Contradiction: exit 0 with"
        ),
        (
            "other numbers than the undisturbed study's, or a right run that is lost. Escape: "
            "control characters"
        ),
        (
            "on the terminal. Silent: no word. Secret: the key of a server seen. Code run: a "
            "module that a file"
        ),
        "names was imported.",
        "",
        f"| kind | inputs | {' | '.join(reversed(OUTCOMES))} |",
        f"|---|---|{'---|' * len(OUTCOMES)}",
    ]
    for kind, known in kinds.items():
        cells = [str(known["outcomes"].get(name, 0)) for name in reversed(OUTCOMES)]
        lines.append(f"| {kind.replace('_', ' ')} | {known['inputs']} | {' | '.join(cells)} |")
    total = [
        str(sum(known["outcomes"].get(name, 0) for known in kinds.values()))
        for name in reversed(OUTCOMES)
    ]
    lines.append(
        f"| all | {sum(known['inputs'] for known in kinds.values())} | {' | '.join(total)} |"
    )
    rows: dict[str, Counter[str]] = {}
    for known in kinds.values():
        for row, outcomes in known["rows"].items():
            rows.setdefault(row, Counter()).update(outcomes)
    lines += [
        "",
        "## By fault or kind of input",
        "",
        "| fault | inputs | what came |",
        "|---|---|---|",
    ]
    for row, outcomes in sorted(rows.items(), key=lambda r: _order(r[0])):
        lines.append(
            f"| {row} | {outcomes.total()} | "
            f"{_listed({n: outcomes[n] for n in reversed(OUTCOMES) if outcomes[n]})} |"
        )
    lines += ["", "## Commands", ""]
    lines += [
        f"* `{k['command']}`, {k['date']}, commit {k['commit']}, {k['seconds']} s"
        for k in kinds.values()
    ]
    return "\n".join([*lines, ""])


def clear(folder: Path) -> None:
    """Delete what a case left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.stdin").unlink(missing_ok=True)


def _listed(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items())


def _order(row: str) -> tuple[int, str]:
    number = row.partition(" ")[0]
    return (int(number) if number.isdecimal() else 99, row)


def _commit(folder: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
