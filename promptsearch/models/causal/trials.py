"""Trials of a stranger's model: what passes here give is compared with the model's own forward.

Each trial takes a *probe*, a row of a few token ids that the model has embeddings for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.forest import Forest, UnknownAttention, chains
from promptsearch.models.attention.layers import Layers, UnknownLayers, find_layers, recorded_differ
from promptsearch.models.causal.forward import Forward
from promptsearch.models.trial import Trial, distance

log = logging.getLogger(__name__)


def settle(forward: Forward, probe: Sequence[int]) -> None:
    """Let a GPU do what the model cannot do without, though it differs from run to run.

    A warning says so. What computes the same each time is used wherever there is any, see
    `make_repeatable`; of some operations, such as histograms, CUDA has nothing of the kind.

    Args:
        forward: The model's forward.
        probe: Token ids.

    Raises:
        Exception: Whatever else the model raises.
    """
    device = forward.embeddings.device
    if device.type != "cuda":
        return
    try:
        with torch.inference_mode():
            forward.model(input_ids=torch.tensor([probe], device=device))
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
        log.warning(
            "%s differs on a GPU from run to run in its last digits: %s",
            type(forward.model).__name__,
            str(error).partition(".")[0],
        )


def try_trees(forward: Forward, probe: Sequence[int]) -> None:
    """Try out whether rows can share what they begin with.

    Models whose attention is recurrent, has biases of its own, or looks back in chunks cannot.

    Args:
        forward: The model's forward.
        probe: Ids of at least 6 tokens.

    Raises:
        UnknownAttention: They cannot.
        Exception: Whatever the model raises.
    """
    settle(forward, probe)
    config = forward.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise UnknownAttention(", ".join(sorted(kinds)))
    shared, branches = probe[:-5], (probe[-5:-2], probe[-2:])
    device = forward.embeddings.device
    rows = [torch.tensor([*shared, *branch], device=device) for branch in branches]
    with torch.inference_mode():
        windows = _windows_of_tree(forward, len(shared), rows)
    slides = bool(getattr(config, "sliding_window", None)) and getattr(
        config, "use_sliding_window", True
    )
    slides = slides and (not kinds or "sliding_attention" in kinds)
    if slides != bool(windows):
        raise UnknownAttention("its sliding windows cannot be read")


def _windows_of_tree(forward: Forward, shared: int, rows: Sequence[Tensor]) -> set[int]:
    """Compare two rows that begin alike with the model's own forward.

    They are computed apart, as chains, and then below the trunk that they share, as its branches.

    Args:
        forward: The model's forward.
        shared: The number of tokens that both rows begin with.
        rows: The ids of each row.

    Returns:
        The sliding windows that the model's layers asked for.

    Raises:
        UnknownAttention: The states differ.
    """
    device, dtype = forward.embeddings.device, forward.embeddings.dtype
    plain = [forward.rows(forward.embed(row)[None])[0] for row in rows]
    forest = chains([len(row) for row in rows], device)
    apart = forward.packed(forward.embed(torch.cat(list(rows))), forest)
    above = chains([shared], device)
    above.record = True
    forward.packed(forward.embed(rows[0][:shared]), above)
    sizes = [len(row) - shared for row in rows]
    own = sum(sizes)
    seen = torch.block_diag(*(torch.ones(n, n).tril() for n in sizes)).bool().to(device)
    places = torch.cat([torch.arange(n) for n in sizes]).to(device) + shared
    branches = Forest(
        positions=places,
        size=own,
        visible=torch.cat([torch.ones(own, shared, dtype=torch.bool, device=device), seen], 1)[
            None
        ],
        key_positions=torch.cat([torch.arange(shared, device=device), places])[None],
        trunk=above.recorded[None],
    )
    below = forward.packed(forward.embed(torch.cat([row[shared:] for row in rows])), branches)
    expected = (torch.cat(plain), torch.cat([p[shared:] for p in plain]))
    near = 1e-3 if dtype == torch.float32 else 0.1
    for ours, theirs in zip((apart, below), expected, strict=True):
        distance = float((ours - theirs).norm() / theirs.norm())
        if not distance < near:
            raise UnknownAttention(f"its states differ by {distance:.2g}")
    return forest.windows


def try_layers(forward: Forward, probe: Sequence[int], token: Forest) -> Layers:
    """Find the layers, and compare what they do one by one with what a pass does.

    A token's projections are compared with the keys and values that the model makes, and a pass in
    two parts with a whole one.

    Args:
        forward: The model's forward.
        probe: Token ids.
        token: The recorded pass of the first of them.

    Raises:
        UnknownLayers: The layers cannot be told apart, or differ.
        Exception: Whatever the model raises.
    """
    layers = find_layers(forward.model.base_model, token.attended, token.heads[::2])
    device = forward.embeddings.device
    inputs: list[Tensor] = []

    def keep(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs.append(given[0] if given else named["hidden_states"])

    with torch.inference_mode():
        row = forward.embed(torch.tensor(probe, device=device))
        with ExitStack() as hooks:
            for attention in layers.attentions:
                hooks.enter_context(attention.register_forward_pre_hook(keep, with_kwargs=True))
            forward.packed(row[:1], chains([1], device))
        if recorded_differ(layers, inputs, token.recorded):
            raise UnknownLayers("its layers make keys and values in a way that is not known here")
        whole = forward.packed(row, chains([len(row)], device))
        middle = len(layers) // 2
        states = forward.entering(layers, middle, row, chains([len(row)], device))
        parts = forward.above(layers, middle, states, chains([len(row)], device))
    if not torch.allclose(parts, whole, atol=1e-3, rtol=1e-3):
        raise UnknownLayers(
            "a pass through some of its layers, and then the others, "
            "is not a pass through all of them"
        )
    return layers


def check_path(forward: Forward, probe: Sequence[int], name: str, *, gradients: bool) -> None:
    """Compare our path through the model with its own forward, in its dtype.

    Args:
        forward: The model's forward.
        probe: Ids of at least 4 tokens.
        name: The name of the model, for messages.
        gradients: Whether gradients must reach what enters the layers.

    Raises:
        ModelError: The two differ, since the architecture does something between layers and logits
            that is not known here; or it is no causal LM, or cannot be computed in this dtype.
    """
    model = forward.model
    trial = Trial(model, forward.embeddings.dtype, name)
    ids = torch.tensor([probe], device=forward.embeddings.device)
    with strangers(trial.explain):
        settle(forward, probe)
        with torch.inference_mode():
            theirs, begun = (model(input_ids=row).logits[0].float() for row in (ids, ids[:, :-3]))
            states = forward.rows(forward.embed(ids))[0]
            ours = forward.logits(states)
            few = forward.logits(states, ids[0])
        if gradients:
            entering = forward.embed(ids).detach().requires_grad_()
            (back,) = torch.autograd.grad(forward.logits(forward.rows(entering)[0]).sum(), entering)
            trial.check_finite(back)
    trial.check_finite(theirs, ours, few)
    if not distance(theirs[: len(begun)], begun) < (1e-2 if trial.exact else 0.2):
        raise ModelError(
            f"{trial.called} lets words see those behind them, as encoders do: expected a causal "
            "language model, which reads from left to right"
        )
    trial.check_logits(ours, theirs)
    trial.check_logits(few, theirs[:, ids[0]])
