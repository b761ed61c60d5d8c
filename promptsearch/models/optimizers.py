"""Adafactor, with the settings that prompt tuning was published with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def adafactor(groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) whose rate is set from outside.

    The settings are those of Lester et al. 2021, section 3: weight decay 1e-5 and second moments
    that decay with 0.8. The rate is not multiplied by the parameters' scale; torch's own Adafactor
    would do that.

    Args:
        groups: The groups of parameters to train, as in torch's optimizers.
    """
    from transformers.optimization import Adafactor

    return Adafactor(
        groups,
        lr=1.0,
        decay_rate=-0.8,
        weight_decay=1e-5,
        scale_parameter=False,
        relative_step=False,
    )
