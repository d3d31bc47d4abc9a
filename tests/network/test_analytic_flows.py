"""Are link shares, hops and times of a transfer those that following every route gives?"""

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.network import (
    AnalyticNetwork,
    RouterParameters,
    chiplets,
    choose_routing,
    concentrated_mesh,
    crossbar,
    energy_parameters,
    fat_tree,
    from_graph,
    mesh,
    mesh_3d,
    ring,
    route_sums,
    small_world,
    torus,
)
from tierform.network.queueing import _Flows
from tierform.network.routing import path

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
    (small_world((4, 4), 4, seed=3), "default"),
    (from_graph([0, 1, 2, 2], [(0, 1), (1, 2, 3), (2, 0)]), "default"),
]


def _walked(network, sources, destinations):
    share, pairs = np.zeros(network.topology.links), len(sources) * len(destinations)
    for part, (_, weight) in enumerate(network.routing.parts):
        for a in sources:
            for b in destinations:
                route = path(network.routing, network.topology.node_router[a], network.topology.node_router[b], part)
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


@pytest.mark.parametrize(("topology", "routing"), [n for n in NETWORKS if n[1] != "xy_yx"],
                         ids=lambda x: getattr(x, "name", x))  # fmt: skip
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
    ],
)
def test_mistakes_are_named(build, words):
    with pytest.raises(TierformError, match=words):
        build()


@pytest.mark.parametrize(("topology", "routing"), NETWORKS, ids=lambda x: getattr(x, "name", x))
def test_loads_and_shared_inputs_of_a_matrix_are_those_of_every_route_walked(topology, routing, monkeypatch):
    rng = np.random.default_rng(1)
    matrix = rng.random((topology.nodes, topology.nodes)) * (rng.random((topology.nodes, topology.nodes)) < 0.5)
    network = AnalyticNetwork(topology, routing)
    load = np.zeros(topology.links)
    inputs = np.zeros((topology.links, topology.links + 1))
    for part, (_, weight) in enumerate(network.routing.parts):
        for a, b in np.argwhere(matrix):
            route = path(network.routing, topology.node_router[a], topology.node_router[b], part)
            load[route] += weight * matrix[a, b]
            inputs[route, [topology.links, *route[:-1]][: len(route)]] += weight * matrix[a, b]
    kept = _Flows(network, matrix)
    # A network too large to keep its routes follows them for each matrix.
    monkeypatch.setattr(route_sums, "STEP_LIMIT", 0)
    used = load > 0
    for flows in (kept, _Flows(AnalyticNetwork(topology, routing), matrix)):
        np.testing.assert_allclose(flows.link_load, load, atol=1e-12)
        np.testing.assert_allclose(flows.same_input[used], (inputs[used] ** 2).sum(axis=1) / load[used] ** 2)
        assert not flows.same_input[~used].any()


def test_a_matrix_changed_in_place_is_not_taken_for_the_old_one():
    network = AnalyticNetwork(mesh((3, 3)))
    matrix = np.full((9, 9), 1 / 9)
    before = network.latency(matrix, 0.1).packet_latency_cycles
    matrix[:] = np.eye(9)[::-1]
    assert network.latency(matrix, 0.1).packet_latency_cycles > before
