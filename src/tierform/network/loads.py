"""How much of the traffic crosses each link: exact shares, in closed form where the routing allows it.

Traffic from a set of sources to a set of destinations, spread evenly over all pairs, is a product of two
distributions.  Under dimension order on a grid the load of a link of dimension d then is

    load(x to x+1) = sum over a <= x of S(a, later coordinates) * sum over b > x of D(earlier coordinates, b)

with S summed over the dimensions already corrected and D over those still to come: cost proportional to the number
of routers.  Any other table is followed destination by destination, farthest routers first, so that each (router,
destination) pair is touched once.  Numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.routing import Routing, ring_step
from tierform.network.topology import FloatArray, IntArray, Lines

# Up to this many routers routes by way of another are followed one by one where they may end on the way.
SMALL = 256


def product_loads(routing: Routing, sources: FloatArray, destinations: FloatArray) -> FloatArray:
    """(links,) share of the traffic on each link; `sources` and `destinations` are (routers,) weights summing to 1."""
    if routing.topology.links == 0:
        return np.zeros(0)
    total = np.zeros(routing.topology.links)
    if routing.via == "quadrant" or (routing.via and isinstance(routing.topology.structure, Lines)):
        everyone = np.arange(routing.topology.routers, dtype=np.int32)
        by_way = np.add(*traffic_by_way(routing, sources[:, None] * destinations[None, :]))
        return table_loads(routing, by_way, everyone)[0]
    if routing.via:
        even = routing.topology.nodes_per_router / routing.topology.nodes
        legs = [(sources, even), (even, destinations)]
    else:
        legs = [(sources, destinations)]
    for number, (kind, share) in enumerate(routing.parts):
        for first, last in legs:
            second = last[number] if routing.by_node else share * last
            if kind in ("dimension_order", "reverse_order"):
                total += _grid_loads(routing, kind == "reverse_order", first, second)
            else:
                goals = np.flatnonzero(second)
                matrix = first[:, None] * second[goals][None, :]
                total += table_loads(routing, matrix, goals.astype(np.int32), number)[0]
    return total


def traffic_by_way(routing: Routing, between: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(routers, routers) traffic as it is sent: to the routers by way of which packets go, and on from them."""
    topology = routing.topology
    if routing.via == "any" and isinstance(topology.structure, Lines) and topology.routers <= SMALL:
        return _stopped_at_home(routing, between)
    if routing.via == "any":
        # From each source to any node, then from any node to each destination.
        even = topology.nodes_per_router / topology.nodes
        return between.sum(axis=1)[:, None] * even, even[:, None] * between.sum(axis=0)
    assert routing.via == "quadrant" and topology.grid is not None
    # A place between source and destination on every axis, all alike: one axis at a time.
    shape = topology.grid.shape[::-1]
    axes = len(shape)
    first: FloatArray = between.reshape(shape + shape)
    second: FloatArray = first
    for axis, size in enumerate(shape):
        here, there = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
        low, high = np.minimum(here, there), np.maximum(here, there)
        way = np.arange(size)[None, None, :]
        chance = ((way >= low[..., None]) & (way <= high[..., None])) / (high - low + 1)[..., None]
        pair = [axis, axes + axis]
        moved = np.moveaxis(first, pair, [0, 1])
        first = np.moveaxis(np.einsum("ab...,abi->ai...", moved, chance), [0, 1], pair)
        moved = np.moveaxis(second, pair, [0, 1])
        second = np.moveaxis(np.einsum("ab...,abi->ib...", moved, chance), [0, 1], pair)
    return first.reshape(between.shape), second.reshape(between.shape)


def _stopped_at_home(routing: Routing, between: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same where a packet that comes through its own goal on the way to another router stops there."""
    topology = routing.topology
    count = topology.routers
    everyone = np.arange(count, dtype=np.int32)
    table = routing.next_links(everyone)
    even = topology.nodes_per_router / topology.nodes
    out: FloatArray = np.zeros((count, count))
    on: FloatArray = np.zeros((count, count))
    # (source, way): where a packet is after each link, and whether it has come through the goal.
    for goal in everyone:
        here = np.repeat(everyone[:, None], count, axis=1)
        stopped = here == goal
        for _ in range(len(topology.structure.shape)):  # type: ignore[union-attr]
            link = table[here, everyone[None, :]]
            here = np.where(link >= 0, topology.link_target[link], here)
            stopped |= here == goal
        sent = between[:, goal][:, None] * even[None, :]
        out += np.where(stopped, 0.0, sent)
        out[:, goal] += np.where(stopped, sent, 0.0).sum(axis=1)
        on[:, goal] += np.where(stopped, 0.0, sent).sum(axis=0)
    return out, on


def table_loads(
    routing: Routing, traffic: FloatArray, goals: IntArray, part: int = 0
) -> tuple[FloatArray, IntArray, FloatArray]:
    """Loads of any traffic (routers, goals) over a routing table.

    Returns (links,) loads, the (routers, goals) hop counts, and the (routers, goals) traffic that passes through each
    router on its way to each goal.
    """
    topology = routing.topology
    hops, order, ends, after = _order(routing, goals, part)
    table, ways = routing.next_links(goals, part), routing.ways(goals)
    passing: FloatArray = traffic.astype(float)
    flat = passing.ravel()
    number = None if ways is None else ways.ravel()
    for level in range(len(ends) - 1, 0, -1):
        chosen = order[ends[level - 1] : ends[level]]
        chosen = chosen[flat[chosen] > 0]
        if number is None:
            np.add.at(flat, after[chosen], flat[chosen])
            continue
        for choice in range(int(number[chosen].max(initial=0))):
            able = chosen[number[chosen] > choice]
            onward = topology.link_target[table.ravel()[able] + choice].astype(np.int64) * len(goals)
            np.add.at(flat, onward + able % len(goals), flat[able] / number[able])
    loads: FloatArray = np.zeros(topology.links)
    for choice in range(1 if ways is None else int(ways.max(initial=0))):
        used = (table >= 0) & (passing > 0)
        if ways is not None:
            used &= ways > choice
        shares = passing[used] if ways is None else passing[used] / ways[used]
        loads += np.bincount(table[used] + choice, weights=shares, minlength=topology.links)
    return loads, hops, passing


def _order(routing: Routing, goals: IntArray, part: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Hop counts, the (router, goal) pairs by hop count with the ends of each count, and each pair's next pair."""
    key = (part, np.asarray(goals, np.int32).tobytes())
    if key not in routing.kept_orders:
        topology = routing.topology
        table = routing.next_links(goals, part)
        hops = hop_counts(routing, goals, part)
        count = len(goals)
        after = topology.link_target[table].astype(np.int64) * count + np.arange(count)[None, :]
        after = np.where(table >= 0, after, 0).ravel()
        order = np.argsort(hops.ravel().astype(np.int16), kind="stable")
        ends = np.cumsum(np.bincount(hops.ravel()))
        routing.kept_orders[key] = (hops, order, ends, after)
        while sum(kept[0].size for kept in routing.kept_orders.values()) > 2_000_000 and len(routing.kept_orders) > 1:
            del routing.kept_orders[next(iter(routing.kept_orders))]
    return routing.kept_orders[key]


def hop_counts(routing: Routing, goals: IntArray, part: int = 0) -> IntArray:
    """(routers, goals) links on each route, by pointer doubling over the table."""
    topology = routing.topology
    if topology.links == 0:
        return np.zeros((topology.routers, len(goals)), np.int32)
    table = routing.next_links(goals, part)
    columns = np.arange(len(goals))[None, :]
    ahead = np.where(table >= 0, topology.link_target[table], np.arange(topology.routers)[:, None]).astype(np.int32)
    hops = (table >= 0).astype(np.int32)
    for _ in range(max(topology.routers, 2).bit_length() + 1):
        more = hops[ahead, columns]
        if not more.any():
            return hops
        hops = hops + more
        ahead = ahead[ahead, columns]
    return fail("the routing goes in circles and never reaches some destination", key=routing.name)


def tree_loads(routing: Routing, sources: FloatArray, goals: IntArray) -> FloatArray:
    """(links,) share of each byte that crosses each link when every source sends each byte to all `goals`.

    A link carries a byte once however many goals lie behind it: the routes of one source are merged to a tree.
    """
    kind = routing.parts[0][0]
    if kind == "dimension_order" and not routing.via:
        return _grid_trees(routing, sources, goals)
    topology = routing.topology
    table = routing.next_links(goals)
    loads = np.zeros(topology.links)
    for source in np.flatnonzero(sources):
        crossed = np.zeros(topology.links, bool)
        here: IntArray = np.full(len(goals), source)
        columns = np.arange(len(goals))
        while len(columns):
            link = table[here, columns]
            going = link >= 0
            link, columns = link[going], columns[going]
            crossed[link] = True
            here = topology.link_target[link]
        loads[crossed] += sources[source]
    return loads


def _axes(routing: Routing, reverse: bool) -> list[int]:
    assert routing.topology.grid is not None
    axes = list(range(len(routing.topology.grid.shape)))
    return axes[::-1] if reverse else axes


def _split(weights: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    # Router x + sx*(y + sy*z) as array [z, y, x]; reversed so that axis d is dimension d.
    return weights.reshape(shape[::-1]).transpose(range(len(shape))[::-1])


def _grid_loads(routing: Routing, reverse: bool, sources: FloatArray, destinations: FloatArray) -> FloatArray:
    topology = routing.topology
    grid = topology.grid
    assert grid is not None
    shape = grid.shape
    loads = np.zeros(topology.links)
    start, goal = _split(sources, shape), _split(destinations, shape)
    done: list[int] = []
    for axis in _axes(routing, reverse):
        later = [other for other in range(len(shape)) if other != axis and other not in done]
        if shape[axis] > 1:
            # S over later coordinates, D over corrected ones; both keep this axis.
            lines = start.sum(axis=tuple(done), keepdims=True)
            ends = goal.sum(axis=tuple(later), keepdims=True)
            _spread(loads, routing, axis, *_line_loads(lines, ends, axis, shape[axis], grid.wraps[axis]))
        done.append(axis)
    return loads


def _line_loads(
    lines: FloatArray, ends: FloatArray, axis: int, size: int, wraps: bool
) -> tuple[FloatArray, FloatArray]:
    if not wraps:
        up = np.cumsum(lines, axis=axis) * (ends.sum(axis=axis, keepdims=True) - np.cumsum(ends, axis=axis))
        below = np.cumsum(ends, axis=axis) - ends
        down = (lines.sum(axis=axis, keepdims=True) - (np.cumsum(lines, axis=axis) - lines)) * below
        return up, down
    crossing = _ring_paths(size)
    first, last = np.moveaxis(lines, axis, -1), np.moveaxis(ends, axis, -1)
    both = [np.einsum("xab,...a,...b->...x", table, first, last, optimize=True) for table in crossing]
    return np.moveaxis(both[0], -1, axis), np.moveaxis(both[1], -1, axis)


def _ring_paths(size: int) -> tuple[FloatArray, FloatArray]:
    """[x, a, b] 1 where the route a to b leaves place x forwards (first) or backwards (second)."""
    x, a, b = np.ogrid[:size, :size, :size]
    step = ring_step(size, np.broadcast_to(a, (1, size, size)), np.broadcast_to(b, (1, size, size)))
    forwards = (step == 1) & ((x - a) % size < (b - a) % size)
    backwards = (step == -1) & ((a - x) % size < (a - b) % size)
    return forwards.astype(float), backwards.astype(float)


def _spread(loads: FloatArray, routing: Routing, axis: int, up: FloatArray, down: FloatArray) -> None:
    grid = routing.topology.grid
    assert grid is not None
    for links, values in ((grid.forward[axis], up), (grid.backward[axis], down)):
        wide = np.broadcast_to(values, grid.shape).transpose(range(len(grid.shape))[::-1]).ravel()
        there = links >= 0
        loads[links[there]] += wide[there]


def _grid_trees(routing: Routing, sources: FloatArray, goals: IntArray) -> FloatArray:
    topology = routing.topology
    grid = topology.grid
    assert grid is not None
    shape = grid.shape
    loads = np.zeros(topology.links)
    start = _split(sources, shape)
    marked = np.zeros(topology.routers)
    marked[goals] = 1.0
    wanted = _split(marked, shape) > 0
    done: list[int] = []
    for axis in range(len(shape)):
        later = tuple(other for other in range(len(shape)) if other > axis)
        if shape[axis] > 1:
            lines = start.sum(axis=tuple(done), keepdims=True)
            ends: Any = wanted.any(axis=later, keepdims=True) if later else wanted
            if grid.wraps[axis]:
                both = []
                for table in _ring_paths(shape[axis]):
                    needed = np.einsum("xab,...b->...xa", table, np.moveaxis(ends, axis, -1).astype(float)) > 0
                    first = np.moveaxis(lines, axis, -1)
                    both.append(np.moveaxis((needed * first[..., None, :]).sum(axis=-1), -1, axis))
                up, down = both
            else:
                beyond: IntArray = np.flip(np.cumsum(np.flip(ends, axis), axis=axis), axis) - ends
                before: IntArray = np.cumsum(ends, axis=axis) - ends
                up = np.cumsum(lines, axis=axis) * (beyond > 0)
                down = (lines.sum(axis=axis, keepdims=True) - (np.cumsum(lines, axis=axis) - lines)) * (before > 0)
            _spread(loads, routing, axis, up, down)
        done.append(axis)
    return loads
