"""Links with the shortest ways, then how to take these ways without deadlock in two classes of virtual channels.

First links (and places) are annealed for the shortest ways between all routers
(:mod:`~tierform.exploration.shortest_links`).  Then an order of all virtual channels is annealed on these links
(:mod:`~tierform.exploration.ordered_search`): every route takes virtual channels of falling rank, so that the graph of
who waits for whom has no cycle.  A route may go from the first class into the second; with one class alone much of what
the links gain is lost to the order.  The order begins as two turn models after each other, the best pair of all.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.link_costs import FoundLinks, LinkCosts, byte_weight, relative_loads
from tierform.exploration.network_search import Floats, NetworkDesign, NetworkProblem, Ways, design_of, links_of
from tierform.exploration.ordered_routes import (
    Budget,
    LinkSet,
    Ordered,
    empty_ordered,
    grow,
    line_up,
    scratch,
    sum_loads,
    value_of,
)
from tierform.exploration.ordered_search import Schedule, anneal_ordered
from tierform.exploration.pillars import pillars_of, posts
from tierform.exploration.shortest_links import FAR, Links, Plane, Steps, anneal_shortest, begin_ways
from tierform.exploration.turn_models import orders_of
from tierform.network.topology import PLANAR, VERTICAL

CLASSES = 2
# Moves of links for each router, of which every one tries so many exchanges of places; moves of ranks for each router.
MOVES, SWAPS, RANKS = 2_500, 8, 4_800
# So many link sets are annealed, and the best goes on: seeds differ by more than twice the moves gain.
RUNS = 2
# Weights of the smooth peak with which the routes of a link set are found: one design each.
PEAKS = (0.05, 0.12)
# Weight of the energy, the rest is the latency's.  Against one half, latency is .002 lower and energy .001 higher on
# 64 tiles of Atleus, the only case where shares were tried (1/2, 1/3, 1/6).
ENERGY_SHARE = 1 / 3
NEXT_TO_NOTHING = 1e-9


def shortest_designs(
    problem: NetworkProblem, costs: LinkCosts, *, places: bool, pillars: bool, seed: int, share: float = 1.0
) -> list[NetworkDesign]:
    """Designs of one link set in two classes; none where no pair of turn models reaches every tile."""
    kinds = (PLANAR, VERTICAL) if pillars else (PLANAR,)
    runs = [_shortest(problem, costs, kinds, places, RUNS * seed + run, share) for run in range(RUNS)]
    links = min(runs, key=lambda run: run[0])[1]
    started = _start(problem, costs, kinds, links)
    if started is None:
        return []
    natural, names = started
    found = []
    for number, peak_weight in enumerate(PEAKS):
        how = Schedule(
            rounds=max(int(RANKS * len(problem.kind) * share), 100),
            warm=2e-4,
            cold=1e-5,
            peak_weight=peak_weight,
            link_share=0.0,
            place_share=0.1 if places else 0.0,
            diverts=3,
            seed=10 * seed + number,
        )
        state, wires = _ordered(problem, costs, kinds, links, natural)
        best = empty_ordered(len(problem.kind), len(state.source), len(natural))
        movable = links_of(problem.network.topology, *kinds)
        budget = Budget(
            links=movable,
            upright=problem.network.topology.link_kind[movable[:, 0]] == VERTICAL,
            posts=posts(problem.network.topology),
            wire=costs.wire,
            weight=byte_weight(problem, costs.cycles, costs.energy, ENERGY_SHARE),
            total_m=float(wires.length.sum()),
            most_ports=problem.most_ports - 1,
            natural=natural,
        )
        anneal_ordered(state, best, budget, how, problem.kind.astype(np.int32), wires)
        made = found_of(best)
        ways = Ways(made.source, made.target, made.table, made.classes)
        at = np.argsort(made.tile).astype(np.int32)
        note = f"links{' and pillars' if pillars else ''} by shortest ways, classes from {names}"
        found.append(design_of(problem, ways, at, (costs.cycles, costs.energy, costs.apart), note))
    return found


def found_of(best: Ordered) -> FoundLinks:
    """Channels, routes and their classes, from an order of virtual channels."""
    chosen, channels = np.ascontiguousarray(best.chosen.T), len(best.source)
    table = np.where(chosen >= 0, chosen % channels, -1).astype(np.int32)
    classes = np.where(chosen >= 0, chosen // channels, 0).astype(np.int32)
    several = classes if len(best.order) > channels else None
    return FoundLinks(best.source, best.target, best.weight, table, best.tile, several)


def _shortest(
    problem: NetworkProblem, costs: LinkCosts, kinds: tuple[int, ...], places: bool, seed: int, share: float
) -> tuple[float, Links]:
    topology, n = problem.network.topology, len(problem.kind)
    moves = np.isin(topology.link_kind, kinds)
    own = byte_weight(problem, problem.cycles, problem.energy, ENERGY_SHARE)
    other = np.full((n, n), FAR, np.float32)
    other[topology.link_source[~moves], topology.link_target[~moves]] = own[~moves]
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source[moves], topology.link_target[moves]] = True
    pillars = pillars_of(topology) if VERTICAL in kinds else 0
    length = np.where(np.isfinite(costs.wire), costs.wire, FAR)
    if pillars:
        length[costs.stands] = 0.0
    plane = Plane(
        weight=byte_weight(problem, costs.cycles, costs.energy, ENERGY_SHARE).astype(np.float32),
        length=length.astype(np.float32),
        other=other,
        posts=posts(topology) if pillars else np.zeros((0, 2), np.int32),
        total_m=float(costs.apart[joined].sum()) / 2,
        most_ports=problem.most_ports - 1,
        most_channels=topology.links - 2 * pillars,
        most_pillars=pillars,
    )
    links = Links(
        joined,
        np.bincount(topology.link_source, minlength=n).astype(np.int32),
        np.arange(n, dtype=np.int32),
    )
    best = Links(links.joined.copy(), links.ports.copy(), links.tile.copy())
    how = Steps(
        rounds=max(int(MOVES * n * share), 100),
        warm=0.1 / n,
        cold=5e-5,
        swaps=SWAPS if places else 0,
        seed=seed,
    )
    # Pairs without traffic count as good as nothing, but a tile that no link leads to is out of reach.
    half = ((problem.flow + problem.flow.T) / 2 + NEXT_TO_NOTHING * problem.flow.mean()).astype(np.float32)
    value = anneal_shortest(plane, links, best, begin_ways(plane, links, half), problem.kind.astype(np.int32), how)
    return value, best


def _ordered(
    problem: NetworkProblem, costs: LinkCosts, kinds: tuple[int, ...], links: Links, natural: Floats
) -> tuple[Ordered, LinkSet]:
    """A link set with the order of turn models, its ways not yet grown, and its wires."""
    topology, n, classes = problem.network.topology, len(problem.kind), len(natural)
    pairs, count = links_of(topology, *kinds), topology.links
    made = empty_ordered(n, count, classes)
    stays = ~np.isin(topology.link_kind, kinds)
    made.source[stays], made.target[stays] = topology.link_source[stays], topology.link_target[stays]
    made.weight[stays] = byte_weight(problem, problem.cycles, problem.energy, ENERGY_SHARE)[stays]
    ends = np.argwhere(np.triu(links.joined))
    upright = costs.stands[ends[:, 0], ends[:, 1]]
    # Planar links come first in `pairs`, then the pillars.
    planar = int((topology.link_kind[pairs[:, 0]] == PLANAR).sum())
    at = np.where(upright, planar + np.cumsum(upright) - 1, np.cumsum(~upright) - 1)
    length = np.zeros(len(pairs))
    length[at] = np.where(upright, 0.0, costs.wire[ends[:, 0], ends[:, 1]])
    weight = byte_weight(problem, costs.cycles, costs.energy, ENERGY_SHARE)[ends[:, 0], ends[:, 1]]
    for side in range(2):
        channel = pairs[at, side]
        made.source[channel], made.target[channel] = ends[:, side], ends[:, 1 - side]
        made.weight[channel] = weight
    made.relative[:] = relative_loads(problem)
    made.traffic[:] = problem.flow[np.ix_(links.tile, links.tile)].T
    made.tile[:] = links.tile
    for kind in range(classes):
        first = kind * count
        order = np.argsort(natural[kind, made.source, made.target], kind="stable")
        made.order[first : first + count] = first + order
    made.rank[made.order] = np.arange(count * classes, dtype=np.int32)
    room = scratch(n, count * classes)
    alive = line_up(made, room)
    for goal in range(n):
        if not grow(made, room, alive, goal):
            made.far[goal] = np.inf
    sum_loads(made)
    return made, LinkSet(length, links.ports.copy(), links.joined.copy())


def _start(
    problem: NetworkProblem, costs: LinkCosts, kinds: tuple[int, ...], links: Links
) -> tuple[NDArray[np.float64], str] | None:
    """The turn models of each class with which the ways are shortest before any rank is moved."""
    topology = problem.network.topology
    stays = ~np.isin(topology.link_kind, kinds)
    joined = links.joined.copy()
    joined[topology.link_source[stays], topology.link_target[stays]] = True
    turns = orders_of(topology, problem.pitch_m, joined, every=True)
    best = np.inf
    found: tuple[NDArray[np.float64], str] | None = None
    for names in product(turns, repeat=CLASSES):
        natural = np.stack([turns[name] for name in names])
        state, _ = _ordered(problem, costs, kinds, links, natural)
        value = value_of(state, 0.0) if np.isfinite(state.far).all() else np.inf
        if value < best:
            best, found = value, (natural, " after ".join(repr(name) for name in names))
    return found


__all__ = ["CLASSES", "found_of", "shortest_designs"]
