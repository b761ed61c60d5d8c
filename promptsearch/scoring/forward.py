"""One pass: trees of tokens and vectors through the LM, down to the logits that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from promptsearch.models import LanguageModel
from promptsearch.models.attention import chains, pad_rows
from promptsearch.models.gated import Adaption
from promptsearch.scoring.packing import pack
from promptsearch.scoring.tree import Path, Plot, Tree, grow, plant


def run(
    lm: LanguageModel,
    trees: Sequence[Tree],
    trunks: Sequence[Tensor] | None,
    vectors: Tensor | None,
    adaption: Adaption | None = None,
) -> tuple[Tensor, list[int]]:
    """The last hidden states of all trees' tokens.

    Args:
        lm: The model.
        trees: Of one pass.
        trunks: Keys and values of each tree's trunk, shape `(trunk, values)` each; None where no tree has one.
        vectors: The soft prompts' vectors, shape `(vectors, width)`: the id `-1 - i` stands for the i-th.
        adaption: Gated prompts, with an owner for each tree.

    Returns:
        Shape `(tokens, width)`, and the place of each tree's first token.
    """
    plot = _plot(lm, trees, trunks)
    plot.forest.adaption = adaption
    return lm.hidden(embed(lm, plot.ids, vectors), plot.forest), plot.begins


def extend(
    lm: LanguageModel,
    paths: Sequence[Path],
    trunks: Sequence[Tensor],
    vectors: Tensor | None,
    adaption: Adaption | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Rows that go on below trunks, and will be gone on from.

    Args:
        lm: The model; its rows can share what they begin with.
        paths: Ids of each row, at least one.
        trunks: Keys and values above each row, shape `(trunk, values)` each; none of them, or all, may be empty.
        vectors: As in `run`.
        adaption: As in `run`, with an owner for each row.

    Returns:
        The last hidden state of each row's last token, shape `(rows, width)`; and keys and values of each row, those of its
        trunk first, shape `(trunk + tokens, values)` each.
    """
    trees = [grow([path], len(trunk)) for path, trunk in zip(paths, trunks, strict=True)]
    plot = _plot(lm, trees, trunks if any(map(len, trunks)) else None)
    plot.forest.record, plot.forest.adaption = True, adaption
    states = lm.hidden(embed(lm, plot.ids, vectors), plot.forest)
    new = plot.forest.recorded
    spans = [
        slice(begin, begin + len(path)) for begin, path in zip(plot.begins, paths, strict=True)
    ]
    kept = [torch.cat([trunk, new[span]]) for trunk, span in zip(trunks, spans, strict=True)]
    return torch.stack([states[span.stop - 1] for span in spans]), kept


def keys_values(
    lm: LanguageModel, paths: Sequence[Path], vectors: Tensor | None, limit: int
) -> list[Tensor]:
    """Keys and values of rows that others will go on from.

    Args:
        lm: The model.
        paths: Ids of each row.
        vectors: As in `run`.
        limit: Tokens of a pass.

    Returns:
        Shape `(tokens, values)` each, without gradients.
    """
    found: list[Tensor] = []
    if () in paths:  # an empty prompt with nothing before it
        nothing = torch.empty(0, lm.values, dtype=lm.dtype, device=lm.device)
        others = iter(keys_values(lm, [path for path in paths if path], vectors, limit))
        return [next(others) if path else nothing for path in paths]
    # Neither a graph nor inference mode: later passes may need gradients of what is built upon these.
    with torch.inference_mode(False), torch.no_grad():
        for some in pack(paths, len, lambda: limit):
            forest = chains([len(path) for path in some], lm.device)
            forest.record = True
            ids = torch.tensor([i for path in some for i in path], device=lm.device)
            lm.hidden(embed(lm, ids, vectors), forest)
            found += forest.recorded.split([len(path) for path in some])
    return found


def given_trunks(lm: LanguageModel, paths: Sequence[Path], rows: Tensor) -> list[Tensor]:
    """Keys and values of prefixes: nothing is computed, and gradients reach them.

    Args:
        lm: The model.
        paths: Ids of each prefix: as with vectors, the id `-1 - i` stands for the i-th row, and they lie in order.
        rows: Of all prefixes, shape `(rows, values)`.

    Returns:
        Shape `(tokens, values)` each.
    """
    rows = rows.to(lm.device, lm.dtype)
    return [rows[-1 - path[0] : -path[-1]] for path in paths]


def entering(lm: LanguageModel, layer: int, trees: Sequence[Tree], limit: int) -> list[Tensor]:
    """The states of trees that enter a layer: gated prompts of the layers from there on leave them as they are.

    Args:
        lm: The model.
        layer: Its number.
        trees: Without trunks.
        limit: Tokens of a pass.

    Returns:
        Shape `(tokens, width)` each, without gradients.
    """
    found: list[Tensor] = []
    # As in `keys_values`.
    with torch.inference_mode(False), torch.no_grad():
        for some in pack(trees, lambda tree: len(tree.ids), lambda: limit):
            plot = plant(some, None, lm.device)
            states = lm.entering(layer, lm.embed(plot.ids), plot.forest)
            found += [
                states[begin : begin + len(tree.ids)]
                for tree, begin in zip(some, plot.begins, strict=True)
            ]
    return found


def run_above(
    lm: LanguageModel, trees: Sequence[Tree], states: Sequence[Tensor], adaption: Adaption
) -> tuple[Tensor, list[int]]:
    """The last hidden states of trees beside gated prompts.

    Args:
        lm: The model.
        trees: Of one pass, without trunks.
        states: Of each tree: those that enter the lowest adapted layer, shape `(tokens, width)`.
        adaption: With an owner for each tree.

    Returns:
        As `run`.
    """
    plot = plant(trees, None, lm.device)
    plot.forest.adaption = adaption
    sizes = [
        end - begin
        for begin, end in zip(plot.begins, [*plot.begins[1:], len(plot.ids)], strict=True)
    ]
    packed = torch.cat(
        [pad(own, (0, 0, 0, size - len(own))) for own, size in zip(states, sizes, strict=True)]
    )
    return lm.above(adaption.first, packed, plot.forest), plot.begins


def _plot(lm: LanguageModel, trees: Sequence[Tree], trunks: Sequence[Tensor] | None) -> Plot:
    same = trunks is not None and all(trunk is trunks[0] for trunk in trunks)
    return plant(
        trees, None if trunks is None else trunks[0][None] if same else pad_rows(trunks), lm.device
    )


def ran_out(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device is full (on a CPU it has no class of its own)."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def embed(lm: LanguageModel, ids: Tensor, vectors: Tensor | None) -> Tensor:
    """Ids, of tokens or as in `run` of vectors, to what the layers take: shape `(tokens,)` to `(tokens, width)`."""
    if vectors is None:
        return lm.embed(ids)
    soft = ids < 0
    embedded = lm.embed(ids.clamp(min=0))
    # index_put, not assignment: gradients flow back to the vectors.
    return embedded.index_put(
        (soft.nonzero()[:, 0],), vectors.to(lm.device, embedded.dtype)[-1 - ids[soft]]
    )
