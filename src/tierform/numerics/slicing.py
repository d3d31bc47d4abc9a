"""From integers to what cells hold and DACs drive, and with which factors a column counts.

Cells: u = w + 2^(b-1) in base 2^c digits for offset columns; |w| split by sign for differential ones.  Inputs: base
2^d digits, least first; in two's complement the top digit counts negative, so a 1-bit top digit is driven as 0 or 1 and
subtracted, a wider one is driven with its sign.  With these,

    sum_k x w = sum over digits d and columns p of  input_factor[d] * column_factor[p] * S[d, p]
                - offset_w * sum_k x - offset_x * sum_k u,      S[d, p] = sum_k digit[d, k] * level[p, k].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tierform.numerics.chip_view import CrossbarFormat


@dataclass(frozen=True, slots=True)
class Factors:
    """Weights of columns and digits, the two offsets, and the span of the digits that DACs drive."""

    columns: tuple[int, ...]
    inputs: tuple[int, ...]
    weight_offset: int
    input_offset: int
    digit_low: int
    digit_high: int


def factors(form: CrossbarFormat) -> Factors:
    """The factors of a format; see the module's text."""
    base = [2 ** (form.cell_bits * s) for s in range(form.slices)]
    columns = base + [-b for b in base] if form.encoding == "differential-digital" else base
    inputs = [2 ** (form.dac_bits * d) for d in range(form.digits)]
    top_bits = form.input_bits - form.dac_bits * (form.digits - 1)
    full = 2 ** min(form.dac_bits, form.input_bits) - 1
    low = 0
    if form.input_encoding == "twos-complement":
        if top_bits == 1:
            inputs[-1] = -inputs[-1]
            full = max(1, full if form.digits > 1 else 1)
        else:
            low = -(2 ** (top_bits - 1))
            full = full if form.digits > 1 else 2 ** (top_bits - 1) - 1
    return Factors(
        tuple(columns),
        tuple(inputs),
        2 ** (form.weight_bits - 1) if form.encoding == "offset" else 0,
        2 ** (form.input_bits - 1) if form.input_encoding == "offset" else 0,
        low,
        full,
    )


def cell_levels(weights: Tensor, form: CrossbarFormat) -> Tensor:
    """Levels of the physical cells (columns, outputs, inputs), uint8, of integer weights (outputs, inputs)."""
    mask = 2**form.cell_bits - 1
    whole = weights.to(torch.int32)
    if form.encoding == "offset":
        stored = whole + 2 ** (form.weight_bits - 1)
        parts = [(stored >> (form.cell_bits * s)) & mask for s in range(form.slices)]
    else:
        parts = [
            (magnitude >> (form.cell_bits * s)) & mask
            for magnitude in (whole.clamp(min=0), (-whole).clamp(min=0))
            for s in range(form.slices)
        ]
    return torch.stack(parts).to(torch.uint8)


def read_columns(cells: Tensor, form: CrossbarFormat) -> Tensor:
    """What reaches an ADC: the cells, or with analog subtraction the positive minus the negative column."""
    if form.encoding != "differential":
        return cells
    signed = cells if cells.is_floating_point() else cells.to(torch.int16)
    return signed[: form.slices] - signed[form.slices :]


def inverted(cells: Tensor, form: CrossbarFormat, blocks: list[tuple[int, int]]) -> Tensor:
    """Which columns (blocks, columns, outputs) hold more than half of the greatest sum, and are stored inverted."""
    top = 2**form.cell_bits - 1
    return torch.stack([2 * cells[:, :, a:b].int().sum(-1) > top * (b - a) for a, b in blocks])


def invert(cells: Tensor, chosen: Tensor, form: CrossbarFormat, blocks: list[tuple[int, int]]) -> Tensor:
    """Levels with the chosen columns as greatest level minus level (which is its own inverse)."""
    top = 2**form.cell_bits - 1
    result = cells.clone()
    for index, (a, b) in enumerate(blocks):
        part = result[:, :, a:b]
        result[:, :, a:b] = torch.where(chosen[index][..., None], top - part, part)
    return result


def folded_weight(columns: Tensor, form: CrossbarFormat) -> Tensor:
    """The weight (outputs, inputs) that columns (columns, outputs, inputs) stand for, in integer units."""
    f = factors(form)
    weight = torch.zeros(columns.shape[1:], dtype=torch.float32, device=columns.device)
    for column, factor in zip(columns, f.columns, strict=True):
        weight.add_(column.float(), alpha=factor)
    return weight - f.weight_offset


def input_digits(x: Tensor, form: CrossbarFormat) -> Tensor:
    """Digits (digits, vectors, inputs), int16, of integers x (vectors, inputs) within the input's bits."""
    f = factors(form)
    stored = x.to(torch.int16) + f.input_offset
    mask = 2**form.dac_bits - 1
    digits = [(stored >> (form.dac_bits * d)) & mask for d in range(form.digits - 1)]
    top = stored >> (form.dac_bits * (form.digits - 1))
    if form.input_encoding == "twos-complement" and f.inputs[-1] < 0:
        top = -top
    digits.append(top)
    return torch.stack(digits)


def row_blocks(inputs: int, form: CrossbarFormat) -> list[tuple[int, int]]:
    """Input ranges that are summed in one conversion: crossbar after crossbar, in groups of active rows."""
    result = []
    for start in range(0, inputs, form.rows):
        end = min(start + form.rows, inputs)
        result += [(a, min(a + form.block_rows, end)) for a in range(start, end, form.block_rows)]
    return result
