# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Endpoints (network interfaces): sources that generate packets and inject flits, sinks that receive them.

The books are kept here too: what is in flight, and, when a packet's last flit has come, its latencies.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Floats, Ints, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.delay_lines import credit_line, due, flit_line, note, post
from tierform.network.cycle.draws import below, fraction, geometric
from tierform.network.cycle.flow_records import IS_LIST
from tierform.network.cycle.flow_release import finish_flow, finish_listed, next_listed, next_of_flow
from tierform.network.cycle.modes import DRAINING, FLOWS, PERMUTATION, RUNNING, SHARED_WEIGHTS, TRACE, UNIFORM, WARMING

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
FOREVER = np.int64(2**31 - 1)
# Cycles from a source to its router, as over a link of latency 1.
SOURCE_DELAY = 2


@compiled
def pick(cumulative: Floats, chance: float) -> int:
    """The first place whose cumulative weight exceeds `chance`."""
    low, high = 0, len(cumulative) - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > chance:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def destination(m: Words, c: Ints, kinds: Ints, target: Ints, weights: Floats, source: int, group: int) -> np.int64:
    """Draw the destination of a packet of `source` in class `group`."""
    kind = kinds[group, 0]
    if kind == PERMUTATION:
        return np.int64(target[group, source])
    if kind == UNIFORM:
        return below(c, m[s.NODES] // m[s.SUBNETS])
    row = kinds[group, 1]
    return np.int64(pick(weights[row if kind == SHARED_WEIGHTS else row + source], fraction(c)))


@compiled
def next_packet_time(m: Words, c: Ints, node: int, rate: float, inverse_log: float, burst: Floats) -> None:
    """Move a source's clock to its next packet; a bursty source (chance to start > 0) changes state once a cycle.

    In a batch (`burst[2]`) a source has a packet in every cycle, while any are left and not too many are on their way.
    """
    start, stop = burst[0], burst[1]
    if burst[2] > 0.0:
        m[U(node + s.N_READY)] -= 1
        m[U(node + s.N_TURN)] += 1
        m[U(node + s.N_NEXT)] += 1
        if m[U(node + s.N_READY)] <= 0 or 0.0 < burst[3] <= m[U(node + s.N_TURN)]:
            m[U(node + s.N_NEXT)] = FOREVER
    elif rate <= 0.0:
        m[U(node + s.N_NEXT)] = FOREVER
    elif start <= 0.0:
        m[U(node + s.N_NEXT)] = min(m[U(node + s.N_NEXT)] + geometric(c, inverse_log), FOREVER)
    else:
        burst_rate = rate * (start + stop) / start
        while True:
            m[U(node + s.N_NEXT)] += 1
            if m[U(node + s.N_ON)]:
                m[U(node + s.N_ON)] = 1 if fraction(c) >= stop else 0
            else:
                m[U(node + s.N_ON)] = 1 if fraction(c) < start else 0
            if m[U(node + s.N_ON)] and fraction(c) < burst_rate:
                return


@compiled
def new_packet(
    m: Words, c: Ints, node: int, goal: int, size: int, created: int, flow: int, tree: int, copies: int, group: int
) -> None:
    """Take a packet record from the free ones and hand it to the source; it will be delivered `copies` times.

    `flow` is the flow or listed packet that it belongs to, -1 for none, -2 - n for node n's batch.
    """
    top = c[s.FREE_TOP] - 1
    c[s.FREE_TOP] = top
    packet = m[U(m[s.AT_FREE] + top)]
    measured = 0
    if c[s.PHASE] == RUNNING or (c[s.PHASE] == DRAINING and created < c[s.DRAIN_FROM]):
        measured = 1
        c[s.MEASURED_IN_FLIGHT] += copies
    at = m[s.AT_PACKET] + packet * s.P_RECORD
    goal_at = m[s.AT_NODE] + goal * s.N_SIZE
    m[U(at + s.P_GOAL)] = m[U(goal_at + s.N_EJECT)]
    m[U(at + s.P_HOME)] = m[U(goal_at + s.N_ROUTER)]
    m[U(at + s.P_SIZE)] = size
    m[U(at + s.P_CREATED)] = created
    m[U(at + s.P_MEASURED)] = measured | group << 1
    m[U(at + s.P_HOPS)] = 0
    m[U(at + s.P_FLOW)] = flow
    m[U(at + s.P_TREE)] = tree
    m[U(at + s.P_NEXT_FLIT)] = size
    m[U(at + s.P_FLIT_TIMES)] = 0
    m[U(node + s.N_PACKET)] = packet
    m[U(node + s.N_LEFT)] = size
    m[U(node + s.N_VC)] = -1
    c[s.IN_FLIGHT] += size * copies
    c[s.IN_FLIGHT_CREATED] += size * created * copies
    c[s.PACKETS] += copies
    if m[s.CLASSES] > 1:
        own = s.COUNTERS + group * s.CLASS_COUNTERS
        c[own + s.K_IN_FLIGHT] += size
        c[own + s.K_IN_FLIGHT_CREATED] += size * created
        c[own + s.K_MEASURED_IN_FLIGHT] += measured


@compiled
def sources(
    m: Words,
    c: Ints,
    now: int,
    kinds: Ints,
    rate: Floats,
    sizes: Ints,
    size_weights: Floats,
    target: Ints,
    weights: Floats,
    burst: Floats,
    flows: Ints,
    generate: bool,
) -> None:
    """Generate packets and put at most one flit per node on its injection channel."""
    # First a list of the nodes that have something to do: written without a branch that would often be mispredicted.
    kind = kinds[0, 0]
    todo = last = m[s.AT_TODO]
    first = m[s.AT_NODE]
    for node in range(first, first + m[s.NODES] * s.N_SIZE, s.N_SIZE):
        m[U(last)] = node
        new = m[U(node + s.N_READY)] > 0 if kind == FLOWS else m[U(node + s.N_NEXT)] <= now
        last += np.int64((m[U(node + s.N_PACKET)] >= 0) | (generate & new))
    vcs, depth = m[s.VCS], m[s.DEPTH]
    line = flit_line(m, m[s.AT_FLITS])
    for k in range(todo, last):
        node = m[U(k)]
        packet = m[U(node + s.N_PACKET)]
        if packet < 0:
            source = (node - first) // s.N_SIZE
            if kind == FLOWS:
                flow, goal, size, tree, copies = next_of_flow(m, c, flows, node, source, now)
                if flow < 0:
                    continue
                new_packet(m, c, node, goal, size, now, flow, tree, copies, 0)
            elif kind == TRACE:
                flow, goal, size, created = next_listed(m, flows, node, source)
                new_packet(m, c, node, goal, size, created, flow, 0, 1, 0)
            else:
                goal = destination(m, c, kinds, target, weights, source, 0)
                size = np.int64(sizes[0, 0])
                if sizes.shape[1] > 1:
                    size = np.int64(sizes[0, pick(size_weights[0], fraction(c))])
                flow = -2 - source if burst[0, 2] > 0.0 else np.int64(-1)
                new_packet(m, c, node, goal, size, m[U(node + s.N_NEXT)], flow, 0, 1, 0)
                next_packet_time(m, c, node, rate[0, source], rate[1, source], burst[0])
            packet = m[U(node + s.N_PACKET)]
        slots = m[U(node + s.N_SLOTS)]
        vc = m[U(node + s.N_VC)]
        own = m[U(node + s.N_OWN)]
        at = m[s.AT_PACKET] + packet * s.P_RECORD
        head = 0
        if vc < 0:
            tried = m[U(node + s.N_LAST_VC)]
            tries = vcs
            if m[s.RANDOM_ENTRY]:
                tried, tries = np.int32(below(c, vcs) - 1), np.int32(1)
            for _ in range(tries):
                tried = tried + 1 if tried + 1 < vcs else 0
                if (
                    m[U(own + tried * s.W_SIZE + s.W_OWNER)] == s.FREE
                    and m[U(own + tried * s.W_SIZE + s.W_USED)] < slots
                ):
                    vc = tried
                    break
            if vc < 0:
                continue
            head = 2
            own += vc * s.W_SIZE
            m[U(node + s.N_VC)] = vc
            m[U(node + s.N_LAST_VC)] = vc
            m[U(own + s.W_OWNER)] = s.OWNED
            m[U(at + s.P_ENTERED)] = now
        else:
            own += vc * s.W_SIZE
            if m[U(own + s.W_USED)] >= slots:
                continue
        m[U(own + s.W_USED)] += 1
        left = m[U(node + s.N_LEFT)] - 1
        m[U(node + s.N_LEFT)] = left
        tail = 0
        if left == 0:
            tail = 1
            m[U(node + s.N_PACKET)] = -1
            m[U(own + s.W_OWNER)] = s.TAIL_SENT if m[s.WAIT_FOR_TAIL] else s.FREE
        post(m, line, own, (packet << 2) | head | tail, now + SOURCE_DELAY, depth)
        m[U(at + s.P_FLIT_TIMES)] -= now - m[U(at + s.P_CREATED)]
        c[s.SENT] += 1


@compiled
def deliver(m: Words, c: Ints, flows: Ints, now: int) -> None:
    """Take the flits that reach their nodes in this cycle: return the credits, keep the books."""
    slot = due(flit_line(m, m[s.AT_SINKS]), now)
    credits = credit_line(m)
    accepting = np.int64(c[s.PHASE] != DRAINING)
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        sink = m[U(k)]
        head = m[U(sink + s.C_HEAD)]
        word = m[U(sink + s.C_FLITS + head)]
        m[U(sink + s.C_HEAD)] = head + 1 if head + 1 < m[s.DEPTH] else 0
        node = m[U(sink + s.C_ASSIGNED)]
        note(m, credits, now + m[U(node + s.N_CREDIT_DELAY)], m[U(sink + s.C_FEEDER)], 1)
        at = m[s.AT_PACKET] + (word >> 2) * s.P_RECORD
        c[s.IN_FLIGHT] -= 1
        c[s.IN_FLIGHT_CREATED] -= m[U(at + s.P_CREATED)]
        m[U(at + s.P_FLIT_TIMES)] += now - m[U(at + s.P_CREATED)]
        c[s.ACCEPTED] += accepting
        m[U(node + s.N_ACCEPTED)] += accepting
        if m[s.CLASSES] > 1:
            own = s.COUNTERS + (m[U(at + s.P_MEASURED)] >> 1) * s.CLASS_COUNTERS
            c[own + s.K_IN_FLIGHT] -= 1
            c[own + s.K_IN_FLIGHT_CREATED] -= m[U(at + s.P_CREATED)]
            c[own + s.K_ACCEPTED] += accepting
        # Each flit once, in order, at its own node: anything else is our own error.
        left = m[U(at + s.P_NEXT_FLIT)] - 1
        m[U(at + s.P_NEXT_FLIT)] = left
        if (
            m[U(at + s.P_GOAL)] != m[U(node + s.N_EJECT)]
            or (word & 2 != 0) != (left == m[U(at + s.P_SIZE)] - 1)
            or (word & 1 != 0) != (left == 0)
        ):
            c[s.ERROR] = 1
        if word & 2:
            m[U(at + s.P_HEAD_AT)] = now
        if word & 1:
            finish_packet(m, c, flows, at, now)
            m[U(m[s.AT_FREE] + c[s.FREE_TOP])] = word >> 2
            c[s.FREE_TOP] += 1
    m[U(slot)] = 0


@inlined
def finish_packet(m: Words, c: Ints, flows: Ints, at: int, now: int) -> None:
    """The last flit of the packet recorded at `at` has come: its latencies count, and its flow may be done."""
    measured = m[U(at + s.P_MEASURED)] & 1
    c[s.FLIT_LATENCY] += m[U(at + s.P_FLIT_TIMES)]
    c[s.SAMPLED_FLITS] += m[U(at + s.P_SIZE)]
    if m[s.CLASSES] > 1:
        finish_in_class(m, c, at, now)
    if c[s.PHASE] == WARMING or measured:
        latency = now - m[U(at + s.P_CREATED)]
        c[s.SAMPLED_PACKETS] += 1
        c[s.PACKET_LATENCY] += latency
        c[s.NETWORK_LATENCY] += now - m[U(at + s.P_ENTERED)]
        c[s.HOPS] += m[U(at + s.P_HOPS)]
        c[s.FRAGMENTATION] += now - m[U(at + s.P_HEAD_AT)] - (m[U(at + s.P_SIZE)] - 1)
        if latency > c[s.WORST]:
            c[s.WORST] = latency
        m[U(m[s.AT_HISTOGRAM] + min(latency, m[s.BINS] - 1))] += 1
    c[s.MEASURED_IN_FLIGHT] -= measured
    flow = m[U(at + s.P_FLOW)]
    if flow >= 0:
        if flows[IS_LIST]:
            finish_listed(m, c, flows, flow, now)
        else:
            finish_flow(m, c, flows, flow, m[U(at + s.P_SIZE)], now)
    elif flow < -1:
        # A batch: the source may send its next packet if it has one left.
        node = m[s.AT_NODE] + (-2 - flow) * s.N_SIZE
        m[U(node + s.N_TURN)] -= 1
        if m[U(node + s.N_READY)] > 0 and m[U(node + s.N_NEXT)] == FOREVER:
            m[U(node + s.N_NEXT)] = now + 1


@compiled
def finish_in_class(m: Words, c: Ints, at: int, now: int) -> None:
    """The books of the packet's class."""
    own = s.COUNTERS + (m[U(at + s.P_MEASURED)] >> 1) * s.CLASS_COUNTERS
    measured = m[U(at + s.P_MEASURED)] & 1
    c[own + s.K_FLIT_LATENCY] += m[U(at + s.P_FLIT_TIMES)]
    c[own + s.K_FLITS] += m[U(at + s.P_SIZE)]
    c[own + s.K_MEASURED_IN_FLIGHT] -= measured
    if c[s.PHASE] == WARMING or measured:
        c[own + s.K_PACKETS] += 1
        c[own + s.K_LATENCY] += now - m[U(at + s.P_CREATED)]
        c[own + s.K_NETWORK] += now - m[U(at + s.P_ENTERED)]
        c[own + s.K_HOPS] += m[U(at + s.P_HOPS)]
