"""Trials of an encoder-decoder model: what passes here give is compared with its own forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from promptsearch.importing import strangers
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest, UnknownAttention, chains
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.rows import rows_of
from promptsearch.models.seq2seq.forward import Seq2SeqForward
from promptsearch.models.trial import Trial, compare_states


def cross_attentions(
    forward: Seq2SeqForward, probe: Sequence[int], start: Sequence[int]
) -> list[Any]:
    """The decoder's attentions to the encoder, in the order of a pass.

    They are the modules of the decoder that are handed the encoder's states as `key_value_states`.

    Args:
        forward: The model's forward.
        probe: Ids of a row.
        start: The ids with which the decoder begins.

    Raises:
        UnknownAttention: There are none.
        Exception: Whatever the model raises.
    """
    found: list[Any] = []

    def note(module: Any, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
        # A layer may hand them on to the attention within it, which comes later.
        if given.get("key_value_states") is not None:
            found[:] = [m for m in found if module not in set(m.modules())]
            found.append(module)

    with torch.inference_mode(), ExitStack() as hooks:
        for module in forward.decoder.modules():
            hooks.enter_context(module.register_forward_pre_hook(note, with_kwargs=True))
        _plainly(forward, probe, start)
    if not found:
        raise UnknownAttention("its decoder has no attention to the encoder")
    return found


def try_packing(
    forward: Seq2SeqForward, across: Sequence[Any], probe: Sequence[int], start: Sequence[int]
) -> None:
    """Try out whether several rows go through the model in one pass, each seeing only itself.

    Args:
        forward: The model's forward.
        across: The decoder's attentions to the encoder.
        probe: Ids of at least 7 tokens.
        start: The ids with which the decoder begins.

    Raises:
        UnknownAttention: They do not.
        Exception: Whatever the model raises.
    """
    device = forward.embeddings.device
    # The longer one has distances that fall into several of T5's buckets.
    pairs = ((probe[:-3], (*start, *probe[:2])), (tuple(probe) * 6, (*start, *probe[2:6])))
    with torch.inference_mode():
        plain = torch.cat([_plainly(forward, *pair) for pair in pairs])
        rows = rows_of([len(row) for row, _ in pairs], device)
        forest = chains([len(begun) for _, begun in pairs], device)
        states = forward.encode(_embedded(forward, [row for row, _ in pairs]), rows)
        forest.across = Across(across, rows, states)
        packed = forward.decode(_embedded(forward, [begun for _, begun in pairs]), forest)
    compare_states(packed, plain)


def recorded_parts(
    forward: Seq2SeqForward, across: Sequence[Any], ids: Sequence[int], begun: Sequence[int]
) -> tuple[Forest, Across, Forest]:
    """A recorded pass of one row: the encoder, the attention to it, and the decoder.

    Args:
        forward: The model's forward.
        across: The decoder's attentions to the encoder.
        ids: The ids of the encoder's row.
        begun: The ids of the decoder's row.
    """
    device = forward.embeddings.device
    rows, forest = rows_of([len(ids)], device), chains([len(begun)], device)
    rows.record = forest.record = True
    with torch.inference_mode(False), torch.no_grad():
        forest.across = Across(across, rows, forward.encode(_embedded(forward, [ids]), rows))
        forest.across.record = True
        forward.decode(_embedded(forward, [begun]), forest)
    return rows, forest.across, forest


def try_prefix(
    forward: Seq2SeqForward, across: Sequence[Any], probe: Sequence[int], start: Sequence[int]
) -> None:
    """Try out whether rows can stand behind given keys and values.

    Those that the first tokens of rows have, given to the others, must leave these as they were.

    Args:
        forward: The model's forward.
        across: The decoder's attentions to the encoder.
        probe: Ids of at least 7 tokens.
        start: The ids with which the decoder begins.

    Raises:
        UnknownAttention: They cannot.
        Exception: Whatever the model raises.
    """
    device, above = forward.embeddings.device, 3
    begun = (*start, *probe[:4])
    whole = [part.recorded for part in recorded_parts(forward, across, probe, begun)]
    trunk = KeysValues.beside([part[:above] for part in whole])[None]
    with torch.inference_mode():
        rows = _below(rows_of([len(probe)], device), trunk)
        states = forward.encode(_embedded(forward, [probe[above:]]), rows)
        forest = _below(chains([len(begun)], device), trunk)
        forest.first = whole[0].values + whole[1].values
        forest.across = Across(across, rows, states, whole[0].values)
        found = forward.decode(_embedded(forward, [begun[above:]]), forest)
        plain = _plainly(forward, probe, begun)[above:]
    compare_states(found, plain)


def _below(row: Forest, trunk: KeysValues) -> Forest:
    """A row whose first tokens are those of a trunk."""
    above, size = trunk.tokens, row.size
    seen = row.visible
    if seen is None:
        seen = torch.ones(1, size, size, dtype=torch.bool, device=row.positions.device).tril()
    return Forest(
        positions=row.positions[above:],
        size=size - above,
        visible=seen[:, above:],
        key_positions=row.positions[None],
        trunk=trunk,
    )


def check_path(
    forward: Seq2SeqForward,
    across: Sequence[Any],
    probe: Sequence[int],
    start: Sequence[int],
    name: str,
    *,
    gradients: bool,
) -> None:
    """Compare our path through the model with its own forward, in its dtype.

    Args:
        forward: The model's forward.
        across: The decoder's attentions to the encoder.
        probe: Ids of at least 7 tokens.
        start: The ids with which the decoder begins.
        name: The name of the model, for messages.
        gradients: Whether gradients must reach what enters the encoder.

    Raises:
        ModelError: The two differ, or the model cannot be computed in this dtype.
    """
    model = forward.model
    trial = Trial(model, forward.embeddings.dtype, name)
    device = forward.embeddings.device
    begun = (*start, *probe[:4])
    few = torch.tensor(probe, device=device)

    def ours(embedded: Tensor) -> Tensor:
        rows, forest = rows_of([len(probe)], device), chains([len(begun)], device)
        forest.across = Across(across, rows, forward.encode(embedded, rows))
        return forward.decode(_embedded(forward, [begun]), forest)

    with strangers(trial.explain):
        with torch.inference_mode():
            ids = torch.tensor([begun], device=device)
            theirs = model(input_ids=few[None], decoder_input_ids=ids).logits[0].float()
            states = ours(_embedded(forward, [probe]))
            pairs = (
                (forward.logits(states), theirs),
                (forward.logits(states, few), theirs[:, few]),
            )
        if gradients:
            entering = _embedded(forward, [probe]).detach().requires_grad_()
            (back,) = torch.autograd.grad(forward.logits(ours(entering)).sum(), entering)
            trial.check_finite(back, what="gradients")
    for pair in pairs:
        trial.check_finite(*pair)
    for found, wanted in pairs:
        trial.check_logits(found, wanted)


def _embedded(forward: Seq2SeqForward, rows: Sequence[Sequence[int]]) -> Tensor:
    """The embeddings of rows, one after the other, shape `(tokens, width)`."""
    ids = [i for row in rows for i in row]
    return forward.embed(torch.tensor(ids, device=forward.embeddings.device))


def _plainly(forward: Seq2SeqForward, row: Sequence[int], begun: Sequence[int]) -> Tensor:
    """The decoder's states of one row by the model's own forward, shape `(tokens, width)`."""
    read = forward.encoder(inputs_embeds=_embedded(forward, [row])[None]).last_hidden_state
    states: Tensor = forward.decoder(
        inputs_embeds=_embedded(forward, [begun])[None],
        encoder_hidden_states=read,
        use_cache=False,
    ).last_hidden_state[0]
    return states.to(forward.embeddings.device)  # as passes here give them
