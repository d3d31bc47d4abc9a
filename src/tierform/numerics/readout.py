"""Column sums, ADCs, shift-and-add: the arithmetic of a tile on integers, in the order the tile does it.

A conversion is code = clip(round(sum * gain), low, high), rounded to nearest, ties to even, in single precision, and
counts as code / gain; for a column stored inverted as the greatest level times the sum of the inputs, less that.  The
tile adds the codes of all digits and columns of a row block by their factors, takes off the offsets, multiplies by the
block's scale, and adds block after block in single precision:

    y[m, n] = sum over blocks b of  scale[b, n] * (sum over d, p of factor[d, p] * code - offsets).

Three ways to the same codes: int8 products with the ADC fused into their output stage (CPU, noise-free, up to 8 bits;
taken only where a check against plain arithmetic passes), float products followed by one compiled pass (CPU), and
tensor operations (any device, and ideal ADCs).  Sums are exact in float32 below 2^24, in float64 below 2^53; the
caller chooses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tierform.arrays import Bytes, Floats, Ints, Singles

EXACT_FLOAT32 = 2**24
# Single or double precision, whichever is exact.
Exact = Singles | Floats
_SATURATION = 32767  # int8 products are added in pairs of 16 bits


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_codes(
    codes: Bytes | NDArray[np.int8],
    low: np.float32,
    high: np.float32,
    factor: Exact,
    sign: Singles,
    scale: Singles,
    x_offset: Exact,
    w_offset: Exact,
    x_sum: Exact,
    restored: Exact,
    total: Exact,
    y: Singles,
) -> None:
    """Add one block's 8-bit codes (digits*M, P*N) to y (M, N); `total` (N,) is scratch in the arithmetic's type."""
    vectors, outputs = y.shape
    digits, columns = factor.shape
    for m in range(vectors):
        for j in range(outputs):
            total[j] = 0
        for d in range(digits):
            row = d * vectors + m
            for p in range(columns):
                f = factor[d, p]
                base = p * outputs
                for j in range(outputs):
                    code = np.float32(codes[row, base + j])
                    code = min(max(code, low), high)
                    total[j] += f * (sign[base + j] * code)
        shift = x_offset[m]
        sum_m = x_sum[m]
        for j in range(outputs):
            y[m, j] += scale[j] * np.float32(((total[j] + sum_m * restored[j]) - shift) - w_offset[j])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def convert_and_add(
    sums: Singles,
    gain: Singles,
    low: np.float32,
    high: np.float32,
    factor: Exact,
    sign: Singles,
    scale: Singles,
    x_offset: Exact,
    w_offset: Exact,
    x_sum: Exact,
    restored: Exact,
    total: Exact,
    y: Singles,
) -> None:
    """As :func:`add_codes`, from column sums that are still to be converted; `gain` is by column."""
    vectors, outputs = y.shape
    digits, columns = factor.shape
    magic = np.float32(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds to nearest, ties to even
    for m in range(vectors):
        for j in range(outputs):
            total[j] = 0
        for d in range(digits):
            row = d * vectors + m
            for p in range(columns):
                f = factor[d, p]
                g = gain[p]
                base = p * outputs
                for j in range(outputs):
                    code = np.float32(sums[row, base + j]) * g
                    code = min(max(code, low - np.float32(1)), high + np.float32(1))
                    code = (code + magic) - magic
                    code = min(max(code, low), high)
                    total[j] += f * (sign[base + j] * code)
        shift = x_offset[m]
        sum_m = x_sum[m]
        for j in range(outputs):
            y[m, j] += scale[j] * np.float32(((total[j] + sum_m * restored[j]) - shift) - w_offset[j])


def convert_and_add_tensors(
    sums: Tensor,
    gain: Tensor,
    limits: tuple[int, int] | None,
    factor: Tensor,
    sign: Tensor,
    scale: Tensor,
    x_offset: Tensor,
    w_offset: Tensor,
    x_sum: Tensor,
    restored: Tensor,
    y: Tensor,
) -> None:
    """As :func:`convert_and_add`, with tensor operations on any device, in float64; no `limits`: an ideal ADC."""
    digits, columns = factor.shape
    vectors, outputs = y.shape
    codes = sums.reshape(digits, vectors, columns, outputs)
    if limits is not None:
        codes = (codes.float() * gain.view(1, 1, columns, 1)).round_().clamp_(*limits)
    signed = codes.double() * sign.view(1, 1, columns, outputs).double()
    total = torch.einsum("dp,dmpn->mn", factor.double(), signed) + x_sum[:, None].double() * restored.double()
    y += scale * ((total - x_offset[:, None].double()) - w_offset.double()).float()


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def slice_inputs(
    x: Singles,
    full_scale: np.float32,
    top: np.float32,
    offset: int,
    digit_bits: int,
    digits: int,
    negative_top: bool,
    zero: int,
    starts: Ints,
    flat: Bytes,
    scale: Singles,
    sums: Floats,
) -> None:
    """Round inputs x (M, K) to integers of magnitude `top` and cut them into digits, block by block.

    `flat` (digits*M*K,) uint8 gets block after block as (digits, M, rows), each digit plus `zero`; `scale` (M,) the
    scales, `sums` (blocks, M) the sums of the integers.  `full_scale` 0 takes each vector's largest magnitude.
    """
    vectors, inputs = x.shape
    magic = np.float32(12582912.0)
    mask = (1 << digit_bits) - 1
    whole = np.empty(inputs, np.int32)
    for m in range(vectors):
        largest = full_scale
        if full_scale == 0:
            for k in range(inputs):
                largest = max(largest, abs(x[m, k]))
        step = largest / top
        if not step > 0:
            step = np.float32(1)
        scale[m] = step
        for k in range(inputs):
            value = min(max(x[m, k] / step, -top), top)
            whole[k] = np.int32((value + magic) - magic)
        for b in range(starts.shape[0] - 1):
            first, last = starts[b], starts[b + 1]
            rows = last - first
            total = 0
            for k in range(first, last):
                total += whole[k]
            sums[b, m] = total
            for d in range(digits):
                at = digits * vectors * first + (d * vectors + m) * rows
                shift = digit_bits * d
                if d < digits - 1:
                    for k in range(rows):
                        flat[at + k] = (((whole[first + k] + offset) >> shift) & mask) + zero
                elif negative_top:
                    for k in range(rows):
                        flat[at + k] = zero - ((whole[first + k] + offset) >> shift)
                else:
                    for k in range(rows):
                        flat[at + k] = ((whole[first + k] + offset) >> shift) + zero


class PackedColumns:
    """One block's columns packed for int8 products, with the ADC's gain in their output stage."""

    def __init__(self, levels: Tensor, gain: Tensor, signed: bool) -> None:
        """`levels` (P, N, rows) integers within int8, `gain` (P,); codes come out as int8 when signed, or uint8."""
        columns, outputs, rows = levels.shape
        flat = levels.reshape(columns * outputs, rows).to(torch.int8).contiguous()
        self._packed = torch.ops.onednn.qlinear_prepack(flat, None)
        self._gain = gain.float().repeat_interleave(outputs)
        self._zeros = torch.zeros(columns * outputs, dtype=torch.int32)
        self._type = torch.int8 if signed else torch.uint8

    def codes(self, digits: Tensor, zero: int) -> Tensor:
        """Codes (vectors, P*N) of digits (vectors, rows) uint8 that stand for themselves less `zero`."""
        return cast(
            Tensor,
            torch.ops.onednn.qlinear_pointwise(
                digits, 1.0, zero, self._packed, self._gain, self._zeros, None, 1.0, 0, self._type, "none", [], ""
            ),
        )


def fits_int8(level_high: int, digit_low: int, digit_high: int, rows: int) -> bool:
    """Whether int8 products of such levels and digits are exact: pairs within 16 bits, sums within float32."""
    raw = 255 if digit_low < 0 else digit_high
    return level_high <= 127 and raw <= 255 and 2 * raw * level_high <= _SATURATION and rows * raw * level_high < 2**24


@lru_cache(maxsize=1)
def int8_available() -> bool:
    """Whether this machine's int8 products give the codes of plain arithmetic, tried once on random cases."""
    generator = torch.Generator().manual_seed(20)
    try:
        for least, zero in ((0, 0), (-3, 0), (0, 128), (-3, 128)) * 4:
            signed = least < 0 or zero > 0
            levels = torch.randint(least, 4, (4, 33, 130), generator=generator)
            x = torch.randint(-zero, 256 - zero, (17, 130), generator=generator)
            # Gains that put many sums on or beside a rounding boundary.
            gain = 127 / torch.randint(127, 9000, (4,), generator=generator).float()
            gain[0] = 1.0
            codes = PackedColumns(levels, gain, signed).codes((x + zero).to(torch.uint8), zero)
            sums = torch.einsum("mk,pnk->mpn", x.double(), levels.double()).float()
            low, high = (-128, 127) if signed else (0, 255)
            expected = (sums * gain.view(1, 4, 1)).round().clamp(low, high).reshape(17, -1)
            if not torch.equal(codes.float(), expected):
                return False
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True
