"""Does the cycle engine keep its promises on every topology and routing that is shipped?

The engine itself checks, at each delivery, that the flit is at its own node, in order and once, and that no credit goes
negative; a breach stops the run with an error.  Here every pair runs, under load, and must drain.
"""

import numpy as np
import pytest
from traffic_arrays import traffic_of

from tierform.errors import TierformError
from tierform.network import (
    AnalyticNetwork,
    Flow,
    Injection,
    RouterParameters,
    Sampling,
    butterfly,
    chiplets,
    choose_routing,
    cmesh,
    concentrated_mesh,
    crossbar,
    dragonfly,
    express_cmesh,
    fat_tree,
    flattened_butterfly,
    from_graph,
    mesh,
    mesh_3d,
    pattern,
    ring,
    simulate_flows,
    simulate_traffic,
    small_world,
    tapered_tree,
    torus,
    virtual_channel_plan,
)
from tierform.network.cycle import state as cs
from tierform.network.cycle.engine import CycleNetwork
from tierform.network.cycle.modes import ALLOCATOR_NAMES
from tierform.network.deadlock import dependencies, find_cycle

PAIRS = [
    (mesh((4, 4)), "dimension_order"),
    (mesh((4, 4)), "xy_yx"),
    (mesh((4, 4)), "adaptive_xy_yx"),
    (mesh((4, 4)), "valiant"),
    (mesh((4, 4)), "minimal_adaptive"),
    (mesh((4, 4)), "up_down"),
    (mesh((3, 3, 3)), "minimal_adaptive"),
    (torus((4, 4)), "dimension_order"),
    (torus((5, 3)), "valiant"),
    (ring(7), "default"),
    (concentrated_mesh((3, 3), 4), "default"),
    (cmesh(4), "xy_yx"),
    (fat_tree(2, 4), "default"),
    (fat_tree(2, 3), "ancestor_adaptive"),
    (fat_tree(4, 2), "d_mod_k"),
    (tapered_tree(), "ancestor_any"),
    (butterfly(2, 4), "default"),
    (flattened_butterfly(3, 2, 2), "ugal"),
    (flattened_butterfly(3, 2, 2), "valiant"),
    (dragonfly(1), "default"),
    (express_cmesh(4), "default"),
    (mesh((4, 4)), "romm"),
    (mesh((3, 3, 3)), "planar_adaptive"),
    (torus((4, 4)), "minimal_adaptive"),
    (torus((5, 4)), "dimension_order_balanced"),
    (crossbar(8), "default"),
    (mesh_3d((4, 3, 3), pillars=[(0, 0), (3, 2)]), "default"),
    (chiplets((2, 2), (3, 3), links_per_edge=1), "default"),
    (chiplets((2, 2), (3, 3)), "default"),
    (small_world((4, 4), 5, seed=2), "default"),
    (small_world((4, 4), 5, seed=2), "up_down"),
    (from_graph(range(5), [(i, (i + 1) % 5) for i in range(5)]), "default"),
]


@pytest.mark.parametrize(("topology", "routing"), PAIRS, ids=lambda x: getattr(x, "name", x))
def test_a_long_overloaded_run_never_deadlocks_and_drains(topology, routing):
    network = CycleNetwork(topology, routing, RouterParameters(buffer_flits=3), seed=4)
    traffic = traffic_of(pattern("uniform", topology.nodes), Injection(0.25, (1, 6), (1, 1)), network.memory, 4)
    network.run(traffic, 5000)
    network.run(traffic, 100_000, generate=False, mode=2)
    count = network.counters
    assert count[cs.IN_FLIGHT] == 0
    assert count[cs.SAMPLED_PACKETS] == count[cs.PACKETS] > 100
    network.run(traffic, 256, generate=False)
    assert not network.memory.own[:, :, cs.W_USED].any()
    assert not network.memory.own[:, :, cs.W_OWNER].any()


@pytest.mark.parametrize("flits", [1, 4])
@pytest.mark.parametrize("nodes", [5, 8])
def test_one_way_rings_with_one_slot_per_channel_drain(nodes, flits):
    one_way = from_graph(range(nodes), [(i, (i + 1) % nodes) for i in range(nodes)])
    router = RouterParameters(virtual_channels=6, buffer_flits=1)
    network = CycleNetwork(one_way, "default", router, seed=1, single_flits=flits == 1)
    traffic = traffic_of(pattern("uniform", nodes), Injection(0.5 / flits, (flits,)), network.memory, 1)
    network.run(traffic, 20_000)
    network.run(traffic, 10_000, generate=False, mode=2)
    assert network.counters[cs.IN_FLIGHT] == 0


@pytest.mark.parametrize("allocator", ALLOCATOR_NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alloc_iterations": 2},
        {"vc_alloc_delay": 2, "switch_alloc_delay": 2, "routing_delay": 2},
        {"input_speedup": 2, "output_speedup": 2},
        {"switch_speedup": 1.5, "wait_for_tail_credit": True},
        {"vc_busy_when_full": True, "routing_delay": 0},
    ],
    ids=str,
)
def test_every_allocator_and_stage_setting_delivers(allocator, options):
    router = RouterParameters(vc_allocator=allocator, switch_allocator=allocator, **options)
    result = simulate_traffic(
        mesh((4, 4)), "uniform", Injection(0.05, (3,)), router_parameters=router, sampling=Sampling(period=500)
    )
    assert result.stable
    assert result.accepted_flit_rate == pytest.approx(0.15, rel=0.08)
    zero_load = 3.5 * (router.pipeline_cycles + 1) + 2 + 2
    assert zero_load - 1 < result.packet_latency_cycles < 1.6 * zero_load


def test_a_seed_decides_everything():
    runs = [
        simulate_traffic(mesh((4, 4)), "uniform", 0.2, seed=seed, sampling=Sampling(period=200)) for seed in (3, 3, 4)
    ]
    assert runs[0].packet_latency_cycles == runs[1].packet_latency_cycles
    assert np.array_equal(runs[0].histogram, runs[1].histogram)
    assert runs[0].packet_latency_cycles != runs[2].packet_latency_cycles


def test_routing_a_large_mesh_from_coordinates_is_routing_it_by_table(monkeypatch):
    import tierform.network.deadlock as deadlock

    latency = []
    for limit in (8, 1000):
        monkeypatch.setattr(deadlock, "LARGE_GRID", limit)
        run = simulate_traffic(mesh((4, 3, 2)), "uniform", 0.2, sampling=Sampling(period=200))
        latency.append((run.packet_latency_cycles, run.flit_hops))
    assert latency[0] == latency[1]


def test_a_cycle_of_dependencies_is_found_and_refused():
    loop = from_graph(range(4), [(i, (i + 1) % 4) for i in range(4)])
    routing = choose_routing(loop, "minimal")
    pairs = dependencies(routing, np.arange(4, dtype=np.int32))
    assert sorted(find_cycle(loop, pairs)) == [0, 1, 2, 3]
    with pytest.raises(TierformError, match="deadlock"):
        virtual_channel_plan(routing, 1)
    assert virtual_channel_plan(routing, 4).layers > 1
    with pytest.raises(TierformError, match="at least 2 virtual channels"):
        virtual_channel_plan(choose_routing(mesh((3, 3)), "valiant"), 1)


def test_up_down_never_turns_upwards_again_and_is_acyclic():
    topology = small_world((4, 4), 6, seed=5)
    routing = choose_routing(topology, "up_down")
    assert find_cycle(topology, dependencies(routing, np.arange(16, dtype=np.int32))) is None
    assert virtual_channel_plan(routing, 1).layers == 1


def test_flows_wait_for_each_other_and_narrow_links_take_longer():
    topology = mesh((4, 1), width_bits=64)
    router = RouterParameters(flit_bits=256)
    flows = [Flow([0], [3], 320), Flow([3], [0], 320, after=(0,), delay_s=100), Flow([1], [2], 0, after=(1,))]
    times = simulate_flows(topology, "default", router, 1.0, flows)
    assert times.started_s[1] == times.released_s[1] == times.finished_s[0] + 100
    assert times.finished_s[2] == times.finished_s[1]
    # 10 flits of 4 cycles each on the links, the last after the others.
    assert times.finished_s[0] >= 40
    with pytest.raises(TierformError, match="circle"):
        simulate_flows(topology, flows=[Flow([0], [1], 8, after=(1,)), Flow([0], [1], 8, after=(0,))])


def test_a_network_too_large_for_memory_is_refused_before_it_starts():
    with pytest.raises(TierformError, match="GiB"):
        CycleNetwork(mesh((200, 200)), router_parameters=RouterParameters(virtual_channels=16, buffer_flits=512))


def test_bulk_transfers_take_the_time_that_the_closed_form_gives():
    topology = mesh((4, 4))
    network = AnalyticNetwork(topology)
    for sources, goals in (([0], [15]), ([0, 1, 2, 3], [12, 13, 14, 15]), (range(8), range(8, 16))):
        cost = network.flow_cost(list(sources), list(goals))
        size = 40_000.0
        cycles = simulate_flows(topology, flows=[Flow(list(sources), list(goals), size)]).finished_s[0]
        assert cost.time_s(size) == pytest.approx(cycles, rel=0.2)


def test_a_multicast_crosses_each_link_of_its_tree_once():
    topology = mesh((5, 4))
    sources, goals, flits = [3, 12], [0, 7, 7, 12, 19], 24
    flow = Flow(sources, goals, 2 * flits * RouterParameters().flit_bits / 8, multicast=True)
    times = simulate_flows(topology, flows=[flow])
    network = AnalyticNetwork(topology)
    share = network.multicast_cost(sources, goals).link_share
    np.testing.assert_allclose(times.link_utilization * times.cycles, 2 * flits * share)
    # Many to many, in the way of each other, still ends.
    crowd = [Flow([node], np.arange(20), 3200, multicast=True) for node in range(20)]
    router = RouterParameters(virtual_channels=1, buffer_flits=4)
    all_times = simulate_flows(topology, router_parameters=router, flows=crowd)
    assert (all_times.finished_s > 0).all()
    with pytest.raises(TierformError, match="one route per pair"):
        simulate_flows(torus((4, 4)), flows=[Flow([0], [1, 5], 100, multicast=True)])
