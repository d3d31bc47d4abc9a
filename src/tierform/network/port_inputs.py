# mypy: disable-error-code="untyped-decorator, no-any-return"
"""What feeds the ports to nodes under steady traffic: by whom, and over which links, each node is sent to.

A port's inputs are the links into its router, and the router's own nodes, each with the share that it has in what is
sent to that one node.  They differ among the nodes of a router: under a permutation each has one source alone.

Compiled (Numba), so imported when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from tierform.network.topology import FloatArray, IntArray

if TYPE_CHECKING:
    from tierform.network.analytic import AnalyticNetwork
    from tierform.network.route_trees import RouteTrees


@njit(cache=True, error_model="numpy")
def ends(flow: FloatArray, fed: IntArray, came: IntArray, links: int) -> tuple[FloatArray, FloatArray]:
    """(links + 1,) loads of links, the last of them none, and (links,) what of each load ends at the link's end."""
    load = np.zeros(links + 1)
    for number in range(len(fed)):
        load[fed[number]] += flow[number]
    ending = load[:links].copy()
    for number in range(links + 1, len(fed)):
        ending[came[number]] -= flow[number]
    return load, ending


def to_each_place(network: AnalyticNetwork, matrix: FloatArray, between: FloatArray, trees: RouteTrees) -> FloatArray:
    """(places, feeds) what feeds carry to the nodes of each place at their router."""
    topology = network.topology
    entry, exits, place = topology.node_router, topology.exits, topology.place_at_exit
    places = int(place.max()) + 1
    if network.routing.by_node:
        parts = np.zeros((places, *between.shape))
        for number in range(places):
            parts[number, :, number] = between[:, number]
    else:
        parts = _parted(matrix, entry, exits, place, places, topology.routers)
    return np.stack([trees.carry(part) for part in parts])


def arrivals(
    network: AnalyticNetwork, flow: FloatArray, trees: RouteTrees, load: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(nodes,) what arrives for each node over links, the sum of its squares by link and that of it times `load`."""
    topology = network.topology
    node = np.full((len(flow), topology.routers), -1)
    node[topology.place_at_exit, topology.exits] = np.arange(topology.nodes)
    found: tuple[FloatArray, FloatArray, FloatArray]
    found = _arrivals(flow, trees.fed, trees.came, topology.link_target, node, load, topology.nodes)
    return found


@njit(cache=True, error_model="numpy")
def _parted(
    matrix: FloatArray, entry: IntArray, exits: IntArray, place: IntArray, places: int, routers: int
) -> FloatArray:
    """(places, routers, routers) traffic of a (nodes, nodes) matrix to the nodes of each place at their router."""
    parts = np.zeros((places, routers, routers))
    for source in range(len(entry)):
        for goal in range(len(exits)):
            parts[place[goal], entry[source], exits[goal]] += matrix[source, goal]
    return parts


@njit(cache=True, error_model="numpy")
def _arrivals(
    flow: FloatArray, fed: IntArray, came: IntArray, target: IntArray, node: IntArray, load: FloatArray, nodes: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    arriving, parts, filled = np.zeros(nodes), np.zeros(nodes), np.zeros(nodes)
    for place in range(len(flow)):
        ending = ends(flow[place], fed, came, len(target))[1]
        for link in range(len(target)):
            goal, amount = node[place, target[link]], ending[link]
            if goal >= 0 and amount > 0:
                arriving[goal] += amount
                parts[goal] += amount**2
                filled[goal] += amount * load[link]
    return arriving, parts, filled


@njit(cache=True, error_model="numpy")
def ports(
    at_home: FloatArray,
    sent: FloatArray,
    port: IntArray,
    arriving: FloatArray,
    parts: FloatArray,
    filled: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """(ports,) sum of squares of the shares of what feeds the ports to nodes, and the inputs' loads weighted by them.

    `at_home` is what nodes of the same router send there, each to one `port`, and `sent` all that such a node sends.
    """
    whole, share, inputs = arriving.copy(), parts.copy(), filled.copy()
    for number in range(len(at_home)):
        whole[port[number]] += at_home[number]
        share[port[number]] += at_home[number] ** 2
        inputs[port[number]] += at_home[number] * sent[number]
    for one in range(len(whole)):
        if whole[one] > 0:
            share[one] = min(share[one] / whole[one] ** 2, 1.0)
            inputs[one] /= whole[one]
    return share, inputs


@njit(cache=True, error_model="numpy")
def at_home(matrix: FloatArray, entry: IntArray, exits: IntArray) -> FloatArray:
    """(nodes,) what each node sends to nodes of its own router."""
    found = np.zeros(len(matrix))
    for source in range(len(matrix)):
        for goal in range(len(matrix)):
            if exits[goal] == entry[source]:
                found[source] += matrix[source, goal]
    return found
