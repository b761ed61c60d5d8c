"""Rows that begin alike, merged into token trees, so that what they share is computed once.

A row is a sequence of ids; an id below zero stands for a vector of a soft prompt: `-1 - i` for the
i-th vector of the pass. Rows share a token where all ids up to it are the same.

A tree grows from the top down: a token stands below the tokens that it sees. The trunk of a tree is
the tokens above all of its rows, which went through the LM in an earlier pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.models.attention.forest import Forest, chains, pad_rows
from promptsearch.models.attention.keys_values import KeysValues

Path = tuple[int, ...]


#: The share of their common rectangle that trees fill at least to be padded to it: that is then
#: cheaper than moving their tokens into padded trees in each layer.
_FULL = 0.96


@dataclass(frozen=True)
class Tree:
    """A tree of some rows below one trunk.

    Args:
        ids: The tokens' ids, each after that of its parent.
        parents: The place of each token's parent; -1 where the parent is the trunk's end.
        rows: The places of each row's tokens, from the top down.
        trunk: The number of tokens above the tree.
        source: The ids of the encoder's row that the tree reads, where its own ones are a
            decoder's; none in models without an encoder. The trunk is above both.
    """

    ids: list[int]
    parents: list[int]
    rows: list[list[int]]
    trunk: int
    source: Path = ()

    @property
    def tokens(self) -> int:
        """The number of tokens that go through the LM for it."""
        return len(self.ids) + len(self.source)

    @property
    def chain(self) -> bool:
        """Whether the tree has no branches."""
        return all(parent == i - 1 for i, parent in enumerate(self.parents))


@dataclass(frozen=True)
class Plot:
    """The trees of one pass, side by side.

    Args:
        forest: Says which tokens each token sees.
        ids: The ids of all tokens, shape `(tokens,)`.
        begins: The place of each tree's first token.
    """

    forest: Forest
    ids: Tensor
    begins: list[int]


def grow(paths: Sequence[Sequence[int]], trunk: int = 0, source: Path = ()) -> Tree:
    """The tree of some rows.

    Each row shares tokens with the row before it only, so sorted rows share the most.

    Args:
        paths: The ids of each row below the trunk.
        trunk: The number of tokens above.
        source: As for `Tree`.
    """
    ids: list[int] = []
    parents: list[int] = []
    rows: list[list[int]] = []
    before: Sequence[int] = ()
    places: list[int] = []
    for path in paths:
        shared = common(before, path)
        places = places[:shared]
        for token in path[shared:]:
            parents.append(places[-1] if places else -1)
            places.append(len(ids))
            ids.append(token)
        rows.append(places)
        before = path
    return Tree(ids, parents, rows, trunk, source)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of ids that two rows share from the top."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def plant(
    trees: Sequence[Tree],
    trunks: KeysValues | None,
    device: torch.device,
    *,
    both_ways: bool = False,
) -> Plot:
    """Put the trees of one pass beside each other.

    Args:
        trees: The trees, in the order of the pass.
        trunks: The keys and values of each tree's trunk, padded, or of one where all trees have the
            same trunk; None where there is none.
        device: The device of the plot's tensors.
        both_ways: Whether tokens also see those behind them; no tree then has branches.
    """
    sizes = [len(tree.ids) for tree in trees]
    size = max(sizes)
    filled = sum(sizes) >= _FULL * size * len(trees)
    ids = torch.tensor(
        [i for tree in trees for i in (*tree.ids, *[0] * ((size - len(tree.ids)) * filled))],
        device=device,
    )
    begins = (
        [i * size for i in range(len(trees))] if filled else np.cumsum([0, *sizes[:-1]]).tolist()
    )
    forest = chains([size] * len(trees) if filled else sizes, device)
    if trunks is None and not both_ways and all(tree.chain for tree in trees):
        return Plot(forest, ids, begins)
    kept = 0 if trunks is None else trunks.tokens
    visible = np.zeros((len(trees), size, kept + size), dtype=bool)
    depths = []
    for i, tree in enumerate(trees):
        n = len(tree.ids)
        seen, depth = (True, np.arange(n)) if both_ways else _ancestors(tree)
        visible[i, :n, : tree.trunk] = True
        visible[i, :n, kept : kept + n] = seen
        # Padding sees itself, so that its softmax is not 0/0.
        visible[i, range(n, size), range(kept + n, kept + size)] = True
        depths.append(torch.from_numpy(depth + tree.trunk))
    padded = pad_rows(depths)
    forest.positions = (padded.flatten() if filled else torch.cat(depths)).to(device)
    forest.visible = torch.from_numpy(visible).to(device)
    forest.key_positions = torch.cat([torch.arange(kept).expand(len(trees), -1), padded], 1).to(
        device
    )
    forest.trunk = trunks
    return Plot(forest, ids, begins)


def _ancestors(tree: Tree) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The tree's tokens that each token sees, and the depth of each.

    Returns:
        Whether a token sees another, boolean, shape `(tokens, tokens)`; depths, shape `(tokens,)`.
    """
    n = len(tree.ids)
    if tree.chain:
        return np.tri(n, dtype=bool), np.arange(n)
    seen = np.eye(n, dtype=bool)
    for i, parent in enumerate(tree.parents):
        if parent >= 0:
            seen[i] |= seen[parent]
    return seen, seen.sum(1) - 1
