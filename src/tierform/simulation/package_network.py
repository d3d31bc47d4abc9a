"""From a chip file's package and network to a topology, and the node of each tile.

Where links are meshes of a regular package, routes follow its grid in closed form; every other link set is a graph
with a router for each tile, in the order of the tiles.  Lengths come from the places of tiles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.chip.chip_file import LinksFile
from tierform.chip.description import CHIPLET_GAP_M, Chip
from tierform.chip.links import Pairs, interposer_pairs, is_plain, pillars, planar_pairs, vertical_pairs
from tierform.chip.network_laws import interposer_cycles, scaled_energy
from tierform.errors import Problem, TierformError
from tierform.network import (
    LINK_KINDS,
    AnalyticNetwork,
    Grid,
    RouterParameters,
    Topology,
    chiplets,
    choose_routing,
    energy_parameters,
    mesh,
    mesh_3d,
)
from tierform.network.topology import RouteTable

# Cycles of the shortest router: allocation of a channel and of the switch.  One more is the crossbar's, the rest
# routing.
LEAST_ROUTER_CYCLES = 2
TIER_PITCH_M = 50e-6
LARGEST_TABLE = 4096  # tiles; beyond, routes are found by the latency of links alone, when they are asked for
Places = NDArray[np.float64]
Ends = tuple[NDArray[np.int32], NDArray[np.int32]]


def network_of(chip: Chip) -> tuple[AnalyticNetwork, NDArray[np.int32]] | None:
    """The network of a chip and the node of each tile; None for a chip of one tile."""
    spec = chip.network
    if spec is None or len(chip.tiles) < 2:
        return None
    router = RouterParameters(
        flit_bits=round(spec.width.value),
        virtual_channels=spec.virtual_channels,
        buffer_flits=spec.buffer_flits,
        routing_delay=max(0, spec.router_cycles - LEAST_ROUTER_CYCLES - 1),
        crossbar_delay=1 if spec.router_cycles > LEAST_ROUTER_CYCLES else 0,
    )
    topology, node = _topology(chip)
    if spec.routing == "default" and topology.grid is None and topology.structure is None:
        topology = _with_fastest_routes(topology, round(router.pipeline_cycles))
    usual = 7 if chip.package.kind == "3d" and len(chip.package.dies) > 1 else 5
    energy = scaled_energy(spec, topology.radix.tolist(), usual, energy_parameters(**spec.parameters))
    try:
        routing = choose_routing(topology, spec.routing)
    except TierformError as error:
        moved = [
            Problem(p.what, file=chip.file or None, key="network.routing", value=p.value, nearest=p.nearest, fix=p.fix)
            for p in error.problems
        ]
        raise TierformError(moved) from None
    return AnalyticNetwork(topology, routing, router, spec.clock.value, energy), node


def _with_fastest_routes(topology: Topology, router_cycles: int) -> Topology:
    """The topology with the routes that take the fewest cycles, those of routers counted."""
    if topology.routers > LARGEST_TABLE:
        return topology
    slow = replace(topology, link_latency_cycles=topology.link_latency_cycles + np.int32(router_cycles))
    table = choose_routing(slow, "minimal").next_links(np.arange(topology.routers, dtype=np.int32))
    return replace(topology, structure=RouteTable(table))


def _topology(chip: Chip) -> tuple[Topology, NDArray[np.int32]]:
    """The topology of the package with the lengths of its links, and the network node of each tile."""
    assert chip.network is not None
    spec, dies = chip.network, chip.package.dies
    columns, rows = dies[0].grid
    width = round(spec.width.value)
    numbers = np.arange(len(chip.tiles), dtype=np.int32)
    regular = is_plain(spec)
    if chip.package.kind == "2.5d" and spec.interposer is not None:
        regular = regular and spec.interposer.at is None and _is_one_grid(chip)
    if not regular:
        return _any_links(chip), numbers
    if chip.package.kind == "3d" and spec.vertical is not None:
        vertical = spec.vertical
        everywhere = vertical.at is None and vertical.every == 1
        topology = mesh_3d(
            (columns, rows, len(dies)),
            pillars=None if everywhere else pillars((columns, rows, len(dies)), vertical.at, vertical.every),
            tier_pitch_m=TIER_PITCH_M,
            width_bits=width,
            vertical_width_bits=round(vertical.width.value),
            vertical_latency_cycles=vertical.latency_cycles,
        )
    elif chip.package.kind == "2.5d" and spec.interposer is not None:
        across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
        gap, every = chip.package.chiplet_gap, spec.interposer.every
        topology = chiplets(
            (across, down),
            (columns, rows),
            links_per_edge=None if every == 1 else max(1, max(columns, rows) // every),
            gap_m=gap.value if gap else CHIPLET_GAP_M,
            width_bits=width,
            interposer_width_bits=round(spec.interposer.width.value),
            interposer_latency_cycles=spec.interposer.latency_cycles,
        )
        wide = across * columns
        at = [(dies[t.die].at[1] * rows + t.y) * wide + dies[t.die].at[0] * columns + t.x for t in chip.tiles]
        numbers = np.array(at, dtype=np.int32)
    else:
        topology = mesh((columns, rows), width_bits=width)
    return _with_places(chip, topology, numbers), numbers


def _with_places(chip: Chip, topology: Topology, router: NDArray[np.int32]) -> Topology:
    """The topology with the places of tiles, and links that are as long, and take as many cycles, as these say."""
    tile = np.empty(topology.routers, dtype=np.int64)
    tile[router] = np.arange(len(router))
    source, target = tile[topology.link_source], tile[topology.link_target]
    length = _lengths(chip, source, target)
    planar, over = (topology.link_kind == LINK_KINDS.index(kind) for kind in ("planar", "interposer"))
    cycles = np.where(planar, _cycles(chip, length), topology.link_latency_cycles)
    if over.any() and chip.network is not None:
        cycles[over] = interposer_cycles(chip.network, length[over])
    return replace(
        topology,
        position_m=_places(chip)[tile],
        link_length_m=length,
        link_latency_cycles=cycles.astype(np.int32),
    )


def _pitches(chip: Chip) -> Places:
    """(dies, 2) width and height of a tile on each die; tiers of a stack lie over each other, as wide as the widest."""
    sizes = np.array([chip.die_size_m(index) for index in range(len(chip.package.dies))])
    if chip.package.kind == "3d":
        sizes[:] = sizes.max(axis=0)
    pitches: Places = sizes / np.array([die.grid for die in chip.package.dies])
    return pitches


def _places(chip: Chip) -> Places:
    """(tiles, 3) the middle of each tile."""
    pitch, stack = _pitches(chip), chip.package.kind == "3d"
    place = np.zeros((len(chip.tiles), 3))
    origins = [(0.0, 0.0) if stack else chip.die_origin_m(index) for index in range(len(chip.package.dies))]
    for tile in chip.tiles:
        (left, low), (wide, high) = origins[tile.die], pitch[tile.die]
        above = tile.die * TIER_PITCH_M if stack else 0.0
        place[tile.number] = left + (tile.x + 0.5) * wide, low + (tile.y + 0.5) * high, above
    return place


def _lengths(chip: Chip, source: NDArray[np.int64], target: NDArray[np.int64]) -> Places:
    """Lengths of links between tiles: their way along the axes."""
    die = np.array([tile.die for tile in chip.tiles])
    grid = np.array([(tile.x, tile.y) for tile in chip.tiles])
    place, pitch = _places(chip), _pitches(chip)
    inside = (np.abs(grid[source] - grid[target]) * pitch[die[source]]).sum(axis=1)
    between = np.abs(place[source] - place[target]).sum(axis=1)
    if chip.package.kind == "3d":
        between = np.abs(die[source] - die[target]) * TIER_PITCH_M
    found: Places = np.where(die[source] == die[target], inside, between)
    return found


def _cycles(chip: Chip, length: Places) -> Places:
    """Cycles of planar links of such lengths."""
    assert chip.network is not None
    step = chip.network.links.length_per_cycle
    return np.ones(len(length)) if step is None else np.maximum(np.ceil(length / step.value - 1e-9), 1)


def _is_one_grid(chip: Chip) -> bool:
    """Whether equal chiplets fill a rectangle, so that their routers are one grid."""
    dies = chip.package.dies
    across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
    return len({die.grid for die in dies}) == 1 and across * down == len(dies)


def _any_links(chip: Chip) -> Topology:
    """Any link set: a router for each tile, in the order of the tiles.

    Of a torus the links keep their grid, so that routes go round the rings; other sets are routed as graphs.
    """
    assert chip.network is not None
    spec, dies, stack = chip.network, chip.package.dies, chip.package.kind == "3d"
    planar = planar_pairs(dies, spec.links)
    between = vertical_pairs(dies, spec) if stack else []
    if chip.package.kind == "2.5d":
        between = interposer_pairs(dies, spec)
    over = spec.vertical if stack else spec.interposer
    source, target = _ends([*planar, *between])
    crosses = np.tile(np.repeat([False, True], [len(planar), len(between)]), 2)
    length = _lengths(chip, source.astype(np.int64), target.astype(np.int64))
    widths = np.full(len(source), round(spec.width.value))
    cycles = _cycles(chip, length)
    if over is not None:
        widths[crosses] = round(over.width.value)
        cycles[crosses] = over.latency_cycles if stack else interposer_cycles(spec, length[crosses])
    other = LINK_KINDS.index("vertical" if stack else "interposer")
    made = Topology(
        name="chiplets" if chip.package.kind == "2.5d" else spec.links.kind,
        node_router=np.arange(len(chip.tiles), dtype=np.int32),
        position_m=_places(chip),
        link_source=source,
        link_target=target,
        link_length_m=length,
        link_width_bits=widths.astype(np.int32),
        link_latency_cycles=cycles.astype(np.int32),
        link_kind=np.where(crosses, other, LINK_KINDS.index("planar")).astype(np.int32),
        chiplet=np.array([tile.die for tile in chip.tiles], dtype=np.int32),
    )
    if spec.links.routes is not None:
        return replace(made, structure=_route_table(made, spec.links))
    if spec.links.kind == "torus" and chip.package.kind != "2.5d":
        return replace(made, grid=_torus_grid(chip, made))
    return made


def _ends(pairs: Pairs) -> Ends:
    """Sources and targets of the links of all pairs in both directions."""
    both = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return np.concatenate([both[:, 0], both[:, 1]]), np.concatenate([both[:, 1], both[:, 0]])


def _route_table(topology: Topology, links: LinksFile) -> RouteTable:
    """The links of given routes, from the next tiles, and their classes of virtual channels."""
    link = np.full((topology.routers, topology.routers), -1, dtype=np.int32)
    link[topology.link_source, topology.link_target] = np.arange(topology.links, dtype=np.int32)
    here = np.arange(topology.routers)[:, None]
    classes = None if links.classes is None else np.array(links.classes, dtype=np.int32)
    return RouteTable(link[here, np.array(links.routes, dtype=np.int64)], classes)


def _torus_grid(chip: Chip, topology: Topology) -> Grid | None:
    """The rings of a torus as a grid; None where pillars are missing."""
    columns, rows = chip.package.dies[0].grid
    tiers = len(chip.package.dies)
    shape = (columns, rows) if tiers == 1 else (columns, rows, tiers)
    wraps = (columns > 2, rows > 2, False)[: len(shape)]
    link = {
        (int(a), int(b)): n for n, (a, b) in enumerate(zip(topology.link_source, topology.link_target, strict=True))
    }
    place = np.stack(np.unravel_index(np.arange(len(chip.tiles)), shape[::-1]), axis=1)[:, ::-1]
    stride = np.cumprod([1, *shape[:-1]])
    tables = np.full((2, len(shape), len(place)), -1, dtype=np.int32)
    for tile, at in enumerate(place):
        for axis, size in enumerate(shape):
            for way, step in enumerate((1, -1)):
                to = at[axis] + step
                if wraps[axis] or 0 <= to < size:
                    tables[way, axis, tile] = link.get((tile, tile + (to % size - at[axis]) * stride[axis]), -1)
    grid = Grid(shape, wraps, tables[0], tables[1])
    return grid if grid.is_complete else None


def ports_of(chip: Chip, attached: str | tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of the tiles through which a memory device is reached.

    `attached` names a component (all tiles that hold it) or a die (all its tiles), or gives the tiles.  Left empty: the
    first and the last column of the first die, where memory controllers sit at the edges.
    """
    if not isinstance(attached, str):
        return attached
    if attached in chip.components:
        return chip.tiles_of(attached)
    if attached in chip.die_groups:
        return tuple(tile.number for tile in chip.tiles if tile.die in chip.die_groups[attached])
    for index, die in enumerate(chip.package.dies):
        if die.name == attached:
            return tuple(tile.number for tile in chip.tiles if tile.die == index)
    last = chip.package.dies[0].grid[0] - 1
    return tuple(tile.number for tile in chip.tiles if tile.die == 0 and tile.x in (0, last))


def shown_port(attached: str | tuple[int, ...]) -> str:
    """Where a memory is attached, for people."""
    return attached if isinstance(attached, str) else f"tiles {', '.join(map(str, attached))}"
