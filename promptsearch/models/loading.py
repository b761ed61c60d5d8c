"""How a model of transformers comes to be: from its name, or from itself in another dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.device import pick_device
from promptsearch.models.family import family_of
from promptsearch.models.folder import check_complete, check_files, reason_of
from promptsearch.models.packaged import NAME, is_packaged, packaged_model
from promptsearch.models.tokens import load_tokenizer

_WAYS = (
    "Expected a name on the Hub (with a network), a folder with config.json and safetensors, "
    f"a .gguf file, or '{NAME}', which comes from a Python package."
)


def load_model(name: str, device: str) -> tuple[Any, Any]:
    """A language model of transformers in float32, and its tokenizer.

    Args:
        name: As `LanguageModel.load` takes it.
        device: As `LanguageModel.load` takes it.

    Raises:
        ModelError: One of them cannot be found or loaded, or the device does not exist.
    """
    return _load(name, device, head=True)


def load_body(name: str, device: str) -> tuple[Any, Any]:
    """A model of transformers without a head, in float32, and its tokenizer.

    Args:
        name: As `LanguageModel.load` takes it; encoders are welcome, too.
        device: As `LanguageModel.load` takes it.

    Raises:
        ModelError: One of them cannot be found or loaded, or the device does not exist.
    """
    return _load(name, device, head=False)


def _load(name: str, device: str, *, head: bool) -> tuple[Any, Any]:
    import transformers

    if (name.startswith((".", "/", "~")) or name.endswith(".gguf")) and not Path(name).exists():
        raise ModelError(
            f"cannot load the model '{name}': there is no such file or folder. {_WAYS}"
        )

    def explain(error: BaseException) -> ModelError:
        reason = error if isinstance(error, ModelError) else f"{reason_of(error)} {_WAYS}"
        return ModelError(f"cannot load the model '{name}': {reason}")

    # Left out, the user is asked in the terminal whether to run a repository's code.
    source = {**_source(name), "trust_remote_code": False}
    # Besides GGUF only safetensors are read: other weight files are pickles, which can run code.
    safe: dict[str, Any] = {} if "gguf_file" in source else {"use_safetensors": True}
    with strangers(explain):
        config = check_files(source)
        kind: Any = getattr(transformers, family_of(config).auto if head else "AutoModel")
        model, info = kind.from_pretrained(
            **source, **safe, dtype=torch.float32, output_loading_info=True
        )
        # Nothing is read of a pooler, which models trained on masked words do not have.
        lacking = [key for key in info["missing_keys"] if head or not key.startswith("pooler.")]
        check_complete(model, {"missing_keys": lacking})
    tokenizer = load_tokenizer(name, source)
    return model.to(pick_device(device)), tokenizer


def weights_again(name: str, device: str) -> list[Tensor]:
    """The weights of a model that was loaded before; none where it is not there any more.

    Args:
        name: As for `load_model`.
        device: As for `load_model`.
    """
    try:
        return list(load_model(name, device)[0].parameters())
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


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """A copy of a model of transformers in another dtype.

    Args:
        model: The model, which stays as it is.
        dtype: The dtype of the copy's weights.
    """
    with torch.device("meta"):
        copy = type(model)(model.config)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    copy.tie_weights()
    return _with_buffers(copy, model)


def _with_buffers(copy: Any, source: Any) -> Any:
    """Give a model from the meta device the buffers that its state dict leaves out.

    Rotary frequencies are such buffers.
    """
    for module, original in zip(copy.modules(), source.modules(), strict=True):
        for key, buffer in original.named_buffers(recurse=False):
            if module._buffers[key] is None or module._buffers[key].is_meta:
                module._buffers[key] = buffer
        for key, value in vars(original).items():
            if isinstance(value, Tensor) and isinstance(vars(module).get(key), Tensor):
                setattr(module, key, value)  # plain attributes such as `original_inv_freq`
    return copy
