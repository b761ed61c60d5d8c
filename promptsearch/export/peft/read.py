"""Prompts read from PEFT's folders, whoever wrote them.

PROMPT_TUNING and P_TUNING give vectors, PREFIX_TUNING and CARTRIDGE a prefix, ADAPTION_PROMPT a
gated prompt, and LORA, IA3, LN_TUNING and BEFT weights. PEFT stores what its encoders put out,
never the encoders, so the prompt is complete. It belongs in front of the whole row, or beside it (a
gated prompt, which layers read apart from the row's tokens): vectors go with a template whose one
slot comes first, other kinds with the template that `Template.taking` makes for the kind.

Where the tokenizer begins texts with special tokens, PEFT puts vectors in front of these, and a
slot stands behind them. What a causal model computes from the vectors is a prefix, which stands in
front, too. Vectors that the export wrote begin with these tokens themselves.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.export.certificate import CERTIFICATE
from promptsearch.export.peft.adaption import read_adaption
from promptsearch.export.peft.config import (
    CONFIG,
    AdaptionConfig,
    VectorsConfig,
    WeightsConfig,
    read_config,
)
from promptsearch.export.peft.weights import read_weights
from promptsearch.export.schema import read_object
from promptsearch.models import LanguageModel
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.tensors import read_tensors
from promptsearch.prompts.weights import Weights
from promptsearch.scoring.forward import keys_values

#: The file where PEFT keeps the numbers, and the tensor's name in it.
WEIGHTS, TENSOR = "adapter_model.safetensors", "prompt_embeddings"


def read_peft(
    folder: Path | str, lm: LanguageModel
) -> SoftPrompt | PrefixPrompt | GatedPrompt | Weights:
    """The prompt in a PEFT folder, as it stands before rows here.

    Args:
        folder: A folder with `adapter_config.json` and `adapter_model.safetensors`.
        lm: The model that it is for.

    Returns:
        The prompt. Where the tokenizer begins texts with special tokens, vectors of others come as
        the prefix that a causal model makes of them.

    Raises:
        PromptError: The folder is no PEFT folder, is damaged or holds a pickle, is of another type,
            or is for a model of another size; or no prompt here stands where its own does.
        ModelError: Vectors are to become a prefix, and the model takes none.
    """
    folder = Path(folder)
    prompt = read_held(folder, lm)
    if lm.lead and isinstance(prompt, SoftPrompt):
        return _around_lead(prompt.vectors, folder, lm.to(torch.float32))
    if lm.lead and _is_own_cartridge(folder):
        raise PromptError(
            f"{folder} holds all that stands before the input, and {_lead_of(lm)} would stand "
            "behind it here: read the run that it was exported from with `load_prompt`"
        )
    return prompt


def _around_lead(rows: Tensor, folder: Path, lm: LanguageModel) -> SoftPrompt | PrefixPrompt:
    """Vectors in front of a whole row, as a prompt of a row that begins with special tokens.

    Raises:
        PromptError: Vectors of others are for a model in which they make no prefix.
        ModelError: The model takes no prefix.
    """
    lead = lm.passes.embed(torch.tensor(lm.lead, device=lm.device)).float().cpu()
    if torch.equal(rows[: len(lead)], lead):  # the export's own, see `write.front_rows`
        return SoftPrompt(rows[len(lead) :])
    if not lm.family.keeps:
        raise PromptError(
            f"{folder} has virtual tokens that stand before {_lead_of(lm)}, and in '{lm.name}', "
            f"{lm.family.noun}, no prompt of vectors does: train it here"
        )
    shape = lm.prefix_shape
    path = tuple(range(-1, -1 - len(rows), -1))
    (made,) = keys_values(lm, [path], rows, len(rows))
    return PrefixPrompt(made.on("cpu").float().unflatten(1, shape))


def _is_own_cartridge(folder: Path) -> bool:
    """Whether a folder is an export to CARTRIDGE, whose numbers take the special tokens in."""
    certificate = folder / CERTIFICATE
    return certificate.is_file() and read_object(certificate).get("export") == "cartridge"


def _lead_of(lm: LanguageModel) -> str:
    """The special tokens before every text, for messages."""
    return " ".join(map(repr, lm.tokenizer.convert_ids_to_tokens(list(lm.lead))))


def read_held(folder: Path, lm: LanguageModel) -> SoftPrompt | PrefixPrompt | GatedPrompt | Weights:
    """The prompt in a PEFT folder as PEFT holds it: in front of the special tokens of a row.

    Args:
        folder: As for `read_peft`.
        lm: The model that it is for.

    Raises:
        PromptError: The folder is no PEFT folder, is damaged or holds a pickle, is of another type,
            or is for a model of another size.
    """
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise PromptError(
            f"{folder} holds a pickle, adapter_model.bin, which could run code: let peft save it "
            "as safetensors"
        )
    try:
        data, tensors = read_object(folder / CONFIG), read_tensors(folder / WEIGHTS)
    except PromptError as error:
        raise PromptError(
            f"{folder} is no PEFT folder of a prompt, or is damaged: {error}"
        ) from error
    config = read_config(data, folder)
    if isinstance(config, WeightsConfig):
        return read_weights(folder, tensors, config, lm)
    if isinstance(config, AdaptionConfig):
        return read_adaption(folder, config, tensors, lm)
    if set(tensors) != {TENSOR}:
        raise PromptError(
            f"{folder / WEIGHTS} is damaged: expected the tensor '{TENSOR}', found "
            f"{str(sorted(tensors))[:200]}"
        )
    rows, vectors, layers = tensors[TENSOR], isinstance(config, VectorsConfig), config.num_layers
    count = config.num_virtual_tokens
    if (both := config.num_transformer_submodules == 2) and not lm.family.encodes:
        raise PromptError(
            f"{folder} is for a model of encoder and decoder; '{lm.name}' is {lm.family.noun}"
        )
    if both and vectors and len(rows) == 2 * count:
        rows = rows[:count]  # PEFT keeps as many for the decoder, and puts them nowhere
    if rows.ndim != 2 or count != len(rows):
        raise PromptError(
            f"{folder} holds numbers of shape {tuple(rows.shape)} for {count} virtual tokens: it "
            "is damaged"
        )
    if lm.context is not None and count >= lm.context:
        raise PromptError(
            f"{folder} has {count} virtual tokens, but '{lm.name}' reads at most {lm.context} with "
            "the input"
        )
    # Of an encoder-decoder model, PEFT gives a prefix to the decoder's attention to itself.
    shape = (
        tuple(lm.embeddings.shape[1:])
        if vectors
        else (len(lm.passes.heads) // 2, *lm.prefix_shape[1:])
    )
    if not vectors and layers not in (None, shape[0]):
        raise PromptError(f"{folder} is for a model of {layers} layers; '{lm.name}' has {shape[0]}")
    if rows.shape[1] != math.prod(shape):
        expected = " x ".join(map(str, shape))
        raise PromptError(
            f"{folder} has {rows.shape[1]} numbers a token; '{lm.name}' takes {expected} = "
            f"{math.prod(shape)}"
        )
    if vectors:
        return SoftPrompt(rows)
    keys_values = rows.unflatten(1, shape)
    return PrefixPrompt(keys_values[:, decoder_order(shape[0])] if both else keys_values)


def decoder_order(layers: int) -> list[int]:
    """The layer of a PEFT folder whose keys and values each layer of a decoder gets.

    PEFT deals them out as if those of cross-attention stood among them: to each layer those of two,
    of which the second are put nowhere; where they come to an end, they begin again. Layer `l` thus
    gets what the file has for layer `2 l` (modulo their number).

    Args:
        layers: The number of the decoder's layers.
    """
    return [2 * layer % layers for layer in range(layers)]
