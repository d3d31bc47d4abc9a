# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Queueing latency and saturation of steady traffic in closed form, from link loads alone.

Every channel is a queue with deterministic service of one flit per cycle (longer on narrow links).  A packet of L
flits holds its channel for L cycles, so with load rho (flits per cycle) an arrival from many independent sources waits

    W = rho (L (1 - s) / 2 + g) / (1 - rho / p)

The first part is M/D/1 in units of a packet (Pollaczek and Khinchine); s, the sum of squares of the shares with which
the channel's inputs feed it, takes away waiting for packets of one's own input, which come one after the other already
and cannot collide.  The second part is what a switch with one allocation a cycle loses even when the output is free
(its input, or a grant, went elsewhere).  The more inputs feed a channel alike, the less of it an input-queued switch
can use: the pole is p = a + b s, up to a highest value, and a channel carries 1.2 p in the end.  g, a, b and the poles
are fitted to this project's cycle engine.  Waiting at a source is M/D/1 at the injection channel.  Mean latency is the
zero-load latency plus the waits along the routes, weighted by the traffic.  Saturation is where some channel's load
reaches what it can carry.  (Structure after Kiasari, Lu and Jantsch, IEEE TVLSI 21(1), 2013.)

Limits: below about 70 % of saturation; Poisson-like sources; minimal adaptive routing is taken as half XY, half YX.

Compiled (Numba), so imported when used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from tierform.errors import fail
from tierform.network.loads import traffic_by_way
from tierform.network.route_trees import route_trees
from tierform.network.topology import FloatArray, IntArray

if TYPE_CHECKING:
    from tierform.network.analytic import AnalyticNetwork

# Fitted on the cycle engine (4 virtual channels of 8 flits, one iteration of iSLIP) at 45 and 68 % of saturation of 23
# networks: the pole of the waiting time at a link, a + b s up to the most, and at a node; the switch's loss; what a
# link carries in the end over its pole, and what a node's port carries.
POLE_BASE, POLE_SHARE, POLE_MOST = 0.38, 0.672, 0.852
NODE_POLE = 0.95
SWITCH_CONFLICT = 0.314
LIMIT_OVER_POLE = 1.2
NODE_LIMIT = 0.86
# On rings, whose packets have half of the channels on each side of the dateline, a link carries this much of that.
RING_SHARE = 0.7
# Nearer to the pole than this the waiting time is not followed further.
NEAREST = 0.9


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
    if not 0 <= rate < np.inf or packet_flits < 1:
        fail("the rate must not be negative and packets have at least one flit", key="rate", value=rate)
    sent, received, carried, squares = _loads(network, traffic_matrix)
    load, wait, hops, on_wires, waiting, at_sources, stable = _waits(
        carried,
        squares,
        network.link_cycles,
        network.link_latency_cycles,
        sent,
        received,
        float(rate),
        float(packet_flits),
        limit_over_pole(network),
    )
    if not stable:
        return LatencyEstimate(np.inf, np.inf, hops, load, np.full(len(load), np.inf), False)
    zero_load = network.zero_load_cycles(hops, on_wires) + packet_flits - 1
    inner = zero_load + waiting
    return LatencyEstimate(inner + at_sources, inner, hops, load, wait, True)


def saturation_rate(network: AnalyticNetwork, traffic_matrix: FloatArray) -> float:
    """Flits per node and cycle at which the busiest channel reaches the load it can carry."""
    _, received, carried, squares = _loads(network, traffic_matrix)
    used = carried > 0
    share = squares[used] / carried[used] ** 2
    limits = np.minimum(limit_over_pole(network) * np.minimum(POLE_BASE + POLE_SHARE * share, POLE_MOST), 1.0)
    busiest = float((carried[used] * network.link_cycles[used] / limits).max(initial=0))
    return min(1.0 / max(busiest, float(received.max()) / NODE_LIMIT, 1.0), 1.0)


def limit_over_pole(network: AnalyticNetwork) -> float:
    """What a link carries in the end over the pole of its waiting time."""
    grid = network.topology.grid
    return LIMIT_OVER_POLE * (RING_SHARE if grid is not None and any(grid.wraps) else 1.0)


def _loads(network: AnalyticNetwork, matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Per unit of rate: what nodes send and receive, loads of links, sums of squares of what a link's inputs feed."""
    topology, routing = network.topology, network.routing
    nodes = topology.nodes
    right = matrix.shape == (nodes, nodes)
    if right:
        matrix = np.ascontiguousarray(matrix)
        sent, received, right = _port_traffic(matrix)
    if not right:
        fail(f"a traffic matrix is ({nodes}, {nodes}), finite, not negative and not all zero", key="traffic_matrix")
    if routing.by_node:
        between = _between_places(
            matrix, topology.node_router, topology.exits, topology.place_at_exit, topology.routers
        )
    elif network.one_node_each:
        between = matrix
    else:
        between = _between_routers(matrix, topology.node_router, topology.exits, topology.routers)
    if routing.via:
        between = traffic_by_way(routing, between)
    carried, squares = route_trees(routing).carry(between)
    return sent, received, carried, squares


# Sums in any order, so that several entries are added at once.
@njit(cache=True, error_model="numpy", fastmath={"reassoc"})
def _port_traffic(matrix: FloatArray) -> tuple[FloatArray, FloatArray, bool]:
    """(nodes,) what each node sends, (nodes,) what each receives, and whether the matrix is one of traffic."""
    nodes = len(matrix)
    sent, received = np.zeros(nodes), np.zeros(nodes)
    wrong = False
    for source in range(nodes):
        total = 0.0
        for goal in range(nodes):
            value = matrix[source, goal]
            total += value
            received[goal] += value
            wrong |= not value >= 0
        sent[source] = total
    # A sum is finite only if all entries are.
    return sent, received, not wrong and 0 < sent.sum() < np.inf


@njit(cache=True, error_model="numpy")
def _between_routers(matrix: FloatArray, entry: IntArray, exits: IntArray, routers: int) -> FloatArray:
    """(routers, routers) traffic of a (nodes, nodes) matrix; `entry` and `exits` are the routers of each node."""
    between = np.zeros((routers, routers))
    for source in range(len(entry)):
        for goal in range(len(exits)):
            between[entry[source], exits[goal]] += matrix[source, goal]
    return between


def _between_places(matrix: FloatArray, entry: IntArray, exits: IntArray, place: IntArray, routers: int) -> FloatArray:
    """(routers, places, routers) the same, goals apart by their place among the nodes of their router."""
    between = np.zeros((routers, int(place.max()) + 1, routers))
    np.add.at(between, (entry[:, None], place[None, :], exits[None, :]), matrix)
    return between


@njit(cache=True, error_model="numpy")
def _wait(load: float, packet_flits: float, others: float, pole: float) -> float:
    """Mean cycles of waiting at a channel; `others` is the share of arrivals that can collide with one's own."""
    return load * (packet_flits * others / 2 + SWITCH_CONFLICT) / (1 - min(load / pole, NEAREST))


@njit(cache=True, error_model="numpy")
def _waits(
    carried: FloatArray,
    squares: FloatArray,
    service: FloatArray,
    latency: FloatArray,
    sent: FloatArray,
    received: FloatArray,
    rate: float,
    packet_flits: float,
    limit: float,
) -> tuple[FloatArray, FloatArray, float, float, float, float, bool]:
    """(links,) load and wait; means over all traffic of links, their latency, waits inside and at sources; stability.

    `carried`, `squares`, `sent` and `received` are per unit of rate; `service` and `latency` are the links' cycles.
    """
    load, wait = np.empty(len(carried)), np.empty(len(carried))
    hops = on_wires = inside = at_sources = 0.0
    stable = True
    for link in range(len(carried)):
        load[link] = rate * carried[link] * service[link]
        share = squares[link] / carried[link] ** 2 if carried[link] > 0 else 0.0
        pole = min(POLE_BASE + POLE_SHARE * share, POLE_MOST)
        wait[link] = _wait(load[link], packet_flits, 1 - share, pole) * service[link]
        # A route of so many links adds its traffic to so many loads.
        hops += carried[link]
        on_wires += carried[link] * latency[link]
        inside += carried[link] * wait[link]
        stable &= load[link] < min(limit * pole, 1.0)
    for node in range(len(sent)):
        into, out = rate * sent[node], rate * received[node]
        at_sources += sent[node] * into * packet_flits / (2 * (1 - into))
        inside += received[node] * _wait(out, packet_flits, 1.0, NODE_POLE)
        stable &= into < 1 and out < NODE_LIMIT
    total = sent.sum()
    return load, wait, hops / total, on_wires / total, inside / total, at_sources / total, stable
