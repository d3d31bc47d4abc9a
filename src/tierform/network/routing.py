"""Which link a packet takes next: deterministic routes as next-link tables, for any topology.

A table gives, for each router and destination router, the link to take.  Dimension order on complete grids;
elevator-first on 3D meshes with few pillars (go to the nearest pillar, change tier, go on; Dubois et al. 2013);
nearest common ancestor on fat trees; minimal by link latency on any graph; up*/down* on any graph (Schroeder et al.
1991).  Randomised and adaptive routing (XY-YX, Valiant, minimal adaptive) are built on two such tables.
Whether a table can deadlock is decided in :mod:`tierform.network.deadlock`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.network.topology import Grid, IntArray, Topology

ROUTINGS = (
    "default",
    "dimension_order",
    "elevator_first",
    "ancestor",
    "minimal",
    "up_down",
    "xy_yx",
    "valiant",
    "minimal_adaptive",
    "adaptive_xy_yx",
    "first_settled",
)
_FAR = np.int32(1 << 28)


@dataclass(frozen=True, eq=False)
class Routing:
    """A routing on a topology.  `parts` are the deterministic tables it mixes: (table kind, share of the traffic)."""

    topology: Topology
    name: str
    parts: tuple[tuple[str, float], ...]
    via_random_node: bool = False
    _kept: OrderedDict[tuple[str, bytes], IntArray] = field(default_factory=OrderedDict, repr=False)
    kept_orders: dict[tuple[int, bytes], tuple[Any, Any, Any, Any]] = field(default_factory=dict, repr=False)
    kept_trees: list[Any] = field(default_factory=list, repr=False)

    def next_links(self, destinations: IntArray, part: int = 0) -> IntArray:
        """(routers, len(destinations)) link to take towards each destination router; -1 at the destination."""
        kind = self.parts[part][0]
        key = (kind, np.asarray(destinations, np.int32).tobytes())
        if key not in self._kept:
            self._kept[key] = _TABLES[kind](self.topology, np.asarray(destinations, np.int64))
            while sum(table.size for table in self._kept.values()) > 4_000_000 and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return self._kept[key]

    @property
    def is_product_form(self) -> bool:
        """True when link loads of product traffic have a closed form (dimension order on a complete grid)."""
        return all(kind in ("dimension_order", "reverse_order") for kind, _ in self.parts)


def choose_routing(topology: Topology, name: str = "default") -> Routing:
    """The routing of this name on `topology`; ``default`` picks the one that suits the topology."""
    if name not in ROUTINGS:
        fail("unknown routing", key="routing", value=name, choices=ROUTINGS, fix=f"Known: {', '.join(ROUTINGS)}.")
    grid = topology.grid
    complete = grid is not None and grid.is_complete
    if name == "default":
        if complete:
            name = "dimension_order"
        elif topology.name == "mesh3d":
            name = "elevator_first"
        elif topology.name == "fattree":
            name = "ancestor"
        else:
            name = "minimal"
    if name in ("dimension_order", "xy_yx", "adaptive_xy_yx", "valiant", "minimal_adaptive") and not complete:
        fail(
            "this routing needs a grid with all its links",
            key="routing",
            value=name,
            fix="Use elevator_first, minimal or up_down.",
        )
    if name == "elevator_first" and (grid is None or len(grid.shape) != 3):
        fail("elevator_first needs a 3D mesh", key="routing", value=name)
    if name == "ancestor" and topology.name != "fattree":
        fail("nearest common ancestor needs a fat tree", key="routing", value=name)
    if name in ("xy_yx", "adaptive_xy_yx", "minimal_adaptive"):
        return Routing(topology, name, (("dimension_order", 0.5), ("reverse_order", 0.5)))
    if name == "valiant":
        return Routing(topology, name, (("dimension_order", 1.0),), via_random_node=True)
    return Routing(topology, name, ((name, 1.0),))


def path(routing: Routing, source: int, destination: int, part: int = 0) -> list[int]:
    """The links from a source router to a destination router, in order."""
    table = routing.next_links(np.array([destination], np.int32), part)[:, 0]
    links: list[int] = []
    here = source
    while here != destination:
        link = int(table[here])
        links.append(link)
        here = int(routing.topology.link_target[link])
        if len(links) > routing.topology.routers * 4:
            fail(f"the routing never reaches router {destination} from {source}", key=routing.name)
    return links


def ring_step(size: int, here: IntArray, there: IntArray) -> IntArray:
    """+1 or -1: the shorter way round a ring; halfway, forwards from even places and backwards from odd ones."""
    ahead = (there - here) % size
    forwards = (2 * ahead < size) | ((2 * ahead == size) & (here % 2 == 0))
    return np.where(forwards, 1, -1).astype(np.int32)


def _dimension_order(topology: Topology, destinations: IntArray, reverse: bool = False) -> IntArray:
    assert topology.grid is not None
    return _grid_table(topology.grid, topology.grid.coordinates[destinations], reverse)


def _grid_table(grid: Grid, goal: IntArray, reverse: bool = False) -> IntArray:
    routers = len(grid.coordinates)
    table = np.full((routers, len(goal)), -1, np.int32)
    axes = range(len(grid.shape)) if reverse else reversed(range(len(grid.shape)))
    for axis in axes:
        size = grid.shape[axis]
        if size == 1:
            continue
        # Table for one line, then spread over the routers: cheap where a grid has few distinct places per axis.
        here, there = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
        step = ring_step(size, here, there) if grid.wraps[axis] else np.sign(there - here)
        moves = (
            step[grid.coordinates[:, axis]][:, goal[:, axis]]
            if not grid.wraps[axis]
            else np.where(here == there, 0, step)[grid.coordinates[:, axis]][:, goal[:, axis]]
        )
        np.copyto(table, grid.forward[axis][:, None], where=moves > 0)
        np.copyto(table, grid.backward[axis][:, None], where=moves < 0)
    return table


def _elevator_first(topology: Topology, destinations: IntArray) -> IntArray:
    grid = topology.grid
    assert grid is not None
    width, height, tiers = grid.shape
    flat = Grid((width, height, tiers), (False,) * 3, grid.forward, grid.backward)
    place = grid.coordinates
    goal = place[destinations].copy()
    table = _grid_table(flat, goal)
    # Where the tier differs, aim first at the nearest pillar that leads the right way.
    for up, links in ((True, grid.forward[2]), (False, grid.backward[2])):
        for tier in range(tiers):
            here = np.flatnonzero(place[:, 2] == tier)
            columns = np.flatnonzero(goal[:, 2] > tier if up else goal[:, 2] < tier)
            if len(columns) == 0:
                continue
            doors = here[links[here] >= 0]
            away = np.abs(place[here][:, None, :2] - place[doors][None, :, :2]).sum(axis=2)
            door = doors[np.argmin(away, axis=1)]
            first = np.array([_toward(grid, a, b) for a, b in zip(here, door, strict=True)], np.int32)
            step = np.where(here == door, links[here], first)
            table[np.ix_(here, columns)] = step[:, None]
    return table


def _toward(grid: Grid, here: Any, there: Any) -> int:
    a, b = grid.coordinates[here], grid.coordinates[there]
    for axis in range(2):
        if a[axis] != b[axis]:
            return int((grid.forward if b[axis] > a[axis] else grid.backward)[axis][here])
    return -1


def _ancestor(topology: Topology, destinations: IntArray) -> IntArray:
    arity, levels = int(str(topology.labels["arity"])), int(str(topology.labels["levels"]))
    row = arity ** (levels - 1)
    link = {
        (int(a), int(b)): n for n, (a, b) in enumerate(zip(topology.link_source, topology.link_target, strict=True))
    }
    table = np.full((topology.routers, len(destinations)), -1, np.int32)
    for router in range(topology.routers):
        level, word = divmod(router, row)
        for column, goal in enumerate(destinations):
            if goal >= row:
                continue  # no node is attached there
            differs = [d for d in range(levels - 1) if (word // arity**d) % arity != (int(goal) // arity**d) % arity]
            if level == 0 and not differs:
                continue
            above = any(d >= level for d in differs)
            # Upwards the digit is the destination's own, which spreads destinations over the roots.
            digit = level if above else level - 1
            change = (int(goal) // arity**digit) % arity - (word // arity**digit) % arity
            to = (level + (1 if above else -1)) * row + word + change * arity**digit
            table[router, column] = link[router, to]
    return table


def _first_settled(topology: Topology, destinations: IntArray) -> IntArray:
    from tierform.network.settled import first_settled_table

    return first_settled_table(topology, destinations)


def _minimal(topology: Topology, destinations: IntArray) -> IntArray:
    every = np.ones(topology.links, bool)
    return _nearest(topology, _distances(topology, destinations, every), every)


def _up_down(topology: Topology, destinations: IntArray) -> IntArray:
    up = upward_links(topology)
    down_only = _distances(topology, destinations, ~up)
    reach = down_only.copy()
    cost = topology.link_latency_cycles.astype(np.int32)
    for _ in range(topology.routers):
        offer = cost[up][:, None] + reach[topology.link_target[up]]
        best = _lowest(topology, offer, np.flatnonzero(up))
        improved = np.where(down_only < _FAR, reach, np.minimum(reach, best))
        if (improved == reach).all():
            break
        reach = improved
    down_table = _nearest(topology, down_only, ~up)
    up_table = _nearest(topology, reach, up)
    return np.where(down_only < _FAR, down_table, up_table).astype(np.int32)


def upward_links(topology: Topology) -> np.ndarray:
    """(links,) True where a link leads towards the root of the breadth-first order that up*/down* uses."""
    hops = _distances(topology, np.arange(topology.routers), np.ones(topology.links, bool), unit=True)
    root = int(np.argmin(hops.max(axis=0) * topology.routers + hops.mean(axis=0)))
    rank = hops[:, root].astype(np.int64) * topology.routers + np.arange(topology.routers)
    return rank[topology.link_target] < rank[topology.link_source]


def _distances(
    topology: Topology, destinations: IntArray, allowed: NDArray[np.bool_], unit: bool = False
) -> NDArray[np.int32]:
    """(routers, destinations) least total link latency over the allowed links; a large number where there is no path.

    All destinations at once, settled in order of distance (Dial's buckets), so each (router, destination) is expanded
    once, over the links that enter the router.
    """
    links = np.flatnonzero(allowed)
    links = links[np.argsort(topology.link_target[links], kind="stable")]
    entering = np.bincount(topology.link_target[links], minlength=topology.routers)
    first = np.concatenate([[0], np.cumsum(entering)])[:-1]
    cost = np.ones(len(links), np.int64) if unit else topology.link_latency_cycles[links].astype(np.int64)
    source = topology.link_source[links].astype(np.int64)
    count = len(destinations)
    distance = np.full(topology.routers * count, _FAR, np.int32)
    start = np.asarray(destinations, np.int64) * count + np.arange(count)
    distance[start] = 0
    buckets: dict[int, list[NDArray[np.int64]]] = {0: [start]}
    while buckets:
        level = min(buckets)
        pairs = np.concatenate(buckets.pop(level))
        pairs = np.unique(pairs[distance[pairs] == level])
        router, column = pairs // count, pairs % count
        number = entering[router]
        total = int(number.sum())
        if total == 0:
            continue
        offset = np.arange(total) - np.repeat(np.cumsum(number) - number, number)
        used = np.repeat(first[router], number) + offset
        reached = source[used] * count + np.repeat(column, number)
        for step in np.unique(cost[used]):
            offered = reached[cost[used] == step]
            better = offered[distance[offered] > level + step]
            if len(better):
                distance[better] = level + step
                buckets.setdefault(int(level + step), []).append(better)
    return distance.reshape(topology.routers, count)


def _lowest(topology: Topology, offer: NDArray[np.int32], links: IntArray) -> NDArray[np.int32]:
    best = np.full((topology.routers, offer.shape[1]), _FAR, np.int32)
    if len(links) == 0:
        return best
    order = np.argsort(topology.link_source[links], kind="stable")
    sources, starts = np.unique(topology.link_source[links][order], return_index=True)
    best[sources] = np.minimum.reduceat(offer[order], starts, axis=0)
    return best


def _nearest(topology: Topology, distance: IntArray, allowed: np.ndarray) -> IntArray:
    table = np.full(distance.shape, -1, np.int32)
    for link in np.flatnonzero(allowed)[::-1]:
        source, target = topology.link_source[link], topology.link_target[link]
        on_path = (distance[source] < _FAR) & (distance[source] > 0)
        on_path &= distance[source] == topology.link_latency_cycles[link] + distance[target]
        table[source, on_path] = link
    return table


_TABLES = {
    "dimension_order": _dimension_order,
    "reverse_order": lambda topology, destinations: _dimension_order(topology, destinations, reverse=True),
    "elevator_first": _elevator_first,
    "ancestor": _ancestor,
    "minimal": _minimal,
    "first_settled": _first_settled,
    "up_down": _up_down,
}
