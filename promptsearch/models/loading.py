"""How a model of transformers comes to be, from its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.device import pick_device
from promptsearch.models.device_map import check_cards, check_whole
from promptsearch.models.family import family_of
from promptsearch.models.folder import check_complete, check_files, reason_of
from promptsearch.models.packaged import NAME, is_packaged, packaged_model
from promptsearch.models.quantised import quantisation, scheme_of, stored
from promptsearch.models.scheme import split_name
from promptsearch.models.tokens import load_tokenizer

_WAYS = (
    "Expected a name on the Hub (with a network), a folder with config.json and safetensors, "
    f"a .gguf file, or '{NAME}', which comes from a Python package."
)


def load_model(name: str, device: str, device_map: str | None = None) -> tuple[Any, Any]:
    """A language model of transformers in float32, and its tokenizer.

    Args:
        name: As `LanguageModel.load` takes it.
        device: As `LanguageModel.load` takes it.
        device_map: As `LanguageModel.load` takes it.

    Raises:
        ModelError: One of them cannot be found or loaded, or the device does not exist.
    """
    return _load(name, device, device_map, head=True)


def load_body(name: str, device: str) -> tuple[Any, Any]:
    """A model of transformers without a head, in float32, and its tokenizer.

    Args:
        name: As `LanguageModel.load` takes it; encoders are welcome, too.
        device: As `LanguageModel.load` takes it.

    Raises:
        ModelError: One of them cannot be found or loaded, or the device does not exist.
    """
    return _load(name, device, None, head=False)


def _load(name: str, device: str, device_map: str | None, *, head: bool) -> tuple[Any, Any]:
    import transformers

    name, scheme = split_name(os.path.expanduser(name))
    if (name.startswith((".", "/", "~")) or name.endswith(".gguf")) and not Path(name).exists():
        raise ModelError(
            f"cannot load the model '{name}': there is no such file or folder. {_WAYS}"
        )

    def explain(error: BaseException) -> ModelError:
        reason = error if isinstance(error, ModelError) else f"{reason_of(error)} {_WAYS}"
        return ModelError(f"cannot load the model '{name}': {reason}")

    if device_map is not None:
        check_cards(device_map, device, scheme)
    where = pick_device(device)
    # Left out, the user is asked in the terminal whether to run a repository's code.
    source = {**_source(name), "trust_remote_code": False}
    # Besides GGUF only safetensors are read: other weight files are pickles, which can run code.
    safe: dict[str, Any] = {} if "gguf_file" in source else {"use_safetensors": True}
    if scheme:
        if "gguf_file" in source:
            raise explain(ModelError(f"a .gguf file is unpacked, and not kept in {scheme}"))
        rounding = quantisation(scheme)
        safe["device_map"] = {"": where}  # they are rounded where they will lie
    elif device_map is not None:
        safe["device_map"] = device_map
    with strangers(explain), _fitting(name, where):
        config = check_files(source)
        if scheme and getattr(config, "quantization_config", None) is None:
            safe["quantization_config"] = rounding  # else they were rounded before they were saved
        kind: Any = getattr(transformers, family_of(config).auto if head else "AutoModel")
        model, info = kind.from_pretrained(
            **source, **safe, dtype=torch.float32, output_loading_info=True
        )
        # Nothing is read of a pooler, which models trained on masked words do not have.
        lacking = [key for key in info["missing_keys"] if head or not key.startswith("pooler.")]
        check_complete(model, {"missing_keys": lacking})
        if device_map is not None:
            check_whole(model)
        elif not scheme:
            model.to(where)
        elif (kept := scheme_of(model)) != scheme:
            raise ModelError(f"its weights were saved in {kept or 'full'}, and not in {scheme}")
    return model, load_tokenizer(name, source)


@contextmanager
def _fitting(name: str, device: torch.device) -> Iterator[None]:
    """A context in which a model is put on a device, which may have too little memory for it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"it does not fit into the memory of '{device}': take {name}:quantise=int8 or "
            f"{name}:quantise=nf4, which keep weights in 8 or 4 bits, device_map 'auto', which "
            "spreads it over several GPUs, a smaller model, or one behind a server"
        ) from error


def weights_again(name: str, device: str, device_map: str | None = None) -> list[Tensor]:
    """What the weights of a model are made of that was loaded before; none where it is gone.

    Args:
        name: As for `load_model`.
        device: As for `load_model`.
        device_map: As for `load_model`.
    """
    try:
        return [part for _, part in stored(load_model(name, device, device_map)[0])]
    except ModelError:
        return []


def _source(name: str) -> dict[str, Any]:
    """What `from_pretrained` of transformers takes for a name."""
    if is_packaged(name):
        return {"pretrained_model_name_or_path": str(packaged_model(name))}
    if name.endswith(".gguf"):
        path = Path(name)
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": name}
