"""Adafactor, with the settings that prompt tuning was published with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def adafactor(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) whose rate is set from outside.

    As in Lester et al. 2021, section 3: weight decay 1e-5, second moments of decay 0.8, and a rate that is not multiplied by the
    parameters' scale, as that of torch's Adafactor is.

    Args:
        parameters: What to train.
    """
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=1.0, decay_rate=-0.8, weight_decay=1e-5, scale_parameter=False, relative_step=False)
