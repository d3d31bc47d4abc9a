"""Millions of products at once: the closed forms of :mod:`tierform.chip.systolic.folds`, compiled over arrays.

The formulas of cycles are not written a second time: the plain functions are compiled and called in a loop.
:func:`gemm_costs` gives cycles and accesses, :func:`product_costs` the seconds and joules of a component's array.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from tierform.chip.systolic import folds
from tierform.chip.systolic.component import SystolicArrays
from tierform.errors import fail
from tierform.workload.precision import bits

_stationary = njit(folds.stationary_cycles)
_output = njit(folds.output_cycles)
_NAMES = ("cycles", "dataflow", "input_reads", "weight_reads", "output_writes", "partial_reads")


@njit(cache=True)
def _costs(m, n, k, rows, columns, flow, how, cycles, chosen, inputs, weights, writes, partial):  # type: ignore[no-untyped-def]
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
            inputs[i] = m[i] * k[i] * -(-n[i] // columns)
            weights[i] = k[i] * n[i] * -(-m[i] // rows)
            writes[i], partial[i] = m[i] * n[i], 0
            continue
        rf = -(-k[i] // rows)
        inputs[i] = m[i] * k[i] * (-(-n[i] // columns) if best_flow == 0 else 1)
        weights[i] = k[i] * n[i] * (1 if best_flow == 0 else -(-m[i] // columns))
        writes[i], partial[i] = m[i] * n[i] * rf, m[i] * n[i] * (rf - 1)


def gemm_costs(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    rows: int,
    columns: int,
    dataflow: str = "best",
    overlap: folds.Overlap = "double-buffered",
) -> dict[str, NDArray[np.int64]]:
    """Cycles, chosen dataflow (index in DATAFLOWS) and SRAM words of products with arrays of m, n, k (all >= 1).

    Keys: cycles, dataflow, input_reads, weight_reads, output_writes, partial_reads.
    """
    sizes = [np.ascontiguousarray(size, dtype=np.int64).ravel() for size in (m, n, k)]
    if len({size.size for size in sizes}) != 1:
        fail("m, n and k need the same length", value=[size.size for size in sizes])
    if rows < 1 or columns < 1 or any(size.size and size.min() < 1 for size in sizes):
        fail("all sizes must be at least 1")
    if dataflow not in (*folds.DATAFLOWS, "best"):
        fail("unknown dataflow", value=dataflow, choices=(*folds.DATAFLOWS, "best"))
    flow = 3 if dataflow == "best" else folds.DATAFLOWS.index(dataflow)
    results = [np.empty(sizes[0].size, dtype=np.int64) for _ in _NAMES]
    _costs(*sizes, rows, columns, flow, folds.OVERLAPS.index(overlap), *results)
    return dict(zip(_NAMES, results, strict=True))


def product_costs(
    component: SystolicArrays, m: ArrayLike, n: ArrayLike, k: ArrayLike, precision: str = "int8"
) -> dict[str, NDArray[np.float64]]:
    """Seconds and joules (mac, sram) of dense products on one array of a component, all operands in one format.

    Equal to the component's `cost` of each product with one unit.
    """
    p = component.parameters
    mac_J = component.mac_energy_J(precision)
    if mac_J is None or p.sram_energy is None:
        fail(f"the component {component.name!r} has no energy for this format", value=precision, choices=p.mac_energy)
    found = gemm_costs(m, n, k, p.rows, p.columns, p.dataflow, p.overlap)
    first, second, third = (np.ascontiguousarray(size, dtype=np.float64).ravel() for size in (m, n, k))
    words = found["input_reads"] + found["weight_reads"] + first * second
    partial = found["output_writes"] - first * second + found["partial_reads"]
    sram_B = (words * bits(precision) + partial * p.accumulator_bits) / 8
    return {
        "seconds": found["cycles"] / p.clock.value,
        "mac_J": first * second * third * mac_J,
        "sram_J": sram_B * p.sram_energy.value,
    }
