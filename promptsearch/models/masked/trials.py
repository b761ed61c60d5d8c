"""Trials of a masked LM: what passes here give is compared with the model's own forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from promptsearch.importing import strangers
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.rows import rows_of
from promptsearch.models.masked.forward import MaskedForward
from promptsearch.models.trial import Trial, compare_states


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
            [forward.by_length(forward.embed(row), rows_of([len(row)], device)) for row in rows]
        )
        packed = forward.packed(
            forward.embed(torch.cat(rows)), rows_of([len(row) for row in rows], device)
        )
    compare_states(packed, plain)


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
            trunk=whole.recorded[:above][None],
        )
        found = forward.packed(embedded[above:], behind)
    if len(set(whole.heads)) != 1:
        raise UnknownAttention("its layers have keys of different sizes")
    compare_states(found, states[above:])


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
    model = forward.model
    trial = Trial(model, forward.embeddings.dtype, name)
    ids = torch.tensor(probe, device=forward.embeddings.device)
    row = rows_of([len(ids)], ids.device)
    with strangers(trial.explain):
        with torch.inference_mode():
            theirs = model(input_ids=ids[None]).logits[0].float()
            states = hidden(forward.embed(ids), row)
            ours, few = forward.logits(states), forward.logits(states, ids)
        if gradients:
            entering = forward.embed(ids).detach().requires_grad_()
            found = forward.logits(hidden(entering, rows_of([len(ids)], ids.device)))
            (back,) = torch.autograd.grad(found.sum(), entering)
            trial.check_finite(back, what="gradients")
    trial.check_finite(theirs, ours, few)
    trial.check_logits(ours, theirs)
    trial.check_logits(few, theirs[:, ids])
