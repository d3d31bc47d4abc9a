"""Next-link tables: for each router and destination router, the link to take.

Dimension order on grids, flattened butterflies and express meshes; elevator-first on 3D meshes with few pillars (go to
the nearest pillar, change tier, go on; Dubois et al. 2013); nearest common ancestor on trees; through the one link
between two groups on dragonflies; minimal by link latency, and up*/down* (Schroeder et al. 1991), on any graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from tierform.network.settled import first_settled_table
from tierform.network.topology import ExpressGrid, Grid, Groups, IntArray, Lines, Topology, Tree

_FAR = np.int32(1 << 28)


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


def _toward(grid: Grid, here: SupportsIndex, there: SupportsIndex) -> int:
    a, b = grid.coordinates[here], grid.coordinates[there]
    for axis in range(2):
        if a[axis] != b[axis]:
            return int((grid.forward if b[axis] > a[axis] else grid.backward)[axis][here])
    return -1


def _line_order(topology: Topology, destinations: IntArray, reverse: bool = False) -> IntArray:
    lines = topology.structure
    assert isinstance(lines, Lines)
    table = np.full((topology.routers, len(destinations)), -1, np.int32)
    here, goal = lines.coordinates, lines.coordinates[destinations]
    axes = range(len(lines.shape))
    # Written from the last axis to the first, so that the first that differs stands in the end.
    for axis in axes if reverse else reversed(axes):
        link = lines.to[axis][:, goal[:, axis]]
        np.copyto(table, link, where=here[:, axis][:, None] != goal[:, axis][None, :])
    return table


def _tree_links(topology: Topology, destinations: IntArray) -> tuple[IntArray, IntArray]:
    """(routers, destinations) first link and number of the links, in order, that lead to the nearest common ancestor.

    Down where a destination lies below (by any of the links that lead to it), up by any link where it does not.
    """
    tree = topology.structure
    assert isinstance(tree, Tree)
    below = np.zeros((topology.routers, len(destinations)), bool)
    below[destinations, np.arange(len(destinations))] = True
    down = np.flatnonzero(~tree.up)
    while True:
        before = int(below.sum())
        np.logical_or.at(below, topology.link_source[down], below[topology.link_target[down]])
        if int(below.sum()) == before:
            break
    first = np.full(below.shape, topology.links, np.int32)
    number = np.zeros(below.shape, np.int32)
    for link in range(topology.links):
        source = topology.link_source[link]
        leads = ~below[source] if tree.up[link] else below[topology.link_target[link]]
        first[source, leads] = np.minimum(first[source, leads], link)
        number[source, leads] += 1
    here = np.zeros(below.shape, bool)
    here[destinations, np.arange(len(destinations))] = True
    first[here], number[here] = -1, 0
    return np.where(number > 0, first, -1).astype(np.int32), number


def _ancestor(topology: Topology, destinations: IntArray) -> IntArray:
    return _tree_links(topology, destinations)[0]


def ancestor_ways(topology: Topology, destinations: IntArray) -> IntArray:
    """(routers, destinations) how many links, from that of the table on, lead on as well as it does."""
    return _tree_links(topology, destinations)[1]


def _d_mod_k(part: int) -> Callable[[Topology, IntArray], IntArray]:
    """The deterministic table for the nodes at place `part` of their leaves in a k-ary n-tree.

    At level l the way up is digit l of the node's number (Zahavi's D-mod-k): the destinations of one leaf, and those of
    neighbouring leaves, come down from different roots.
    """

    def table(topology: Topology, destinations: IntArray) -> IntArray:
        arity, levels = int(str(topology.labels["arity"])), int(str(topology.labels["levels"]))
        row = arity ** (levels - 1)
        first, number = _tree_links(topology, destinations)
        level = np.arange(topology.routers) // row
        digit = np.where(level[:, None] == 0, part, destinations[None, :] // arity ** np.maximum(level - 1, 0)[:, None])
        return np.where(number > 1, first + digit % arity, first).astype(np.int32)

    return table


def _between_groups(topology: Topology, destinations: IntArray) -> IntArray:
    groups = topology.structure
    assert isinstance(groups, Groups)
    here, goal = groups.group[:, None], groups.group[destinations][None, :]
    router = np.arange(topology.routers)[:, None]
    gateway = groups.gateway[here, goal]
    exit_at = np.where(here == goal, np.asarray(destinations)[None, :], topology.link_source[gateway])
    inside = groups.local[router, exit_at]
    return np.where(exit_at == router, np.where(here == goal, -1, gateway), inside).astype(np.int32)


def _express(longest: Callable[[int], int], reverse: bool) -> Callable[[Topology, IntArray], IntArray]:
    """Dimension order that takes an edge's express link where more than `longest(side)` places are left.

    On the edges that run along an axis, the port across the edge is the express link.
    """

    def table(topology: Topology, destinations: IntArray) -> IntArray:
        grid = topology.structure
        assert isinstance(grid, ExpressGrid)
        index = np.arange(topology.routers)
        place = np.stack([index % grid.side, index // grid.side], axis=1)
        result = np.full((topology.routers, len(destinations)), -1, np.int32)
        far = longest(grid.side)
        for axis in (0, 1) if reverse else (1, 0):
            other = 1 - axis
            left = place[destinations][None, :, axis] - place[:, None, axis]
            along = np.where(left > 0, grid.ports[:, 2 * axis][:, None], grid.ports[:, 2 * axis + 1][:, None])
            low, high = place[:, other] == 0, place[:, other] == grid.side - 1
            over = np.where(low, grid.ports[:, 2 * other + 1], grid.ports[:, 2 * other])
            express = (np.abs(left) > far) & (low | high)[:, None]
            np.copyto(result, np.where(express, over[:, None], along).astype(np.int32), where=left != 0)
        return result

    return table


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


TABLES: dict[str, Callable[[Topology, IntArray], IntArray]] = {
    "dimension_order": _dimension_order,
    "reverse_order": lambda topology, destinations: _dimension_order(topology, destinations, reverse=True),
    "line_order": _line_order,
    "reverse_line_order": lambda topology, destinations: _line_order(topology, destinations, reverse=True),
    "elevator_first": _elevator_first,
    "ancestor": _ancestor,
    "between_groups": _between_groups,
    # The two rules of BookSim2's concentrated mesh: half a side, and one place.
    "express_far": _express(lambda side: side // 2 - 1, reverse=False),
    "express": _express(lambda side: 1, reverse=False),
    "reverse_express": _express(lambda side: 1, reverse=True),
    "minimal": _minimal,
    "first_settled": first_settled_table,
    "up_down": _up_down,
}


def table_of(kind: str, topology: Topology, destinations: IntArray) -> IntArray:
    """(routers, destinations) the link to take by a table of this kind; ``d_mod_k:p`` is that of place p in a leaf."""
    name, _, part = kind.partition(":")
    build = _d_mod_k(int(part)) if name == "d_mod_k" else TABLES[name]
    return build(topology, destinations)
