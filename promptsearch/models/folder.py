"""Checks of a model's files before transformers builds anything from them.

The files may be a stranger's, damaged, or another kind of model. Nothing in them is executed:
weights are safetensors (pickles can run code), and code in the same folder is not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptsearch.errors import ModelError
from promptsearch.plain.json import DEPTH, too_deep

#: The numbers in a configuration that say how much is built, by patterns of their names, with the
#: largest that is accepted: any model has far less.
_MOST = {
    r"(num_.*|n_)layers?": 1_000,
    r"vocab_size|hidden_size|intermediate_size|n_embd|d_model|d_ff|num_.*heads|n_heads?": 10**7,
}
#: The numbers among these that must be at least 1.
_SOME = {
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "vocab_size",
    "hidden_size",
    "n_embd",
    "d_model",
}
_INDEX, _CONFIG, _ADAPTER = "model.safetensors.index.json", "config.json", "adapter_config.json"


def check_files(source: Mapping[str, Any]) -> Any:
    """Refuse what is no model that can be read here.

    Args:
        source: What `from_pretrained` of transformers takes: a folder, a Hub name, or a GGUF file
            in a folder.

    Returns:
        Its configuration, as transformers reads it.

    Raises:
        ModelError: It is something else; the message says what it is, and what to do.
        Exception: Whatever transformers raises where it cannot read the configuration.
    """
    import transformers

    folder = Path(source["pretrained_model_name_or_path"])
    if folder.is_dir() and "gguf_file" not in source:
        _check_folder(folder)
    raw, _ = transformers.PreTrainedConfig.get_config_dict(**source)
    for name, value in _numbers(raw):
        most = next((most for form, most in _MOST.items() if re.fullmatch(form, name)), None)
        least = int(name in _SOME)
        if (
            most is not None
            and value is not None
            and not (type(value) is int and least <= value <= most)
        ):
            raise ModelError(
                f"its configuration gives {name} as {str(value)[:60]!r}: "
                f"expected a whole number from {least} to {most:,}"
            )
    if raw.get("auto_map") and raw.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ModelError(
            "it needs Python code that lies beside it, which is never run here: "
            "take a model that transformers knows"
        )
    return transformers.AutoConfig.from_pretrained(**source)


def reason_of(error: BaseException) -> str:
    """The reason why files cannot be loaded, as transformers gives it, on one line."""
    said = " ".join(str(error).split())
    if "ignore_mismatched_sizes" in said:  # transformers then only refers to a report it printed
        return "its weights have other sizes than its configuration says."
    return said[:400] or type(error).__name__


def check_complete(model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a model whose files lack weights: transformers would draw them at random.

    Args:
        model: The model as it was loaded.
        info: What transformers reports about the loading.

    Raises:
        ModelError: Weights are missing; the message names some.
    """
    if names := sorted(info["missing_keys"]):
        shown = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
        raise ModelError(
            f"its files lack the weights {shown} of a {type(model).__name__}: "
            "they are not complete, or of another kind of model"
        )


def _check_folder(folder: Path) -> None:
    files = {path.name: path for path in folder.iterdir() if not path.is_dir()}
    if odd := sorted(name for name, path in files.items() if not path.is_file()):
        raise ModelError(f"'{odd[0]}' in it is no plain file")
    if _ADAPTER in files:
        raise ModelError(
            "it is an adapter of PEFT, not a model: load it with peft, call merge_and_unload(), "
            "and save what comes out with its tokenizer, then name that folder. Prompts that "
            "promptsearch exported in this format are used with `promptsearch apply`"
        )
    if _CONFIG not in files:
        raise ModelError(f"there is no {_CONFIG} in it")
    configured = (name for name in files if name.endswith(".json") and name != "tokenizer.json")
    for name in sorted(configured):
        if too_deep(files[name].read_bytes()):  # transformers reads them
            raise ModelError(f"its {name} is damaged: nested deeper than {DEPTH} levels")
    if _INDEX in files:
        _check_index(files[_INDEX], files)
    elif not any(name.endswith(".safetensors") for name in files):
        pickles = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        if not pickles:
            raise ModelError("there are no weights in it, no file that ends in .safetensors")
        raise ModelError(
            f"its weights are a pickle ({pickles[0]}), which can run code and is not read: save "
            "the model as safetensors, with `model.save_pretrained(FOLDER)` of transformers, "
            "where you trust it"
        )


def _check_index(index: Path, there: Mapping[str, Path]) -> None:
    try:
        named = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        missing = [str(name) for name in named if name not in there]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"its {index.name} is damaged: {error!r}") from error
    if missing:
        raise ModelError(
            f"its {index.name} names {len(missing)} files that are not in it, "
            f"{missing[0]} for instance"
        )


def _numbers(config: Any) -> Iterator[tuple[str, Any]]:
    """The names and values in a configuration, and in the configurations within it."""
    if not isinstance(config, Mapping):
        raise ModelError(
            f"its configuration is a {type(config).__name__}: expected names and values"
        )
    waiting: list[Mapping[str, Any]] = [config]
    while waiting:
        for name, value in waiting.pop().items():
            if isinstance(value, Mapping):
                waiting.append(value)
            # A list is passed over: it holds something for each layer.
            elif not isinstance(value, Sequence) or isinstance(value, str):
                yield name, value
