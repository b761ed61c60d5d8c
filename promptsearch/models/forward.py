"""What the forwards of all families have in common: the embeddings, and the model's own head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from promptsearch.models.attention.layers import Reached
from promptsearch.models.products import fast_products


class OwnForward:
    """The forward of a model; vectors are those that token ids become in its embedding table.

    Args:
        model: A language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings, shape `(vocabulary, width)`."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids as the model's layers take them, shape `(..., width)`.

        Args:
            ids: Token ids, shape `(...)`.
        """
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def fast(self) -> Any:
        """A context in which products are faster; where gradients are wanted, it does nothing."""
        return nullcontext() if torch.is_grad_enabled() else fast_products(self.model)


def head_logits(
    model: Any, body: Any, inputs: Mapping[str, Any], states: Tensor, tokens: Tensor | None
) -> Tensor:
    """Logits in float32 from last hidden states, by all that a model has above its body.

    Args:
        model: A language model of transformers.
        body: The module of it whose last hidden states these are; it is not computed.
        inputs: What the model is called with.
        states: The last hidden states, shape `(rows, width)`.
        tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
            vocabulary.

    Returns:
        The logits, shape `(rows, tokens)`, where the states lie.
    """
    with _knowing(body, states):
        if tokens is None:
            every: Tensor = model(**inputs).logits[0].float().to(states.device)
            return every
        head = model.get_output_embeddings()
        entering = _entering(head, model, inputs)
    if entering is None:  # the head's weights are used in another way
        return head_logits(model, body, inputs, states, None)[:, tokens]
    found = few_logits(head, entering, tokens).to(states.device)
    # BART and its relatives add numbers behind the head.
    behind = getattr(model, "final_logits_bias", None)
    return found if behind is None else found + behind[0].to(found.device)[tokens].float()


def few_logits(head: Any, states: Tensor, tokens: Tensor) -> Tensor:
    """The logits of some tokens in float32, shape `(rows, tokens)`, where the head lies.

    A plain map is computed for these tokens alone; one that does more, such as one with an adapter,
    for all.

    Args:
        head: A model's map to its vocabulary.
        states: What enters it, shape `(rows, width)`.
        tokens: The tokens, shape `(tokens,)`.
    """
    weight: Tensor = head.weight
    tokens = tokens.to(weight.device)
    if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        every: Tensor = head(states.to(weight))
        return every[:, tokens].float()
    found: Tensor = states.to(weight.device).float() @ weight[tokens].float().T
    if head.bias is not None:
        found = found + head.bias[tokens].float()
    return found


def _entering(head: Any, model: Any, inputs: Mapping[str, Any]) -> Tensor | None:
    """What enters a model's head, shape `(rows, width)`; None where the head is not called."""
    with head.register_forward_pre_hook(_stop):
        try:
            model(**inputs)
        except Reached as reached:
            return reached.states[0]
    return None


@contextmanager
def _knowing(body: Any, states: Tensor) -> Iterator[None]:
    """A context in which the last hidden states are given, so that only the head computes."""
    own = vars(body)
    before = {"forward": own["forward"]} if "forward" in own else {}
    own["forward"] = lambda *args, **given: given_states(states)
    try:
        yield
    finally:
        own.pop("forward")
        own.update(before)


def given_states(states: Tensor) -> Any:
    """What a body returns of which nothing but the last hidden states is known.

    Args:
        states: The states, shape `(rows, width)`.
    """
    return _output()(last_hidden_state=states[None])


@cache
def _output() -> Any:
    """A class of outputs in which all that is not given is None, such as Longformer's own parts."""
    from transformers.modeling_outputs import BaseModelOutput

    class Given(BaseModelOutput):
        def __getattr__(self, name: str) -> None:
            # Who moves what a model returns to another device tells tensors by what they can do.
            if hasattr(Tensor, name):
                raise AttributeError(name)

    return Given


def _stop(module: Any, inputs: tuple[Tensor, ...]) -> None:
    raise Reached(inputs[0])
