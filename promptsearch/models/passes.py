"""The passes of a model, by its family."""

from __future__ import annotations

from typing import Any

from promptsearch.errors import ModelError
from promptsearch.models.causal.passes import CausalPasses
from promptsearch.models.family import Family, Passes
from promptsearch.models.masked.passes import MaskedPasses
from promptsearch.models.seq2seq.passes import Seq2SeqPasses
from promptsearch.models.tokens import Tokens


def passes_of(family: Family, model: Any, tokens: Tokens, name: str) -> Passes:
    """The passes through a model.

    Args:
        family: The model's family.
        model: A language model of transformers.
        tokens: The tokens of its tokenizer.
        name: The name of the model, for messages.

    Raises:
        ModelError: Mask tokens stand for answers, and the tokenizer has none; or it is not known
            with which token a decoder begins.
    """
    if family.encodes:
        return Seq2SeqPasses(model, name, tokens.lead, tokens.close)
    if not family.middle:
        return CausalPasses(model, name, tokens.lead)
    if tokens.mask is None:
        raise ModelError(
            f"the tokenizer of the model '{name}' has no mask token, which stands for the answer: "
            "take the tokenizer that the model was made with"
        )
    return MaskedPasses(model, name, tokens.lead, tokens.close, tokens.mask)
