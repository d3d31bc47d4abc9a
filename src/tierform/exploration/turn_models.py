"""Orders of all channels that there may be, from turn models: where a search begins, and where it puts new links.

West-first routing (Glass and Ni 1992) makes all moves to one side first; moves to the other side and across may then
mix freely without a cycle.  Here a channel is known by its two places alone, so that long and slanting links have a
place in the order as well: those to the side stand in falling order of the place that they leave, those to the other
side in rising order, those across between the ones that arrive at their column and the ones that leave it.  Moves
between tiers belong to the two phases as well, upwards to the one and downwards to the other.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, shortest_path

from tierform.exploration.pillars import pillars_of, posts
from tierform.network.topology import VERTICAL, Topology

Floats = NDArray[np.float64]
# Which moves between tiers belong to the moves that are made first.
STACKED = ("up", "down")


def turn_orders(topology: Topology, pitch_m: float, *, every: bool = False) -> dict[str, Floats]:
    """(routers, routers) place in the order of a channel between two routers; on a route it falls.

    With tiers the side that is made first is +x, unless `every` side is asked for.
    """
    levels = np.unique(np.round(topology.position_m[:, 2], 9))
    scale = np.array([pitch_m, pitch_m, float(np.diff(levels).min(initial=1.0))])
    place = np.round(topology.position_m / np.where(scale > 0, scale, 1.0), 4)
    if (topology.link_kind == VERTICAL).any():
        return {
            f"{way} {sign}{'xy'[axis]}": _order(place, axis, -1.0 if sign == "-" else 1.0, way)
            for way in STACKED
            for axis, sign in (product((0, 1), "+-") if every else ((0, "+"),))
        }
    return {
        f"{sign}{'xy'[axis]}": _order(place, axis, -1.0 if sign == "-" else 1.0, "up")
        for axis in (0, 1)
        for sign in "+-"
    }


def _order(place: Floats, axis: int, sign: float, early: str) -> Floats:
    along, across = sign * place[:, axis], place[:, 1 - axis]
    level = -place[:, 2] if early == "up" else place[:, 2]
    ahead, aside, rise = (there[None, :] - there[:, None] for there in (along, across, level))
    straight = (ahead == 0) & (aside == 0)
    # The potential falls in the first phase and rises in the second one.
    potential = np.broadcast_to((along + level)[:, None], ahead.shape)
    first = (ahead < 0) | (straight & (rise < 0))
    column = (ahead == 0) & ~straight
    phase = np.where(first, 1, 2)
    where = np.where(first, -potential, potential)
    within = np.where(column, across[:, None] * np.sign(aside), 0.0)
    late = np.where((phase == 2) & ~column, 1, 0)
    keys = np.stack([each.ravel() for each in (within, late, where, phase)])
    order = np.lexsort(keys)
    fresh = np.concatenate([[False], (np.diff(keys[:, order], axis=1) != 0).any(axis=0)])
    number = np.empty(order.size)
    number[order] = np.cumsum(fresh)
    falling: Floats = -number.reshape(ahead.shape)
    return falling


def orders_of(
    topology: Topology, pitch_m: float, joined: NDArray[np.bool_], *, every: bool = False
) -> dict[str, Floats]:
    """The turn models, and where a place has no pillar the order of a tree, which needs no link but the tree's.

    `joined` is (routers, routers): the links of the tree are among these.
    """
    found = turn_orders(topology, pitch_m, every=every)
    if pillars_of(topology) < len(posts(topology)):
        found["tree"] = tree_order(joined)
    return found


def tree_order(joined: NDArray[np.bool_]) -> Floats:
    """(routers, routers) place in the order of up*/down* (Schroeder et al. 1991): to the root first, then away from it.

    Routers are numbered breadth first from the one that the others are nearest to.
    """
    links = csr_matrix(joined)
    hops = shortest_path(links, unweighted=True)
    number = np.empty(len(joined))
    number[breadth_first_order(links, int(np.argmin(hops.sum(axis=1))), return_predecessors=False)] = np.arange(
        len(joined)
    )
    here, there = number[:, None], number[None]
    falling: Floats = np.where(there < here, len(joined) + here, len(joined) - here)
    return falling


__all__ = ["orders_of", "tree_order", "turn_orders"]
