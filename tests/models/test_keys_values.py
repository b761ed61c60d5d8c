"""Keys and values in several parts are read as those in one tensor."""

from __future__ import annotations

import pytest
import torch

from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.moved import Moved

#: For each layer's keys and values in turn, how many heads they have, and the size of a head.
HEADS = [(2, 3), (2, 3), (1, 4), (1, 4), (2, 2), (2, 2)]
WHOLE = torch.arange(5.0 * 28).view(5, 28)
#: One device; two, of one layer and of two; three.
RUNS = [(28,), (12, 16), (20, 8), (12, 8, 8)]


@pytest.mark.parametrize("runs", RUNS)
def test_parts_are_read_as_the_whole(runs):
    kept = KeysValues(WHOLE.split(runs, 1))
    assert (len(kept), kept.tokens, kept.values) == (5, 5, 28)
    assert torch.equal(kept.on("cpu"), WHOLE)
    assert torch.equal(kept[1:3].on("cpu"), WHOLE[1:3])
    assert torch.equal(kept[None].on("cpu"), WHOLE[None]) and kept[None].tokens == 5
    begin = 0
    for (count, size), own in zip(HEADS, kept.layers(HEADS), strict=True):
        wanted = WHOLE[:, begin : begin + count * size]
        assert torch.equal(kept.columns(begin, count * size), wanted)
        assert torch.equal(own.transpose(0, 1).flatten(1), wanted)
        begin += count * size
    one, other = kept.split([2, 3])
    assert (len(one), len(other)) == (2, 3)
    assert torch.equal(one.above(other).on("cpu"), WHOLE)
    with pytest.raises(IndexError, match="below 28"):
        kept.columns(28, 4)


@pytest.mark.parametrize("values", [28, 16, 8, 4])
@pytest.mark.parametrize("runs", RUNS)
def test_those_of_the_top_most_layers_lie_as_those_of_all(runs, values):
    kept = KeysValues(WHOLE.split(runs, 1))
    top, given = kept.top(values), kept.like(WHOLE[:, -values:])
    assert torch.equal(top.on("cpu"), WHOLE[:, -values:])
    assert [part.shape for part in given.parts] == [part.shape for part in top.parts]
    assert torch.equal(given.on("cpu"), top.on("cpu"))
    layers = {28: 6, 16: 4, 8: 2, 4: 1}[values]
    assert len(top.layers(HEADS)) == layers


def test_each_run_of_layers_on_one_device_has_a_tensor():
    there = torch.empty(5, 4, device="meta")
    kept = KeysValues.side_by_side([WHOLE[:, :6], WHOLE[:, 6:12], there, there, WHOLE[:, 20:]])
    assert [(part.device.type, part.shape[1]) for part in kept.parts] == [
        ("cpu", 12),
        ("meta", 8),
        ("cpu", 8),
    ]
    assert [part.device.type for part in kept.like(WHOLE).parts] == ["cpu", "meta", "cpu"]


def test_gradients_reach_what_is_given():
    rows = WHOLE.clone().requires_grad_()
    KeysValues(WHOLE.split((12, 16), 1)).like(rows).columns(12, 4).sum().backward()
    assert rows.grad.sum(0).nonzero().flatten().tolist() == [12, 13, 14, 15]


def test_a_tensor_is_moved_once():
    moved, meta = Moved(), torch.device("meta")
    assert moved.to(WHOLE, WHOLE.device) is WHOLE
    there = moved.to(WHOLE, meta)
    assert there.device == meta and moved.to(WHOLE, meta) is there
    assert moved.to(WHOLE.clone(), meta) is not there
