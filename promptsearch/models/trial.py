"""What trials of every family share: when two results are the same, and what is said if not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models.attention.forest import UnknownAttention


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The distance between two tensors, relative to the second."""
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def compare_states(ours: Tensor, theirs: Tensor) -> None:
    """Refuse states that differ by more than rounding.

    Raises:
        UnknownAttention: They do.
    """
    if not (apart := distance(ours, theirs)) < (1e-3 if ours.dtype == torch.float32 else 0.1):
        raise UnknownAttention(f"its states differ by {apart:.2g}")


class Trial:
    """A model whose logits by passes here are compared with those of its own forward.

    Args:
        model: A model that `transformers` loaded.
        dtype: What it computes in.
        name: Its name, for messages.
    """

    def __init__(self, model: Any, dtype: torch.dtype, name: str) -> None:
        self._dtype, self.exact = dtype, dtype == torch.float32
        self.called = f"the model '{name}' ({type(model).__name__})"

    def explain(self, error: object) -> ModelError:
        """The error that says why the model cannot be computed."""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        advice = "" if self.exact else ". Set dtype to float32"
        return ModelError(
            f"{self.called} cannot be computed in {str(self._dtype)[6:]}: {reason[:200]}{advice}"
        )

    def check_finite(self, *found: Tensor, what: str = "numbers") -> None:
        """Refuse tensors with numbers that are not finite.

        Raises:
            ModelError: There is one.
        """
        if not all(bool(tensor.isfinite().all()) for tensor in found):
            raise self.explain(f"its {what} are not finite")

    def check_logits(self, ours: Tensor, theirs: Tensor) -> None:
        """Refuse logits that differ by more than rounding.

        Raises:
            ModelError: They do: the architecture does something that is not known here.
        """
        near = torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3)
        if not (near if self.exact else distance(ours, theirs) < 0.1):
            raise ModelError(
                f"{self.called} does something between its layers and its logits that this library "
                f"does not know (they differ by {float((ours - theirs).abs().max()):.3g}): "
                "it cannot be scored here"
            )
