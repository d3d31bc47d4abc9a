"""Links, routes and places found together: from orders of the channels first, then route by route.

The long search anneals links, ranks and places (:mod:`~tierform.exploration.ordered_search`), from the best turn model
of several; a short one then takes single table entries (:mod:`~tierform.exploration.route_moves`) to relieve busy
links.
Large networks take two classes of virtual channels (:mod:`~tierform.exploration.shortest_search`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tierform.errors import fail
from tierform.exploration.link_costs import FoundLinks, LinkCosts, byte_weight, link_costs, relative_loads
from tierform.exploration.network_search import (
    STARTS,
    Floats,
    NetworkDesign,
    NetworkProblem,
    Ways,
    design_of,
    front,
    links_of,
    reference_of,
    start_table,
)
from tierform.exploration.ordered_routes import Budget, LinkSet, Ordered, empty_ordered, grow, line_up, scratch
from tierform.exploration.ordered_search import Schedule, anneal_ordered
from tierform.exploration.pillars import pillars_of, posts
from tierform.exploration.route_moves import Annealing, anneal_routes
from tierform.exploration.route_state import RouteState, build_channel, empty_state, order_channels, settle
from tierform.exploration.shortest_search import CLASSES, MOVES, found_of, shortest_designs
from tierform.exploration.turn_models import orders_of
from tierform.network.topology import PLANAR, VERTICAL

# Moves of the long search for each router (with places so many times more), and the share of a trial of a turn model.
MOVES_A_ROUTER, WITH_PLACES, TRIAL_SHARE = 6_500, 1.7, 0.04
# The warmest temperature times the routers: a move changes more of a small network.
WARMTH = 0.3
# Up to so many routers the long search is made twice, with the two best turn models, each of this share.
FEW_ROUTERS, TWICE_SHARE = 40, 0.75
# Peak weights with which the routes of a link set are balanced at last: one design each.
BALANCES = (0.03, 0.12)


def _loaded(problem: NetworkProblem, found: FoundLinks, relative: Floats | None = None) -> RouteState:
    """The routes of a link set with their loads, whatever waits for what."""
    state = empty_state(len(problem.kind), len(found.source))
    for link in np.flatnonzero(found.source >= 0):
        build_channel(state, int(link), int(found.source[link]), int(found.target[link]))
    state.next_channel[:] = found.table
    state.weight[:] = found.weight
    state.relative[:] = relative_loads(problem) if relative is None else relative
    place = np.argsort(found.tile)
    moved = np.zeros_like(problem.flow)
    moved[np.ix_(place, place)] = problem.flow
    settle(state, moved)
    return state


def _route_state(problem: NetworkProblem, found: FoundLinks) -> RouteState | None:
    """The routes of a link set, to be changed entry by entry; None where they have a cycle."""
    state = _loaded(problem, found)
    return state if order_channels(state) else None


def route_state_of(design: NetworkDesign) -> RouteState | None:
    """The routes of a design, to be changed entry by entry; None where they have a cycle in one class."""
    state = loaded_state_of(design)
    return state if order_channels(state) else None


def loaded_state_of(design: NetworkDesign) -> RouteState:
    """The routes of a design with their loads, in as many classes as they need."""
    topology = design.topology
    source, target = (np.asarray(ends, np.int32) for ends in (topology.link_source, topology.link_target))
    weight = byte_weight(design.problem, design.cycles, design.energy)
    tile = np.argsort(design.place).astype(np.int32)
    return _loaded(design.problem, FoundLinks(source, target, weight, design.table, tile), _relative_of(design))


def _relative_of(design: NetworkDesign) -> Floats:
    network = design.problem.network
    rate = np.minimum(design.topology.link_width_bits, network.router.flit_bits)
    relative: Floats = 8 / rate / network.clock_Hz / design.problem.reference[2]
    return relative


def _begin(problem: NetworkProblem, start: str) -> RouteState | None:
    table = start_table(problem, start)
    if table is None:
        return None
    topology = problem.network.topology
    source, target = (np.asarray(ends, np.int32) for ends in (topology.link_source, topology.link_target))
    weight = byte_weight(problem, problem.cycles, problem.energy)
    return _route_state(
        problem, FoundLinks(source, target, weight, table, np.arange(len(problem.kind), dtype=np.int32))
    )


def _ordered(problem: NetworkProblem, natural: Floats) -> Ordered | None:
    """The reference's links with the routes of a turn model; None where it leaves a tile without a way."""
    topology = problem.network.topology
    n, channels = topology.routers, topology.links
    classes = len(natural)
    made = empty_ordered(n, channels, classes)
    for to, values in (
        (made.source, topology.link_source),
        (made.target, topology.link_target),
        (made.weight, byte_weight(problem, problem.cycles, problem.energy)),
        (made.relative, relative_loads(problem)),
        (made.traffic, problem.flow.T),
    ):
        to[:] = values
    for kind in range(classes):
        first = kind * channels
        made.order[first : first + channels] = first + np.argsort(
            natural[kind, made.source, made.target], kind="stable"
        )
    made.rank[made.order] = np.arange(channels * classes, dtype=np.int32)
    room = scratch(n, channels * classes)
    count = line_up(made, room)
    return made if all(grow(made, room, count, goal) for goal in range(n)) else None


def _anneal(
    problem: NetworkProblem, natural: Floats, costs: LinkCosts, how: Schedule, kinds: tuple[int, ...]
) -> tuple[float, FoundLinks] | None:
    topology, n = problem.network.topology, len(problem.kind)
    links = links_of(topology, *kinds)
    upright = topology.link_kind[links[:, 0]] == VERTICAL
    state, best = _ordered(problem, natural), empty_ordered(n, topology.links, len(natural))
    if state is None:
        return None
    length = costs.wire[topology.link_source[links[:, 0]], topology.link_target[links[:, 0]]].copy()
    length[upright] = 0.0
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    budget = Budget(
        links=links,
        upright=upright,
        posts=posts(topology),
        wire=costs.wire,
        weight=byte_weight(problem, costs.cycles, costs.energy),
        total_m=float(length.sum()),
        most_ports=problem.most_ports - 1,
        natural=natural,
    )
    wires = LinkSet(length, np.bincount(topology.link_source, minlength=n).astype(np.int32), joined)
    value = anneal_ordered(state, best, budget, how, problem.kind.astype(np.int32), wires)
    return value, found_of(best)


def _balanced(
    problem: NetworkProblem, found: FoundLinks, costs: LinkCosts, how: Annealing, note: str
) -> NetworkDesign | None:
    """The design of a link set, its routes changed entry by entry."""
    state = _route_state(problem, found)
    if state is None:
        return None
    best = empty_state(len(problem.kind), len(found.source))
    anneal_routes(state, best, how)
    return design_of(
        problem,
        Ways(best.source, best.target, best.next_channel),
        np.argsort(found.tile).astype(np.int32),
        (costs.cycles, costs.energy, costs.apart),
        note,
    )


def search_links(
    problem: NetworkProblem,
    *,
    places: bool = False,
    pillars: bool = False,
    seed: int = 0,
    rounds: int = 0,
    peak_weight: float = 0.15,
    longest: int = 6,
    classes: int | None = None,
) -> list[NetworkDesign]:
    """The front of link sets with routes that cannot deadlock, at no more wire than the reference; best product first.

    With `places` tiles of one kind move as well; with `pillars` vertical links are put elsewhere or left out, never
    more of them than the reference has (:func:`~tierform.exploration.pillars.with_pillars` gives one with fewer).
    `longest` is the longest link in pitches; `rounds` 0 is a number that grows with the routers.  In two classes of
    virtual channels the shortest ways of a link set come first, and then how to take them without deadlock.  In one
    class links and an order of the channels are annealed together: every turn model is tried for a short time, and the
    best goes on.  Left out, there is one class up to :data:`FEW_ROUTERS` routers with every pillar, where that search
    finds no less, and else as many as the routers have virtual channels, at most two.
    """
    costs, routers = link_costs(problem, longest), len(problem.kind)
    topology = problem.network.topology
    if pillars and not pillars_of(topology):
        fail("this network has no pillars to search", key="pillars", value=topology.name)
    kinds = (PLANAR, VERTICAL) if pillars else (PLANAR,)
    partial = pillars_of(topology) < len(posts(topology))
    if classes is None:
        few = routers <= FEW_ROUTERS and not partial
        classes = 1 if few else min(CLASSES, problem.network.router.virtual_channels)
    if classes not in (1, CLASSES):
        fail("links are searched in one class of virtual channels or in two", key="classes", value=classes)
    if classes == CLASSES:
        share = rounds / (MOVES * routers) if rounds else WITH_PLACES if places else 1.0
        made = shortest_designs(problem, costs, places=places, pillars=pillars, seed=seed, share=share)
        if made:
            return front([reference_of(problem), *made])
    rounds = rounds or int(MOVES_A_ROUTER * routers * (WITH_PLACES if places else 1.0))
    joined = np.zeros((routers, routers), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    tried = []
    for number, (name, natural) in enumerate(orders_of(topology, problem.pitch_m, joined).items()):
        trial = _schedule(max(int(rounds * TRIAL_SHARE), 100), peak_weight, places, 10 * seed + number, routers)
        short = _anneal(problem, natural[None], costs, trial, kinds)
        if short is not None:
            tried.append((short[0], number, name, natural))
    found = [reference_of(problem)]
    if not tried:
        return found
    twice = routers <= FEW_ROUTERS and len(tried) > 1
    moves = int(rounds * TWICE_SHARE) if twice else rounds
    runs = []
    for number, (_, _, name, natural) in enumerate(sorted(tried, key=lambda one: one[:2])[: 1 + twice]):
        how = _schedule(moves, peak_weight, places, 10 * seed + number, routers)
        long = _anneal(problem, natural[None], costs, how, kinds)
        assert long is not None
        runs.append((long[0], number, name, long[1]))
    what = "links and pillars" if pillars else "links"
    _, _, name, links = min(runs, key=lambda one: one[:2])
    for balance in BALANCES:
        balancing = Annealing(
            rounds=25 * len(problem.kind),
            routes_a_round=20,
            warm=3e-4,
            cold=1e-5,
            peak_weight=balance,
            seed=seed,
        )
        design = _balanced(problem, links, costs, balancing, f"{what}, from turn model {name!r}")
        found += [design] if design is not None else []
    return front(found)


def _schedule(rounds: int, peak_weight: float, places: bool, seed: int, routers: int) -> Schedule:
    return Schedule(
        rounds=rounds,
        warm=WARMTH / routers,
        cold=2e-5,
        peak_weight=peak_weight,
        link_share=0.5,
        place_share=0.25 if places else 0.0,
        diverts=3,
        seed=seed,
    )


def search_routes(
    problem: NetworkProblem,
    *,
    seed: int = 0,
    rounds: int = 40_000,
    peak_weight: float = 0.03,
    starts: Sequence[str] = STARTS,
) -> list[NetworkDesign]:
    """The front of routes that cannot deadlock on the links and places as they are; best product first."""
    costs = link_costs(problem, 1)
    found = [reference_of(problem)]
    for number, start in enumerate(starts):
        begun = _begin(problem, start)
        if begun is None:
            continue
        how = Annealing(
            rounds=rounds,
            routes_a_round=10,
            warm=5e-4,
            cold=1e-5,
            peak_weight=peak_weight,
            seed=seed * len(STARTS) + number,
        )
        same = FoundLinks(
            begun.source, begun.target, begun.weight, begun.next_channel, np.arange(len(problem.kind), dtype=np.int32)
        )
        design = _balanced(problem, same, costs, how, f"routes from {start!r}")
        found += [design] if design is not None else []
    return front(found)


__all__ = ["loaded_state_of", "route_state_of", "search_links", "search_routes"]
