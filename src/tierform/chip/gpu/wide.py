"""Products of 32-bit operands: other kernels than those of 16 bits, on other units.

Without TF32 such a product is computed by the vector units (on AMD's by matrix units of their own).  The model is
:mod:`tierform.chip.gpu.gemm`'s with parameters of its own, whose peak is that of the format.  On boards with little
power for their units (T4, L4) the sustained rate lies far below the peak: each multiply-accumulate of 32 bits takes
several times the energy of one on tensor cores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.chip.gpu.gemm import ProductModel
from tierform.chip.gpu.parameters import GpuParameters, Sheet, WideProductParameters


@dataclass(frozen=True)
class WideProductModel:
    """The product model, and the formats that it is for."""

    formats: frozenset[str]
    model: ProductModel

    @classmethod
    def of(cls, p: GpuParameters, sheet: Sheet, wide: WideProductParameters) -> WideProductModel | None:
        """From a data file's section; None where the file has no peak rate for the first format."""
        peak = p.peak_rate.get(wide.formats[0])
        if peak is None:
            return None
        return cls(frozenset(wide.formats), ProductModel.of(replace(sheet, peak_per_s=peak.value), wide))
