"""How probable a token is behind embeddings, as a vLLM server tells it.

vLLM (`--enable-prompt-embeds`) takes the base64 of what `torch.save` writes of a tensor in place of
a text. Where `allowed_token_ids` holds one id, that token is written, and its log-probability is
the model's own: vLLM takes it before it looks at what is allowed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from promptsearch.errors import EndpointError
from promptsearch.models.endpoint.client import Endpoint


class Behind:
    """Asks how probable tokens are behind embeddings.

    Args:
        endpoint: The server.
        decode: Gives the text of ids.
    """

    def __init__(self, endpoint: Endpoint, decode: Callable[[Sequence[int]], str]) -> None:
        self._endpoint, self._decode = endpoint, decode

    def nats(self, embeddings: Tensor, token: int) -> float:
        """The log-probability of a token behind embeddings, in nats.

        Args:
            embeddings: Shape `(tokens, width)`, float32 on the CPU.
            token: The token's id.

        Raises:
            EndpointError: The server takes no embeddings, or wrote another token.
        """
        packed = io.BytesIO()
        torch.save(embeddings.clone(), packed)
        text = base64.b64encode(packed.getvalue()).decode("ascii")
        place = self._endpoint.behind_embeddings(text, token)
        value = place.likely.get(place.token)
        if value is None or place.token.strip() != self._decode([token]).strip():
            raise EndpointError(
                f"the endpoint {self._endpoint.url} was to write {self._decode([token])!r} behind "
                f"embeddings, and wrote {place.token!r}: expected a vLLM server that knows "
                "'prompt_embeds' and 'allowed_token_ids'"
            )
        return value
