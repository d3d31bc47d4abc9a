"""Which kernels a GPU has for a product, and how long the fastest way to use them takes.

Products of 8-bit operands: :mod:`tierform.chip.gpu.narrow`; of 32-bit ones: :mod:`tierform.chip.gpu.wide`; of a few
rows on a processor: :mod:`tierform.chip.gpu.few_rows`; all others: :mod:`tierform.chip.gpu.gemm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.chip.gpu.few_rows import FewRows
from tierform.chip.gpu.gemm import ProductModel
from tierform.chip.gpu.narrow import NarrowProductModel
from tierform.chip.gpu.parameters import FewRowsParameters
from tierform.workload.formats import format_of
from tierform.workload.operator import Operator, Role

if TYPE_CHECKING:
    from tierform.chip.gpu.device import Gpu


def has_kernels(gpu: Gpu, operator: Operator) -> bool:
    """Whether there is a fitted model for a product; a plain roofline stands for it otherwise."""
    return gpu.products is not None or _is_narrow(gpu, operator) or _is_wide(gpu, operator)


def product_s(gpu: Gpu, operator: Operator) -> float:
    """Time of a product that has kernels."""
    if gpu.narrow is not None and _is_narrow(gpu, operator):
        return _narrow_s(gpu, operator, gpu.narrow)
    if gpu.wide is not None and _is_wide(gpu, operator):
        return _general_s(gpu, operator, gpu.wide.model, 1.0)
    assert gpu.products is not None
    return _general_s(gpu, operator, gpu.products, _over_peak(gpu, operator))


def few_rows_s(gpu: Gpu, operator: Operator, found: FewRowsParameters) -> float:
    """A product of few rows with a weight; the units share its columns."""
    times = FewRows(found.start.value, found.first.value, found.stream.value, found.row.value)
    return float(times.seconds(operator.m, operator.n * operator.k / gpu.units))


def _is_narrow(gpu: Gpu, operator: Operator) -> bool:
    """Whether it is a product of two operands for which there are kernels of 8 bits."""
    if gpu.narrow is None:
        return False
    formats = {format_of(operand.precision).element for operand in operator.inputs[:2]}
    return formats <= gpu.narrow.formats and not format_of(operator.inputs[1].precision).pattern


def _is_wide(gpu: Gpu, operator: Operator) -> bool:
    """Whether it is a product of two operands for which there are kernels of 32 bits."""
    return gpu.wide is not None and {operand.precision for operand in operator.inputs[:2]} <= gpu.wide.formats


def _over_peak(gpu: Gpu, operator: Operator) -> float:
    """The operator's peak rate over the data sheet's of 16 bits."""
    return (gpu.rate(operator) or 0.0) / gpu.sheet.peak_per_s


def _copies(gpu: Gpu, operator: Operator) -> float:
    """As many weights are used before one is used again; what was just computed is at hand."""
    return gpu.weights_in_turn if operator.inputs[1].role in (Role.WEIGHT, Role.KV_CACHE) else 1.0


def _general_s(gpu: Gpu, operator: Operator, products: ProductModel, speedup: float) -> float:
    """A product on as many of the units, and in a kernel for as wide a weight, as is fastest.

    The library's heuristic may choose worse for the smaller shape or the narrower weight; nobody has to use them.
    """
    first, second = operator.inputs[0], operator.inputs[1]
    input_B = format_of(first.precision).bits / 8
    widths = [format_of(second.precision).bits_per_number(operator.k) / 8]
    while 2 * widths[-1] <= input_B:
        widths.append(2 * widths[-1])
    return min(
        float(
            products.seconds(
                m,
                operator.n,
                operator.k,
                batch=float(batch),
                copies=_copies(gpu, operator),
                input_B=input_B,
                weight_B=width,
                speedup=speedup,
            )[0]
        )
        for batch, m in _shares(gpu, operator)
        for width in widths
    )


def _narrow_s(gpu: Gpu, operator: Operator, products: NarrowProductModel) -> float:
    """A product of 8-bit operands on as many of the units as is fastest."""
    return min(
        float(
            products.kernel(m, operator.n).seconds(
                m,
                operator.n,
                operator.k,
                batch=float(batch),
                copies=_copies(gpu, operator),
                input_B=1.0,
                speedup=_over_peak(gpu, operator),
            )[0]
        )
        for batch, m in _shares(gpu, operator)
    )


def _shares(gpu: Gpu, operator: Operator) -> set[tuple[int, int]]:
    """Products in one kernel and rows of each on one of so many units, for each number of them."""
    groups = operator.batch * operator.count
    return {
        (groups, -(-operator.m // units)) if groups < units else (-(-groups // units), operator.m)
        for units in range(1, gpu.units + 1)
    }
