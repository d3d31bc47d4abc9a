"""The mechanisms of device noise, each with its formula and the constants that its data file must give.

`apply` takes conductances in siemens, of any shape (columns, outputs, inputs), and returns new ones.  Conductances
never become negative, except for the error of a whole weight, which stands for several cells at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from tierform.errors import fail
from tierform.provenance import Constant
from tierform.schema import FileModel, quantity

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tierform.numerics.layer import CrossbarLinear

_Siemens = Annotated[Constant, quantity("S")]
_Number = Annotated[Constant, quantity("1")]
_Share = Annotated[Constant, quantity("1", minimum=0)]


class Device(FileModel):
    """The conductances of a cell's lowest and highest level."""

    g_max: Annotated[Constant, quantity("S", above=0)]
    g_min: Annotated[Constant, quantity("S", minimum=0)]

    @property
    def low_S(self) -> float:
        """Conductance of level 0."""
        return self.g_min.value

    @property
    def span_S(self) -> float:
        """Conductance from the lowest to the highest level."""
        span = self.g_max.value - self.g_min.value
        if span <= 0:
            fail("g_max must be greater than g_min", key="device.g_max", value=self.g_max.value)
        return span


@dataclass(frozen=True)
class Surroundings:
    """What a mechanism may need: the device, time since programming, temperature, random numbers, the layer."""

    device: Device
    time_s: float
    temperature_K: float | Tensor
    generator: Generator
    layer: CrossbarLinear | None = None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal draws of a tensor's shape."""
        import torch

        from tierform.numerics.draws import fill_normal, quantiles

        stream = int(torch.randint(0, 2**62, (1,), generator=self.generator, device=like.device))
        columns = like.shape[0] if like.dim() == 3 else 1
        drawn = torch.empty(columns, like.numel() // columns)
        fill_normal(np.uint64(stream), quantiles(), drawn.numpy())
        return drawn.view(like.shape).to(like.device)


class ProgrammingGaussian(FileModel):
    """G + sigma * (g_max - g_min) * N(0, 1), one draw per cell and chip instance."""

    type: Literal["programming-gaussian"]
    sigma: _Share

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The programmed conductances."""
        return (conductance + self.sigma.value * around.device.span_S * around.normal(conductance)).clamp_(min=0.0)


class WeightGaussian(FileModel):
    """w + sigma * w_max * N(0, 1) for every weight, w_max the full scale of its crossbar: carried by its top cell."""

    type: Literal["weight-gaussian"]
    sigma: _Share

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The conductances whose top cells carry the weights' errors."""
        layer = around.layer
        if layer is None:
            fail("the error of a weight needs a layer", key="weight-gaussian")
        top = layer.form.slices - 1
        step_S = around.device.span_S / (2**layer.form.cell_bits - 1)
        scale = self.sigma.value * (2 ** (layer.form.weight_bits - 1) - 1) / layer.factors.columns[top]
        result = conductance.clone()
        result[top] += scale * step_S * around.normal(conductance[top])
        return result


class _FitFile(FileModel):
    after: Annotated[Constant, quantity("s", above=0)]
    coefficients: list[_Siemens]


class ProgrammingPolynomial(FileModel):
    """G + sigma(G) * N(0, 1), sigma = sum of c_i (G / g_reference)^i, fitted at one or several times.

    Between two times sigma is interpolated in the logarithm of time; outside them the nearest fit holds.  G is held in
    the fit's range for sigma.
    """

    type: Literal["programming-polynomial"]
    g_reference: Annotated[Constant, quantity("S", above=0)]
    valid_from: Annotated[Constant, quantity("S", minimum=0)]
    valid_to: Annotated[Constant, quantity("S", above=0)]
    fits: list[_FitFile]

    def sigma_S(self, conductance: Any, time_s: float) -> Any:
        """Standard deviation in siemens at conductances (a number, array or tensor) of the fitted device."""
        if not self.fits:
            fail("a programming error needs at least one fit", key="fits")
        fits = sorted(self.fits, key=lambda fit: fit.after.value)
        x = conductance.clip(self.valid_from.value, self.valid_to.value) / self.g_reference.value
        values = [sum(c.value * x**i for i, c in enumerate(fit.coefficients)) for fit in fits]
        times = [math.log(fit.after.value) for fit in fits]
        now = min(max(math.log(time_s), times[0]), times[-1])
        for index in range(1, len(fits)):
            if now <= times[index]:
                share = (now - times[index - 1]) / (times[index] - times[index - 1])
                return ((1 - share) * values[index - 1] + share * values[index]).clip(0.0)
        return values[-1].clip(0.0)

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The programmed conductances; sigma taken at the same fraction of the fitted device's range."""
        ratio = around.device.span_S / home.span_S
        at_home = home.low_S + (conductance - around.device.low_S) / ratio
        sigma = self.sigma_S(at_home, around.time_s) * ratio
        drawn: Tensor = conductance + sigma * around.normal(conductance)
        return drawn.clamp_(min=0.0)


class StuckAt(FileModel):
    """A share of the cells stays at g_min, another at g_max, whatever was written."""

    type: Literal["stuck-at"]
    at_low: _Share
    at_high: _Share

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The conductances with stuck cells."""
        import torch

        low, high = self.at_low.value, self.at_high.value
        if low + high > 1:
            fail("more cells are stuck than there are", key="stuck-at", value=low + high)
        draw = torch.rand(conductance.shape, generator=around.generator, device=conductance.device)
        device = around.device
        result = torch.where(draw < low, torch.full_like(conductance, device.low_S), conductance)
        stuck_high = (draw >= low) & (draw < low + high)
        return torch.where(stuck_high, torch.full_like(conductance, device.g_max.value), result)


class Relaxation(FileModel):
    """G + mean_slope ln t + (spread_slope ln t + spread_at_1_s) * N(0, 1), t in seconds after programming."""

    type: Literal["relaxation"]
    mean_slope: _Siemens
    spread_slope: _Siemens
    spread_at_1_s: _Siemens

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The relaxed conductances; nothing before one second has passed."""
        if around.time_s <= 1.0:
            return conductance
        ratio = around.device.span_S / home.span_S
        log = math.log(around.time_s)
        spread = (self.spread_slope.value * log + self.spread_at_1_s.value) * ratio
        shifted = conductance + self.mean_slope.value * log * ratio
        return (shifted + spread * around.normal(conductance)).clamp_(min=0.0)


class PowerLawDrift(FileModel):
    """G ((t + t0) / t0)^-nu, nu = |mean + spread * N(0, 1)| with mean and spread linear in ln(G / g_max), in limits."""

    type: Literal["power-law-drift"]
    reference_time: Annotated[Constant, quantity("s", above=0)]
    mean: tuple[_Number, _Number]
    mean_limits: tuple[_Number, _Number]
    spread: tuple[_Number, _Number]
    spread_limits: tuple[_Number, _Number]

    def exponents(self, conductance: Tensor, around: Surroundings) -> tuple[Tensor, Tensor]:
        """Mean and spread of nu at these conductances."""
        log = (conductance / around.device.g_max.value).clamp(min=1e-7).log()

        def limited(line: tuple[Constant, Constant], limits: tuple[Constant, Constant]) -> Tensor:
            return (line[0].value + line[1].value * log).clamp(limits[0].value, limits[1].value)

        return limited(self.mean, self.mean_limits), limited(self.spread, self.spread_limits)

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The drifted conductances."""
        mean, spread = self.exponents(conductance, around)
        nu = (mean + spread * around.normal(conductance)).abs()
        start = self.reference_time.value
        return conductance * ((around.time_s + start) / start) ** (-nu)


class TemperatureConductance(FileModel):
    """G (1 + a (T - T0)), or with `resistive` G / (1 + a (T - T0)); not below zero."""

    type: Literal["temperature-conductance"]
    coefficient: Annotated[Constant, quantity("1/K")]
    reference: Annotated[Constant, quantity("K", above=0)]
    resistive: bool = False

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """The conductances at the temperature of their tile."""
        change = 1 + self.coefficient.value * (around.temperature_K - self.reference.value)
        lowest = change if isinstance(change, float) else float(change.min())
        if lowest <= 0:
            fail("the conductance vanishes at this temperature", key="temperature_K", value=around.temperature_K)
        result: Tensor = conductance / change if self.resistive else conductance * change
        return result


class IrDrop(FileModel):
    """Voltage lost along word and bit lines; see :mod:`tierform.numerics.wires`."""

    type: Literal["ir-drop"]
    wire_resistance: Annotated[Constant, quantity("ohm", minimum=0)]

    def apply(self, conductance: Tensor, around: Surroundings, home: Device) -> Tensor:
        """Conductances that draw, from ideal wires, the currents that reach the ADCs."""
        from tierform.numerics.wires import effective_conductance

        if around.layer is None:
            fail("wires need a layer", key="ir-drop")
        return effective_conductance(conductance, around.layer.form, self.wire_resistance.value)


class Telegraph(FileModel):
    """A cell's trap is filled with the given probability and shifts it by G (b G + a) / (G - (b G + a)), at most G."""

    type: Literal["telegraph"]
    probability: _Share
    a: Annotated[Constant, quantity("S", minimum=0)]
    b: _Share

    def shift_S(self, conductance: Any) -> Any:
        """The shift of a filled trap; cells too weak for the formula (G <= b G + a) are left as they are."""
        part = self.b.value * conductance + self.a.value
        room = conductance - part
        valid = room > part
        return valid * (conductance * part / (room + ~valid * 1.0))

    def apply(self, conductance: Tensor, generator: Generator) -> Tensor:
        """The conductances of one pass."""
        import torch

        filled = torch.rand(conductance.shape, generator=generator, device=conductance.device) < self.probability.value
        result: Tensor = conductance + filled * self.shift_S(conductance)
        return result


class ReadGaussian(FileModel):
    """G + sigma * (g_max - g_min) * N(0, 1), drawn anew in every read."""

    type: Literal["read-gaussian"]
    sigma: _Share


class ThermalShot(FileModel):
    """Current noise of every read: variance 4 k T f G + 2 q f I, f the bandwidth and I = G V (Nyquist, Schottky)."""

    type: Literal["thermal-shot"]
    bandwidth: Annotated[Constant, quantity("Hz", above=0)]
    read_voltage: Annotated[Constant, quantity("V", above=0)]
