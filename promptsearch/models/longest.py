"""The longest row that a model reads, by its configuration."""

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
    limit = getattr(config, "max_position_embeddings", None)
    given = getattr(config, "rope_parameters", None) or {}
    for rope in [given, *given.values()]:  # there is one for all layers, or one for each type
        if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            limit = min(limit or original, original) if original else limit
    return limit
