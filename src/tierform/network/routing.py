"""Which link a packet takes next: the routings, and which topology each of them is for.

A routing mixes deterministic tables (:mod:`tierform.network.tables`): one; two of which each packet draws one (XY-YX);
one by way of a random router (Valiant, ROMM); one for each place in a leaf (D-mod-k on fat trees).  On trees a table
may allow several links, consecutive in number, of which a packet takes one at random, the less loaded of two, or any
that is free.  Adaptive routing chooses between tables by load (XY-YX, UGAL) or among the minimal directions.
Whether a routing can deadlock is decided in :mod:`tierform.network.deadlock`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.tables import ancestor_ways, ring_step, table_of
from tierform.network.topology import ExpressGrid, Groups, IntArray, Lines, Topology, Tree

ROUTINGS = (
    "default",
    "dimension_order",
    "dimension_order_balanced",
    "elevator_first",
    "ancestor",
    "ancestor_adaptive",
    "ancestor_any",
    "d_mod_k",
    "minimal",
    "up_down",
    "xy_yx",
    "adaptive_xy_yx",
    "valiant",
    "romm",
    "ugal",
    "minimal_adaptive",
    "planar_adaptive",
    "first_settled",
)
__all__ = ["ROUTINGS", "Routing", "choose_routing", "path", "ring_step"]


@dataclass(frozen=True, eq=False)
class Routing:
    """A routing on a topology.  `parts` are the deterministic tables it mixes: (table kind, share of the traffic).

    `spread`: the first table allows several links for a pair (see :meth:`ways`), and traffic is spread over them.
    `by_node`: a packet's part is the place of its destination among the nodes of its router, not drawn.
    `via`: packets go by way of a random router, "any" or one in the "quadrant" between source and destination.
    `adaptive_channels`: first and last virtual channel of adaptive routing, all but the escapes unless given.
    """

    topology: Topology
    name: str
    parts: tuple[tuple[str, float], ...]
    via: str = ""
    spread: bool = False
    by_node: bool = False
    adaptive_channels: tuple[int, int] | None = None
    _kept: OrderedDict[tuple[str, bytes], IntArray] = field(default_factory=OrderedDict, repr=False)
    kept_orders: dict[tuple[int, bytes], tuple[IntArray, IntArray, IntArray, IntArray]] = field(
        default_factory=dict, repr=False
    )
    kept_trees: list[Any] = field(default_factory=list, repr=False)

    def next_links(self, destinations: IntArray, part: int = 0) -> IntArray:
        """(routers, len(destinations)) link to take towards each destination router; -1 at the destination."""
        return self._table(self.parts[part][0], destinations)

    def ways(self, destinations: IntArray) -> IntArray | None:
        """(routers, len(destinations)) how many links, from that of the table on, lead on; None where it is one."""
        return self._table("", destinations) if self.spread else None

    def _table(self, kind: str, destinations: IntArray) -> IntArray:
        key = (kind, np.asarray(destinations, np.int32).tobytes())
        if key not in self._kept:
            goals = np.asarray(destinations, np.int64)
            self._kept[key] = table_of(kind, self.topology, goals) if kind else ancestor_ways(self.topology, goals)
            while sum(table.size for table in self._kept.values()) > 4_000_000 and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return self._kept[key]

    @property
    def is_product_form(self) -> bool:
        """True when link loads of product traffic have a closed form (dimension order on a complete grid)."""
        return all(kind in ("dimension_order", "reverse_order") for kind, _ in self.parts)

    @property
    def is_single_path(self) -> bool:
        """True when all packets of a pair of routers take the same links."""
        return len(self.parts) == 1 and not self.spread and not self.via


# For each kind of topology: its default, and for each routing the tables that it mixes.
_ONE_ORDER = (("dimension_order", 1.0),)
_BOTH_ORDERS = (("dimension_order", 0.5), ("reverse_order", 0.5))
_LINE_ORDER = (("line_order", 1.0),)
_BOTH_LINE_ORDERS = (("line_order", 0.5), ("reverse_line_order", 0.5))
_EXPRESS_BOTH = (("express", 0.5), ("reverse_express", 0.5))
_ANCESTOR = (("ancestor", 1.0),)
_GRID = {
    "dimension_order": _ONE_ORDER,
    "dimension_order_balanced": _ONE_ORDER,
    "xy_yx": _BOTH_ORDERS,
    "adaptive_xy_yx": _BOTH_ORDERS,
    "valiant": _ONE_ORDER,
    "romm": _ONE_ORDER,
    "minimal_adaptive": _BOTH_ORDERS,
    "planar_adaptive": _BOTH_ORDERS,
}
_LINES = {
    "dimension_order": _LINE_ORDER,
    "xy_yx": _BOTH_LINE_ORDERS,
    "adaptive_xy_yx": _BOTH_LINE_ORDERS,
    "valiant": _LINE_ORDER,
    "ugal": _LINE_ORDER,
}
_TREE = {"ancestor": _ANCESTOR, "ancestor_adaptive": _ANCESTOR, "ancestor_any": _ANCESTOR}
_GROUPS = {"minimal": (("between_groups", 1.0),), "ugal": (("between_groups", 1.0),)}
_EXPRESS = {"dimension_order": (("express_far", 1.0),), "xy_yx": _EXPRESS_BOTH}
_ANY_GRAPH = {name: ((name, 1.0),) for name in ("minimal", "up_down", "first_settled")}


def routings_of(topology: Topology) -> dict[str, tuple[tuple[str, float], ...]]:
    """The routings that a topology offers, its default first, and the tables that each mixes."""
    grid, structure = topology.grid, topology.structure
    own: dict[str, tuple[tuple[str, float], ...]] = {}
    if grid is not None and grid.is_complete:
        own = dict(_GRID)
        if any(grid.wraps):
            for name in ("xy_yx", "adaptive_xy_yx", "romm", "planar_adaptive"):
                del own[name]
        else:
            del own["dimension_order_balanced"]
    elif grid is not None and len(grid.shape) == 3:
        own = {"elevator_first": (("elevator_first", 1.0),)}
    elif isinstance(structure, Tree):
        own = dict(_TREE)
        if "arity" in topology.labels:
            arity = int(str(topology.labels["arity"]))
            own["d_mod_k"] = tuple((f"d_mod_k:{place}", 1.0 / arity) for place in range(arity))
    elif isinstance(structure, Lines):
        own = dict(_LINES)
    elif isinstance(structure, Groups):
        own = dict(_GROUPS)
    elif isinstance(structure, ExpressGrid):
        own = dict(_EXPRESS)
    return {**own, **{name: parts for name, parts in _ANY_GRAPH.items() if name not in own}}


def choose_routing(topology: Topology, name: str = "default") -> Routing:
    """The routing of this name on `topology`; ``default`` picks the one that suits the topology."""
    if name not in ROUTINGS:
        fail("unknown routing", key="routing", value=name, choices=ROUTINGS, fix=f"Known: {', '.join(ROUTINGS)}.")
    offered = routings_of(topology)
    if name == "default":
        name = next(iter(offered))
    if name not in offered:
        fail(
            f"this routing is not offered on this {topology.name}",
            key="routing",
            value=name,
            choices=offered,
            fix=f"On it: {', '.join(offered)}.",
        )
    routing = Routing(topology, name, offered[name])
    if name in ("valiant", "romm"):
        return replace(routing, via="any" if name == "valiant" else "quadrant")
    if isinstance(topology.structure, Tree) and name in _TREE:
        return replace(routing, spread=True)
    return replace(routing, by_node=True) if name == "d_mod_k" else routing


def path(routing: Routing, source: int, destination: int, part: int = 0) -> list[int]:
    """The links from a source router to a destination router, in order (the first one where several lead on)."""
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
