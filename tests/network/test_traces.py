"""Is a trace's packet sent when its line and what it waits for say so?"""

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.network import PacketTrace, RouterParameters, fat_tree, mesh, simulate_trace


def _trace(rows, after=()):
    table = np.array(rows, np.int64)
    return PacketTrace(*table.T, np.array(after, np.int64).reshape(-1, 2))


def test_packets_alone_take_the_zero_load_latency_from_their_own_cycle():
    # On a line of 4 routers: 5 cycles at each router passed, 2 into and out of the network, a cycle for each flit more.
    times = simulate_trace(mesh((4, 1)), _trace([(10, 0, 3, 1), (500, 3, 0, 4), (900, 1, 1, 2)]))
    assert times.ready.tolist() == [10, 500, 900]
    assert times.latency_cycles.tolist() == [4 * 5 + 2, 4 * 5 + 2 + 3, 1 * 5 + 2 + 1]
    assert times.finished


def test_a_source_sends_one_packet_after_the_other_whatever_the_order_of_lines():
    rows = [(0, 0, 1, 8), (0, 0, 1, 8), (0, 0, 1, 8)]
    times = simulate_trace(mesh((2, 1)), _trace(rows))
    # The first flit of each packet leaves 8 cycles after that of the one before.
    assert np.diff(times.delivered).tolist() == [8, 8]
    shuffled = simulate_trace(mesh((2, 1)), _trace([(20, 0, 1, 1), (0, 0, 1, 1), (10, 0, 1, 1)]))
    assert shuffled.ready.tolist() == [20, 0, 10]


def test_a_packet_waits_until_the_one_before_it_is_delivered():
    times = simulate_trace(mesh((4, 1)), _trace([(0, 0, 3, 1), (0, 3, 0, 1), (0, 2, 1, 1)], after=[(0, 1)]))
    assert times.ready[1] == times.delivered[0] == 22
    assert times.ready[2] == 0


def test_many_packets_arrive_once_each_on_other_topologies():
    rng = np.random.default_rng(3)
    rows = np.stack(
        [
            np.sort(rng.integers(0, 500, 800)),
            rng.integers(0, 16, 800),
            rng.integers(0, 16, 800),
            rng.integers(1, 6, 800),
        ]
    ).T
    after = [(k, k + 100) for k in range(0, 700, 7)]
    for topology in (mesh((4, 4)), fat_tree(4, 2)):
        times = simulate_trace(topology, _trace(rows, after), router_parameters=RouterParameters(virtual_channels=2))
        assert times.finished
        assert (times.latency_cycles >= 7 + rows[:, 3] - 1).all()
        assert all(times.ready[b] >= times.delivered[a] for a, b in after)


@pytest.mark.parametrize(
    ("rows", "after", "words"),
    [
        ([(0, 0, 9, 1)], [], "destination must be 0 to 3"),
        ([(0, 0, 1, 0)], [], "flits must be 1"),
        ([(-1, 0, 1, 1)], [], "cycle must be 0"),
        ([(0, 0, 1, 1), (0, 1, 0, 1)], [(0, 1), (1, 0)], "circle"),
        # A source sends in order, so its second packet cannot be what its first waits for.
        ([(0, 0, 1, 1), (5, 0, 1, 1)], [(1, 0)], "circle"),
    ],
)
def test_traces_that_cannot_be_sent_are_refused(rows, after, words):
    with pytest.raises(TierformError, match=words):
        simulate_trace(mesh((2, 2)), _trace(rows, after))
