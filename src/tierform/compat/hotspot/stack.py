"""From a HotSpot configuration to layers, plates and coolant (defaults and constants: source hotspot-7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from tierform.compat.hotspot.files import Configuration, Floorplan, read_channels, read_floorplan, read_layers
from tierform.errors import fail
from tierform.thermal.materials import Material, material
from tierform.thermal.stack import Board, Channels, Plate, Region, Sink, StackLayer

# Around a die that is smaller than the stack lies this material of the materials file, or else mould compound.
_AROUND = "filler"
_TOLERANCE = 1e-6
# For each layer from the bottom up: its name in the stack, the prefix of its names in HotSpot's files, its floorplan.
Plans = list[tuple[str, str, tuple[Region, ...]]]
# HotSpot's defaults where a configuration is silent (hotspot-7).
_DEFAULTS = {
    "t_chip": 0.15e-3,
    "k_chip": 100.0,
    "p_chip": 1.75e6,
    "c_convec": 140.4,
    "r_convec": 0.1,
    "s_sink": 60e-3,
    "t_sink": 6.9e-3,
    "k_sink": 400.0,
    "p_sink": 3.55e6,
    "s_spreader": 30e-3,
    "t_spreader": 1e-3,
    "k_spreader": 400.0,
    "p_spreader": 3.55e6,
    "t_interface": 20e-6,
    "k_interface": 4.0,
    "p_interface": 4.0e6,
    "r_convec_sec": 1.0,
    "c_convec_sec": 140.4,
    "t_metal": 10e-6,
    "t_c4": 0.1e-3,
    "s_sub": 0.021,
    "t_sub": 1e-3,
    "s_solder": 0.021,
    "t_solder": 0.94e-3,
    "s_pcb": 0.1,
    "t_pcb": 2e-3,
    "ambient": 318.15,
    "init_temp": 333.15,
    "sampling_intvl": 3.333e-6,
    "grid_rows": 64,
    "grid_cols": 64,
    "pumping_pressure": 5000,
    "pump_internal_res": 0.0,
    "inlet_temperature": 300.0,
    "coolant_capac": 4172638,
    "coolant_res": 1.647717911,
    "coolant_visc": 0.000889,
    "wall_capac": 1635660,
    "wall_res": 0.0076923077,
    "htc": 27132,
}


def _outline(floorplans: dict[Path, Floorplan]) -> tuple[float, float]:
    """Width and height of the stack: the floorplan that holds all others, each at the place that its file gives it."""
    widest = max(plan.width_m for plan in floorplans.values())
    highest = max(plan.height_m for plan in floorplans.values())
    for file, plan in floorplans.items():
        if _fills(plan, (widest, highest)):
            continue
        beyond = max(plan.west_m + plan.width_m - widest, plan.south_m + plan.height_m - highest)
        if min(plan.west_m, plan.south_m) < -_TOLERANCE * widest or beyond > _TOLERANCE * widest:
            place = f"{plan.width_m:g} x {plan.height_m:g} m at ({plan.west_m:g}, {plan.south_m:g})"
            fix = f"Its blocks must lie within 0 to {widest:g} and 0 to {highest:g} m."
            fail("a smaller die reaches over the edge of the largest", file=str(file), value=place, fix=fix)
    return widest, highest


def _fills(plan: Floorplan, size: tuple[float, float]) -> bool:
    return bool(np.allclose(size, (plan.width_m, plan.height_m), rtol=_TOLERANCE))


def _placed(plan: Floorplan, die: Material) -> tuple[Region, ...]:
    """The blocks of a smaller die at their places; what lies around them is another material."""
    return tuple(
        Region(r.name, r.x_m + plan.west_m, r.y_m + plan.south_m, r.width_m, r.height_m, r.material or die)
        for r in plan.regions
    )


class StackBuilder:
    """Turns configured numbers into layers and plates; `known` are the materials of a materials file."""

    def __init__(self, config: Configuration, known: dict[str, Material], rows: int, columns: int) -> None:
        self._config, self._known, self._rows, self._columns = config, known, rows, columns

    def value(self, key: str) -> float:
        """A configured number, or HotSpot's default."""
        return self._config.number(key, _DEFAULTS[key])

    def _named(self, key: str) -> Material | None:
        word = self._config.word(key)
        if word is None:
            return None
        if word not in self._known:
            fix = "Give the materials file that defines it (-m)."
            place = (self._config.file, self._config.line(key))
            fail("unknown material", file=place[0], line=place[1], key=key, value=word, choices=self._known, fix=fix)
        return self._known[word]

    def _of(self, part: str) -> Material:
        named = self._named(f"material_{part}")
        return named or Material.isotropic(part, self.value(f"k_{part}"), self.value(f"p_{part}"))

    def sink(self) -> Sink:
        """Spreader and sink."""
        spreader = Plate(self.value("s_spreader"), self.value("t_spreader"), self._of("spreader"))
        plate = Plate(self.value("s_sink"), self.value("t_sink"), self._of("sink"))
        return Sink(spreader, plate, self.value("r_convec"), self.value("c_convec"))

    def board(self) -> Board:
        """The secondary path: substrate, solder balls, board."""
        return Board(
            Plate(self.value("s_sub"), self.value("t_sub"), material("substrate")),
            Plate(self.value("s_solder"), self.value("t_solder"), material("solder-balls")),
            Plate(self.value("s_pcb"), self.value("t_pcb"), material("board")),
            self.value("r_convec_sec"),
            self.value("c_convec_sec"),
        )

    def default_layers(
        self, plan: Floorplan, mode: Literal["block", "grid"]
    ) -> tuple[tuple[StackLayer, ...], Plans, float, float]:
        """Chip and interface under the plates (with bumps and metal below, if the secondary path is on)."""
        # Without a layer file HotSpot gives every block the chip's own properties.
        regions = tuple(Region(r.name, r.x_m, r.y_m, r.width_m, r.height_m) for r in plan.regions)
        lateral = not (mode == "block" and self._config.flag("block_omit_lateral"))
        chip = StackLayer("chip", self.value("t_chip"), self._of("chip"), regions, powered=True, lateral=lateral)
        under = [chip, StackLayer("interface", self.value("t_interface"), self._of("interface"))]
        plans: Plans = [("chip", "", regions), ("interface", "iface_", regions)]
        if self._config.flag("model_secondary"):
            under = [
                StackLayer("c4", self.value("t_c4"), material("bump-layer")),
                StackLayer("metal", self.value("t_metal"), material("copper")),
                *under,
            ]
            plans = [("c4", "c4_", regions), ("metal", "metal_", regions), *plans]
        return tuple(under), plans, plan.width_m, plan.height_m

    def layers_of(self, path: Path) -> tuple[tuple[StackLayer, ...], Plans, float, float]:
        """The layers of a layer file, with the floorplans beside it."""
        layers: list[StackLayer] = []
        plans: Plans = []
        offset = 3 if self._config.flag("model_secondary") else 0
        wet: list[int] = []
        entries = read_layers(path, self._known)
        files = [self._beside(path, entry.floorplan) for entry in entries]
        floorplans = {file: read_floorplan(file) for file in files if file.suffix != ".csv"}
        if not floorplans:
            fail("at least one layer needs a floorplan of blocks", file=str(path))
        size = _outline(floorplans)
        for entry, file in zip(entries, files, strict=True):
            name = f"layer_{entry.number + offset}"
            if file.suffix == ".csv":
                wet.append(len(layers))
                channels = self._channels(file)
                layers.append(StackLayer(name, entry.thickness_m, self._wall(), channels=channels))
                plans.append((name, f"{name}_", ()))
                continue
            regions, base = floorplans[file].regions, entry.material
            if not _fills(floorplans[file], size):
                regions, base = _placed(floorplans[file], base), self._known.get(_AROUND, material("mould"))
            layers.append(
                StackLayer(name, entry.thickness_m, base, regions, powered=entry.powered, lateral=entry.lateral)
            )
            plans.append((name, f"{name}_", regions))
        for place in wet:
            plans[place] = (plans[place][0], plans[place][1], tuple(self._cells(size)))
        return tuple(layers), plans, size[0], size[1]

    @staticmethod
    def _beside(path: Path, name: str) -> Path:
        near = path.parent / name
        try:
            return near if near.exists() else Path(name)
        except (OSError, ValueError):  # no name that a file can have: its reader says so
            return Path(name)

    def _cells(self, size: tuple[float, float]) -> Iterator[Region]:
        wide, high = size[0] / self._columns, size[1] / self._rows
        for row in range(self._rows):
            for column in range(self._columns):
                yield Region(f"Cell_{row}_{column}", column * wide, (self._rows - row - 1) * high, wide, high)

    def _wall(self) -> Material:
        named = self._named("wall_material")
        return named or Material.isotropic("wall", 1.0 / self.value("wall_res"), self.value("wall_capac"))

    def _channels(self, file: Path) -> Channels:
        if not (self._config.flag("use_microchannels") or self._config.flag("use_microfluidic_cooling")):
            fix = "Set use_microchannels 1."
            fail("a layer has a channel network, but microchannels are off", file=str(file), fix=fix)
        coolant = self._named("coolant_material") or Material.isotropic(
            "coolant",
            1.0 / self.value("coolant_res"),
            self.value("coolant_capac"),
            viscosity_Pa_s=self.value("coolant_visc"),
        )
        return Channels(
            read_channels(file),
            coolant,
            self.value("pumping_pressure"),
            self.value("inlet_temperature"),
            self.value("htc"),
            self.value("pump_internal_res"),
        )
