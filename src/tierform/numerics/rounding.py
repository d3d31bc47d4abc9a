"""What the tile's ADCs add to a product that was computed without them: a random error of the right size, in one draw.

Fidelity ``surrogate`` multiplies by the weight in the cells and adds, to every output, a normal error of mean zero with
the variance that the rounding of all its conversions has.  A conversion of a sum n + e, n whole and e the error of the
driven cells, gives a code's error q = round(e) - e.  As a sawtooth q has the Fourier series
sum over k >= 1 of (-1)^k / (pi k) * sin(2 pi k e), so that two conversions whose errors e, e' are jointly normal with
mean variance s and Var(e - e') = D have

    E[q q'] = sum over k, l >= 1 of (-1)^(k+l) / (2 pi^2 k l)
              * (exp(-2 pi^2 ((k-l)^2 s + k l D)) - exp(-2 pi^2 ((k+l)^2 s - k l D))).

For D = 0 this is the variance of one conversion: s for a small s (the ADC gives back the whole number), the uniform
error's 1/12 from s = 0.25 on (Bennett 1948; Widrow and Kollar 2008).  It matters that D is small for the upper digits
of two's complement: those of a small number all repeat its sign, their errors are nearly the same and, the top digit
being negative, cancel in part.  Columns and row blocks have cells of their own and are independent, so that an
output's variance is

    sum over blocks b of (input scale * block scale[b])^2 * sum over columns p of (column_factor[p] / gain[p])^2
        * sum over digits d, d' of input_factor[d] * input_factor[d'] * E[q q'],

with e's variance from the sum of the driven digits' squares, times the mean square of the cells' errors in that column
and block, plus the reads' noise.  Where a step is wider than a level (gain below 1) the sums themselves are spread over
a step, and conversions count as independent with 1/12 each.  Nothing is drawn where an ADC can neither round nor clip.

Limits: where the stored levels can drive an ADC beyond its range a layer computes its conversions instead (clipping has
no mean of zero), except that a calibrated range is taken to hold, and that an unsigned ADC's cut at zero of sums that
noise makes negative is left out (differential columns converted one by one: a quarter too little variance).  The error
is drawn anew for every input, while a tile's repeats itself for a repeated input, and independently of e: for s below
0.15 an ADC in truth takes off a part of the cells' own error.  Stuck cells, whose errors are whole levels, are counted
like the others.  On accelerators the digits count as independent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from torch import Tensor

from tierform.arrays import Flags, Ints, Singles, Words
from tierform.numerics.slicing import input_digits

if TYPE_CHECKING:
    from tierform.numerics.layer import CrossbarLinear

_MOST_S, _S_CELLS = 0.5, 40  # beyond it the covariance no longer depends on s
_MOST_D, _D_CELLS = 0.4, 100  # beyond it the covariance is below 1e-5
_TERMS = 60


@lru_cache(maxsize=1)
def covariance_table() -> Singles:
    """E[q q'] of the module's text, float32, at equal steps of s (rows) and of the root of D (near 0 it is steep)."""
    s = np.linspace(0, _MOST_S, _S_CELLS + 1)[:, None]
    d = np.linspace(0, np.sqrt(_MOST_D), _D_CELLS + 1)[None, :] ** 2
    total = np.zeros((_S_CELLS + 1, _D_CELLS + 1))
    for k in range(1, _TERMS + 1):
        for i in range(1, _TERMS + 1):
            near = np.exp(-2 * np.pi**2 * np.maximum((k - i) ** 2 * s + k * i * d, 0))
            far = np.exp(-2 * np.pi**2 * np.maximum((k + i) ** 2 * s - k * i * d, 0))
            total += (-1) ** (k + i) / (2 * np.pi**2 * k * i) * (near - far)
    total[:, 0] = 1 / 12  # the same sum at D = 0, in the form that converges fast (Sheppard's correction)
    for k in range(1, _TERMS + 1):
        total[:, 0] += (-1) ** k / (np.pi * k) ** 2 * np.exp(-2 * (np.pi * k) ** 2 * s[:, 0])
    total = np.where(s < 0.02, s - d / 2, total)  # where q = -e, the covariance is that of e
    total[:, -1] = 0.0
    return np.where(d > 2 * s, 0.0, total).astype(np.float32)


def may_clip(layer: CrossbarLinear) -> bool:
    """Whether the stored levels can drive an ADC of a fixed range beyond it, which no error of mean zero stands for."""
    if layer.form.adc_bits == 0:
        return False
    bottom, top = layer.code_limits
    low, high = layer.sum_bounds()
    gain = layer.gain()
    return bool((high * gain > top + 0.5).any()) or bool((low * gain < bottom - 0.5).any())


class RoundingError:
    """The rounding error of a programmed layer's ADCs; made anew whenever the layer is programmed."""

    def __init__(self, layer: CrossbarLinear) -> None:
        form, f = layer.form, layer.factors
        self.layer = layer
        gain = torch.ones(len(f.columns)) if form.adc_bits == 0 else layer.gain()
        noisy = layer.noisy
        self.none = form.adc_bits == 0 or (not noisy and not bool((gain < 1).any()))
        if self.none:
            return
        cells = torch.zeros(len(layer.blocks), len(f.columns))
        self.reads = np.zeros(len(f.columns), np.float32)
        if noisy and layer.noise is not None:
            squares = (layer.read_levels() - layer.column_levels).square()
            cells = torch.stack([squares[:, :, a:b].mean((1, 2)) for a, b in layer.blocks]).cpu()
            self.reads = (layer.noise.read_variance(layer) * gain.square()).numpy()
        self.error = (cells * gain.square()).numpy()  # (blocks, columns): mean square of one cell's error, in steps
        self.columns = (torch.tensor(f.columns).float() / gain).square().numpy()
        self.alike = alike(self.error + self.reads, self.reads, (gain < 1).numpy())
        self.digits = np.array(f.inputs, dtype=np.float32)
        self.coarse = (gain < 1).numpy()
        self.scales = layer.block_scale.square()
        self.starts = np.array([a for a, _ in layer.blocks] + [layer.in_features], dtype=np.int64)

    def variance(self, integers: Tensor) -> Tensor:
        """Variance (M, N) of the outputs of integer inputs (M, K), before the inputs' scale."""
        layer = self.layer
        form = layer.form
        if integers.device.type == "cpu":
            result = torch.empty(integers.shape[0], len(layer.blocks))
            block_variances(
                integers.numpy(),
                layer.factors.input_offset,
                form.dac_bits,
                self.digits,
                self.columns,
                self.coarse,
                self.error,
                self.reads,
                self.alike,
                self.starts,
                covariance_table(),
                result.numpy(),
            )
            return result @ self.scales
        driven = input_digits(integers, form).float().square()
        squares = torch.stack([driven[:, :, a:b].sum(-1) for a, b in layer.blocks], dim=-1)[..., None]
        at = integers.device
        error = torch.from_numpy(self.error + self.reads).to(at)
        each = torch.where(
            torch.from_numpy(self.coarse).to(at), (squares > 0) / 12, (squares * error).clamp(max=1 / 12)
        )
        factors = torch.from_numpy(self.digits).to(at).square(), torch.from_numpy(self.columns).to(at)
        return torch.einsum("dmbp,d,p->mb", each, *factors) @ self.scales

    def draw(self, integers: Tensor, generator: torch.Generator) -> Tensor | float:
        """One error for every output (M, N), before the inputs' scale; 0 where no ADC rounds."""
        if self.none:
            return 0.0
        variance = self.variance(integers)
        noise = torch.randn(variance.shape, generator=generator, device=variance.device)
        return noise.mul_(variance.clamp_(min=0).sqrt_())


def alike(error: Singles, reads: Singles, coarse: Flags) -> Ints:
    """For every column the first one whose cells err alike (within 5 % of the mean square), which stands for it."""
    first = np.arange(error.shape[1])
    for p in range(error.shape[1]):
        for other in range(p):
            near = np.abs(error[:, p] - error[:, other]) <= 0.05 * error[:, other]
            if first[other] == other and near.all() and reads[p] == reads[other] and coarse[p] == coarse[other]:
                first[p] = other
                break
    return first


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def inner_product(one: Words, other: Words, rows: int) -> np.int32:
    """Sum of products of two rows of digits; whole numbers, which the compiler adds several at a time."""
    total = np.int32(0)
    for k in range(rows):
        total += np.int32(one[k] * other[k])
    return total


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def block_variances(
    x: Singles,
    offset: int,
    digit_bits: int,
    inputs: Singles,
    columns: Singles,
    coarse: Flags,
    error: Singles,
    reads: Singles,
    alike: Ints,
    starts: Ints,
    table: Singles,
    result: Singles,
) -> None:
    """Into `result` (M, blocks) the variance of each block's total, in units of its scale, of whole x (M, K)."""
    digits, slices = inputs.shape[0], columns.shape[0]
    mask = (1 << digit_bits) - 1
    last_s, last_d = table.shape[0] - 1, table.shape[1] - 1
    per_s, per_d = np.float32(last_s / _MOST_S), np.float32(last_d / np.sqrt(_MOST_D))
    widest = 0
    for b in range(starts.shape[0] - 1):
        widest = max(widest, starts[b + 1] - starts[b])
    cut = np.zeros((digits, widest), np.int32)
    gram = np.zeros((digits, digits), np.float32)
    for m in range(x.shape[0]):
        for b in range(starts.shape[0] - 1):
            rows = starts[b + 1] - starts[b]
            for k in range(rows):
                whole = np.int32(x[m, starts[b] + k]) + offset
                for d in range(digits - 1):
                    cut[d, k] = (whole >> (digit_bits * d)) & mask
                top = whole >> (digit_bits * (digits - 1))
                cut[digits - 1, k] = -top if inputs[digits - 1] < 0 else top
            for d in range(digits):
                for i in range(d + 1):
                    gram[d, i] = inner_product(cut[d], cut[i], rows)
            total = np.float32(0)
            for p in range(slices):
                if alike[p] != p:
                    continue
                weight = np.float32(0)
                for i in range(p, slices):
                    if alike[i] == p:
                        weight += columns[i]
                part = np.float32(0)
                for d in range(digits):
                    if coarse[p]:
                        part += inputs[d] * inputs[d] * np.float32(gram[d, d] > 0) / np.float32(12)
                        continue
                    for i in range(d + 1):
                        mean = np.float32(0.5) * (gram[d, d] + gram[i, i])
                        drawn = mean * reads[p]  # every read has noise of its own
                        at_s = min((mean * error[b, p] + drawn) * per_s, np.float32(last_s))
                        apart = max(np.float32(2) * (mean - gram[d, i]) * error[b, p], np.float32(0))
                        if i != d:
                            apart += np.float32(2) * drawn
                        at_d = min(np.sqrt(apart) * per_d, np.float32(last_d))
                        s, t = min(int(at_s), last_s - 1), min(int(at_d), last_d - 1)
                        u, v = at_s - s, at_d - t
                        value = (1 - u) * ((1 - v) * table[s, t] + v * table[s, t + 1]) + u * (
                            (1 - v) * table[s + 1, t] + v * table[s + 1, t + 1]
                        )
                        part += (1 if i == d else 2) * inputs[d] * inputs[i] * value
                total += weight * part
            result[m, b] = total
