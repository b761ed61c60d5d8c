"""Attention to gated prompts, as in LLaMA-Adapter: beside the text, at the top layers, with gates.

A gated prompt stands *beside* the text: it fills no slot and takes no place in the row. Zhang et
al. 2023, arXiv:2303.16199, section 3.2: at an adapted layer the queries Q of the text attend to the
text as ever, and to the vectors of the prompt by a second softmax:

    softmax(Q K_text^T / sqrt(d)) V_text + gate * softmax(Q K_prompt^T / sqrt(d)) V_prompt

K_prompt and V_prompt are the layer's own projections of the vectors. Unlike the queries, these keys
are not turned to positions (as in the authors' code, alpaca_finetuning_v1/llama/model.py, and in
PEFT). In a pass for several prompts, the *owner* of a tree of tokens is the prompt that this tree
attends to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from promptsearch.models.attention.layers import Layers
from promptsearch.models.attention.moved import Moved


@dataclass(frozen=True)
class Adaption:
    """The gated prompts of one call, projected.

    Args:
        first: The lowest layer that attends to them.
        keys: The prompts' keys at each layer from there on, shape `(prompts, key heads, length,
            size of a head)`.
        values: The prompts' values, like `keys`.
        gates: The prompts' gates at each layer from there on, shape `(prompts, heads)`.
        late: Whether what a prompt adds is added behind the output projection of the attention,
            boolean, shape `(prompts,)`; None where it never is.
        within: Which keys are a prompt's own and which are padding, boolean, shape
            `(prompts, length)`; None where all prompts have the same length.
        owners: The prompt of each tree in a pass, shape `(trees,)`; None where there is but one.
        attentions: The attentions of all layers.
    """

    first: int
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    gates: Sequence[Tensor]
    late: Tensor | None = None
    within: Tensor | None = None
    owners: Tensor | None = None
    attentions: Sequence[nn.Module] = ()
    #: Layer -> what is still to be added behind its output projection.
    _later: dict[int, Tensor] = field(default_factory=dict)
    _moved: Moved = field(default_factory=Moved)

    def of(self, owners: Sequence[int]) -> Adaption:
        """The same prompts, for a pass whose trees attend to those that `owners` names.

        Args:
            owners: The place of its prompt for each tree.
        """
        alone = len(self.gates[0]) == 1
        return replace(
            self,
            owners=None if alone else torch.tensor(owners, device=self.gates[0].device),
            _later={},
            _moved=Moved(),
        )

    def added(self, layer: int, queries: Tensor, scaling: float | None) -> Tensor | None:
        """What is added to the text's attention, before the output projection.

        Args:
            layer: The number of the layer.
            queries: The queries, turned to their positions, shape `(trees, heads, tokens, size of
                a head)`.
            scaling: The factor for the products of queries and keys; None for
                1 / sqrt(size of a head).

        Returns:
            Shape like `queries`; None below `first`.
        """
        if layer < self.first:
            return None
        keys, values, gates = (
            self._own(tensors[layer - self.first])
            for tensors in (self.keys, self.values, self.gates)
        )
        repeats = queries.shape[1] // keys.shape[1]
        scale = queries.shape[-1] ** -0.5 if scaling is None else scaling
        # The query heads that share a key head stand one below the other, so that keys and values
        # are never copied.
        folded = queries.unflatten(1, (-1, repeats)).flatten(2, 3) * scale
        products = folded @ keys.transpose(2, 3)
        if self.within is not None:
            within = self._own(self._moved.to(self.within, queries.device))
            products = products.masked_fill(~within[:, None, None], float("-inf"))
        read = products.softmax(-1) @ values
        found: Tensor = read.unflatten(2, (repeats, -1)).flatten(1, 2) * gates[:, :, None, None]
        if self.late is None:
            return found
        late = self._own(self._moved.to(self.late, queries.device))[:, None, None, None]
        self._later[layer] = found * late
        return found * ~late

    @contextmanager
    def added_behind(self, join: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """A context in which what belongs behind an output projection is added there.

        Args:
            join: Brings `(trees, heads, tokens, size of a head)` to the shape of the attentions'
                output.
        """

        def add(module: Any, inputs: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
            later = self._later.pop(module.layer_idx, None)
            return output if later is None else (output[0] + join(later), *output[1:])

        with ExitStack() as hooks:
            for attention in () if self.late is None else self.attentions:
                hooks.enter_context(attention.register_forward_hook(add))
            yield

    def _own(self, of_prompts: Tensor) -> Tensor:
        """The entry of each tree's prompt; a single prompt's entry serves all trees."""
        if self.owners is None:
            return of_prompts
        return of_prompts.index_select(0, self._moved.to(self.owners, of_prompts.device))


def project(layers: Layers, prompts: Sequence[tuple[Tensor, Tensor]], like: Tensor) -> Adaption:
    """Gated prompts as the layers attend to them; gradients flow back.

    Args:
        layers: The LM's layers.
        prompts: The vectors and the gates of each prompt, see `GatedPrompt`.
        like: A tensor of the dtype of the layers, where the model's inputs lie. Keys, values and
            gates are made where each layer lies.
    """
    count = max(len(gates) for _, gates in prompts)
    length = max(len(vectors) for vectors, _ in prompts)
    # A prompt for fewer layers than others gets gates of zero below these, and adds nothing there.
    vectors = torch.stack(
        [pad(v.to(like), (0, 0, count - v.shape[1], 0, 0, length - len(v))) for v, _ in prompts]
    )
    gates = torch.stack(
        [pad(g.to(like).expand(-1, layers.heads), (0, 0, count - len(g), 0)) for _, g in prompts]
    )
    first = len(layers) - count
    keys, values = zip(
        *(layers.project(first + i, vectors[:, :, i]) for i in range(count)), strict=True
    )
    late = torch.tensor([layers.fused and g.shape[1] == 1 for _, g in prompts], device=like.device)
    lengths = torch.tensor([len(v) for v, _ in prompts], device=like.device)
    within = torch.arange(length, device=like.device) < lengths[:, None]
    return Adaption(
        first,
        keys,
        values,
        [own.to(key.device) for own, key in zip(gates.unbind(1), keys, strict=True)],
        late=late if bool(late.any()) else None,
        within=None if bool(within.all()) else within,
        attentions=layers.attentions,
    )
