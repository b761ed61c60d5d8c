"""BERTScore (Zhang et al. 2020, arXiv:1904.09675), over any encoder.

Its numbers depend on the encoder, the layer and the libraries: only those of one signature compare.
They are not rescaled by a baseline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptsearch.tasks.metrics.encoder import Encoded, OverEncoder, Weights
from promptsearch.tasks.metrics.metric import Floats


class BertScore(OverEncoder):
    """The mean over rows of the F of tokens matched by the cosine of their states.

    The best of several references counts. `OverEncoder` has the options.
    """

    name = "bertscore"
    bounds = (-1.0, 1.0)
    mean = True

    def alike(self, given: Encoded, wanted: Encoded, weights: Weights) -> float:
        """F1 of equation 1, with the weights of section 3 for idf."""
        # Special tokens weigh nothing, but others may find their match in them, as in the paper's
        # code.
        mine, theirs = weights.of(given), weights.of(wanted)
        if not mine.sum() or not theirs.sum():
            return 0.0
        cosines = _unit(given.states) @ _unit(wanted.states).T  # (tokens given, tokens wanted)
        precision = float(cosines.max(axis=1) @ mine / mine.sum())
        recall = float(cosines.max(axis=0) @ theirs / theirs.sum())
        both = precision + recall
        return 2 * precision * recall / both if both > 0 else 0.0


def _unit(states: NDArray[np.float32]) -> Floats:
    wide = states.astype(np.float64)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
    return unit
