"""Application traces through the cycle engine: listed packets, each with its cycle, ends and size.

A source sends its packets in the order of the trace, none before its cycle and none before the packets that it waits
for have been delivered; a packet that has to wait holds up those of its source behind it.  Latency counts from the
cycle at which a packet might first be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.network.cycle import flow_records as fr
from tierform.network.cycle import modes
from tierform.network.cycle import state as cs
from tierform.network.cycle.engine import CycleNetwork, listed_traffic
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray, IntArray, Topology

MAX_FLITS = 1 << 20
MAX_CYCLE = 2**31 - 2


@dataclass(frozen=True, eq=False)
class PacketTrace:
    """Packets, (packets,) each: the cycle, source and destination node, flits.

    `after` holds pairs (pairs, 2) of packet numbers: the second waits until the first has been delivered.
    """

    cycle: IntArray
    source: IntArray
    destination: IntArray
    flits: IntArray
    after: IntArray

    def __len__(self) -> int:
        return len(self.cycle)


@dataclass(frozen=True, eq=False)
class TraceTimes:
    """When each packet might be sent and when its last flit arrived, in cycles; -1 for what was not delivered in time.

    `link_utilization` is flits per cycle and link over the whole run.
    """

    ready: IntArray
    delivered: IntArray
    cycles: int
    flit_hops: int
    link_utilization: FloatArray

    @property
    def finished(self) -> bool:
        """Whether every packet was delivered."""
        return bool((self.delivered >= 0).all())

    @property
    def latency_cycles(self) -> IntArray:
        """(delivered packets,) latency of each."""
        done = self.delivered >= 0
        latency: IntArray = self.delivered[done] - self.ready[done]
        return latency


def simulate_trace(
    topology: Topology,
    trace: PacketTrace,
    routing: Routing | str = "default",
    router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
    *,
    seed: int = 0,
    max_cycles: int = 1_000_000_000,
    progress: Callable[[int], None] | None = None,
) -> TraceTimes:
    """Simulate a trace to its end or for `max_cycles`; TierformError when its packets wait in a circle."""
    _check(topology, trace)
    single = int(trace.flits.max()) == 1
    network = CycleNetwork(topology, routing, router_parameters, seed, single_flits=single)
    order = np.lexsort((np.arange(len(trace)), trace.cycle, trace.source))
    words = _words(network, trace, order)
    network.counters[cs.PHASE] = modes.RUNNING
    network.counters[cs.FLOWS_LEFT] = len(trace)
    network.run_until(listed_traffic(modes.TRACE, words), max_cycles, 3, progress=progress)
    record = words[fr.HEADER : fr.HEADER + len(trace) * fr.LISTED_SIZE].reshape(len(trace), fr.LISTED_SIZE)
    ready, delivered = np.empty(len(trace), np.int64), np.empty(len(trace), np.int64)
    ready[order], delivered[order] = record[:, fr.L_SENT], record[:, fr.L_DONE]
    # A source that was busy learns late that what its next packet waited for has come.
    np.maximum.at(ready, trace.after[:, 1], delivered[trace.after[:, 0]])
    memory = network.memory
    carried = memory.own[: len(memory.link_out) + topology.nodes, :, cs.W_FLITS].sum(axis=1)
    return TraceTimes(
        ready,
        delivered,
        network.now,
        int(carried.sum()),
        carried[memory.link_out] / max(network.now, 1),
    )


def _words(network: CycleNetwork, trace: PacketTrace, order: IntArray) -> IntArray:
    """The trace as the compiled loop reads it, packets source by source; sets each source's clock."""
    count, nodes = len(trace), network.topology.nodes
    at_base = fr.HEADER + count * fr.LISTED_SIZE
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    before, after = place[trace.after[:, 0]], place[trace.after[:, 1]]
    by_first = np.argsort(before, kind="stable")
    waiting = after[by_first]
    starts = np.searchsorted(before[by_first], np.arange(count + 1))
    words = np.zeros(at_base + nodes + 1 + len(waiting), np.int64)
    # No flows: the loop would look for their next release when nothing is on its way.
    words[: fr.HEADER] = 0, fr.HEADER, at_base, 1
    record = words[fr.HEADER : at_base].reshape(count, fr.LISTED_SIZE)
    record[:, fr.L_CYCLE], record[:, fr.L_GOAL] = trace.cycle[order], trace.destination[order]
    record[:, fr.L_FLITS], record[:, fr.L_SOURCE] = trace.flits[order], trace.source[order]
    record[:, fr.L_WAITS_FOR] = np.bincount(after, minlength=count)
    record[:, fr.L_NEXT] = at_base + nodes + 1 + starts[:-1]
    record[:, fr.L_NEXT_N] = np.diff(starts)
    record[:, [fr.L_SENT, fr.L_DONE]] = -1
    first = np.searchsorted(trace.source[order], np.arange(nodes + 1))
    words[at_base : at_base + nodes + 1] = first
    words[at_base + nodes + 1 :] = waiting
    clock = np.full(nodes, fr.NEVER, np.int64)
    has = first[:-1] < first[1:]
    head = record[first[:-1][has]]
    clock[has] = np.where(head[:, fr.L_WAITS_FOR] == 0, head[:, fr.L_CYCLE], fr.NEVER)
    network.memory.node[:, cs.N_NEXT] = clock
    return words


def _check(topology: Topology, trace: PacketTrace) -> None:
    if len(trace) == 0:
        fail("the trace has no packet", key="trace")
    problems = []
    for name, low, high in (
        ("cycle", 0, MAX_CYCLE),
        ("source", 0, topology.nodes - 1),
        ("destination", 0, topology.nodes - 1),
        ("flits", 1, MAX_FLITS),
    ):
        values = np.asarray(getattr(trace, name))
        wrong = np.flatnonzero((values < low) | (values > high))
        if len(wrong):
            what = f"packet {int(wrong[0])}: {name} must be {low} to {high}"
            problems.append(Problem(what, key="trace", value=int(values[wrong[0]])))
    if len(trace.after) and (trace.after.min() < 0 or trace.after.max() >= len(trace)):
        problems.append(
            Problem(f"packets are numbered 0 to {len(trace) - 1}", key="trace", value=int(trace.after.max()))
        )
    if problems:
        raise TierformError(problems)
    if len(trace.after) and _in_circle(trace):
        fail("packets of the trace wait for each other in a circle", key="trace")


def _in_circle(trace: PacketTrace) -> bool:
    """Whether what packets wait for, and the order of each source, has a circle."""
    order = np.lexsort((np.arange(len(trace)), trace.cycle, trace.source))
    same = trace.source[order[1:]] == trace.source[order[:-1]]
    inside = np.stack([order[:-1][same], order[1:][same]], axis=1)
    pairs = np.concatenate([trace.after, inside])
    left = np.bincount(pairs[:, 1], minlength=len(trace))
    by_first = np.argsort(pairs[:, 0], kind="stable")
    following = pairs[by_first, 1]
    starts = np.searchsorted(pairs[by_first, 0], np.arange(len(trace) + 1))
    ready = np.flatnonzero(left == 0).tolist()
    done = 0
    while ready:
        packet = ready.pop()
        done += 1
        for later in following[starts[packet] : starts[packet + 1]]:
            left[later] -= 1
            if left[later] == 0:
                ready.append(int(later))
    return done < len(trace)
