"""A frozen language model that is loaded here, with its tokenizer.

It is made of parts: `tokens` and `special` cut texts, `passes` compute, and `integrity` watches
over the weights. The *lead* are the special tokens before every text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models.device import half_of_memory, make_repeatable, pick_dtype
from promptsearch.models.family import family_of_model
from promptsearch.models.flops import Flops, flops_of
from promptsearch.models.integrity import Integrity
from promptsearch.models.loading import load_model, weights_again
from promptsearch.models.passes import passes_of
from promptsearch.models.quantised import compute_in, count, in_dtype, scheme_of, stored
from promptsearch.models.rounding import rounding_noise
from promptsearch.models.scheme import whole_name, with_scheme
from promptsearch.models.special_tokens import SpecialTokens
from promptsearch.models.tokens import Tokens
from promptsearch.models.weight_parts import weights_of
from promptsearch.models.weights import ModelWeights, changed


class LanguageModel:
    """A causal, masked or encoder-decoder LM that is never changed, with its tokenizer.

    Args:
        model: The model as `AutoModelForCausalLM` of transformers loads it, or its class for the
            other families; it is put into evaluation mode and frozen.
        tokenizer: Its tokenizer.
        name: What to call it in reports; left out, the name that it was loaded by.
        source: The model that this is a copy of, in another dtype.

    Attributes:
        quantised: The scheme in which its layers keep their weights; empty where they keep all.
        tokens: The tokens of its tokenizer.
        special: The special tokens of its tokenizer, and its chat template.
        family: What models of its family can do.
        passes: The passes through it, and what it can take in them.
        integrity: Its weights as they were loaded, and as they are now.

    Raises:
        ModelError: The objects are no language model and tokenizer of `transformers`, it is
            quantised in a way that is not known here, or it is masked and its tokenizer has no mask
            token.

    Example:
        >>> lm = LanguageModel.load("smollm2-135m-instruct")  # doctest: +SKIP
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str | None = None, source: Self | None = None
    ) -> None:
        _check_objects(model, tokenizer)
        self.quantised = scheme_of(model)
        self.model = model.eval().requires_grad_(False)
        compute_in(model, self.dtype)
        make_repeatable(self.device)
        self.tokenizer = tokenizer
        own = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        self.name = with_scheme(own, self.quantised)
        self.tokens: Tokens = source.tokens if source else Tokens(tokenizer, self.rows)
        self.special = SpecialTokens(tokenizer, self.name)
        self.family = family_of_model(model)
        self.passes = passes_of(self.family, model, self.tokens, self.name)
        self.integrity = Integrity(model, self.name)
        self._source: LanguageModel = source or self
        self._copies = {self.dtype: self}  # of an original: itself, and its copies

    @staticmethod
    def load(name: str, *, device: str = "auto", device_map: str | None = None) -> LanguageModel:
        """Load a model in float32.

        Args:
            name: A Hub name, a folder, a `.gguf` file, or `smollm2-135m-instruct` (packaged, needs
                no hub); with `:quantise=int8` or `:quantise=nf4` behind it, the weights of its
                layers are kept in 8 or 4 bits.
            device: `auto`, or a device as torch names it: `cpu`, `cuda`, ...
            device_map: `auto` spreads its layers over all GPUs here; None for one device.

        Raises:
            ModelError: The model cannot be found or loaded, or the device does not exist.
        """
        model, tokenizer = load_model(name, device, device_map)
        lm = LanguageModel(model, tokenizer, whole_name(name))
        lm.integrity.again = lambda: weights_again(name, device, device_map)
        return lm

    def to(self, dtype: torch.dtype) -> LanguageModel:
        """The same model in another dtype: the original, or a copy of it, which is made once."""
        source = self._source
        if dtype not in source._copies:
            copy = LanguageModel(in_dtype(source.model, dtype), self.tokenizer, self.name, source)
            copy.integrity.again = lambda: (
                [part for _, part in stored(source.model)] if source.integrity.restore() else []
            )
            source._copies[dtype] = copy
        return source._copies[dtype]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self.embeddings.dtype

    @property
    def device(self) -> torch.device:
        """The device of its embeddings: what goes in lies there, and what comes out."""
        return self.embeddings.device

    @cached_property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices that its weights lie on, from below; of most models, one."""
        return tuple(dict.fromkeys(weight.device for weight in self.model.parameters()))

    @property
    def hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over all weights, see `Integrity.hash`."""
        return self.integrity.hash

    @property
    def tokenizer_hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over the vocabulary and a probe text's tokens."""
        return self.tokens.hash

    @cached_property
    def parameters(self) -> int:
        """The number of weights, shared ones counted once."""
        return sum(count(weight) for weight in self.model.parameters())

    @cached_property
    def flops(self) -> Flops:
        """The floating-point operations of its forward pass."""
        return flops_of(self._source.model)

    @property
    def facts(self) -> dict[str, Any]:
        """What exports say of the model, so that it can be found again."""
        return {
            "name": self.name,
            "source": self.name,
            "hash": self.hash,
            "tokenizer_hash": self.tokenizer_hash,
            "width": self.embeddings.shape[1],
            "layers": getattr(self.model.config.get_text_config(), "num_hidden_layers", None),
        }

    @property
    def served(self) -> None:
        """None: it is loaded here."""
        return None

    def searched_in(self, dtype: str) -> torch.dtype:
        """The dtype of a search on the model's device, see `pick_dtype`."""
        return pick_dtype(dtype, self.device)

    def room(self) -> int:
        """How many bytes keys and values may take by default: half of each device's memory."""
        return min(map(half_of_memory, self.devices)) * len(self.devices)

    # Weights.

    @cached_property
    def weights(self) -> ModelWeights:
        """Its weights, and what they belong to.

        A copy in another dtype has the weights of the original here.

        Raises:
            ModelError: The form of its layers is not known, or they are quantised.
        """
        return weights_of(self._source.model)

    @contextmanager
    def changed(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which the model has other weights; afterwards its own again, bit for bit.

        Args:
            tensors: Changed and added weights by name, see `promptsearch.models.weights`. They are
                cast to the model's dtype, and gradients flow back to them.

        Raises:
            PromptError: The weights do not fit the model.
        """
        if tensors:  # else the model's layers may have any form
            self.weights.check(tensors)
        with changed(self.model, tensors):
            yield

    # Sizes.

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings, shape `(vocabulary, width)`."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def vocabulary(self) -> Tensor:
        """Every token as the layers take it, shape `(vocabulary, width)`."""
        return self.passes.vocabulary

    @cached_property
    def rows(self) -> int:
        """The number of tokens that the model has embeddings for, and can predict."""
        head = getattr(self.model.get_output_embeddings(), "weight", self.embeddings)
        return min(len(self.embeddings), len(head))

    @property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, see `Passes.prefix_shape`."""
        return self.passes.prefix_shape

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have, see `Passes.prefix_layers`."""
        return self.passes.prefix_layers

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The largest shape of gated prompts, see `Passes.gated_shape`."""
        return self.passes.gated_shape

    @property
    def context(self) -> int | None:
        """The longest text in tokens, see `Passes.context`."""
        return self.passes.context

    # Texts.

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The token ids of a text, without special tokens.

        What looks like a special token in the text stays plain text.

        Args:
            text: Any text.
            begins: Whether it is the beginning of a row; else it stands behind other text.

        Raises:
            ModelError: The model has no embedding for one of its tokens.
        """
        ids = self.tokens.encode(text, begins=begins)
        if (beyond := max(ids, default=0)) >= self.rows:
            raise ModelError(
                f"the text {text[:60]!r} holds the token {self.decode([beyond])!r} (id {beyond}), "
                f"but the model '{self.name}' has embeddings of {self.rows} tokens only: take it "
                "out of the text, or take the tokenizer that the model was made with"
            )
        return ids

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of token ids, exactly; `begins` as for `encode`."""
        return self.tokens.decode(ids, begins=begins)

    def encode_answer(self, text: str) -> list[int]:
        """The token ids of an answer's text; a decoder begins a row with it, without a space."""
        begins = self.family.encodes
        return self.encode(text.removeprefix(" " * begins), begins=begins)

    def count_answer(self, text: str) -> int:
        """The number of tokens in an answer's text."""
        return len(self.encode_answer(text))

    @property
    def lead(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before every text."""
        return self.tokens.lead

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids of the tokens that end a text."""
        given = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        listed = given if isinstance(given, (list, tuple)) else [given]
        return frozenset(int(i) for i in (*listed, self.tokenizer.eos_token_id) if i is not None)

    @cached_property
    def end(self) -> int:
        """The id of the token that ends a text, see `SpecialTokens.end`."""
        return self.special.end(self.ends, self.rows)

    @property
    def added(self) -> frozenset[int]:
        """The ids of special and other added tokens, which no text is meant to hold."""
        return self.tokens.added

    @property
    def words(self) -> tuple[int, ...]:
        """The ids of the tokens that begin a word and are nothing else, see `Tokens.words`."""
        return self.tokens.words

    @property
    def plain(self) -> tuple[int, ...]:
        """The ids of all tokens that texts are made of: none is added, all have an embedding."""
        return self.tokens.plain

    @property
    def anew(self) -> bool:
        """Whether a text behind a special token is cut like one at the beginning of a row."""
        return self.tokens.anew

    # Checks.

    def check(self, *, gradients: bool = False) -> None:
        """Check that texts can be scored by it and, with `gradients`, prompts trained on it.

        Raises:
            ModelError: They cannot, see `Passes.check`.
        """
        self.passes.check(gradients=gradients)

    def check_unchanged(self) -> None:
        """Compare the weights with those that it was loaded with.

        Raises:
            ModelError: Something has written to them.
        """
        self.integrity.check()

    @cached_property
    def noise(self) -> float:
        """The error of a token's log-probability by rounding, in nats, see `rounding_noise`."""
        ids = (*self.lead, *((2 * i + 1) * len(self.embeddings) // 64 for i in range(32)))
        return rounding_noise(self.model, torch.tensor(ids, device=self.device))


def _check_objects(model: Any, tokenizer: Any) -> None:
    """Refuse what is no language model and no tokenizer of transformers."""
    if (
        not callable(getattr(model, "get_output_embeddings", None))
        or model.get_output_embeddings() is None
    ):
        raise ModelError(f"expected a language model of transformers, got {type(model).__name__}")
    if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        raise ModelError(f"expected a tokenizer of transformers, got {type(tokenizer).__name__}")
