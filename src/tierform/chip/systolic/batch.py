"""Millions of products at once: the closed forms of :mod:`tierform.chip.systolic.folds`, compiled over arrays.

The formulas are not written a second time: the plain functions are compiled and called in a loop.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from tierform.chip.systolic import folds
from tierform.errors import fail

_stationary = njit(folds.stationary_cycles)
_output = njit(folds.output_cycles)


@njit(cache=True)
def _costs(m, n, k, rows, columns, flow, how, cycles, chosen, reads, writes):  # type: ignore[no-untyped-def]
    for i in range(m.size):
        best, best_flow = -1, 0
        for f in range(3):
            if flow != 3 and f != flow:
                continue
            if f == 0:
                taken = _stationary(how, k[i], n[i], m[i], rows, columns)
            elif f == 1:
                taken = _output(how, m[i], n[i], k[i], rows, columns)
            else:
                taken = _stationary(how, k[i], m[i], n[i], rows, columns)
            if best < 0 or taken < best:
                best, best_flow = taken, f
        cycles[i], chosen[i] = best, best_flow
        if best_flow == 1:
            rf, cf = -(-m[i] // rows), -(-n[i] // columns)
            reads[i] = m[i] * k[i] * cf + k[i] * n[i] * rf
            writes[i] = m[i] * n[i]
        else:
            rf = -(-k[i] // rows)
            if best_flow == 0:
                reads[i] = m[i] * k[i] * -(-n[i] // columns) + k[i] * n[i]
            else:
                reads[i] = k[i] * n[i] * -(-m[i] // columns) + m[i] * k[i]
            reads[i] += m[i] * n[i] * (rf - 1)
            writes[i] = m[i] * n[i] * rf


def gemm_costs(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    rows: int,
    columns: int,
    dataflow: str = "best",
    overlap: folds.Overlap = "double-buffered",
) -> dict[str, NDArray[np.int64]]:
    """Cycles, chosen dataflow (index in DATAFLOWS), SRAM words read and written, for arrays of m, n, k (all >= 1)."""
    sizes = [np.ascontiguousarray(size, dtype=np.int64).ravel() for size in (m, n, k)]
    if len({size.size for size in sizes}) != 1:
        fail("m, n and k need the same length", value=[size.size for size in sizes])
    if rows < 1 or columns < 1 or any(size.size and size.min() < 1 for size in sizes):
        fail("all sizes must be at least 1")
    if dataflow not in (*folds.DATAFLOWS, "best"):
        fail("unknown dataflow", value=dataflow, choices=(*folds.DATAFLOWS, "best"))
    flow = 3 if dataflow == "best" else folds.DATAFLOWS.index(dataflow)
    results = [np.empty(sizes[0].size, dtype=np.int64) for _ in range(4)]
    _costs(*sizes, rows, columns, flow, folds.OVERLAPS.index(overlap), *results)
    return dict(zip(("cycles", "dataflow", "sram_reads", "sram_writes"), results, strict=True))
