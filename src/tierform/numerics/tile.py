"""Reading one layer's crossbars: digits in, column sums, codes, shift-and-add; everything that stays the same is kept.

See :mod:`tierform.numerics.readout` for the arithmetic.  The reader is made anew whenever the layer is programmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tierform.arrays import Floats, Singles
from tierform.numerics import readout
from tierform.numerics.slicing import input_digits

if TYPE_CHECKING:
    from tierform.numerics.layer import CrossbarLinear


class TileReader:
    """What a forward pass of a programmed layer needs; see the module's text."""

    def __init__(self, layer: CrossbarLinear) -> None:
        form, f = layer.form, layer.factors
        self.layer = layer
        self.ideal = form.adc_bits == 0
        self.zero = 128 if f.digit_low < 0 else 0
        self.starts = np.array([a for a, _ in layer.blocks] + [layer.in_features], dtype=np.int64)
        self.w_offsets = f.input_offset * layer.stored_sum
        self.on_cpu = layer.weight.device.type == "cpu"
        rows = max(b - a for a, b in layer.blocks)
        self.int8 = (
            not layer.noisy
            and 0 < form.adc_bits <= 8
            and self.on_cpu
            and readout.fits_int8(2**form.cell_bits - 1, f.digit_low, f.digit_high, rows)
            and readout.int8_available()
        )
        peak = rows * (2**form.cell_bits - 1) * max(f.digit_high, -f.digit_low)
        wide = not layer.noisy and peak >= readout.EXACT_FLOAT32
        self.sum_type = torch.float64 if wide else torch.float32
        self.ready = False

    def _prepare(self) -> None:
        """Gains and factors: after a calibrated ADC has seen its first batch."""
        layer, f = self.layer, self.layer.factors
        self.gain = layer.gain() if not self.ideal else torch.ones(len(f.columns))
        low, high = layer.code_limits if not self.ideal else (0, 0)
        self.low, self.high = np.float32(low), np.float32(high)
        columns = torch.tensor(f.columns, dtype=torch.float64) / self.gain.double()
        factor = torch.tensor(f.inputs, dtype=torch.float64)[:, None] * columns
        exact = bool((self.gain == 1).all()) and float(factor.abs().sum()) * max(-low, high) < readout.EXACT_FLOAT32
        self.total_type = torch.float32 if exact and not self.ideal else torch.float64
        self.factor = factor.to(self.total_type)
        self.total = np.empty(layer.out_features, np.float32 if exact else np.float64)
        self._prepare_inverted(np.float32 if exact and not self.ideal else np.float64)
        self.packed = []
        if self.int8:
            self.packed = [
                readout.PackedColumns(layer.column_levels[:, :, a:b], self.gain, layer.signed_codes)
                for a, b in layer.blocks
            ]
        self.columns: list[Tensor] = []
        self.ready = True

    def _prepare_inverted(self, kind: type) -> None:
        """The sign of every column's codes, and by how many sums of inputs inverted columns are restored."""
        layer = self.layer
        columns, top = len(layer.factors.columns), 2**layer.form.cell_bits - 1
        blocks = len(layer.blocks)
        if layer.inverted is None:
            self.sign = np.ones((blocks, columns * layer.out_features), np.float32)
            self.restored: Singles | Floats = np.zeros((blocks, layer.out_features), kind)
            return
        chosen = layer.inverted.cpu().numpy()
        self.sign = np.where(chosen, -1, 1).astype(np.float32).reshape(blocks, -1)
        factor = np.array(layer.factors.columns, np.float64)[None, :, None]
        self.restored = (top * factor * chosen).sum(1).astype(kind)

    def product(self, x: Tensor) -> Tensor:
        """Inputs (M, K) float32 to outputs (M, N) float32, as the tile computes them."""
        if self.on_cpu:
            flat, scale, sums = self._slice(x.contiguous())
            y = self._run(flat, sums, self.layer.block_scale)
            return y.mul_(scale[:, None])
        integers, step = self.layer.round_inputs(x)
        return self._run(*self._slice_tensors(integers), self.layer.block_scale) * step

    def block_sums(self, integers: Tensor) -> Tensor:
        """Totals (blocks, M, N) of integer inputs, without scales."""
        flat, sums = self._slice_tensors(integers.float())
        result = []
        for index in range(len(self.layer.blocks)):
            scale = torch.zeros_like(self.layer.block_scale)
            scale[index] = 1.0
            result.append(self._run(flat, sums, scale))
        return torch.stack(result)

    def _slice(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        layer, form, f = self.layer, self.layer.form, self.layer.factors
        vectors, inputs = x.shape
        flat = torch.empty(form.digits * vectors * inputs, dtype=torch.uint8)
        scale = torch.empty(vectors)
        sums = torch.empty(len(layer.blocks), vectors, dtype=torch.float64)
        readout.slice_inputs(
            x.numpy(),
            np.float32(layer.full_scale or 0.0),
            np.float32(2 ** (form.input_bits - 1) - 1),
            f.input_offset,
            form.dac_bits,
            form.digits,
            f.inputs[-1] < 0,
            self.zero,
            self.starts,
            flat.numpy(),
            scale.numpy(),
            sums.numpy(),
        )
        rows = form.digits * vectors
        return [flat[rows * a : rows * b].view(rows, b - a) for a, b in layer.blocks], scale, sums

    def _slice_tensors(self, integers: Tensor) -> tuple[list[Tensor], Tensor]:
        digits = input_digits(integers, self.layer.form)
        flat = digits.reshape(-1, digits.shape[-1]) + self.zero
        sums = torch.stack([integers[:, a:b].double().sum(-1) for a, b in self.layer.blocks])
        return [flat[:, a:b].to(torch.uint8).contiguous() for a, b in self.layer.blocks], sums

    def _run(self, flat: list[Tensor], sums: Tensor, scales: Tensor) -> Tensor:
        layer = self.layer
        if not self.ready:
            if layer.form.adc_range == "calibrated" and layer.observed is None and not self.ideal:
                self._observe(flat)
            self._prepare()
        vectors = sums.shape[1]
        y = torch.zeros(vectors, layer.out_features, device=sums.device)
        x_offsets = (layer.factors.weight_offset * sums).to(self.total_type)
        w_offsets = self.w_offsets.to(self.total_type)
        rows = torch.tensor([b - a for a, b in layer.blocks], device=sums.device)[:, None]
        x_sums = (sums + layer.factors.input_offset * rows).to(self.total_type)
        columns = [] if self.int8 else self._analog_columns()
        for index, (a, b) in enumerate(layer.blocks):
            if self.int8:
                codes = self.packed[index].codes(flat[index], self.zero)
                readout.add_codes(
                    codes.numpy(),
                    self.low,
                    self.high,
                    self.factor.numpy(),
                    self.sign[index],
                    scales[index].numpy(),
                    x_offsets[index].numpy(),
                    w_offsets[index].numpy(),
                    x_sums[index].numpy(),
                    self.restored[index],
                    self.total,
                    y.numpy(),
                )
                continue
            digits = flat[index].to(self.sum_type)
            if self.zero:
                digits -= self.zero
            column_sums = digits @ columns[index]
            if layer.noisy and layer.noise is not None and layer.fresh:
                column_sums = layer.noise.add_read_noise(column_sums, digits, layer, a, b)
            if self.ideal or not self.on_cpu:
                at = y.device
                readout.convert_and_add_tensors(
                    column_sums,
                    self.gain.to(at),
                    None if self.ideal else layer.code_limits,
                    self.factor.to(at),
                    torch.from_numpy(self.sign[index]).to(at),
                    scales[index],
                    x_offsets[index],
                    w_offsets[index],
                    x_sums[index],
                    torch.from_numpy(self.restored[index]).to(at),
                    y,
                )
            else:
                readout.convert_and_add(
                    column_sums.numpy(),
                    self.gain.numpy(),
                    self.low,
                    self.high,
                    self.factor.numpy(),
                    self.sign[index],
                    scales[index].numpy(),
                    x_offsets[index].numpy(),
                    w_offsets[index].numpy(),
                    x_sums[index].numpy(),
                    self.restored[index],
                    self.total,
                    y.numpy(),
                )
        return y

    def _analog_columns(self) -> list[Tensor]:
        """Columns of every block as (rows, P*N), in the sums' type; drawn anew while telegraph noise is fresh."""
        layer = self.layer
        if not self.columns or (layer.noise is not None and layer.noise.telegraph and layer.fresh):
            levels = layer.read_levels()
            whole = levels.reshape(-1, levels.shape[-1])
            self.columns = [whole[:, a:b].T.to(self.sum_type).contiguous() for a, b in layer.blocks]
        return self.columns

    def _observe(self, flat: list[Tensor]) -> None:
        """Remember the largest sum of every column slice, as the range of a calibrated ADC."""
        layer = self.layer
        levels = layer.column_levels.float()
        largest = [0.0] * len(levels)
        for digits, (a, b) in zip(flat, layer.blocks, strict=True):
            driven = digits.float() - self.zero
            for p in range(len(levels)):
                largest[p] = max(largest[p], float((driven @ levels[p, :, a:b].T).abs().max()))
        layer.remember_range(largest)
