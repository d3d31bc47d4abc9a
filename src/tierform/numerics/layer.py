"""One linear layer on crossbars: quantized, sliced into cells, noisy, read through ADCs.

The layer keeps its trained weight as it was and programs cells from it.  Three fidelities: ``bits`` computes what the
tile computes, conversion by conversion (and takes the integer product directly where no ADC can clip or round and no
cell is noisy: the same values, bit for bit); ``weights`` leaves the ADCs out and multiplies by the weight that the
noisy cells stand for, in one product; ``surrogate`` adds to that a random error of the size that the ADCs' rounding has
(:mod:`tierform.numerics.rounding`), which is what training uses.  Gradients pass straight through rounding and noise:
the gradient of the input is that of a product with the weight in the cells.

Inputs are rounded per token to symmetric integers, with the largest magnitude of the token (``dynamic``) or of the
layer's calibration (a number) as full scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics import readout
from tierform.numerics.chip_view import CrossbarFormat
from tierform.numerics.digital import DigitalPart, DigitalShare, take_digital
from tierform.numerics.formats import Quantizer
from tierform.numerics.layer_op import LAYERS, NUMBERS
from tierform.numerics.noise import layer_temperature, read_generator
from tierform.numerics.quantize import check_finite, quantize_integers
from tierform.numerics.rounding import RoundingError, may_clip
from tierform.numerics.slicing import (
    cell_levels,
    factors,
    folded_weight,
    invert,
    inverted,
    read_columns,
    row_blocks,
)
from tierform.numerics.tile import TileReader

if TYPE_CHECKING:
    from tierform.numerics.noise import Noise

FIDELITIES = ("bits", "surrogate", "weights")


class CrossbarLinear(nn.Linear):
    """A linear layer whose weight sits in crossbars; see the module's text.

    `tiles` names the tiles that hold it, in the order its crossbars fill them; `temperature_K` is one temperature or
    one per tile of the chip.  `seed` fixes the chip instance: the same seed programs the same errors.
    """

    def __init__(
        self,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        form: CrossbarFormat,
        *,
        transposed: bool = False,
        quantizer: Quantizer | None = None,
        noise: Noise | None = None,
        temperature_K: float | dict[int, float] = 300.0,
        tiles: tuple[int, ...] = (),
        seed: int = 0,
        name: str = "linear",
        digital: DigitalShare | None = None,
        energy: Tensor | None = None,
    ) -> None:
        outputs, inputs = (weight.shape[1], weight.shape[0]) if transposed else (weight.shape[0], weight.shape[1])
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.weight = weight
        self.register_parameter("bias", bias)
        self.transposed, self.form, self.noise, self.tiles, self.layer_name = transposed, form, noise, tiles, name
        block = (form.rows, form.weights_per_row)
        self.quantizer = quantizer or Quantizer(f"int{form.weight_bits}", "crossbar", block=block)
        if self.quantizer.bits > form.weight_bits or not self.quantizer.format.startswith("int"):
            fail(
                "the weights are wider than their cells",
                key=name,
                value=self.quantizer.format,
                fix=f"The cells of one weight hold {form.weight_bits} bits.",
            )
        if not self.quantizer.symmetric:
            fail("cells hold symmetric integers", key=name, value=self.quantizer.format)
        if self.quantizer.granularity == "group":
            fail("a scale is applied to a whole column sum: per tensor, channel or crossbar", key=name, value="group")
        self.digital, self.energy = digital, energy
        self.part: DigitalPart | None = None
        self.temperature_K = temperature_K
        self.seed, self.fidelity = seed, "bits"
        self.full_scale: float | None = None
        self.observed: list[float] | None = None
        self.fresh = True
        self._number = next(NUMBERS)
        LAYERS[self._number] = self
        self._programmed_version = -1
        check_finite(weight.detach(), f"{name}.weight")
        self.program()

    # -- programming ---------------------------------------------------------------------------------------------

    @property
    def matrix(self) -> Tensor:
        """The trained weight as (outputs, inputs)."""
        return self.weight.detach().T if self.transposed else self.weight.detach()

    def program(self, seed: int | None = None) -> None:
        """Write the weight into cells: quantize, slice, and draw this chip instance's programming errors."""
        if seed is not None:
            self.seed = seed
        if self.weight._version != self._programmed_version:
            self._slice()
        self._conductance: Tensor | None = None
        if self.noisy:
            layer_temperature(self)  # a tile without a temperature is said now, not when cells are drawn
        self._tile_reader: TileReader | None = None
        self._rounding: RoundingError | None = None
        self._effective: Tensor | None = None

    @property
    def noisy(self) -> bool:
        """Whether the cells have errors."""
        return self.noise is not None and bool(self.noise.sources)

    def _generator(self) -> torch.Generator:
        return torch.Generator(device=self._cells.device).manual_seed(self.seed)

    @property
    def conductance(self) -> Tensor | None:
        """The conductances, drawn from the seed when asked for and kept only where every pass needs them, or None."""
        if self.noise is None or not self.noisy:
            return None
        if self._conductance is not None:
            return self._conductance
        found = self.noise.program(self._cells, self, self._generator())
        if self.noise.needs_conductance:
            self._conductance = found
        return found

    def _slice(self) -> None:
        """What the weight alone decides: integers, scales, levels, and what ADCs can do with them."""
        form = self.form
        matrix = self.matrix
        if self.digital is not None and not self.digital.none:
            matrix, self.part = take_digital(matrix, self.digital, self.energy, self.layer_name)
        integers, scale, _ = quantize_integers(matrix, self.quantizer)
        del matrix
        self.blocks = row_blocks(self.in_features, form)
        starts = torch.tensor([a for a, _ in self.blocks], device=scale.device)
        self.block_scale = scale[:, starts].T.contiguous()
        self.integers = integers.to(torch.int8)
        cells = cell_levels(integers, form)
        self.factors = factors(form)
        self.inverted = inverted(cells, form, self.blocks) if form.inverted_columns else None
        if self.inverted is not None:
            cells = invert(cells, self.inverted, form, self.blocks)
        self._cells = cells
        self.column_levels: Tensor = read_columns(cells, form)
        self.stored_sum = torch.stack([cells_sum(self, a, b) for a, b in self.blocks])
        self._programmed_version = self.weight._version
        self._gain: Tensor | None = None
        self._integer_blocks: list[Tensor] | None = None
        self._lossless: bool | None = None
        self._may_clip: bool | None = None
        if form.adc_range == "calibrated":
            self.observed = None

    def _refresh(self) -> None:
        if self.weight._version != self._programmed_version:
            check_finite(self.weight.detach(), f"{self.layer_name}.weight")
            self.program()

    def read_levels(self) -> Tensor:
        """Levels (P, N, K) as ADCs see them: integers, or floats once cells are noisy (telegraph noise drawn anew)."""
        conductance = self.conductance
        if conductance is None or self.noise is None:
            return self.column_levels
        cells = self.noise.to_levels(self.noise.per_pass(conductance, self), self)
        return read_columns(cells, self.form)

    def _upright_levels(self) -> Tensor:
        levels = self.read_levels()
        return levels if self.inverted is None else invert(levels, self.inverted, self.form, self.blocks)

    @property
    def cell_weight(self) -> Tensor:
        """The weight (outputs, inputs) in the cells, in real units."""
        if self._effective is None:
            self._effective = self._programmed(self.block_scale)
        return self._effective

    def _programmed(self, scales: Tensor) -> Tensor:
        """What the cells stand for with `scales` [block, output]."""
        if self.noise is not None and self.noisy:
            quickly = self.noise.programmed_weight(self._cells, self, self._generator(), scales)
            if quickly is not None:
                return quickly
        folded = folded_weight(self._upright_levels(), self.form) if self.noisy else self.integers.float()
        for (a, b), scale in zip(self.blocks, scales, strict=True):
            folded[:, a:b] *= scale[:, None]
        return folded

    @property
    def effective(self) -> Tensor:
        """The weight (outputs, inputs) that the layer multiplies with: cells and digital part."""
        if self.part is None:
            return self.cell_weight
        return self.cell_weight + self.part.dense((self.out_features, self.in_features)).to(self.cell_weight.device)

    # -- what ADCs can do ----------------------------------------------------------------------------------------

    def sum_bounds(self) -> tuple[Tensor, Tensor]:
        """Least and greatest column sum possible with the stored levels, (P,) each, over all blocks and digits."""
        f = self.factors
        low = torch.zeros(len(f.columns))
        high = torch.zeros(len(f.columns))
        for a, b in self.blocks:
            part = self.column_levels[:, :, a:b].float()
            up, down = part.clamp(min=0).sum(-1).amax(-1), part.clamp(max=0).sum(-1).amin(-1)
            high = torch.maximum(high, (up * f.digit_high + down * f.digit_low).cpu())
            low = torch.minimum(low, (down * f.digit_high + up * f.digit_low).cpu())
        return low, high

    @property
    def signed_codes(self) -> bool:
        """Whether column sums may be negative, so that the ADC spends a bit on the sign."""
        return self.form.encoding == "differential" or self.factors.digit_low < 0

    @property
    def code_limits(self) -> tuple[int, int]:
        """Least and greatest code."""
        bits = self.form.adc_bits
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.signed_codes else (0, 2**bits - 1)

    def gain(self) -> Tensor:
        """Codes per level of sum, (P,) float32, by the ADC's range."""
        if self._gain is None:
            _, top = self.code_limits
            rule = self.form.adc_range
            columns = len(self.factors.columns)
            if rule == "granular" or top < 1:
                step = torch.ones(columns)
            elif rule == "maximum":
                low, high = self.sum_bounds()
                step = torch.maximum(high, -low) / top
            elif rule == "calibrated":
                step = torch.tensor(self.observed or [0.0] * columns) / top
            else:
                step = torch.full((columns,), float(rule) / top)
            step = torch.where(step < 1, torch.ones_like(step), step) if isinstance(rule, str) else step
            self._gain = (1.0 / step).float()
        return self._gain

    @property
    def lossless(self) -> bool:
        """Proved: with the stored levels no ADC can clip or round."""
        if self._lossless is None:
            self._lossless = self._prove_lossless()
        return self._lossless

    def _prove_lossless(self) -> bool:
        if self.form.adc_bits == 0:
            return True
        if self.form.adc_range == "calibrated":
            return False
        bottom, top = self.code_limits
        low, high = self.sum_bounds()
        return bool((self.gain() == 1).all()) and bool((high <= top).all()) and bool((low >= bottom).all())

    # -- the product ---------------------------------------------------------------------------------------------

    def round_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Integers (as floats) and scales (M, 1) of inputs (M, K)."""
        top = 2 ** (self.form.input_bits - 1) - 1
        if self.full_scale is None:
            scale = x.abs().amax(-1, keepdim=True) / top
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        else:
            scale = torch.full((x.shape[0], 1), self.full_scale / top, device=x.device)
        return torch.round(x / scale).clamp_(-top, top), scale

    def multiply(self, x: Tensor) -> Tensor:
        """The product of inputs (M, K) float32 with the weight, as this chip instance computes it (no bias)."""
        self._refresh()
        if self.part is None:
            return self._in_cells(x)
        driven = x.clone()
        driven[:, self.part.channels] = 0
        return self._in_cells(driven) + self.part.times(x)

    def _in_cells(self, x: Tensor) -> Tensor:
        exact = not self.noisy and self.lossless
        if not exact and (self.fidelity == "bits" or (self.fidelity == "surrogate" and self._converts())):
            return self._reader().product(x)
        integers, scale = self.round_inputs(x)
        y = self._integer_product(integers) if self.fidelity == "bits" else self._folded(integers)
        return y * scale

    def _converts(self) -> bool:
        """Whether the surrogate must compute this layer's conversions: an ADC may clip, or has no range yet."""
        if self.form.adc_range == "calibrated":
            return self.observed is None and self.form.adc_bits > 0
        if self._may_clip is None:
            self._may_clip = may_clip(self)
        return self._may_clip

    def _folded(self, integers: Tensor) -> Tensor:
        if self.noise is not None and self.noise.telegraph and self.fresh:
            self._effective = None
        y = integers @ self.cell_weight.T
        if self.factors.input_offset and self.noisy:
            # The tile takes off what the offset would give on exact cells: their errors stay.
            for (a, b), scale in zip(self.blocks, self.block_scale, strict=True):
                error = self.cell_weight[:, a:b] - self.integers[:, a:b] * scale[:, None]
                y = y + self.factors.input_offset * error.sum(-1)
        if self.noise is not None and self.noisy and self.fresh:
            y = y + self.noise.folded_read_noise(integers, self)
        if self.fidelity == "surrogate" and self.fresh:
            if self._rounding is None:
                self._rounding = RoundingError(self)
            y = y + self._rounding.draw(integers, read_generator(self))
        return y

    def _integer_product(self, integers: Tensor) -> Tensor:
        y = torch.zeros(integers.shape[0], self.out_features, device=integers.device)
        if self._integer_blocks is None:
            top = 2 ** (self.form.input_bits - 1) * 2 ** (self.form.weight_bits - 1)
            self._integer_blocks = [
                self.integers[:, a:b]
                .T.to(torch.float32 if (b - a) * top < readout.EXACT_FLOAT32 else torch.float64)
                .contiguous()
                for a, b in self.blocks
            ]
        for index, (a, b) in enumerate(self.blocks):
            block = self._integer_blocks[index]
            part = integers[:, a:b].to(block.dtype) @ block
            y += part.float().mul_(self.block_scale[index])
        return y

    def remember_range(self, largest: list[float]) -> None:
        """Set a calibrated ADC's range: the largest column sum of every slice."""
        self.observed, self._gain = largest, None

    def _reader(self) -> TileReader:
        if self._tile_reader is None:
            self._tile_reader = TileReader(self)
        return self._tile_reader

    def block_sums(self, integers: Tensor) -> Tensor:
        """What the tile's adders hold for integer inputs (M, K) before any scale: (blocks, M, N), for inspection."""
        return self._reader().block_sums(integers)

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), with the bias added digitally."""
        kind = input.device.type
        cast_to = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        with torch.autocast(kind, enabled=False):
            x = input.reshape(-1, self.in_features).float()
            y = torch.ops.tierform.crossbar_linear(x, self.weight, self._number)
            if self.bias is not None:
                y = y + self.bias.float()
            return cast(Tensor, y.to(cast_to).reshape(*input.shape[:-1], self.out_features))

    def extra_repr(self) -> str:
        """Sizes and format for printing a model."""
        form = self.form
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"int{self.quantizer.bits} per {self.quantizer.granularity}, {form.encoding} columns of "
            f"{form.cell_bits}-bit cells, {form.adc_bits or 'ideal'}-bit ADC"
        )

    def __deepcopy__(self, memo: dict[int, object]) -> CrossbarLinear:
        import copy

        twin = CrossbarLinear(
            cast(nn.Parameter, copy.deepcopy(self.weight, memo)),
            copy.deepcopy(self.bias, memo),
            self.form,
            transposed=self.transposed,
            quantizer=self.quantizer,
            noise=self.noise,
            temperature_K=self.temperature_K,
            tiles=self.tiles,
            seed=self.seed,
            name=self.layer_name,
            digital=self.digital,
            energy=self.energy,
        )
        twin.fidelity, twin.full_scale, twin.observed = self.fidelity, self.full_scale, self.observed
        twin.train(self.training)
        memo[id(self)] = twin
        return twin


def cells_sum(layer: CrossbarLinear, a: int, b: int) -> Tensor:
    """Sum over a block's rows of what is stored (with its offset), by output, for the input offset's correction."""
    return layer.integers[:, a:b].double().sum(-1) + layer.factors.weight_offset * (b - a)
