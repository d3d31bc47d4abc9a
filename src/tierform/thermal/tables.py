"""Numbers for pictures: heat map of a tier, cross-section, temperature over time.  Nothing here draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierform.errors import fail
from tierform.thermal.grid import TemperatureField, Transient
from tierform.thermal.influence import InfluenceModel
from tierform.thermal.network import Array
from tierform.thermal.stack import Board, Region, Sink


@dataclass(frozen=True)
class TemperatureMap:
    """A layer seen from above: temperatures (rows, columns) from the south-west, extent in metres, its regions."""

    layer: str
    width_m: float
    height_m: float
    temperature_K: Array
    regions: tuple[Region, ...]

    @property
    def peak(self) -> tuple[float, float, float]:
        """X and y of the hottest cell's centre (m) and its temperature (K)."""
        rows, columns = self.temperature_K.shape
        row, column = np.unravel_index(int(self.temperature_K.argmax()), self.temperature_K.shape)
        x = (float(column) + 0.5) * self.width_m / columns
        y = (float(row) + 0.5) * self.height_m / rows
        return x, y, float(self.temperature_K[row, column])


@dataclass(frozen=True)
class CrossSection:
    """A vertical cut along x at `y_m`: temperatures (layers of cells, columns) from the bottom up, with thicknesses."""

    y_m: float
    width_m: float
    names: tuple[str, ...]
    thickness_m: tuple[float, ...]
    temperature_K: Array


@dataclass(frozen=True)
class TileMap:
    """Temperature of each tile of a layer: rectangles and kelvin, where only tile temperatures are known."""

    layer: str
    width_m: float
    height_m: float
    regions: tuple[Region, ...]
    temperature_K: Array


@dataclass(frozen=True)
class OverTime:
    """Temperatures over time: `time_s` (n,), names of the series and their kelvin (series, n)."""

    time_s: Array
    names: tuple[str, ...]
    temperature_K: Array


def heat_maps(field: TemperatureField) -> tuple[TemperatureMap, ...]:
    """One map per powered layer, from the board side up."""
    stack = field.model.stack
    return tuple(
        TemperatureMap(layer.name, stack.width_m, stack.height_m, field.layer_K(layer.name), layer.regions)
        for layer in stack.layers
        if layer.powered
    )


def tile_maps(model: InfluenceModel, temperatures_K: Array) -> tuple[TileMap, ...]:
    """One map per powered layer from tile temperatures (n,) of an influence model."""
    values = np.asarray(temperatures_K, dtype=float)
    if values.shape != (len(model.tiles),):
        fail(f"one temperature per tile is needed ({len(model.tiles)})", key="temperatures_K", value=values.shape)
    maps, start = [], 0
    for layer in model.stack.layers:
        if layer.powered:
            part = values[start : start + len(layer.regions)]
            maps.append(TileMap(layer.name, model.stack.width_m, model.stack.height_m, layer.regions, part))
            start += len(layer.regions)
    return tuple(maps)


def cross_section(field: TemperatureField, y_m: float | None = None) -> CrossSection:
    """The cut through the row of cells at `y_m`, or through the hottest cell."""
    stack, network = field.model.stack, field.model.network
    cells = field.cells_K
    layers, rows, _ = network.shape
    if y_m is None:
        row = int(np.unravel_index(int(cells.argmax()), cells.shape)[1])
    elif 0 <= y_m <= stack.height_m:
        row = min(rows - 1, int(y_m / stack.height_m * rows))
    else:
        fail(f"the stack reaches from 0 to {stack.height_m:g} m", key="y_m", value=y_m)
    names: list[str] = []
    thickness: list[float] = []
    if isinstance(stack.bottom, Board):
        for name, plate in (
            ("board", stack.bottom.board),
            ("solder", stack.bottom.solder),
            ("substrate", stack.bottom.substrate),
        ):
            names.append(name)
            thickness.append(plate.thickness_m)
    for layer in stack.layers:
        names += [layer.name] * layer.slices
        thickness += [layer.thickness_m / layer.slices] * layer.slices
    if isinstance(stack.top, Sink):
        names += ["spreader", "sink"]
        thickness += [stack.top.spreader.thickness_m, stack.top.plate.thickness_m]
    assert len(names) == layers
    return CrossSection(
        (row + 0.5) * stack.height_m / rows, stack.width_m, tuple(names), tuple(thickness), cells[:, row]
    )


def over_time(transient: Transient, *, hottest: int = 8) -> OverTime:
    """The tiles that get hottest, hottest first, and their temperatures over time."""
    peaks = transient.tiles_K.max(axis=0)
    order = np.argsort(-peaks)[:hottest]
    tiles = transient.end.model.stack.tiles
    names = tuple(tiles[index].key for index in order.tolist())
    return OverTime(transient.time_s, names, transient.tiles_K[:, order].T)
