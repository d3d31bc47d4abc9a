"""Do trees spread over their roots, and are the indirect networks wired and routed as their definitions say?"""

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.network import (
    AnalyticNetwork,
    Flow,
    Injection,
    RouterParameters,
    Sampling,
    butterfly,
    choose_routing,
    dragonfly,
    express_cmesh,
    fat_tree,
    flattened_butterfly,
    pattern,
    simulate_flows,
    simulate_traffic,
    tapered_tree,
)
from tierform.network.routing import path


@pytest.mark.parametrize("routing", ["ancestor", "ancestor_adaptive", "ancestor_any", "d_mod_k"])
def test_an_8_ary_2_tree_carries_half_of_its_ports_and_not_one_seventh(routing):
    # All 8 nodes of a leaf send to all others: with one way down per leaf 1/7 would be the end, with 8 it is not.
    result = simulate_traffic(fat_tree(8, 2), "uniform", 0.5, routing=routing, sampling=Sampling(period=500))
    assert result.stable
    assert result.accepted_flit_rate == pytest.approx(0.5, rel=0.02)


def test_a_leaf_to_leaf_transfer_uses_all_roots():
    tree = fat_tree(8, 2)
    cost = AnalyticNetwork(tree).flow_cost(np.arange(8), np.arange(8, 16))
    # 16 links, up and down over 8 roots, each an eighth.
    assert sorted(cost.link_share[cost.link_share > 0].tolist()) == pytest.approx([1 / 8] * 16)
    pairs = [Flow([i], [8 + i], 8192) for i in range(8)]
    # 256 flits of 32 bytes from each node: D-mod-k gives each pair a root of its own, so none waits for another.
    alone = simulate_flows(tree, "d_mod_k", flows=pairs[:1]).finished_s[0]
    assert simulate_flows(tree, "d_mod_k", flows=pairs).finished_s.max() == pytest.approx(alone, rel=0.01)


def test_d_mod_k_goes_up_by_the_digits_of_the_destination():
    # 4-ary 3-tree, node 27 = 1*16 + 2*4 + 3: leaf 6 (digits 1, 2), place 3 in it.  From leaf 0 (digits 0, 0) the way up
    # is choice 3 at level 0, then choice 2 at level 1: root digits (3, 2).  Down: digit 1 becomes 1, digit 0 becomes 2.
    tree = fat_tree(4, 3)
    routing = choose_routing(tree, "d_mod_k")
    links = path(routing, 0, 6, part=3)
    assert [int(tree.link_target[link]) for link in links] == [16 + 3, 32 + 3 + 2 * 4, 16 + 3 + 1 * 4, 2 + 1 * 4]


def test_every_pair_of_a_butterfly_has_one_way_through_all_stages():
    fly = butterfly(3, 3)
    routing = choose_routing(fly)
    for source in range(9):
        for goal in range(18, 27):
            assert len(path(routing, source, goal)) == 2
    assert AnalyticNetwork(fly).flow_cost([0], [26]).mean_hops == 2


def test_a_flattened_butterfly_needs_a_link_per_coordinate_that_differs():
    net = flattened_butterfly(4, 2, 2)
    routing = choose_routing(net)
    assert net.nodes == 64
    for a, b, hops in ((0, 3, 1), (0, 12, 1), (0, 15, 2), (5, 5, 0)):
        assert len(path(routing, a, b)) == hops
    # Nodes stand in 2 x 2 blocks: node 9 is at row 1, column 1 of an 8 x 8 grid, so at router 0.
    assert net.node_router[[0, 1, 8, 9, 2, 63]].tolist() == [0, 0, 0, 0, 1, 15]
    # A link over three places of two nodes each takes 6 cycles.
    assert net.link_latency_cycles[path(routing, 0, 3)].tolist() == [6]


def test_a_dragonfly_joins_every_two_groups_once():
    net = dragonfly(2)
    groups = net.structure
    assert (net.nodes, net.routers, groups.gateway.shape) == (72, 36, (9, 9))
    for a in range(9):
        for b in range(9):
            if a != b:
                link = groups.gateway[a, b]
                assert groups.group[net.link_source[link]] == a
                assert groups.group[net.link_target[link]] == b
    routing = choose_routing(net)
    lengths = [len(path(routing, a, b)) for a in range(36) for b in range(36)]
    assert max(lengths) == 3
    with pytest.raises(TierformError, match="at least 2 virtual channels"):
        simulate_traffic(net, "uniform", 0.01, router_parameters=RouterParameters(virtual_channels=1))


def test_express_links_lead_half_a_side_along_the_edges():
    net = express_cmesh(4)
    ports = net.structure.ports
    # Router 1 on the lower edge: its port to lower y leads to router 3, half a side on.
    assert net.link_target[ports[1, 3]] == 3
    # Router 4 on the left edge (row 1): its port to lower x leads to router 12 (row 3).
    assert net.link_target[ports[4, 1]] == 12
    assert (ports >= 0).all()


def test_a_tapered_tree_has_half_the_links_above_its_leaves():
    tree = tapered_tree()
    assert tree.structure.up.sum() == 16 * 2 + 8 * 4
    estimate = AnalyticNetwork(tree).latency(pattern("uniform", 64).matrix(), 0.1)
    # 60 of 64 packets leave a leaf's 4 nodes over its 2 links up: 4 * 0.1 * 60/64 / 2 flits a cycle on each.
    assert estimate.link_load[tree.structure.up][:32] == pytest.approx(0.4 * 60 / 64 / 2)
    # 48 of 64 leave the 4 leaves' 16 nodes over 8 links of two routers.
    assert estimate.link_load[tree.structure.up][32:] == pytest.approx(1.6 * 48 / 64 / 8)


@pytest.mark.parametrize("vcs", [2, 3, 5])
def test_an_odd_number_of_channels_neither_deadlocks_nor_wastes_the_middle_one(vcs):
    from tierform.network import mesh, torus

    rates = {}
    for topology, routing in ((torus((6, 6)), "dimension_order"), (mesh((6, 6)), "xy_yx"), (mesh((6, 6)), "valiant")):
        router = RouterParameters(virtual_channels=vcs, buffer_flits=4)
        full = simulate_traffic(
            topology,
            "uniform",
            Injection(0.2, (5,)),
            routing=routing,
            router_parameters=router,
            sampling=Sampling(period=2000, measure_latency=False),
        )
        rates[routing] = full.accepted_flit_rate
        assert full.accepted_flit_rate > 0.1
