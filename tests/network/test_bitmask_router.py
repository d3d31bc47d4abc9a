"""Is the fast router the general one, flit by flit, and is what it is built of right?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from traffic_arrays import traffic_of

from tierform.network import (
    Injection,
    RouterParameters,
    chiplets,
    cmesh,
    crossbar,
    dragonfly,
    fat_tree,
    from_graph,
    mesh,
    mesh_3d,
    pattern,
    ring,
    torus,
)
from tierform.network.cycle import state as cs
from tierform.network.cycle.bits import first_from, lowest_bit
from tierform.network.cycle.engine import CycleNetwork

MIXED = [
    RouterParameters(buffer_flits=2 + k % 4, routing_delay=k % 3, crossbar_delay=k % 2 + 1, credit_delay=k % 3)
    for k in range(16)
]
CASES = {
    "mesh": (mesh((8, 8)), None, Injection(0.35)),
    "long-packets": (mesh((8, 8)), None, Injection(0.08, (5,))),
    "overloaded": (mesh((4, 4)), None, Injection(0.3, (1, 6), (1, 1))),
    "one-slot": (mesh((4, 4)), RouterParameters(virtual_channels=3, buffer_flits=1), Injection(0.1, (3,))),
    "slow-links": (mesh((4, 4), latency_cycles=3), RouterParameters(virtual_channels=2), Injection(0.05, (1, 9))),
    "look-ahead": (mesh((4, 4)), RouterParameters(routing_delay=0), Injection(0.3)),
    "all-different": (mesh((4, 4)), MIXED, Injection(0.1, (4,))),
    "many-nodes": (cmesh(4), None, Injection(0.1, (2,))),
    "by-coordinates": (mesh((8, 8, 5)), None, Injection(0.15)),
    "pillars": (mesh_3d((4, 3, 3), pillars=[(0, 0), (3, 2)]), None, Injection(0.1, (3,))),
    "layers": (chiplets((2, 2), (3, 3), links_per_edge=1), None, Injection(0.02, (1, 5))),
    "one-way-ring": (
        from_graph(range(8), [(i, (i + 1) % 8) for i in range(8)]),
        RouterParameters(virtual_channels=6, buffer_flits=2),
        Injection(0.1, (1, 3)),
    ),
    "tree": (fat_tree(2, 4), None, Injection(0.2, (1, 3)), "d_mod_k"),
    "crossbar": (crossbar(8), None, Injection(0.4)),
}


def _both(topology, router, injection, routing="default", cycles=3000):
    networks = []
    for bitmask in (True, False):
        if injection.packet_weights == (1.0,):
            injection = Injection(injection.rate, injection.packet_flits, (1.0,) * len(injection.packet_flits))
        network = CycleNetwork(topology, routing, router, seed=5)
        assert network.bitmask
        network.bitmask = bitmask
        traffic = traffic_of(pattern("uniform", topology.nodes), injection, network.memory, 5)
        network.run(traffic, cycles)
        networks.append((network, traffic))
    return networks


@pytest.mark.parametrize("name", CASES)
def test_the_bitmask_router_moves_every_flit_as_the_general_one(name):
    (bitmask, _), (general, _) = _both(*CASES[name])
    counted = [k for k in range(22) if k != cs.STEP]
    assert bitmask.counters[counted].tolist() == general.counters[counted].tolist()
    assert bitmask.counters[cs.SAMPLED_PACKETS] > 500
    assert np.array_equal(bitmask.memory.histogram, general.memory.histogram)
    for word in (cs.W_FLITS, cs.W_USED, cs.W_PLACE):
        assert np.array_equal(bitmask.memory.own[:, :, word], general.memory.own[:, :, word])
    assert np.array_equal(bitmask.memory.own[:, :, cs.W_OWNER] != 0, general.memory.own[:, :, cs.W_OWNER] != 0)


@pytest.mark.parametrize(
    ("topology", "routing"),
    [
        (mesh((4, 4)), "xy_yx"),
        (mesh((4, 4)), "valiant"),
        (mesh((4, 4)), "romm"),
        (torus((4, 4)), "default"),
        (ring(7), "default"),
        (fat_tree(4, 2), "ancestor"),
        (dragonfly(1), "default"),
    ],
    ids=["xy_yx", "valiant", "romm", "torus", "ring", "fat-tree", "dragonfly"],
)
def test_routing_by_chance_agrees_in_the_mean(topology, routing):
    # Random numbers are drawn in another order, so single flits differ.
    (bitmask, _), (general, _) = _both(topology, None, Injection(0.05, (3,)), routing, 20_000)
    for place in (cs.PACKET_LATENCY, cs.HOPS):
        ours, other = (n.counters[place] / n.counters[cs.SAMPLED_PACKETS] for n in (bitmask, general))
        assert ours == pytest.approx(other, rel=0.02)


@pytest.mark.parametrize("name", ["overloaded", "all-different", "pillars"])
def test_after_draining_every_mask_is_as_at_the_start(name):
    topology, router, injection = CASES[name][:3]
    (bitmask, traffic), _ = _both(topology, router, injection)
    bitmask.run(traffic, 100_000, generate=False, mode=2)
    bitmask.run(traffic, 64, generate=False)
    memory, fresh = bitmask.memory, CycleNetwork(topology, "default", router).memory
    size = int(memory.words[cs.OUT_SIZE]) // 2
    ports = len(memory.link_out) + topology.nodes
    for words in (memory, fresh):
        first = int(words.words[cs.AT_OUT]) // 2
        masks = words.masks[first : first + ports * size].reshape(ports, size)
        assert not masks[:, [cs.O_WANT, cs.O_ASK]].any()
        assert (masks[:, cs.O_FREE] == (1 << int(words.words[cs.VCS])) - 1).all()
    assert memory.words[memory.words[cs.AT_BUSY]] == memory.words[memory.words[cs.AT_ASKING]] == 0


def test_what_the_bitmask_router_cannot_do_goes_to_the_general_one():
    others = [
        RouterParameters(vc_allocator="separable_input_first"),
        RouterParameters(alloc_iterations=2),
        RouterParameters(switch_alloc_delay=2),
        RouterParameters(input_speedup=2),
        RouterParameters(switch_speedup=1.5),
        RouterParameters(wait_for_tail_credit=True),
        RouterParameters(vc_busy_when_full=True),
        RouterParameters(speculative=True),
        RouterParameters(priority="age"),
        RouterParameters(virtual_channels=13),  # 5 ports of 13 do not fit a mask
        RouterParameters(flit_bits=2**20),  # wider than the links
    ]
    assert not any(CycleNetwork(mesh((3, 3)), "default", router).bitmask for router in others)
    assert CycleNetwork(mesh((3, 3)), "default", RouterParameters(virtual_channels=12)).bitmask
    assert not CycleNetwork(mesh((3, 3)), "minimal_adaptive").bitmask


@njit
def _compiled(word: int, pointer: int) -> tuple[int, int]:
    return lowest_bit(word), first_from(word, pointer)


@given(st.integers(1, 2**62 - 1), st.integers(0, 63))
def test_round_robin_on_a_mask_takes_the_first_bit_from_the_pointer_on(word, pointer):
    places = [k for k in range(62) if word >> k & 1]
    assert _compiled(word, pointer) == (places[0], min(places, key=lambda k: (k < pointer, k)))
