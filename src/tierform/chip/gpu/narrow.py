"""Products of 8-bit operands, and turning 16-bit activations into them: other kernels than those of 16 bits.

A library of 16-bit products chooses among many tiles and splits k; serving systems bring kernels of their own for 8-bit
operands with one tile for each range of rows, and k is never split (vLLM's dispatch of CUTLASS kernels by compute
capability, read 2026).  So the tile is looked up here, and the rest is :mod:`tierform.chip.gpu.gemm`'s model with
parameters of its own: a few rows stream weights at the depth of their buffers, a long k with few outputs is one chain.

Before such a product its input is narrowed by one kernel: a start, and its bytes (two in, one out) at a share of the
memory's bandwidth.  Where the scale is found for the whole tensor on the run, two kernels come before that one: one
that clears the largest magnitude and one that finds it, at so much an element.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierform.chip.gpu.gemm import FITTED, ProductModel
from tierform.chip.gpu.parameters import NarrowProductParameters, QuantizationParameters, Sheet

_READ_AND_WRITTEN_B = 3.0  # of an element: 16 bits in, 8 out
_NO_SPLIT = 1.0


def quantization_s(p: QuantizationParameters, elements: float, results: float, memory_B_per_s: float) -> float:
    """Time of narrowing so many elements; with one result, of finding the scale that they have in common."""
    if results == 1 < elements:
        return float(p.largest_launch.value + elements * p.largest_element.value)
    return float(p.launch.value + elements * _READ_AND_WRITTEN_B / (p.share.value * memory_B_per_s))


@dataclass(frozen=True)
class NarrowProductModel:
    """A product model for each tile, and where each holds: (most rows, most columns, model)."""

    formats: frozenset[str]
    kernels: tuple[tuple[float, float, ProductModel], ...]

    @classmethod
    def of(cls, sheet: Sheet, p: NarrowProductParameters) -> NarrowProductModel:
        """From a data file's section."""
        absent = {"reduction_bandwidth": 1.0, "chosen_reduction_bandwidth": 1.0}  # never asked: k is not split
        values = tuple(
            float(getattr(p, name).value) if name in type(p).model_fields else absent.get(name, 0.0) for name in FITTED
        )
        return cls(
            frozenset(p.formats),
            tuple(
                (
                    float(kernel.most_rows or "inf"),
                    float(kernel.most_columns or "inf"),
                    ProductModel.with_values(sheet, values, [kernel.tile], None, _NO_SPLIT),
                )
                for kernel in p.kernels
            ),
        )

    def kernel(self, m: float, n: float) -> ProductModel:
        """The model of the kernel that a product of so many rows and columns takes."""
        for rows, columns, model in self.kernels:
            if m <= rows and n <= columns:
                return model
        return self.kernels[-1][2]
