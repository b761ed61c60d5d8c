"""The families of language models, and the contract that each of them keeps.

A *family* says what its models can do by their nature: in which way answers are read, and what else
a model takes. What depends on the single model is tried out on it, and its `Passes` say it: whether
rows share what they begin with, and which prefixes it takes. Who scores, searches or exports asks
these two, and never the class of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.layers import Layers


@dataclass(frozen=True)
class Family:
    """What the models of a family can do.

    Args:
        name: The family's name.
        noun: One of its models, for messages.
        auto: The class of `transformers` that loads its models.
        middle: Whether an answer may stand in the middle of a row: mask tokens stand in its place,
            and text behind it is read. Else it stands behind the row, and nothing stands behind it.
        both_ways: Whether the tokens of prompt and input see those behind them, too. Then nothing
            of a row is the same below all prompts, and nothing of it is kept.
        encodes: Whether an encoder reads prompt and input, and a decoder writes the answer: the
            answers of an input share what was read, as branches of one tree.
        ends: Whether a text answer has an end, which is predicted, too.
        closes: Whether rows end with the tokens that the tokenizer puts behind a text.
        writes: Whether a model writes text, token by token.
        keeps: Whether the keys and values of a row's beginning stay the same whatever follows, so
            that an export can hold them.
        gated: Whether its layers take gated prompts.
        prefixed: The attentions that read a prefix; empty where none does.
        served: Whether the servers of language models, and what asks them, take its models.
    """

    name: str
    noun: str
    auto: str
    middle: bool = False
    both_ways: bool = False
    encodes: bool = False
    ends: bool = True
    closes: bool = False
    writes: bool = True
    keeps: bool = True
    gated: bool = True
    prefixed: tuple[str, ...] = ("self-attention",)
    served: bool = True


CAUSAL = Family("causal", "a causal language model", "AutoModelForCausalLM")
MASKED = Family(
    "masked",
    "a masked language model",
    "AutoModelForMaskedLM",
    middle=True,
    both_ways=True,
    ends=False,
    closes=True,
    writes=False,
    keeps=False,
    gated=False,
    served=False,
)

#: Prompt and input stand in the encoder's row. A hard or soft prompt in it changes all of its
#: states, and so does a prefix: the states of an input are shared by its answers, and kept for none
#: of the next prompts.
ENCODER_DECODER = Family(
    "encoder-decoder",
    "an encoder-decoder model",
    "AutoModelForSeq2SeqLM",
    both_ways=True,
    encodes=True,
    closes=True,
    keeps=False,
    gated=False,
    prefixed=("encoder", "cross-attention", "decoder"),
    served=False,
)

_TAKE = (
    "take a causal language model, which reads from left to right, a masked one, such as BERT, or "
    "one of encoder and decoder, such as T5"
)


def family_of(config: Any) -> Family:
    """The family of a model, from what its configuration says.

    Args:
        config: The configuration, as transformers reads it.

    Raises:
        ModelError: It belongs to no family that is known here; the message names it.
    """
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    if config.is_encoder_decoder:
        if type(config) in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            return ENCODER_DECODER
        raise ModelError(f"its encoder reads no text ({kind}): {_TAKE}")
    if family := _named(getattr(config, "architectures", None) or ()):
        return family
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and not getattr(config, "is_decoder", False):
        return MASKED
    if type(config) in auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return CAUSAL
    raise ModelError(f"it is no language model ({kind}): {_TAKE}")


def family_of_model(model: Any) -> Family:
    """The family of a model that is given as an object.

    Args:
        model: A language model of transformers.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        return ENCODER_DECODER
    return _named([base.__name__ for base in type(model).__mro__]) or CAUSAL


def _named(classes: Sequence[str]) -> Family | None:
    """The family of the first of these classes of transformers that belongs to one."""
    from transformers.models.auto import modeling_auto as auto

    for family, names in (
        (CAUSAL, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        (MASKED, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    ):
        known = {one for some in names.values() for one in _each(some)}
        if any(name in known for name in classes):
            return family
    return None


def _each(names: str | Sequence[str]) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names


class Passes(Protocol):
    """The passes through a model, and what it can take in them; each family has its own."""

    # What the model can take.

    @property
    def trees(self) -> bool:
        """Whether rows share what they begin with, whose keys and values are kept."""

    @property
    def start(self) -> tuple[int, ...]:
        """The ids with which a decoder begins an answer; none where there is no decoder."""

    @property
    def layers(self) -> Layers:
        """The layers one by one.

        Raises:
            ModelError: The layers cannot be told apart, or the model takes no gated prompts.
        """

    @property
    def heads(self) -> Sequence[tuple[int, int]]:
        """For each layer's keys and values in turn, how many heads, and the size of a head.

        Those of a decoder's attention to itself, where there is one.
        """

    @property
    def kept(self) -> KeysValues:
        """The keys and values of no tokens, each where its layer lies."""

    @property
    def values(self) -> int:
        """The number of numbers in one token's keys and values, in all layers together."""

    def place(self, rows: Tensor) -> KeysValues:
        """Given keys and values, each where its layer lies; gradients flow back.

        Args:
            rows: Those of any tokens in all layers, or in the top-most ones only, shape
                `(tokens, values)`; of a model whose rows share nothing, `(0, 0)`.
        """

    @property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, `(layers, 2, key heads, size of a head)`.

        Raises:
            ModelError: The model takes no prefix.
        """

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers, from the top, that a prefix may have, all of them first."""

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The largest shape of gated prompts: `(layers, heads, width)`.

        Raises:
            ModelError: The model takes no gated prompts.
        """

    @property
    def context(self) -> int | None:
        """The longest row in tokens; None where the model names no limit."""

    def check(self, *, gradients: bool = False) -> None:
        """Compare our path through the model with its own forward, in its dtype.

        Args:
            gradients: Whether prompts are trained on it.

        Raises:
            ModelError: The two differ, or it is a model of another family.
        """

    # From ids to logits.

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids as prompts stand beside them, shape `(..., width)`."""

    @property
    def vocabulary(self) -> Tensor:
        """Every token as the layers take it, shape `(vocabulary, width)`."""

    def read(self, embedded: Tensor, rows: Forest) -> Across:
        """What an encoder reads, for `Forest.across` of the decoder's trees.

        Args:
            embedded: The tokens of the encoder's rows, one row after the other, shape
                `(tokens, width)`.
            rows: The rows, which see all of themselves, and the prefixes above them.

        Raises:
            ModelError: The model has no encoder.
        """

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass, shape `(tokens, width)`.

        Args:
            embedded: All tokens of the pass, one tree after the other, shape `(tokens, width)`.
            forest: Which token sees which; rows without branches where `trees` is False, but for a
                decoder's.
        """

    def entering(self, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """The states that enter a layer, for gated prompts."""

    def above(self, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of a pass that begins at a layer, for gated prompts."""

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, shape `(rows, tokens or vocabulary)`."""

    def fast(self) -> AbstractContextManager[None]:
        """A context in which passes are faster, and their numbers others within rounding."""

    # Prompts that stand in no slot.

    def adaption(self, prompts: Sequence[tuple[Tensor, Tensor]]) -> Adaption:
        """Gated prompts as the layers attend to them, for `Forest.adaption`.

        Raises:
            ModelError: The model takes no gated prompts.
        """

    def cache(self, keys_values: Tensor) -> Any:
        """Given keys and values as a cache of `transformers`, for a row behind them."""
