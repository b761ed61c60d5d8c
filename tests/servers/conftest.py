"""Real servers, started on this machine for the tests marked `server`; `make servers` runs them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from promptsearch import LanguageModel
from promptsearch.models.packaged import packaged_model

ROOT = Path(__file__).parents[2]
#: An environment for each server, and the GGUF file, as `make servers` leaves them.
INSTALLED = ROOT / ".venv-servers"
NAME = "smollm2"
#: How long a server may take to start, in seconds.
LONGEST = 240
#: Servers leave the other core to the tests, and never ask a hub for anything.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
}


class Started(NamedTuple):
    """A server that answers: what it is and where, what it calls the model, and its Python."""

    name: str
    url: str
    model: str
    python: Path


@pytest.fixture(scope="session")
def here():
    """The model that both servers serve, loaded here."""
    return LanguageModel.load("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def folder():
    return str(packaged_model())


@pytest.fixture(scope="session")
def vllm(tmp_path_factory, folder):
    command = [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", folder),
        *("--served-model-name", NAME, "--dtype", "float32", "--max-model-len", "1024"),
        *("--max-num-seqs", "16", "--enforce-eager", "--enable-prompt-embeds"),
    ]
    with started("vllm", command, tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    (file,) = (INSTALLED / "model").rglob("*.gguf")
    command = [
        *("-m", "llama_cpp.server", "--model", str(file), "--model_alias", NAME),
        *("--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "1024"),
        *("--verbose", "false"),
    ]
    with started("llama", command, tmp_path_factory.mktemp("llama")) as server:
        yield server


@contextmanager
def started(name, command, folder):
    """Run a server on a free port of the loopback interface until the tests are over."""
    python = INSTALLED / name / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{python} is missing: `make servers` installs the servers, and runs these")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}/v1", folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["nice", "-n", "10", python, *command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
            env={**os.environ, **QUIET},
            start_new_session=True,
        )
    try:
        for _ in range(LONGEST):
            if answers(url):
                break
            assert process.poll() is None, log.read_text()[-4000:]
            time.sleep(1)
        else:
            pytest.fail(f"{name} did not start: {log.read_text()[-4000:]}")
        yield Started(name, url, NAME, python)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as found:
            return bool(json.load(found)["data"])
    except OSError:
        return False


@pytest.fixture(scope="session")
def found():
    """What was found, for `results/servers`: rows of a table, written when all tests are over."""
    rows: dict[str, dict[str, str]] = {}
    yield lambda server, what, value: rows.setdefault(what, {}).update({server: str(value)})
    if (out := os.environ.get("PROMPTSEARCH_SERVERS_OUT")) and rows:
        lines = ["| what | vLLM | llama.cpp |", "|---|---|---|"]
        lines += [
            f"| {what} | {row.get('vllm', '')} | {row.get('llama', '')} |"
            for what, row in rows.items()
        ]
        Path(out).write_text("\n".join(lines) + "\n")
