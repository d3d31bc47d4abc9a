# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Sources of several classes of packets, and of nodes with a port in each of several subnets.

A node has a queue of packets for each class.  In each subnet it sends at most one flit a cycle: that of the next class
in turn, or of a class whose packet has a higher priority.  A packet takes its subnet by chance, when it is made.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Floats, Ints, Words
from tierform.jit import compiled
from tierform.network.cycle import state as s
from tierform.network.cycle.delay_lines import flit_line, post
from tierform.network.cycle.draws import below, fraction
from tierform.network.cycle.endpoints import SOURCE_DELAY, destination, new_packet, next_packet_time, pick
from tierform.network.cycle.requests import packet_priority

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@compiled
def sources_of_classes(
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
    generate: bool,
) -> None:
    """Generate packets of every class and send at most one flit per node and subnet."""
    subnets, classes = m[s.SUBNETS], m[s.CLASSES]
    nodes = m[s.NODES] // subnets
    stride = nodes * s.N_SIZE
    for source in range(nodes):
        queues = m[s.AT_QUEUES] + source * s.N_SIZE
        for group in range(classes):
            queue = queues + group * stride
            if not generate or m[U(queue + s.N_PACKET)] >= 0 or m[U(queue + s.N_NEXT)] > now:
                continue
            goal = destination(m, c, kinds, target, weights, source, group)
            size = np.int64(sizes[group, 0])
            if sizes.shape[1] > 1:
                size = np.int64(sizes[group, pick(size_weights[group], fraction(c))])
            subnet = below(c, subnets) if subnets > 1 else np.int64(0)
            new_packet(m, c, queue, goal + subnet * nodes, size, m[U(queue + s.N_NEXT)], -1, 0, 1, group)
            m[U(queue + s.N_SUBNET)] = subnet
            next_packet_time(m, c, queue, rate[2 * group, source], rate[2 * group + 1, source], burst[group])
        for subnet in range(subnets):
            port = source + subnet * nodes
            chosen, best = choose_class(m, c, port, subnet, queues, stride)
            if chosen >= 0:
                send_one(m, c, m[s.AT_NODE] + port * s.N_SIZE, queues + chosen * stride, best, port, chosen, now)


@compiled
def choose_class(m: Words, c: Ints, port: int, subnet: int, queues: int, stride: int) -> tuple[np.int64, np.int64]:
    """The class that sends its next flit at a node's port, -1 for none, and its virtual channel."""
    classes, vcs = m[s.CLASSES], m[s.VCS]
    node = m[s.AT_NODE] + port * s.N_SIZE
    own, slots = m[U(node + s.N_OWN)], m[U(node + s.N_SLOTS)]
    chosen, best, priority = np.int64(-1), np.int64(-1), np.int64(0)
    for turn in range(1, classes + 1):
        group = (m[U(node + s.N_TURN)] + turn) % classes
        queue = queues + group * stride
        packet = m[U(queue + s.N_PACKET)]
        if packet < 0 or m[U(queue + s.N_SUBNET)] != subnet:
            continue
        mine = packet_priority(m, packet)
        if chosen >= 0 and priority >= mine:
            continue
        vc = np.int64(m[U(queue + s.N_VC)])
        if vc < 0:
            tried, tries = np.int64(m[U(m[s.AT_LAST_VC] + port * classes + group)]), np.int64(vcs)
            if m[s.RANDOM_ENTRY]:
                tried, tries = below(c, vcs) - 1, np.int64(1)
            for _ in range(tries):
                tried = tried + 1 if tried + 1 < vcs else np.int64(0)
                at = own + tried * s.W_SIZE
                if m[U(at + s.W_OWNER)] == s.FREE and m[U(at + s.W_USED)] < slots:
                    vc = tried
                    break
        if vc >= 0 and m[U(own + vc * s.W_SIZE + s.W_USED)] < slots:
            chosen, best, priority = np.int64(group), vc, mine
    return chosen, best


@compiled
def send_one(m: Words, c: Ints, node: int, queue: int, vc: int, port: int, group: int, now: int) -> None:
    """Put the next flit of a queue on the node's channel, in virtual channel `vc`."""
    packet = m[U(queue + s.N_PACKET)]
    own = m[U(node + s.N_OWN)] + vc * s.W_SIZE
    at = m[s.AT_PACKET] + packet * s.P_RECORD
    head = 0
    if m[U(queue + s.N_VC)] < 0:
        head = 2
        m[U(queue + s.N_VC)] = vc
        m[U(m[s.AT_LAST_VC] + port * m[s.CLASSES] + group)] = vc
        m[U(own + s.W_OWNER)] = s.OWNED
        m[U(at + s.P_ENTERED)] = now
    m[U(node + s.N_TURN)] = group
    m[U(own + s.W_USED)] += 1
    left = m[U(queue + s.N_LEFT)] - 1
    m[U(queue + s.N_LEFT)] = left
    tail = 0
    if left == 0:
        tail = 1
        m[U(queue + s.N_PACKET)] = -1
        m[U(own + s.W_OWNER)] = s.TAIL_SENT if m[s.WAIT_FOR_TAIL] else s.FREE
    post(m, flit_line(m, m[s.AT_FLITS]), own, (packet << 2) | head | tail, now + SOURCE_DELAY, m[s.DEPTH])
    m[U(at + s.P_FLIT_TIMES)] -= now - m[U(at + s.P_CREATED)]
    c[s.SENT] += 1
