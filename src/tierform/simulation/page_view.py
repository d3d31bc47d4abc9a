"""What a page needs to show a finished run: schema ``tierform.view/1``, described key by key in docs/view.md.

Plain arrays in the order of tiles and of links; places, contents, power, heat, weights and operators by tile, the ends
of links, what limits, and the whole job.  Everything is of one chip, and of the whole task.  Nothing is computed that
is not a figure of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tierform.chip.dies import held_by
from tierform.simulation.heat import leakage_by_tile, stack_of
from tierform.simulation.job_file import job_view
from tierform.simulation.package_network import ports_of, shown_port
from tierform.simulation.page_heat import heat_over_time
from tierform.simulation.page_limits import limits_view
from tierform.simulation.page_operators import operators_view
from tierform.simulation.page_timeline import timeline_view
from tierform.simulation.run import STATIC_TEMPERATURE_K, Run
from tierform.simulation.views import latency_s
from tierform.simulation.views_evidence import versions
from tierform.thermal.stack import AMBIENT_K

if TYPE_CHECKING:
    from tierform.simulation.elasticity import Elasticity

SCHEMA = "tierform.view/1"
View = dict[str, Any]


def view(run: Run, influence: Sequence[Elasticity] = ()) -> View:
    """The view of a run, with the `influence` of constants where somebody asked for it."""
    chip = run.chip
    job, missing = job_view(run.job)
    return {
        "schema": SCHEMA,
        "model": run.workload.model.name,
        "chip": chip.name,
        "job": job,
        "job_lacks": missing,
        "chips": run.workload.parallelism.chips,
        "versions": versions(run),
        "latency_s": latency_s(run),
        "package": chip.package.kind,
        "sink": "last" if chip.package.kind == "3d" else "all",
        "ambient_K": chip.cooling.ambient.value if chip.cooling.ambient else AMBIENT_K,
        "layers": [{"name": layer.name, "thickness_m": layer.thickness_m} for layer in stack_of(chip).layers],
        "dies": _dies(run),
        "components": _components(run),
        "memories": _memories(run),
        "tiles": _tiles(run),
        "links": _links(run),
        "weights": _weights(run),
        "operators": operators_view(run),
        "heat": heat_over_time(run),
        "timeline": timeline_view(run),
        "limits": limits_view(run),
        "influence": influence_view(influence),
        "labels": _labels(run),
    }


def quick_view(run: Run) -> View:
    """The dies of a view alone."""
    return {"dies": _dies(run)}


def influence_view(influence: Sequence[Elasticity]) -> list[View]:
    """How much figures change with each constant."""
    return [
        {
            "constant": one.path,
            "value": one.constant.value,
            "unit": one.constant.unit,
            "kind": one.constant.kind,
            "source": one.constant.source,
            "latency": one.latency,
            "energy": one.energy,
            "area": one.area,
            "heat_K": one.heat_K,
        }
        for one in influence
    ]


# -- places and contents -----------------------------------------------------------------------------------------
def _dies(run: Run) -> list[View]:
    chip, found = run.chip, []
    for index, die in enumerate(chip.package.dies):
        heat = run.heat.figures["dies"][index] if run.heat is not None else {}
        limits = [chip.cooling.limits[name].value for name in held_by(die) if name in chip.cooling.limits]
        found.append(
            {
                "name": die.name,
                "grid": list(die.grid),
                "size_m": list(chip.die_size_m(index)),
                "at": list(die.at) if chip.package.kind == "2.5d" else None,
                "origin_m": list(chip.die_origin_m(index)) if chip.package.kind == "2.5d" else [0.0, 0.0],
                "holds": [[name, count] for name, count in held_by(die).items()],
                "limit_K": min(limits, default=None),
                "peak_K": heat.get("peak_K"),
                "mean_K": heat.get("mean_K"),
                "power_W": heat.get("power_W"),
            }
        )
    return found


def _components(run: Run) -> View:
    return {
        name: {
            "type": run.chip.component_types.get(name, ""),
            "units": part.units,
            "area_m2": part.area_m2,
            "tiles": len(run.chip.tiles_of(name)),
        }
        for name, part in run.chip.components.items()
    }


def _memories(run: Run) -> list[View]:
    """The memories behind the chip, nearest first; the nearest one is reached through `ports`."""
    return [
        {
            "device": behind.device,
            "count": behind.count,
            "attached": shown_port(behind.attached),
            "ports": list(ports_of(run.chip, behind.attached)) if index == 0 else [],
        }
        for index, behind in enumerate(run.chip.memory)
    ]


def _tiles(run: Run) -> View:
    tiles = run.chip.tiles
    seconds = run.ledger.seconds * run.pipeline
    heat = run.heat
    booked = sum((entry.tile_J for entry in run.ledger.stages), np.zeros(len(tiles)))
    kelvin = heat.temperature_K if heat is not None else np.full(len(tiles), STATIC_TEMPERATURE_K)
    network_W = run.fabric.leakage_W / len(tiles)
    leakage = leakage_by_tile(run.chip, kelvin)
    dynamic = heat.dynamic_W if heat is not None else booked / (seconds or 1.0) + network_W
    return {
        "die": [tile.die for tile in tiles],
        "x": [tile.x for tile in tiles],
        "y": [tile.y for tile in tiles],
        "holds": [[[name, count] for name, count in tile.holds] for tile in tiles],
        "temperature_K": None if heat is None else _floats(kelvin),
        "power_W": {"dynamic": _floats(dynamic), "leakage": _floats(leakage)},
        "energy_J": {stage: _floats(joules) for stage, joules in _by_stage_kind(run, "tile_J").items()},
        "writes_per_cell": _floats(_writes(run)),
    }


def _by_stage_kind(run: Run, name: str) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Arrays of the stages summed by what the stage is to the task, for all steps; the mean over pipeline groups."""
    found: dict[str, Any] = {}
    for entry in run.ledger.stages:
        value = getattr(entry, name) * (run.steps / run.pipeline)
        kind = entry.stage.kind.value
        found[kind] = found[kind] + value if kind in found else value
    return found


def _writes(run: Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(tiles,) mean writes per cell over the task: weights that learn in their tiles, all else spread evenly."""
    found = np.zeros(len(run.chip.tiles))
    for name, part in run.chip.can.wearing.items():
        writes = run.ledger.cell_writes.get(name, 0) * run.steps / run.pipeline
        tiles = list(run.chip.tiles_of(name))
        if not writes or not tiles:
            continue
        passes = np.zeros(len(found))
        for placement in run.mapping.placements:
            if placement.component == name and placement.trainable and placement.resident:
                each = placement.total_crossbars / placement.layers * run.steps
                for layer in placement.tiles:
                    passes[list(layer)] += each / len(layer)
        rest = max(0.0, writes / part.cells_per_crossbar - passes.sum())
        passes[tiles] += rest / len(tiles)
        found += passes * len(tiles) / part.crossbars
    return found


# -- links, weights, operators -----------------------------------------------------------------------------------
def _links(run: Run) -> View:
    """Each link with the tiles at its ends (-1: a router without a tile) and its bytes by kind of stage."""
    ends = run.fabric.link_ends()
    return {
        "from": ends.source,
        "to": ends.target,
        "kind": ends.kind,
        "B_per_s": _floats(run.fabric.link_B_per_s),
        "B": {stage: _floats(moved) for stage, moved in _by_stage_kind(run, "link_B").items()},
    }


def _weights(run: Run) -> View:
    """Where weights sit: `tile`, `matrix` (a row of `matrices`), `layer` of its block, and crossbars of the tile.

    A weight's crossbars are spread evenly over its tiles.
    """
    matrices: list[View] = []
    tile: list[int] = []
    matrix: list[int] = []
    layer: list[int] = []
    crossbars: list[float] = []
    for placement in run.mapping.placements:
        if not placement.resident:
            continue
        each = placement.total_crossbars / placement.layers
        for number, tiles in enumerate(placement.tiles):
            for one in tiles:
                tile.append(one)
                matrix.append(len(matrices))
                layer.append(number)
                crossbars.append(each / len(tiles))
        matrices.append(
            {
                "block": placement.block,
                "weight": placement.weight,
                "component": placement.component,
                "layers": placement.layers,
                "replicas": placement.replicas,
                "learns": placement.trainable,
            }
        )
    return {"matrices": matrices, "tile": tile, "matrix": matrix, "layer": layer, "crossbars": crossbars}


def _labels(run: Run) -> View:
    """What the parts of components are, by the schema's own words where it has them."""
    found: View = {}
    parts = run.chip.origin.parts if run.chip.origin is not None else {}
    keys = {key[2]: None for key in run.ledger.energy}
    for component, _, part in dict.fromkeys(run.ledger.energy):
        key = f"{component}: {part}"
        if key in found or part not in keys:
            continue
        fields = type(parts[component].parameters).model_fields if component in parts else {}
        field = fields.get(part.replace("-", "_")) or fields.get(f"{part.replace('-', '_')}_energy")
        title = f"{component} {part.replace('-', ' ').replace('_', ' ')}"
        found[key] = {"title": title, "help": (field.description or "") if field is not None else ""}
    return found


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]
