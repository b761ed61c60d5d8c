"""What attacks start from: a tiny model, studies, exports, and the host that runs commands.

Some of the studies and exports are finished, others are interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from attack.case import CANARY, SUNG, Case, Ran, outcome

ROWS = "".join(
    json.dumps(
        {"text": f"{['good film', 'I hate', 'the story', 'capital'][i % 4]} {i}", "label": i % 2}
    )
    + "\n"
    for i in range(30)
)
TASK: dict[str, Any] = {
    "template": "{prompt} {text} It was {answer}",
    "data": {"path": "d.jsonl"},
    "label": "label",
    "answers": {"0": "bad", "1": "good"},
    "splits": {"search": 8, "select": 4, "test": 6},
}
#: Strategies of the studies whose folders and exports are attacked: a prompt of every kind.
KINDS: list[dict[str, Any]] = [
    {"manual": {"prompts": ["The movie"]}},
    {"random": {"batch": 4}},
    {"llm_proposed": {"batch": 2, "longest": 8, "examples": 2, "budget": 12000}},
    {"prompt_tuning": {}},
    {"prefix_tuning": {}},
    {"llama_adapter": {"gate": "layer"}},
    {"lora": {}},
    {"p_tuning_lm": {"budget": 4000}},
]
FORMATS = ("json", "kv", "peft", "text", "vllm")


class Lab:
    """A folder with all that attacks start from.

    Args:
        folder: Empty, or of another lab on the same checkout.
        against: The checkout that is attacked.
    """

    def __init__(self, folder: Path, against: Path) -> None:
        self.folder, self._against, self._lock = folder, against, Lock()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "d.jsonl").write_text(ROWS)
        (folder / "study.yaml").write_text(json.dumps(self.study()))

    def study(self, **changed: Any) -> dict[str, Any]:
        """The plainest study: keys and values of its file."""
        given = {
            "model": str(self.folder / "llama"),
            "task": TASK,
            "length": 2,
            "budget": 1500,
            "score_on": 8,
            "dtype": "float32",
            "strategies": [{"manual": {"prompts": ["The"]}}, {"random": {"batch": 4}}],
        }
        return json.loads(json.dumps(given | changed))  # type: ignore[no-any-return]

    def host(self) -> Host:
        """A new host."""
        return Host(self.folder, self._against)

    @cached_property
    def finished(self) -> Path:
        """A folder with `study`, finished, its file beside it, and `cache`."""
        return self._studied("finished", [])

    @cached_property
    def interrupted(self) -> list[Path]:
        """The same, killed at several moments of the search."""
        moments = {
            "a": ("fsync", 6),
            "b": ("fsync", 16),
            "c": ("fsync", 40),
            "d": ("os.rename", 8),
            "e": ("cache", 20),
        }
        return [
            self._studied(f"interrupted-{name}", [{"event": event, "at": at, "signal": 9}])
            for name, (event, at) in moments.items()
        ]

    @cached_property
    def exports(self) -> dict[str, Path]:
        """Exports of the finished study in every format that can hold them, by `label-format`."""
        found = {}
        with self.host() as host:
            for row in KINDS:
                label = next(iter(row))
                run, runs = self.finished / "study/d" / label / "seed0", self.folder / "exports"
                for to in FORMATS:
                    out = runs / f"{label}-{to}"
                    if not out.exists():
                        host.run(["export", str(run), "--to", to, "--out", str(out)], self.finished)
                    if out.exists() and any(out.iterdir()):
                        found[f"{label}-{to}"] = out
        return found

    def _studied(self, name: str, traps: Sequence[Mapping[str, Any]]) -> Path:
        folder = self.folder / name
        with self._lock:
            if not folder.exists():
                folder.mkdir()
                (folder / "d.jsonl").write_text(ROWS)
                given = self.study(
                    budget=3000, strategies=KINDS, proposer={"model": str(self.folder / "llama")}
                )
                (folder / "study.yaml").write_text(json.dumps(given))
                with self.host() as host:
                    argv = ["compare", "study.yaml", "--out", "study"]
                    ran = host.run(
                        argv, folder, env={"PROMPTSEARCH_CACHE": str(folder / "cache")}, traps=traps
                    )
                if not traps and ran.code:
                    shutil.rmtree(folder)
                    raise SystemExit(f"the undisturbed study failed:\n{ran.said}")
        return folder


class Host:
    """A process of `host.py`; `with` ends it.

    Args:
        lab: The lab's folder.
        against: The checkout that is attacked.
    """

    def __init__(self, lab: Path, against: Path) -> None:
        python = against / ".venv/bin/python"
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HOME": str(lab),
        }
        env = {**os.environ, **quiet, "PYTHONPATH": str(against), "MPLCONFIGDIR": str(lab / "mpl")}
        command = [
            str(python if python.exists() else sys.executable),
            str(Path(__file__).with_name("host.py")),
            str(lab),
        ]
        self._lab, self._log = lab, (lab / "host.log").open("ab")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
            cwd=lab,
        )
        self._answer()

    def run(self, argv: list[str], cwd: Path, *, stdin: Path | None = None, **given: Any) -> Ran:
        """Run a command of `promptsearch` in a folder."""
        out, err = self._lab / f"{self._process.pid}.out", self._lab / f"{self._process.pid}.err"
        for path in (out, err):
            path.write_bytes(b"")
        files = {"out": str(out), "err": str(err), "stdin": str(stdin or os.devnull)}
        request = {"argv": argv, "cwd": str(cwd), "env": {}, **files, **given}
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        found = self._answer()
        texts = [path.read_bytes()[: 1 << 20].decode("utf-8", "replace") for path in (out, err)]
        return Ran(argv, found["code"], found["hang"], texts[0], texts[1], found["seconds"])

    def attack(self, case: Case, folder: Path) -> tuple[str, str, list[Ran]]:
        """Run a case in a new folder: what came of it, the line that shows it, and what was run."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "d.jsonl").write_text(ROWS)
        (folder / f"{CANARY}.py").write_text(
            f"import os\nopen(os.path.join({str(folder)!r}, {SUNG!r}), 'w').close()\nf = len\n"
        )
        ran: list[Ran] = []
        given = folder.with_name(f"{folder.name}.stdin")
        try:
            case.prepare(folder)
            given.write_bytes(case.stdin)
            env = {"PROMPTSEARCH_CACHE": str(folder / "cache"), **case.env}
            for i, argv in enumerate(case.commands):
                words = [word.replace("{folder}", str(folder)) for word in argv]
                first = (case.traps, case.signals) if i == 0 else ((), ())
                traps, signals = case.each[i] if i < len(case.each) else first
                struck = {"traps": list(traps), "signals": list(signals)}
                ran.append(self.run(words, folder, stdin=given, env=env, **struck))
            return (*outcome(case, folder, ran), ran)
        finally:
            case.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the host ended; see {self._lab / 'host.log'}")
        return json.loads(line)  # type: ignore[no-any-return]

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()
