"""The candidates of one GCG step, against nanoGCG.

nanoGCG has an environment of its own, since it asks for transformers <= 4.47.1.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Comparison, Side, clock, equal
from benchmarks.work import engine, load
from promptsearch import LanguageModel, Task
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt

LENGTH, CANDIDATES = 20, 512
QUESTION = (
    "Answer the question of a traveller in one short sentence. Question: what is the capital of {}?"
)
ANSWER = "The capital of {} is {}."
REQUIREMENTS = (
    "nanogcg==0.3.0",
    "transformers==4.47.1",
    "numpy<2.3",
    f"torch=={torch.__version__.partition('+')[0]}",
)
PEER = Path(__file__).parents[1] / ".venv-nanogcg"


def gcg(device: str) -> Comparison:
    """512 candidates that differ from one prompt in one token each; one target string.

    The prompt has 20 tokens.
    """
    models = load(device)
    lm = models["float32"]
    places = [("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome")]
    rows = [
        {"question": QUESTION.format(place), "answer": ANSWER.format(place, capital)}
        for place, capital in places
    ]
    splits = {"search": 1, "select": 1, "test": 1}
    task = Task.from_rows(
        rows, template="{question} {prompt} Answer: {answer}", label="answer", splits=splits
    )
    example = task.splits["search"].examples[0]
    rng = np.random.default_rng(0)
    start = rng.choice(lm.words, LENGTH)
    candidates = np.tile(start, (CANDIDATES, 1))
    candidates[np.arange(CANDIDATES), rng.integers(LENGTH, size=CANDIDATES)] = rng.choice(
        lm.words, CANDIDATES
    )
    prompts: list[Prompt] = [HardPrompt(row) for row in candidates]

    folder = saved(lm)
    target = [*lm.encode(example.answer), lm.end]  # a text answer ends, and its end is scored
    work = {
        "threads": torch.get_num_threads(),
        "device": device,
        "before": lm.encode(example.fields["question"]),
        "after": lm.encode(" Answer:"),
        "target": target,
        "candidates": candidates.tolist(),
    }
    (folder / "work.json").write_text(json.dumps(work))
    peers = {name: _Peer(folder, name) for name in models}

    def score(name: str) -> np.ndarray:
        return engine(models[name], task, LENGTH).score(prompts, np.arange(1)).losses[:, 0]

    def peer(name: str) -> Side:
        return lambda number: peers[name].step()

    def check() -> str:
        peers["float32"].step()
        return equal(
            score("float32") / len(target), np.load(folder / "float32.npy"), 2e-5
        )  # float64 lies between

    name = f"candidates of a GCG step: {CANDIDATES} prompts of {LENGTH} tokens, one target string"
    ours = {name: lambda number: clock(lambda: score("bfloat16"))[0]}
    return Comparison(
        ours, {n: peer(n) for n in models}, "nanoGCG 0.3.0", {name: {"bfloat16": 1.5}}, check
    )


def saved(lm: LanguageModel) -> Path:
    """A folder with the model, as nanoGCG's transformers loads it; removed at the end."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"][
        "rope_theta"
    ]  # where transformers 4 looks for it
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def peer_process(script: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """A process of nanoGCG's environment, which is made where it is missing."""
    python = PEER / "bin" / "python"
    if not python.exists():
        print(f"  making {PEER} for nanoGCG", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    command = [python, Path(__file__).with_name(script), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class _Peer:
    """A process that waits for its turns."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._process = peer_process("gcg_peer.py", folder, dtype)

    def step(self) -> float:
        """Seconds of one step."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())
