"""Gradient descent: one step after another moves an encoder's parameters down the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from promptsearch.errors import Diverged
from promptsearch.models.optimizers import adafactor
from promptsearch.prompts.numbers import Numbers, leaves_of, tensors_of
from promptsearch.records.scores import ExampleIds

#: `adamw`, without weight decay, or `adafactor`, which scales its steps itself and clips nothing.
Optimizer = Literal["adamw", "adafactor"]


class Step(NamedTuple):
    """What a step has seen.

    Args:
        loss: The mean loss in nats before the step.
        norms: The norms of the gradient by row or, where the encoder makes several tensors, by
            tensor, shape `(rows,)`.
        clipped: Whether the gradient was clipped.
    """

    loss: float
    norms: Tensor
    clipped: bool


class Descent:
    """An encoder's way down the loss.

    Args:
        encoder: The module whose parameters are moved; called without arguments, it returns the
            prompt's numbers.
        shares: Its parts, each with the factor by which its rate is multiplied.
        optimizer: What makes steps of gradients.
        clip: The largest norm of the gradient; a larger gradient is scaled down to it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        shares: Mapping[nn.Module, float],
        optimizer: Optimizer,
        clip: float,
    ) -> None:
        self._encoder, self._shares, self._kind, self._clip = encoder, shares, optimizer, clip
        self.forget()

    def forget(self) -> None:
        """Begin with a new optimizer. It has no rate, since each step sets its own."""
        groups = [
            {"params": list(part.parameters()), "share": share}
            for part, share in self._shares.items()
        ]
        self._optimizer = (
            adafactor(groups)
            if self._kind == "adafactor"
            else torch.optim.AdamW(groups, weight_decay=0.0)
        )

    def step(
        self,
        loss: Callable[[Numbers, ExampleIds], Tensor],
        parts: Sequence[ExampleIds],
        rate: float,
    ) -> Step:
        """Move the parameters once.

        Args:
            loss: Returns the mean loss of numbers on some examples, shape `()`.
            parts: The ids of the minibatch's examples. The gradients of one part after the other
                are added up, which is the same step in less memory.
            rate: The learning rate.

        Raises:
            Diverged: The loss or the gradient is not finite; the encoder is as before.
        """
        made = self._encoder()
        # The encoder is passed once, whatever the number of parts: their gradients are added up at
        # its output.
        numbers = leaves_of(made)
        batch, mean = sum(map(len, parts)), 0.0
        for part in parts:
            weighted = loss(numbers, part) * (len(part) / batch)
            if weighted.requires_grad:
                weighted.backward()
            mean += float(weighted.detach())
        gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors_of(numbers)]
        if isinstance(made, Tensor):
            norms = gradients[0].flatten(1).norm(dim=1)
        else:  # vectors lie on the CPU, and weights beside them where the LM's are
            each = [gradient.norm() for gradient in gradients]
            norms = torch.stack([norm.to(each[-1].device) for norm in each])
        if not (np.isfinite(mean) and bool(torch.isfinite(norms).all())):
            raise Diverged("loss or gradient of a training step is not finite: lower the rate")
        self._optimizer.zero_grad()
        torch.autograd.backward(tensors_of(made), gradients)
        clipped = self._kind == "adamw" and self._clipped()
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.step()
        return Step(mean, norms, clipped)

    def _clipped(self) -> bool:
        """Scale the gradient down to the largest norm; whether it was larger."""
        norm = nn.utils.clip_grad_norm_(self._encoder.parameters(), self._clip)
        return float(norm) > self._clip

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the parameters and of what the optimizer remembers, by name."""
        found = {
            f"encoder.{name}": tensor.clone() for name, tensor in self._encoder.state_dict().items()
        }
        for i, moments in self._optimizer.state_dict()["state"].items():
            found |= {
                f"optimizer.{i}.{name}": torch.as_tensor(value).clone()
                for name, value in moments.items()
            }
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned; other names among them make no difference."""
        encoder: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "encoder":
                encoder[name] = tensor
            elif kind == "optimizer":
                place, _, moment = name.partition(".")
                moments.setdefault(int(place), {})[moment] = tensor
        self._encoder.load_state_dict(encoder)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
