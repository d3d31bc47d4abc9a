"""Queueing latency and saturation of steady traffic in closed form, from link loads alone.

Every channel is a queue with deterministic service of one flit per cycle (longer on narrow links).  A packet of L
flits holds its channel for L cycles, so with load rho (flits per cycle) an arrival from many independent sources waits

    W = rho (L (1 - s) / 2 + g) / (1 - rho / p)

The first part is M/D/1 in units of a packet (Pollaczek and Khinchine); s, the sum of squares of the shares with which
the channel's inputs feed it, takes away waiting for packets of one's own input, which come one after the other already
and cannot collide.  The second part is what a switch with one allocation a cycle loses even when the output is free
(its input, or a grant, went elsewhere); g and the pole p are fitted to this project's cycle engine.  Waiting at a
source is M/D/1 at the injection channel.  Mean latency is the zero-load latency plus the waits along the routes,
weighted by the traffic.  Saturation is where the busiest channel's load reaches the limit, also fitted.  (Structure
after Kiasari, Lu and Jantsch, IEEE TVLSI 21(1), 2013.)

Limits: below about 70 % of saturation; Poisson-like sources; minimal adaptive routing is taken as half XY, half YX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tierform.errors import fail
from tierform.network.loads import table_loads
from tierform.network.route_sums import route_sums
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray

if TYPE_CHECKING:
    from tierform.network.analytic import AnalyticNetwork

# Fitted on the cycle engine (4 virtual channels of 8 flits, one iteration of iSLIP): the load that a channel reaches in
# practice, the pole of the waiting time, and the switch's loss.
CHANNEL_LIMIT = 0.86
LATENCY_POLE = 1.05
SWITCH_CONFLICT = 0.6
# The largest matrix (entries) of which a copy is kept, to know it again at the next rate.
KEPT_SIZE = 1 << 22


@dataclass(frozen=True, eq=False)
class LatencyEstimate:
    """Mean latencies in cycles, the load of each link in flits per cycle, and whether the traffic can be carried."""

    packet_latency_cycles: float
    network_latency_cycles: float
    hops: float
    link_load: FloatArray
    link_wait_cycles: FloatArray
    stable: bool


def estimate(
    network: AnalyticNetwork, traffic_matrix: FloatArray, rate: float, packet_flits: float = 1.0
) -> LatencyEstimate:
    """Latency of `traffic_matrix` (nodes, nodes; rows are shares) at `rate` flits per node and cycle."""
    if rate < 0 or not np.isfinite(rate) or packet_flits < 1:
        fail("the rate must not be negative and packets have at least one flit", key="rate", value=rate)
    flows = _flows(network, traffic_matrix)
    load = rate * flows.link_load * flows.service
    port_in, port_out = rate * flows.injected, rate * flows.ejected
    peak = max(float(load.max(initial=0)), float(port_out.max(initial=0)))
    stable = peak < CHANNEL_LIMIT and float(port_in.max(initial=0)) < 1
    if not stable:
        return LatencyEstimate(np.inf, np.inf, flows.hops, load, np.full(len(load), np.inf), False)
    wait = _wait(load, packet_flits, 1 - flows.same_input) * flows.service
    eject_wait = _wait(port_out, packet_flits, 1.0)
    source_wait = port_in * packet_flits / (2 * (1 - port_in))
    zero = flows.zero_load_cycles + packet_flits - 1
    total = flows.total
    inner = zero + float(flows.link_load @ wait) / total + float(flows.ejected @ eject_wait) / total
    outer = inner + float(flows.injected @ source_wait) / total
    return LatencyEstimate(outer, inner, flows.hops, load, wait, True)


def saturation_rate(network: AnalyticNetwork, traffic_matrix: FloatArray) -> float:
    """Flits per node and cycle at which the busiest channel reaches the load it can carry."""
    flows = _flows(network, traffic_matrix)
    busiest = max(float((flows.link_load * flows.service).max(initial=0)), float(flows.ejected.max(initial=0)))
    return min(CHANNEL_LIMIT / busiest if busiest else 1.0, 1.0)


def _wait(load: FloatArray, packet_flits: float, others: FloatArray | float) -> FloatArray:
    inner = packet_flits / 2 * others + SWITCH_CONFLICT
    return np.asarray(load * inner / (1 - np.minimum(load / LATENCY_POLE, 0.999)))


def _flows(network: AnalyticNetwork, matrix: FloatArray) -> _Flows:
    """The loads of a matrix, kept with the network for the next rate."""
    kept = network.kept_flows
    if kept is None or kept[0] is None or not np.array_equal(kept[0], matrix):
        # A copy: the caller may change the matrix.  Large ones are not compared.
        kept = (matrix.copy() if matrix.size <= KEPT_SIZE else None, _Flows(network, matrix))
        network.kept_flows = kept
    flows: _Flows = kept[1]
    return flows


class _Flows:
    """What the traffic does to the network per unit of rate: loads, shares per input, hops, zero-load latency."""

    def __init__(self, network: AnalyticNetwork, matrix: FloatArray) -> None:
        topology, routing = network.topology, network.routing
        nodes = topology.nodes
        right = matrix.shape == (nodes, nodes)
        if right:
            self.injected, self.ejected = matrix.sum(axis=1), matrix.sum(axis=0)
            self.total = float(self.injected.sum())
        # The sum is finite only if all entries are.
        if not right or not np.isfinite(self.total) or matrix.min() < 0:
            fail(f"a traffic matrix is ({nodes}, {nodes}), finite and not negative", key="traffic_matrix")
        between = matrix
        if not network.one_node_each:
            home = topology.node_router
            between = np.zeros((topology.routers, topology.routers))
            np.add.at(between, (home[:, None], home[None, :]), matrix)
        if routing.via_random_node:
            # From each source to any node, then from any node to each destination.
            even = topology.nodes_per_router / nodes
            between = between.sum(axis=1)[:, None] * even + even[:, None] * between.sum(axis=0)
        self.link_load, squares = _loads(routing, between)
        self.same_input = squares / np.maximum(self.link_load**2, np.finfo(float).tiny)
        self.service = network.link_cycles
        # A route of so many links adds its traffic to so many loads.
        self.hops = float(self.link_load.sum()) / self.total
        wire = float(self.link_load @ topology.link_latency_cycles) / self.total
        from tierform.network.analytic import PORT_CYCLES

        self.zero_load_cycles = (self.hops + 1) * network.router.pipeline_cycles + wire + PORT_CYCLES


def _loads(routing: Routing, between: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(links,) loads, and the sums of squares of what each link gets from each of its inputs."""
    topology, links = routing.topology, routing.topology.links
    sums = route_sums(routing)
    if sums is not None:
        flows = sums.flows(between)
        load: FloatArray = np.bincount(sums.link, weights=flows, minlength=links).astype(float, copy=False)
        squares: FloatArray = np.bincount(sums.link, weights=flows * flows, minlength=links).astype(float, copy=False)
        return load, squares
    load = np.zeros(links)
    if links == 0:
        return load, load
    # Inputs are counted within their router, the nodes' own last.
    inputs = np.bincount(topology.link_target, minlength=topology.routers)
    width = int(inputs.max()) + 1
    order = np.argsort(topology.link_target, kind="stable")
    place = np.empty(links, np.int64)
    place[order] = np.arange(links) - np.repeat(np.cumsum(inputs) - inputs, inputs)
    fed = np.zeros(links * width)
    everyone = np.arange(topology.routers, dtype=np.int32)
    for part, (_, share) in enumerate(routing.parts):
        own = share * between
        carried, _, passing = table_loads(routing, own, everyone, part)
        load += carried
        table = routing.next_links(everyone, part)
        here = table >= 0
        fed += np.bincount(table[here] * width + width - 1, weights=own[here], minlength=len(fed))
        # What goes over a link to a router goes on there over the next link towards the same destination.
        following = table[topology.link_target[table], everyone[None, :]]
        here &= following >= 0
        fed += np.bincount(following[here] * width + place[table[here]], weights=passing[here], minlength=len(fed))
    return load, (fed.reshape(links, width) ** 2).sum(axis=1)
