"""How long a processor takes for a product of few rows: a decode step, or the verification of a few drafted tokens.

    one row         start + weights * first
    m rows, 2 <= m  start + weights * (stream + m * row)

A library multiplies one row by its own kernel for a vector, which streams the weights; from two rows on it packs them,
and each row costs arithmetic besides.  The general model (:mod:`tierform.chip.gpu.gemm`), made for tiles of many rows,
knows neither.  All times are fitted; none of them is shared with the general model.
Between numbers of rows a library changes its kernels.  A chip file may have a factor for each, measured in a step of
decoding (:mod:`tierform.decoding.reference_step`).
Limits: weights that come from memory, in the format that was measured; products in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierform.chip.gpu.samples import Sample

Array = NDArray[np.float64]
MOST_ROWS = 8
_LEAST_SAMPLES, _CAP, _ROUNDS, _FIRST_STEP, _LAST_STEP = 8, 0.5, 60, 0.2, 1e-3


@dataclass(frozen=True, slots=True)
class FewRows:
    """Seconds: of starting a product, and for each weight, of `first` with one row, of `stream` + m * `row` with m."""

    start_s: float
    first_s: float
    stream_s: float
    row_s: float

    def seconds(self, m: ArrayLike, weights: ArrayLike) -> Array:
        """Time of products of m rows with so many weights."""
        m, weights = np.asarray(m, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        each = np.where(m == 1, self.first_s, self.stream_s + m * self.row_s)
        found: Array = self.start_s + weights * each
        return found


def fit_few_rows(samples: Sequence[Sample]) -> FewRows | None:
    """Fitted on the samples of few rows; None with fewer than eight, or none of one row or of several row counts.

    The objective is the mean of |ln(ours / measured)|, capped for each sample; each logarithm in turn is tried a step
    up and down.
    """
    few = [one for one in samples if one.shape[0] <= MOST_ROWS]
    m = np.array([one.shape[0] for one in few], dtype=np.float64)
    if len(few) < _LEAST_SAMPLES or not (m == 1).any() or len(set(m[m > 1].tolist())) < 2:
        return None
    weights = np.array([one.shape[1] * one.shape[2] for one in few], dtype=np.float64)
    measured = np.array([one.seconds for one in few])
    each = measured / weights

    def objective(point: Array) -> float:
        errors = np.abs(np.log(FewRows(*np.exp(point).tolist()).seconds(m, weights) / measured))
        return float(np.mean(np.minimum(errors, _CAP)))

    single, several = float(np.median(each[m == 1])), float(np.median(each[m > 1]))
    best, lowest = np.zeros(4), np.inf
    for share in (0.2, 0.5, 0.8):  # of a product's time that is not its rows'
        rows = (1 - share) * several / float(np.median(m[m > 1]))
        point = np.log([float(measured.min()) / 10, single, share * several, rows])
        value, steps = objective(point), np.full(4, _FIRST_STEP)
        for _ in range(_ROUNDS):
            for place in range(4):
                for sign in (1.0, -1.0):
                    tried = point.copy()
                    tried[place] += sign * steps[place]
                    if (found := objective(tried)) < value:
                        point, value = tried, found
                        steps[place] *= 1.5
                        break
                else:
                    steps[place] *= 0.5
            if steps.max() < _LAST_STEP:
                break
        if value < lowest:
            best, lowest = point, value
    return FewRows(*np.exp(best).tolist())
