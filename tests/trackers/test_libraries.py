"""The trackers with their real libraries: what they log is read back by these themselves.

They are looked for in this environment and in `.venv-trackers`, which `make trackers` makes: MLflow
asks for other versions than the tests do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2]
TOLD = {"strategy": "random", "seed": 0, "options": {"batch": 4}, "model": "tiny"}
BEGIN = ["begin", "t/a/seed0", TOLD]
FIRST = ["log", "t/a/seed0", 100, {"best_loss": 1.5, "seconds": 0.5}]
SECOND = ["log", "t/a/seed0", 200, {"best_loss": 1.25, "seconds": 1.0}]
END = ["end", "t/a/seed0", {"test_loss": 0.5, "tokens": 210}, False]
#: What reads the numbers back, printed as {step: loss}, test loss and whether a parameter is there.
READERS = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
read = EventAccumulator("tensorboard/t/a/seed0")
read.Reload()
found = [
    {event.step: event.value for event in read.Scalars("best_loss")},
    read.Scalars("end/test_loss")[0].value,
    "_hparams_/session_start_info" in read.Tags()["tensors"],
]
assert len(read.Scalars("best_loss")) == 2
""",
    "mlflow": """
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("my-study")
(run,) = client.search_runs([experiment.experiment_id])
assert (run.info.run_name, run.info.status) == ("t/a/seed0", "FINISHED")
history = client.get_metric_history(run.info.run_id, "best_loss")
assert len(history) == 2
found = [
    {each.step: each.value for each in history},
    run.data.metrics["end.test_loss"],
    run.data.params["options.batch"] == "4",
]
""",
    "trackio": """
from trackio.sqlite_storage import SQLiteStorage
logs = SQLiteStorage.get_logs("my-study", "t/a/seed0")
losses = [(each["step"], each["best_loss"]) for each in logs if "best_loss" in each]
assert len(losses) == 2
found = [
    dict(losses),
    next(each["end/test_loss"] for each in logs if "end/test_loss" in each),
    SQLiteStorage.get_run_config("my-study", "t/a/seed0")["options.batch"] == 4,
]
""",
    # Its file is a log of LevelDB: blocks of 32 KiB, of chunks with checksum, length and kind.
    "wandb": """
import struct
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(path):
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""

losses, summary, config = [], {}, {}
for path in sorted(Path("wandb").glob("offline-run-*/run-*.wandb")):
    for record in records(path):
        config |= {each.key: each.value_json for each in record.run.config.update}
        items = {(each.key or each.nested_key[0]): each.value_json for each in record.history.item}
        if "best_loss" in items:
            losses.append((int(items["_step"]), float(items["best_loss"])))
        for each in record.summary.update:
            summary[each.key or each.nested_key[0]] = each.value_json
assert len(losses) == 2
found = [dict(losses), float(summary["end/test_loss"]), config["options.batch"] == "4"]
""",
}


def python_with(library: str) -> str | None:
    """An interpreter that has a library, and this package; None where there is none."""
    for python in (sys.executable, str(HERE / ".venv-trackers" / "bin" / "python")):
        asked = f"import importlib.util as u; assert u.find_spec({library!r})"
        if os.access(python, os.X_OK) and not subprocess.call(
            [python, "-c", asked], stderr=subprocess.DEVNULL
        ):
            return python
    return None


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_killed_run_that_goes_on_is_logged_once_and_read_back(name: str, tmp_path: Path) -> None:
    python = python_with(name)
    if python is None:
        pytest.skip(f"{name} is not installed: `make trackers` installs it beside")
    here = {
        **os.environ,
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }

    def ask(*asked: str, told: str = "") -> str:
        return subprocess.run(
            [python, *asked],
            input=told,
            env=here,
            cwd=tmp_path,
            text=True,
            check=True,
            capture_output=True,
        ).stdout

    path = json.loads(ask("-c", "import json, sys; print(json.dumps(sys.path))"))

    def call(*lines: list[Any]) -> None:
        order = {"name": name, "study": "my-study", "folder": str(tmp_path), "path": path}
        told = "".join(json.dumps(line) + "\n" for line in (order, *lines))
        assert ask("-m", "promptsearch.trackers.process", told=told) == ""

    call(BEGIN, FIRST)
    call(BEGIN, FIRST, SECOND, END)
    if name != "mlflow":  # which takes seconds to start; all of them share what says so
        call(BEGIN, FIRST, END)
    found = json.loads(ask("-c", READERS[name] + "import json; print(json.dumps(found))"))
    assert found == [{"100": 1.5, "200": 1.25}, 0.5, True]
