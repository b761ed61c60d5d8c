"""What the weights of a model belong to: its layers, their attention and MLP, and what is above.

The layers of an encoder-decoder model are those of the encoder and, above them, those of the
decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from promptsearch.errors import ModelError
from promptsearch.models.family import Family, family_of_model
from promptsearch.models.quantised import scheme_of
from promptsearch.models.weights import ModelWeights


def weights_of(model: Any) -> ModelWeights:
    """The weights of a model, and what they belong to.

    Args:
        model: A model that `transformers` loaded.

    Raises:
        ModelError: Its layers are not of the form that is known here: an attention and an MLP each,
            and a norm above them; or they are quantised.
    """
    from transformers.pytorch_utils import Conv1D

    if scheme := scheme_of(model):
        raise ModelError(
            f"weights that are kept in {scheme} cannot be changed: take the model with its full "
            "weights, or prompts, which leave them alone"
        )

    names = {id(module): name for name, module in model.named_modules()}
    family = family_of_model(model)
    layers, norms, heads, expected = _both(model) if family.encodes else _single(model)
    parts = [_parts(layer, family) for layer in layers]
    closed = all(isinstance(own[-1], nn.Linear) for own in filter(None, parts))
    if not layers or not (norms or closed) or not all(parts):
        raise ModelError(
            f"cannot tell the layers of {type(model).__name__} apart: expected {expected}, "
            "an attention and an MLP in each, and a norm above them or at the end of each. Weights "
            "of this model cannot be trained here; take a strategy that trains a prompt"
        )
    maps = {}
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                maps[names[id(module)]] = (module.in_features, module.out_features)
            elif isinstance(module, Conv1D):  # GPT-2's linear maps, with transposed matrices
                maps[names[id(module)]] = (module.nx, module.nf)
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return ModelWeights(
        tensors=tensors,
        layers=tuple(names[id(layer)] for layer in layers),
        parts=tuple(tuple(names[id(part)] for part in own) for own in filter(None, parts)),
        norm=names[id(norms[-1])] if norms and not (closed and family.middle) else "",
        heads=tuple(names[id(m)] for m in heads),
        maps=maps,
        norms=tuple(_all_norms(model, heads)),
        total=sum(tensor.numel() for tensor in tensors.values()),
        device=next(reversed(tensors.values())).device,
    )


class _Body(NamedTuple):
    """What a model is made of.

    Args:
        layers: Its layers, from below.
        norms: The norms above them.
        heads: What stands above its body.
        expected: The layers that its configuration names, in words.
    """

    layers: list[nn.Module]
    norms: list[nn.Module]
    heads: list[nn.Module]
    expected: str


def _single(model: Any) -> _Body:
    """A model of one stack."""
    config = model.config.get_text_config()
    body = model.base_model.get_decoder()  # itself, but for OPT and models of texts and images
    # ALBERT's layers share the weights of a few groups; each group counts as a layer here.
    count = getattr(config, "num_hidden_groups", None) or getattr(config, "num_hidden_layers", None)
    stacks = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    heads = [m for m in model.children() if m is not model.base_model]
    return _Body(list(stacks[0]) if stacks else [], _norms(body), heads, f"a list of {count}")


def _both(model: Any) -> _Body:
    """A model of encoder and decoder, one above the other."""
    bodies = (model.get_encoder(), model.get_decoder())
    stacks = [
        next((m for m in body.children() if isinstance(m, nn.ModuleList)), nn.ModuleList())
        for body in bodies
    ]
    layers = [layer for stack in stacks for layer in stack] if all(map(len, stacks)) else []
    below = {model.get_input_embeddings(), *bodies}
    heads = [m for m in model.children() if not below & set(m.modules())]
    # BART has a norm below its layers, and none above them; mBART has both.
    below |= {m for name, m in bodies[1].named_children() if "embedding" in name}
    norms = [m for m in _norms(bodies[1]) if m not in below]
    return _Body(layers, norms, heads, "a list in the encoder, and one in the decoder")


def _all_norms(model: Any, heads: Sequence[nn.Module]) -> Iterator[str]:
    """The names of the norms below the heads: modules of one piece whose weights are vectors."""
    above = {module for head in heads for module in head.modules()}
    for name, module in model.named_modules():
        own = list(module.parameters())
        whole = module not in above and not list(module.children())
        if whole and own and all(parameter.ndim == 1 for parameter in own):
            yield name


def _norms(body: nn.Module) -> list[nn.Module]:
    return [
        m
        for m in body.children()
        if (own := list(m.parameters())) and all(p.ndim == 1 for p in own)
    ]


def _parts(layer: nn.Module, family: Family) -> Sequence[nn.Module] | None:
    """A layer's attentions and MLP; None where they are not found.

    In layers that end with a norm, as BERT's, ALBERT's and BART's do, they are the linear maps with
    which attention and MLP end: what is added to these is added before the norm, too, as Houlsby et
    al. do it. T5's layers hold each of them beside a norm. OPT's hold the two linear maps of their
    MLP themselves, of which the second stands for it.

    Args:
        layer: The layer.
        family: The model's family.
    """
    linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in layer.modules() if isinstance(m, nn.LayerNorm)]
    # Four maps of each attention: queries, keys, values and what joins the heads; into the MLP, and
    # out of it.
    if family.both_ways and (len(linear), len(norms)) in ((6, 2), (10, 3)):
        return [*linear[3:-2:4], linear[-1]]
    inside = next((m for m in layer.children() if isinstance(m, nn.ModuleList)), None)
    held = [layer] if inside is None else list(inside)
    found = [m for one in held for m in one.children() if any(p.ndim > 1 for p in m.parameters())]
    while len(found) > 2 and all(isinstance(m, nn.Linear) for m in found[-2:]):
        del found[-2]
    return found if len(found) == 2 or (family.encodes and len(found) == 3) else None
