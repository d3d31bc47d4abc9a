"""Standard normal numbers by place: fast, repeatable, and the same however the cells are gone through.

The number at place i of stream s is the quantile of 16 bits of a hash (SplitMix64) of (s, i / 4).  The quantiles are
65,536 midpoints of equal probability, scaled to a variance of 1; nothing is farther from 0 than 4.3 standard
deviations.
Source of the hash: Steele et al., Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LEVELS = 1 << 16


@lru_cache(maxsize=1)
def quantiles() -> NDArray[np.float32]:
    """The table of quantiles."""
    from scipy.special import ndtri

    values = ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
    return np.ascontiguousarray(values / np.sqrt(np.mean(values**2)), np.float32)


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def hashed(stream: Any, number: Any) -> Any:
    """64 bits for a stream and a number."""
    z = stream + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def fill_normal(stream: Any, table: Any, out: Any) -> None:
    """Places 0, 1, ... of a stream into a flat array."""
    whole = out.size // 4
    for number in range(whole):
        bits = hashed(stream, np.uint64(number))
        out[4 * number] = table[bits & np.uint64(65535)]
        out[4 * number + 1] = table[(bits >> np.uint64(16)) & np.uint64(65535)]
        out[4 * number + 2] = table[(bits >> np.uint64(32)) & np.uint64(65535)]
        out[4 * number + 3] = table[bits >> np.uint64(48)]
    if out.size % 4:
        bits = hashed(stream, np.uint64(whole))
        for k in range(out.size % 4):
            out[4 * whole + k] = table[(bits >> np.uint64(16 * k)) & np.uint64(65535)]


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def fold_programmed(
    cells: Any,
    factors: Any,
    sigma: Any,
    floor: Any,
    flipped: Any,
    starts: Any,
    top: Any,
    stream: Any,
    table: Any,
    out: Any,
) -> None:
    """Adds to `out` (outputs, inputs) what cells with a Gaussian programming error stand for, before scales.

    `cells` [column, output, input] are levels, `sigma` and `floor` are in levels; the errors are those that
    :func:`fill_normal` gives for the places of `cells`.  `flipped` [block, column, output] marks inverted columns, of
    blocks of inputs that begin at `starts`; it is empty where there are none.
    """
    columns, outputs, _ = cells.shape
    place, bits = 0, np.uint64(0)
    for p in range(columns):
        factor = factors[p]
        for n in range(outputs):
            for block in range(starts.size - 1):
                turned = flipped.size > 0 and flipped[block, p, n]
                for k in range(starts[block], starts[block + 1]):
                    if place % 4 == 0:
                        bits = hashed(stream, np.uint64(place // 4))
                    level = np.float32(cells[p, n, k]) + sigma * table[bits & np.uint64(65535)]
                    bits >>= np.uint64(16)
                    place += 1
                    level = level if level > floor else floor
                    out[n, k] += factor * (top - level if turned else level)
