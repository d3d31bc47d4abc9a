"""Weights in groups: scales and zero points of a matrix, and rounding to nearest with them.

A group is `group` successive inputs of one output.  Symmetric integers reach from -(2^(b-1)) to 2^(b-1) - 1 with the
scale max|w| / (2^(b-1) - 1/2), so that the least integer is used too; with a zero point the range is that of the group
and holds zero.  The clipping of each group is searched for the least squared error, each input weighed by the mean
square of its channel where that is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tierform.compression.formats import WeightFormat
from tierform.numerics.quantize import NF4

_CLIPPINGS = 24
_FALL = 0.02


@dataclass(slots=True)
class Grid:
    """The values that each weight of a matrix may take: scale and zero point by (output, group), both float32."""

    format: WeightFormat
    scale: Tensor
    zero: Tensor
    inputs: int

    @property
    def size(self) -> int:
        """Inputs to a group."""
        return self.format.group or self.inputs

    def column(self, values: Tensor, column: int) -> Tensor:
        """The nearest values that one input's weights (outputs,) may take."""
        group = column // self.size
        return self.value_of(self.code_of(values, self.scale[:, group], self.zero[:, group]), group)

    def value_of(self, codes: Tensor, group: int) -> Tensor:
        """Values of one input's codes."""
        return _decode(codes, self.scale[:, group], self.zero[:, group], self.format)

    def code_of(self, values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Codes of values, given their scale and zero point."""
        return _encode(values, scale, zero, self.format)

    def nearest(self, matrix: Tensor) -> Tensor:
        """Codes (outputs, inputs) of the nearest values."""
        scale, zero = self.spread()
        return _encode(matrix, scale, zero, self.format)

    def values(self, codes: Tensor) -> Tensor:
        """The matrix that codes (outputs, inputs) stand for."""
        scale, zero = self.spread()
        return _decode(codes, scale, zero, self.format)

    def spread(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point of every weight."""
        size, inputs = self.size, self.inputs
        return self.scale.repeat_interleave(size, 1)[:, :inputs], self.zero.repeat_interleave(size, 1)[:, :inputs]


def limits(form: WeightFormat) -> tuple[int, int]:
    """Least and greatest integer."""
    return (0, 2**form.bits - 1) if form.zero else (-(2 ** (form.bits - 1)), 2 ** (form.bits - 1) - 1)


def _encode(values: Tensor, scale: Tensor, zero: Tensor, form: WeightFormat) -> Tensor:
    if form.kind == "nf":
        table = torch.tensor(NF4)
        return torch.bucketize((values / scale).clamp(-1, 1), (table[1:] + table[:-1]) / 2).float()
    low, high = limits(form)
    return torch.round(values / scale + zero).clamp_(low, high)


def _decode(codes: Tensor, scale: Tensor, zero: Tensor, form: WeightFormat) -> Tensor:
    if form.kind == "nf":
        return torch.tensor(NF4)[codes.long()] * scale
    return (codes - zero) * scale


def _scales(low: Tensor, high: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    if form.kind == "nf":
        scale = torch.maximum(high, -low)
        return torch.where(scale > 0, scale, torch.ones_like(scale)).half().float(), torch.zeros_like(scale)
    if form.zero:
        scale = (high - low) / (2**form.bits - 1)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale)).half().float().clamp(min=6e-8)
        return scale, torch.round(-low / scale).clamp(0, 2**form.bits - 1)
    scale = torch.maximum(high, -low) / (2 ** (form.bits - 1) - 0.5)
    return torch.where(scale > 0, scale, torch.ones_like(scale)).half().float().clamp(min=6e-8), torch.zeros_like(scale)


def make_grid(matrix: Tensor, form: WeightFormat, weights: Tensor | None = None, *, search: bool = True) -> Grid:
    """Scales (fp16 values) and zero points for a matrix (outputs, inputs).

    `weights` (inputs,) is the importance of each input's squared error; `search` False takes the whole range.
    """
    outputs, inputs = matrix.shape
    size = form.group or inputs
    missing = -inputs % size
    grouped = nn.functional.pad(matrix, (0, missing)).reshape(outputs, -1, size)
    low, high = grouped.amin(-1), grouped.amax(-1)
    if form.zero:
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale, zero = _scales(low, high, form)
    if not search:
        return Grid(form, scale, zero, inputs)
    importance = torch.ones(inputs) if weights is None else weights.clamp(min=0) + 1e-12
    importance = nn.functional.pad(importance, (0, missing)).reshape(1, -1, size)
    least = torch.full_like(scale, torch.inf)
    best_scale, best_zero = scale, zero
    for step in range(_CLIPPINGS):
        share = 1 - step * _FALL
        scale, zero = _scales(low * share, high * share, form)
        codes = _encode(grouped, scale[..., None], zero[..., None], form)
        off = _decode(codes, scale[..., None], zero[..., None], form).sub_(grouped)
        error = off.square_().mul_(importance).sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return Grid(form, best_scale, best_zero, inputs)
