"""How fast GCG makes a model say ten random tokens, against nanoGCG and without its heirs.

The design is that of Claudini (romovpa/claudini): targets of random tokens, prompts of 15 tokens,
the loss against the work done. The peer runs its own released loop, on our pool, from our first
prompt, and is clocked in the processor seconds of its one thread: these are what a machine takes
that does nothing else. Both sides search in bfloat16; what they found is scored in float32.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gcg import peer_process, saved
from benchmarks.work import load
from promptsearch import HardPrompt, LanguageModel, Task
from promptsearch.errors import BudgetExhausted
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring import Engine
from promptsearch.search.books import Books
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.statistics.samples import Sample, interval
from promptsearch.strategies.gcg import GCG

SEEDS, LENGTH, TARGET = 20, 15, 10
#: Processor seconds of each side.
OURS, PEERS = 2.0, 4.0
WIDTH = 16
OPTIONS: Mapping[str, Any] = {"width": WIDTH, "top": 8, "batch": 1}
#: Our options by the name of a side; None for the peer.
SIDES: dict[str, Mapping[str, Any] | None] = {
    "nanoGCG": None,
    "gcg": {},
    "gcg, merge 0": {"merge": 0},
}
#: Of a side's time, in the table.
SHARES = (0.0, 0.25, 0.5, 1.0)
#: Equal work, in tokens of forward and backward passes: at 2 FLOPs for each of the model's 106
#: million weights, 1,000 tokens are 0.2 TFLOP.
TOKENS = range(600, 1_300, 100)
#: Where finished seeds lie, so that what was stopped goes on.
KEPT = Path(__file__).parents[1] / "runs" / "gcg-targets"
BEFORE = ("Say", "Write", "Tell")

#: Seconds, tokens computed, the loss that the search saw, and the best prompt's ids, as it went on.
Curve = list[dict[str, Any]]


def gcg_targets() -> list[dict[str, Any]]:
    """A row for each seed."""
    torch.set_num_threads(1)  # as the peer does
    models = load()
    peer: _Peer | None = None
    rows = []
    for seed in range(SEEDS):
        file = KEPT / f"{seed}.json"
        if not file.exists():
            peer = peer or _Peer(models["bfloat16"])
            row = json.dumps(_seed(seed, models, peer))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(row)
        rows.append(json.loads(file.read_text()))
        print("  seed", seed, {name: rows[-1][name][-1]["loss"] for name in SIDES}, flush=True)
    shutil.rmtree(KEPT)
    return rows


def _seed(seed: int, models: Mapping[str, LanguageModel], peer: _Peer) -> dict[str, Any]:
    """All sides on one target, from one prompt; who begins changes with the seed."""
    lm = models["bfloat16"]
    rng = np.random.default_rng([seed, LENGTH])
    rows = [{"before": word, "answer": random_target(lm, rng)} for word in BEFORE]
    splits = {"search": 1, "select": 1, "test": 1}
    task = Task.from_rows(rows, template="{before} {prompt}{answer}", label="answer", splits=splits)
    (example,) = task.splits["search"].examples
    first = rng.choice(lm.words, LENGTH).tolist()
    sides = {
        "nanoGCG": lambda: peer.run(example.fields["before"], example.answer, first, seed),
        **{
            name: lambda options=options: _ours(lm, task, first, seed, options)
            for name, options in SIDES.items()
            if options is not None
        },
    }
    found = {name: sides[name]() for name in (SIDES if seed % 2 else reversed(SIDES))}
    exact = Engine(models["float32"], task.template.bind(LENGTH), task.splits["search"], None)
    for name, curve in found.items():
        prompts = [HardPrompt(point["ids"]) for point in curve]
        losses = exact.score(prompts, np.arange(1)).losses[:, 0]
        for point, loss in zip(curve, losses.tolist(), strict=True):
            if abs(point["loss"] - loss) > 0.05 * loss:
                raise SystemExit(f"{name} saw a loss of {point['loss']:.2f}, which is {loss:.2f}")
            point["loss"] = round(loss, 3)
    return {"seed": seed, "target": example.answer, **found}


def random_target(lm: LanguageModel, rng: np.random.Generator) -> str:
    """Ten tokens drawn from the whole vocabulary, whose text is these tokens behind any word."""
    plain = [i for i in range(len(lm.tokenizer)) if i not in lm.added]
    while True:
        ids = rng.choice(plain, TARGET).tolist()
        rows = [[word, *ids] for word in rng.choice(lm.words, 3).tolist()]
        text = lm.decode(ids)
        if text == text.rstrip() and all(lm.encode(lm.decode(row)) == row for row in rows):
            return text


def _ours(
    lm: LanguageModel, task: Task, first: list[int], seed: int, options: Mapping[str, Any]
) -> Curve:
    """A search of ours, through the objective, as a run does it."""
    engine = Engine(lm, task.template.bind(LENGTH), task.splits["search"], None, keep=True)
    curve: Curve = []
    begin = time.process_time()

    def listen(books: Books) -> None:
        best, seconds = books.ranking[0], time.process_time() - begin
        if seconds <= OURS and (not curve or best.value < curve[-1]["loss"]):
            ids = [int(i) for i in best.prompt.ids]
            tokens = books.ledger.computed
            curve.append({"seconds": seconds, "tokens": tokens, "loss": best.value, "ids": ids})
        if seconds > OURS:
            raise BudgetExhausted("the time is over")

    objective = Objective(
        engine,
        PromptSpace(lm.words, LENGTH, lm.decode),
        Ledger(None),
        scored=[0],
        training=[0],
        listener=listen,
    )
    objective.start = HardPrompt(first)
    search(GCG(objective, seed=seed, **OPTIONS, **options))
    return curve


class _Peer:
    """nanoGCG in a process of its own, which waits for its turns."""

    def __init__(self, lm: LanguageModel) -> None:
        folder = saved(lm)
        (folder / "pool.json").write_text(json.dumps([int(i) for i in lm.words]))
        self._lm = lm
        self._process = peer_process("gcg_targets_peer.py", folder)

    def run(self, before: str, answer: str, first: list[int], seed: int) -> Curve:
        """Its run on a target; its losses are means over the target's tokens."""
        assert self._process.stdin and self._process.stdout
        lm = self._lm
        work = {
            "before": before,
            "first": lm.decode(first),
            "target": answer + lm.decode([lm.end]),  # a text answer ends, and its end is scored
            "ids": [lm.encode(before), first, [*lm.encode(answer), lm.end]],
            "width": WIDTH,
            "seconds": PEERS,
            "seed": seed,
        }
        self._process.stdin.write(json.dumps(work) + "\n")
        self._process.stdin.flush()
        curve: Curve = json.loads(self._process.stdout.readline())
        return [point | {"loss": point["loss"] * (TARGET + 1)} for point in curve]


def report(found: dict[str, Any]) -> str:
    """The page."""
    rows = found["rows"]
    lines = [
        "# GCG on random targets",
        "",
        f"`{found['command']}`, {found['date']}: {len(rows)} targets of {TARGET} random tokens and "
        f"the end of the answer, prompts of {LENGTH} tokens,",
        "SmolLM2-135M-Instruct in bfloat16 on one thread of "
        f"{found['machine']['cpu']}, {WIDTH} candidates a step on both sides, so that the time "
        "holds two to four",
        "steps: this is the beginning of a search. nanoGCG runs its own loop with what else it has "
        "by default: it draws from the best",
        "256 tokens of a position, reads its losses in bfloat16,",
        "goes on from a worse prompt too, and drops prompts that read otherwise when they are read "
        f"again. Ours draws from the best {OPTIONS['top']}. Both draw from the",
        "same pool of words, of which no prompt reads otherwise, and begin with the same prompt; "
        "who begins changes with the target. Seconds are",
        "processor seconds, which other work on the machine does not lengthen by waiting. Losses "
        "are nats a target, of what was best until then, scored in",
        "float32 after the search: means over the targets with 95 % intervals.",
        "",
        "| side | " + " | ".join(f"{share:.0%} of its time" for share in SHARES) + " |",
        "|---|" + "---:|" * len(SHARES),
    ]
    for name, options in SIDES.items():
        limit = PEERS if options is None else OURS
        cells = [_mean([_at(row[name], "seconds", s * limit) for row in rows]) for s in SHARES]
        lines.append(f"| {name}, {limit:g} s | {' | '.join(cells)} |")
    lines += ["", "Differences over the same targets, below 0 where the first is better:", ""]
    for text, a, b in _pairs(rows):
        better = int((a < b).sum())
        lines.append(f"* {text}: {_mean(a - b)} nats, better on {better} of {len(rows)}")
    return "\n".join([*lines, "", *_by_work(rows), ""])


def _by_work(rows: list[dict[str, Any]]) -> list[str]:
    """The table of differences at equal work."""
    others = [name for name in SIDES if name != "gcg"]
    lines = [
        "The same at equal work, in tokens of forward and backward passes, and on how many targets "
        "gcg is better. A side that has only",
        "begun a step shows what it had before it, so that the order may change from mark to mark:",
        "",
        "| tokens | " + " | ".join(f"gcg minus {name}" for name in others) + " |",
        "|---:|" + "---:|" * len(others),
    ]
    for tokens in TOKENS:
        ours = np.array([_at(row["gcg"], "tokens", tokens) for row in rows])
        cells = []
        for name in others:
            change = ours - np.array([_at(row[name], "tokens", tokens) for row in rows])
            cells.append(f"{_mean(change)}, {int((change < 0).sum())} of {len(rows)}")
        lines.append(f"| {tokens:,} | {' | '.join(cells)} |")
    return lines


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """What is compared: the bar first."""

    def at(name: str, by: str, most: float) -> Any:
        return np.array([_at(row[name], by, most) for row in rows])

    ours, peers, plain = at("gcg", "seconds", OURS), "nanoGCG", "gcg, merge 0"
    return [
        (f"gcg after {OURS:g} s, nanoGCG after {PEERS:g} s", ours, at(peers, "seconds", PEERS)),
        (f"gcg and {plain}, after {OURS:g} s", ours, at(plain, "seconds", OURS)),
    ]


def _at(curve: Curve, by: str, most: float) -> float:
    """The loss that was reached within so much; the first prompt's where that is nothing."""
    return next((p["loss"] for p in reversed(curve) if p[by] <= most), curve[0]["loss"])


def _mean(values: Any) -> str:
    found = interval(Sample(np.asarray(values, dtype=np.float64)[None], deterministic=True))
    return f"{np.mean(values):.2f} [{found.low:.2f}, {found.high:.2f}]"
