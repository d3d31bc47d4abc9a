"""Is a table of routes that brings its classes of virtual channels held to them, and does it then never stand still?

A one-way ring of six: every router sends on to the next.  In one class the ring's links wait for each other in a
circle.  With a dateline (Dally and Seitz 1987) packets that have still to pass the link from 5 to 0 take class 1 and
all others class 0: the links of class 1 end at the dateline, those of class 0 begin there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.network import Topology, choose_routing, from_graph
from tierform.network.case import Injection, Sampling
from tierform.network.cycle.sampling import simulate_traffic
from tierform.network.deadlock import class_dependencies, dependencies, find_cycle, virtual_channel_plan
from tierform.network.parameters import RouterParameters
from tierform.network.topology import RouteTable

SIZE = 6


def _ring(classes: np.ndarray | None) -> Topology:
    ring = from_graph(range(SIZE), [(i, (i + 1) % SIZE) for i in range(SIZE)])
    link = np.full((SIZE, SIZE), -1, np.int32)
    for number, here in enumerate(ring.link_source):
        link[here] = number
    np.fill_diagonal(link, -1)
    return replace(ring, structure=RouteTable(link, classes))


def _dateline() -> np.ndarray:
    here, goal = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    return (here > goal).astype(np.int32)


def test_has_a_ring_a_cycle_in_one_class_and_none_with_a_dateline() -> None:
    topology = _ring(_dateline())
    everyone = np.arange(SIZE, dtype=np.int32)
    assert find_cycle(topology, dependencies(choose_routing(topology), everyone)) is not None
    pairs = class_dependencies(topology, topology.structure)  # type: ignore[arg-type]
    # By hand, links by the router that drives them.  Class 1 goes on in class 1 up to the link from 5 to 0 (from 1: no
    # packet still to pass the dateline starts at 0), which leads into class 0 of the link from 0; class 0 goes on in
    # class 0 up to the link from 4 to 5.
    own = topology.link_source
    told = {((int(own[a // 2]), int(a % 2)), (int(own[b // 2]), int(b % 2))) for a, b in pairs}
    by_hand = {((i, 1), (i + 1, 1)) for i in range(1, 5)} | {((i, 0), (i + 1, 0)) for i in range(4)}
    assert told == by_hand | {((5, 1), (0, 0))}


def test_is_the_plan_the_classes_that_the_table_brings() -> None:
    plan = virtual_channel_plan(choose_routing(_ring(_dateline())), 3)
    assert plan.layers == 2
    np.testing.assert_array_equal(plan.layer_of, _dateline())


def test_are_classes_refused_that_do_not_help_or_find_no_channel() -> None:
    with pytest.raises(TierformError, match="deadlock in their classes"):
        virtual_channel_plan(choose_routing(_ring(np.zeros((SIZE, SIZE), np.int32))), 4)
    with pytest.raises(TierformError, match="a virtual channel for each"):
        virtual_channel_plan(choose_routing(_ring(_dateline())), 1)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_does_a_full_ring_never_stand_still(channels: int) -> None:
    """Packets of five flits in buffers of two, far above what the ring carries.

    A packet goes (1 + 2 + 3 + 4 + 5) / 5 = 3 links on the mean (0, where it may be sent to its own node: 2.5); six
    links carry six flits a cycle, so that a node gets at most 1 / 2.5 of a flit.
    """
    router = RouterParameters(virtual_channels=channels, buffer_flits=2)
    sampling = Sampling(period=2000, warmup_periods=1, max_periods=2, measure_latency=False)
    result = simulate_traffic(
        _ring(_dateline()), "uniform", Injection(0.9, (5,)), router_parameters=router, sampling=sampling, seed=3
    )
    assert 0.05 < float(result.node_accepted.mean()) <= 1 / 2.5 + 0.02
