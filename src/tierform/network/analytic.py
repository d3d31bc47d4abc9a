"""What a transfer costs without simulating it: latency, bandwidth, energy from routes and link loads.

:class:`AnalyticNetwork` answers two questions.  ``flow_cost`` and ``multicast_cost``: one bulk transfer between groups
of nodes, alone on the network: the head's latency, the time per byte at the busiest link or port, energy, and the
share of each byte on each link (so that a caller can add up transfers that run together).  ``latency`` and
``saturation``: steady random traffic, with queueing at every channel (see :mod:`tierform.network.queueing`).

Routes and loads are exact; waiting is a model.  A node's own traffic to itself does not enter the network in
``flow_cost``, which is Numpy only; steady traffic is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tierform.errors import fail
from tierform.network.loads import hop_counts, product_loads, tree_loads
from tierform.network.parameters import EnergyParameters, RouterParameters
from tierform.network.routing import Routing, choose_routing
from tierform.network.topology import INTERPOSER, PLANAR, VERTICAL, FloatArray, IntArray, Topology
from tierform.network.ways import Way, remembered

if TYPE_CHECKING:
    from tierform.network.queueing import LatencyEstimate

Cycles = TypeVar("Cycles", float, FloatArray)
# Cycles outside routers and links: into and out of the network over the node's channels, and one in the source.
PORT_CYCLES = 3


@dataclass(frozen=True, slots=True)
class FlowCost:
    """One bulk transfer, alone on the network.

    `head_latency_s` is the mean over all pairs of the first flit's time, `worst_head_latency_s` that of the longest
    route; `seconds_per_B` is the time per byte of the whole transfer at its busiest link or node port;
    `link_share[l]` is the fraction of each byte that crosses link l, and `mean_hops` their sum.
    """

    head_latency_s: float
    worst_head_latency_s: float
    seconds_per_B: float
    energy_J_per_B: float
    router_energy_J_per_B: float
    link_energy_J_per_B: float
    mean_hops: float
    local_fraction: float
    link_share: FloatArray

    def time_s(self, size_B: float) -> float:
        """Time until the last of `size_B` bytes has arrived."""
        if size_B <= 0 or self.local_fraction >= 1:
            return 0.0
        return self.worst_head_latency_s + size_B * self.seconds_per_B

    def energy_J(self, size_B: float) -> float:
        """Energy of moving `size_B` bytes."""
        return size_B * self.energy_J_per_B


@dataclass(frozen=True, slots=True)
class WayCosts:
    """Costs of several transfers, one entry for each; as of :class:`FlowCost`.  `link_share` is (transfers, links)."""

    head_s: FloatArray
    worst_head_s: FloatArray
    seconds_per_B: FloatArray
    router_J_per_B: FloatArray
    link_J_per_B: FloatArray
    link_share: FloatArray


def spread(groups: Sequence[IntArray]) -> list[tuple[float, IntArray]]:
    """(share of the bytes, the nodes that they go to) where each byte goes to one node of every group.

    The n nodes of a group take the bytes' n equal parts in order.
    """
    whole = lcm(*(len(group) for group in groups))
    cuts = sorted({place * (whole // len(group)) for group in groups for place in range(len(group) + 1)})
    return [
        ((end - first) / whole, np.unique([group[first * len(group) // whole] for group in groups]))
        for first, end in pairwise(cuts)
    ]


class AnalyticNetwork:
    """A topology with a routing, a router, a clock and energies, ready to cost transfers."""

    def __init__(
        self,
        topology: Topology,
        routing: Routing | str = "default",
        router_parameters: RouterParameters | None = None,
        clock_Hz: float = 1e9,
        energy_parameters: EnergyParameters | None = None,
    ) -> None:
        if not clock_Hz > 0:
            fail("the clock must be positive", key="clock_Hz", value=clock_Hz)
        self.topology = topology
        self.routing = routing if isinstance(routing, Routing) else choose_routing(topology, routing)
        self.router = router_parameters or RouterParameters()
        self.clock_Hz = clock_Hz
        self.energy = energy_parameters or EnergyParameters()

    # ---- steady traffic

    def latency(
        self,
        traffic_matrix: FloatArray,
        rate: float,
        packet_flits: float = 1.0,
        flits_squared: float | None = None,
    ) -> LatencyEstimate:
        """Mean latency of random traffic: (nodes, nodes) shares (rows sum to 1) at `rate` flits per node and cycle.

        `flits_squared` is the mean of the squares of packets' sizes where they differ.
        """
        from tierform.network.queueing import estimate

        return estimate(self, np.asarray(traffic_matrix, float), rate, packet_flits, flits_squared)

    def saturation(self, traffic_matrix: FloatArray) -> float:
        """The rate (flits per node and cycle) above which the traffic cannot be carried."""
        from tierform.network.queueing import saturation_rate

        return saturation_rate(self, np.asarray(traffic_matrix, float))

    # ---- one transfer at a time

    def flow_cost(self, sources: Sequence[int] | IntArray, destinations: Sequence[int] | IntArray) -> FlowCost:
        """The cost of a transfer spread evenly from all `sources` to all `destinations` (arrays of node numbers)."""
        start, goal = self._nodes(sources, "sources"), self._nodes(destinations, "destinations")
        key = (start.tobytes(), goal.tobytes())
        return self._cost(remembered(self.routing, key, lambda: self.flow_way(start, goal)))

    def flow_way(self, start: IntArray, goal: IntArray) -> Way:
        """The way of a transfer spread evenly from all of `start` to all of `goal`: what the wiring decides."""
        share = product_loads(self.routing, self._weights(start), self._goal_weights(goal))
        here = np.bincount(start, minlength=self.topology.nodes) / len(start)
        there = np.bincount(goal, minlength=self.topology.nodes) / len(goal)
        local = float(here @ there)
        port = max(float((here * (1 - there)).max()), float((there * (1 - here)).max()))
        return Way(share, share, local, local, port, self._farthest(start, goal))

    def multicast_cost(
        self, sources: int | Sequence[int] | IntArray, destinations: Sequence[int | Sequence[int] | IntArray] | IntArray
    ) -> FlowCost:
        """The cost of sending each byte to every one of `destinations`; with several sources each sends an equal part.

        A destination is a node, or a group of nodes over which the bytes are spread in order, equal parts to each.
        Every byte crosses a link of the tree of routes once; routers copy it where the tree branches.
        """
        start = self._nodes(sources, "sources")
        groups = [self._nodes(group, "destinations") for group in destinations]
        if not groups:
            fail("at least one node is needed", key="destinations")
        key = (start.tobytes(), b"", *(group.tobytes() for group in groups))
        return self._cost(remembered(self.routing, key, lambda: self.multicast_way(start, groups)))

    def multicast_way(self, start: IntArray, groups: list[IntArray]) -> Way:
        """The way of a multicast from all of `start` to every one of `groups`: what the wiring decides."""
        nodes, router = self.topology.nodes, self.topology.exits
        here, from_routers = np.bincount(start, minlength=nodes) / len(start), self._weights(start)
        share, deliveries = np.zeros(self.topology.links), np.zeros(nodes)
        injections, alone = np.zeros(nodes), 0.0
        for part, goals in spread(groups):
            share += part * tree_loads(self.routing, from_routers, np.unique(router[goals]).astype(np.int32))
            deliveries[goals] += part * (1 - here[goals])
            leaving = here.copy()
            if len(goals) == 1:
                leaving[goals] = 0.0
                alone += part * float(here[goals[0]])
            injections += part * leaving
        # A head's way is that to one destination, whatever the size of the tree.
        ways, local = np.zeros(self.topology.links), 0.0
        for goal in groups:
            ways += product_loads(self.routing, from_routers, self._goal_weights(goal)) / len(groups)
            local += float(here[goal].mean()) / len(groups)
        port = max(float(injections.max()), float(deliveries.max()))
        return Way(share, ways, alone, local, port, self._farthest(start, np.concatenate(groups)))

    def _cost(self, way: Way) -> FlowCost:
        costs = self.costs([way])
        router_J, link_J = float(costs.router_J_per_B[0]), float(costs.link_J_per_B[0])
        return FlowCost(
            head_latency_s=float(costs.head_s[0]),
            worst_head_latency_s=float(costs.worst_head_s[0]),
            seconds_per_B=float(costs.seconds_per_B[0]),
            energy_J_per_B=router_J + link_J,
            router_energy_J_per_B=router_J,
            link_energy_J_per_B=link_J,
            mean_hops=float(way.share.sum()),
            local_fraction=way.local,
            link_share=way.share,
        )

    def costs(self, ways: Sequence[Way]) -> WayCosts:
        """What transfers over these ways cost, each alone on the network."""
        share = np.stack([way.share for way in ways])
        local, port = np.array([way.local for way in ways]), np.array([way.port for way in ways])
        hops = share.sum(axis=1)
        seconds = (share / self.link_B_per_s).max(axis=1, initial=0.0)
        mean = share if all(way.mean_share is way.share for way in ways) else np.stack([w.mean_share for w in ways])
        crossing = np.array([1 - way.mean_local for way in ways])
        least = np.where(crossing > 0, crossing, 1.0)
        cycles = self.zero_load_cycles(mean.sum(axis=1) / least, mean @ self.link_latency_cycles / least)
        cycles = np.where(crossing > 0, cycles, 0.0)
        farthest = {far: self._worst_cycles(far) for far in {way.far for way in ways}}
        worst = np.where(local < 1, np.maximum([farthest[way.far] for way in ways], cycles), 0.0)
        return WayCosts(
            head_s=np.minimum(cycles, worst) / self.clock_Hz,
            worst_head_s=worst / self.clock_Hz,
            seconds_per_B=np.maximum(seconds, port / self.port_B_per_s),
            router_J_per_B=8 * self.energy.router_J_per_bit * (hops + 1 - local),
            link_J_per_B=share @ self.link_J_per_B,
            link_share=share,
        )

    def zero_load_cycles(self, links: Cycles, on_wires: Cycles) -> Cycles:
        """Cycles of one flit over a route of so many links, `on_wires` of them on the links themselves."""
        return (links + 1) * self.router.pipeline_cycles + on_wires + PORT_CYCLES

    def _farthest(self, start: IntArray, goal: IntArray) -> tuple[int, ...]:
        """The longest way on each axis where routes follow the axes, else the hops of the longest route."""
        first = np.unique(self.topology.node_router[start])
        last = np.unique(self.topology.exits[goal]).astype(np.int32)
        grid = self.topology.grid
        if grid is None or not self.routing.is_product_form:
            return (int(hop_counts(self.routing, last)[first].max()),)
        if self.routing.via == "any":
            first = last = np.arange(self.topology.routers, dtype=np.int32)
        found = []
        for axis, size in enumerate(grid.shape):
            a, b = grid.coordinates[first, axis], grid.coordinates[last, axis]
            if grid.wraps[axis]:
                ahead = (np.unique(b)[None, :] - np.unique(a)[:, None]) % size
                found.append(int(np.minimum(ahead, size - ahead).max()))
            else:
                found.append(max(int(b.max() - a.min()), int(a.max() - b.min()), 0))
        return tuple(found)

    def _worst_cycles(self, far: tuple[int, ...]) -> float:
        """Cycles of a head over the longest route."""
        pipeline = self.router.pipeline_cycles
        if self.topology.grid is not None and self.routing.is_product_form:
            phases = 2 if self.routing.via == "any" else 1
            cycles = sum(steps * (pipeline + slow) for steps, slow in zip(far, self._axis_latency, strict=True))
            return phases * cycles + pipeline + PORT_CYCLES
        extra = int(self.topology.link_latency_cycles.max(initial=1))
        return float(far[0]) * (pipeline + extra) + pipeline + PORT_CYCLES

    @cached_property
    def _axis_latency(self) -> list[float]:
        grid = self.topology.grid
        assert grid is not None
        found = []
        for axis in range(len(grid.shape)):
            links = grid.forward[axis][grid.forward[axis] >= 0]
            found.append(float(self.topology.link_latency_cycles[links].mean()) if len(links) else 0.0)
        return found

    @cached_property
    def link_B_per_s(self) -> FloatArray:
        """(links,) bandwidth of each link."""
        return np.minimum(self.topology.link_width_bits, self.router.flit_bits) * self.clock_Hz / 8

    @cached_property
    def link_cycles(self) -> FloatArray:
        """(links,) cycles that a flit occupies each link."""
        cycles: FloatArray = np.maximum(self.router.flit_bits / self.topology.link_width_bits, 1.0)
        return cycles

    @cached_property
    def link_latency_cycles(self) -> FloatArray:
        """(links,) latency of each link."""
        return self.topology.link_latency_cycles.astype(float)

    @cached_property
    def one_node_each(self) -> bool:
        """True when node n is at router n."""
        topology = self.topology
        return topology.exit_router is None and bool(np.array_equal(topology.node_router, np.arange(topology.routers)))

    @property
    def port_B_per_s(self) -> float:
        """Bandwidth of a node's injection or ejection port: one flit per cycle."""
        return self.router.flit_bits * self.clock_Hz / 8

    @cached_property
    def link_J_per_B(self) -> FloatArray:
        """(links,) energy of one byte on each link."""
        length, kind = self.topology.link_length_m, self.topology.link_kind
        energy = np.zeros(self.topology.links)
        energy[kind == PLANAR] = self.energy.wire_J_per_bit_m * length[kind == PLANAR]
        energy[kind == VERTICAL] = self.energy.vertical_J_per_bit
        over = kind == INTERPOSER
        reach = self.energy.interposer_reach_m if self.energy.interposer_reach_m > 0 else np.inf
        driven = np.minimum(length[over], reach)
        energy[over] = self.energy.interposer_J_per_bit + self.energy.interposer_wire_J_per_bit_m * driven
        energy[over] += self.energy.wire_J_per_bit_m * (length[over] - driven)
        return 8 * energy

    @property
    def leakage_W(self) -> float:
        """Leakage of all routers."""
        return self.topology.routers * self.energy.router_leakage_W

    @property
    def area_m2(self) -> float:
        """Area of all routers, of pillars and of the ends of interposer links (once per bit and directed link)."""
        kind, width = self.topology.link_kind, self.topology.link_width_bits
        pillars = float(width[kind == VERTICAL].sum()) * self.energy.vertical_area_m2_per_bit
        drivers = float(width[kind == INTERPOSER].sum()) * self.energy.interposer_area_m2_per_bit
        return self.topology.routers * self.energy.router_area_m2 + pillars + drivers

    def _nodes(self, given: int | Sequence[int] | IntArray, name: str) -> IntArray:
        nodes = np.atleast_1d(np.asarray(given)).astype(np.int64)
        if nodes.ndim != 1 or len(nodes) == 0:
            fail("at least one node is needed", key=name)
        if nodes.min() < 0 or nodes.max() >= self.topology.nodes:
            fail(f"nodes are numbered 0 to {self.topology.nodes - 1}", key=name, value=int(nodes.max()))
        return nodes

    def _weights(self, nodes: IntArray) -> FloatArray:
        return np.bincount(self.topology.node_router[nodes], minlength=self.topology.routers) / len(nodes)

    def _goal_weights(self, nodes: IntArray) -> FloatArray:
        """(routers,) weights of goals; (places, routers) where the route depends on the node's place at its router."""
        topology = self.topology
        if not self.routing.by_node:
            return np.bincount(topology.exits[nodes], minlength=topology.routers) / len(nodes)
        weights = np.zeros((len(self.routing.parts), topology.routers))
        np.add.at(weights, (topology.place_at_exit[nodes], topology.exits[nodes]), 1.0 / len(nodes))
        return weights
