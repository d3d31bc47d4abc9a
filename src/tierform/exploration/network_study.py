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

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.chip.links import planar_pairs
from tierform.errors import fail
from tierform.exploration.evaluator import figures_of_result
from tierform.exploration.link_search import route_state_of, search_links, search_routes
from tierform.exploration.network_search import (
    STARTS,
    TURNS,
    NetworkDesign,
    NetworkProblem,
    reference_of,
    search_places,
    start_table,
)
from tierform.exploration.route_state import empty_state
from tierform.exploration.transfer_moves import Transfers, anneal_transfers, total_s
from tierform.mapping import Mapping
from tierform.network.analytic import spread
from tierform.network.topology import PLANAR
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
WAYS = ("places", "routes", "places and routes", "links", "places and links")


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
        starts += [replace(begun, table=table, note=start) for start, table in tables if table is not None]
        tried = [_quick(study, start, places, seed, rounds // 10) for start in starts]
        best = min(range(len(starts)), key=lambda index: tried[index][0])
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
        place=best_at.astype(np.int64),
        note=f"{begun.note}, transfer by transfer",
    )
    return (seconds_of(study, made) / own if value < np.inf else np.inf), made


def seconds_of(study: NetworkStudy, design: NetworkDesign) -> float:
    """Seconds of all transfers, one after the other, on a design."""
    state = route_state_of(design)
    if state is None:
        return np.inf
    topology, network = design.topology, study.problem.network
    rate = np.minimum(topology.link_width_bits, network.router.flit_bits) / 8 * network.clock_Hz
    each = np.zeros(len(study.transfers.bytes))
    return float(total_s(study.transfers, state, design.place.astype(np.int32), 1.0 / rate, each))


def listed(chip: Chip) -> Chip:
    """The same chip with every planar link and route named in its file: what a searched network is compared with."""
    spec, made = chip.network, network_of(chip)
    if spec is None or made is None:
        return chip
    network, node = made
    topology = network.topology
    if topology.routers != len(chip.tiles):
        fail("one router a tile is needed", value=topology.routers)
    tile = np.argsort(topology.node_router[node])
    table = network.routing.next_links(np.arange(topology.routers, dtype=np.int32))
    here = np.arange(topology.routers)
    ahead = np.where(table >= 0, topology.link_target[table], here[:, None])
    ahead[here, here] = here
    # Tile by tile: rows and columns are tiles, not routers.
    router = topology.node_router[node]
    routes = tile[ahead[np.ix_(router, router)]]
    return _with_links(chip, planar_pairs(chip.package.dies, spec.links), routes, spec.links.length_per_cycle)


def _with_links(
    chip: Chip,
    pairs: Sequence[tuple[int, int]],
    routes: NDArray[np.int64],
    length_per_cycle: object,
    classes: NDArray[np.int32] | None = None,
) -> Chip:
    links: dict[str, object] = {
        "kind": "list",
        "list": [[int(a), int(b)] for a, b in pairs],
        "routes": [[int(tile) for tile in row] for row in routes],
    }
    if classes is not None:
        links["classes"] = [[int(kind) for kind in row] for row in classes]
    if length_per_cycle is not None:
        links["length_per_cycle"] = length_per_cycle if isinstance(length_per_cycle, str) else str(length_per_cycle)
    return chip.vary({"network.links": links, "network.routing": None})


def with_design(study: NetworkStudy, design: NetworkDesign) -> Job:
    """The job with a design: the links and routes in its chip, the weights at their new tiles in its mapping."""
    chip, mapping = study.job.chip, study.job.mapping
    assert isinstance(chip, Chip) and isinstance(mapping, Mapping)
    topology = design.topology
    planar = np.flatnonzero((topology.link_kind == PLANAR) & (topology.link_source < topology.link_target))
    pairs = [(int(topology.link_source[link]), int(topology.link_target[link])) for link in planar]
    here = np.arange(topology.routers)
    routes = np.where(design.table >= 0, topology.link_target[design.table], here[:, None]).astype(np.int64)
    routes[here, here] = here
    classes = design.classes if design.channels_needed > 1 else None
    # A hair longer than the pitch, so that a link of whole pitches is not a cycle longer by rounding.
    pitch = f"{study.problem.pitch_m * (1 + 1e-6):.9g} m" if study.problem.pitch_m > 0 else None
    weights = [
        replace(item, tiles=tuple(tuple(int(design.place[tile]) for tile in tiles) for tiles in item.tiles))
        for item in mapping.placements
    ]
    moved = replace(mapping, placements=tuple(weights))
    return replace(study.job, chip=_with_links(chip, pairs, routes, pitch, classes), mapping=moved)


def designs(
    study: NetworkStudy, ways: Sequence[str] = WAYS, *, seed: int = 0, rounds: int = 0
) -> dict[str, list[NetworkDesign]]:
    """What each way of searching finds: by loads and hops, and for the time of each transfer."""
    problem = study.problem
    found: dict[str, list[NetworkDesign]] = {}
    for way in ways:
        if way == "places":
            found[way] = search_places(problem, seed=seed)
        elif way == "routes":
            made = search_routes(problem, seed=seed)
            found[way] = [*made, quickest(study, made[0], places=False, seed=seed)]
        elif way == "places and routes":
            first = quickest(study, reference_of(problem), places=False, seed=seed)
            found[way] = [first, quickest(study, first, seed=seed)]
        else:
            places = way == "places and links"
            made = search_links(problem, places=places, seed=seed, rounds=rounds)
            if any(design.channels_needed > 1 for design in made):
                # Routes are changed transfer by transfer in one class only: those are found beside.
                found[way] = made
                made = search_links(problem, places=places, seed=seed, rounds=rounds, classes=1)
            found[way] = [*found.get(way, []), *made, quickest(study, made[0], places=places, seed=seed)]
    return found


def improve(study: NetworkStudy, ways: Sequence[str] = WAYS, *, seed: int = 0, rounds: int = 0) -> list[Improved]:
    """The best design of each way by the whole result's time (energy where times are equal), fastest first."""
    found = []
    for way, made in designs(study, ways, seed=seed, rounds=rounds).items():
        tried = []
        for design in made:
            job = with_design(study, design)
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
    "designs",
    "improve",
    "improve_within",
    "listed",
    "study_network",
    "with_design",
]
