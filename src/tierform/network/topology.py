"""What the network looks like: nodes, routers, and directed links with length, width, latency and kind.

A :class:`Topology` is plain arrays, so that every engine can index it.  Links are directed: a channel in both
directions is two links.  Nodes inject and eject at their router over ports of their own.  Regular grids (mesh, torus,
concentrated mesh, 3D mesh, chiplets joined along whole edges) also carry a :class:`Grid`, from which routes and loads
are computed in closed form.  Builders for each shape are in :mod:`tierform.network.topologies`.

Limits: one channel in each direction between two routers of a grid; parallel channels can be given by ``from_graph``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]

LINK_KINDS = ("planar", "vertical", "interposer")
PLANAR, VERTICAL, INTERPOSER = range(3)


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
        index = np.arange(int(np.prod(self.shape)))
        columns = []
        for size in self.shape:
            columns.append(index % size)
            index = index // size
        return np.stack(columns, axis=1).astype(np.int32)

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
class Topology:
    """A network's parts.  Arrays are indexed by node, by router or by directed link.

    `position_m` is (routers, 3).  `link_kind` holds indices into :data:`LINK_KINDS`.  `chiplet` gives each router's
    die (all 0 on a planar chip; the tier in a 3D stack).
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

    def __post_init__(self) -> None:
        problems = [Problem(text, key=self.name) for text in self._mistakes()]
        if problems:
            raise TierformError(problems)

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
        # Strongly connected when router 0 reaches all and all reach router 0.
        for source, target, backwards in (
            (self.link_source, self.link_target, False),
            (self.link_target, self.link_source, True),
        ):
            seen = np.zeros(self.routers, bool)
            seen[0] = True
            while True:
                new = target[seen[source]]
                before = int(seen.sum())
                seen[new] = True
                if int(seen.sum()) == before:
                    break
            if not seen.all():
                other = int(np.flatnonzero(~seen)[0])
                return (other, 0) if backwards else (0, other)
        return None

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
        """(routers,) nodes attached to each router."""
        return np.bincount(self.node_router, minlength=self.routers).astype(np.int32)

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
