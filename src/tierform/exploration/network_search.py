"""A network found for its traffic: which tile stands where, which links there are, which routes they carry.

The reference is the network as the chip file has it, with its own routes (on a mesh: dimension order).  Every design is
compared with it at equal wire, within the same ports a router, with routes that cannot deadlock on any number of
virtual channels; latency, energy and peak load are ratios to it.

Latency is that of an empty network, weighted by bytes; a longer link takes the cycles of the reference's shortest
planar link for each such length that it has begun.  Energy is that of :class:`tierform.network.AnalyticNetwork`.  Peak
is the time of all bytes at the busiest link.  Limits: planar links join routers of one die; pillars stay where they are
unless a search moves them, interposer links always; each byte goes to one tile (a multicast is counted as so many
transfers).  Optima are not proven.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.placement_moves import Fixed, Weights, anneal_places, ordered_table, route_lists
from tierform.network import AnalyticNetwork, Topology, choose_routing
from tierform.network.topology import PLANAR, VERTICAL, IntArray, RouteTable

Floats = NDArray[np.float64]
# The most channels that leave a router: seven ports, of which one is the node's, as in a 3D mesh.
MOST_PORTS = 7
STARTS = ("own", "upper", "lower", "first")
# Routes that first climb a potential (signs of x and y, z upwards) and then descend it: a turn model without cycles.
TURNS = {"++": (1.0, 1.0), "+-": (1.0, -1.0), "-+": (-1.0, 1.0), "--": (-1.0, -1.0)}


@dataclass(frozen=True, slots=True)
class Ratios:
    """Latency, energy and peak load of a design over those of the reference."""

    latency: float
    energy: float
    peak: float

    @property
    def values(self) -> tuple[float, float, float]:
        """The three, in order."""
        return self.latency, self.energy, self.peak


@dataclass(frozen=True, eq=False)
class NetworkProblem:
    """A network with one node a router, the bytes between its nodes, and which of them may change places.

    `bytes_between` is (nodes, nodes); nodes of one `kind` may change places.  `power_W` and `influence` (kelvin at a
    place for a watt at another) bring heat into the search of places.
    """

    network: AnalyticNetwork
    bytes_between: Floats
    kind: NDArray[np.int64]
    most_ports: int = MOST_PORTS
    power_W: Floats | None = None
    influence: Floats | None = None

    def __post_init__(self) -> None:
        n = self.network.topology.routers
        if not self.network.one_node_each or self.bytes_between.shape != (n, n) or len(self.kind) != n:
            fail("one node a router is needed, with its bytes and its kind", key="bytes_between", value=n)
        if not self.bytes_between.sum() > 0:
            fail("there is no traffic to place", key="bytes_between", value=0)

    @cached_property
    def flow(self) -> Floats:
        """(n, n) bytes that enter the network."""
        flow: Floats = np.array(self.bytes_between, dtype=np.float64)
        np.fill_diagonal(flow, 0.0)
        return flow

    @cached_property
    def cycles(self) -> Floats:
        """(links,) cycles of a hop: the router and the wire."""
        return self.network.router.pipeline_cycles + self.network.topology.link_latency_cycles.astype(np.float64)

    @cached_property
    def energy(self) -> Floats:
        """(links,) J for a byte and hop: the router and the wire."""
        return 8 * self.network.energy.router_J_per_bit + np.asarray(self.network.link_J_per_B, np.float64)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """(n, n) the reference's routes."""
        return np.ascontiguousarray(
            self.network.routing.next_links(np.arange(len(self.kind), dtype=np.int32)), np.int32
        )

    @cached_property
    def reference(self) -> tuple[float, float, float]:
        """Mean cycles, J for a byte, and s at the busiest link of the reference."""
        return reference_of(self).figures

    @cached_property
    def pitch_m(self) -> float:
        """The shortest planar link, and the length that takes its cycles."""
        planar = self.network.topology.link_length_m[self.network.topology.link_kind == PLANAR]
        return float(planar.min()) if len(planar) else 0.0

    @cached_property
    def pitch_cycles(self) -> int:
        """The cycles of a planar link of that length."""
        planar = self.network.topology.link_latency_cycles[self.network.topology.link_kind == PLANAR]
        return int(planar.min()) if len(planar) else 1


@dataclass(frozen=True, eq=False)
class NetworkDesign:
    """A network that was found: its links and routes, and the router of each node of the problem."""

    problem: NetworkProblem
    topology: Topology
    table: NDArray[np.int32]
    place: NDArray[np.int64]
    cycles: Floats = field(repr=False)
    energy: Floats = field(repr=False)
    classes: NDArray[np.int32] | None = field(default=None, repr=False)
    note: str = ""

    @cached_property
    def loads(self) -> Floats:
        """(links,) bytes on each link."""
        first, channels = route_lists(self.table, _ints(self.topology.link_target))
        moved = np.zeros_like(self.problem.flow)
        moved[np.ix_(self.place, self.place)] = self.problem.flow
        amount = np.repeat(moved.ravel(), np.diff(first))
        loads: Floats = np.bincount(channels, weights=amount, minlength=self.topology.links).astype(np.float64)
        return loads

    @cached_property
    def figures(self) -> tuple[float, float, float]:
        """Mean cycles of a byte's head, J for a byte, and s at the busiest link."""
        problem, total = self.problem, float(self.problem.flow.sum())
        empty = problem.network.zero_load_cycles(0, 0)
        rate = np.minimum(self.topology.link_width_bits, problem.network.router.flit_bits)
        busiest = float((self.loads * 8 / rate).max()) / problem.network.clock_Hz
        late = float(self.loads @ self.cycles) / total + empty
        spent = float(self.loads @ self.energy) / total + 8 * problem.network.energy.router_J_per_bit
        return late, spent, busiest

    @cached_property
    def ratios(self) -> Ratios:
        """Against the reference."""
        return Ratios(*(mine / its for mine, its in zip(self.figures, self.problem.reference, strict=True)))

    @property
    def wire_m(self) -> float:
        """Planar wire of all links, one of each pair of channels, at the reference's width."""
        planar = self.topology.link_kind == PLANAR
        return float(self.topology.link_length_m[planar].sum()) / 2

    @property
    def pillars(self) -> int:
        """Vertical links, one of each pair of channels."""
        return int((self.topology.link_kind == VERTICAL).sum()) // 2

    @property
    def ports(self) -> int:
        """The most ports of a router, its node's counted."""
        return int(self.topology.radix.max())

    @property
    def score(self) -> float:
        """Product of the three ratios: by what designs are ranked."""
        return float(np.prod(self.ratios.values))

    @property
    def channels_needed(self) -> int:
        """Virtual channels without which the routes could deadlock."""
        return 1 if self.classes is None else int(self.classes.max()) + 1

    @cached_property
    def network(self) -> AnalyticNetwork:
        """The network with these links and routes (nodes at their routers; `place` says which tile is where)."""
        reference = self.problem.network
        topology = replace(self.topology, grid=None, structure=RouteTable(self.table, self.classes))
        return AnalyticNetwork(
            topology, choose_routing(topology), reference.router, reference.clock_Hz, reference.energy
        )


def _ints(numbers: IntArray) -> NDArray[np.int32]:
    return np.ascontiguousarray(numbers, np.int32)


def _fixed(problem: NetworkProblem, energy_weight: float) -> Fixed:
    late, spent, busiest = problem.reference
    total, n = float(problem.flow.sum()), len(problem.kind)
    weight = (problem.cycles / late + energy_weight * problem.energy / spent) * 2 / (1 + energy_weight) / total
    first, channels = route_lists(problem.table, _ints(problem.network.topology.link_target))
    sums = np.concatenate([[0.0], np.cumsum(weight[channels])])
    rate = np.minimum(problem.network.topology.link_width_bits, problem.network.router.flit_bits)
    return Fixed(
        flow=problem.flow,
        cost=np.ascontiguousarray((sums[first[1:]] - sums[first[:-1]]).reshape(n, n)),
        first=first,
        channels=channels,
        relative=8 / rate / problem.network.clock_Hz / busiest,
        group=np.asarray(problem.kind, np.int64),
        power=np.zeros(n) if problem.power_W is None else np.asarray(problem.power_W, np.float64),
        influence=np.zeros((n, n)) if problem.influence is None else np.asarray(problem.influence, np.float64),
    )


def _classes_of(topology: Topology) -> NDArray[np.int32] | None:
    structure = topology.structure
    given = structure.classes if isinstance(structure, RouteTable) else None
    return None if given is None else _ints(given)


def reference_of(problem: NetworkProblem) -> NetworkDesign:
    """The design of the reference: what is left where nothing is to be gained."""
    place = np.arange(len(problem.kind), dtype=np.int64)
    topology = problem.network.topology
    return NetworkDesign(
        problem=problem,
        topology=topology,
        table=problem.table,
        classes=_classes_of(topology),
        place=place,
        cycles=problem.cycles,
        energy=problem.energy,
        note="nothing to gain",
    )


def search_places(
    problem: NetworkProblem, *, seed: int = 0, steps: int = 250_000, heat_weight: float = 0.0
) -> list[NetworkDesign]:
    """The front of placements on the network as it is, best product first; routes and links stay.

    Where no placement is better than the reference, the one design is the reference itself, and its note says so.
    """
    start = np.arange(len(problem.kind), dtype=np.int64)
    found = [reference_of(problem)]
    for energy_weight in (1.0, 10.0):
        place = start.copy()
        weights = Weights(peak=0.3, heat=heat_weight, steps=steps, warm=0.02, cold=1e-5, seed=seed)
        anneal_places(_fixed(problem, energy_weight), weights, place)
        found.append(replace(found[0], place=place, note="placement"))
    return front(found)


def front(designs: Iterable[NetworkDesign]) -> list[NetworkDesign]:
    """Designs that no other beats (by more than rounding) in latency, energy and peak at once, best product first."""
    kept: list[NetworkDesign] = []
    for design in designs:
        mine = np.array(design.ratios.values)
        if any((np.array(other.ratios.values) <= mine * (1 + 1e-9)).all() for other in kept):
            continue
        kept = [other for other in kept if not (mine <= np.array(other.ratios.values) * (1 + 1e-9)).all()]
        kept.append(design)
    return sorted(kept, key=lambda design: design.score)


def links_of(topology: Topology, *kinds: int) -> NDArray[np.int32]:
    """(links, 2) the two channels of each link of these kinds, one kind after the other."""
    back = {
        (int(a), int(b)): link
        for link, (a, b) in enumerate(zip(topology.link_target, topology.link_source, strict=True))
    }
    ends = zip(topology.link_source, topology.link_target, strict=True)
    found = [(link, back[int(a), int(b)]) for link, (a, b) in enumerate(ends) if a < b]
    both = np.array(found, np.int32).reshape(-1, 2)
    return np.concatenate([both[topology.link_kind[both[:, 0]] == kind] for kind in kinds])


def start_table(problem: NetworkProblem, start: str) -> NDArray[np.int32] | None:
    """The routes from which the search starts: planar moves after climbing ("upper"), after going down, or last."""
    topology = problem.network.topology
    if start == "own":
        return problem.table
    ahead = topology.position_m[topology.link_target] - topology.position_m[topology.link_source]
    axis = np.argmax(np.abs(ahead), axis=1)
    sign = np.sign(np.take_along_axis(ahead, axis[:, None], 1)[:, 0])
    place = np.take_along_axis(topology.position_m[topology.link_target], axis[:, None], 1)[:, 0]
    if start in TURNS:
        potential = topology.position_m @ np.array([*TURNS[start], 1.0])
        climbs = potential[topology.link_target] > potential[topology.link_source]
        reached = potential[topology.link_target]
        order = np.lexsort((np.where(climbs, -reached, reached), climbs)).astype(np.int32)
        return _table_of(problem, order)
    if not (topology.link_kind == VERTICAL).any():
        return None
    early = {"upper": (axis == 2) & (sign > 0), "lower": (axis == 2) & (sign < 0), "first": axis == 2}[start]
    order = np.lexsort((-sign * place, -np.where(early, -1, axis))).astype(np.int32)
    return _table_of(problem, order)


def _table_of(problem: NetworkProblem, order: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """The routes whose channels fall in an order (the last ones first), or None where there is no way."""
    topology = problem.network.topology
    table = ordered_table(
        order, _ints(topology.link_source), _ints(topology.link_target), problem.cycles, topology.routers
    )
    missing = (table < 0).sum() > topology.routers
    return None if missing else table


class Ways(NamedTuple):
    """Channels (source -1: not built), routes over them, and their classes of virtual channels, if several."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    table: NDArray[np.int32]
    classes: NDArray[np.int32] | None = None


def design_of(
    problem: NetworkProblem, ways: Ways, at: NDArray[np.int32], tables: tuple[Floats, Floats, Floats], note: str
) -> NetworkDesign:
    """The design of channels and routes: what is not built is left out."""
    old = problem.network.topology
    built = np.flatnonzero(ways.source >= 0)
    number = np.full(old.links, -1, np.int32)
    number[built] = np.arange(len(built), dtype=np.int32)
    source, target = ways.source[built], ways.target[built]
    planar = old.link_kind[built] == PLANAR
    cycles, energy, apart = (np.where(planar, whole[source, target], 0.0) for whole in tables)
    late = np.where(planar, cycles, problem.cycles[built])
    topology = replace(
        old,
        name=f"{old.name} searched",
        link_source=source.copy(),
        link_target=target.copy(),
        link_length_m=np.where(planar, apart, old.link_length_m[built]),
        link_width_bits=old.link_width_bits[built],
        link_latency_cycles=np.rint(late - problem.network.router.pipeline_cycles).astype(np.int32),
        link_kind=old.link_kind[built],
        grid=None,
    )
    table = np.where(ways.table >= 0, number[ways.table], -1).astype(np.int32)
    spent = np.where(planar, energy, problem.energy[built])
    return NetworkDesign(
        problem=problem,
        topology=topology,
        table=table,
        place=at.astype(np.int64),
        cycles=late,
        energy=spent,
        classes=ways.classes,
        note=note,
    )


__all__ = ["NetworkDesign", "NetworkProblem", "Ratios", "front", "search_places"]
