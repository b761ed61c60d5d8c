"""PEFT folders: the prompts and weights that PEFT can hold.

A prefix becomes PREFIX_TUNING, a gated prompt ADAPTION_PROMPT (see `adaption.py`), weights become
one of the types in `weights.py`, and any other prompt that stands in front of the input
PROMPT_TUNING.

PEFT puts its virtual tokens before the whole text, so only such prompts can be held exactly.
Format: `prompt_embeddings` in `adapter_model.safetensors`, one row a virtual token.

A row of PROMPT_TUNING is a vector, shape `(virtual tokens, width)`. All that stands before the
input is folded in: anchors, hard and text prompts as the rows of their embeddings, and the special
tokens that the tokenizer puts first, so that inputs are encoded without these. A row of
PREFIX_TUNING is that of a `PrefixPrompt`, flattened: layer by layer, first the keys as they enter
the attention at the positions 0, 1, ..., then the values; special tokens follow below it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import ExportError, PromptError
from promptsearch.export.certificate import (
    Certificate,
    check_all_layers,
    check_held,
    check_in_front,
    told_last,
)
from promptsearch.export.peft.adaption import adaption_files
from promptsearch.export.peft.config import CONFIG
from promptsearch.export.peft.read import TENSOR, WEIGHTS, decoder_order, read_held
from promptsearch.export.peft.weights import weights_files
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.schema import read_object
from promptsearch.files import write_aside, write_json
from promptsearch.importing import strangers
from promptsearch.models import LanguageModel
from promptsearch.models.scheme import split_name
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.scoring.layout import Tokens, lay_out_input
from promptsearch.scoring.ready import embedded
from promptsearch.tasks.task import Example

#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
from peft import PeftModel

model = PeftModel.from_pretrained(model, ".").eval()  # this folder
"""


def write_peft(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        saved: A prefix, a gated prompt with one gate a layer, weights that PEFT has a type for, or
            any prompt whose slots stand in front of the input.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: peft is not installed, or the prompt cannot be held exactly (with the reason).
    """
    package = peft_of()
    # What stands in slots is folded with all that stands before the input.
    apart = saved.template.apart
    tensors, config = _held(saved.prompt if apart else SoftPrompt(front_rows(saved, lm)), lm)
    if not hasattr(package.PeftType, config["peft_type"]):
        raise ExportError(f"this peft has no {config['peft_type']} yet: pip install -U peft")
    write_aside(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, config)


def _held(prompt: Prompt, lm: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the configuration of a prompt as PEFT holds it.

    Raises:
        ExportError: The prompt cannot be held exactly (with the reason).
    """
    if type(prompt) not in _HOLDERS:
        raise ExportError(f"PEFT has no form for {prompt.noun}: export it as json")
    tensors, special = _HOLDERS[type(prompt)](prompt, lm)
    if TENSOR in tensors:
        special |= {"num_virtual_tokens": len(tensors[TENSOR])}
    return tensors, special | common(lm)


def common(lm: LanguageModel) -> dict[str, Any]:
    """What a configuration of any type says of a prompt's model."""
    task = "SEQ_2_SEQ_LM" if lm.family.encodes else "CAUSAL_LM"
    return {
        "task_type": "FEATURE_EXTRACTION" if lm.family.middle else task,
        "base_model_name_or_path": split_name(lm.name)[0],
        "revision": None,
        "inference_mode": True,
        "auto_mapping": None,
        "peft_version": peft_of().__version__,
    }


def check_own(own: Mapping[str, Any], folder: Path) -> None:
    """Refuse a configuration that differs from what the export writes.

    PEFT could do anything for such a configuration.

    Args:
        own: What the export writes.
        folder: The folder.

    Raises:
        PromptError: An option differs; the message names it.
    """
    given = read_object(folder / CONFIG)
    for option in {**own, **given}:
        if option not in _FREE and (
            option not in own or option not in given or given[option] != own[option]
        ):
            written = (
                f"export writes {own[option]!r}" if option in own else "export does not write it"
            )
            raise PromptError(
                f"{folder / CONFIG} has {option[:80]!r} = {str(given.get(option))[:80]!r}, and "
                f"{written}: the prompt was found for something else, or the file was changed. "
                "`read_peft` reads what others wrote"
            )


#: Options that do not matter for what is computed.
_FREE = ("base_model_name_or_path", "revision", "peft_version")


def score_peft(certificate: Certificate, lm: LanguageModel, folder: Path) -> list[float]:
    """The probe's losses through peft's own forward pass, in nats, shape `(probe,)`.

    Raises:
        PromptError: The folder is damaged, or is for a model of another size.
        ExportError: peft is not installed.
    """
    peft_of()
    prompt = read_held(folder, lm)  # its errors say what is wrong with the folder; peft's do not
    check_own(_held(prompt, lm)[1], folder)
    # For weights and ADAPTION_PROMPT, peft puts modules of its own into the model.
    inside = prompt.parts.gated is not None or prompt.parts.weights is not None
    model = loaded_by_peft(copy.deepcopy(lm.model) if inside else lm.model, folder)

    def logits(example: Example, answer: Tokens) -> Tensor:
        # peft returns logits for the virtual tokens of PROMPT_TUNING too, so rows are counted from
        # the end.
        row = lay_out_input(certificate.template, lm, example.fields)
        if row.start:
            begun = [*row.start, *answer[:-1]]
            return logits_of(model, row.segments[-1], lm, begun)[-len(answer) :]
        if row.mask is None:
            ids = [*row.segments[-1], *answer]
            return told_last(logits_of(model, ids, lm), answer)
        below = replace(row, segments=((), row.segments[-1]))  # the rest are virtual tokens
        (read,) = below.read(((),), answer)
        found = logits_of(model, read.ids, lm)[-len(read.ids) :]
        return found[read.at : read.at + len(answer)]

    return certificate.losses_by(lm, logits)


def loaded_by_peft(base: Any, folder: Path) -> Any:
    """A model of transformers with what a folder holds, as peft loads it.

    Raises:
        ExportError: peft is not installed, or cannot load it.
    """
    package = peft_of()
    with strangers(_failed), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # between peft and transformers; a user can do nothing about it
        # Of LN_TUNING on norms whose sizes peft cannot read, and of BEFT on maps without a bias.
        warnings.filterwarnings("ignore", "Unsupported layer type|Detected that the base layer")
        return package.PeftModel.from_pretrained(base, str(folder)).eval()


def logits_of(
    model: Any, ids: Sequence[int], lm: LanguageModel, begun: Sequence[int] | None = None
) -> Tensor:
    """The logits of a row, by a model of peft; of the decoder's row `begun` where there is one.

    Their shape is `(tokens, vocabulary)`.

    Raises:
        ExportError: peft cannot run the model.
    """
    inputs = {"input_ids": torch.tensor([list(ids)], device=lm.device)}
    if begun is not None:
        inputs["decoder_input_ids"] = torch.tensor([list(begun)], device=lm.device)
    with strangers(_failed):
        found: Tensor = model(**inputs).logits[0]
    return found


def _failed(error: BaseException) -> ExportError:
    """What is said of an error in peft."""
    return ExportError(
        f"PEFT fails with this model ({type(error).__name__}: {str(error)[:200]}): export the "
        "prompt as json"
    )


def front_rows(saved: SavedPrompt, lm: LanguageModel) -> Tensor:
    """All that stands before the input, as embedding rows, float32, shape `(tokens, width)`.

    Raises:
        ExportError: A part of the input stands before the last slot, there are no rows, or the
            prompt is more than rows of embeddings.
    """
    check_held(saved.prompt, "peft")
    check_in_front(saved.template, "PEFT puts a prompt in front of the whole text")
    fields = dict.fromkeys(saved.template.fields, "")
    whole = embedded(lm, saved.prompt, saved.template, fields)
    below = lay_out_input(saved.template, lm, fields).segments[-1]
    rows = whole[: len(whole) - len(below)]
    if not len(rows):
        raise ExportError("the prompt is empty: PEFT needs at least one virtual token")
    return rows.detach().float().cpu().contiguous()


def _vectors(prompt: SoftPrompt, lm: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensor and the configuration of PROMPT_TUNING."""
    config, rows = lm.model.config.get_text_config(), prompt.vectors
    return {TENSOR: rows}, {
        "peft_type": "PROMPT_TUNING",
        "num_transformer_submodules": 1,  # the encoder, of two
        "token_dim": rows.shape[1],
        # A state-space model has none, and PEFT cuts no vectors into heads.
        "num_attention_heads": getattr(config, "num_attention_heads", 1),
        "num_layers": config.num_hidden_layers,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
        "tokenizer_kwargs": None,
    }


def _prefix(prompt: PrefixPrompt, lm: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensor and the configuration of PREFIX_TUNING.

    Raises:
        ExportError: PEFT has no place for all of its layers.
    """
    _, _, heads, size = lm.prefix_shape
    layers = prompt.keys_values.shape[1]
    own = len(lm.passes.heads) // 2  # the layers that PEFT knows: of two stacks, the decoder's
    check_all_layers(prompt, own, "PEFT")
    if layers > own:
        raise ExportError(
            "PEFT holds a prefix of the decoder alone, and this one also stands in the encoder and "
            "in cross-attention: export it as json"
        )
    held = prompt.keys_values
    if lm.family.encodes:
        order = decoder_order(layers)
        held = torch.zeros_like(held).index_copy(1, torch.tensor(order), held)
        if not torch.equal(held[:, order], prompt.keys_values):
            raise ExportError(
                f"PEFT gives the first and the second half of a decoder's {layers} layers the same "
                "prefix, and here they differ: export it as json"
            )
    return {TENSOR: held.flatten(1)}, {
        "peft_type": "PREFIX_TUNING",
        "num_transformer_submodules": 1 + lm.family.encodes,
        "token_dim": heads * size,  # the keys' width: with grouped queries, less than the model's
        "num_attention_heads": heads,
        "num_layers": layers,
        "encoder_hidden_size": heads * size,
        "prefix_projection": False,  # the rows are stored, not what made them
    }


#: Kind of prompt -> its tensors and configuration as PEFT holds it, if it has a form for the kind.
_HOLDERS: dict[
    type[Prompt], Callable[[Any, LanguageModel], tuple[dict[str, Tensor], dict[str, Any]]]
] = {
    SoftPrompt: _vectors,
    PrefixPrompt: _prefix,
    GatedPrompt: adaption_files,
    Weights: weights_files,
}


def peft_of() -> Any:
    """The package.

    Raises:
        ExportError: It is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ExportError(
            "the format peft needs the package peft: pip install 'promptsearch-kit[peft]'"
        ) from error
    return peft
