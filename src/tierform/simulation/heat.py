"""From the schedule's energies to temperatures and back into leakage.

Each tile's dynamic power is the energy that was booked on it over the task's time: weights in crossbars heat the tiles
that hold them, all else heats its component's tiles evenly, a transfer heats the routers on its way.  Tile
temperatures are a linear map of tile powers (the influence model of the stack); leakage, which rises with temperature,
closes the loop.  The fixed point is found to 1 mK.  `transient` follows the stages from the steady state of the mean
power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import CHIPLET_GAP_M, Chip
from tierform.chip.dies import held_by
from tierform.errors import fail
from tierform.simulation.ledger import Ledger
from tierform.simulation.remember import Bounded
from tierform.units import format_quantity

TOLERANCE_K = 1e-3
TRANSIENT_INTERVALS = 240
Powers = NDArray[np.float64]


@dataclass(frozen=True)
class Heat:
    """Steady temperatures (K) and leakage (W) by tile, in the order of the chip's tiles; leakage by component.

    `over_time_K` (times, tiles): temperatures along the stages, where they were asked for.
    """

    temperature_K: Powers
    dynamic_W: Powers
    leakage_W: dict[str, float]
    iterations: int
    loop_gain: float
    figures: dict[str, Any]
    over_time_K: Powers | None = None


class HeatMap:
    """Temperatures of a chip from the Ledger's energies by tile.

    With several pipeline `groups` the energy of all layers is spread over as many chips.
    """

    def __init__(self, chip: Chip, ledger: Ledger, network_leakage_W: float, groups: int = 1) -> None:
        self.chip, self.ledger, self.groups = chip, ledger, groups
        self.network_W = network_leakage_W / len(chip.tiles)

    def steady(self) -> Heat:
        """The fixed point of temperature and leakage for the mean power; TierformError on thermal runaway."""
        chip = self.chip
        model, order = _influence(chip)
        dynamic: Powers = sum((entry.tile_J for entry in self.ledger.stages), np.zeros(len(chip.tiles)))
        dynamic = dynamic / (self.ledger.seconds * self.groups) + self.network_W
        leakage = _Leakage(chip)
        found = model.fixed_point(dynamic[order], lambda kelvin: leakage.total(kelvin, order), tolerance_K=TOLERANCE_K)
        temperature = np.empty(len(chip.tiles))
        temperature[order] = found.temperatures_K
        if found.runaway:
            fail(
                "thermal runaway: leakage grows faster than the package removes heat "
                f"(loop gain {found.loop_gain:.2f}, {format_quantity(float(dynamic.sum()), 'W')} of dynamic power)",
                key=chip.name,
                fix="Improve the cooling in the chip file, lower the load, or simulate with --thermal none.",
            )
        total = dynamic + leakage.by_tile(temperature)
        return Heat(
            temperature_K=temperature,
            dynamic_W=dynamic,
            leakage_W=leakage.by_component(temperature),
            iterations=found.iterations,
            loop_gain=found.loop_gain,
            figures=_figures(chip, temperature, total, found.iterations, found.loop_gain),
        )

    def transient(self, heat: Heat) -> Heat:
        """With the temperatures along the stages of one task, leakage held at its mean; figures: each die's peak."""
        from tierform.thermal import GridModel

        model, order = _influence(self.chip)
        grid = GridModel(model.stack, model.rows, model.columns)
        base = _Leakage(self.chip).by_tile(heat.temperature_K) + self.network_W
        stages = self.ledger.stages
        interval = self.ledger.seconds / TRANSIENT_INTERVALS
        ends = np.cumsum([entry.seconds for entry in stages])
        middles = (np.arange(TRANSIENT_INTERVALS) + 0.5) * interval
        inside = np.minimum(np.searchsorted(ends, middles, side="right"), len(stages) - 1)
        power = [(entry.tile_J / max(entry.seconds * self.groups, 1e-30) + base)[order] for entry in stages]
        start = grid.steady((heat.dynamic_W + _Leakage(self.chip).by_tile(heat.temperature_K))[order])
        run = grid.transient([power[index] for index in inside], interval, start=start)
        tiles = np.empty_like(run.tiles_K)
        tiles[:, order] = run.tiles_K
        dies = np.array([tile.die for tile in self.chip.tiles])
        figures = {
            "time_s": [float(t) for t in run.time_s],
            "stage": [stages[index].stage.name for index in inside],
            "peak_K_by_die": {
                die.name: [float(v) for v in tiles[:, dies == index].max(axis=1)]
                for index, die in enumerate(self.chip.package.dies)
            },
        }
        return replace(heat, figures={**heat.figures, "transient": figures}, over_time_K=tiles)

    def cross_section(self, heat: Heat) -> dict[str, object]:
        """Temperatures on a vertical cut through the hottest cell: layers from the bottom up, cells from the left."""
        from tierform.thermal import GridModel
        from tierform.thermal.tables import cross_section

        model, order = _influence(self.chip)
        power = heat.dynamic_W + _Leakage(self.chip).by_tile(heat.temperature_K)
        cut = cross_section(GridModel(model.stack, model.rows, model.columns).steady(power[order]))
        return {
            "y_m": cut.y_m,
            "width_m": cut.width_m,
            "layers": list(cut.names),
            "thickness_m": [float(value) for value in cut.thickness_m],
            "temperature_K": [[float(value) for value in row] for row in cut.temperature_K],
        }


def leakage_by_tile(chip: Chip, kelvin: Powers) -> Powers:
    """(tiles,) leakage of the components at these temperatures, in W."""
    return _Leakage(chip).by_tile(kelvin)


def _parts(units: tuple[int, ...]) -> Powers:
    """How many parts as large as each tile's make all units of a component."""
    return sum(units) / np.array(units, dtype=np.float64)


class _Leakage:
    """Leakage of every tile as a function of its temperature."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.tiles = {name: np.array(chip.tiles_of(name), dtype=np.int64) for name in chip.components}
        self.parts = {name: _parts(chip.units_at(name)) for name in chip.components}

    def by_tile(self, kelvin: Powers) -> Powers:
        parts = np.zeros((len(self.tiles), len(kelvin)))
        for part, (name, held) in zip(parts, self.tiles.items(), strict=True):
            part[held] = self.chip.components[name].leakage_W(kelvin[held]) / self.parts[name]
        parts.sort(axis=0)  # sums depend neither on the file's order nor on names
        total: Powers = parts.sum(axis=0)
        return total

    def by_component(self, kelvin: Powers) -> dict[str, float]:
        return {
            name: float((component.leakage_W(kelvin[self.tiles[name]]) / self.parts[name]).sum())
            for name, component in self.chip.components.items()
        }

    def total(self, ordered_K: Powers, order: NDArray[np.int64]) -> Powers:
        kelvin = np.empty(len(ordered_K))
        kelvin[order] = ordered_K
        return self.by_tile(kelvin)[order]


_models = Bounded(16)  # packages -> (influence model, the chip's tile number of each of its tiles)


def _influence(chip: Chip) -> tuple[Any, NDArray[np.int64]]:
    """The influence model of the chip's stack, and the chip's tile number of each of its tiles."""
    from tierform.thermal import InfluenceModel

    dies, gap, cooling = chip.package.dies, chip.package.chiplet_gap, chip.cooling
    key = (
        chip.package.kind,
        tuple((die.name, die.grid, die.at, *chip.die_size_m(index)) for index, die in enumerate(dies)),
        gap.value if gap else None,
        cooling.ambient.value if cooling.ambient else None,
        cooling.sink_resistance.value if cooling.sink_resistance else None,
    )
    if key not in _models:
        model = InfluenceModel(stack_of(chip))
        number = {f"{dies[tile.die].name}[{tile.y},{tile.x}]": tile.number for tile in chip.tiles}
        _models[key] = (model, np.array([number[tile.region.name] for tile in model.tiles], dtype=np.int64))
    found: tuple[Any, NDArray[np.int64]] = _models[key]
    return found


def stack_of(chip: Chip) -> Any:
    """The thermal stack of a chip: its dies in the package that the chip file describes."""
    from tierform.thermal import Die, Sink, Tier, interposer_2_5d, planar_stack, stacked_3d

    dies = chip.package.dies
    sizes = [chip.die_size_m(index) for index in range(len(dies))]
    cooling = chip.cooling
    options: dict[str, Any] = {"ambient_K": cooling.ambient.value} if cooling.ambient else {}
    wide, high = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if chip.package.kind == "3d":
        stack = stacked_3d(wide, high, [Tier(die.name, die.grid[1], die.grid[0]) for die in dies], **options)
    elif chip.package.kind == "2.5d":
        gap = chip.package.chiplet_gap.value if chip.package.chiplet_gap else CHIPLET_GAP_M
        placed = []
        for index, (die, size) in enumerate(zip(dies, sizes, strict=True)):
            left, low = chip.die_origin_m(index)
            placed.append(
                Die(
                    name=die.name,
                    x_m=gap + left,
                    y_m=gap + low,
                    width_m=size[0],
                    height_m=size[1],
                    rows=die.grid[1],
                    columns=die.grid[0],
                )
            )
        stack = interposer_2_5d(placed, **options)
    else:
        die = dies[0]
        stack = planar_stack(wide, high, rows=die.grid[1], columns=die.grid[0], name=die.name, **options)
    if cooling.sink_resistance is None or not isinstance(stack.top, Sink):
        return stack
    return replace(stack, top=replace(stack.top, resistance_K_per_W=cooling.sink_resistance.value))


def _figures(chip: Chip, kelvin: Powers, power_W: Powers, iterations: int, gain: float) -> dict[str, Any]:
    """Peak, hottest tile, and the map of each die (rows from y = 0), with limits checked."""
    dies = []
    limits: Mapping[str, Any] = chip.cooling.limits
    for index, die in enumerate(chip.package.dies):
        members = [tile for tile in chip.tiles if tile.die == index]
        columns = die.grid[0]
        values = [float(kelvin[tile.number]) for tile in members]
        limit = min((limits[name].value for name in held_by(die) if name in limits), default=None)
        peak = max(values)
        entry: dict[str, Any] = {
            "name": die.name,
            "mean_K": fsum(values) / len(values),
            "peak_K": peak,
            "power_W": float(fsum(power_W[tile.number] for tile in members)),
            "map_K": [values[row : row + columns] for row in range(0, len(values), columns)],
            "limit_K": limit,
            "limit_text": "",
        }
        if limit is not None:
            room = limit - peak
            verdict = f"{room:.1f} K below" if room >= 0 else f"EXCEEDED by {-room:.1f} K"
            entry["limit_text"] = f"{format_quantity(limit, 'K')} ({verdict})"
        dies.append(entry)
    hottest = int(np.argmax(kelvin))
    tile = chip.tiles[hottest]
    return {
        "peak_K": float(kelvin[hottest]),
        "hottest_tile": {"number": hottest, "die": chip.package.dies[tile.die].name, "x": tile.x, "y": tile.y},
        "within_limits": all(d["limit_K"] is None or d["peak_K"] <= d["limit_K"] for d in dies),
        "iterations": iterations,
        "loop_gain": gain,
        "tolerance_K": TOLERANCE_K,
        "dies": dies,
        "tile_temperature_K": [float(value) for value in kelvin],
        "tile_power_W": [float(value) for value in power_W],
    }
