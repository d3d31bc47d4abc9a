# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Requests for the switch: priorities, one request for each input and output, speculative ones, and who wins."""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.allocators import REQUEST, allocate
from tierform.network.cycle.modes import AGE, CLASS, NETWORK_AGE, NO_PRIORITY

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
# Below every priority of a packet that has its virtual channel.
SPECULATIVE_PRIORITY = np.int32(-(2**31))


@compiled
def packet_priority(m: Words, packet: int) -> np.int64:
    """The priority of a packet as its class, its age or its time in the network give it; higher goes first."""
    kind = m[s.PRIORITY]
    at = m[s.AT_PACKET] + packet * s.P_RECORD
    if kind == CLASS:
        return np.int64(m[U(m[s.AT_CLASS_PRIORITY] + (m[U(at + s.P_MEASURED)] >> 1))])
    if kind == AGE:
        return np.int64(-m[U(at + s.P_CREATED)])
    if kind == NETWORK_AGE:
        return np.int64(-m[U(at + s.P_ENTERED)])
    return np.int64(0)


@inlined
def priority_of(m: Words, channel: int) -> np.int64:
    """The priority of the packet at the front of a channel."""
    kind = m[s.PRIORITY]
    if kind == NO_PRIORITY:
        return np.int64(0)
    if kind in (CLASS, AGE, NETWORK_AGE):
        return packet_priority(m, m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])] >> 2)
    return np.int64(m[U(channel + s.C_FILL)])


@compiled
def list_request(m: Words, channel: int, o: int, outputs: int, first: int, count: int, priority: int) -> int:
    """Add the request of a channel for output `o` to the list at `first`; the number of requests then.

    Of an input's channels that ask for the same output, the one with the highest priority counts, then the first from
    the input's rotating offset.
    """
    known = m[s.AT_REQUEST] + m[U(channel + s.C_IN_LOCAL)] * outputs + o
    request = m[U(known)]
    if request < 0:
        request = np.int32(first + count * REQUEST)
        m[U(known)] = request
        m[U(request)] = m[U(channel + s.C_IN_LOCAL)]
        m[U(request + 1)] = o
        count += 1
    else:
        vcs, other = m[s.VCS], m[U(request + 2)]
        if priority < m[U(request + 3)]:
            return count
        if priority == m[U(request + 3)]:
            vc, offset = m[U(channel + s.C_VC)], m[U(m[U(channel + s.C_ROTATE_AT)])]
            if (vc - offset + vcs) % vcs >= (m[U(other + s.C_VC)] - offset + vcs) % vcs:
                return count
    m[U(request + 2)] = channel
    m[U(request + 3)] = priority
    return count


@compiled
def forget_requests(m: Words, outputs: int, first: int, count: int) -> None:
    """Take the listed requests out of the table by input and output."""
    known = m[s.AT_REQUEST]
    for request in range(first, first + count * REQUEST, REQUEST):
        m[U(known + m[U(request)] * outputs + m[U(request + 1)])] = -1


@compiled
def match_switch(m: Words, c: Ints, router: int, requests: int, inputs: int, outputs: int, speculative: bool) -> None:
    """Run a switch allocator, that of requests or that of speculative ones, on the listed requests."""
    speed_in, speed_out, sides = m[s.SPEED_IN], m[s.SPEED_OUT], m[s.SIDES]
    kind = np.int64(m[s.SPECULATIVE_ALLOCATOR] if speculative else m[s.SWITCH_ALLOCATOR])
    own = 1 if speculative else 0
    first_out = m[U(router + s.R_OUT)] + s.O_POINTERS + own * speed_out
    first_in = m[U(router + s.R_IN)] + s.I_POINTERS + (1 + own) * speed_in
    start = router + (s.R_SPECULATION_START if speculative else s.R_SWITCH_START)
    if speed_in == 1 and speed_out == 1:
        allocate(
            m,
            c,
            kind,
            m[s.ITERATIONS],
            requests,
            False,
            inputs,
            outputs,
            first_out,
            m[s.OUT_SIZE],
            first_in,
            m[s.IN_SIZE],
            start,
        )
        return
    # Pointers of ports with speedup stand side by side only without it: gather them, allocate, put them back.
    grant, accept = m[s.AT_POINTERS], m[s.AT_POINTERS] + sides
    for o in range(outputs):
        m[U(grant + o)] = m[U(first_out + (o // speed_out) * m[s.OUT_SIZE] + o % speed_out)]
    for i in range(inputs):
        m[U(accept + i)] = m[U(first_in + (i // speed_in) * m[s.IN_SIZE] + i % speed_in)]
    allocate(m, c, kind, m[s.ITERATIONS], requests, False, inputs, outputs, grant, 1, accept, 1, start)
    for o in range(outputs):
        m[U(first_out + (o // speed_out) * m[s.OUT_SIZE] + o % speed_out)] = m[U(grant + o)]
    for i in range(inputs):
        m[U(first_in + (i // speed_in) * m[s.IN_SIZE] + i % speed_in)] = m[U(accept + i)]


@compiled
def list_speculations(m: Words, router: int) -> int:
    """Note which outputs the packets that ask for a virtual channel may hope for; the number of notes.

    A note is (channel, output), made before virtual channels are given out.
    """
    count = 0
    note = m[s.AT_SPECULATIONS]
    waiting = m[U(router + s.R_VC_LIST)]
    for k in range(waiting, waiting + m[U(router + s.R_VC_N)]):
        channel = m[U(k)]
        part = m[U(m[U(channel + s.C_PORT)] + s.I_PART)]
        candidate = channel + s.C_ROUTE
        for _ in range(m[U(channel + s.C_ROUTES)]):
            port = m[U(candidate)]
            free = room = m[s.SPECULATE_FREE] == 0
            for vc in range(m[U(candidate + 1)], m[U(candidate + 2)] + 1):
                own = m[U(port + s.O_OWN)] + vc * s.W_SIZE
                if m[U(own + s.W_OWNER)] == s.FREE:
                    free = True
                    room |= m[s.SPECULATE_ROOM] == 0 or m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]
            if free and (room or m[s.SPECULATE_ROOM] == 0):
                m[U(note)] = channel
                m[U(note + 1)] = m[U(port + s.O_LOCAL)] * m[s.SPEED_OUT] + part
                note += 2
                count += 1
            candidate -= s.ROUTE_SIZE
    return count
