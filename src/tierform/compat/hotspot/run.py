"""HotSpot's inputs as stacks, and its outputs from our models: what ``tierform thermal`` runs.

A configuration, a floorplan (or a layer file) and a power trace become a :class:`Case`: a stack with HotSpot's
conventions, block or grid mode, and the trace.  :func:`run` gives steady temperatures for the trace's mean power, by
the names that HotSpot gives them, and on request the trace of temperatures.  Model and names: source hotspot-7.

Two properties of HotSpot's heterogeneous 3D mode (``detailed_3D on``) are kept, since its users compare with it: half
of the convective resistance also stands between spreader and sink, and the lowest layer counts with its whole
thickness.  `convention="centred"` leaves them out, as it does HotSpot's other choices (nodes on the lower face of
layers, heat capacities times 0.333).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tierform.compat.hotspot.files import (
    Configuration,
    PowerTrace,
    read_configuration,
    read_cooler,
    read_floorplan,
    read_materials,
    read_power_trace,
    read_temperatures,
)
from tierform.compat.hotspot.stack import StackBuilder
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.thermal.airflow import AirCooler
from tierform.thermal.block import BlockModel, BlockTemperatures
from tierform.thermal.grid import GridModel, Reduction, TemperatureField
from tierform.thermal.network import Array, overlap
from tierform.thermal.solvers import SolverName
from tierform.thermal.stack import Board, Convention, Region, Stack

Mode = Literal["block", "grid"]
_HOTTEST_K = 2000.0  # of the air around a chip
_MAPPING: dict[str, Reduction] = {"avg": "touched", "min": "min", "max": "max", "center": "center"}


@dataclass(frozen=True)
class Case:
    """One HotSpot run: the stack, how it is modelled, and the power trace.

    `plans` gives, for each of the stack's layers and plates from the bottom up, its name in the stack, the prefix of
    its names in HotSpot's files, and its floorplan.  `columns_of_trace` maps the trace's columns to the stack's tiles.
    """

    stack: Stack
    mode: Mode
    rows: int
    columns: int
    reduction: Reduction
    plans: tuple[tuple[str, str, tuple[Region, ...]], ...]
    trace: PowerTrace
    columns_of_trace: tuple[int, ...]
    interval_s: float
    start_K: dict[str, float] | float
    remarks: tuple[str, ...] = ()
    # Where the configuration wants steady temperatures written: of the nodes by name, and of every cell.
    steady_file: Path | None = None
    cells_file: Path | None = None

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of all temperatures in the order of HotSpot's steady files."""
        names = [f"{prefix}{region.name}" for _, prefix, regions in self.plans for region in regions]
        return (*names, *(f"inode_{number}" for number in range(self._package_nodes)))

    @property
    def _package_nodes(self) -> int:
        return 12 + (16 if isinstance(self.stack.bottom, Board) else 0)

    def tile_powers_W(self) -> Array:
        """The trace as (samples, tiles) in the order of the stack's tiles."""
        result = np.zeros((len(self.trace.power_W), len(self.stack.tiles)))
        result[:, list(self.columns_of_trace)] = self.trace.power_W
        return result


@dataclass(frozen=True)
class Outcome:
    """What a run gives: steady temperatures by name, the trace where asked for, and the cost."""

    case: Case
    temperature_K: dict[str, float]
    trace_K: Array | None
    peak_cell_K: float
    power_W: float
    heat_out_W: float
    cpu_s: float
    steady: TemperatureField | BlockTemperatures

    @property
    def blocks_K(self) -> dict[str, float]:
        """Steady temperatures of the blocks that dissipate, by ``layer/block``."""
        powered = {layer.name for layer in self.case.stack.layers if layer.powered}
        return {
            f"{name}/{region.name}": self.temperature_K[f"{prefix}{region.name}"]
            for name, prefix, regions in self.case.plans
            if name in powered
            for region in regions
        }

    def to_dict(self) -> dict[str, object]:
        """Everything for JSON."""
        case = self.case
        result: dict[str, object] = {
            "schema": "tierform.thermal/1",
            "mode": case.mode,
            "grid": None if case.mode == "block" else [case.rows, case.columns],
            "convention": case.stack.convention,
            "temperature_K": self.temperature_K,
            "peak_temperature_K": max(self.temperature_K.values()),
            "hottest": max(self.temperature_K, key=self.temperature_K.__getitem__),
            "peak_cell_temperature_K": self.peak_cell_K,
            "power_W": self.power_W,
            "heat_out_W": self.heat_out_W,
            "cpu_s": self.cpu_s,
            "remarks": list(case.remarks),
        }
        if self.trace_K is not None:
            result["trace"] = {
                "interval_s": case.interval_s,
                "blocks": list(case.trace.names),
                "temperature_K": self.trace_K.tolist(),
            }
        return result

    def steady_text(self) -> str:
        """The steady file that HotSpot writes: name, tab, kelvin with two digits."""
        return "".join(f"{name}\t{value:.2f}\n" for name, value in self.temperature_K.items())

    def trace_text(self) -> str:
        """The temperature trace that HotSpot writes."""
        if self.trace_K is None:
            fail("no transient was computed, so there is no trace to write")
        head = "\t".join(self.case.trace.names)
        rows = ("\t".join(f"{value:.2f}" for value in row) for row in self.trace_K)
        return "\n".join([head, *rows]) + "\n"


def load(
    trace: Path | str,
    *,
    configuration: Path | str | None = None,
    floorplan: Path | str | None = None,
    layers: Path | str | None = None,
    materials: Path | str | None = None,
    overrides: dict[str, str] | None = None,
    convention: Convention | None = None,
) -> Case:
    """Read HotSpot's files into a :class:`Case`; TierformError names file and line of what is wrong.

    `overrides` are configuration keys from the command line.  A layer file implies grid mode and, unless
    ``detailed_3D off`` is said, the heterogeneous 3D mode that HotSpot's own 3D examples use.
    """
    config = read_configuration(configuration, overrides)
    _refuse_unsupported(config)
    layer_file = layers or _beside(config, "grid_layer_file")
    material_file = materials or _beside(config, "materials_file")
    known = read_materials(material_file) if material_file else {}
    power = read_power_trace(trace)
    if layer_file is None and floorplan is None:
        fail("a floorplan (-f) or a layer file (-g) is needed")
    mode: Mode = "grid" if layer_file or (config.word("model_type") or "block") == "grid" else "block"
    rows, columns = int(config.number("grid_rows", 64)), int(config.number("grid_cols", 64))
    detailed = layer_file is not None and (config.word("detailed_3D") or "on") != "off"
    if convention is None:
        convention = "hotspot-detailed" if detailed else "hotspot"
    builder = StackBuilder(config, known, rows, columns)
    remarks: list[str] = []
    if layer_file is not None:
        entries, plans, width, height = builder.layers_of(Path(layer_file))
        if floorplan is not None:
            remarks.append("the layer file names the floorplans; the one given by itself is not used")
        if detailed and convention == "hotspot-detailed":
            remarks.append(
                "HotSpot's heterogeneous 3D mode: half of the convective resistance also stands between spreader and "
                "sink, as in that tool; use the convention 'centred' for finite volumes without it"
            )
    else:
        assert floorplan is not None
        entries, plans, width, height = builder.default_layers(read_floorplan(floorplan), mode)
    sink = builder.sink()
    if config.flag("package_model_used"):
        file = _beside(config, "package_config_file")
        cooler = read_cooler(file) if file else AirCooler()
        resistance = cooler.resistance_K_per_W(sink.plate.side_m, sink.plate.material.conductivity_z_W_per_mK)
        sink = replace(sink, resistance_K_per_W=resistance)
        remarks.append(f"convective resistance from fan and fins: {resistance:.6g} K/W")
    board = builder.board() if config.flag("model_secondary") else None
    if board is not None and mode == "block":
        fail("the secondary path needs the grid model", file=config.file, line=config.line("model_secondary"))
    ambient_K = builder.value("ambient")
    if ambient_K > _HOTTEST_K:
        what = f"no air around a chip has more than {_HOTTEST_K} K"
        fail(what, file=config.file, line=config.line("ambient"), key="ambient", value=ambient_K)
    stack = Stack(
        width_m=width,
        height_m=height,
        layers=entries,
        top=sink,
        bottom=board,
        ambient_K=ambient_K,
        convention=convention,
    )
    first, last = plans[0][2], plans[-1][2]
    # The substrate and the boards have the floorplan of the die's lowest layer, the plates above that of the highest.
    base = next(regions for name, _, regions in plans if name == "chip") if layer_file is None else first
    below = tuple(
        (name, f"{short}_", base) for name, short in (("board", "pcb"), ("solder", "solder"), ("substrate", "sub"))
    )
    above = (("spreader", "hsp_", last), ("sink", "hsink_", last))
    case_plans = (*(below if board else ()), *plans, *above)
    start_file = _beside(config, "init_file")
    start: dict[str, float] | float = read_temperatures(start_file) if start_file else builder.value("init_temp")
    mapping = config.word("grid_map_mode") or "center"
    if mapping not in _MAPPING:
        fail("unknown mapping", file=config.file, line=config.line("grid_map_mode"), value=mapping, choices=_MAPPING)
    return Case(
        stack=stack,
        mode=mode,
        rows=rows,
        columns=columns,
        reduction=_MAPPING[mapping],
        plans=case_plans,
        trace=power,
        columns_of_trace=_columns(power, stack),
        interval_s=builder.value("sampling_intvl"),
        start_K=start,
        remarks=tuple(remarks),
        steady_file=_path(config, "steady_file"),
        cells_file=_path(config, "grid_steady_file"),
    )


def run(case: Case, *, transient: bool = False, steps_per_interval: int = 8, solver: SolverName = "auto") -> Outcome:
    """Steady temperatures for the trace's mean power, and with `transient` the temperatures after each interval."""
    begun = time.process_time()
    powers = case.tile_powers_W()
    mean = powers.mean(axis=0)
    answer: TemperatureField | BlockTemperatures
    trace_K = None
    if case.mode == "block":
        block = BlockModel(case.stack)
        answer = block.steady(mean)
        values = answer.nodes_K
        peak = float(answer.tiles_K.max())
        if transient:
            trace_K = block.transient(powers, case.interval_s, start=_start_nodes(case))[1][
                :, list(case.columns_of_trace)
            ]
    else:
        grid = GridModel(case.stack, case.rows, case.columns, solver=solver)
        answer = grid.steady(mean)
        values = _named(case, answer)
        peak = answer.peak_K
        if transient:
            start = _start_field(case, grid)
            after = grid.transient(
                powers, case.interval_s, start=start, steps_per_interval=steps_per_interval, reduction=case.reduction
            )
            trace_K = after.tiles_K[:, list(case.columns_of_trace)]
    temperature = dict(zip(case.node_names, values.tolist(), strict=True))
    cpu = time.process_time() - begun
    return Outcome(
        case=case,
        temperature_K=temperature,
        trace_K=trace_K,
        peak_cell_K=peak,
        power_W=float(mean.sum()),
        heat_out_W=answer.heat_out_W,
        cpu_s=cpu,
        steady=answer,
    )


def _named(case: Case, field: TemperatureField) -> Array:
    parts = [field.regions_K(name, regions, case.reduction) for name, _, regions in case.plans]
    return np.concatenate([*parts, np.array(list(field.package_K.values()))])


def _start_nodes(case: Case) -> Array | float:
    if isinstance(case.start_K, float):
        return case.start_K
    _require(case, case.start_K)
    return np.array([case.start_K[name] for name in case.node_names])


def _start_field(case: Case, grid: GridModel) -> TemperatureField | float:
    if isinstance(case.start_K, float):
        return case.start_K
    start = case.start_K
    _require(case, start)
    layers, rows, columns = grid.network.shape
    nodes = np.zeros(grid.network.nodes)
    cells = nodes[: layers * rows * columns].reshape(layers, rows, columns)
    for name, prefix, regions in case.plans:
        high, wide = overlap(regions, case.stack, rows, columns)
        values = np.array([start[f"{prefix}{region.name}"] for region in regions])
        share = np.einsum("nr,nc->rc", high, wide)
        cells[grid.node_layers(name)] = np.einsum("nr,nc,n->rc", high, wide, values) / share
    package = len(grid.network.node_names)
    nodes[nodes.size - package :] = [start[f"inode_{number}"] for number in range(package)]
    return TemperatureField(grid, nodes)


def _require(case: Case, start: dict[str, float]) -> None:
    missing = [name for name in case.node_names if name not in start]
    if missing:
        raise TierformError(
            Problem("the initial temperatures lack this node", key=name, nearest=nearest(name, start))
            for name in missing[:10]
        )


def _columns(power: PowerTrace, stack: Stack) -> tuple[int, ...]:
    """Tile of each column; columns stand layer by layer, so that names may return in other layers."""
    tiles = stack.tiles
    problems = []
    if len(power.names) != len(tiles):
        known = {tile.name for tile in tiles}
        missing = [tile.key for tile in tiles if tile.name not in power.names]
        strange = [name for name in power.names if name not in known]
        what = f"the trace has {len(power.names)} names, the floorplan {len(tiles)} blocks that dissipate"
        if missing:
            what += f"; no power for {', '.join(missing[:5])}"
        if strange:
            what += f"; no block for {', '.join(strange[:5])}"
        problems.append(Problem(what, power.file, 1))
    result: list[int] = []
    position = 0
    for layer in stack.layers:
        if not layer.powered or problems:
            continue
        place = {region.name: position + number for number, region in enumerate(layer.regions)}
        names = power.names[position : position + len(layer.regions)]
        for name in names:
            if name not in place:
                problems.append(
                    Problem(
                        f"power for a block that {layer.name!r} does not have",
                        power.file,
                        1,
                        None,
                        name,
                        nearest(name, place),
                    )
                )
            elif names.count(name) > 1:
                problems.append(Problem("this block has two columns", power.file, 1, None, name))
            else:
                result.append(place[name])
        position += len(layer.regions)
    if problems:
        raise TierformError(dict.fromkeys(problems))
    return tuple(result)


def _refuse_unsupported(config: Configuration) -> None:
    advice = {
        "leakage_used": "Put leakage into the power trace, or use the influence model's fixed point.",
        "dtm_used": "Only the clipping of initial temperatures would change; set it to 0.",
    }
    problems = [
        Problem("this is not supported", config.file, config.line(key), key, config.settings[key].text, fix=fix)
        for key, fix in advice.items()
        if config.flag(key)
    ]
    if problems:
        raise TierformError(problems)
    for key, choices in (("model_type", ("block", "grid")), ("detailed_3D", ("on", "off"))):
        word = config.word(key)
        if word is not None and word not in choices:
            fail(f"must be one of {', '.join(choices)}", file=config.file, line=config.line(key), key=key, value=word)


def _path(config: Configuration, key: str) -> Path | None:
    word = config.word(key)
    return None if word is None else Path(word)


def _beside(config: Configuration, key: str) -> Path | None:
    """A file named in the configuration: relative to the configuration's folder, or to where we are."""
    word = config.word(key)
    if word is None:
        return None
    near = Path(config.file).parent / word
    return near if near.exists() else Path(word)
