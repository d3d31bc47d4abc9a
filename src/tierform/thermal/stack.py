"""What is stacked on what: layers with their floorplans, the package around them, and the ways out for the heat.

A :class:`Stack` is a rectangle of `width_m` × `height_m` filled by layers, listed from the board side up to the heat
sink.  x runs to the east, y to the north, the origin is the south-west corner.  Each layer has one material and
regions that may have another and, in a powered layer, dissipate.  Heat leaves at the top and at the bottom: through a
spreader and a convective sink (:class:`Sink`), through a substrate and a board (:class:`Board`), or through a surface
with a heat-transfer coefficient (:class:`Surface`).  Side walls are adiabatic except where plates reach beyond them.

`convention` says where a layer's node sits: ``centred`` (finite volumes, the default), ``hotspot`` (at the side away
from the sink, as HotSpot's block and grid models have it) or ``hotspot-detailed`` (as HotSpot's heterogeneous 3D mode).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from tierform.errors import Problem, TierformError
from tierform.thermal.materials import Material

Convention = Literal["centred", "hotspot", "hotspot-detailed"]
AMBIENT_K = 318.15
# Edges closer than this share of the die are one edge: floorplan files round to micrometres.
_EDGE = 1e-6
MOST_OVERLAPS = 50  # that a check of a floorplan tells


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a layer, in metres from the south-west corner; `material` None means the layer's own."""

    name: str
    x_m: float
    y_m: float
    width_m: float
    height_m: float
    material: Material | None = None

    @property
    def area_m2(self) -> float:
        """Width times height."""
        return self.width_m * self.height_m


@dataclass(frozen=True, slots=True)
class Channels:
    """Microchannels of a layer: cell kinds row by row from the south, and the coolant that is pumped through.

    `cells` holds rows of digits: 0 wall, 1 fluid, 2 inlet, 3 outlet, and has as many rows and columns as the model's
    grid.  Flow follows from the pumping pressure through the hydraulic conductance of each cell.
    """

    cells: tuple[str, ...]
    coolant: Material
    pumping_pressure_Pa: float
    inlet_temperature_K: float
    heat_transfer_W_per_m2K: float
    pump_resistance_Pa_s_per_m3: float = 0.0


@dataclass(frozen=True, slots=True)
class StackLayer:
    """One layer; `slices` cuts it into that many layers of cells; `lateral` False forbids heat to spread sideways."""

    name: str
    thickness_m: float
    material: Material
    regions: tuple[Region, ...] = ()
    powered: bool = False
    lateral: bool = True
    slices: int = 1
    channels: Channels | None = None


@dataclass(frozen=True, slots=True)
class Plate:
    """A square plate that may reach beyond the die."""

    side_m: float
    thickness_m: float
    material: Material


@dataclass(frozen=True, slots=True)
class Sink:
    """Heat spreader and heat sink with one convective resistance from the whole sink to the ambient."""

    spreader: Plate
    plate: Plate
    resistance_K_per_W: float
    capacity_J_per_K: float


@dataclass(frozen=True, slots=True)
class Board:
    """The secondary path: package substrate, solder balls and printed board, with convection from the board."""

    substrate: Plate
    solder: Plate
    board: Plate
    resistance_K_per_W: float
    capacity_J_per_K: float


@dataclass(frozen=True, slots=True)
class Surface:
    """A face cooled with a heat-transfer coefficient; infinity holds it at the ambient temperature."""

    heat_transfer_W_per_m2K: float


@dataclass(frozen=True, slots=True)
class HeatSource:
    """A region that dissipates: its place in the stack."""

    layer: str
    name: str
    region: Region

    @property
    def key(self) -> str:
        """``layer/region``, unique in a stack."""
        return f"{self.layer}/{self.name}"


@dataclass(frozen=True, slots=True)
class Stack:
    """A checked stack of layers; see the module's text.  TierformError lists everything that is wrong with it."""

    width_m: float
    height_m: float
    layers: tuple[StackLayer, ...]
    top: Sink | Surface | None
    bottom: Board | Surface | None = None
    ambient_K: float = AMBIENT_K
    convention: Convention = "centred"
    # Where the conductivities of temperature-dependent materials are taken for the linear models.
    conductivity_temperature_K: float = 350.0

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise TierformError(problems)

    @property
    def tiles(self) -> tuple[HeatSource, ...]:
        """The regions of all powered layers, from the board side up: the order of every power vector."""
        return tuple(
            HeatSource(layer.name, region.name, region)
            for layer in self.layers
            if layer.powered
            for region in layer.regions
        )

    @property
    def area_m2(self) -> float:
        """The footprint."""
        return self.width_m * self.height_m

    def tile_index(self) -> dict[str, int]:
        """Tile number by ``layer/region`` and, where it is unique, by the region's name alone."""
        tiles = self.tiles
        names = [tile.name for tile in tiles]
        index = {tile.name: number for number, tile in enumerate(tiles) if names.count(tile.name) == 1}
        return {**index, **{tile.key: number for number, tile in enumerate(tiles)}}


def _positive(subject: str, **values: float) -> Iterable[Problem]:
    for key, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            yield Problem("must be positive and finite", key=f"{subject}.{key}", value=value)


def _problems(stack: Stack) -> Iterable[Problem]:
    size = list(_positive("stack", width_m=stack.width_m, height_m=stack.height_m, ambient_K=stack.ambient_K))
    yield from size
    if not stack.layers:
        yield Problem("a stack needs at least one layer", key="stack.layers")
    names = [layer.name for layer in stack.layers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("two layers have this name", key="stack.layers", value=name)
    for layer in stack.layers:
        yield from _positive(layer.name, thickness_m=layer.thickness_m)
        if layer.slices < 1:
            yield Problem("a layer has at least one slice", key=f"{layer.name}.slices", value=layer.slices)
        if not size:
            yield from region_problems(layer.regions, stack.width_m, stack.height_m, where=layer.name)
        if layer.powered and not layer.regions:
            yield Problem("a powered layer needs regions that dissipate", key=layer.name)
        if layer.channels is not None:
            yield from _channel_problems(layer.name, layer.channels)
    if isinstance(stack.top, Sink):
        yield from _plates("sink", stack, (("spreader", stack.top.spreader), ("plate", stack.top.plate)))
        yield from _positive("sink", resistance_K_per_W=stack.top.resistance_K_per_W)
    if isinstance(stack.bottom, Board):
        bottom = stack.bottom
        plates = (("substrate", bottom.substrate), ("solder", bottom.solder), ("board", bottom.board))
        yield from _plates("board", stack, plates)
        yield from _positive("board", resistance_K_per_W=bottom.resistance_K_per_W)
    for name, face in (("top", stack.top), ("bottom", stack.bottom)):
        if isinstance(face, Surface) and not face.heat_transfer_W_per_m2K > 0:
            yield Problem(
                "must be positive (or infinite)",
                key=f"{name}.heat_transfer_W_per_m2K",
                value=face.heat_transfer_W_per_m2K,
            )
    if stack.top is None and stack.bottom is None and not any(layer.channels for layer in stack.layers):
        yield Problem(
            "no path leads from the stack to the ambient, so its temperature has no bound",
            key="stack.top",
            fix="Give it a sink, a cooled surface, a board or a layer with microchannels.",
        )


def _plates(owner: str, stack: Stack, plates: tuple[tuple[str, Plate], ...]) -> Iterable[Problem]:
    inner = max(stack.width_m, stack.height_m)
    for name, plate in plates:
        yield from _positive(f"{owner}.{name}", side_m=plate.side_m, thickness_m=plate.thickness_m)
        if plate.side_m < inner * (1 - _EDGE):
            yield Problem(
                f"the plate is smaller than what it carries ({inner:g} m)",
                key=f"{owner}.{name}.side_m",
                value=plate.side_m,
            )
        inner = max(inner, plate.side_m) if name != "substrate" else inner


def _channel_problems(name: str, channels: Channels) -> Iterable[Problem]:
    if not channels.cells or len({len(row) for row in channels.cells}) != 1 or not channels.cells[0]:
        yield Problem("the rows of a channel pattern must have one length", key=f"{name}.channels.cells")
        return
    strange = sorted(set("".join(channels.cells)) - set("0123"))
    if strange:
        yield Problem("a channel cell is 0, 1, 2 or 3", key=f"{name}.channels.cells", value="".join(strange))
    for digit, what in (("2", "inlet"), ("3", "outlet")):
        if not any(digit in row for row in channels.cells):
            yield Problem(f"the channels have no {what}", key=f"{name}.channels.cells")
    yield from _positive(
        f"{name}.channels",
        pumping_pressure_Pa=channels.pumping_pressure_Pa,
        heat_transfer_W_per_m2K=channels.heat_transfer_W_per_m2K,
        inlet_temperature_K=channels.inlet_temperature_K,
        viscosity_Pa_s=channels.coolant.viscosity_Pa_s,
    )


def region_problems(
    regions: tuple[Region, ...],
    width_m: float,
    height_m: float,
    *,
    where: str,
    file: str | None = None,
    lines: dict[str, int] | None = None,
    cover: bool = False,
) -> Iterable[Problem]:
    """What is wrong with a floorplan: bad sizes, names used twice, regions outside or over one another, gaps.

    `cover` asks that the regions fill the rectangle; `file` and `lines` (by region name) place the messages.
    """
    at = lines or {}
    seen: set[str] = set()
    slack = _EDGE * max(width_m, height_m)
    good: list[Region] = []
    for region in regions:
        key, line = f"{where}/{region.name}", at.get(region.name)
        if region.name in seen:
            yield Problem("this name stands twice", file, line, key)
        seen.add(region.name)
        numbers = (region.x_m, region.y_m, region.width_m, region.height_m)
        if not all(math.isfinite(value) for value in numbers) or region.width_m <= 0 or region.height_m <= 0:
            yield Problem("width and height must be positive", file, line, key, (region.width_m, region.height_m))
            continue
        outside = (
            region.x_m < -slack
            or region.y_m < -slack
            or region.x_m + region.width_m > width_m + slack
            or region.y_m + region.height_m > height_m + slack
        )
        if outside:
            yield Problem(f"lies outside the die of {width_m:g} m by {height_m:g} m", file, line, key)
        good.append(region)
    overlapping = list(islice(_overlaps(good, slack), MOST_OVERLAPS + 1))
    for first, second, area in overlapping[:MOST_OVERLAPS]:
        what = f"overlaps {first.name!r} by {area * 1e6:.4g} mm²"
        yield Problem(what, file, at.get(second.name), f"{where}/{second.name}", fix="Move or shrink one of the two.")
    if len(overlapping) > MOST_OVERLAPS:
        yield Problem(
            f"more than {MOST_OVERLAPS} pairs of blocks overlap, and only so many are told", file, None, where
        )
    missing = width_m * height_m - math.fsum(region.area_m2 for region in good)
    if cover and good and not overlapping and missing > 1e-4 * width_m * height_m:
        yield Problem(
            f"the blocks leave {missing * 1e6:.4g} mm² of the die ({missing / (width_m * height_m):.2%}) uncovered",
            file,
            None,
            where,
            fix="Add a block for the dead area, with power 0.",
        )


def _overlaps(regions: list[Region], slack: float) -> Iterable[tuple[Region, Region, float]]:
    # A sweep along x keeps the pairs that are compared few for tile grids.
    order = sorted(regions, key=lambda region: region.x_m)
    for index, first in enumerate(order):
        for second in order[index + 1 :]:
            if second.x_m >= first.x_m + first.width_m - slack:
                break
            wide = min(first.x_m + first.width_m, second.x_m + second.width_m) - second.x_m
            high = min(first.y_m + first.height_m, second.y_m + second.height_m) - max(first.y_m, second.y_m)
            if wide > slack and high > slack:
                yield first, second, wide * high
