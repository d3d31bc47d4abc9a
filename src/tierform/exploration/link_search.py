"""Links, routes and places found together: from orders of the channels first, then route by route.

The long search anneals links, ranks and places (:mod:`~tierform.exploration.ordered_search`), from the best turn model
of several; a short one then takes single table entries (:mod:`~tierform.exploration.link_moves`) to relieve busy links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.link_moves import Annealing, LinkRules, anneal_links
from tierform.exploration.network_search import (
    STARTS,
    Floats,
    NetworkDesign,
    NetworkProblem,
    design_of,
    front,
    planar_links,
    reference_of,
    start_table,
)
from tierform.exploration.ordered_routes import Budget, LinkSet, Ordered, empty_ordered, grow, line_up, scratch
from tierform.exploration.ordered_search import Schedule, anneal_ordered
from tierform.exploration.route_state import RouteState, build_channel, empty_state, order_channels, settle
from tierform.exploration.turn_models import turn_orders
from tierform.network.topology import PLANAR

# Moves of the long search for each router (with places so many times more), and the share of a trial of a turn model.
MOVES_A_ROUTER, WITH_PLACES, TRIAL_SHARE = 6_500, 1.7, 0.04
# The warmest temperature times the routers: a move changes more of a small network.
WARMTH = 0.3
# Up to so many routers the long search is made twice, with the two best turn models, each of this share.
FEW_ROUTERS, TWICE_SHARE = 40, 0.75
# Peak weights with which the routes of a link set are balanced at last: one design each.
BALANCES = (0.03, 0.12)


class _Costs(NamedTuple):
    """(routers, routers) cycles, J a byte, m of planar links between them; m or infinity where none may be."""

    cycles: Floats
    energy: Floats
    apart: Floats
    wire: Floats


@dataclass(frozen=True, eq=False)
class _Found:
    """What the long search leaves: channels without ends are not built."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: Floats
    table: NDArray[np.int32]
    tile: NDArray[np.int32]  # at each router


def _costs(problem: NetworkProblem, longest: int) -> _Costs:
    topology = problem.network.topology
    apart = np.abs(topology.position_m[:, None] - topology.position_m[None])[..., :2].sum(axis=2)
    steps = np.ceil(apart / max(problem.pitch_m, 1e-12) - 1e-6)
    cycle = float(topology.link_latency_cycles[topology.link_kind == PLANAR].min(initial=1))
    energy = problem.network.energy
    one_die = topology.chiplet[:, None] == topology.chiplet[None]
    return _Costs(
        problem.network.router.pipeline_cycles + steps * cycle,
        8 * (energy.router_J_per_bit + energy.wire_J_per_bit_m * apart),
        apart,
        np.where(one_die & (apart > 0) & (steps <= longest), apart, np.inf),
    )


def _relative(problem: NetworkProblem) -> Floats:
    rate = np.minimum(problem.network.topology.link_width_bits, problem.network.router.flit_bits)
    relative: Floats = 8 / rate / problem.network.clock_Hz / problem.reference[2]
    return relative


def _weight(problem: NetworkProblem, cycles: Floats, energy: Floats) -> Floats:
    late, spent, _ = problem.reference
    weight: Floats = (cycles / late + energy / spent) / float(problem.flow.sum())
    return weight


def _route_state(problem: NetworkProblem, found: _Found, relative: Floats | None = None) -> RouteState | None:
    """The routes of a link set, to be changed entry by entry; None where they have a cycle."""
    state = empty_state(len(problem.kind), len(found.source))
    for link in np.flatnonzero(found.source >= 0):
        build_channel(state, int(link), int(found.source[link]), int(found.target[link]))
    state.next_channel[:] = found.table
    state.weight[:] = found.weight
    state.relative[:] = _relative(problem) if relative is None else relative
    place = np.argsort(found.tile)
    moved = np.zeros_like(problem.flow)
    moved[np.ix_(place, place)] = problem.flow
    settle(state, moved)
    return state if order_channels(state) else None


def route_state_of(design: NetworkDesign) -> RouteState | None:
    """The routes of a design, to be changed entry by entry; None where they have a cycle."""
    topology = design.topology
    source, target = (np.asarray(ends, np.int32) for ends in (topology.link_source, topology.link_target))
    weight = _weight(design.problem, design.cycles, design.energy)
    tile = np.argsort(design.place).astype(np.int32)
    return _route_state(design.problem, _Found(source, target, weight, design.table, tile), _relative_of(design))


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
    weight = _weight(problem, problem.cycles, problem.energy)
    return _route_state(problem, _Found(source, target, weight, table, np.arange(len(problem.kind), dtype=np.int32)))


def _ordered(problem: NetworkProblem, natural: Floats) -> Ordered | None:
    """The reference's links with the routes of a turn model; None where it leaves a tile without a way."""
    topology = problem.network.topology
    n, channels = topology.routers, topology.links
    made = empty_ordered(n, channels)
    for to, values in (
        (made.source, topology.link_source),
        (made.target, topology.link_target),
        (made.weight, _weight(problem, problem.cycles, problem.energy)),
        (made.relative, _relative(problem)),
        (made.traffic, problem.flow.T),
    ):
        to[:] = values
    made.order[:] = np.argsort(natural[made.source, made.target], kind="stable")
    made.rank[made.order] = np.arange(channels, dtype=np.int32)
    room = scratch(n, channels)
    count = line_up(made, room)
    return made if all(grow(made, room, count, goal) for goal in range(n)) else None


def _anneal(problem: NetworkProblem, natural: Floats, costs: _Costs, how: Schedule) -> tuple[float, _Found] | None:
    topology, n = problem.network.topology, len(problem.kind)
    links = planar_links(topology)
    state, best = _ordered(problem, natural), empty_ordered(n, topology.links)
    if state is None:
        return None
    length = costs.wire[topology.link_source[links[:, 0]], topology.link_target[links[:, 0]]].copy()
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    budget = Budget(
        links=links,
        wire=costs.wire,
        weight=_weight(problem, costs.cycles, costs.energy),
        total_m=float(length.sum()),
        most_ports=problem.most_ports - 1,
        natural=natural,
    )
    wires = LinkSet(length, np.bincount(topology.link_source, minlength=n).astype(np.int32), joined)
    value = anneal_ordered(state, best, budget, how, problem.kind.astype(np.int32), wires)
    return value, _Found(best.source, best.target, best.weight, np.ascontiguousarray(best.chosen.T), best.tile)


def _balanced(problem: NetworkProblem, found: _Found, costs: _Costs, how: Annealing, note: str) -> NetworkDesign | None:
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
        _weight(problem, costs.cycles, costs.energy),
        0.0,
        problem.most_ports - 1,
    )
    anneal_links(state, kept, best, rules, how, problem.flow, problem.kind.astype(np.int32), at, best_at)
    return design_of(problem, best, best_at, (costs.cycles, costs.energy, costs.apart), note)


def search_links(
    problem: NetworkProblem,
    *,
    places: bool = False,
    seed: int = 0,
    rounds: int = 0,
    peak_weight: float = 0.15,
    longest: int = 6,
) -> list[NetworkDesign]:
    """The front of link sets with routes that cannot deadlock, at no more wire than the reference; best product first.

    With `places` tiles of one kind move as well.  `longest` is the longest link in pitches; `rounds` 0 is a number that
    grows with the routers.  Every turn model is tried for a short time, and the best goes on.
    """
    costs, routers = _costs(problem, longest), len(problem.kind)
    rounds = rounds or int(MOVES_A_ROUTER * routers * (WITH_PLACES if places else 1.0))
    tried = []
    for number, (name, natural) in enumerate(turn_orders(problem.network.topology, problem.pitch_m).items()):
        trial = _schedule(max(int(rounds * TRIAL_SHARE), 100), peak_weight, places, 10 * seed + number, routers)
        made = _anneal(problem, natural, costs, trial)
        if made is not None:
            tried.append((made[0], number, name, natural))
    found = [reference_of(problem)]
    if not tried:
        return found
    twice = routers <= FEW_ROUTERS and len(tried) > 1
    moves = int(rounds * TWICE_SHARE) if twice else rounds
    runs = []
    for number, (_, _, name, natural) in enumerate(sorted(tried, key=lambda one: one[:2])[: 1 + twice]):
        long = _anneal(problem, natural, costs, _schedule(moves, peak_weight, places, 10 * seed + number, routers))
        assert long is not None
        runs.append((long[0], number, name, long[1]))
    _, _, name, links = min(runs, key=lambda one: one[:2])
    for balance in BALANCES:
        how = Annealing(
            rounds=25 * len(problem.kind),
            routes_a_round=20,
            place_share=0.0,
            link_share=0.0,
            warm=3e-4,
            cold=1e-5,
            peak_weight=balance,
            seed=seed,
        )
        design = _balanced(problem, links, costs, how, f"links, from turn model {name!r}")
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
    costs = _costs(problem, 1)
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
        same = _Found(
            begun.source, begun.target, begun.weight, begun.next_channel, np.arange(len(problem.kind), dtype=np.int32)
        )
        design = _balanced(problem, same, costs, how, f"routes from {start!r}")
        found += [design] if design is not None else []
    return front(found)


__all__ = ["route_state_of", "search_links", "search_routes"]
