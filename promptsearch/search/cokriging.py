"""Two fidelities: what losses on few examples say of the loss on all.

Kennedy and O'Hagan 2000, "Predicting the output from a complex computer code when fast
approximations are available", Biometrika 87, https://doi.org/10.1093/biomet/87.1.1. In their
equation 1 the costly function, here the loss f on all examples, is a multiple of the cheap one,
here the loss g on few, and a difference that is a Gaussian process of its own:

    f(prompt) = rho * g(prompt) + delta(prompt)

Prompts that were scored on all examples have a loss on the few, too. So the likelihood falls apart
into that of g and that of delta (their section 2.3), and each has its own kernel.

Differs from the paper: rho is the slope of a least-squares line, and the difference has a little
noise, as g has: what no kernel of tokens explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptsearch.records.scores import Floats
from promptsearch.search.gaussian_process import Process, Rows, fit


@dataclass(frozen=True)
class Link:
    """From losses on few examples to losses on all.

    Args:
        rows: Prompts that were scored on all examples, shape `(rows, length)`.
        rest: What delta was for each of them, shape `(rows,)`.
        rho: How much f moves with g.
        process: Delta's.
    """

    rows: Rows
    rest: Floats
    rho: float
    process: Process

    def predict(
        self, among: Rows, few: Floats, deviation: Floats, vectors: Floats
    ) -> tuple[Floats, Floats]:
        """What f is thought to be.

        Args:
            among: Prompts, shape `(among, length)`.
            few: Their g, or what it is thought to be, shape `(among,)`.
            deviation: How uncertain that is: 0 for a prompt that was scored on the few examples,
                shape `(among,)`.
            vectors: Directions of the pool's tokens, shape `(pool, width)`.

        Returns:
            The means and the standard deviations, in the unit of f, shape `(among,)` each.
        """
        mean, own = self.process.predict(self.rows, self.rest, among, vectors)
        scale = self.rest.std()
        return (
            self.rho * few + self.rest.mean() + scale * mean,
            np.hypot(self.rho * deviation, max(scale, 1e-9) * own),
        )


def link(
    rows: Rows, few: Floats, whole: Floats, vectors: Floats, process: Process | None = None
) -> Link:
    """Learn from prompts that were scored on all examples.

    Args:
        rows: The prompts, at least two, shape `(rows, length)`.
        few: Their g, shape `(rows,)`.
        whole: Their f, shape `(rows,)`.
        vectors: Directions of the pool's tokens, shape `(pool, width)`.
        process: Delta's, chosen before; left out: it is chosen by these prompts.
    """
    apart = few - few.mean()
    # A falling line would say that the few examples speak against all of them: then they say
    # nothing.
    rho = max(0.0, float(apart @ whole) / max(float(apart @ apart), 1e-12))
    rest = whole - rho * few
    return Link(rows, rest, rho, process or fit(rows, rest, vectors))
