"""Are link shares, hops and times of a transfer those that following every route gives?"""

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.network import (
    AnalyticNetwork,
    RouterParameters,
    butterfly,
    chiplets,
    choose_routing,
    concentrated_mesh,
    crossbar,
    dragonfly,
    energy_parameters,
    express_cmesh,
    fat_tree,
    flattened_butterfly,
    from_graph,
    mesh,
    mesh_3d,
    ring,
    small_world,
    tapered_tree,
    torus,
)
from tierform.network.analytic import PORT_CYCLES
from tierform.network.queueing import ALONE_POLE, INPUT_LOSS, NEAREST, SWITCH_CONFLICT, ring_share
from tierform.network.routing import Routing, path

NETWORKS = [
    (mesh((5, 3)), "dimension_order"),
    (mesh((4, 3, 2)), "dimension_order"),
    (mesh((3, 3)), "xy_yx"),
    (torus((4, 5)), "dimension_order"),
    (ring(6), "default"),
    (concentrated_mesh((3, 2), 3), "default"),
    (mesh_3d((3, 3, 3), pillars=[(0, 0), (2, 1)]), "default"),
    (chiplets((2, 2), (3, 2)), "default"),
    (chiplets((2, 2), (3, 2), links_per_edge=1), "default"),
    (chiplets((2, 2), (3, 2), links_per_edge=1), "up_down"),
    (fat_tree(2, 3), "default"),
    (fat_tree(3, 2), "d_mod_k"),
    (tapered_tree(), "ancestor"),
    (butterfly(2, 3), "default"),
    (flattened_butterfly(3, 2, 2), "xy_yx"),
    (dragonfly(1), "default"),
    (express_cmesh(4), "default"),
    (small_world((4, 4), 4, seed=3), "default"),
    (from_graph([0, 1, 2, 2], [(0, 1), (1, 2, 3), (2, 0)]), "default"),
]


# Where all packets from a router to another take the same links.
TREES = [n for n in NETWORKS if choose_routing(*n).is_single_path and n[0].exit_router is None]


def _routes(network, a, b):
    """Every route from node a to node b and its share of the packets, link by link from the tables."""
    topology, routing = network.topology, network.routing
    goal = np.array([topology.exits[b]], np.int32)
    ways = routing.ways(goal)

    def onward(here, part, taken, share):
        if here == topology.exits[b]:
            yield taken, share
            return
        first = int(routing.next_links(goal, part)[here, 0])
        number = 1 if ways is None else int(ways[here, 0])
        for link in range(first, first + number):
            yield from onward(topology.link_target[link], part, [*taken, link], share / number)

    for part, (_, weight) in enumerate(routing.parts):
        if not routing.by_node or part == topology.place_at_exit[b]:
            yield from onward(topology.node_router[a], part, [], 1.0 if routing.by_node else weight)


def _walked(network, sources, destinations):
    share, pairs = np.zeros(network.topology.links), len(sources) * len(destinations)
    for a in sources:
        for b in destinations:
            for route, weight in _routes(network, a, b):
                share[route] += weight / pairs
    return share


@pytest.mark.parametrize(("topology", "routing"), NETWORKS, ids=lambda x: getattr(x, "name", x))
def test_shares_are_those_of_every_route_walked(topology, routing):
    network = AnalyticNetwork(topology, routing)
    rng = np.random.default_rng(0)
    for _ in range(4):
        sources = rng.choice(topology.nodes, size=rng.integers(1, topology.nodes + 1), replace=False)
        destinations = rng.choice(topology.nodes, size=rng.integers(1, topology.nodes + 1), replace=False)
        cost = network.flow_cost(sources, destinations)
        np.testing.assert_allclose(cost.link_share, _walked(network, sources, destinations), atol=1e-12)
        assert cost.mean_hops == pytest.approx(cost.link_share.sum())


@pytest.mark.parametrize(("topology", "routing"), TREES, ids=lambda x: getattr(x, "name", x))
def test_multicast_crosses_each_link_of_the_tree_once(topology, routing):
    network = AnalyticNetwork(topology, routing)
    rng = np.random.default_rng(1)
    for _ in range(3):
        sources = rng.choice(topology.nodes, size=2, replace=False)
        goals = rng.choice(topology.nodes, size=3, replace=False)
        expected = np.zeros(topology.links)
        for a in sources:
            routers = topology.node_router
            tree = {link for b in goals for link in path(network.routing, routers[a], routers[b])}
            expected[list(tree)] += 0.5
        np.testing.assert_allclose(network.multicast_cost(sources, goals).link_share, expected, atol=1e-12)


@pytest.mark.parametrize(("topology", "routing"), TREES, ids=lambda x: getattr(x, "name", x))
def test_a_multicast_to_groups_sends_each_byte_to_one_node_of_each(topology, routing):
    network = AnalyticNetwork(topology, routing, energy_parameters=energy_parameters())
    rng = np.random.default_rng(2)
    sources = rng.choice(topology.nodes, size=2, replace=False)
    groups = [rng.choice(topology.nodes, size=size, replace=False) for size in (2, 3, 3)]
    expected, parts, at_node = np.zeros(topology.links), 6, np.zeros(topology.nodes)
    for part in range(parts):
        goals = {int(group[part * len(group) // parts]) for group in groups}
        for a in sources:
            for b in goals - {int(a)}:
                at_node[b] += 1 / parts / 2
            routers = topology.node_router
            tree = {link for b in goals for link in path(network.routing, routers[a], routers[b])}
            expected[list(tree)] += 1 / parts / 2
    cost = network.multicast_cost(sources, groups)
    np.testing.assert_allclose(cost.link_share, expected, atol=1e-12)
    busiest = max((expected / network.link_B_per_s).max(initial=0), at_node.max() / network.port_B_per_s)
    assert cost.seconds_per_B == pytest.approx(max(busiest, 0.5 / network.port_B_per_s))
    alone = [network.flow_cost(sources, group) for group in groups]
    assert cost.energy_J_per_B < sum(flow.energy_J_per_B for flow in alone)
    assert cost.worst_head_latency_s == pytest.approx(max(flow.worst_head_latency_s for flow in alone))
    assert cost.head_latency_s <= cost.worst_head_latency_s
    one, same = network.multicast_cost(sources, [groups[2], groups[2]]), alone[2]
    for name in ("head_latency_s", "seconds_per_B", "energy_J_per_B", "mean_hops", "local_fraction"):
        assert getattr(one, name) == pytest.approx(getattr(same, name), rel=1e-9, abs=1e-15)


def test_zero_load_latency_and_serialization_of_one_route():
    network = AnalyticNetwork(mesh((8, 8)), clock_Hz=1e9, router_parameters=RouterParameters(flit_bits=128))
    cost = network.flow_cost([0], [63])
    assert cost.head_latency_s == pytest.approx((15 * 5 + 2) * 1e-9)
    assert cost.worst_head_latency_s == pytest.approx(cost.head_latency_s)
    assert cost.seconds_per_B == pytest.approx(1 / 16e9)
    assert cost.time_s(160) == pytest.approx(77e-9 + 10e-9)


def test_traffic_that_stays_at_its_node_costs_nothing():
    network = AnalyticNetwork(mesh((4, 4)), energy_parameters=energy_parameters())
    cost = network.flow_cost([5], [5])
    assert (cost.head_latency_s, cost.seconds_per_B, cost.energy_J_per_B, cost.time_s(100)) == (0, 0, 0, 0)


def test_energy_counts_each_router_and_each_metre():
    energy = energy_parameters()
    network = AnalyticNetwork(mesh((4, 1), pitch_m=2e-3), energy_parameters=energy)
    cost = network.flow_cost([0], [3])
    per_bit = 4 * energy.router_J_per_bit + 3 * 2e-3 * energy.wire_J_per_bit_m
    assert cost.energy_J_per_B == pytest.approx(8 * per_bit)
    assert cost.energy_J_per_B == pytest.approx(cost.router_energy_J_per_B + cost.link_energy_J_per_B)
    assert {note.kind for note in energy.assumptions} <= {"published", "fitted", "assumed"}


def test_valiant_spreads_one_route_over_the_network():
    topology = mesh((4, 4))
    network = AnalyticNetwork(topology, "valiant")
    half = AnalyticNetwork(topology)
    everywhere = np.arange(16)
    expected = half.flow_cost([0], everywhere).link_share + half.flow_cost(everywhere, [5]).link_share
    np.testing.assert_allclose(network.flow_cost([0], [5]).link_share, expected, atol=1e-12)


def test_crossbar_is_limited_by_its_ports():
    network = AnalyticNetwork(crossbar(8))
    assert network.flow_cost([0, 1], [2, 3, 4, 5]).seconds_per_B == pytest.approx(0.5 / network.port_B_per_s)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: from_graph([0, 1, 2], [(0, 1), (1, 0)], routers=3), "disconnected"),
        (lambda: from_graph([0, 9], [(0, 1), (1, 0)], routers=2), "no router"),
        (lambda: choose_routing(mesh((2, 2)), "xyz"), "unknown routing"),
        (lambda: mesh((0, 3)), "at least 1"),
        (lambda: mesh_3d((2, 2, 2), pillars=[(5, 5)]), "pillars"),
        (lambda: AnalyticNetwork(mesh((2, 2))).flow_cost([7], [0]), "numbered 0 to 3"),
        (lambda: AnalyticNetwork(mesh((2, 2))).flow_cost([], [0]), "at least one node"),
        (lambda: AnalyticNetwork(mesh((2, 2))).multicast_cost([0], []), "at least one node"),
    ],
)
def test_mistakes_are_named(build, words):
    with pytest.raises(TierformError, match=words):
        build()


def _walked_estimate(network, matrix, rate, flits):
    """The queueing model written out: every pair's route walked, then whole arrays."""
    topology = network.topology
    links, nodes = topology.links, topology.nodes
    load, zero = np.zeros(links), 0.0
    # What each channel gets from each input: links, then nodes; channels are links, then the ports to nodes.
    fed = np.zeros((links + nodes, links + nodes))
    for a, b in np.argwhere(matrix):
        for route, weight in _routes(network, a, b):
            amount = weight * matrix[a, b]
            load[route] += amount
            fed[[*route, links + b], [links + a, *route]] += amount
            cycles = (len(route) + 1) * network.router.pipeline_cycles + topology.link_latency_cycles[route].sum()
            zero += amount * (cycles + PORT_CYCLES + flits - 1)
    sent, received = matrix.sum(axis=1), matrix.sum(axis=0)
    whole = fed.sum(axis=1)
    shares = fed / np.where(whole > 0, whole, 1)[:, None]
    same, inputs = (shares**2).sum(axis=1), shares @ np.concatenate([load * network.link_cycles, sent])

    def wait(busy, channel):
        lost = busy / ALONE_POLE + INPUT_LOSS * (1 - same[channel]) * rate * inputs[channel]
        first = flits / 2 * (1 - same[channel]) + SWITCH_CONFLICT
        return busy * first / np.maximum(1 - lost, NEAREST), lost / rate / ring_share(network)

    busy = rate * load * network.link_cycles
    waits, filled = wait(busy, np.arange(links))
    at_ports, ports = wait(rate * received, links + np.arange(nodes))
    waits = waits * network.link_cycles
    inner = zero + load @ waits + received @ at_ports
    outer = inner + sent @ (rate * sent * flits / (2 * (1 - rate * sent)))
    busiest = [filled, ports, busy / rate, received, [1.0]]
    limit = 1 / max(float(np.max(one, initial=0)) for one in busiest)
    return outer / matrix.sum(), inner / matrix.sum(), load.sum() / matrix.sum(), busy, waits, limit


@pytest.mark.parametrize(("topology", "routing"), NETWORKS, ids=lambda x: getattr(x, "name", x))
def test_latency_and_saturation_are_those_of_every_route_walked(topology, routing):
    network = AnalyticNetwork(topology.with_links(kind="interposer", width_bits=64), routing)
    rng = np.random.default_rng(1)
    for flits in (1, 4):
        matrix = rng.random((topology.nodes, topology.nodes)) * (rng.random((topology.nodes, topology.nodes)) < 0.5)
        rate = 0.5 * network.saturation(matrix) / max(matrix.sum(axis=1).max(), 1)
        outer, inner, hops, busy, waits, limit = _walked_estimate(network, matrix, rate, flits)
        found = network.latency(matrix, rate, flits)
        assert found.stable
        assert found.packet_latency_cycles == pytest.approx(outer, rel=1e-12)
        assert found.network_latency_cycles == pytest.approx(inner, rel=1e-12)
        assert found.hops == pytest.approx(hops, rel=1e-12)
        np.testing.assert_allclose(found.link_load, busy, rtol=1e-12)
        np.testing.assert_allclose(found.link_wait_cycles, waits, rtol=1e-12)
        assert network.saturation(matrix) == pytest.approx(limit, rel=1e-12)
        assert not network.latency(matrix, 1.01 * limit).stable


def test_valiant_is_two_routes_over_any_node():
    network, plain = AnalyticNetwork(mesh((4, 4)), "valiant"), AnalyticNetwork(mesh((4, 4)))
    matrix = np.eye(16)[::-1]
    found = network.latency(matrix, 0.05)
    even = np.full((16, 16), 1 / 16)
    np.testing.assert_allclose(found.link_load, 2 * plain.latency(even, 0.05).link_load, rtol=1e-12)


def test_a_read_only_or_transposed_matrix_gives_the_same():
    network = AnalyticNetwork(mesh((4, 4)))
    matrix = np.random.default_rng(0).random((16, 16)) / 16
    expected = network.latency(matrix, 0.1).packet_latency_cycles
    frozen = np.asfortranarray(matrix)
    frozen.flags.writeable = False
    assert network.latency(frozen, 0.1).packet_latency_cycles == expected


def test_a_route_that_goes_in_circles_is_refused(monkeypatch):
    topology = mesh((2, 2))
    monkeypatch.setattr(
        Routing, "next_links", lambda *_: np.repeat(np.array([[0], [5], [6], [3]], np.int32), 4, axis=1)
    )
    with pytest.raises(TierformError, match="circles"):
        AnalyticNetwork(topology).latency(np.full((4, 4), 0.25), 0.1)


@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.full((4, 4), np.nan), np.full((4, 4), np.inf), -np.eye(4), np.zeros((4, 4)), np.ones(4)]
)
def test_what_is_no_traffic_matrix_is_refused(matrix):
    with pytest.raises(TierformError, match="traffic matrix"):
        AnalyticNetwork(mesh((2, 2))).latency(matrix, 0.1)
