"""Which virtual channels a routing needs so that it cannot deadlock, and the proof: an acyclic dependency graph.

A packet that holds one channel and waits for the next makes the second depend on the first.  A routing whose graph of
such dependencies has no cycle cannot deadlock (Dally and Seitz 1987); an adaptive routing cannot when its escape
channels' graph has none (Duato 1993).  :func:`virtual_channel_plan` builds the graph for what will really be simulated
and refuses a routing that fails.  Tables that fail with one class are split: destinations are dealt to layers of
virtual channels, each layer acyclic (after Skeie, Lysne and Theiss 2002), if there are enough channels; the channels
left over are shared: each layer's own channel is an escape that a packet, once in it, does not leave (Duato's
condition, kept when buffers hold several packets).  A table may bring layers of its own, hop by hop
(:attr:`RouteTable.classes`): the graph of links and layers together is then what must have no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.network.cycle import modes
from tierform.network.loads import table_loads
from tierform.network.routing import Routing, ring_step
from tierform.network.topology import Groups, IntArray, RouteTable, Topology

# Above this many routers a grid is routed from coordinates, not from a table.
LARGE_GRID = 256
# Up to this many routers a torus is routed by a table of the turns into the next ring.
TABLE_RINGS = 1024


@dataclass(frozen=True, eq=False)
class VirtualChannelPlan:
    """How the cycle engine routes: a mode, link tables (parts, routers, routers), and layers.

    `layer_of` is (routers, routers): that of a router's packets to each destination.  With more than one layer, those
    of layer i may use virtual channel i (their escape) and those from `layers` on (shared by all, until the packet has
    taken its escape) on links that lie on a dependency cycle or between two, and all virtual channels on other links.
    """

    mode: int
    tables: IntArray
    layer_of: IntArray
    layers: int
    cyclic_links: NDArray[np.bool_]
    ways: IntArray | None = None


# The least number of virtual channels of routings that split them into classes; twice as many on rings.
_CLASSES = {
    "xy_yx": 2,
    "adaptive_xy_yx": 2,
    "valiant": 2,
    "romm": 2,
    "minimal_adaptive": 2,
    "planar_adaptive": 3,
    "ugal": 2,
}
_MODES = {
    "xy_yx": modes.XY_YX,
    "adaptive_xy_yx": modes.ADAPTIVE_XY_YX,
    "valiant": modes.VALIANT,
    "romm": modes.ROMM,
    "minimal_adaptive": modes.MINIMAL_ADAPTIVE,
    "planar_adaptive": modes.PLANAR_ADAPTIVE,
    "ugal": modes.UGAL,
    "ancestor": modes.SPREAD,
    "ancestor_adaptive": modes.SPREAD_LESS_LOADED,
    "ancestor_any": modes.SPREAD_ANY,
    "d_mod_k": modes.BY_NODE,
}


def virtual_channel_plan(routing: Routing, virtual_channels: int) -> VirtualChannelPlan:
    """The plan for a routing with this many virtual channels; TierformError when it could deadlock."""
    topology = routing.topology
    everyone = np.arange(topology.routers, dtype=np.int32)
    grid = topology.grid
    rings = grid is not None and any(grid.wraps) and routing.parts[0][0] == "dimension_order"
    none = np.zeros((1, 1, 1), np.int32)
    one = (np.zeros((1, 1), np.int32), 1, np.zeros(topology.links, bool))
    needed = _CLASSES.get(routing.name, 1) * (2 if rings else 1)
    if isinstance(topology.structure, Groups) and routing.parts[0][0] == "between_groups":
        needed = 3 if routing.name == "ugal" else 2
    if routing.name == "minimal_adaptive" and rings:
        needed = 3
    if virtual_channels < needed:
        fail(
            f"this routing needs at least {needed} virtual channels to be free of deadlock",
            key="virtual_channels",
            value=virtual_channels,
        )
    if rings:
        _prove_rings(topology)
        assert grid is not None
        grid_rings = all(grid.wraps) and topology.routers <= TABLE_RINGS and len(grid.shape) <= 8
        mode = {
            "dimension_order_balanced": modes.TORUS_BALANCED,
            "valiant": modes.VALIANT_TORUS,
            "minimal_adaptive": modes.MINIMAL_ADAPTIVE_TORUS,
        }.get(routing.name, modes.TORUS_TABLE if grid_rings else modes.TORUS)
        return VirtualChannelPlan(mode, none, *one)
    if isinstance(topology.structure, Groups) and routing.parts[0][0] == "between_groups":
        return _between_groups_plan(routing, everyone, one)
    mode = _MODES.get(routing.name, modes.TABLE)
    parts = range(len(routing.parts) if routing.by_node or routing.name in ("xy_yx", "adaptive_xy_yx") else 1)
    tables = np.stack([routing.next_links(everyone, part) for part in parts])
    if mode != modes.TABLE:
        graphs = [dependencies(routing, everyone, part) for part in parts]
        # Parts that share virtual channels must be free of cycles together.
        for graph in [np.unique(np.concatenate(graphs), axis=0)] if routing.by_node else graphs:
            if find_cycle(topology, graph) is not None:
                fail("this routing can deadlock on this network", key="routing", value=routing.name)
        ways = routing.ways(everyone)
        return VirtualChannelPlan(mode, tables, *one, ways)
    pairs = dependencies(routing, everyone)
    if find_cycle(topology, pairs) is None:
        if routing.parts[0][0] == "dimension_order" and topology.routers > LARGE_GRID:
            return VirtualChannelPlan(modes.GRID, none, *one)
        return VirtualChannelPlan(mode, tables, *one)
    structure = topology.structure
    if isinstance(structure, RouteTable) and structure.classes is not None:
        layer_of = _given_layers(topology, structure, virtual_channels)
    else:
        layer_of = np.tile(_layers(routing, virtual_channels), (topology.routers, 1))
    return VirtualChannelPlan(mode, tables, layer_of, int(layer_of.max()) + 1, _on_cycles(topology, pairs))


def _between_groups_plan(
    routing: Routing, everyone: IntArray, one: tuple[IntArray, int, NDArray[np.bool_]]
) -> VirtualChannelPlan:
    """Minimal routing between groups takes class 0 before the link between them and class 1 from it on.

    No route has two local links or two global ones in a row, so class 0 leads to class 1 and neither back to itself.
    UGAL as BookSim2 has it takes class 0 to its intermediate router, whose group is entered in that class: that is not
    proved free of deadlock, so the engine watches for it.
    """
    groups = routing.topology.structure
    assert isinstance(groups, Groups)
    between = groups.group[routing.topology.link_source] != groups.group[routing.topology.link_target]
    pairs = dependencies(routing, everyone)
    if (between[pairs[:, 0]] == between[pairs[:, 1]]).any():
        fail("this routing can deadlock on this network", key="routing", value=routing.name)
    mode = modes.GROUPS_UGAL if routing.name == "ugal" else modes.GROUPS
    layer_of, layers, _ = one
    return VirtualChannelPlan(mode, routing.next_links(everyone)[None], layer_of, layers, between)


def _on_cycles(topology: Topology, pairs: IntArray) -> NDArray[np.bool_]:
    """(links,) True for links that may lie on a cycle: neither only before nor only after all cycles."""
    left = pairs
    while True:
        inner = np.isin(left[:, 0], left[:, 1]) & np.isin(left[:, 1], left[:, 0])
        if inner.all():
            break
        left = left[inner]
    cyclic = np.zeros(topology.links, bool)
    cyclic[left.ravel()] = True
    return cyclic


def dependencies(routing: Routing, destinations: IntArray, part: int = 0) -> IntArray:
    """(pairs, 2) links that some packet to `destinations` holds one after the other, starting at any node's router."""
    topology = routing.topology
    if topology.links == 0:
        return np.zeros((0, 2), np.int32)
    destinations = destinations[topology.exits_per_router[destinations] > 0]
    table, ways = routing.next_links(destinations, part), routing.ways(destinations)
    sent = np.tile((topology.nodes_per_router > 0).astype(float)[:, None], (1, len(destinations)))
    passing = table_loads(routing, sent, destinations, part)[2]
    number = np.where(table >= 0, 1, 0) if ways is None else ways
    codes = []
    for first in range(int(number.max(initial=0))):
        link = table + first
        taken = (number > first) & (passing > 0)
        after = np.where(taken, topology.link_target[np.where(taken, link, 0)], 0)
        columns = np.arange(len(destinations))[None, :]
        for second in range(int(number.max(initial=0))):
            used = taken & (number[after, columns] > second)
            following = table[after, columns] + second
            codes.append(np.unique(link[used].astype(np.int64) * topology.links + following[used]))
    code = np.unique(np.concatenate(codes)) if codes else np.zeros(0, np.int64)
    return np.stack([code // topology.links, code % topology.links], axis=1).astype(np.int32)


def find_cycle(topology: Topology, pairs: IntArray) -> list[int] | None:
    """The links of one dependency cycle, or None when the graph is acyclic."""
    return _cycle(topology.links, pairs)


def _given_layers(topology: Topology, table: RouteTable, limit: int) -> IntArray:
    """The layers that a table brings with it, proved to be free of deadlock."""
    assert table.classes is not None
    layers = int(table.classes.max()) + 1
    if layers > limit:
        fail("these routes need a virtual channel for each of their classes", key="virtual_channels", value=limit)
    if _cycle(topology.links * layers, class_dependencies(topology, table)) is not None:
        fail("these routes can deadlock in their classes of virtual channels", key="routing", value="given")
    return table.classes


def class_dependencies(topology: Topology, table: RouteTable) -> IntArray:
    """(pairs, 2) links and classes (link times classes plus class) that some packet holds one after the other."""
    link, kind = table.next_link, np.zeros_like(table.next_link) if table.classes is None else table.classes
    here, goal = np.nonzero(link >= 0)
    first = link[here, goal]
    ahead = topology.link_target[first]
    goes_on = ahead != goal
    first, here, goal, ahead = (each[goes_on] for each in (first, here, goal, ahead))
    count = int(kind.max()) + 1
    pairs = np.stack([first * count + kind[here, goal], link[ahead, goal] * count + kind[ahead, goal]], axis=1)
    return np.unique(pairs, axis=0).astype(np.int32)


def _cycle(nodes: int, pairs: IntArray) -> list[int] | None:
    after: dict[int, list[int]] = {}
    entering = np.bincount(pairs[:, 1], minlength=nodes)
    for first, second in pairs.tolist():
        after.setdefault(first, []).append(second)
    ready = [link for link in after if entering[link] == 0]
    left = entering.copy()
    removed = 0
    seen = set(ready)
    while ready:
        link = ready.pop()
        removed += 1
        for following in after.get(link, ()):
            left[following] -= 1
            if left[following] == 0 and following not in seen:
                seen.add(following)
                ready.append(following)
    stuck = [link for link in after if link not in seen and left[link] > 0]
    if not stuck:
        return None
    # Every stuck link has a stuck predecessor: walk backwards until one repeats.
    before = {second: first for first, second in pairs.tolist() if first not in seen}
    walk = [stuck[0]]
    while walk[-1] not in walk[:-1]:
        walk.append(before[walk[-1]])
    return walk[walk.index(walk[-1]) : -1][::-1]


def _layers(routing: Routing, limit: int) -> IntArray:
    topology = routing.topology
    layer_of = np.zeros(topology.routers, np.int32)
    graphs: list[IntArray] = []
    for destination in np.flatnonzero(topology.exits_per_router):
        own = dependencies(routing, np.array([destination], np.int32))
        for layer, graph in enumerate(graphs):
            joined = np.unique(np.concatenate([graph, own]), axis=0)
            if find_cycle(topology, joined) is None:
                graphs[layer] = joined
                layer_of[destination] = layer
                break
        else:
            if len(graphs) == limit:
                fail(
                    f"routing {routing.name} can deadlock with {limit} virtual channels on this network",
                    key="routing",
                    value=routing.name,
                    fix="Use up_down, or more virtual channels.",
                )
            layer_of[destination] = len(graphs)
            graphs.append(own)
    return layer_of


def _prove_rings(topology: Topology) -> None:
    """Check the dateline classes of every ring size: each class's dependencies must have no cycle.

    Dimension order leaves no cycle between rings, so one ring at a time is enough.
    """
    assert topology.grid is not None
    for size in {size for size, wraps in zip(topology.grid.shape, topology.grid.wraps, strict=True) if wraps}:
        for direction in (1, -1):
            for upper in (False, True):
                pairs: set[tuple[int, int]] = set()
                for here in range(size):
                    for there in range(size):
                        halfway = 2 * ((there - here) % size) == size
                        if here == there or (here > there) != upper:
                            continue
                        if not halfway and int(ring_step(size, np.array(here), np.array(there))) != direction:
                            continue
                        length = (direction * (there - here)) % size
                        places = [(here + direction * step) % size for step in range(length)]
                        pairs.update(pairwise(places))
                left = {place: sum(int(pair[1] == place) for pair in pairs) for place in range(size)}
                ready = [place for place in left if left[place] == 0]
                for place in ready:
                    for first, second in pairs:
                        if first == place:
                            left[second] -= 1
                            if left[second] == 0:
                                ready.append(second)
                if len(ready) < size:
                    fail("the virtual-channel classes of a ring can deadlock", key="size", value=size)
