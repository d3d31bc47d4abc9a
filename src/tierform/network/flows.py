"""Dependency-driven transfers on the cycle engine: what starts when, and when it is done.

A :class:`Flow` moves `size_B` bytes spread over all its sources and destinations, when the flows in `after` have been
delivered and `delay_s` has passed (the operator's own time).  Each source sends its part in packets of at most
`packet_flits` flits to its destinations in turn, starting at a place of its own so that sources do not all begin with
the same destination.  A source of several flows serves them in turn, packet by packet.

A multicast flow brings every source's part to all destinations, over a tree (:mod:`tierform.network.cycle.multicast`).

Limits: sizes are rounded up to whole flits per source; packets of a multicast are no longer than a buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierform.errors import Problem, TierformError
from tierform.network.cycle import flow_records as cf
from tierform.network.cycle import modes
from tierform.network.cycle import state as cs
from tierform.network.cycle.engine import CycleNetwork, listed_traffic
from tierform.network.cycle.multicast import add_trees
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray, IntArray, Topology


@dataclass(frozen=True, eq=False)
class Flow:
    """A transfer: node numbers of sources and destinations, bytes, the flows it waits for, and a delay after them.

    With `multicast` all destinations get all bytes, otherwise the bytes are spread over them.
    """

    sources: Sequence[int] | IntArray
    destinations: Sequence[int] | IntArray
    size_B: float
    after: Sequence[int] = ()
    delay_s: float = 0.0
    multicast: bool = False


@dataclass(frozen=True, eq=False)
class FlowTimes:
    """Per flow: when it might start (its dependencies done), when its first packet left, when its last arrived."""

    released_s: FloatArray
    started_s: FloatArray
    finished_s: FloatArray
    cycles: int
    link_utilization: FloatArray
    flit_hops: int


def simulate_flows(
    topology: Topology,
    routing: Routing | str = "default",
    router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
    clock_Hz: float = 1e9,
    flows: Sequence[Flow] = (),
    *,
    packet_flits: int = 8,
    seed: int = 0,
    max_cycles: int = 1_000_000_000,
) -> FlowTimes:
    """Simulate the flows flit by flit; TierformError when they wait for each other in a circle or name no node."""
    _check(topology, flows, packet_flits, clock_Hz)
    network = CycleNetwork(topology, routing, router_parameters, seed)
    flit_B = network.routers[0].flit_bits / 8
    trees = _plant(network, flows)
    words = _words(network, flows, packet_flits, flit_B, clock_Hz, trees)
    traffic = listed_traffic(modes.FLOWS, words)
    network.counters[cs.PHASE] = modes.RUNNING
    ran = network.run_until(traffic, max_cycles, 3)
    if network.counters[cs.FLOWS_LEFT] > 0:
        raise TierformError([Problem(f"the flows did not finish within {ran} cycles", key="max_cycles")])
    record = words[int(words[cf.AT_FLOWS]) :][: len(flows) * cf.FLOW_SIZE].reshape(len(flows), cf.FLOW_SIZE)
    memory = network.memory
    carried = memory.own[: len(memory.link_out) + topology.nodes, :, cs.W_FLITS].sum(axis=1)
    return FlowTimes(
        record[:, cf.F_RELEASE] / clock_Hz,
        record[:, cf.F_STARTED] / clock_Hz,
        record[:, cf.F_FINISHED] / clock_Hz,
        network.now,
        carried[memory.link_out] / max(network.now, 1),
        int(carried.sum()),
    )


def _plant(network: CycleNetwork, flows: Sequence[Flow]) -> dict[tuple[int, int], int]:
    """The addresses of the multicast trees of each (flow, source); they take the general router."""
    wanted = [(number, int(source)) for number, flow in enumerate(flows) if flow.multicast for source in flow.sources]
    if not wanted:
        return {}
    network.bitmask = False
    pairs = [(source, flows[number].destinations) for number, source in wanted]
    network.memory, trees = add_trees(network.memory, network.routing, pairs)
    return dict(zip(wanted, trees, strict=True))


def _words(
    network: CycleNetwork,
    flows: Sequence[Flow],
    packet_flits: int,
    flit_B: float,
    clock_Hz: float,
    trees: dict[tuple[int, int], int],
) -> IntArray:
    """The flows as the compiled loop reads them (see :mod:`tierform.network.cycle.flow_release`)."""
    nodes, count = network.topology.nodes, len(flows)
    followers: list[list[int]] = [[] for _ in flows]
    for number, flow in enumerate(flows):
        for before in dict.fromkeys(flow.after):
            followers[before].append(number)
    entries: list[list[tuple[int, int, int]]] = [[] for _ in range(nodes)]
    for number, flow in enumerate(flows):
        senders = np.asarray(flow.sources, np.int64)
        part = int(np.ceil(flow.size_B / len(senders) / flit_B - 1e-9))
        spread = len(np.asarray(flow.destinations))
        for place, node in enumerate(senders.tolist()):
            if part > 0:
                entries[node].append((number, part, place * spread // len(senders)))
    entry_count = sum(len(rows) for rows in entries)
    at_flows = cf.HEADER
    at_base = at_flows + count * cf.FLOW_SIZE
    at_entries = at_base + nodes + 1
    at_lists = at_entries + entry_count * cf.ENTRY_SIZE
    body: list[int] = []
    words = np.zeros(at_lists, np.int64)
    words[: cf.HEADER] = count, at_flows, at_base, 0
    shortest = min(router.buffer_flits for router in network.routers)
    senders_of: list[list[int]] = [[] for _ in flows]
    sent = np.zeros(count, np.int64)
    at = at_entries
    for node in range(nodes):
        words[at_base + node] = at
        for number, part, turn in entries[node]:
            words[at : at + cf.ENTRY_SIZE] = number, part, turn, node, trees.get((number, node), 0)
            senders_of[number].append(at)
            sent[number] += part
            at += cf.ENTRY_SIZE
    words[at_base + nodes] = at
    record = words[at_flows:at_base].reshape(count, cf.FLOW_SIZE)
    record[:, [cf.F_RELEASE, cf.F_STARTED, cf.F_FINISHED]] = -1
    for number, flow in enumerate(flows):
        record[number, cf.F_WAITS_FOR] = len(set(flow.after))
        record[number, cf.F_DELAY] = round(flow.delay_s * clock_Hz)
        copies = len(np.unique(np.asarray(flow.destinations))) if flow.multicast else 1
        record[number, cf.F_COPIES] = copies
        record[number, cf.F_FLITS_LEFT] = sent[number] * copies
        record[number, cf.F_PACKET_FLITS] = min(packet_flits, shortest) if flow.multicast else packet_flits
        for place, items in (
            (cf.F_GOALS, np.asarray(flow.destinations).tolist()),
            (cf.F_NEXT, followers[number]),
            (cf.F_SENDERS, senders_of[number]),
        ):
            record[number, place] = at_lists + len(body)
            record[number, place + 1] = len(items)
            body += items
    everything = np.concatenate([words, np.array(body, np.int64)])
    network.counters[cs.FLOWS_LEFT] = count
    _begin(network, everything)
    return everything


def _begin(network: CycleNetwork, words: IntArray) -> None:
    """Release the flows that wait for nothing, and those behind flows without bytes, as the compiled loop does."""
    first, count = int(words[cf.AT_FLOWS]), int(words[cf.FLOW_COUNT])
    record = words[first : first + count * cf.FLOW_SIZE].reshape(count, cf.FLOW_SIZE)
    ready = [
        (int(number), int(record[number, cf.F_DELAY])) for number in np.flatnonzero(record[:, cf.F_WAITS_FOR] == 0)
    ]
    while ready:
        number, when = ready.pop()
        flow = record[number]
        flow[cf.F_RELEASE] = when
        if flow[cf.F_FLITS_LEFT] > 0:
            entries = words[flow[cf.F_SENDERS] : flow[cf.F_SENDERS] + flow[cf.F_SENDER_N]]
            np.add.at(network.memory.node[:, cs.N_READY], words[entries + cf.E_NODE], 1)
            continue
        flow[cf.F_STARTED] = flow[cf.F_FINISHED] = when
        network.counters[cs.FLOWS_LEFT] -= 1
        for later in words[flow[cf.F_NEXT] : flow[cf.F_NEXT] + flow[cf.F_NEXT_N]]:
            record[later, cf.F_WAITS_FOR] -= 1
            if record[later, cf.F_WAITS_FOR] == 0:
                ready.append((int(later), when + int(record[later, cf.F_DELAY])))


def _check(topology: Topology, flows: Sequence[Flow], packet_flits: int, clock_Hz: float) -> None:
    problems = []
    if packet_flits < 1:
        problems.append(Problem("packets have at least one flit", key="packet_flits", value=packet_flits))
    if not clock_Hz > 0:
        problems.append(Problem("the clock must be positive", key="clock_Hz", value=clock_Hz))
    if not flows:
        problems.append(Problem("there is no flow to simulate", key="flows"))
    for number, flow in enumerate(flows):
        where = f"flow {number}"
        for name in ("sources", "destinations"):
            nodes = np.asarray(getattr(flow, name))
            if nodes.ndim != 1 or len(nodes) == 0 or nodes.min() < 0 or nodes.max() >= topology.nodes:
                problems.append(Problem(f"{name} must be nodes 0 to {topology.nodes - 1}", key=where))
        if not (np.isfinite(flow.size_B) and flow.size_B >= 0):
            problems.append(Problem("the size must not be negative", key=where, value=flow.size_B))
        if not (np.isfinite(flow.delay_s) and flow.delay_s >= 0):
            problems.append(Problem("the delay must not be negative", key=where, value=flow.delay_s))
        wrong = [other for other in flow.after if not 0 <= other < len(flows)]
        if wrong:
            problems.append(Problem(f"it waits for flow {wrong[0]}, and there are {len(flows)}", key=where))
    if not problems:
        left = {number: set(flow.after) for number, flow in enumerate(flows)}
        while left:
            free = [number for number, waits in left.items() if not waits & left.keys()]
            if not free:
                circle = ", ".join(map(str, sorted(left)[:8]))
                problems.append(Problem(f"these flows wait for each other in a circle: {circle}", key="after"))
                break
            for number in free:
                del left[number]
    if problems:
        raise TierformError(problems)
