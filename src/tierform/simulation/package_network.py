"""From a chip file's package and network to a topology, and the node of each tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.chip.chip_file import neighbours
from tierform.chip.description import CHIPLET_GAP_M, Chip
from tierform.network import (
    LINK_KINDS,
    AnalyticNetwork,
    RouterParameters,
    Topology,
    chiplets,
    energy_parameters,
    mesh,
    mesh_3d,
)

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
    elif chip.package.kind == "2.5d" and spec.interposer is not None and not _is_one_grid(chip):
        return _unequal_chiplets(chip), np.arange(len(chip.tiles), dtype=np.int32)
    elif chip.package.kind == "2.5d" and spec.interposer is not None:
        across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
        gap = chip.package.chiplet_gap
        every = spec.interposer.every
        topology = chiplets(
            (across, down),
            (columns, rows),
            links_per_edge=None if every == 1 else max(1, max(columns, rows) // every),
            pitch_m=pitch,
            gap_m=gap.value if gap else CHIPLET_GAP_M,
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


def _is_one_grid(chip: Chip) -> bool:
    """Whether equal chiplets fill a rectangle, so that their routers are one grid."""
    dies = chip.package.dies
    across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
    return len({die.grid for die in dies}) == 1 and across * down == len(dies)


def _unequal_chiplets(chip: Chip) -> Topology:
    """Chiplets of any grids at any places: a router for each tile, in the order of the tiles.

    Each chiplet is a mesh of its own pitch.  Two neighbours are joined by as many links as the shorter of the facing
    edges has routers, spread evenly along both edges; a link is as long as its way along the axes.
    """
    assert chip.network is not None and chip.network.interposer is not None
    spec, bridge, dies = chip.network, chip.network.interposer, chip.package.dies
    number = {(tile.die, tile.x, tile.y): tile.number for tile in chip.tiles}
    place = np.zeros((len(chip.tiles), 3))
    for tile in chip.tiles:
        left, low = chip.die_origin_m(tile.die)
        width, height = chip.die_size_m(tile.die)
        columns, rows = dies[tile.die].grid
        place[tile.number, :2] = left + (tile.x + 0.5) * width / columns, low + (tile.y + 0.5) * height / rows
    inside = [
        (tile.number, number[beside])
        for tile in chip.tiles
        for beside in ((tile.die, tile.x + 1, tile.y), (tile.die, tile.x, tile.y + 1))
        if beside in number
    ]
    between = []
    for one, other, axis in neighbours(dies):
        edges = dies[one].grid[1 - axis], dies[other].grid[1 - axis]
        links = max(1, min(edges) // bridge.every)
        for link in range(links):
            here, there = (int((link + 0.5) * edge / links) for edge in edges)
            last = dies[one].grid[axis] - 1
            ends = ((last, here), (0, there)) if axis == 0 else ((here, last), (there, 0))
            between.append((number[(one, *ends[0])], number[(other, *ends[1])]))
    pairs = np.array([*inside, *between], dtype=np.int32)
    over = np.repeat([False, True], [len(inside), len(between)])
    source, target = np.concatenate([pairs, pairs[:, ::-1]]).T
    over = np.concatenate([over, over])
    return Topology(
        name="chiplets",
        node_router=np.arange(len(chip.tiles), dtype=np.int32),
        position_m=place,
        link_source=source,
        link_target=target,
        link_length_m=np.abs(place[source] - place[target]).sum(axis=1),
        link_width_bits=np.where(over, round(bridge.width.value), round(spec.width.value)).astype(np.int32),
        link_latency_cycles=np.where(over, bridge.latency_cycles, 1).astype(np.int32),
        link_kind=np.where(over, LINK_KINDS.index("interposer"), LINK_KINDS.index("planar")).astype(np.int32),
        chiplet=np.array([tile.die for tile in chip.tiles], dtype=np.int32),
    )


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
