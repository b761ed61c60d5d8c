"""Models whose layers keep their weights in 8 or 4 bits: only the weights, never what they meet.

The linear maps of the layers are rounded once, when the model is loaded; embeddings, norms and the
head stay as they are. Each map then computes with its weights brought back to the dtype of its
input, so losses are computed in float32 like those of other models, and an example's loss does not
depend on what is beside it. Schemes that round the states, too, do not keep that: LLM.int8() of
bitsandbytes takes outliers together from all rows of a pass, and moved the loss of a row by 2 nats.

* `int8`: a scale a row (torchao).
* `nf4`: 4 bits for a normal distribution, a scale for 64 weights (bitsandbytes; Dettmers et al.
  2023, "QLoRA", arXiv:2305.14314, section 3; its double quantisation is left out).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from promptsearch.errors import ModelError
from promptsearch.models.device_map import apart
from promptsearch.models.scheme import MARK, SCHEMES


def quantisation(scheme: str) -> Any:
    """What `from_pretrained` of transformers takes as `quantization_config`.

    Args:
        scheme: One of `SCHEMES`.

    Raises:
        ModelError: The package that computes it is not installed.
    """
    import transformers

    try:
        if scheme == "int8":
            from torchao.quantization import Int8WeightOnlyConfig

            return transformers.TorchAoConfig(Int8WeightOnlyConfig())
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"to keep weights in {scheme} needs the package {SCHEMES[scheme]}: "
            "pip install 'promptsearch-kit[quantised]'"
        ) from error
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )


def is_quantised(weight: Any) -> bool:
    """Whether a weight is kept in fewer bits: a tensor of torchao, or one of bitsandbytes."""
    return hasattr(weight, "__tensor_flatten__") or hasattr(weight, "quant_state")


def scheme_of(model: Any) -> str:
    """The scheme in which a model of transformers keeps its weights; empty where it keeps them all.

    Args:
        model: The model, whoever loaded it.

    Raises:
        ModelError: It is quantised in a way in which its losses cannot be relied on, or that is not
            known here.
    """
    method = getattr(model, "quantization_method", None)
    method = str(getattr(method, "value", method))
    found = {_scheme(weight) for weight in model.parameters() if is_quantised(weight)}
    if found and found <= set(SCHEMES):
        _check_blocks(model)
        return found.pop()
    maps = [m for m in model.modules() if hasattr(m, "in_features")]
    plain = all(type(m) is nn.Linear and m.weight.is_floating_point() for m in maps)
    # A model that was unpacked as it was loaded still calls itself quantised.
    if not found and (method in ("None", "gguf") or plain):
        return ""
    raise ModelError(
        f"its weights are quantised by {', '.join(sorted(found)) or method}, which is not known to "
        "give a row the same loss whatever is beside it: load the model with its full weights, and "
        f"name it NAME{MARK}int8 or NAME{MARK}nf4"
    )


def _check_blocks(model: Any) -> None:
    """Refuse maps for which bitsandbytes 0.50.2 takes the scales of other blocks on a CPU.

    There its code for AVX-512 supposes that a row of a matrix is made of whole blocks.
    """
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is None or module.weight.device.type != "cpu":
            continue
        if state.shape[-1] % state.blocksize:
            raise ModelError(
                f"its map {name} reads {state.shape[-1]} numbers, which are no multiple of "
                f"{state.blocksize}: bitsandbytes computes such maps wrongly on a CPU. Take int8, "
                "or a GPU"
            )


def _scheme(weight: Any) -> str:
    """The scheme of a quantised weight, or what to call it where it is none of `SCHEMES`."""
    if (state := getattr(weight, "quant_state", None)) is not None:
        return str(state.quant_type)
    rounds = getattr(weight, "act_quant_kwargs", None) or getattr(weight, "act_quant_scale", None)
    named = type(weight).__name__
    return "int8" if named == "Int8Tensor" and rounds is None else named


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Let the maps of bitsandbytes compute in a dtype; torchao's do so by themselves.

    By itself bitsandbytes packs the weights anew on some CPUs at the first pass, and computes in
    bfloat16 from then on.

    Args:
        model: The model, which is changed.
        dtype: The dtype of the states.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype, module.compute_type_is_set = dtype, True


def stored(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All that a model's weights are made of, by name: of most weights, themselves.

    Args:
        model: A model of transformers.
    """
    for name, weight in model.named_parameters():
        yield from _parts(name, weight)


def _parts(name: str, weight: Any) -> Iterator[tuple[str, Tensor]]:
    if not is_quantised(weight):
        yield name, weight
    elif hasattr(weight, "quant_state"):
        yield name, weight.detach().as_subclass(Tensor)  # it counts writes with the weight
        state = weight.quant_state
        for own in (state, state.state2):
            if own is not None:
                yield f"{name}.{'absmax' if own is state else 'absmax2'}", own.absmax
        if state.offset is not None:
            yield f"{name}.offset", state.offset
    else:
        for part in weight.__tensor_flatten__()[0]:
            yield f"{name}.{part}", getattr(weight, part)


def count(weight: Any) -> int:
    """The number of numbers that a weight stands for."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else int(torch.Size(state.shape).numel())


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """A copy of a model of transformers in another dtype, which shares the quantised weights.

    Args:
        model: The model, which stays as it is.
        dtype: The dtype of all other weights, and of the states.
    """
    # What is in here by its id is taken instead of a copy.
    known: dict[int, Any] = {}
    for module in model.modules():
        if (config := getattr(module, "config", None)) is not None:
            known[id(config)] = config
        for weight in module._parameters.values():
            if weight is not None:
                known[id(weight)] = weight if is_quantised(weight) else _cast(weight, dtype)
        for name, buffer in module._buffers.items():
            # Rotary frequencies, for example, are none of a model's weights, and stay exact.
            if buffer is not None:
                lasting = name not in module._non_persistent_buffers_set
                known[id(buffer)] = _cast(buffer, dtype) if lasting else buffer
    made = copy.deepcopy(model, known)
    apart(made)
    compute_in(made, dtype)
    return made


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.detach().to(dtype)
    return nn.Parameter(cast, requires_grad=False) if isinstance(tensor, nn.Parameter) else cast
