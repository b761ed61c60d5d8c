"""The passes through an encoder-decoder model, and what it can take in them.

The encoder reads prompt and input; many rows go through it in one pass, one after the other without
padding, and each sees only itself. The decoder begins with the model's own first token, behind
which stands the one that the model forces upon it, such as mBART's language, or those that its
tokenizer puts before every text (as BART was trained: `</s><s>`). The answers of an input are the
branches of one tree, each token of which reads the row of its input by cross-attention.

A prefix has keys and values of its own for the encoder, for cross-attention and for the decoder, as
in Li and Liang 2021, arXiv:2101.00190, section 4.3 and their code for BART; or, as PEFT has it, for
the decoder alone. Positions of rows and answers follow those of the prefix before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.longest import longest_row
from promptsearch.models.own_passes import UngatedPasses
from promptsearch.models.seq2seq.forward import Seq2SeqForward
from promptsearch.models.seq2seq.trials import (
    check_path,
    cross_attentions,
    recorded_parts,
    try_packing,
    try_prefix,
)


def _said(model: Any, key: str) -> int | None:
    """A token's id that a model's configurations name; None where neither does."""
    configs = (getattr(model, "generation_config", None), model.config)
    given = [getattr(config, key, None) for config in configs]
    return next((int(i) for i in given if i is not None), None)


class Seq2SeqPasses(UngatedPasses[Seq2SeqForward]):
    """The passes through an encoder-decoder model, see `promptsearch.models.family.Passes`.

    Args:
        model: An encoder-decoder model of transformers.
        name: The name of the model, for messages.
        lead: The special tokens before every text.
        close: The special tokens behind every text.

    Raises:
        ModelError: The model does not say with which token its decoder begins.
    """

    noun = "an encoder-decoder"

    def __init__(self, model: Any, name: str, lead: Sequence[int], close: Sequence[int]) -> None:
        super().__init__(Seq2SeqForward(model), name, lead, close)
        if (first := _said(model, "decoder_start_token_id")) is None:
            raise ModelError(
                f"the model '{name}' does not say with which token its decoder begins: expected "
                "decoder_start_token_id in its config.json or generation_config.json"
            )
        # Where one is forced, as mBART's is, `lead` has the language that is read, not written.
        second = _said(model, "forced_bos_token_id")
        self._start = (first, *(lead if second is None else (second,)))

    @property
    def start(self) -> tuple[int, ...]:
        """The ids with which the decoder begins an answer."""
        return self._start

    @cached_property
    def _across(self) -> list[Any]:
        """The decoder's attentions to the encoder, from below.

        Raises:
            ModelError: The model's attention cannot be exchanged.
        """

        def explain(error: BaseException) -> ModelError:
            return ModelError(
                f"the model '{self._name}' ({type(self._forward.model).__name__}) has an attention "
                f"that is not known here: {str(error)[:200]}. Take a model like T5 or BART"
            )

        with strangers(explain):
            found = cross_attentions(self._forward, self._probe, self._start)
            try_packing(self._forward, found, self._probe, self._start)
        return found

    @cached_property
    def _parts(self) -> tuple[Forest, Across, Forest]:
        """A recorded pass of one row: the encoder, the attention to it, and the decoder."""
        return recorded_parts(self._forward, self._across, self._probe, self._start)

    @property
    def recorded(self) -> Forest:
        """A recorded pass of the decoder."""
        return self._parts[2]

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """The numbers in a token's keys and values in encoder, cross-attention and decoder."""
        first, second, third = (part.recorded.values for part in self._parts)
        return first, second, third

    @cached_property
    def kept(self) -> KeysValues:
        """The keys and values of no tokens in encoder, cross-attention and decoder."""
        return KeysValues.beside([part.recorded[:0] for part in self._parts])

    @cached_property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, `(layers, 2, heads, size of a head)`.

        The layers are those of the encoder, of the decoder's cross-attention, and of the decoder.

        Raises:
            ModelError: Rows of this model cannot stand behind given keys and values.
        """

        def explain(error: BaseException) -> ModelError:
            return ModelError(
                f"the model '{self._name}' takes no prefix: {str(error)[:200]}. "
                "Take prompts that fill slots"
            )

        with strangers(explain):
            heads = {*self._parts[0].heads, *self._parts[2].heads}
            if len(heads) != 1:
                raise UnknownAttention("encoder and decoder have keys of different sizes")
            try_prefix(self._forward, self._across, self._probe, self._start)
        count, size = heads.pop()
        return self.values // (2 * count * size), 2, count, size

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have: of all attentions, or of the decoder."""
        layers, _, count, size = self.prefix_shape
        return layers, self._sizes[2] // (2 * count * size)

    @property
    def context(self) -> int | None:
        """The longest row of encoder or decoder in tokens; None where no limit is named."""
        return longest_row(self._forward.model.config)

    def check(self, *, gradients: bool = False) -> None:
        """Compare our path through the model with its own forward, in its dtype.

        Args:
            gradients: Whether prompts are trained on it, so that gradients must reach what enters
                the encoder.

        Raises:
            ModelError: The two differ, or the model cannot be computed in this dtype.
        """
        check_path(
            self._forward, self._across, self._probe, self._start, self._name, gradients=gradients
        )

    # From ids to logits.

    def read(self, embedded: Tensor, rows: Forest) -> Across:
        """What the encoder reads, for the decoder's trees.

        Args:
            embedded: All tokens of the rows, one row after the other, shape `(tokens, width)`.
            rows: The rows, each of which sees all of itself, and the prefixes above them.
        """
        across = self._across
        first = 0 if rows.trunk is None else self._sizes[0]
        return Across(across, rows, self._forward.encode(embedded, rows), first)

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of the decoder's trees.

        Args:
            embedded: All tokens of the pass, one tree after the other, shape `(tokens, width)`.
            forest: Which token sees which, and what the trees read of the encoder.

        Returns:
            The states, shape `(tokens, width)`.
        """
        if forest.trunk is not None and forest.trunk.values == self.values:
            forest.first = sum(self._sizes[:2])
        return self._forward.decode(embedded, forest)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, see `Seq2SeqForward.logits`."""
        return self._forward.logits(states, tokens)

    def fast(self) -> AbstractContextManager[None]:
        """A context in which passes are faster, as all are that need no gradients."""
        found: AbstractContextManager[None] = self._forward.fast()
        return found

    # Prompts that stand in no slot.

    def cache(self, keys_values: Tensor) -> Any:
        """No cache: transformers has none for the keys and values of an encoder.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"the model '{self._name}' is {self.noun} one, whose encoder takes no keys and values "
            "from outside in transformers: score the prefix here"
        )
