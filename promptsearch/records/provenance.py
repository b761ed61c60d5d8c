"""How a result was made: commit, versions and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_PACKAGES = ("torch", "transformers", "optuna", "nevergrad", "numpy", "scipy", "tokenizers")


def own_version() -> str:
    """The version of this library."""
    try:
        return version("promptsearch-kit")
    except PackageNotFoundError:
        return "0+unknown"


def commit() -> str | None:
    """The commit that this library was installed from; None where that was no repository."""
    try:
        told = json.loads(distribution("promptsearch-kit").read_text("direct_url.json") or "{}")
        if "vcs_info" in told:
            return str(told["vcs_info"]["commit_id"])
        if not told.get("dir_info", {}).get("editable"):
            return None
        folder = url2pathname(urlsplit(told["url"]).path)
        asked = ["git", "-C", folder, "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (PackageNotFoundError, ValueError, KeyError, OSError, subprocess.SubprocessError):
        return None


def code() -> str:
    """The hash of this library's code, that of its strategies included: 12 hexadecimal digits."""
    return code_of("promptsearch", "promptsearch.strategies")


@cache
def code_of(*packages: str) -> str:
    """The hash of the code of some packages, with all below them: 12 hexadecimal digits."""
    digest = sha256()
    for package in packages:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                text = path.read_bytes()
                digest.update(f"{path.relative_to(folder)} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Python and the packages whose changes may move results, and the hash of our own code."""
    return {
        "python": platform.python_version(),
        "promptsearch": own_version(),
        "code": code(),
        **installed(),
    }


@cache
def installed() -> dict[str, str]:
    """The versions of other packages; the files that hold them are long."""
    return {name: version(name) for name in _PACKAGES}


def machine() -> dict[str, Any]:
    """What matters of this machine for times and for the last digits of scores."""
    import torch  # not above: who reads a finished study does not wait for it

    found = {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": None,
    }
    if torch.cuda.is_initialized():  # else nothing was computed there, and asking sets it up
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


@cache
def cpu() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
