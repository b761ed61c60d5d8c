"""One pass: trees of tokens and vectors go through the LM, and their last hidden states come out.

A trunk is what stands above a tree: tokens whose keys and values are known. Gated prompts stand
beside the trees; the owner of a tree is the place of the gated prompt that it attends to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from promptsearch.models import LanguageModel
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest, chains
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.rows import rows_of
from promptsearch.scoring.packing import pack
from promptsearch.scoring.padding import padded
from promptsearch.scoring.tree import Path, Plot, Tree, grow, plant


def run(
    lm: LanguageModel,
    trees: Sequence[Tree],
    trunks: Sequence[KeysValues] | None,
    vectors: Tensor | None,
    adaption: Adaption | None = None,
) -> tuple[Tensor, list[int]]:
    """The last hidden states of all trees' tokens.

    Args:
        lm: The model.
        trees: The trees of one pass.
        trunks: The keys and values of each tree's trunk; None where no tree has one.
        vectors: The soft prompts' vectors, shape `(vectors, width)`: the id `-1 - i` stands for the
            i-th vector.
        adaption: Gated prompts, with an owner for each tree.

    Returns:
        The states, shape `(tokens, width)`, and the place of each tree's first token.
    """
    plot = _plot(lm, trees, trunks)
    plot.forest.adaption = adaption
    if lm.family.encodes:
        plot.forest.across = read(lm, trees, trunks, vectors)
    return lm.passes.hidden(embed(lm, plot.ids, vectors), plot.forest), plot.begins


def read(
    lm: LanguageModel,
    trees: Sequence[Tree],
    trunks: Sequence[KeysValues] | None,
    vectors: Tensor | None,
) -> Across:
    """What the encoder of a model reads for the decoder's trees, a row for each.

    Args:
        lm: The model.
        trees: As in `run`.
        trunks: As in `run`.
        vectors: As in `run`.
    """
    if trunks is not None and trunks[0].values < lm.passes.values:
        trunks = None  # the prefix of a decoder alone stands before no row of the encoder
    rows = [grow([tree.source], 0 if trunks is None else tree.trunk) for tree in trees]
    plot = _plot(lm, rows, trunks, both_ways=True)
    return lm.passes.read(embed(lm, plot.ids, vectors), plot.forest)


def begin_decoding(
    lm: LanguageModel, trees: Sequence[Tree], trunks: Sequence[KeysValues], vectors: Tensor | None
) -> tuple[Tensor, list[int], Forest]:
    """The states of a decoder's trees, from which it goes on.

    Args:
        lm: The model.
        trees: The trees.
        trunks: The keys and values of each tree's trunk; any of them may be empty.
        vectors: As in `run`.

    Returns:
        What `run` returns; and the forest, which has recorded the keys and values of the trees, and
        in `across` those of what they read.
    """
    above = trunks if any(map(len, trunks)) else None
    plot = _plot(lm, trees, above)
    plot.forest.record, plot.forest.across = True, read(lm, trees, above, vectors)
    plot.forest.across.record = True
    return lm.passes.hidden(embed(lm, plot.ids, vectors), plot.forest), plot.begins, plot.forest


def extend(
    lm: LanguageModel,
    paths: Sequence[Path],
    trunks: Sequence[KeysValues],
    vectors: Tensor | None,
    adaption: Adaption | None = None,
) -> tuple[Tensor, list[KeysValues]]:
    """The states of rows below trunks, and the keys and values to go on from.

    Args:
        lm: The model; its rows can share what they begin with.
        paths: The ids of each row, at least one.
        trunks: The keys and values above each row; any of them may be empty.
        vectors: As in `run`.
        adaption: As in `run`, with an owner for each row.

    Returns:
        The last hidden state of each row's last token, shape `(rows, width)`; and the keys and
        values of each row's own tokens.
    """
    trees = [grow([path], len(trunk)) for path, trunk in zip(paths, trunks, strict=True)]
    plot = _plot(lm, trees, trunks if any(map(len, trunks)) else None)
    plot.forest.record, plot.forest.adaption = True, adaption
    states = lm.passes.hidden(embed(lm, plot.ids, vectors), plot.forest)
    new = plot.forest.recorded
    spans = [
        slice(begin, begin + len(path)) for begin, path in zip(plot.begins, paths, strict=True)
    ]
    return torch.stack([states[span.stop - 1] for span in spans]), [new[span] for span in spans]


def last_states(lm: LanguageModel, paths: Sequence[Path], limit: int) -> Tensor:
    """The last hidden state of each row's last token, shape `(rows, width)`, without gradients.

    A model of encoder and decoder reads the row with both.

    Args:
        lm: The model.
        paths: The ids of each row, at least one in each.
        limit: The most tokens of a pass.
    """
    found: list[Tensor] = []
    with torch.inference_mode():
        for some in pack(paths, len, lambda: limit):
            own = [grow([path], 0, path if lm.family.encodes else ()) for path in some]
            states, begins = run(lm, own, None, None)
            found += [
                states[begin + len(path) - 1] for begin, path in zip(begins, some, strict=True)
            ]
    return torch.stack(found)


def keys_values(
    lm: LanguageModel, paths: Sequence[Path], vectors: Tensor | None, limit: int
) -> list[KeysValues]:
    """The keys and values of rows that other rows will go on from.

    Args:
        lm: The model.
        paths: The ids of each row.
        vectors: As in `run`.
        limit: The most tokens of a pass.

    Returns:
        Keys and values of each row, without gradients.
    """
    found: list[KeysValues] = []
    if () in paths:  # an empty prompt with nothing before it
        nothing = lm.passes.place(torch.empty(0, lm.passes.values))
        others = iter(keys_values(lm, [path for path in paths if path], vectors, limit))
        return [next(others) if path else nothing for path in paths]
    # Neither a graph nor inference mode: a later pass may need gradients of what builds on these.
    with torch.inference_mode(False), torch.no_grad():
        if lm.family.encodes:
            return [_of_both(lm, path, vectors) for path in paths]
        for some in pack(paths, len, lambda: limit):
            lengths = [len(path) for path in some]
            forest = (rows_of if lm.family.both_ways else chains)(lengths, lm.device)
            forest.record = True
            ids = torch.tensor([i for path in some for i in path], device=lm.device)
            lm.passes.hidden(embed(lm, ids, vectors), forest)
            found += forest.recorded.split(lengths)
    return found


def _of_both(lm: LanguageModel, path: Path, vectors: Tensor | None) -> KeysValues:
    """The keys and values of a row that encoder and decoder both read."""
    tree = grow([path], 0, path)
    rows = _plot(lm, [tree], None, both_ways=True)
    rows.forest.record = True
    across = lm.passes.read(embed(lm, rows.ids, vectors), rows.forest)
    plot = _plot(lm, [tree], None)
    plot.forest.record = across.record = True
    plot.forest.across = across
    lm.passes.hidden(embed(lm, plot.ids, vectors), plot.forest)
    return KeysValues.beside([rows.forest.recorded, across.recorded, plot.forest.recorded])


def given_trunks(lm: LanguageModel, paths: Sequence[Path], rows: Tensor) -> list[KeysValues]:
    """The keys and values of prefixes: nothing is computed, and gradients reach them.

    Args:
        lm: The model.
        paths: The ids of each prefix. As with vectors, the id `-1 - i` stands for the i-th row; a
            prefix's rows lie in order.
        rows: The rows of all prefixes, shape `(rows, values)`.

    Returns:
        Keys and values of each prefix.
    """
    placed = lm.passes.place(rows)
    return [placed[-1 - path[0] : -path[-1]] for path in paths]


def entering(lm: LanguageModel, layer: int, trees: Sequence[Tree], limit: int) -> list[Tensor]:
    """The states of trees that enter a layer.

    They do not depend on gated prompts that only this layer and those above it attend to.

    Args:
        lm: The model.
        layer: The layer's number.
        trees: The trees, which have no trunks.
        limit: The most tokens of a pass.

    Returns:
        The states of each tree, shape `(tokens, width)`, without gradients.
    """
    found: list[Tensor] = []
    # Neither a graph nor inference mode, for the reason given in `keys_values`.
    with torch.inference_mode(False), torch.no_grad():
        for some in pack(trees, lambda tree: len(tree.ids), lambda: limit):
            plot = plant(some, None, lm.device)
            states = lm.passes.entering(layer, lm.passes.embed(plot.ids), plot.forest)
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
        trees: The trees of one pass, which have no trunks.
        states: The states of each tree that enter the lowest adapted layer, shape
            `(tokens, width)`.
        adaption: Gated prompts, with an owner for each tree.

    Returns:
        The same as `run` returns.
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
    return lm.passes.above(adaption.first, packed, plot.forest), plot.begins


def _plot(
    lm: LanguageModel,
    trees: Sequence[Tree],
    trunks: Sequence[KeysValues] | None,
    *,
    both_ways: bool | None = None,
) -> Plot:
    """The trees of one pass, side by side.

    Args:
        lm: The model.
        trees: The trees.
        trunks: As in `run`.
        both_ways: Whether tokens see those behind them; None: as what writes or fills answers does.
    """
    if both_ways is None:
        both_ways = lm.family.both_ways and not lm.family.encodes
    above = None
    if trunks is not None and all(trunk is trunks[0] for trunk in trunks):
        above = trunks[0][None]
    elif trunks is not None:
        parts = zip(*(trunk.parts for trunk in trunks), strict=True)
        above = KeysValues(tuple(padded(some) for some in parts))
    return plant(trees, above, lm.device, both_ways=both_ways)


def ran_out(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device is full.

    Its text is read, because on a CPU such an error has no class of its own; and the libraries of
    CUDA take memory past torch, and say so in words of their own.
    """
    said = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def embed(lm: LanguageModel, ids: Tensor, vectors: Tensor | None) -> Tensor:
    """The embeddings of ids, as the layers take them, shape `(tokens, width)`.

    Args:
        lm: The model.
        ids: The ids of tokens, or of vectors as in `run`, shape `(tokens,)`.
        vectors: As in `run`.
    """
    if vectors is None:
        return lm.passes.embed(ids)
    soft = ids < 0
    embedded = lm.passes.embed(ids.clamp(min=0))
    # index_put, not assignment: gradients flow back to the vectors.
    return embedded.index_put(
        (soft.nonzero()[:, 0],), vectors.to(lm.device, embedded.dtype)[-1 - ids[soft]]
    )
