"""Attention over token trees: each token sees its ancestors, from this pass and from earlier ones.

What follows is said of causal LMs and of decoders. A masked LM's rows, and those of an encoder, are
trees without branches, in which each token sees the whole row.

A causal LM computes a token's state from the tokens before it alone. Rows that begin with the same
tokens can therefore share them: they form a *tree*, in which each token has one parent, and a
token with its ancestors is the beginning of a row. One pass of the LM takes the new tokens of many
trees, one after the other and without padding; only the attention looks at trees. The tokens before
a tree are its *trunk*. They may have been through the LM in an earlier pass; then their keys and
values, which were *kept*, are read instead. A tree whose tokens follow one another without branches
is a *chain*, and the *owner* of a tree is the gated prompt that it attends to.

`transformers` lets a model's attention be exchanged by name; the layers, their projections and
their positions stay the model's own. A model whose attention cannot be exchanged is scored row by
row (`Passes.trees`). Layers may lie on several devices: what a pass holds for all is moved to
each device once, and a layer's keys and values stay on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from promptsearch.models.attention.across import Across
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.moved import Moved
from promptsearch.models.attention.plain import LONG, plainly
from promptsearch.models.attention.relative import Relative
from promptsearch.models.attention.table import Table

#: The name under which `transformers` knows this attention.
NAME = "promptsearch"


class UnknownAttention(Exception):
    """The model's attention does what trees do not support; never leaves `Passes`."""


@dataclass
class Forest:
    """The trees of one pass.

    Args:
        positions: The position of each new token in its row, shape `(tokens,)`.
        size: The number of tokens in the largest tree.
        order: The place in the pass of each tree's tokens, shape `(trees, size)`, padded with any
            place; None where all trees have the same size and lie one after the other.
        back: The place in the padded trees of each token in the pass, shape `(tokens,)`; None where
            `order` is None.
        visible: Which tokens each token sees, first those of the trunk, then those of its tree,
            boolean, shape `(trees, size, trunk + size)`; None where every tree is a chain without a
            trunk, for which plain causal attention is enough.
        key_positions: The positions of trunk and tree, shape `(trees, trunk + size)`; None where
            `visible` is None.
        trunk: The keys and values of the trunks, padded, those of each tree, or of one where all
            trees have the same trunk; None where there are no trunks. Of some layers only, where a
            prefix stands in no others.
        record: Whether to keep the keys and values of this pass.
        table: The keys and values of rows that go on, in place of trunks: each tree is the branches
            of a row, a token each; None in any other pass.
        adaption: The gated prompts, with an owner for each tree; None where there are none.
        across: What a decoder's trees read of the encoder; None in any other pass.
        first: The place in the trunks where the keys and values of the first layer begin; below 0
            where a trunk stands in the top-most layers only.
        heads: For each recorded tensor, keys and values in turn, how many heads it has, and the
            size of a head.
        attended: The layers' attentions with their query heads, where the pass is recorded.
        windows: The sliding windows that layers asked for.
    """

    positions: Tensor
    size: int
    order: Tensor | None = None
    back: Tensor | None = None
    visible: Tensor | None = None
    key_positions: Tensor | None = None
    trunk: KeysValues | None = None
    record: bool = False
    table: Table | None = None
    adaption: Adaption | None = None
    across: Across | None = None
    first: int = 0
    heads: list[tuple[int, int]] = field(default_factory=list)
    attended: list[tuple[Any, int]] = field(default_factory=list)
    windows: set[int] = field(default_factory=set)
    _layer: int = 0  # how far the present layer's part of `trunk` is behind `first`
    _from: int = 0  # the first column of masks in the present layer: 0, or that of the trees
    _recorded: list[Tensor] = field(default_factory=list)
    _masks: dict[tuple[int | None, int, int], Tensor] = field(default_factory=dict)
    _hidden: dict[tuple[int | None, int, int], Tensor] = field(default_factory=dict)
    _biases: dict[Relative, Tensor] = field(default_factory=dict)
    _moved: Moved = field(default_factory=Moved)

    def spread(self, packed: Tensor) -> Tensor:
        """The tokens of a pass as padded trees.

        Args:
            packed: Shape `(heads, tokens, size of a head)`.

        Returns:
            Shape `(trees, heads, size, size of a head)`.
        """
        if self.order is not None:
            # The gradient of `index_select` is several times as fast as that of indexing.
            order = self._moved.to(self.order, packed.device)
            packed = packed.index_select(1, order.flatten())
        padded: Tensor = packed.unflatten(1, (-1, self.size))
        return padded.transpose(0, 1)

    def gather(self, padded: Tensor) -> Tensor:
        """The tokens of padded trees as those of the pass.

        Args:
            padded: Shape `(trees, heads, size, size of a head)`.

        Returns:
            Shape `(tokens, heads, size of a head)`.
        """
        flat = padded.transpose(1, 2).flatten(0, 1)
        if self.back is None:
            return flat
        return flat.index_select(0, self._moved.to(self.back, flat.device))

    def above(self, own: Tensor) -> Tensor | None:
        """The trunks' keys or values in the present layer.

        Each layer calls this twice, first for the keys and then for the values.

        Args:
            own: The trees' keys or values, shape `(heads, tokens, size of a head)`; they are
                recorded where the forest says so.

        Returns:
            Shape `(trees or 1, heads, trunk, size of a head)`; None where no trunk stands in this
            layer.
        """
        if self.record:
            self._recorded.append(own.transpose(0, 1).flatten(1))
            self.heads.append((own.shape[0], own.shape[2]))
        if self.trunk is None:
            return None
        heads, width = own.shape[0], own.shape[2]
        begin = self.first + self._layer
        self._layer += heads * width
        self._from = 0 if begin >= 0 else -self.size
        if begin < 0:
            return None
        kept: Tensor = self.trunk.columns(begin, heads * width).unflatten(2, (heads, width))
        return kept.transpose(1, 2)

    def mask(self, window: int | None, repeats: int, device: torch.device) -> Tensor:
        """Which keys each query sees, shape `(trees or 1, 1, repeats * size, trunk + size)`.

        Those of a trunk are left out in a layer where it does not stand.

        Args:
            window: A token sees those less than `window` tokens away; None for all.
            repeats: The number of query heads for each key head.
            device: The device of the layer.
        """
        if (window, repeats, self._from) not in self._masks:
            here = self.positions.device
            seen, places = self.visible, self.key_positions
            if seen is None or places is None:
                seen = torch.ones(1, self.size, self.size, dtype=torch.bool, device=here).tril()
                places = torch.arange(self.size, device=here)[None]
            if window is not None:
                near = (places[:, -self.size :, None] - places[:, None, :]).abs() < window
                seen = seen & near
            seen = seen[..., self._from :]
            self._masks[window, repeats, self._from] = seen.repeat(1, repeats, 1)[:, None]
        return self._moved.to(self._masks[window, repeats, self._from], device)

    def hidden(self, window: int | None, repeats: int, device: torch.device) -> Tensor:
        """Which keys each query does not see, the opposite of `mask`."""
        if (window, repeats, self._from) not in self._hidden:
            here = self.positions.device
            self._hidden[window, repeats, self._from] = ~self.mask(window, repeats, here)
        return self._moved.to(self._hidden[window, repeats, self._from], device)

    def bias(self, relative: Relative, device: torch.device) -> Tensor:
        """What is added to the products, shape `(trees or 1, heads, size, trunk + size)`."""
        if relative not in self._biases:
            places = self.key_positions
            if places is None:
                places = torch.arange(self.size, device=self.positions.device)[None]
            distances = places[:, None, :] - places[:, -self.size :, None]
            self._biases[relative] = relative.of(distances)
        return self._moved.to(self._biases[relative], device)[..., self._from :]

    @property
    def recorded(self) -> KeysValues:
        """The recorded keys and values of all tokens."""
        return KeysValues.side_by_side(self._recorded)


def chains(lengths: Sequence[int], device: torch.device) -> Forest:
    """A forest of rows without branches and trunks.

    Args:
        lengths: The number of tokens in each row.
        device: The device for its tensors.
    """
    positions = torch.cat([torch.arange(n) for n in lengths])
    size = max(lengths)
    if min(lengths) == size:
        return Forest(positions.to(device), size)
    within = pad_rows([torch.arange(n) for n in lengths])
    begins = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    back = torch.cat([torch.arange(n) + i * size for i, n in enumerate(lengths)])
    return Forest(
        positions.to(device),
        size,
        order=(within + begins[:, None]).to(device),
        back=back.to(device),
    )


def pad_rows(rows: Sequence[Tensor]) -> Tensor:
    """Rows of different length on top of each other, filled up with zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


_FOREST: ContextVar[Forest] = ContextVar("forest")


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer, as `transformers` calls it.

    Args:
        module: The layer's attention.
        query: The queries, shape `(1, heads, tokens, size of a head)`.
        key: The keys, shape `(1, key heads, tokens, size of a head)`, turned to their positions.
        value: The values, like `key`.
        attention_mask: None: the forest says which token sees which.
        scaling: The factor for the products of queries and keys.
        sliding_window: How far back this layer looks.
        others: Whatever else the model hands over.

    Returns:
        The output, shape `(1, tokens, heads, size of a head)`, and None in place of weights.
    """
    forest = _FOREST.get()
    if forest.across is not None and forest.across.reads(module):
        read = forest.across.attend(module, forest.spread(query[0]), key[0], value[0], scaling)
        return forest.gather(read)[None], None
    added = others.pop("position_bias", None)
    relative = added if isinstance(added, Relative) else None
    strange = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if added is not None and (relative is None or query.shape[1] != key.shape[1]):
        strange.append("position_bias")
    if strange or len(query) != 1:
        raise UnknownAttention(", ".join(strange) or "several rows")
    if sliding_window is not None:
        forest.windows.add(sliding_window)
        if forest.visible is None and forest.size <= sliding_window and not forest.table:
            sliding_window = None
    above_keys, above_values = forest.above(key[0]), forest.above(value[0])
    if forest.record:
        forest.attended.append((module, query.shape[1]))
    queries, keys, values = forest.spread(query[0]), forest.spread(key[0]), forest.spread(value[0])
    repeats = queries.shape[1] // keys.shape[1]
    device = query.device
    plain = device.type == "cpu" and forest.size < LONG
    above = None
    if above_keys is not None and above_values is not None:
        if plain and len(above_keys) < len(keys):
            above = (above_keys[0], above_values[0])
        else:
            keys = torch.cat([above_keys.expand(len(keys), -1, -1, -1), keys], 2)
            values = torch.cat([above_values.expand(len(values), -1, -1, -1), values], 2)
    if forest.table:
        out = forest.table.attend(queries, keys, values, scaling, sliding_window, relative)
    elif plain:
        hidden = forest.hidden(sliding_window, repeats, device)
        bias = None if relative is None else forest.bias(relative, device)
        out = plainly(queries, keys, values, hidden, scaling, above, bias)
    elif relative is not None:
        weighed = (
            forest.bias(relative, device)
            .to(queries)
            .masked_fill(forest.hidden(sliding_window, repeats, device), float("-inf"))
        )
        out = scaled_dot_product_attention(queries, keys, values, attn_mask=weighed, scale=scaling)
    elif forest.visible is None and sliding_window is None:
        if repeats > 1:
            keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
        out = scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling)
    else:
        folded = queries.unflatten(1, (-1, repeats)).flatten(2, 3)
        mask = forest.mask(sliding_window, repeats, device)
        out = scaled_dot_product_attention(
            folded, keys, values, attn_mask=mask, scale=scaling
        ).unflatten(2, (repeats, -1))
        out = out.flatten(1, 2)
    beside = (
        None
        if forest.adaption is None
        else forest.adaption.added(module.layer_idx, queries, scaling)
    )
    return forest.gather(out if beside is None else out + beside)[None], None


@contextmanager
def attending(model: Any, forest: Forest) -> Iterator[None]:
    """A context in which the model's layers attend along the forest.

    Afterwards they are as they were.

    Args:
        model: A model that `transformers` loaded.
        forest: The forest of the pass.
    """
    import transformers

    transformers.AttentionInterface.register(NAME, _attend)
    configs = {
        id(m.config): m.config
        for m in model.modules()
        if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _FOREST.set(forest)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        _FOREST.reset(token)
        for key, config in configs.items():
            config._attn_implementation = before[key]
