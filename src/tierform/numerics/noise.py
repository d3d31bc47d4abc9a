"""Device noise: what a cell's conductance is after programming, after time, at a temperature, and in every read.

A noise file names its mechanisms, each with constants, source and kind (``library/noise``); several files are combined
by giving several names.  Mechanisms act on conductances in siemens, in this order: programming error, stuck cells,
relaxation and drift, temperature, wires; then telegraph states anew for every pass, and read, thermal and shot noise
anew for every read.  A chip instance is one draw of everything that is fixed, by the layer's seed.

A cell's level l of L is G = g_min + l / (L - 1) * (g_max - g_min), on the range of the first file that states one; a
mechanism that was fitted on another range acts at the same fraction of it.  The column of reference cells that takes
off g_min is taken as ideal.  The sum of many independent reads is drawn at the column, with the variance that the
cells' draws would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from tierform import library
from tierform.errors import fail
from tierform.files import Document, read_yaml
from tierform.numerics.mechanisms import (
    Device,
    IrDrop,
    PowerLawDrift,
    ProgrammingGaussian,
    ProgrammingPolynomial,
    ReadGaussian,
    Relaxation,
    StuckAt,
    Surroundings,
    Telegraph,
    TemperatureConductance,
    ThermalShot,
    WeightGaussian,
)
from tierform.provenance import Assumption
from tierform.schema import FileModel, validate

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tierform.numerics.layer import CrossbarLinear

SCHEMA = "tierform.noise/1"
BOLTZMANN_J_PER_K = 1.380649e-23
CHARGE_C = 1.602176634e-19
DEFAULT_DEVICE = "cell-neurosim-rram"

Mechanism = Annotated[
    ProgrammingGaussian
    | WeightGaussian
    | ProgrammingPolynomial
    | StuckAt
    | Relaxation
    | PowerLawDrift
    | TemperatureConductance
    | IrDrop
    | Telegraph
    | ReadGaussian
    | ThermalShot,
    Field(discriminator="type"),
]
_ORDER: tuple[Any, ...] = (
    ProgrammingPolynomial,
    ProgrammingGaussian,
    WeightGaussian,
    StuckAt,
    Relaxation,
    PowerLawDrift,
    TemperatureConductance,
    IrDrop,
)


class NoiseFile(FileModel):
    """A noise data file."""

    schema_: str = SCHEMA
    description: str
    device: Device | None = None
    sources: list[Mechanism]


@dataclass(frozen=True)
class Noise:
    """Mechanisms on one device range; `time_s` is the time since programming."""

    names: tuple[str, ...]
    device: Device
    sources: tuple[Any, ...]
    homes: tuple[Device | None, ...]
    time_s: float = 1.0
    lines: tuple[Assumption, ...] = field(default=(), repr=False)

    @property
    def telegraph(self) -> bool:
        """Whether cells change from pass to pass."""
        return any(isinstance(source, Telegraph) for source in self.sources)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return self.lines

    def program(self, cells: Tensor, layer: CrossbarLinear, generator: Generator) -> Tensor:
        """Conductances (columns, outputs, inputs) in siemens of integer cell levels, for one chip instance."""
        top = 2**layer.form.cell_bits - 1
        conductance: Tensor = self.device.low_S + cells.float() / top * self.device.span_S
        around = Surroundings(self.device, self.time_s, layer_temperature(layer), generator, layer)
        for kind in _ORDER:
            for source, home in zip(self.sources, self.homes, strict=True):
                if type(source) is kind:
                    conductance = source.apply(conductance, around, home or self.device)
        return conductance

    def programmed_weight(
        self, cells: Tensor, layer: CrossbarLinear, generator: Generator, scales: Tensor
    ) -> Tensor | None:
        """The weight (outputs, inputs) that the cells of one chip instance stand for, with `scales` [block, output].

        One pass without conductances in memory, where the only mechanism is a Gaussian programming error and the cells
        are on the CPU; else None.  The errors are those of :meth:`program`.
        """
        import numpy as np
        import torch

        from tierform.numerics.draws import fold_programmed, quantiles

        if len(self.sources) != 1 or not isinstance(self.sources[0], ProgrammingGaussian) or cells.is_cuda:
            return None
        if layer.form.encoding == "differential":
            return None
        top = 2**layer.form.cell_bits - 1
        stream = int(torch.randint(0, 2**62, (1,), generator=generator))
        weight = torch.empty(cells.shape[1:])
        flipped = np.zeros((0, 0, 0), np.bool_) if layer.inverted is None else layer.inverted.numpy()
        fold_programmed(
            cells.numpy(),
            np.array(layer.factors.columns, np.float32),
            np.float32(self.sources[0].sigma.value * top),
            np.float32(-self.device.low_S * top / self.device.span_S),
            flipped,
            np.array([a for a, _ in layer.blocks] + [layer.in_features]),
            np.float32(top),
            np.uint64(stream),
            quantiles(),
            np.float32(layer.factors.weight_offset),
            scales.numpy(),
            weight.numpy(),
        )
        return weight

    @property
    def needs_conductance(self) -> bool:
        """Whether every pass looks at the conductances again."""
        return any(isinstance(source, (Telegraph, ThermalShot)) for source in self.sources)

    def per_pass(self, conductance: Tensor, layer: CrossbarLinear) -> Tensor:
        """The conductances of one pass: telegraph states drawn anew while the layer's noise is fresh."""
        if not layer.fresh:
            return conductance
        for source in self.sources:
            if isinstance(source, Telegraph):
                conductance = source.apply(conductance, read_generator(layer))
        return conductance

    def to_levels(self, conductance: Tensor, layer: CrossbarLinear) -> Tensor:
        """Conductances as levels, in units of one level step, g_min taken off."""
        top = 2**layer.form.cell_bits - 1
        levels: Tensor = (conductance - self.device.low_S) * (top / self.device.span_S)
        return levels

    # -- noise of every read, at the column ------------------------------------------------------------------------

    def _reads(self) -> list[ReadGaussian | ThermalShot]:
        return [source for source in self.sources if isinstance(source, (ReadGaussian, ThermalShot))]

    def add_read_noise(self, sums: Tensor, digits: Tensor, layer: CrossbarLinear, a: int, b: int) -> Tensor:
        """Column sums (vectors, P*N) with the noise of this read; `digits` (vectors, rows) is what DACs drive."""
        import torch

        if not self._reads():
            return sums
        squares = digits.square().sum(-1, keepdim=True)
        variance = self._variance(squares, digits.abs(), layer, a, b, weights=None)
        noise = torch.randn(sums.shape, generator=read_generator(layer), device=sums.device, dtype=sums.dtype)
        return sums + noise * variance.sqrt()

    def folded_read_noise(self, integers: Tensor, layer: CrossbarLinear) -> Tensor | float:
        """Noise (M, N) of all digits' and columns' reads, before the inputs' scale, for the one-product fidelity."""
        import torch

        from tierform.numerics.slicing import input_digits

        if not self._reads():
            return 0.0
        digits = input_digits(integers, layer.form).float()
        by_digit = torch.tensor(layer.factors.inputs, device=integers.device).float().square()[:, None, None]
        squares = by_digit * digits.square()
        sizes = (by_digit * digits.abs()).sum(0)
        total = torch.zeros(integers.shape[0], layer.out_features, device=integers.device)
        column = torch.tensor(layer.factors.columns, device=integers.device).float().square()
        for index, (a, b) in enumerate(layer.blocks):
            part = squares[:, :, a:b].sum((0, -1))[:, None]
            variance = self._variance(part, sizes[:, a:b], layer, a, b, weights=column)
            total += variance * layer.block_scale[index].square()
        noise = torch.randn(total.shape, generator=read_generator(layer), device=total.device)
        return noise * total.sqrt()

    def read_variance(self, layer: CrossbarLinear) -> float:
        """Read noise's variance of one cell driven at 1, in levels squared (thermal and shot noise: below 1e-6)."""
        top = 2**layer.form.cell_bits - 1
        paired = 2 if layer.form.encoding == "differential" else 1
        sigmas = [source.sigma.value for source in self.sources if isinstance(source, ReadGaussian)]
        return float(sum(sigma**2 for sigma in sigmas) * top**2 * paired)

    def _variance(
        self, squares: Tensor, sizes: Tensor, layer: CrossbarLinear, a: int, b: int, weights: Tensor | None
    ) -> Tensor:
        """Variance of column sums in level units: (vectors, P*N), or (M, N) summed over columns with `weights`.

        Read noise: sum over rows of (digit * sigma)^2.  Thermal: 4 k T f G of every cell.  Shot: 2 q f of its current.
        """
        import torch

        form, device = layer.form, self.device
        top = 2**form.cell_bits - 1
        paired = 2 if form.encoding == "differential" else 1
        columns = len(layer.factors.columns)
        digit_top = max(layer.factors.digit_high, -layer.factors.digit_low)
        result: Tensor | float = 0.0
        by_digit = float(sum(f * f for f in layer.factors.inputs)) if weights is not None else 1.0
        for source in self._reads():
            if isinstance(source, ReadGaussian):
                each = squares * ((source.sigma.value * top) ** 2 * paired)
                result = result + (each * float(weights.sum()) if weights is not None else each)
                continue
            cells = cast("Tensor", layer.conductance)[:, :, a:b]
            if form.encoding == "differential":
                cells = cells[:columns] + cells[columns:]
            kelvin = layer_temperature(layer)
            hot = cells * (kelvin[None, :, a:b] if isinstance(kelvin, torch.Tensor) else kelvin)
            if weights is None:
                hot, current = hot.reshape(-1, b - a), cells.reshape(-1, b - a)
            else:
                hot = (hot * weights[:, None, None]).sum(0)
                current = (cells * weights[:, None, None]).sum(0)
            volts, hertz = source.read_voltage.value, source.bandwidth.value
            unit_A = device.span_S / top * volts / digit_top
            thermal = 4 * BOLTZMANN_J_PER_K * hertz * hot.double().sum(-1) * by_digit / unit_A**2
            shot = (sizes @ current.T) * (2 * CHARGE_C * hertz * volts / digit_top / unit_A**2)
            result = result + thermal.to(shot.dtype)[None, :] + shot
        return cast("Tensor", result)


def read_generator(layer: CrossbarLinear) -> Generator:
    """The stream of what is drawn anew in every pass: seeded with the layer, going on from pass to pass."""
    import torch

    found = getattr(layer, "_read_generator", None)
    if found is None or found[0] != layer.seed:
        generator = torch.Generator(device=layer.weight.device).manual_seed((layer.seed * 31 + 7) % 2**31)
        found = (layer.seed, generator)
        object.__setattr__(layer, "_read_generator", found)
    return cast("Generator", found[1])


def layer_temperature(layer: CrossbarLinear) -> float | Tensor:
    """The layer's temperature: one number, or (outputs, inputs) when its crossbars sit on tiles of different heat."""
    import torch

    given = layer.temperature_K
    if not isinstance(given, dict):
        return given
    missing = [tile for tile in layer.tiles if tile not in given]
    if missing or not layer.tiles:
        fail("no temperature is given for a tile that holds weights", key="temperature_K", value=missing[:5] or None)
    kelvins = [given[tile] for tile in layer.tiles]
    if max(kelvins) - min(kelvins) < 1e-9:
        return kelvins[0]
    form = layer.form
    tall = -(-layer.out_features // form.weights_per_row)
    wide = -(-layer.in_features // form.rows)
    index = torch.arange(tall * wide).reshape(tall, wide) * len(kelvins) // (tall * wide)
    by_crossbar = torch.tensor(kelvins)[index]
    spread = by_crossbar.repeat_interleave(form.weights_per_row, 0).repeat_interleave(form.rows, 1)
    return spread[: layer.out_features, : layer.in_features].to(layer.weight.device)


def load_noise(names: str | Path | Sequence[str | Path], *, time_s: float = 1.0) -> Noise:
    """Noise from files of the library or paths (a comma-separated text or a sequence); ``none`` is no mechanism.

    TierformError with every mistake and its line, with the nearest name when there is no such file, and when `time_s`
    is not positive.
    """
    if not (math.isfinite(time_s) and time_s > 0):
        fail("the time since programming must be greater than 0 s", key="time_s", value=time_s)
    wanted = [names] if isinstance(names, Path) else names
    if isinstance(wanted, str):
        wanted = [part.strip() for part in wanted.split(",") if part.strip()]
    files = [(str(name), _read(name)) for name in wanted if str(name) != "none"]
    device = next((file.device for _, file in files if file.device is not None), None)
    if device is None:
        file = _read(DEFAULT_DEVICE)
        files.append((DEFAULT_DEVICE, file))
        device = cast(Device, file.device)
    sources = [(source, file.device) for _, file in files for source in file.sources]
    from tierform.chip.parameters import evidence

    lines = [line for name, file in files if file.device for line in evidence(f"noise.{name}", file.device)]
    lines += [
        line
        for name, file in files
        for source in file.sources
        for line in evidence(f"noise.{name}.{source.type}", source)
    ]
    return Noise(
        tuple(name for name, _ in files),
        device,
        tuple(source for source, _ in sources),
        tuple(home for _, home in sources),
        time_s,
        tuple(lines),
    )


def _read(name: str | Path) -> NoiseFile:
    text = str(name)
    path = Path(text) if text.endswith((".yaml", ".yml")) else library.find("noise", text)
    document = read_yaml(path)
    if isinstance(document.content, dict) and "schema" in document.content:
        if document.content["schema"] != SCHEMA:
            fail(
                "this file has another schema",
                file=document.file,
                line=document.line_of(("schema",)),
                value=document.content["schema"],
                choices=[SCHEMA],
            )
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    return validate(NoiseFile, document)
