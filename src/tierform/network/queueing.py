# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Queueing latency and saturation of steady traffic in closed form, from link loads alone.

Every channel is a queue with deterministic service of one flit per cycle (longer on narrow links).  A packet of L
flits holds its channel for L cycles, so with load rho (flits per cycle) an arrival from many independent sources waits

    W = rho (L (1 - s) / 2 + g) / (1 - rho / m - c (1 - s) h)

The first part is M/G/1 in units of flits (Pollaczek and Khinchine; L is the mean of the packets' squares over their
mean, one packet's flits where all are alike); s, the sum of squares of the shares with which the channel's inputs feed
it, takes away waiting for packets of one's own input, which come one after the other already and cannot collide.
Inputs are links and nodes, each node by itself, for links and for the ports to nodes alike; each node's port has the
inputs of what is sent to that node, one source's under a permutation.  The second part is what a switch with one
allocation a cycle loses even when the output is free (its input, or a grant, went elsewhere).  h, the load of the
inputs weighted by their shares, is what an input-queued switch cannot use: packets to other outputs stand before one's
own, the more the fuller the inputs are, and not where one input feeds alone.  g, m and c are fitted to BookSim2 and to
this project's cycle engine.  Waiting at a source is M/G/1 at the injection channel.  Mean latency is the zero-load
latency plus the waits along the routes, weighted by the traffic.  Saturation is where some channel's denominator
reaches zero, or its load one.  (Structure after Kiasari, Lu and Jantsch, IEEE TVLSI 21(1), 2013.)

UGAL's detours are found first (:mod:`tierform.network.detours`); they depend on the rate.

Limits: below about 70 % of saturation; Poisson-like sources; minimal adaptive routing is taken as half XY, half YX;
where one router's nodes send by way of others, each is taken to send and to receive as all of them together.  What
links with few buffers for their length cannot carry is not seen.

Compiled (Numba), so imported when used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from tierform.errors import fail
from tierform.network.detours import detours
from tierform.network.loads import traffic_by_way
from tierform.network.port_inputs import arrivals, at_home, ends, ports, to_each_place
from tierform.network.route_trees import route_trees
from tierform.network.topology import FloatArray, IntArray

if TYPE_CHECKING:
    from tierform.network.analytic import AnalyticNetwork

# Fitted (least squares of relative errors) on 195 latencies below 1.4 times that at low load of some 85 settings, with
# 4 virtual channels of 8 flits: the switch's loss g, the load m at which one input's channel has no end of waiting, and
# what inputs' loads take from a channel, c.
SWITCH_CONFLICT = 0.421
ALONE_POLE = 1.446
INPUT_LOSS = 1.15
# On rings, whose packets have half of the channels on each side of the dateline, a channel carries this much in the
# end (median of seven tori).
RING_SHARE = 0.85
# A denominator is not followed further down than this.
NEAREST = 0.1


@dataclass(frozen=True, eq=False)
class LatencyEstimate:
    """Mean latencies in cycles, the load of each link in flits per cycle, and whether the traffic can be carried."""

    packet_latency_cycles: float
    network_latency_cycles: float
    hops: float
    link_load: FloatArray
    link_wait_cycles: FloatArray
    stable: bool


@dataclass(frozen=True, eq=False)
class Carried:
    """What the channels of a network carry per unit of rate: links, and the ports to nodes.

    `share` is the sum of squares of the shares of a channel's inputs, `inputs` the load of the inputs weighted by their
    shares.
    """

    sent: FloatArray  # (nodes,)
    received: FloatArray  # (nodes,)
    carried: FloatArray  # (links,)
    share: FloatArray  # (links,)
    inputs: FloatArray  # (links,)
    node_share: FloatArray  # (nodes,)
    node_inputs: FloatArray  # (nodes,)


def estimate(
    network: AnalyticNetwork,
    traffic_matrix: FloatArray,
    rate: float,
    packet_flits: float = 1.0,
    flits_squared: float | None = None,
) -> LatencyEstimate:
    """Latency of `traffic_matrix` (nodes, nodes; rows are shares) at `rate` flits per node and cycle.

    `packet_flits` is the mean size of packets, `flits_squared` the mean of its square: more where sizes differ.
    """
    if not 0 <= rate < np.inf or packet_flits < 1:
        fail("the rate must not be negative and packets have at least one flit", key="rate", value=rate)
    squared = packet_flits**2 if flits_squared is None else flits_squared
    if not squared >= packet_flits**2 * (1 - 1e-9):
        fail("the mean of the squares is at least the square of the mean", key="flits_squared", value=squared)
    found = channels(network, traffic_matrix, float(rate))
    load, wait, hops, on_wires, waiting, at_sources, stable = _waits(
        found.carried,
        found.share,
        found.inputs,
        network.link_cycles,
        network.link_latency_cycles,
        found.sent,
        found.received,
        found.node_share,
        found.node_inputs,
        float(rate),
        float(squared / packet_flits),
        ring_share(network),
    )
    if not stable:
        return LatencyEstimate(np.inf, np.inf, hops, load, np.full(len(load), np.inf), False)
    zero_load = network.zero_load_cycles(hops, on_wires) + packet_flits - 1
    inner = zero_load + waiting
    return LatencyEstimate(inner + at_sources, inner, hops, load, wait, True)


def saturation_rate(network: AnalyticNetwork, traffic_matrix: FloatArray) -> float:
    """Flits per node and cycle at which some channel reaches the load it can carry."""
    found = channels(network, traffic_matrix, 0.0)
    service, most = network.link_cycles, ring_share(network)
    links = _lost(found.carried * service, found.share, found.inputs) / most
    ports = _lost(found.received, found.node_share, found.node_inputs) / most
    busiest = max(float(links.max(initial=0)), float((found.carried * service).max(initial=0)), float(ports.max()))
    return min(1.0 / max(busiest, float(found.received.max()), 1.0), 1.0)


def _lost(load: FloatArray, share: FloatArray, inputs: FloatArray) -> FloatArray:
    """What is taken from the denominator of the waiting time, per unit of rate."""
    return load / ALONE_POLE + INPUT_LOSS * (1 - share) * inputs


def ring_share(network: AnalyticNetwork) -> float:
    """What a channel carries in the end, over the load at which its waiting time has no end."""
    grid = network.topology.grid
    return RING_SHARE if grid is not None and any(grid.wraps) else 1.0


def channels(network: AnalyticNetwork, matrix: FloatArray, rate: float) -> Carried:
    """What links and ports carry of a (nodes, nodes) matrix, per unit of rate; UGAL's detours are those at `rate`."""
    topology, routing = network.topology, network.routing
    nodes = topology.nodes
    right = matrix.shape == (nodes, nodes)
    if right:
        matrix = np.ascontiguousarray(matrix)
        sent, received, right = _port_traffic(matrix)
    if not right:
        fail(f"a traffic matrix is ({nodes}, {nodes}), finite, not negative and not all zero", key="traffic_matrix")
    trees = route_trees(routing)
    entry, exits = topology.node_router, topology.exits
    turns = bool(routing.via) or routing.name == "ugal"
    if routing.by_node:
        between = _between_places(matrix, entry, exits, topology.place_at_exit, topology.routers)
    elif network.one_node_each:
        between = matrix
    else:
        between = _between_routers(matrix, entry, exits, topology.routers)
    if turns:
        if routing.name == "ugal":
            legs = detours(routing, network.router, between, rate)
        else:
            legs = traffic_by_way(routing, between)
        # Each node of a router sends what all of its nodes send, in its share.
        whole = legs[0].sum(axis=1)
        parts = sent / np.where(whole > 0, whole, 1.0)[entry]
        first, between = parts[:, None] * legs[0][entry], legs[0] + legs[1]
    links = topology.links
    apart = not network.one_node_each and not turns
    if apart:
        by_node = to_each_place(network, matrix, between, trees)
        flow = by_node.sum(axis=0)
    else:
        flow = trees.carry(between)
    if network.one_node_each and not turns:
        own, squares, weighted = flow[:links], flow[:links] ** 2, flow[:links] * sent[topology.link_source]
    else:
        if not turns:
            place = topology.place_at_exit if routing.by_node else 0
            columns = topology.routers * (len(routing.parts) if routing.by_node else 1)
            first = _to_routers(matrix, exits + topology.routers * place, columns)
        own, squares, weighted = trees.entering(first, entry, sent)
    carried, share, inputs, *arriving = _inputs(
        flow,
        trees.fed,
        trees.came,
        own,
        squares,
        weighted,
        network.link_cycles,
        topology.link_source,
        topology.link_target,
        topology.routers,
    )
    if apart:
        arriving = arrivals(network, by_node, trees, carried * network.link_cycles)
        source, port = np.nonzero(entry[:, None] == exits[None, :])
        node_share, node_inputs = ports(matrix[source, port], sent[source], port, *arriving)
    else:
        own_router = np.diagonal(matrix) if network.one_node_each else at_home(matrix, entry, exits)
        node_share, node_inputs = (found[exits] for found in ports(own_router, sent, entry, *arriving))
    return Carried(
        sent=sent,
        received=received,
        carried=carried,
        share=share,
        inputs=inputs,
        node_share=node_share,
        node_inputs=node_inputs,
    )


def _to_routers(matrix: FloatArray, exits: IntArray, routers: int) -> FloatArray:
    """(nodes, routers) what each node sends to each router."""
    found = np.zeros((len(matrix), routers))
    np.add.at(found.T, exits, matrix.T)
    return found


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
def _inputs(
    flow: FloatArray,
    fed: IntArray,
    came: IntArray,
    own: FloatArray,
    squares: FloatArray,
    weighted: FloatArray,
    service: FloatArray,
    source: IntArray,
    target: IntArray,
    routers: int,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """(links,) loads, sums of squares of the inputs' shares, loads of the inputs weighted by them; then by router what
    arrives there over links, the sum of its squares by link and that of it times the link's load.

    `own`, `squares` and `weighted` are of what nodes send over each link; what else begins there has turned.
    """
    links = len(own)
    share, inputs = squares.copy(), weighted.copy()
    load, ending = ends(flow, fed, came, links)
    for number in range(links + 1, len(fed)):
        link, before = fed[number], came[number]
        share[link] += flow[number] ** 2
        inputs[link] += flow[number] * load[before] * service[before]
    arriving, parts, filled = np.zeros(routers), np.zeros(routers), np.zeros(routers)
    for link in range(links):
        amount = max(ending[link], 0.0)
        arriving[target[link]] += amount
        parts[target[link]] += amount**2
        filled[target[link]] += amount * load[link] * service[link]
    for link in range(links):
        turned, router = max(flow[link] - own[link], 0.0), source[link]
        if turned > 0 and arriving[router] > 0:
            share[link] += turned**2 * parts[router] / arriving[router] ** 2
            inputs[link] += turned * filled[router] / arriving[router]
        if load[link] > 0:
            share[link] = min(share[link] / load[link] ** 2, 1.0)
            inputs[link] /= load[link]
    return load[:links], share, inputs, arriving, parts, filled


@njit(cache=True, error_model="numpy")
def _wait(load: float, held: float, share: float, inputs: float) -> tuple[float, float]:
    """Mean cycles of waiting at a channel, and what is taken from its denominator.

    `held` is the mean square of packets' flits over their mean: twice what is left of a packet that is met.
    """
    lost = load / ALONE_POLE + INPUT_LOSS * (1 - share) * inputs
    return load * (held * (1 - share) / 2 + SWITCH_CONFLICT) / max(1 - lost, NEAREST), lost


@njit(cache=True, error_model="numpy")
def _waits(
    carried: FloatArray,
    share: FloatArray,
    inputs: FloatArray,
    service: FloatArray,
    latency: FloatArray,
    sent: FloatArray,
    received: FloatArray,
    node_share: FloatArray,
    node_inputs: FloatArray,
    rate: float,
    held: float,
    most: float,
) -> tuple[FloatArray, FloatArray, float, float, float, float, bool]:
    """(links,) load and wait; means over all traffic of links, their latency, waits inside and at sources; stability.

    What channels carry is per unit of rate; `service` and `latency` are the links' cycles.
    """
    load, wait = np.empty(len(carried)), np.empty(len(carried))
    hops = on_wires = inside = at_sources = 0.0
    stable = True
    for link in range(len(carried)):
        load[link] = rate * carried[link] * service[link]
        waited, lost = _wait(load[link], held, share[link], rate * inputs[link])
        wait[link] = waited * service[link]
        # A route of so many links adds its traffic to so many loads.
        hops += carried[link]
        on_wires += carried[link] * latency[link]
        inside += carried[link] * wait[link]
        stable &= lost < most and load[link] < 1
    for node in range(len(sent)):
        into, out = rate * sent[node], rate * received[node]
        at_sources += sent[node] * into * held / (2 * (1 - into))
        waited, lost = _wait(out, held, node_share[node], rate * node_inputs[node])
        inside += received[node] * waited
        stable &= into < 1 and out < 1 and lost < most
    total = sent.sum()
    return load, wait, hops / total, on_wires / total, inside / total, at_sources / total, stable
