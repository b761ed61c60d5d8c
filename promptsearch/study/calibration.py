"""The speed of this machine and the error of its fast arithmetic.

Both are measured on a few prompts and examples before a study. Where rows are long, the speed is
measured on fewer of them, those of the usual length: a forecast is not to take longer than it says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from promptsearch.prompts.numbers import length_of, mapped
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Floats
from promptsearch.records.study import NoiseRecord
from promptsearch.scoring.protocol import inside
from promptsearch.scoring.scorer import SplitScorer
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.study.arena import Arena

T = TypeVar("T")

#: Prompts and examples whose losses are compared in both dtypes.
_NOISE_PROMPTS, _NOISE_EXAMPLES = 4, 16
#: Examples and prompts of the two calls that are timed, in the search's dtype and in float32.
_TIMED_EXAMPLES, _TIMED_PROMPTS = 32, {"search": (1, 8), "exact": (1, 3)}
#: Examples of the two training steps that are timed.
_STEPS = (4, 16)
#: Full passes that the larger call takes at most, and the larger step with its gradient. Where rows
#: are so long that all of the above would take more, fewer are timed, and never fewer than two.
_PASSES, _STEP_PASSES, _FEWEST = 3, 2, 2


def measure_noise(arena: Arena) -> NoiseRecord | None:
    """Score a few prompts in both dtypes, beside others and alone; None where no loss is finite.

    Args:
        arena: Task, model and prompt length.
    """
    if arena.lm.served:
        return None  # there is one dtype, and each look would have to be paid
    prompts = arena.samples(np.random.default_rng(0), _NOISE_PROMPTS)
    ids = arena.scored[:_NOISE_EXAMPLES]
    exact = arena.exact["search"].score(prompts, ids).losses
    fast = arena.searching.score(prompts, ids).losses
    alone = np.concatenate([arena.searching.score([prompt], ids).losses for prompt in prompts])
    good = np.isfinite(exact + fast + alone).all(1)
    if not good.any():
        return None
    error = (fast - exact)[good]
    return NoiseRecord(
        example=float(np.abs(error).max()),
        prompt=float(np.abs(error.mean(1)).max()),
        beside=float(np.abs((fast - alone)[good]).max()),
    )


@dataclass(frozen=True)
class Speed:
    """Seconds of a call: a part for the call and a part for each token of its predicted cost."""

    call: float
    token: float

    def seconds(self, cost: float) -> float:
        """The seconds of a call of this cost in tokens."""
        return self.call + self.token * cost

    @staticmethod
    def through(small: tuple[float, float], large: tuple[float, float]) -> Speed:
        """The line through two calls.

        Args:
            small: Cost in tokens, and seconds.
            large: The same of a call of more tokens.
        """
        if (
            large[0] <= small[0] or large[1] <= small[1]
        ):  # too little data for two sizes, or a disturbed call
            return Speed(0.0, large[1] / large[0])
        token = (large[1] - small[1]) / (large[0] - small[0])
        return Speed(max(0.0, small[1] - token * small[0]), token)


@dataclass(frozen=True)
class Calibration:
    """Speeds of this machine on one task, and how losses vary there.

    Args:
        search: Scoring in the search's dtype.
        exact: Scoring in float32.
        training: Forward and backward of a trained prompt, per token and pass; None where nothing
            is trained.
        means: Mean losses of random prompts, in nats, shape `(prompts,)`.
        residual: Standard deviation in nats of what is left of a loss when its prompt's and its
            example's means are taken off.
        examples: Mean losses of examples, in nats, shape `(examples,)`.
    """

    search: Speed
    exact: Speed
    training: Speed | None
    means: Floats
    residual: float
    examples: Floats


#: What stands for a measurement of a model behind an endpoint, where each look costs: no time is
#: known, and losses vary as they often do.
_UNMEASURED = Calibration(
    Speed(0.0, 0.0), Speed(0.0, 0.0), None, np.array([0.6, 0.8]), 0.5, np.array([0.7])
)


def calibrate(arena: Arena, trains: bool) -> Calibration:
    """Time a few calls.

    Args:
        arena: Task, model and prompt length.
        trains: Whether a strategy wants gradients.
    """
    if arena.lm.served:
        return _UNMEASURED
    ids, many = _timed(arena)
    sizes = {name: (few, min(most, many)) for name, (few, most) in _TIMED_PROMPTS.items()}
    prompts = arena.samples(np.random.default_rng(1), sum(sizes["search"]))
    gpu = arena.lm.device.type == "cuda"
    search, losses = _scoring(arena.searching, prompts, ids, sizes["search"], gpu)
    exact = search if arena.searching is arena.exact["search"] else None
    finite = losses[np.isfinite(losses).all(1)]
    losses = finite if len(finite) > 1 else np.zeros((2, len(ids)))
    means, examples = losses.mean(1), losses.mean(0)
    return Calibration(
        search=search,
        exact=exact or _scoring(arena.exact["search"], prompts, ids, sizes["exact"], gpu)[0],
        training=_training(arena) if trains else None,
        means=means,
        residual=float((losses - means[:, None] - examples + losses.mean()).std()),
        examples=examples,
    )


def _timed(arena: Arena) -> tuple[ExampleIds, int]:
    """The examples of the larger call, and its number of prompts; fewer of both for long rows."""
    engine, ids, prompts = arena.searching, arena.scored, _TIMED_PROMPTS["search"][1]
    own = engine.adds(arena.template.length).tokens
    read = engine.context(ids) + own * engine.readings(ids)
    tokens = read.astype(np.float64)
    usual = max(1.0, float(np.median(tokens)))
    rows = max(_FEWEST**2, int(_PASSES * _pass_tokens(arena) // usual))
    prompts = min(prompts, rows // _FEWEST)
    return _usual(tokens, min(_TIMED_EXAMPLES, rows // prompts)), prompts


def _usual(tokens: Floats, count: int) -> ExampleIds:
    """So many of the scored examples, those whose lengths are nearest to the median.

    Args:
        tokens: The lengths of the scored examples, shape `(examples,)`.
        count: How many.
    """
    nearest = np.argsort(np.abs(tokens - np.median(tokens)), kind="stable")
    found: ExampleIds = np.sort(nearest[:count])
    return found


def _pass_tokens(arena: Arena) -> int:
    """The tokens that fill a pass on the model's device."""
    return PASS_TOKENS.get(torch.device(arena.lm.device).type, PASS_TOKENS["cpu"])


def _scoring(
    engine: SplitScorer,
    prompts: Sequence[Prompt],
    ids: ExampleIds,
    sizes: tuple[int, int],
    gpu: bool,
) -> tuple[Speed, Floats]:
    few, many = prompts[: sizes[0]], prompts[sizes[0] : sum(sizes)]
    # What is computed once, and what libraries set up; CUDA does so for each size of products.
    for some in (few, many) if gpu else (few,):
        engine.score(some, ids if gpu or engine.lead(ids).any() else ids[:1])
    points, losses = [], []
    for some in (few, many):
        seconds, scores = _clock(engine.score, some, ids)
        points.append((engine.predict(some, ids).cost, seconds))
        losses.append(scores.losses)
    return Speed.through(*points), np.concatenate(losses)


def _training(arena: Arena) -> Speed:
    """The speed of training steps whose inputs are kept, where they stand before the prompt.

    Kept means that their keys and values are not computed again.
    """
    engine = arena.searching
    white_box = inside(engine, "gradients")
    first = arena.samples(np.random.default_rng(2), 1)[0]
    numbers = mapped(first.to_train(white_box), _leaf)
    passes = sum(white_box.passes(numbers))
    own = engine.adds(length_of(numbers)).tokens
    tokens = white_box.step_context(arena.scored) + own
    affordable = int(_STEP_PASSES * _pass_tokens(arena) // (passes * float(np.median(tokens))))
    many = max(_FEWEST, min(_STEPS[1], affordable))
    timed = _usual(tokens, many)

    def step(ids: ExampleIds) -> None:
        white_box.loss(numbers, ids).backward()

    points = []
    step(timed)  # what is computed once
    for size in (min(_STEPS[0], many // _FEWEST), many):
        ids = timed[:size]
        read = float(white_box.step_context(ids, 0).sum()) + len(ids) * own
        points.append((passes * read, _clock(step, ids)[0]))
    return Speed.through(*points)


def _leaf(numbers: Tensor) -> Tensor:
    """The numbers as a leaf on the CPU, as strategies hold them.

    Handing back the gradient waits for the device.
    """
    return numbers.float().cpu().clone().requires_grad_()


def _clock(work: Callable[..., T], *given: Any) -> tuple[float, T]:
    begin = time.perf_counter()
    result = work(*given)
    return time.perf_counter() - begin, result
