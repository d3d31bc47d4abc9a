"""Do the compiled engine's two kinds of router move every flit as a plain reference router does?"""

from collections import deque

import numpy as np
import pytest
from plain_router import PlainNetwork

from tierform.network import Flow, RouterParameters, choose_routing, mesh, mesh_3d, simulate_flows
from tierform.network.cycle import engine
from tierform.network.topology import Topology


def _both(topology: Topology, router: RouterParameters, flows: list[tuple], packet: int):
    """Times of flows (source, destination or a list to multicast to, flits, start) from both simulators."""
    ours = simulate_flows(
        topology,
        "default",
        router,
        1.0,
        [
            Flow([a], b if isinstance(b, list) else [b], n * router.flit_bits / 8, (), start, isinstance(b, list))
            for a, b, n, start in flows
        ],
        packet_flits=packet,
    )
    queues = [deque() for _ in range(topology.nodes)]
    for number, (a, b, flits, _) in enumerate(flows):
        while flits > 0:
            size = min(packet, router.buffer_flits) if isinstance(b, list) else packet
            queues[a].append((number, b, min(flits, size)))
            flits -= size
    everyone = np.arange(topology.routers, dtype=np.int32)
    plain = PlainNetwork(topology, choose_routing(topology).next_links(everyone), router)
    started, finished = plain.run(queues, {number: start for number, (*_, start) in enumerate(flows)})
    return ours, started, finished, plain


@pytest.mark.parametrize(
    ("topology", "router", "packet"),
    [
        (mesh((4, 4)), RouterParameters(), 1),
        (mesh((4, 4)), RouterParameters(virtual_channels=2, buffer_flits=3, credit_delay=2), 5),
        (mesh((3, 3), latency_cycles=3), RouterParameters(virtual_channels=1, buffer_flits=2), 4),
        (mesh_3d((3, 3, 2), pillars=[(1, 1)]), RouterParameters(routing_delay=2, crossbar_delay=2), 3),
        (mesh((2, 2), nodes_per_router=3), RouterParameters(virtual_channels=3), 6),
    ],
    ids=["mesh", "few-slots", "one-channel-slow-links", "pillar", "concentrated"],
)
@pytest.mark.parametrize("bitmask", [True, False], ids=["bitmask", "general"])
def test_every_flow_ends_in_the_same_cycle_and_every_link_carries_the_same(
    topology, router, packet, bitmask, monkeypatch
):
    if not bitmask:
        monkeypatch.setattr(engine, "fits_bitmask_router", lambda memory, routers: False)
    rng = np.random.default_rng(7)
    sources = rng.permutation(topology.nodes)
    # One flow per source, so that both simulators send a source's packets in the same order.
    flows = [
        (int(a), int(rng.integers(topology.nodes)), int(rng.integers(1, 60)), int(rng.integers(0, 40))) for a in sources
    ]
    ours, started, finished, plain = _both(topology, router, flows, packet)
    assert ours.started_s.astype(int).tolist() == [started[k] for k in range(len(flows))]
    assert ours.finished_s.astype(int).tolist() == [finished[k] for k in range(len(flows))]
    for link in range(topology.links):
        r, o = plain.link_out[link]
        assert round(ours.link_utilization[link] * ours.cycles) == plain.outputs[r][o].flits


@pytest.mark.parametrize(
    ("topology", "router", "packet"),
    [
        (mesh((4, 4)), RouterParameters(), 5),
        (mesh((3, 3), latency_cycles=2), RouterParameters(virtual_channels=1, buffer_flits=3), 3),
        (mesh_3d((3, 3, 2), pillars=[(1, 1)]), RouterParameters(virtual_channels=2, crossbar_delay=2), 8),
        (mesh((2, 2), nodes_per_router=3), RouterParameters(virtual_channels=3, buffer_flits=2), 6),
    ],
    ids=["mesh", "one-channel", "pillar", "concentrated"],
)
def test_multicast_copies_every_flit_where_the_plain_router_does(topology, router, packet):
    rng = np.random.default_rng(3)
    flows = []
    for a in rng.permutation(topology.nodes):
        several = rng.choice(topology.nodes, size=rng.integers(1, 6), replace=False).tolist()
        flows.append((int(a), several if rng.random() < 0.6 else several[0], int(rng.integers(1, 40)), 0))
    ours, started, finished, plain = _both(topology, router, flows, packet)
    assert ours.started_s.astype(int).tolist() == [started[k] for k in range(len(flows))]
    assert ours.finished_s.astype(int).tolist() == [finished[k] for k in range(len(flows))]
    for link in range(topology.links):
        r, o = plain.link_out[link]
        assert round(ours.link_utilization[link] * ours.cycles) == plain.outputs[r][o].flits


def test_the_plain_router_delivers_each_flit_once_and_in_order():
    flows = [(a, (a * 5 + 3) % 9, 20, 0) for a in range(9)]
    _, _, _, plain = _both(mesh((3, 3)), RouterParameters(), flows, 4)
    seen = [(packet, number) for _, _, packet, number in sorted(plain.delivered)]
    assert len(seen) == len(set(seen)) == 9 * 20
    for packet in {p for p, _ in seen}:
        assert [n for p, n in seen if p == packet] == list(range(4))
