"""The network of a job's chip, found for its traffic and written back: links and routes of the chip, places of weights.

Weights change tiles within their component, since its tiles are alike; all other tiles stay.  Designs that the search
of :mod:`~tierform.exploration.link_search` finds are judged by whole results of the job, at equal planar wire.  Before
anything is searched it is told whether the network can matter: what a network without time would save, and the share
of the transfers' time at the ports of tiles, which no topology changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.exploration.evaluator import figures_of_result
from tierform.exploration.link_search import loaded_state_of, route_state_of, search_links, search_routes
from tierform.exploration.network_search import (
    STARTS,
    TURNS,
    NetworkDesign,
    NetworkProblem,
    reference_of,
    search_places,
    start_table,
)
from tierform.exploration.pillars import pillars_of, with_pillars
from tierform.exploration.route_state import MAX_PORTS, empty_state
from tierform.exploration.transfer_moves import Transfers, anneal_transfers, total_s
from tierform.exploration.written_design import listed, with_design
from tierform.network.analytic import spread
from tierform.simulation.booking import book
from tierform.simulation.choose import choose
from tierform.simulation.fabric import Route, receivers
from tierform.simulation.job import Job
from tierform.simulation.limits import NETWORK
from tierform.simulation.package_network import network_of
from tierform.simulation.result import Result
from tierform.simulation.simulate import run_job

Floats = NDArray[np.float64]
Tiles = tuple[int, ...]
# Below this share of time and of energy no network is worth a search: what the formulas themselves leave open.
MATTERS = 0.02
# A design is faster where its time is less by more than this share: less is no reason to build another network.
FASTER = 1e-3


class Way(NamedTuple):
    """What a search may change; routes are found anew by each but that of places alone."""

    places: bool = False
    routes: bool = False
    links: bool = False
    pillars: bool = False


WAYS = {
    "places": Way(places=True),
    "routes": Way(routes=True),
    "places and routes": Way(places=True, routes=True),
    "links": Way(routes=True, links=True),
    "places and links": Way(places=True, routes=True, links=True),
    "links and pillars": Way(routes=True, links=True, pillars=True),
    "places and links and pillars": Way(places=True, routes=True, links=True, pillars=True),
}


@dataclass(frozen=True, slots=True)
class Stakes:
    """What a network could change at all, as shares of the whole result."""

    free_time: float  # of the time, if transfers took none
    energy: float  # of the energy, in routers and links
    ports: float  # of the transfers' time, at the ports of tiles

    @property
    def matter(self) -> bool:
        """Whether more than :data:`MATTERS` is at stake that a topology can change."""
        return self.free_time * (1 - self.ports) > MATTERS or self.energy > MATTERS

    def __str__(self) -> str:
        told = "the network can matter" if self.matter else "the network hardly matters"
        return (
            f"a free network would save {100 * self.free_time:.1f} % of the time and {100 * self.energy:.1f} % of the "
            f"energy; {100 * self.ports:.1f} % of the transfers' time is bound to ports of tiles: {told}"
        )


@dataclass(frozen=True, eq=False)
class NetworkStudy:
    """A job, its traffic as a problem of places and links, and its result as it is."""

    job: Job
    problem: NetworkProblem
    result: Result
    stakes: Stakes
    transfers: Transfers


@dataclass(frozen=True, eq=False)
class Improved:
    """A design, the job with it, and that job's result."""

    way: str
    design: NetworkDesign
    job: Job
    result: Result

    def faster_than(self, result: Result) -> bool:
        """Whether the job takes less time than `result`, by more than :data:`FASTER`."""
        return self.result.latency_s < result.latency_s * (1 - FASTER)


def study_network(job: Job) -> NetworkStudy:
    """Simulate a job and take down the bytes between its tiles."""
    job = job.loaded()
    chip = job.chip
    assert isinstance(chip, Chip)
    trial = choose(job)
    result = run_job(replace(job, mapping=trial.mapping))
    ledger = book(trial.costing, trial.stages, trial.timed)
    tiles, fabric = len(chip.tiles), trial.costing.fabric
    explicit = listed(chip)
    made = network_of(explicit)
    if made is None or fabric.network is None:
        fail("this chip has no network", value=chip.name)
    rate = fabric.network.router.flit_bits / 8 * fabric.network.clock_Hz
    between, ports, moving = np.zeros((tiles, tiles)), 0.0, 0.0
    shares: dict[int, tuple[Floats, float]] = {}
    transfers: dict[tuple[Tiles, ...], float] = {}
    for booked in ledger.booked:
        for move in booked.execution.moves:
            size = move.size_B * booked.times
            # A multicast stands once with each of its targets, and its bytes take their time once.
            once = size / len(move.route.targets)
            _take(transfers, move.route, once)
            if id(move.route) not in shares:
                shares[id(move.route)] = move.route.between(tiles), move.route.port_s_per_B(rate)
            share, port = shares[id(move.route)]
            between += share * size
            ports += min(port, move.route.seconds_per_B) * once
            moving += move.route.seconds_per_B * once
    saved = fsum(limit.gains_s.get(NETWORK, 0.0) for limit in result.limits)
    stakes = Stakes(
        free_time=saved / result.latency_s,
        energy=result.energy_J_by_component.get(NETWORK, 0.0) / result.energy_J,
        ports=ports / moving if moving > 0 else 1.0,
    )
    kind = np.arange(tiles)
    for name in {placement.component for placement in trial.mapping.placements if placement.resident}:
        alike = chip.tiles_of(name)
        kind[list(alike)] = tiles + min(alike)
    problem = NetworkProblem(made[0], between, kind)
    return NetworkStudy(replace(job, mapping=trial.mapping), problem, result, stakes, _transfers(transfers, rate))


def _take(transfers: dict[tuple[Tiles, ...], float], route: Route, size_B: float) -> None:
    """Share the bytes of a route among the transfers of its layers."""
    if route.source is None:
        return
    count = max(len(place.samples) for place in (route.source, *route.targets))
    for index in range(count):
        goals = receivers(route.source, route.targets, index)
        if goals:
            key = (route.source.at(index), *goals)
            transfers[key] = transfers.get(key, 0.0) + size_B / count


def _transfers(taken: dict[tuple[Tiles, ...], float], port_B_per_s: float) -> Transfers:
    """The transfers as flat arrays."""
    first, goal_first, amount, source, goal, port = [0], [0], [], [], [], []
    for here, *goals in taken:
        port.append(1.0 / min(len(here), *map(len, goals)) / port_B_per_s)
        parts = spread([np.array(group) for group in goals])
        for tile in here:
            for share, nodes in parts:
                kept = [int(node) for node in nodes if node != tile]
                amount.append(share / len(here))
                source.append(tile)
                goal += kept
                goal_first.append(len(goal))
        first.append(len(amount))
    return Transfers(
        np.array(list(taken.values())),
        np.array(port),
        np.array(first, np.int64),
        np.array(amount, np.float64),
        np.array(source, np.int32),
        np.array(goal_first, np.int64),
        np.array(goal, np.int32),
    )


def quickest(
    study: NetworkStudy, begun: NetworkDesign, *, places: bool = True, seed: int = 0, rounds: int = 30_000
) -> NetworkDesign:
    """A design's routes (and places) changed for the time of the transfers one by one; its links stay.

    On the links of the reference several turn models are tried as a start, and the best goes on.
    """
    starts = [begun]
    if begun.topology is study.problem.network.topology:
        tables = ((start, start_table(study.problem, start)) for start in (*STARTS[1:], *TURNS))
        starts += [
            replace(begun, table=table, classes=None, note=start) for start, table in tables if table is not None
        ]
        tried = [_quick(study, start, places, seed, rounds // 10) for start in starts]
        best = min(range(len(starts)), key=lambda index: tried[index][0])
        if tried[best][0] == np.inf:
            return begun
        starts = [starts[best]]
    return _quick(study, starts[0], places, seed, rounds)[1]


def _quick(
    study: NetworkStudy, begun: NetworkDesign, places: bool, seed: int, rounds: int
) -> tuple[float, NetworkDesign]:
    problem, state = study.problem, route_state_of(begun)
    if state is None:
        return np.inf, begun
    topology = begun.topology
    best = empty_state(topology.routers, topology.links)
    at = begun.place.astype(np.int32)
    best_at = at.copy()
    rate = np.minimum(topology.link_width_bits, problem.network.router.flit_bits) / 8 * problem.network.clock_Hz
    how = np.array([rounds, 0.3 if places else 0.0, 3e-3, 1e-5, 0.02])
    value = anneal_transfers(
        state, best, study.transfers, 1.0 / rate, problem.flow, problem.kind.astype(np.int32), at, best_at, how, seed
    )
    # The start itself has 1 and its latency and energy: what counts is time against the job's own network.
    own = seconds_of(study, reference_of(problem))
    made = replace(
        begun,
        table=best.next_channel.copy(),
        classes=None,
        place=best_at.astype(np.int64),
        note=f"{begun.note}, transfer by transfer",
    )
    return (seconds_of(study, made) / own if value < np.inf else np.inf), made


def seconds_of(study: NetworkStudy, design: NetworkDesign) -> float:
    """Seconds of all transfers, one after the other, on a design."""
    state = loaded_state_of(design)
    topology, network = design.topology, study.problem.network
    rate = np.minimum(topology.link_width_bits, network.router.flit_bits) / 8 * network.clock_Hz
    each = np.zeros(len(study.transfers.bytes))
    return float(total_s(study.transfers, state, design.place.astype(np.int32), 1.0 / rate, each))


def usual_ways(study: NetworkStudy) -> list[str]:
    """All ways of searching that have something to change on this chip."""
    return [name for name, way in WAYS.items() if not way.pillars or pillars_of(study.problem.network.topology)]


def budgeted(study: NetworkStudy, *, pillars: int | None = None, ports: int | None = None) -> NetworkStudy:
    """The study within so many ports a tile and, where the chip has another number, with so many pillars.

    That is the job on a chip with the links of its own dies, pillars evenly placed and elevator-first routes: what
    designs with as many pillars are compared with.
    """
    problem, most = study.problem, study.problem.most_ports if ports is None else ports
    if not 2 <= most <= MAX_PORTS + 1:
        fail(f"a tile has from 2 to {MAX_PORTS + 1} ports, its own among them", key="ports", value=most)
    problem = replace(problem, most_ports=most)
    if pillars is not None and pillars != pillars_of(problem.network.topology):
        job = with_design(study.job, reference_of(with_pillars(problem, pillars)))
        study = study_network(job)
        problem = replace(study.problem, most_ports=most)
    own = int(problem.network.topology.radix.max())
    if own > most:
        fix = f"Allow {own}, or fewer pillars."
        fail(f"the network has tiles with {own} ports, and a search begins there", key="ports", value=most, fix=fix)
    return replace(study, problem=problem)


def designs(
    study: NetworkStudy, ways: Sequence[str] | None = None, *, seed: int = 0, rounds: int = 0
) -> dict[str, list[NetworkDesign]]:
    """What each way of searching finds: by loads and hops, and for the time of each transfer.

    Where pillars may move, designs in which they stay are among what is found: no way finds less than a narrower one.
    """
    kept: dict[Way, list[NetworkDesign]] = {}

    def found(way: Way) -> list[NetworkDesign]:
        if way not in kept:
            kept[way] = _found(study, way, seed, rounds)
        return kept[way]

    wanted = {name: WAYS[name] for name in (usual_ways(study) if ways is None else ways)}
    return {
        name: [*found(way), *(found(way._replace(pillars=False)) if way.pillars else [])]
        for name, way in wanted.items()
    }


def _found(study: NetworkStudy, way: Way, seed: int, rounds: int) -> list[NetworkDesign]:
    problem = study.problem
    if not way.routes:
        return search_places(problem, seed=seed)
    if not way.links:
        first = quickest(study, reference_of(problem), places=False, seed=seed)
        return [first, quickest(study, first, seed=seed)] if way.places else [*search_routes(problem, seed=seed), first]
    made = search_links(problem, places=way.places, pillars=way.pillars, seed=seed, rounds=rounds)
    alone = made
    if any(design.channels_needed > 1 for design in made):
        # Routes are changed transfer by transfer in one class only: those are found beside.
        alone = search_links(problem, places=way.places, pillars=way.pillars, seed=seed, rounds=rounds, classes=1)
        made = [*made, *alone]
    return [*made, quickest(study, alone[0], places=way.places, seed=seed)]


def improve(
    study: NetworkStudy, ways: Sequence[str] | None = None, *, seed: int = 0, rounds: int = 0
) -> list[Improved]:
    """The best design of each way by the whole result's time (energy where times are equal), fastest first."""
    found = []
    for way, made in designs(study, ways, seed=seed, rounds=rounds).items():
        tried = []
        for design in made:
            job = with_design(study.job, design)
            tried.append(Improved(way, design, job, run_job(job)))
        found.append(min(tried, key=lambda one: (round(one.result.latency_s, 12), one.result.energy_J)))
    return sorted(found, key=lambda one: one.result.latency_s)


def improve_within(
    study: NetworkStudy, ways: Sequence[str], *, over_K: float, seed: int = 0, rounds: int = 0
) -> list[Improved]:
    """As :func:`improve`, without designs that are further than `over_K` beyond a temperature limit of the chip."""
    found = improve(study, ways, seed=seed, rounds=rounds)
    return [one for one in found if figures_of_result(one.result)["kelvin_over"] <= over_K]


__all__ = [
    "Improved",
    "NetworkStudy",
    "Stakes",
    "Way",
    "budgeted",
    "designs",
    "improve",
    "improve_within",
    "listed",
    "study_network",
    "usual_ways",
    "with_design",
]
