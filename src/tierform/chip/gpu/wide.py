"""Products of 32-bit operands: other kernels than those of 16 bits, on other units.

Without TF32 such a product is computed by the vector units (on AMD's by matrix units of their own).  The model is
:mod:`tierform.chip.gpu.gemm`'s with parameters of its own, whose peak is that of the format.  On boards with little
power for their units (T4, L4) the sustained rate lies far below the peak: each multiply-accumulate of 32 bits takes
several times the energy of one on tensor cores.  The library chooses the tile by the estimate that times it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.chip.gpu.gemm import FITTED, ProductModel
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
        values = tuple(_value(wide, name.removeprefix("chosen_")) for name in FITTED)
        own = replace(sheet, peak_per_s=peak.value)
        return cls(frozenset(wide.formats), ProductModel.with_values(own, values, wide.tiles, None))


def _value(wide: WideProductParameters, name: str) -> float:
    """A parameter; nothing where there is none: no weight delays a round's start, no small grid is reduced apart."""
    return float(getattr(wide, name).value) if name in type(wide).model_fields else 0.0
