"""Standard normal numbers by place: fast, repeatable, and the same however the cells are gone through.

A tensor of cells is [column, weight].  The number of column p of weight i is the quantile of 12 bits of a hash
(SplitMix64) of the stream and (i, p / 4).  The quantiles are 4,096 midpoints of equal probability, scaled to a variance
of 1; nothing is farther from 0 than 3.7 standard deviations.
Source of the hash: Steele et al., Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tierform.arrays import Bytes, Flags, Ints, Singles

_LEVELS = 1 << 12


@lru_cache(maxsize=1)
def quantiles() -> NDArray[np.float32]:
    """The table of quantiles."""
    from scipy.special import ndtri

    values = ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
    return np.ascontiguousarray(values / np.sqrt(np.mean(values**2)), np.float32)


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def hashed(stream: np.uint64, number: np.uint64) -> np.uint64:
    """64 bits for a stream and a number."""
    z = stream + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def fill_normal(stream: np.uint64, table: Singles, out: Singles) -> None:
    """The numbers of all places into an array [column, weight]."""
    columns, weights = out.shape
    quarters = (columns + 3) // 4
    for i in range(weights):
        for quarter in range(quarters):
            bits = hashed(stream, np.uint64(i * quarters + quarter))
            for p in range(4 * quarter, min(columns, 4 * quarter + 4)):
                out[p, i] = table[bits & np.uint64(4095)]
                bits >>= np.uint64(16)


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def fold_programmed(
    cells: Bytes,
    factors: Singles,
    sigma: np.float32,
    floor: np.float32,
    flipped: Flags,
    starts: Ints,
    top: np.float32,
    stream: np.uint64,
    table: Singles,
    offset: np.float32,
    scales: Singles,
    out: Singles,
) -> None:
    """Set `out` (outputs, inputs) to what cells with a Gaussian programming error stand for, less `offset`, scaled.

    `cells` [column, output, input] are levels, `sigma` and `floor` are in levels; the errors are those that
    :func:`fill_normal` gives for the places of `cells`.  `flipped` [block, column, output] marks inverted columns, of
    blocks of inputs that begin at `starts`; it is empty where there are none.  `scales` are [block, output].
    """
    columns, outputs, inputs = cells.shape
    quarters = (columns + 3) // 4
    sign, base = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for n in range(outputs):
        for block in range(starts.size - 1):
            for p in range(columns):  # an inverted column gives its greatest level less what it holds
                turned = flipped.size > 0 and flipped[block, p, n]
                sign[p] = -factors[p] if turned else factors[p]
                base[p] = factors[p] * top if turned else 0
            rest, scale = base.sum() - offset, scales[block, n]
            if columns == 4:
                for k in range(starts[block], starts[block + 1]):
                    bits = hashed(stream, np.uint64(n * inputs + k))
                    a = max(np.float32(cells[0, n, k]) + sigma * table[bits & np.uint64(4095)], floor)
                    b = max(
                        np.float32(cells[1, n, k]) + sigma * table[(bits >> np.uint64(16)) & np.uint64(4095)], floor
                    )
                    c = max(
                        np.float32(cells[2, n, k]) + sigma * table[(bits >> np.uint64(32)) & np.uint64(4095)], floor
                    )
                    d = max(
                        np.float32(cells[3, n, k]) + sigma * table[(bits >> np.uint64(48)) & np.uint64(4095)], floor
                    )
                    out[n, k] = (rest + sign[0] * a + sign[1] * b + sign[2] * c + sign[3] * d) * scale
                continue
            for k in range(starts[block], starts[block + 1]):
                total, bits = rest, np.uint64(0)
                for p in range(columns):
                    if p % 4 == 0:
                        bits = hashed(stream, np.uint64((n * inputs + k) * quarters + p // 4))
                    total += sign[p] * max(np.float32(cells[p, n, k]) + sigma * table[bits & np.uint64(4095)], floor)
                    bits >>= np.uint64(16)
                out[n, k] = total * scale
