"""Links, routes and places found together: from orders of the channels first, then route by route.

The long search anneals links, ranks and places (:mod:`~tierform.exploration.ordered_search`), from the best of several
starts; a short one then takes single table entries (:mod:`~tierform.exploration.link_moves`) to relieve busy links.
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
from tierform.exploration.ordered_routes import Budget, LinkSet, Ordered, empty_ordered, settle_ways
from tierform.exploration.ordered_search import Schedule, anneal_ordered
from tierform.exploration.route_state import RouteState, build_channel, empty_state, order_channels, settle
from tierform.network.topology import PLANAR

# Moves of the long search for each router, and of each trial of a start.
MOVES_A_ROUTER, TRIAL_SHARE = 6_000, 0.06
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


def _ordered(problem: NetworkProblem, begun: RouteState) -> Ordered:
    channels = len(begun.source)
    made = empty_ordered(len(problem.kind), channels)
    for to, values in (
        (made.source, begun.source),
        (made.target, begun.target),
        (made.weight, begun.weight),
        (made.relative, begun.relative),
        (made.chosen, begun.next_channel.T),
        (made.traffic, problem.flow.T),
        (made.rank, channels - 1 - begun.order),
    ):
        to[:] = values
    made.order[made.rank] = np.arange(channels, dtype=np.int32)
    settle_ways(made)
    return made


def _anneal(problem: NetworkProblem, begun: RouteState, costs: _Costs, how: Schedule) -> tuple[float, _Found]:
    topology, n = problem.network.topology, len(problem.kind)
    links = planar_links(topology)
    state, best = _ordered(problem, begun), empty_ordered(n, topology.links)
    length = costs.wire[topology.link_source[links[:, 0]], topology.link_target[links[:, 0]]].copy()
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    budget = Budget(
        links, costs.wire, _weight(problem, costs.cycles, costs.energy), float(length.sum()), problem.most_ports - 1
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
    peak_weight: float = 0.05,
    longest: int = 6,
    starts: Sequence[str] = STARTS,
) -> list[NetworkDesign]:
    """The front of link sets with routes that cannot deadlock, at no more wire than the reference; best product first.

    With `places` tiles of one kind move as well.  `longest` is the longest link in pitches; `rounds` 0 is a number that
    grows with the routers.
    """
    costs = _costs(problem, longest)
    rounds = rounds or MOVES_A_ROUTER * len(problem.kind)
    tried = []
    for number, start in enumerate(starts):
        begun = _begin(problem, start)
        if begun is not None:
            trial = _schedule(max(int(rounds * TRIAL_SHARE), 100), peak_weight, places, 10 * seed + number)
            tried.append((_anneal(problem, begun, costs, trial)[0], number, start, begun))
    found = [reference_of(problem)]
    if not tried:
        return found
    _, _, start, begun = min(tried, key=lambda one: one[:2])
    _, links = _anneal(problem, begun, costs, _schedule(rounds, peak_weight, places, 10 * seed))
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
        design = _balanced(problem, links, costs, how, f"links, from {start!r}")
        found += [design] if design is not None else []
    return front(found)


def _schedule(rounds: int, peak_weight: float, places: bool, seed: int) -> Schedule:
    return Schedule(
        rounds=rounds,
        warm=5e-3,
        cold=2e-5,
        peak_weight=peak_weight,
        link_share=0.35,
        place_share=0.25 if places else 0.0,
        diverts=10,
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
