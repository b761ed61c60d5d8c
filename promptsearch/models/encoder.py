"""An encoder for metrics: any model of transformers, read at one of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from promptsearch.errors import ModelError
from promptsearch.models.integrity import Integrity
from promptsearch.models.loading import load_body
from promptsearch.models.longest import first_position, longest_row

#: Texts that go through the model together.
_BATCH = 32


class States(NamedTuple):
    """A text as an encoder sees it.

    Args:
        states: A vector for each token, shape `(tokens, width)`.
        ids: The tokens' ids, shape `(tokens,)`.
        pieces: The tokens as the tokenizer writes them.
        begins: Whether each token begins a word, shape `(tokens,)`.
        special: Whether each token is one that the tokenizer adds, shape `(tokens,)`.
    """

    states: NDArray[np.float32]
    ids: NDArray[np.int64]
    pieces: tuple[str, ...]
    begins: NDArray[np.bool_]
    special: NDArray[np.bool_]


class TextEncoder:
    """A model that gives each token of a text a vector.

    Args:
        model: A model of transformers without a head, in evaluation mode; of one of encoder and
            decoder, the encoder is read.
        tokenizer: Its tokenizer.
        name: Names it in signatures.
        layer: The layer whose states are taken, from 0, the embeddings; negative ones count from
            the last.

    Raises:
        ModelError: It has no such layer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, layer: int = -1) -> None:
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        layers = int(model.config.num_hidden_layers)
        if not -layers - 1 <= layer <= layers:
            raise ModelError(
                f"the encoder '{name}' has the layers 0 to {layers}, where 0 are the embeddings; "
                f"got {layer}"
            )
        self.name, self.layer = name, layer % (layers + 1)
        self._model, self._tokenizer = model.eval(), tokenizer
        self._hash = Integrity(model, name).hash

    @staticmethod
    def load(name: str, *, layer: int = -1, device: str = "auto") -> TextEncoder:
        """An encoder by its name on the Hub, or its folder.

        Args:
            name: Names a model with safetensors; the default model and `.gguf` files will do, too.
            layer: See the class.
            device: As `LanguageModel.load` takes it.

        Raises:
            ModelError: It cannot be found or loaded, or has no such layer.
        """
        return TextEncoder(*load_body(name, device), name=name, layer=layer)

    @property
    def signature(self) -> str:
        """Name, layer, hash of the weights, and version of transformers."""
        import transformers

        name = self.name.rstrip("/").rpartition("/")[2]
        return f"{name}-L{self.layer}-{self._hash}-transformers-{transformers.__version__}"

    def states(self, texts: Sequence[str]) -> list[States]:
        """Each text as tokens with their states; what is too long for the model is cut off.

        Args:
            texts: The texts, which may be empty.
        """
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, States] = {}
        for begin in range(0, len(order), _BATCH):
            places = order[begin : begin + _BATCH]
            batch = self._batch([self._lead + texts[i].strip() for i in places])
            found |= dict(zip(places, batch, strict=True))
        return [found[i] for i in range(len(texts))]

    @property
    def _lead(self) -> str:
        """What stands before texts: the first word of these vocabularies has a space as others."""
        return " " if type(self._tokenizer).__name__.startswith(("Roberta", "GPT2")) else ""

    @property
    def _longest(self) -> int | None:
        """The longest text in tokens; None where neither tokenizer nor model names a limit."""
        if (limit := int(self._tokenizer.model_max_length)) < 1_000_000:
            return limit
        positions = longest_row(self._model.config)
        return None if positions is None else positions - first_position(self._model)

    def _batch(self, texts: list[str]) -> list[States]:
        tokenizer = self._tokenizer
        longest = self._longest
        rows = tokenizer(
            texts,
            truncation=longest is not None,
            max_length=longest,
            return_special_tokens_mask=True,
        )
        most = max(map(len, rows["input_ids"]))
        ids = torch.zeros(len(texts), most, dtype=torch.long)
        mask = torch.zeros(len(texts), most, dtype=torch.long)
        for i, row in enumerate(rows["input_ids"]):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        if most:
            device = self._model.device
            with torch.no_grad():
                told = self._model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    output_hidden_states=True,
                )
            states = told.hidden_states[self.layer].float().cpu().numpy()
        else:
            states = np.zeros((len(texts), 0, int(self._model.config.hidden_size)), np.float32)
        found = []
        for i, row in enumerate(rows["input_ids"]):
            words = rows.word_ids(i) if rows.is_fast else list(range(len(row)))
            begins = [word != words[k - 1] if k else True for k, word in enumerate(words)]
            found.append(
                States(
                    states=states[i, : len(row)],
                    ids=np.array(row, dtype=np.int64),
                    pieces=tuple(tokenizer.convert_ids_to_tokens(row)),
                    begins=np.array(begins, dtype=bool),
                    special=np.array(rows["special_tokens_mask"][i], dtype=bool),
                )
            )
        return found
