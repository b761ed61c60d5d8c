"""`python -m attack.spread`: random kills of a study's workers, its driver, and nodes of a cluster.

A study with every strategy on a tiny model is made by two workers, in turn as processes of this
machine and, where Ray is installed, on a cluster of two nodes. Something is killed with SIGKILL at
random moments, again and again; a driver that was killed is started anew with the same command.
When the study has ended, all records must be those of one process that nothing disturbed, to the
last bit, but for times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from attack.kills import ROWS
from attack.lab import Lab
from benchmarks.measure import machine
from promptsearch.testing.rerun import results_of, without_times

ROOT = Path(__file__).parents[1]
COMPARE = [sys.executable, "-m", "promptsearch", "compare", "study.yaml", "--quiet", "--out"]
#: What is killed, and how often against the others; without a cluster, of the first two only.
VICTIMS = {"worker": 5, "driver": 1, "actor": 3, "node": 3}
#: Kills a minute that come at any moment; all others wait until a run went on since the last kill,
#: and some runs have ended.
ANY = 1.0
#: The most of these runs; the most seconds between that moment and a kill, and of a study.
RUNS, PAUSE, HANG = 4, 2.0, 3600.0
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@dataclass
class Found:
    """What came of the studies of one carrier.

    Args:
        studies: How many were made.
        runs: How many of their runs were compared.
        kills: What was killed, and how often.
        differing: The runs that differ.
    """

    studies: int = 0
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)


class Nodes:
    """A Ray cluster of two nodes on this machine, beside a head without CPUs."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            self._cluster.add_node(**NODE)

    @property
    def options(self) -> list[str]:
        """What a command says to use it."""
        return ["--ray", str(self._cluster.address)]

    def kill(self, rng: random.Random) -> None:
        """Kill a node, and start another one."""
        node = rng.choice(sorted(self._cluster.worker_nodes, key=lambda each: each.node_id))
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(**NODE)

    def end(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


def study(lab: Lab) -> dict[str, Any]:
    """A study with every strategy, each with a budget that lets it do all that it can."""
    rows: list[dict[str, Any]] = []
    for row in ROWS:
        (name, options), budget = next(iter(row.items())), 3000
        if name in ("llm_proposed", "llm_evolution", "reflect"):
            budget = 12_000
        more = {"length": 1} if name == "exhaustive" else {}
        rows.append({name: {**options, **more, "budget": 6000 if name == "exemplars" else budget}})
    return lab.study(strategies=rows, pool=20, threads=1, memory="1MB")


def victims(kind: str) -> list[psutil.Process]:
    """The processes of a kind among those that this one started."""
    mark = {"worker": "promptsearch.study.execution.worker", "actor": "ray::Post"}[kind]
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(mark in word for word in process.cmdline()):
                found.append(process)
    return found


def disturbed(
    folder: Path, rng: random.Random, nodes: Nodes | None, most: int, kills: Counter[str]
) -> None:
    """Make a study whose processes are killed at random moments, until it has ended.

    Args:
        folder: Where its file lies.
        rng: Draws moments and victims.
        nodes: The cluster; None where its workers are processes of this machine.
        most: How many kills there are at most.
        kills: Is told of each.
    """
    command = [*COMPARE, "study", *(nodes.options if nodes else ["--workers", "2"])]
    weights = {kind: VICTIMS[kind] for kind in (VICTIMS if nodes else ("worker", "driver"))}
    driver, end, before = None, time.monotonic() + HANG, kills.total()
    grown = after = 0
    with (folder / "said").open("ab") as said:
        while True:
            if driver is None or driver.poll() not in (None, 0):
                driver = subprocess.Popen(command, cwd=folder, stderr=said, stdout=said)
            with suppress(subprocess.TimeoutExpired):
                driver.wait(rng.uniform(0.0, PAUSE))
            if driver.poll() == 0:
                return
            if time.monotonic() > end:
                driver.kill()
                raise SystemExit(f"the study in {folder} hangs")
            over = driver.poll() is not None or kills.total() - before >= most
            still = _logged(folder) == grown or len(_ended(folder)) < after
            if over or (still and rng.random() > ANY * PAUSE / 120):
                continue
            kind = rng.choices([*weights], [*weights.values()])[0]
            if kind == "driver":
                driver.kill()
                driver.wait()
            elif kind == "node":
                assert nodes is not None
                nodes.kill(rng)
            elif found := victims(kind):
                with suppress(psutil.Error):
                    rng.choice(found).kill()
            else:
                continue  # none is there at this moment
            kills[kind] += 1
            grown, after = _logged(folder), len(_ended(folder)) + rng.randint(0, RUNS)
            print(f"  {folder.name}: {kind} killed, {len(_ended(folder))} runs done", flush=True)


def _logged(folder: Path) -> int:
    """The bytes of all logs of a study, and the number of its results."""
    logs = (folder / "study").glob("*/*/seed*/evaluations.jsonl")
    return sum(path.stat().st_size for path in logs) + len(_ended(folder))


def _ended(folder: Path) -> list[Path]:
    return list((folder / "study").glob("*/*/seed*/result.json"))


def main() -> None:
    """Kill, compare, and write the page; 1 where a run differs."""
    parser = argparse.ArgumentParser(prog="python -m attack.spread", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many, at least")
    parser.add_argument("--each", type=int, default=8, help="the most kills of one study")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims")
    parser.add_argument("--out", type=Path, help="the folder of the page; left out: none is kept")
    given = parser.parse_args()
    rng, found = random.Random(given.seed), {"processes of this machine": Found()}
    with tempfile.TemporaryDirectory(prefix="attack-") as aside:
        cache = Path(aside, "cache")
        os.environ |= {"PROMPTSEARCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        lab = Lab(Path(aside, "lab").resolve(), ROOT)
        with lab.host():  # which makes the models
            pass
        whole = _folder(lab, "whole")
        subprocess.run([*COMPARE, "study"], cwd=whole, check=True)
        right = without_times(results_of(whole / "study"))
        nodes = _nodes()
        if nodes:
            found["a Ray cluster of two nodes"] = Found()
        try:
            while sum(each.kills.total() for each in found.values()) < given.kills:
                for carrier, each in found.items():
                    folder = _folder(lab, f"{carrier[:5].strip()}-{each.studies}")
                    for file in cache.glob("scores*"):  # what is known already takes no time
                        file.unlink()
                    on = nodes if "Ray" in carrier else None
                    disturbed(folder, rng, on, given.each, each.kills)
                    made = without_times(results_of(folder / "study"))
                    each.studies += 1
                    each.runs += len(right)
                    each.differing += [
                        f"{folder.name}: {name}"
                        for name in sorted(right.keys() | made.keys())
                        if right.get(name) != made.get(name)
                    ]
                    print(carrier, each, flush=True)
        finally:
            if nodes:
                nodes.end()
    if given.out is not None:
        _write(found, len(right), given.seed, given.out)
    sys.exit(any(each.differing for each in found.values()))


def _folder(lab: Lab, name: str) -> Path:
    folder = lab.folder / name
    folder.mkdir()
    (folder / "d.jsonl").write_bytes((lab.folder / "d.jsonl").read_bytes())
    (folder / "study.yaml").write_text(json.dumps(study(lab)))
    return folder


def _nodes() -> Nodes | None:
    try:
        return Nodes()
    except ImportError:
        print("Ray is not installed: its actors and nodes are left out", flush=True)
        return None


def _write(found: dict[str, Found], runs: int, seed: int, out: Path) -> None:
    """Write what came as `kills.json`, and the page `kills.md`."""
    about = {"date": date.today().isoformat(), "seed": seed, "machine": machine()}
    rows = {
        carrier: {
            "studies": each.studies,
            "runs": each.runs,
            "kills": {kind: each.kills[kind] for kind in VICTIMS},
            "differing": each.differing,
        }
        for carrier, each in found.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "kills.json").write_text(json.dumps({**about, "carriers": rows}, indent=1) + "\n")
    total = sum(each.kills.total() for each in found.values())
    lines = [
        "# Kills of workers, drivers and nodes",
        "",
        f"`python -m attack.spread --kills {total} --seed {seed}`, {about['date']}: a study of",
        f"{runs} runs, every strategy on a tiny model, by two workers. Something was killed with",
        "SIGKILL at random moments; a driver that was killed was started anew. Compared are all",
        "records with those of one process that nothing disturbed, to the last bit, but for times.",
        "",
        f"{total} kills, {sum(len(each.differing) for each in found.values())} runs that differ.",
        "",
        f"| workers are | studies | runs | {' | '.join(f'{kind}s' for kind in VICTIMS)} | differ |",
        f"|---|{'---|' * (len(VICTIMS) + 3)}",
    ]
    lines += [
        f"| {carrier} | {each.studies} | {each.runs} | "
        f"{' | '.join(str(each.kills[kind]) for kind in VICTIMS)} | {len(each.differing)} |"
        for carrier, each in found.items()
    ]
    (out / "kills.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
