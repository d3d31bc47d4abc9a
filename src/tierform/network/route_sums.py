"""Loads of any traffic matrix in one pass: which pairs of routers use which link, written down once per routing.

For steady traffic the loads are sums of entries of the traffic matrix: the load of a link is the sum over the pairs
whose route takes it, and so is the flow from one input of a router to one output.  :class:`RouteSums` follows all
routes once and keeps, for each (output link, input link) in use, the pairs that go that way; a matrix then costs one
gathering and one summing.  For networks with more steps than `STEP_LIMIT` the routes are followed for each matrix
(:func:`tierform.network.loads.table_loads`) instead.  Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierform.network.loads import hop_counts
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray, IntArray

# Steps (pairs of routers times the links between them) that are kept: 8 B each.
STEP_LIMIT = 4_000_000


@dataclass(frozen=True, eq=False)
class RouteSums:
    """The steps of all routes of a routing, grouped by output link and then by what feeds it."""

    pairs: IntArray  # (steps,) (part * routers + source router) * routers + destination router, group by group
    first: IntArray  # (groups,) the first step of each group
    link: IntArray  # (groups,) output link, ascending
    shares: tuple[float, ...]  # of the routing's parts

    def flows(self, traffic: FloatArray) -> FloatArray:
        """(groups,) traffic of each group; `traffic` is (routers, routers)."""
        parts = traffic if len(self.shares) == 1 else np.multiply.outer(np.array(self.shares), traffic)
        # Clipping never happens; it spares the check of every place.
        sums: FloatArray = np.add.reduceat(parts.ravel().take(self.pairs, mode="clip"), self.first)
        return sums


def route_sums(routing: Routing) -> RouteSums | None:
    """The sums of a routing, kept with it; None where there are too many steps or none."""
    if not routing.kept_sums:
        routing.kept_sums.append(_follow(routing))
    found: RouteSums | None = routing.kept_sums[0]
    return found


def _follow(routing: Routing) -> RouteSums | None:
    topology = routing.topology
    routers, links = topology.routers, topology.links
    if links == 0 or routers**2 * len(routing.parts) > STEP_LIMIT:
        return None
    everyone = np.arange(routers, dtype=np.int32)
    parts = range(len(routing.parts))
    if sum(int(hop_counts(routing, everyone, part).sum()) for part in parts) > STEP_LIMIT:
        return None
    groups: list[IntArray] = []
    pairs: list[IntArray] = []
    for part in parts:
        table = routing.next_links(everyone, part)
        pair = np.arange(routers * routers, dtype=np.int64)
        here, goal = np.divmod(pair, routers)
        before = np.full(len(pair), links)
        while len(pair):
            link = table[here, goal]
            going = link >= 0
            pair, goal, link, before = pair[going], goal[going], link[going].astype(np.int64), before[going]
            groups.append(link * (links + 1) + before)
            pairs.append(pair + part * routers**2)
            here, before = topology.link_target[link], link
    group, used = np.concatenate(groups), np.concatenate(pairs)
    # Within a group by pair, so that the matrix is read in order.
    order = np.lexsort((used, group))
    codes, first = np.unique(group[order], return_index=True)
    return RouteSums(used[order], first, codes // (links + 1), tuple(share for _, share in routing.parts))
