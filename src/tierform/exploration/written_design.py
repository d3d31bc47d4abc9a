"""A design of a network written into a job: links, pillars and routes of its chip, places of weights in its mapping.

Rows of routes are tiles.  A chip without a router for each tile cannot be written so and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.chip.links import planar_pairs, vertical_pairs
from tierform.errors import fail
from tierform.exploration.network_search import NetworkDesign
from tierform.mapping import Mapping
from tierform.network.topology import PLANAR, VERTICAL
from tierform.simulation.job import Job
from tierform.simulation.package_network import network_of


def listed(chip: Chip) -> Chip:
    """The same chip with every planar link and route named in its file: what a searched network is compared with."""
    spec, made = chip.network, network_of(chip)
    if spec is None or made is None:
        return chip
    network, node = made
    topology = network.topology
    if topology.routers != len(chip.tiles):
        fail("one router a tile is needed", value=topology.routers)
    tile = np.argsort(topology.node_router[node])
    table = network.routing.next_links(np.arange(topology.routers, dtype=np.int32))
    here = np.arange(topology.routers)
    ahead = np.where(table >= 0, topology.link_target[table], here[:, None])
    ahead[here, here] = here
    # Tile by tile: rows and columns are tiles, not routers.
    router = topology.node_router[node]
    routes = tile[ahead[np.ix_(router, router)]]
    classes = None if spec.links.classes is None else np.array(spec.links.classes, np.int32)
    step = spec.links.length_per_cycle
    pairs = planar_pairs(chip.package.dies, spec.links)
    return _with_links(chip, pairs, routes, None if step is None else step.value, classes)


def _with_links(
    chip: Chip,
    pairs: Sequence[tuple[int, int]],
    routes: NDArray[np.int64],
    length_per_cycle_m: float | None,
    classes: NDArray[np.int32] | None = None,
    pillars: dict[str, object] | None = None,
) -> Chip:
    links: dict[str, object] = {
        "kind": "list",
        "list": [[int(a), int(b)] for a, b in pairs],
        "routes": [[int(tile) for tile in row] for row in routes],
    }
    if classes is not None:
        links["classes"] = [[int(kind) for kind in row] for row in classes]
    if length_per_cycle_m is not None:
        links["length_per_cycle"] = f"{length_per_cycle_m!r} m"
    return chip.vary({"network.links": links, "network.routing": None, **(pillars or {})})


def with_design(job: Job, design: NetworkDesign) -> Job:
    """The job with a design: the links and routes in its chip, the weights at their new tiles in its mapping."""
    chip, mapping = job.chip, job.mapping
    assert isinstance(chip, Chip) and isinstance(mapping, Mapping)
    topology = design.topology
    planar = np.flatnonzero((topology.link_kind == PLANAR) & (topology.link_source < topology.link_target))
    pairs = [(int(topology.link_source[link]), int(topology.link_target[link])) for link in planar]
    here = np.arange(topology.routers)
    routes = np.where(design.table >= 0, topology.link_target[design.table], here[:, None]).astype(np.int64)
    routes[here, here] = here
    classes = design.classes if design.channels_needed > 1 else None
    # A hair longer than the length of a cycle, so that a link of whole pitches is not a cycle longer by rounding.
    problem = design.problem
    pitch = problem.pitch_m * (1 + 1e-6) / problem.pitch_cycles if problem.pitch_m > 0 else None
    weights = [
        replace(item, tiles=tuple(tuple(int(design.place[tile]) for tile in tiles) for tiles in item.tiles))
        for item in mapping.placements
    ]
    moved = replace(mapping, placements=tuple(weights))
    made = _with_links(chip, pairs, routes, pitch, classes, _pillars(chip, design))
    return replace(job, chip=made, mapping=moved)


def _pillars(chip: Chip, design: NetworkDesign) -> dict[str, object]:
    """What to change for vertical links where the design has them."""
    topology = design.topology
    upright = np.flatnonzero((topology.link_kind == VERTICAL) & (topology.link_source < topology.link_target))
    made = {(int(topology.link_source[link]), int(topology.link_target[link])) for link in upright}
    if chip.network is None or made == set(vertical_pairs(chip.package.dies, chip.network)):
        return {}
    tiles = [chip.tiles[low] for low, _ in sorted(made)]
    places = [[tile.x, tile.y, tile.die] for tile in tiles]
    return {"network.vertical.at": places, "network.vertical.every": None}


__all__ = ["listed", "with_design"]
