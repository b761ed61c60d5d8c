"""The longest row that a model reads, and where it begins to count positions."""

from __future__ import annotations

from typing import Any


def longest_row(config: Any) -> int | None:
    """The number of positions that a model has; None where it names no limit.

    Rotary frequencies of the types `dynamic` and `longrope` change with the longest row of a batch:
    beyond the length that the model was made for, a row's loss would depend on its neighbours.

    Args:
        config: The model's configuration; of one in several parts, that of text is read.
    """
    config = config.get_text_config()
    given = getattr(config, "max_position_embeddings", None)
    limit = given if given and given > 0 else None  # XLNet says -1
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in [ropes, *ropes.values()]:  # there is one for all layers, or one for each type
        if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            limit = min(limit or original, original) if original else limit
    return limit


def first_position(body: Any) -> int:
    """The position of a row's first token.

    RoBERTa, MPNet and their relatives begin to count behind the position of padding.

    Args:
        body: The model without its head.
    """
    table = getattr(body, "embeddings", None)
    if table is not None and hasattr(table, "create_position_ids_from_inputs_embeds"):
        return int(table.padding_idx) + 1
    return 0
