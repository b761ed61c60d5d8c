"""Padded trunks are those of torch, whatever stood in their memory before."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from promptsearch.scoring import padding
from promptsearch.scoring.padding import padded

CASES = [
    ((3, 1, 5), 4, torch.float32),
    ((2, 2), 4, torch.bfloat16),
    ((7, 0, 1, 2), 6, torch.float32),
    ((1, 4), 2, torch.float32),
]


def trunks(lengths, width, dtype):
    return [torch.randn(length, width).to(dtype) for length in lengths]


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode, nullcontext])
def test_trunks_are_padded_with_zeros_call_after_call(within):
    for case in (*CASES, *CASES):
        given = trunks(*case)
        with within():
            assert torch.equal(padded(given), pad_sequence(given, batch_first=True)), case


def test_a_gradient_reaches_the_trunks_and_no_later_call_changes_them():
    given = [each.requires_grad_() for each in trunks(*CASES[0])]
    first = padded(given)
    before = first.detach().clone()
    padded(trunks(*CASES[0]))
    assert torch.equal(first, before)
    first.sum().backward()
    assert all(torch.equal(each.grad, torch.ones_like(each)) for each in given)


def test_memory_is_taken_again_by_the_same_thread_only(monkeypatch):
    found = []

    def pad():
        with torch.no_grad():
            found.append(padded(trunks(*CASES[0])).data_ptr())

    pad()
    pad()
    other = threading.Thread(target=pad)
    other.start()
    other.join()
    assert found[0] == found[1] != found[2]
    monkeypatch.setattr(padding, "LARGEST", 8)
    pad()
    assert found[3] != found[0]
