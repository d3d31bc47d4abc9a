"""Vertical links as variables: where they may stand, and the mesh with so many of them that a search is compared with.

A pillar here is one vertical link (both directions) from a tile to the one over it.  The mesh with fewer pillars has
them where the mean way to the nearest one is short, the same for all traffic, and elevator-first routes (Dubois et al.,
IEEE Trans. Computers 62, 2013): in dimension order to the nearest pillar, up or down, and on.  Packets on their way
down take a class of virtual channels of their own until they are on the tier of their goal; so no packet of the other
class ever waits for one of this, and within each class tiers follow each other in one order: no deadlock.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.network_search import Floats, NetworkProblem
from tierform.exploration.placement_moves import ordered_table
from tierform.network import AnalyticNetwork, Topology, choose_routing
from tierform.network.topology import PLANAR, VERTICAL, RouteTable

Ints = NDArray[np.int32]
ASCEND, DESCEND = 0, 1  # classes of virtual channels


def pillars_of(topology: Topology) -> int:
    """How many vertical links there are, each in both directions."""
    return int((topology.link_kind == VERTICAL).sum()) // 2


def tiers_of(topology: Topology) -> Ints:
    """(routers,) tier of each router, the lowest 0."""
    _, tier = np.unique(np.round(topology.position_m[:, 2], 9), return_inverse=True)
    return tier.astype(np.int32)


def posts(topology: Topology) -> Ints:
    """(places, 2) routers over each other on neighbouring tiers, the lower one first: where a pillar may stand."""
    tier = tiers_of(topology)
    aside = np.abs(topology.position_m[:, None, :2] - topology.position_m[None, :, :2]).sum(axis=2)
    return np.argwhere((tier[None] - tier[:, None] == 1) & (aside < 1e-9)).astype(np.int32).reshape(-1, 2)


def may_stand(topology: Topology) -> NDArray[np.bool_]:
    """(routers, routers) where a pillar may stand, in both directions."""
    places, may = posts(topology), np.zeros((topology.routers, topology.routers), np.bool_)
    may[places[:, 0], places[:, 1]] = may[places[:, 1], places[:, 0]] = True
    return may


def with_pillars(problem: NetworkProblem, number: int) -> NetworkProblem:
    """The problem on the same links of each die with so many pillars, evenly placed: what a search starts from.

    Its ports stay within the problem's; the problem itself where it has as many.
    """
    topology = problem.network.topology
    if number == pillars_of(topology):
        return problem
    places, upright = posts(topology), np.flatnonzero(topology.link_kind == VERTICAL)
    least = int(tiers_of(topology).max())
    if not least <= number <= len(places) or not len(upright):
        what = f"this stack has from {least} to {len(places)} pillars" if len(upright) else "only stacks have pillars"
        fail(what, key="pillars", value=number)
    chosen = _even(problem, places, number)
    stays = np.flatnonzero(topology.link_kind != VERTICAL)
    model = np.full(2 * number, upright[0])
    kept = np.concatenate([stays, model])
    made = replace(
        topology,
        name=f"{topology.name}, {number} pillars",
        link_source=np.concatenate([topology.link_source[stays], chosen[:, 0], chosen[:, 1]]).astype(np.int32),
        link_target=np.concatenate([topology.link_target[stays], chosen[:, 1], chosen[:, 0]]).astype(np.int32),
        link_length_m=topology.link_length_m[kept],
        link_width_bits=topology.link_width_bits[kept],
        link_latency_cycles=topology.link_latency_cycles[kept],
        link_kind=topology.link_kind[kept],
        grid=None,
        structure=None,
    )
    made = replace(made, structure=elevator_first(made))
    own = problem.network
    network = AnalyticNetwork(made, choose_routing(made), own.router, own.clock_Hz, own.energy)
    return replace(problem, network=network)


def elevator_first(topology: Topology) -> RouteTable:
    """Dimension order on each die, tiers by the nearest pillar, in two classes of virtual channels."""
    planar, n = np.flatnonzero(topology.link_kind == PLANAR), topology.routers
    source, target = (np.asarray(ends, np.int32) for ends in (topology.link_source, topology.link_target))
    ahead = topology.position_m[target[planar]] - topology.position_m[source[planar]]
    axis = np.argmax(np.abs(ahead), axis=1)
    sign = np.sign(np.take_along_axis(ahead, axis[:, None], 1)[:, 0])
    reached = np.take_along_axis(topology.position_m[target[planar]], axis[:, None], 1)[:, 0]
    order = np.lexsort((-sign * reached, -axis)).astype(np.int32)
    on_die = ordered_table(order, source[planar], target[planar], np.ones(len(planar)), n)
    on_die = np.where(on_die >= 0, planar[on_die], -1)
    tier = tiers_of(topology)
    same = (tier[:, None] == tier[None]) & ~np.eye(n, dtype=bool)
    if (on_die[same] < 0).any():
        fail("dimension order does not reach every tile of a die by these links", key="pillars", value=topology.name)
    table = np.where(same, on_die, -1)
    place = topology.position_m[:, :2]
    for link_of in _doors(topology, tier):
        for level in np.unique(tier):
            here = np.flatnonzero(tier == level)
            doors = here[link_of[here] >= 0]
            if not len(doors):
                continue
            step = tier[topology.link_target[link_of[doors[0]]]] - level
            goals = np.flatnonzero((tier - level) * step > 0)
            away = np.round(np.abs(place[here][:, None] - place[doors][None]).sum(axis=2), 9)
            door = doors[np.argmin(away, axis=1)]
            table[np.ix_(here, goals)] = np.where(here == door, link_of[here], on_die[here, door])[:, None]
    classes = np.where(tier[None] < tier[:, None], DESCEND, ASCEND).astype(np.int32)
    return RouteTable(table.astype(np.int32), classes)


def _doors(topology: Topology, tier: Ints) -> list[NDArray[np.int64]]:
    """(routers,) the link that leads up from a router and the one that leads down, -1 where there is none."""
    found = []
    for step in (1, -1):
        leads = (topology.link_kind == VERTICAL) & (tier[topology.link_target] - tier[topology.link_source] == step)
        link_of = np.full(topology.routers, -1)
        link_of[topology.link_source[leads]] = np.flatnonzero(leads)
        found.append(link_of)
    return found


def _even(problem: NetworkProblem, places: Ints, number: int) -> Ints:
    """So many of the places, shared out over the tiers: those with the shortest mean way to the nearest."""
    topology = problem.network.topology
    tier, place = tiers_of(topology), topology.position_m[:, :2]
    stays = topology.link_kind != VERTICAL
    ports = 1 + np.bincount(topology.link_source[stays], minlength=topology.routers)
    lower = tier[places[:, 0]]
    steps, room = np.unique(lower, return_counts=True)
    share = np.minimum(number // len(steps), room)
    while share.sum() < number:
        share[np.argmin(np.where(share < room, share, number))] += 1
    chosen = []
    for step, count in zip(steps, share, strict=True):
        free = (ports[places] < problem.most_ports).all(axis=1)
        here = places[(lower == step) & free]
        if len(here) < count:
            what = f"no room for {count} pillars between two tiers within {problem.most_ports} ports a tile"
            fail(what, key="ports", value=problem.most_ports, fix="Allow more ports or fewer pillars.")
        away = np.abs(place[tier == step][:, None] - place[here[:, 0]][None]).sum(axis=2)
        taken = here[_nearest(away, int(count))]
        np.add.at(ports, taken.ravel(), 1)
        chosen.append(taken)
    return np.concatenate(chosen)


def _nearest(away: Floats, number: int) -> NDArray[np.int64]:
    """Columns of which the nearest is near for all rows: one after the other, then exchanged while that helps."""
    taken: list[int] = []
    for _ in range(number):
        near = away[:, taken].min(axis=1, initial=np.inf)
        total = np.minimum(near[:, None], away).sum(axis=0)
        total[taken] = np.inf
        taken.append(int(np.argmin(np.round(total, 9))))
    better = True
    while better:
        better = False
        for index in range(number):
            others = taken[:index] + taken[index + 1 :]
            near = away[:, others].min(axis=1, initial=np.inf)
            total = np.round(np.minimum(near[:, None], away).sum(axis=0), 9)
            total[others] = np.inf
            best = int(np.argmin(total))
            if total[best] < total[taken[index]]:
                taken[index], better = best, True
    return np.sort(np.array(taken, np.int64))


__all__ = ["elevator_first", "may_stand", "pillars_of", "posts", "tiers_of", "with_pillars"]
