"""The values of `adapter_config.json` in a folder of PEFT's, whoever wrote it.

PEFT reads names of modules as patterns, and a pattern in a stranger's file may take for ever to
match; here a name is only a name. A prompt is read from the tensors and from few options. Whatever
else a stranger's file holds is passed over, except for options that change what the tensors mean:
these are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from promptsearch.errors import PromptError
from promptsearch.export.schema import Count, Number, Text, Values, checked

CONFIG = "adapter_config.json"
#: A module's name, or the end of one.
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=300)]
Positive = Annotated[int, Field(ge=1, le=1 << 20)]


class PeftConfig(Values):
    """The options that every type has, as the export writes them."""

    #: Options that can change what tensors mean, each with the values that leave it unchanged.
    plain: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "auto_mapping": (None,),
        "modules_to_save": (None, []),
    }

    task_type: Literal["CAUSAL_LM", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"] | None = None
    base_model_name_or_path: Text | None = None
    revision: Text | None = None
    inference_mode: bool = True
    peft_version: Text | None = None


class VectorsConfig(PeftConfig):
    """Virtual tokens that are vectors."""

    peft_type: Literal["PROMPT_TUNING", "P_TUNING"]
    num_virtual_tokens: Positive
    token_dim: Count | None = None
    num_attention_heads: Count | None = None
    num_layers: Count | None = None
    #: 2 for a model of encoder and decoder.
    num_transformer_submodules: Literal[1, 2] | None = None
    prompt_tuning_init: Text | None = None
    prompt_tuning_init_text: Text | None = None
    tokenizer_name_or_path: Text | None = None
    tokenizer_kwargs: dict[str, Any] | None = None


class PrefixConfig(PeftConfig):
    """Virtual tokens that are keys and values."""

    peft_type: Literal["PREFIX_TUNING"]
    num_virtual_tokens: Positive
    token_dim: Count | None = None
    num_attention_heads: Count | None = None
    num_layers: Count | None = None
    #: 2 for a model of encoder and decoder.
    num_transformer_submodules: Literal[1, 2] | None = None
    encoder_hidden_size: Count | None = None
    prefix_projection: bool = False


class CartridgeConfig(PeftConfig):
    """Keys and values, the first of which training leaves alone."""

    peft_type: Literal["CARTRIDGE"]
    num_virtual_tokens: Positive
    token_dim: Count | None = None
    num_attention_heads: Count | None = None
    num_layers: Count | None = None
    num_transformer_submodules: Literal[1] | None = None
    num_frozen_tokens: Count = 1


class AdaptionConfig(PeftConfig):
    """Vectors beside the text, with gates."""

    peft_type: Literal["ADAPTION_PROMPT"]
    adapter_len: Positive
    adapter_layers: Positive
    target_modules: Module | list[Module] | None = None


class WeightsConfig(PeftConfig):
    """Changed or added weights."""

    peft_type: Any
    #: May be anything in a stranger's file: the tensors' names say where they belong.
    target_modules: Any = None


class LoraConfig(WeightsConfig):
    """Low-rank weights."""

    plain: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **WeightsConfig.plain,
        "use_dora": (None, False),
        "bias": (None, "none"),
        "rank_pattern": (None, {}),
        "alpha_pattern": (None, {}),
        "lora_bias": (None, False),
        "layer_replication": (None,),
        "trainable_token_indices": (None,),
        "use_bdlora": (None,),
        # By the others, PEFT changes the model's own weights, when it loads them once more.
        "init_lora_weights": (None, False, "gaussian", "orthogonal", "eva", "mica", True),
        "alora_invocation_tokens": (None, []),
        "arrow_config": (None,),
        "monteclora_config": (None,),
        "velora_config": (None,),
        "megatron_config": (None,),  # with it, PEFT imports the module that `megatron_core` names
    }

    peft_type: Literal["LORA"]
    r: Positive
    lora_alpha: Number
    use_rslora: bool | None = None
    bias: Text | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fan_in_fan_out: bool = False


class IA3Config(WeightsConfig):
    """Scales of what comes out of linear maps, or goes in: the tensors' shapes say which."""

    peft_type: Literal["IA3"]
    feedforward_modules: Any = None
    fan_in_fan_out: bool = False
    init_ia3_weights: bool = True


class LNTuningConfig(WeightsConfig):
    """Norms."""

    peft_type: Literal["LN_TUNING"]


class BeftConfig(WeightsConfig):
    """Biases of linear maps."""

    peft_type: Literal["BEFT"]
    init_weights: bool = True


Config = VectorsConfig | PrefixConfig | CartridgeConfig | AdaptionConfig | WeightsConfig
_TYPES: dict[
    str,
    type[VectorsConfig]
    | type[PrefixConfig]
    | type[CartridgeConfig]
    | type[AdaptionConfig]
    | type[WeightsConfig],
] = {
    "PROMPT_TUNING": VectorsConfig,
    "P_TUNING": VectorsConfig,
    "PREFIX_TUNING": PrefixConfig,
    "CARTRIDGE": CartridgeConfig,
    "ADAPTION_PROMPT": AdaptionConfig,
    "IA3": IA3Config,
    "LN_TUNING": LNTuningConfig,
    "BEFT": BeftConfig,
    "LORA": LoraConfig,
}


def read_config(data: Mapping[str, Any], folder: Path) -> Config:
    """The options of a PEFT folder.

    Args:
        data: The content of its `adapter_config.json`.
        folder: The folder, for messages.

    Raises:
        PromptError: The folder is of another type, or an option has a value that it cannot have or
            that changes what the tensors mean.
    """
    kind = data.get("peft_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise PromptError(
            f"{folder} is of the type {str(kind)[:80]}; expected {', '.join(list(_TYPES)[:-1])} or "
            "LORA"
        )
    config = checked(_TYPES[kind], data, folder / CONFIG)
    for option, plain in config.plain.items():
        if (value := data.get(option)) not in plain:
            raise PromptError(
                f"{folder} has {option} = {str(value)[:80]}, which is not known here: expected "
                f"{plain[-1]!r}, or none at all"
            )
    return config
