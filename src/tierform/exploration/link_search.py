"""Links, routes and places found together: from orders of the channels first, then route by route.

The long search anneals links, ranks and places (:mod:`~tierform.exploration.ordered_search`), from the best turn model
of several; a short one then takes single table entries (:mod:`~tierform.exploration.link_moves`) to relieve busy links.
Large networks take two classes of virtual channels (:mod:`~tierform.exploration.shortest_search`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tierform.errors import fail
from tierform.exploration.link_costs import FoundLinks, LinkCosts, byte_weight, link_costs, relative_loads
from tierform.exploration.link_moves import Annealing, LinkRules, anneal_links
from tierform.exploration.network_search import (
    STARTS,
    Floats,
    NetworkDesign,
    NetworkProblem,
    Ways,
    design_of,
    front,
    planar_links,
    reference_of,
    start_table,
)
from tierform.exploration.ordered_routes import Budget, LinkSet, Ordered, empty_ordered, grow, line_up, scratch
from tierform.exploration.ordered_search import Schedule, anneal_ordered
from tierform.exploration.route_state import RouteState, build_channel, empty_state, order_channels, settle
from tierform.exploration.shortest_search import CLASSES, MOVES, found_of, shortest_designs
from tierform.exploration.turn_models import turn_orders

# Moves of the long search for each router (with places so many times more), and the share of a trial of a turn model.
MOVES_A_ROUTER, WITH_PLACES, TRIAL_SHARE = 6_500, 1.7, 0.04
# The warmest temperature times the routers: a move changes more of a small network.
WARMTH = 0.3
# Up to so many routers the long search is made twice, with the two best turn models, each of this share.
FEW_ROUTERS, TWICE_SHARE = 40, 0.75
# Peak weights with which the routes of a link set are balanced at last: one design each.
BALANCES = (0.03, 0.12)


def _route_state(problem: NetworkProblem, found: FoundLinks, relative: Floats | None = None) -> RouteState | None:
    """The routes of a link set, to be changed entry by entry; None where they have a cycle."""
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
    return state if order_channels(state) else None


def route_state_of(design: NetworkDesign) -> RouteState | None:
    """The routes of a design, to be changed entry by entry; None where they have a cycle."""
    topology = design.topology
    source, target = (np.asarray(ends, np.int32) for ends in (topology.link_source, topology.link_target))
    weight = byte_weight(design.problem, design.cycles, design.energy)
    tile = np.argsort(design.place).astype(np.int32)
    return _route_state(design.problem, FoundLinks(source, target, weight, design.table, tile), _relative_of(design))


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
    problem: NetworkProblem, natural: Floats, costs: LinkCosts, how: Schedule
) -> tuple[float, FoundLinks] | None:
    topology, n = problem.network.topology, len(problem.kind)
    links = planar_links(topology)
    state, best = _ordered(problem, natural), empty_ordered(n, topology.links, len(natural))
    if state is None:
        return None
    length = costs.wire[topology.link_source[links[:, 0]], topology.link_target[links[:, 0]]].copy()
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    budget = Budget(
        links=links,
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
    n, channels = len(problem.kind), len(found.source)
    kept, best = empty_state(n, channels), empty_state(n, channels)
    at = np.argsort(found.tile).astype(np.int32)
    best_at = at.copy()
    rules = LinkRules(
        planar_links(problem.network.topology),
        costs.wire,
        byte_weight(problem, costs.cycles, costs.energy),
        0.0,
        problem.most_ports - 1,
    )
    anneal_links(state, kept, best, rules, how, problem.flow, problem.kind.astype(np.int32), at, best_at)
    return design_of(
        problem,
        Ways(best.source, best.target, best.next_channel),
        best_at,
        (costs.cycles, costs.energy, costs.apart),
        note,
    )


def search_links(
    problem: NetworkProblem,
    *,
    places: bool = False,
    seed: int = 0,
    rounds: int = 0,
    peak_weight: float = 0.15,
    longest: int = 6,
    classes: int | None = None,
) -> list[NetworkDesign]:
    """The front of link sets with routes that cannot deadlock, at no more wire than the reference; best product first.

    With `places` tiles of one kind move as well.  `longest` is the longest link in pitches; `rounds` 0 is a number that
    grows with the routers.  In two classes of virtual channels the shortest ways of a link set come first, and then how
    to take them without deadlock.  In one class links and an order of the channels are annealed together: every turn
    model is tried for a short time, and the best goes on.  Left out, there is one class up to :data:`FEW_ROUTERS`
    routers, where that search finds no less, and above as many as the routers have virtual channels, at most two.
    """
    costs, routers = link_costs(problem, longest), len(problem.kind)
    if classes is None:
        classes = 1 if routers <= FEW_ROUTERS else min(CLASSES, problem.network.router.virtual_channels)
    if classes not in (1, CLASSES):
        fail("links are searched in one class of virtual channels or in two", key="classes", value=classes)
    if classes == CLASSES:
        share = rounds / (MOVES * routers) if rounds else WITH_PLACES if places else 1.0
        made = shortest_designs(problem, costs, places=places, seed=seed, share=share)
        if made:
            return front([reference_of(problem), *made])
    rounds = rounds or int(MOVES_A_ROUTER * routers * (WITH_PLACES if places else 1.0))
    tried = []
    for number, (name, natural) in enumerate(turn_orders(problem.network.topology, problem.pitch_m).items()):
        trial = _schedule(max(int(rounds * TRIAL_SHARE), 100), peak_weight, places, 10 * seed + number, routers)
        short = _anneal(problem, natural[None], costs, trial)
        if short is not None:
            tried.append((short[0], number, name, natural))
    found = [reference_of(problem)]
    if not tried:
        return found
    twice = routers <= FEW_ROUTERS and len(tried) > 1
    moves = int(rounds * TWICE_SHARE) if twice else rounds
    runs = []
    for number, (_, _, name, natural) in enumerate(sorted(tried, key=lambda one: one[:2])[: 1 + twice]):
        long = _anneal(
            problem, natural[None], costs, _schedule(moves, peak_weight, places, 10 * seed + number, routers)
        )
        assert long is not None
        runs.append((long[0], number, name, long[1]))
    _, _, name, links = min(runs, key=lambda one: one[:2])
    for balance in BALANCES:
        balancing = Annealing(
            rounds=25 * len(problem.kind),
            routes_a_round=20,
            place_share=0.0,
            link_share=0.0,
            warm=3e-4,
            cold=1e-5,
            peak_weight=balance,
            seed=seed,
        )
        design = _balanced(problem, links, costs, balancing, f"links, from turn model {name!r}")
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
    rounds: int = 10_000,
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
            place_share=0.0,
            link_share=0.0,
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


__all__ = ["route_state_of", "search_links", "search_routes"]
