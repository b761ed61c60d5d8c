"""From logits at the answers' positions to losses and right or wrong."""

from __future__ import annotations

import torch
from torch import Tensor


def choice_scores(log_probabilities: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and metric of tasks of choice.

    Args:
        log_probabilities: Summed token log-probabilities (or, for answers of one token, logits: the softmax over the
            choices is the same), shape `(rows, choices)`.
        right: The right choice, shape `(rows,)`.

    Returns:
        Losses in nats, shape `(rows,)`; 1 where the right choice is strictly the most probable (a tie is wrong), shape
        `(rows,)`; log-probabilities over the choices, shape `(rows, choices)`.
    """
    normalised = log_probabilities.log_softmax(-1)
    chosen = normalised.gather(-1, right[:, None])
    others = normalised.scatter(-1, right[:, None], float("-inf"))
    correct = chosen[:, 0] > others.max(-1).values
    return -chosen[:, 0], correct, normalised


def token_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token, and whether greedy decoding would give it.

    Args:
        logits: Shape `(rows, vocabulary)`.
        targets: Token ids, shape `(rows,)`.

    Returns:
        Nats (negative), shape `(rows,)`, and booleans, shape `(rows,)`.
    """
    own = logits.gather(-1, targets[:, None])[:, 0]
    return own - torch.logsumexp(logits, -1), logits.argmax(-1) == targets
