"""An encoder-decoder model's own forward: vectors to states, states to logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from promptsearch.models.attention.forest import Forest, UnknownAttention, attending
from promptsearch.models.attention.relative import relative
from promptsearch.models.forward import OwnForward, given_states, head_logits


class Seq2SeqForward(OwnForward):
    """The forward of an encoder and of a decoder.

    Positions and norms are added to vectors by the model.

    Args:
        model: An encoder-decoder model of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.encoder: Any = model.get_encoder()
        self.decoder: Any = model.get_decoder()

    def encode(self, embedded: Tensor, rows: Forest) -> Tensor:
        """The last hidden states of the encoder's rows, one after the other, without padding.

        Args:
            embedded: All tokens of the pass, shape `(tokens, width)`.
            rows: The rows, each of which sees all of itself, and the prefixes above them.

        Returns:
            The states, shape `(tokens, width)`.
        """
        with self._along(self.encoder, rows):
            states: Tensor = self.encoder(inputs_embeds=embedded[None]).last_hidden_state[0]
        return states.to(embedded.device)  # the last layer may lie elsewhere

    def decode(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of the decoder's trees.

        Args:
            embedded: All tokens of the pass, shape `(tokens, width)`.
            forest: Which token sees which, and what the trees read of the encoder.

        Returns:
            The states, shape `(tokens, width)`.

        Raises:
            UnknownAttention: Nothing is said of the encoder.
        """
        if forest.across is None:
            raise UnknownAttention("a decoder reads what an encoder has read")
        states: Tensor
        with self._along(self.decoder, forest):
            states = self.decoder(
                inputs_embeds=embedded[None],
                encoder_hidden_states=forest.across.states[None],
                use_cache=False,
            ).last_hidden_state[0]
        return states.to(embedded.device)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from the decoder's last hidden states, by the model's own head.

        Args:
            states: The last hidden states, shape `(rows, width)`.
            tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
                vocabulary.

        Returns:
            The logits, shape `(rows, tokens)`.
        """
        read = given_states(states[:1])
        inputs = {"encoder_outputs": read, "decoder_inputs_embeds": states[None]}
        with self.fast():
            return head_logits(self.model, self.decoder, inputs, states, tokens)

    @contextmanager
    def _along(self, stack: Any, forest: Forest) -> Iterator[None]:
        """A context in which a stack of layers attends along a forest, at its positions."""
        with ExitStack() as contexts:
            contexts.enter_context(attending(self.model, forest))
            contexts.enter_context(relative(stack))
            contexts.enter_context(self.fast())
            if (table := getattr(stack, "embed_positions", None)) is not None:
                contexts.enter_context(_placed(table, forest))
            yield


@contextmanager
def _placed(table: Any, forest: Forest) -> Iterator[None]:
    """A context in which a table of positions gives those of a forest's tokens."""
    own, embed = vars(table), type(table).forward
    positions = forest.positions.to(table.weight.device)
    before = {"forward": own["forward"]} if "forward" in own else {}
    shape = (1, len(positions))

    def at_positions(*args: Any, **given: Any) -> Tensor:
        found: Tensor = embed(table, shape, 0, position_ids=positions)
        return found

    own["forward"] = at_positions
    try:
        yield
    finally:
        own.pop("forward")
        own.update(before)
