"""The rounding error of a model's log-probabilities, measured by Monte Carlo arithmetic.

Each layer passes on the rounding errors of those below it, larger or smaller. How much larger
depends on its weights; no formula in width and depth tells it: between models of one size the
errors differ by a factor of 60. So the error is measured on the model itself: the last bit of every
number that a module puts out is shaken, again and again, and the outputs then scatter as they would
if the same operations were done in different orders (Parker 1997, "Monte Carlo Arithmetic", UCLA
CSD-970002). Nothing depends on the machine, on who made a prompt, or on luck: the bits are drawn
from a seed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

#: How often the model is shaken: with all tokens of a vocabulary at 32 places, the result is good
#: to a few percent.
_DRAWS = 4


def rounding_noise(model: Any, ids: Tensor) -> float:
    """The standard deviation of a token's log-probability under rounding, in nats.

    Args:
        model: A language model from transformers, in the dtype whose rounding is meant.
        ids: A row of any tokens, shape `(tokens,)`.
    """
    generator = torch.Generator().manual_seed(0)

    def shake(module: Any, given: Any, found: Any) -> Any:
        if not (isinstance(found, Tensor) and found.is_floating_point()):
            return found
        signs = torch.randint(0, 2, found.shape, generator=generator, dtype=torch.int8) * 2 - 1
        return found * (1 + torch.finfo(found.dtype).eps * signs.to(found))

    inputs = {"input_ids": ids[None]}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[None]

    def nats() -> Tensor:
        logits: Tensor = model(**inputs).logits[0].float().cpu()
        return logits.double().log_softmax(-1)

    squares = []
    with torch.inference_mode(), ExitStack() as hooks:
        still = nats()
        for module in model.modules():
            if not any(True for _ in module.children()):
                hooks.enter_context(module.register_forward_hook(shake))
        for _ in range(_DRAWS):
            moved = (nats() - still).square()
            squares.append(moved[moved.isfinite()].mean())  # some models rule tokens out
    return float(torch.stack(squares).mean().sqrt())
