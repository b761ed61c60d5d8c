"""Trials of a masked LM: what passes here give is compared with the model's own forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.rows import rows_of
from promptsearch.models.masked.forward import MaskedForward


def try_packing(forward: MaskedForward, probe: Sequence[int]) -> None:
    """Try out whether several rows go through the model in one pass, each seeing only itself.

    Args:
        forward: The model's forward.
        probe: Ids of at least 8 tokens.

    Raises:
        UnknownAttention: They do not.
        Exception: Whatever the model raises.
    """
    device = forward.embeddings.device
    # Longer than the window of layers that see their neighbours only.
    window = getattr(forward.model.config, "sliding_window", None) or 0
    long = (list(probe) * (window // len(probe) + 2))[: window + len(probe)]
    rows = [torch.tensor(row, device=device) for row in (probe[:-3], long)]
    with torch.inference_mode():
        plain = torch.cat(
            [forward.padded(forward.embed(row), rows_of([len(row)], device)) for row in rows]
        )
        packed = forward.packed(
            forward.embed(torch.cat(rows)), rows_of([len(row) for row in rows], device)
        )
    _compare(packed, plain)


def try_prefix(forward: MaskedForward, probe: Sequence[int]) -> None:
    """Try out whether a row can stand behind given keys and values.

    Those that the first tokens of a row have, given to the others, must leave these as they were.

    Args:
        forward: The model's forward, which packs.
        probe: Ids of at least 8 tokens.

    Raises:
        UnknownAttention: It cannot.
        Exception: Whatever the model raises.
    """
    device, above = forward.embeddings.device, 3
    below = len(probe) - above
    with torch.inference_mode():
        embedded = forward.embed(torch.tensor(probe, device=device))
        whole = rows_of([len(probe)], device)
        whole.record = True
        states = forward.packed(embedded, whole)
        places = torch.arange(len(probe), device=device)
        behind = Forest(
            positions=places[above:],
            size=below,
            visible=torch.ones(1, below, len(probe), dtype=torch.bool, device=device),
            key_positions=places[None],
            trunk=whole.recorded[None, :above],
        )
        found = forward.packed(embedded[above:], behind)
    if len(set(whole.heads)) != 1:
        raise UnknownAttention("its layers have keys of different sizes")
    _compare(found, states[above:])


def check_head(
    forward: MaskedForward,
    hidden: Callable[[Tensor, Forest], Tensor],
    probe: Sequence[int],
    name: str,
    *,
    gradients: bool,
) -> None:
    """Compare our path through the model with its own forward, in its dtype.

    Args:
        forward: The model's forward.
        hidden: Its passes.
        probe: Ids of at least 8 tokens.
        name: The name of the model, for messages.
        gradients: Whether gradients must reach what enters the layers.

    Raises:
        ModelError: The two differ, or the model cannot be computed in this dtype.
    """
    model, dtype = forward.model, forward.embeddings.dtype
    exact = dtype == torch.float32
    called = f"the model '{name}' ({type(model).__name__})"

    def explain(error: object) -> ModelError:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        advice = "" if exact else ". Set dtype to float32"
        return ModelError(
            f"{called} cannot be computed in {str(dtype)[6:]}: {reason[:200]}{advice}"
        )

    ids = torch.tensor(probe, device=forward.embeddings.device)
    row = rows_of([len(ids)], ids.device)
    with strangers(explain):
        with torch.inference_mode():
            theirs = model(input_ids=ids[None]).logits[0].float()
            states = hidden(forward.embed(ids), row)
            ours, few = forward.logits(states), forward.logits(states, ids)
        if gradients:
            entering = forward.embed(ids).detach().requires_grad_()
            found = forward.logits(hidden(entering, rows_of([len(ids)], ids.device)))
            (back,) = torch.autograd.grad(found.sum(), entering)
            if not bool(back.isfinite().all()):
                raise explain("its gradients are not finite")
    if not all(bool(found.isfinite().all()) for found in (theirs, ours, few)):
        raise explain("its numbers are not finite")
    for found, wanted in ((ours, theirs), (few, theirs[:, ids])):
        near = torch.allclose(found, wanted, atol=1e-3, rtol=1e-3)
        if not (near if exact else _distance(found, wanted) < 0.1):
            raise ModelError(
                f"{called} does something between its layers and its logits that this library does "
                f"not know (they differ by {float((found - wanted).abs().max()):.3g}): "
                "it cannot be scored here"
            )


def _compare(ours: Tensor, theirs: Tensor) -> None:
    """Refuse states that differ by more than rounding."""
    if not (distance := _distance(ours, theirs)) < (1e-3 if ours.dtype == torch.float32 else 0.1):
        raise UnknownAttention(f"its states differ by {distance:.2g}")


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """The distance between two tensors, relative to the second."""
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))
