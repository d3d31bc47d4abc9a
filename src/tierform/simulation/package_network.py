"""From a chip file's package and network to a topology, and the node of each tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.network import AnalyticNetwork, RouterParameters, Topology, chiplets, energy_parameters, mesh, mesh_3d

# Cycles of the shortest router: allocation of a channel and of the switch.  One more is the crossbar's, the rest
# routing.
LEAST_ROUTER_CYCLES = 2


def network_of(chip: Chip) -> tuple[AnalyticNetwork, NDArray[np.int32]] | None:
    """The network of a chip and the node of each tile; None for a chip of one tile."""
    spec = chip.network
    if spec is None or len(chip.tiles) < 2:
        return None
    topology, node = _topology(chip)
    router = RouterParameters(
        flit_bits=round(spec.width.value),
        routing_delay=max(0, spec.router_cycles - LEAST_ROUTER_CYCLES - 1),
        crossbar_delay=1 if spec.router_cycles > LEAST_ROUTER_CYCLES else 0,
    )
    energy = energy_parameters(**spec.parameters)
    return AnalyticNetwork(topology, "default", router, spec.clock.value, energy), node


def _topology(chip: Chip) -> tuple[Topology, NDArray[np.int32]]:
    """The topology of the package, and the network node of each tile."""
    assert chip.network is not None
    spec, dies = chip.network, chip.package.dies
    columns, rows = dies[0].grid
    width = round(spec.width.value)
    size = max(chip.die_size_m(die) for die in range(len(dies)))
    pitch = size[0] / columns
    places: list[Any]
    if chip.package.kind == "3d" and spec.vertical is not None:
        every = spec.vertical.every
        topology = mesh_3d(
            (columns, rows, len(dies)),
            pillars=None if every == 1 else [(x, y) for x in range(0, columns, every) for y in range(0, rows, every)],
            pitch_m=pitch,
            width_bits=width,
            vertical_width_bits=round(spec.vertical.width.value),
            vertical_latency_cycles=spec.vertical.latency_cycles,
        )
        places = [(tile.x, tile.y, tile.die) for tile in chip.tiles]
    elif chip.package.kind == "2.5d" and spec.interposer is not None:
        across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
        gap = chip.package.chiplet_gap
        every = spec.interposer.every
        topology = chiplets(
            (across, down),
            (columns, rows),
            links_per_edge=None if every == 1 else max(1, max(columns, rows) // every),
            pitch_m=pitch,
            gap_m=gap.value if gap else 1e-3,
            width_bits=width,
            interposer_width_bits=round(spec.interposer.width.value),
            interposer_latency_cycles=spec.interposer.latency_cycles,
        )
        places = [(dies[t.die].at[0] * columns + t.x, dies[t.die].at[1] * rows + t.y) for t in chip.tiles]
    else:
        topology = mesh((columns, rows), pitch_m=pitch, width_bits=width)
        places = [(tile.x, tile.y) for tile in chip.tiles]
    assert topology.grid is not None
    router = {tuple(int(v) for v in place): index for index, place in enumerate(topology.grid.coordinates)}
    first_node = {int(r): node for node, r in reversed(list(enumerate(topology.node_router)))}
    return topology, np.array([first_node[router[place]] for place in places], dtype=np.int32)


def ports_of(chip: Chip, attached: str) -> tuple[int, ...]:
    """Numbers of the tiles through which a memory device is reached.

    `attached` names a component (all tiles that hold it) or a die (all its tiles).  Left empty: the first and the last
    column of the first die, where memory controllers sit at the edges.
    """
    if attached in chip.components:
        return chip.tiles_of(attached)
    for index, die in enumerate(chip.package.dies):
        if die.name == attached:
            return tuple(tile.number for tile in chip.tiles if tile.die == index)
    last = chip.package.dies[0].grid[0] - 1
    return tuple(tile.number for tile in chip.tiles if tile.die == 0 and tile.x in (0, last))
