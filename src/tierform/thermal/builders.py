"""Sensible stacks from what a chip description knows: tiers or chiplets with tile grids, vias, and a package.

Defaults are those of desktop and server packages in HotSpot's configuration (source: hotspot-7): copper spreader
30 mm × 1 mm and sink 60 mm × 6.9 mm, 20 µm of interface material, 0.1 K/W to air at 45 °C.  Dies are face down: each
tier is its wiring below its silicon, joined to the next by a layer of micro-bumps and underfill.  Every default is an
argument.  Plates grow with a die that would not fit on them, in the default proportions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tierform.errors import fail
from tierform.thermal.materials import Material, material, with_columns
from tierform.thermal.stack import AMBIENT_K, Board, Plate, Region, Sink, Stack, StackLayer, Surface

_DIE_M = 150e-6
_THINNED_M = 50e-6
_WIRING_M = 10e-6
_BUMPS_M = 20e-6
_BUMP_FILL = 0.15
_INTERPOSER_M = 100e-6
_INTERPOSER_VIA_FILL = 0.01


@dataclass(frozen=True, slots=True)
class Tier:
    """One die of a vertical stack: a grid of tiles (rows × columns, named ``prefix[row,column]``), or given regions.

    `via_fill` is the share of the silicon's area that through-silicon vias take.
    """

    name: str
    rows: int = 1
    columns: int = 1
    regions: tuple[Region, ...] = ()
    thickness_m: float = _THINNED_M
    via_fill: float = 0.0
    powered: bool = True


@dataclass(frozen=True, slots=True)
class Die:
    """One die on an interposer: its south-west corner, its size and its grid of tiles."""

    name: str
    x_m: float
    y_m: float
    width_m: float
    height_m: float
    rows: int = 1
    columns: int = 1


def tile_grid(
    rows: int,
    columns: int,
    width_m: float,
    height_m: float,
    *,
    x_m: float = 0.0,
    y_m: float = 0.0,
    prefix: str = "tile",
) -> tuple[Region, ...]:
    """A rectangle cut into rows × columns tiles, row by row from the south-west, named ``prefix[row,column]``."""
    if rows < 1 or columns < 1:
        fail("a tile grid needs at least one row and one column", key=prefix, value=(rows, columns))
    wide, high = width_m / columns, height_m / rows
    return tuple(
        Region(f"{prefix}[{row},{column}]", x_m + column * wide, y_m + row * high, wide, high)
        for row in range(rows)
        for column in range(columns)
    )


def default_sink(
    width_m: float,
    height_m: float,
    *,
    resistance_K_per_W: float = 0.1,
    capacity_J_per_K: float = 140.4,
    spreader_m: float | None = None,
    sink_m: float | None = None,
) -> Sink:
    """Copper spreader and sink; sides of 30 and 60 mm, or 1.25 and 2.5 times a larger die."""
    copper = material("copper")
    die = max(width_m, height_m)
    spreader = spreader_m if spreader_m is not None else max(0.030, 1.25 * die)
    sink = sink_m if sink_m is not None else max(0.060, 2.0 * spreader)
    return Sink(Plate(spreader, 1e-3, copper), Plate(sink, 6.9e-3, copper), resistance_K_per_W, capacity_J_per_K)


def default_board(width_m: float, height_m: float, *, resistance_K_per_W: float = 50.0) -> Board:
    """The secondary path of HotSpot's configuration: substrate and balls of 21 mm or the die's size, board 100 mm."""
    side = max(0.021, 1.05 * max(width_m, height_m))
    return Board(
        Plate(side, 1e-3, material("substrate")),
        Plate(side, 0.94e-3, material("solder-balls")),
        Plate(max(0.1, 2 * side), 2e-3, material("board")),
        resistance_K_per_W,
        40.0,
    )


def _interface() -> StackLayer:
    return StackLayer("interface", 20e-6, material("interface"))


def _bumps() -> Material:
    return with_columns(material("underfill"), material("solder"), _BUMP_FILL, "micro-bumps in underfill")


def _foot(name: str) -> StackLayer:
    return StackLayer(name, 100e-6, material("bump-layer"))


def planar_stack(
    width_m: float,
    height_m: float,
    *,
    rows: int = 1,
    columns: int = 1,
    regions: Iterable[Region] | None = None,
    die_m: float = _DIE_M,
    top: Sink | Surface | None = None,
    board: bool = False,
    ambient_K: float = AMBIENT_K,
    name: str = "die",
) -> Stack:
    """One die under interface material, spreader and sink; tiles as a grid or as given regions."""
    floor = tuple(regions) if regions is not None else tile_grid(rows, columns, width_m, height_m, prefix=name)
    layers = [
        StackLayer(f"{name} wiring", _WIRING_M, material("wiring")),
        StackLayer(name, die_m, material("silicon"), floor, powered=True),
        _interface(),
    ]
    if board:
        layers.insert(0, _foot("bumps"))
    return Stack(
        width_m,
        height_m,
        tuple(layers),
        top or default_sink(width_m, height_m),
        default_board(width_m, height_m) if board else None,
        ambient_K,
    )


def stacked_3d(
    die_width_m: float,
    die_height_m: float,
    tiers: Sequence[Tier],
    *,
    via_fill: float | None = None,
    bump_fill: float = _BUMP_FILL,
    bumps_m: float = _BUMPS_M,
    top: Sink | Surface | None = None,
    board: bool = False,
    ambient_K: float = AMBIENT_K,
) -> Stack:
    """Dies one over another, listed from the board up to the sink; the uppermost keeps its full thickness.

    Each tier's silicon is one layer of the tier's name whose regions are its tiles.  `via_fill` sets the share of area
    of through-silicon vias in every tier but the uppermost (which needs none), where a tier does not say its own.
    """
    if not tiers:
        fail("a stack needs at least one tier", key="tiers")
    joint = with_columns(material("underfill"), material("solder"), bump_fill, f"micro-bumps {bump_fill:g}")
    layers: list[StackLayer] = [_foot("bumps")] if board else []
    for number, tier in enumerate(tiers):
        last = number == len(tiers) - 1
        fill = tier.via_fill or (0.0 if last else (via_fill or 0.0))
        silicon = with_columns(material("silicon"), material("copper"), fill)
        floor = tier.regions or tile_grid(tier.rows, tier.columns, die_width_m, die_height_m, prefix=tier.name)
        thickness = _DIE_M if last and tier.thickness_m == _THINNED_M else tier.thickness_m
        layers.append(StackLayer(f"{tier.name} wiring", _WIRING_M, material("wiring")))
        layers.append(StackLayer(tier.name, thickness, silicon, floor, powered=tier.powered))
        if not last:
            layers.append(StackLayer(f"{tier.name} joint", bumps_m, joint))
    layers.append(_interface())
    return Stack(
        die_width_m,
        die_height_m,
        tuple(layers),
        top or default_sink(die_width_m, die_height_m),
        default_board(die_width_m, die_height_m) if board else None,
        ambient_K,
    )


def interposer_2_5d(
    dies: Sequence[Die],
    *,
    width_m: float | None = None,
    height_m: float | None = None,
    margin_m: float = 1e-3,
    die_m: float = _DIE_M,
    top: Sink | Surface | None = None,
    board: bool = True,
    ambient_K: float = AMBIENT_K,
) -> Stack:
    """Dies side by side on a silicon interposer, mould between them, one spreader over all.

    The powered layer is ``dies``; its regions are all dies' tiles, named ``die[row,column]``.  The interposer takes
    `width_m` × `height_m`, or reaches `margin_m` beyond the outermost dies.
    """
    if not dies:
        fail("an interposer needs at least one die", key="dies")
    wide = width_m if width_m is not None else max(die.x_m + die.width_m for die in dies) + margin_m
    high = height_m if height_m is not None else max(die.y_m + die.height_m for die in dies) + margin_m
    silicon, mould, copper = material("silicon"), material("mould"), material("copper")
    tiles: list[Region] = []
    bumps: list[Region] = []
    wiring: list[Region] = []
    joint = _bumps()
    for die in dies:
        outline = (die.x_m, die.y_m, die.width_m, die.height_m)
        bumps.append(Region(die.name, *outline, joint))
        wiring.append(Region(die.name, *outline, material("wiring")))
        grid = tile_grid(die.rows, die.columns, die.width_m, die.height_m, x_m=die.x_m, y_m=die.y_m, prefix=die.name)
        tiles += [Region(t.name, t.x_m, t.y_m, t.width_m, t.height_m, silicon) for t in grid]
    interposer = with_columns(silicon, copper, _INTERPOSER_VIA_FILL, "interposer silicon with vias")
    layers = [
        StackLayer("interposer", _INTERPOSER_M, interposer),
        StackLayer("micro-bumps", _BUMPS_M, material("underfill"), tuple(bumps)),
        StackLayer("wiring", _WIRING_M, mould, tuple(wiring)),
        StackLayer("dies", die_m, mould, tuple(tiles), powered=True),
        _interface(),
    ]
    if board:
        layers.insert(0, _foot("bumps"))
    return Stack(
        wide,
        high,
        tuple(layers),
        top or default_sink(wide, high),
        default_board(wide, high) if board else None,
        ambient_K,
    )
