"""What the network looks like: nodes, routers, and directed links with length, width, latency and kind.

A :class:`Topology` is plain arrays, so that every engine can index it.  Links are directed: a channel in both
directions is two links.  Nodes inject and eject at their router over ports of their own.  Regular grids (mesh, torus,
concentrated mesh, 3D mesh, chiplets joined along whole edges) also carry a :class:`Grid`, from which routes and loads
are computed in closed form.  Builders for each shape are in :mod:`tierform.network.topologies`.

Limits: one channel in each direction between two routers of a grid; parallel channels can be given by ``from_graph``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.floating]

LINK_KINDS = ("planar", "vertical", "interposer")
PLANAR, VERTICAL, INTERPOSER = range(3)


def _coordinates(shape: tuple[int, ...]) -> IntArray:
    index = np.arange(int(np.prod(shape)))
    columns = []
    for size in shape:
        columns.append(index % size)
        index = index // size
    return np.stack(columns, axis=1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Grid:
    """A product of lines or rings: router ``x + shape[0]*(y + shape[1]*z)``; dimension 0 is routed first.

    `forward` and `backward` hold, per dimension and router, the link to the neighbour at +1 and -1, or -1 where there
    is none (an edge of a mesh, a place without a vertical pillar).
    """

    shape: tuple[int, ...]
    wraps: tuple[bool, ...]
    forward: IntArray
    backward: IntArray

    @cached_property
    def coordinates(self) -> IntArray:
        """(routers, dimensions) grid coordinates."""
        return _coordinates(self.shape)

    @cached_property
    def is_complete(self) -> bool:
        """True when every router has each neighbour that its place in the grid allows."""
        for axis, size in enumerate(self.shape):
            if size == 1:
                continue
            place = self.coordinates[:, axis]
            inner_up = np.ones(len(place), bool) if self.wraps[axis] else place < size - 1
            inner_down = np.ones(len(place), bool) if self.wraps[axis] else place > 0
            if (self.forward[axis][inner_up] < 0).any() or (self.backward[axis][inner_down] < 0).any():
                return False
        return True


@dataclass(frozen=True, eq=False)
class Tree:
    """Routers in levels: `up` marks the links that lead away from the nodes; a router's up links are consecutive."""

    up: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lines:
    """A grid in which every router is joined to all others of each of its lines (a flattened butterfly).

    `to[axis][router, place]` is the link to the router with that place on the axis, -1 for its own.
    """

    shape: tuple[int, ...]
    to: tuple[IntArray, ...]

    @cached_property
    def coordinates(self) -> IntArray:
        """(routers, dimensions) coordinates."""
        return _coordinates(self.shape)


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of routers, all joined within a group, and one link between every two groups (a dragonfly).

    `group` is (routers,); `local[a, b]` is the link between two routers of a group and `gateway[a, b]` the link from
    group a to group b, -1 where there is none.
    """

    group: IntArray
    local: IntArray
    gateway: IntArray


@dataclass(frozen=True, eq=False)
class ExpressGrid:
    """A square grid whose edge routers have a link along the edge to the router half a side away.

    `ports` is (routers, 4) links: to higher x, lower x, higher y, lower y; at an edge the express link stands there.
    """

    side: int
    ports: IntArray


@dataclass(frozen=True, eq=False)
class RouteTable:
    """Routes that were found for this network: `next_link[router, destination]`, -1 at the destination.

    `classes` (of the same shape) is the class of virtual channels that a packet takes on that link: routes that would
    deadlock in one class may be free of it in two.  None: one class.
    """

    next_link: IntArray
    classes: IntArray | None = None


Structure = Tree | Lines | Groups | ExpressGrid | RouteTable


@lru_cache(maxsize=64)
def _not_reached(source: bytes, target: bytes, routers: int) -> int | None:
    """A router to which no links lead from router 0; told once for links that other lengths or widths have, too."""
    seen = _reached(np.frombuffer(source, np.int64), np.frombuffer(target, np.int64), routers)
    return None if seen.all() else int(np.flatnonzero(~seen)[0])


def _reached(source: NDArray[np.int64], target: NDArray[np.int64], routers: int) -> NDArray[np.bool_]:
    """(routers,) which of them links lead to from router 0: wave by wave, each link looked at once."""
    order = np.argsort(source, kind="stable")
    first, ends = np.searchsorted(source[order], np.arange(routers + 1)), target[order]
    seen = np.zeros(routers, bool)
    seen[0] = True
    wave = np.array([0])
    while len(wave):
        counts = first[wave + 1] - first[wave]
        links = np.repeat(first[wave] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        wave = np.unique(ends[links][~seen[ends[links]]])
        seen[wave] = True
    return seen


@dataclass(frozen=True, eq=False)
class Topology:
    """A network's parts.  Arrays are indexed by node, by router or by directed link.

    `position_m` is (routers, 3).  `link_kind` holds indices into :data:`LINK_KINDS`.  `chiplet` gives each router's
    die (all 0 on a planar chip; the tier in a 3D stack).  `exit_router` is where packets for a node leave the network,
    the node's own router unless given (a butterfly is entered at its first stage and left at its last).
    """

    name: str
    node_router: IntArray
    position_m: FloatArray
    link_source: IntArray
    link_target: IntArray
    link_length_m: FloatArray
    link_width_bits: IntArray
    link_latency_cycles: IntArray
    link_kind: IntArray
    chiplet: IntArray
    grid: Grid | None = None
    labels: dict[str, object] = field(default_factory=dict)
    structure: Structure | None = None
    exit_router: IntArray | None = None

    def __post_init__(self) -> None:
        problems = [Problem(text, key=self.name) for text in self._mistakes()]
        if problems:
            raise TierformError(problems)

    @cached_property
    def wiring(self) -> bytes:
        """A digest of what decides dimension-ordered routes: the grid, where nodes are, which links join what."""
        digest = sha256(repr((self.grid.shape, self.grid.wraps) if self.grid else None).encode())
        exits = self.node_router if self.exit_router is None else self.exit_router
        coordinates = self.grid.coordinates if self.grid else np.zeros(0)
        for array in (self.node_router, exits, self.link_source, self.link_target, coordinates):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes() + b"/")
        return digest.digest()

    def _mistakes(self) -> list[str]:
        found = []
        routers = len(self.position_m)
        if routers == 0 or len(self.node_router) == 0:
            return ["a network needs at least one router and one node"]
        if ((self.node_router < 0) | (self.node_router >= routers)).any():
            node = int(np.flatnonzero((self.node_router < 0) | (self.node_router >= routers))[0])
            found.append(f"node {node} has no router")
        ends = np.concatenate([self.link_source, self.link_target])
        if len(ends) and (ends.min() < 0 or ends.max() >= routers):
            found.append(f"a link names router {int(ends.max())}, and there are {routers}")
            return found
        for name, array, least in (
            ("length", self.link_length_m, 0.0),
            ("width", self.link_width_bits, 1),
            ("latency", self.link_latency_cycles, 1),
        ):
            if len(array) != len(self.link_source):
                found.append(f"there are {len(self.link_source)} links and {len(array)} values of link {name}")
            elif len(array) and array.min() < least:
                found.append(f"a link {name} of {array.min():g} is below {least:g}")
        if not found and routers > 1:
            missing = self._unreachable()
            if missing is not None:
                found.append(f"the network is disconnected: no path from router {missing[0]} to router {missing[1]}")
        return found

    def _unreachable(self) -> tuple[int, int] | None:
        if self.exit_router is not None:
            return self._unreachable_exit()
        # Strongly connected when router 0 reaches all and all reach router 0.
        source, target = (ends.astype(np.int64).tobytes() for ends in (self.link_source, self.link_target))
        other = _not_reached(source, target, self.routers)
        if other is not None:
            return 0, other
        other = _not_reached(target, source, self.routers)
        return None if other is None else (other, 0)

    def _unreachable_exit(self) -> tuple[int, int] | None:
        entries = np.unique(self.node_router)
        reached = np.zeros((len(entries), self.routers), bool)
        reached[np.arange(len(entries)), entries] = True
        while True:
            before = int(reached.sum())
            np.logical_or.at(reached.T, self.link_target, reached.T[self.link_source])
            if int(reached.sum()) == before:
                break
        missing = np.argwhere(~reached[:, self.exits])
        return None if len(missing) == 0 else (int(entries[missing[0, 0]]), int(self.exits[missing[0, 1]]))

    @property
    def exits(self) -> IntArray:
        """(nodes,) the router at which each node's packets leave the network."""
        return self.node_router if self.exit_router is None else self.exit_router

    @property
    def nodes(self) -> int:
        """How many places traffic enters and leaves."""
        return len(self.node_router)

    @property
    def routers(self) -> int:
        """How many routers there are."""
        return len(self.position_m)

    @property
    def links(self) -> int:
        """How many directed links there are between routers."""
        return len(self.link_source)

    @cached_property
    def nodes_per_router(self) -> IntArray:
        """(routers,) nodes whose packets enter at each router."""
        return np.bincount(self.node_router, minlength=self.routers).astype(np.int32)

    @cached_property
    def exits_per_router(self) -> IntArray:
        """(routers,) nodes whose packets leave at each router."""
        return np.bincount(self.exits, minlength=self.routers).astype(np.int32)

    @cached_property
    def place_at_exit(self) -> IntArray:
        """(nodes,) each node's place, from 0, among those whose packets leave at the same router."""
        order = np.argsort(self.exits, kind="stable")
        first = np.cumsum(self.exits_per_router) - self.exits_per_router
        place = np.empty(self.nodes, np.int64)
        place[order] = np.arange(self.nodes) - first[self.exits[order]]
        return place

    @cached_property
    def radix(self) -> IntArray:
        """(routers,) ports of each router: outgoing links and attached nodes."""
        return (np.bincount(self.link_source, minlength=self.routers) + self.nodes_per_router).astype(np.int32)

    def with_links(
        self,
        *,
        kind: str | None = None,
        length_m: float | None = None,
        width_bits: int | None = None,
        latency_cycles: int | None = None,
    ) -> Topology:
        """A copy with other link properties, for all links or for those of one `kind`."""
        chosen = np.ones(self.links, bool) if kind is None else self.link_kind == LINK_KINDS.index(kind)
        changes = {}
        for name, value in (
            ("link_length_m", length_m),
            ("link_width_bits", width_bits),
            ("link_latency_cycles", latency_cycles),
        ):
            if value is not None:
                array = getattr(self, name).copy()
                array[chosen] = value
                changes[name] = array
        return replace(self, **changes)
