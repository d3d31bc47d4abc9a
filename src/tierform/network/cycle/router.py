# mypy: disable-error-code="untyped-decorator, no-any-return"
"""The general router: any allocator, stage delays, speedups and routing, one router at a time.

Requests are short lists per router, so an idle router costs one test.  A flit that wins the switch goes straight into
the buffer of the next input, and a note of its arrival into the wheel slot of that cycle: crossbar, output queue and
wire delays are known when it is sent.  Where it applies,
:mod:`tierform.network.cycle.bitmask_router` is faster; both move every flit alike, which the tests check.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.allocators import REQUEST, allocate
from tierform.network.cycle.delay_lines import credit_line, flit_line, note, post
from tierform.network.cycle.modes import ACTIVE, ALLOCATING, IDLE, LAST_ESCAPE, ROUTING, SHARED
from tierform.network.cycle.requests import priority_of
from tierform.network.cycle.route_computation import route

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@inlined
def enter(m: Words, c: Ints, table: Shorts, router: int, channel: int, packet: int) -> None:
    """A head has come to the front of its channel: route it, or with look-ahead send it to allocation."""
    m[U(channel + s.C_DUE)] = -1
    if m[U(router + s.R_ROUTING_DELAY)] > 0:
        m[U(channel + s.C_STATUS)] = ROUTING
        m[U(m[U(router + s.R_ROUTING_LIST)] + m[U(router + s.R_ROUTING_N)])] = channel
        m[U(router + s.R_ROUTING_N)] += 1
    else:
        route(m, c, table, channel, packet)
        m[U(channel + s.C_STATUS)] = ALLOCATING
        m[U(m[U(router + s.R_VC_LIST)] + m[U(router + s.R_VC_N)])] = channel
        m[U(router + s.R_VC_N)] += 1


@inlined
def take(m: Words, router: int, channel: int, own: int) -> None:
    """Give the out channel `own` to the packet at the head of `channel`, which then wants the switch."""
    m[U(channel + s.C_ASSIGNED)] = own
    m[U(own + s.W_OWNER)] = s.OWNED
    port, part = m[U(own + s.W_PORT)], m[U(m[U(channel + s.C_PORT)] + s.I_PART)]
    m[U(channel + s.C_OUT_LOCAL)] = m[U(port + s.O_LOCAL)] * m[s.SPEED_OUT] + part
    m[U(channel + s.C_GRANT_AT)] = port + s.O_POINTERS + part
    m[U(channel + s.C_STATUS)] = ACTIVE
    m[U(channel + s.C_DUE)] = -1
    m[U(m[U(router + s.R_SWITCH_LIST)] + m[U(router + s.R_SWITCH_N)])] = channel
    m[U(router + s.R_SWITCH_N)] += 1


@compiled
def allocate_vcs(m: Words, c: Ints, router: int, now: int) -> None:
    """Virtual-channel allocation with any allocator, iterations and delay."""
    vcs = m[s.VCS]
    delay = m[U(router + s.R_VC_DELAY)]
    number = m[U(router + s.R_VC_N)]
    waiting = m[U(router + s.R_VC_LIST)]
    first_own = m[U(router + s.R_OWN)]
    requests = 0
    request = m[s.AT_SCRATCH]
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + s.C_DUE)] >= 0:
            continue
        m[U(channel + s.C_OUTCOME)] = -1
        m[U(channel + s.C_DUE)] = now + delay - 1
        candidate = channel + s.C_ROUTE
        offered = False
        for _ in range(m[U(channel + s.C_ROUTES)]):
            kind = m[U(candidate + 3)]
            first = m[U(m[U(candidate)] + s.O_OWN)]
            end = m[U(candidate + 2)] + 1
            if kind == LAST_ESCAPE and offered:
                end = 0
            for vc in range(m[U(candidate + 1)], end):
                own = first + vc * s.W_SIZE
                if m[U(own + s.W_OWNER)] == s.FREE and (
                    m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)] or not (m[s.BUSY_WHEN_FULL] or kind == SHARED)
                ):
                    offered = True
                    m[U(request)] = m[U(channel + s.C_LOCAL)]
                    m[U(request + 1)] = (own - first_own) // s.W_SIZE
                    m[U(request + 2)] = 1 if kind == SHARED else 0
                    m[U(request + 3)] = priority_of(m, channel)
                    request += REQUEST
                    requests += 1
            candidate -= s.ROUTE_SIZE
    inputs, outputs = m[U(router + s.R_INPUTS)] * vcs, m[U(router + s.R_OUTPUTS)] * vcs
    first, size = m[U(router + s.R_CHANNEL)], m[s.CHANNEL_SIZE]
    if requests > 0:
        allocate(
            m,
            c,
            m[s.VC_ALLOCATOR],
            m[s.ITERATIONS],
            requests,
            True,
            inputs,
            outputs,
            first_own + s.W_GRANT,
            s.W_SIZE,
            first + s.C_ACCEPT,
            size,
            router + s.R_VC_START,
        )
        for k in range(requests):
            if m[U(m[s.AT_GRANTED] + k)]:
                request = m[s.AT_SCRATCH] + k * REQUEST
                m[U(first + m[U(request)] * size + s.C_OUTCOME)] = first_own + m[U(request + 1)] * s.W_SIZE
    kept = waiting
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + s.C_DUE)] <= now:
            own = m[U(channel + s.C_OUTCOME)]
            # A later grant may have filled the channel meanwhile: shared ones are taken only with room.
            strict = m[s.BUSY_WHEN_FULL] != 0 or m[U(channel + s.C_ROUTES)] > 1
            if (
                own >= 0
                and m[U(own + s.W_OWNER)] == s.FREE
                and (delay == 1 or not strict or m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)])
            ):
                take(m, router, channel, own)
                continue
            m[U(channel + s.C_DUE)] = -1
        m[U(kept)] = channel
        kept += 1
    m[U(router + s.R_VC_N)] = kept - waiting


@inlined
def finish_routing(m: Words, c: Ints, table: Shorts, router: int, now: int) -> None:
    """Route the packets whose routing delay has passed; they ask for a virtual channel in the next step."""
    waiting = m[U(router + s.R_ROUTING_LIST)]
    kept = waiting
    for k in range(waiting, waiting + m[U(router + s.R_ROUTING_N)]):
        channel = m[U(k)]
        if m[U(channel + s.C_DUE)] < 0:
            m[U(channel + s.C_DUE)] = now + m[U(router + s.R_ROUTING_DELAY)] - 1
        if m[U(channel + s.C_DUE)] <= now:
            route(m, c, table, channel, m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])] >> 2)
            m[U(channel + s.C_STATUS)] = ALLOCATING
            m[U(channel + s.C_DUE)] = -1
            m[U(m[U(router + s.R_VC_LIST)] + m[U(router + s.R_VC_N)])] = channel
            m[U(router + s.R_VC_N)] += 1
        else:
            m[U(kept)] = channel
            kept += 1
    m[U(router + s.R_ROUTING_N)] = kept - waiting


@compiled
def copy_packet(m: Words, c: Ints, packet: int, branch: int) -> int:
    """A record for the copy of a multicast packet that goes into one branch of its tree."""
    top = c[s.FREE_TOP] - 1
    c[s.FREE_TOP] = top
    copy = m[U(m[s.AT_FREE] + top)]
    old, new = m[s.AT_PACKET] + packet * s.P_RECORD, m[s.AT_PACKET] + copy * s.P_RECORD
    for k in range(s.P_RECORD):
        m[U(new + k)] = m[U(old + k)]
    tree = m[U(old + s.P_TREE)]
    m[U(new + s.P_GOAL)] = m[U(tree + 1 + 2 * branch)]
    m[U(new + s.P_TREE)] = m[U(tree + 2 + 2 * branch)]
    m[U(new + s.P_HOPS)] += 1
    return copy


@inlined
def send(m: Words, c: Ints, table: Shorts, router: int, channel: int, now: int) -> bool:
    """Move the front flit of a channel through the crossbar; True while the channel still wants the switch.

    A multicast packet goes into one branch of its tree after the other: its flits stay in the buffer, of which they
    fill no more than there is, until they go into the last branch.
    """
    own = m[U(channel + s.C_ASSIGNED)]
    port = m[U(own + s.W_PORT)]
    depth, head = m[s.DEPTH], m[U(channel + s.C_HEAD)]
    fill, sent, branch = m[U(channel + s.C_FILL)], m[U(channel + s.C_SENT)], m[U(channel + s.C_BRANCH)]
    packet = m[U(channel + s.C_FLITS + head)] >> 2
    tree = m[U(m[s.AT_PACKET] + packet * s.P_RECORD + s.P_TREE)]
    place = head + sent if head + sent < depth else head + sent - depth
    word = m[U(channel + s.C_FLITS + place)]
    stays = tree != 0 and branch + 1 < m[U(tree)]
    m[U(own + s.W_USED)] += 1
    m[U(own + s.W_FLITS)] += 1
    # The flit: crossbar, then the output in turn, then the wire.
    when = now + m[U(router + s.R_CROSSBAR_DELAY)]
    if when < m[U(port + s.O_IDLE_FROM)]:
        when = np.int64(m[U(port + s.O_IDLE_FROM)])
    m[U(port + s.O_IDLE_FROM)] = when + m[U(port + s.O_INTERVAL)]
    copied = np.int64(word)
    if tree != 0:
        if word & 2:
            m[U(channel + s.C_COPY)] = copy_packet(m, c, packet, branch)
        copied = (m[U(channel + s.C_COPY)] << 2) | (word & 3)
    post(m, flit_line(m, m[U(port + s.O_LINE)]), own, copied, when + m[U(port + s.O_DELAY)], depth)
    if stays:
        sent += 1
        m[U(channel + s.C_SENT)] = sent
    else:
        head = head + 1 if head + 1 < depth else 0
        m[U(channel + s.C_HEAD)] = head
        fill -= 1
        m[U(channel + s.C_FILL)] = fill
        # The credit: one message per input and allocation step, at most one a cycle.
        port = m[U(channel + s.C_PORT)]
        step = c[s.STEP] & 0x7FFFFFFF
        if m[U(port + s.I_STEP)] != step:
            m[U(port + s.I_STEP)] = step
            m[U(port + s.I_CREDIT_FREE)] = max(now, m[U(port + s.I_CREDIT_FREE)]) + 1
        when = m[U(port + s.I_CREDIT_FREE)] - 1 + m[U(port + s.I_CREDIT_DELAY)]
        note(m, credit_line(m), when, m[U(channel + s.C_FEEDER)], 1)
    m[U(channel + s.C_DUE)] = -1
    if word & 1:
        m[U(own + s.W_OWNER)] = s.TAIL_SENT if m[s.WAIT_FOR_TAIL] else s.FREE
        m[U(channel + s.C_STATUS)] = IDLE
        m[U(channel + s.C_SENT)] = 0
        m[U(channel + s.C_BRANCH)] = branch + 1 if stays else 0
        if tree != 0 and not stays:
            m[U(m[s.AT_FREE] + c[s.FREE_TOP])] = packet
            c[s.FREE_TOP] += 1
        if fill > 0:
            enter(m, c, table, router, channel, m[U(channel + s.C_FLITS + head)] >> 2)
        return False
    return fill > sent
