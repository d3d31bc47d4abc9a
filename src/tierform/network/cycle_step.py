"""One cycle of the network, and many: arrivals, sources, routers.  The compiled loop of the cycle engine.

Order within a cycle: credits and flits that are due, then sources, then routers; within a router: virtual-channel
allocation, routing, switch allocation, each on the requests that stood before.  A flit that wins the switch goes
straight into the wheel slot of the cycle in which it reaches the next input, as crossbar, output queue and wire delays
are then known; routers meet only through the wheels, so their order is free and an idle router costs one test.

Timing observed on BookSim2: a link of latency d delivers d + 1 cycles after sending; a credit is usable
`credit_delay` cycles after its arrival; a source uses it at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle_flows import (
    AT_FLOWS,
    F_FINISHED,
    F_RELEASE,
    FLOW_COUNT,
    FLOW_SIZE,
    finish_flow,
    next_of_flow,
)
from tierform.network.cycle_kernel import (
    ACTIVE,
    ALLOCATING,
    DRAINING,
    FLOWS,
    IDLE,
    MINIMAL_ADAPTIVE,
    PERMUTATION,
    REQUEST,
    ROUTING,
    RUNNING,
    SHARED_WEIGHTS,
    UNIFORM,
    WARMING,
    allocate,
    below,
    fraction,
    geometric,
    route,
)
from tierform.network.cycle_state import *  # noqa: F403

FOREVER = np.int64(2**31 - 1)

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@njit(cache=True, error_model="numpy", _nrt=False)
def pick(cumulative: Any, chance: float) -> Any:
    """The first place whose cumulative weight exceeds `chance`."""
    low, high = 0, len(cumulative) - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > chance:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, error_model="numpy", _nrt=False)
def destination(m: Any, c: Any, kind: int, target: Any, weights: Any, source: int) -> Any:
    """Draw the destination of a packet of `source`."""
    if kind == PERMUTATION:
        return np.int64(target[source])
    nodes = m[NODES]
    if kind == UNIFORM:
        return below(c, nodes)
    return np.int64(pick(weights[0 if kind == SHARED_WEIGHTS else source], fraction(c)))


@njit(cache=True, error_model="numpy", _nrt=False)
def next_packet_time(m: Any, c: Any, node: int, rate: float, start: float, stop: float) -> None:
    """Move a source's clock to its next packet; a bursty source (start > 0) changes state once a cycle."""
    if rate <= 0.0:
        m[U(node + N_NEXT)] = FOREVER
    elif start <= 0.0:
        m[U(node + N_NEXT)] = min(m[U(node + N_NEXT)] + geometric(c, rate), FOREVER)
    else:
        burst = rate * (start + stop) / start
        while True:
            m[U(node + N_NEXT)] += 1
            if m[U(node + N_ON)]:
                m[U(node + N_ON)] = 1 if fraction(c) >= stop else 0
            else:
                m[U(node + N_ON)] = 1 if fraction(c) < start else 0
            if m[U(node + N_ON)] and fraction(c) < burst:
                return


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def new_packet(m: Any, c: Any, node: int, source: int, goal: int, size: int, created: int, flow: int) -> None:
    """Take a packet record from the free ones and hand it to the source."""
    top = c[FREE_TOP] - 1
    c[FREE_TOP] = top
    packet = m[U(m[AT_FREE] + top)]
    measured = 0
    if c[PHASE] == RUNNING or (c[PHASE] == DRAINING and created < c[DRAIN_FROM]):
        measured = 1
        c[MEASURED_IN_FLIGHT] += 1
    at = m[AT_PACKET] + packet * P_RECORD
    goal_at = m[AT_NODE] + goal * N_SIZE
    m[U(at + P_GOAL)] = m[U(goal_at + N_EJECT)]
    m[U(at + P_HOME)] = m[U(goal_at + N_ROUTER)]
    m[U(at + P_SIZE)] = size
    m[U(at + P_CREATED)] = created
    m[U(at + P_MEASURED)] = measured
    m[U(at + P_HOPS)] = 0
    m[U(at + P_FLOW)] = flow
    m[U(at + P_SOURCE)] = source
    m[U(at + P_NEXT_FLIT)] = size
    m[U(at + P_FLIT_TIMES)] = 0
    m[U(node + N_PACKET)] = packet
    m[U(node + N_LEFT)] = size
    m[U(node + N_VC)] = -1
    c[IN_FLIGHT] += size
    c[IN_FLIGHT_CREATED] += size * created
    c[PACKETS] += 1


@njit(cache=True, error_model="numpy", _nrt=False)
def sources(m: Any, c: Any, now: int, kind: int, rate: Any, sizes: Any, size_weights: Any, target: Any, weights: Any, burst: Any,
            flows: Any, generate: bool) -> None:  # fmt: skip
    """Generate packets and put at most one flit per node on its injection channel."""
    vcs = m[VCS]
    wheel = m[AT_WHEEL] + ((now + 2) & (m[HORIZON] - 1)) * (1 + 2 * m[EVENTS])
    node = m[AT_NODE] - N_SIZE
    for source in range(m[NODES]):
        node += N_SIZE
        packet = m[U(node + N_PACKET)]
        if packet < 0:
            if not generate:
                continue
            if kind == FLOWS:
                if m[U(node + N_READY)] == 0:
                    continue
                flow, goal, size = next_of_flow(m, c, flows, node, source, now)
                if flow < 0:
                    continue
                new_packet(m, c, node, source, goal, size, now, flow)
            else:
                if m[U(node + N_NEXT)] > now:
                    continue
                goal = destination(m, c, kind, target, weights, source)
                size = np.int64(sizes[0])
                if len(sizes) > 1:
                    size = np.int64(sizes[pick(size_weights, fraction(c))])
                new_packet(m, c, node, source, goal, size, m[U(node + N_NEXT)], -1)
                next_packet_time(m, c, node, rate[source], burst[0], burst[1])
            packet = m[U(node + N_PACKET)]
        slots = m[U(node + N_SLOTS)]
        vc = m[U(node + N_VC)]
        own = m[U(node + N_OWN)]
        head = 0
        if vc < 0:
            tried = m[U(node + N_LAST_VC)]
            for _ in range(vcs):
                tried = tried + 1 if tried + 1 < vcs else 0
                if m[U(own + tried * W_SIZE + W_OWNER)] == 0 and m[U(own + tried * W_SIZE + W_USED)] < slots:
                    vc = tried
                    break
            if vc < 0:
                continue
            head = 2
            own += vc * W_SIZE
            m[U(node + N_VC)] = vc
            m[U(node + N_LAST_VC)] = vc
            m[U(own + W_OWNER)] = 1
            m[U(own + W_TAIL_SENT)] = 0
            m[U(m[AT_PACKET] + packet * P_RECORD + P_ENTERED)] = now
        else:
            own += vc * W_SIZE
            if m[U(own + W_USED)] >= slots:
                continue
        m[U(own + W_USED)] += 1
        left = m[U(node + N_LEFT)] - 1
        m[U(node + N_LEFT)] = left
        tail = 0
        if left == 0:
            tail = 1
            m[U(node + N_PACKET)] = -1
            if m[WAIT_FOR_TAIL]:
                m[U(own + W_TAIL_SENT)] = 1
            else:
                m[U(own + W_OWNER)] = 0
        place = wheel + 1 + 2 * m[U(wheel)]
        m[U(wheel)] += 1
        m[U(place)] = m[U(node + N_CHANNEL)] + vc * m[CHANNEL_SIZE]
        m[U(place + 1)] = (packet << 2) | head | tail
        at = m[AT_PACKET] + packet * P_RECORD
        m[U(at + P_FLIT_TIMES)] -= now - m[U(at + P_CREATED)]
        c[SENT] += 1


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def eject(m: Any, c: Any, flows: Any, own: int, word: int, now: int) -> None:
    """A flit has reached its node: return the credit, keep the books."""
    vcs = m[VCS]
    number = own // vcs
    node = m[AT_NODE] + number * N_SIZE
    port = m[U(node + N_EJECT)]
    delay = 2 + m[U(m[AT_ROUTER] + m[U(node + N_ROUTER)] * R_SIZE + R_CREDIT_DELAY)]
    wheel = m[AT_CREDITS] + ((now + delay) & (m[HORIZON] - 1)) * (1 + m[CREDIT_EVENTS])
    m[U(wheel)] += 1
    m[U(wheel + m[U(wheel)])] = m[U(port + O_OWN)] + (own - number * vcs) * W_SIZE
    at = m[AT_PACKET] + (word >> 2) * P_RECORD
    c[IN_FLIGHT] -= 1
    c[IN_FLIGHT_CREATED] -= m[U(at + P_CREATED)]
    m[U(at + P_FLIT_TIMES)] += now - m[U(at + P_CREATED)]
    if c[PHASE] != DRAINING:
        c[ACCEPTED] += 1
        m[U(node + N_ACCEPTED)] += 1
    # Each flit once, in order, at its own node: anything else is our own error.
    left = m[U(at + P_NEXT_FLIT)] - 1
    m[U(at + P_NEXT_FLIT)] = left
    if m[U(at + P_GOAL)] != port or (word & 2 != 0) != (left == m[U(at + P_SIZE)] - 1) or (word & 1 != 0) != (left == 0):
        c[ERROR] = 1
    if word & 2:
        m[U(at + P_HEAD_AT)] = now
    if word & 1:
        c[FLIT_LATENCY] += m[U(at + P_FLIT_TIMES)]
        c[SAMPLED_FLITS] += m[U(at + P_SIZE)]
        if c[PHASE] == WARMING or m[U(at + P_MEASURED)]:
            latency = now - m[U(at + P_CREATED)]
            c[SAMPLED_PACKETS] += 1
            c[PACKET_LATENCY] += latency
            c[NETWORK_LATENCY] += now - m[U(at + P_ENTERED)]
            c[HOPS] += m[U(at + P_HOPS)]
            c[FRAGMENTATION] += now - m[U(at + P_HEAD_AT)] - (m[U(at + P_SIZE)] - 1)
            if latency > c[WORST]:
                c[WORST] = latency
            m[U(m[AT_HISTOGRAM] + min(latency, m[BINS] - 1))] += 1
        c[MEASURED_IN_FLIGHT] -= m[U(at + P_MEASURED)]
        m[U(m[AT_FREE] + c[FREE_TOP])] = word >> 2
        c[FREE_TOP] += 1
        if m[U(at + P_FLOW)] >= 0:
            finish_flow(m, c, flows, m[U(at + P_FLOW)], m[U(at + P_SIZE)], now)


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def take_credits(m: Any, c: Any, wheel: int) -> None:
    """Free the buffer slots whose credits stand in a wheel slot, and empty it."""
    for k in range(wheel + 1, wheel + 1 + m[U(wheel)]):
        own = m[U(k)]
        used = m[U(own + W_USED)] - 1
        m[U(own + W_USED)] = used
        if used < 0:
            c[ERROR] = 2
        if m[WAIT_FOR_TAIL] and used == 0 and m[U(own + W_TAIL_SENT)]:
            m[U(own + W_OWNER)] = 0
            m[U(own + W_TAIL_SENT)] = 0
    m[U(wheel)] = 0


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def enter(m: Any, c: Any, table: Any, router: int, channel: int, packet: int) -> None:
    """A head has come to the front of its channel: route it, or with look-ahead send it to allocation."""
    m[U(channel + C_DUE)] = -1
    if m[U(router + R_ROUTING_DELAY)] > 0:
        m[U(channel + C_STATUS)] = ROUTING
        m[U(m[U(router + R_ROUTING_LIST)] + m[U(router + R_ROUTING_N)])] = channel
        m[U(router + R_ROUTING_N)] += 1
    else:
        route(m, c, table, channel, packet)
        m[U(channel + C_STATUS)] = ALLOCATING
        m[U(m[U(router + R_VC_LIST)] + m[U(router + R_VC_N)])] = channel
        m[U(router + R_VC_N)] += 1


@njit(cache=True, error_model="numpy", _nrt=False)
def arrivals(m: Any, c: Any, table: Any, flows: Any, now: int) -> None:
    """Take what is due this cycle from the wheels."""
    slot = now & (m[HORIZON] - 1)
    take_credits(m, c, m[AT_CREDITS] + slot * (1 + m[CREDIT_EVENTS]))
    wheel = m[AT_WHEEL] + slot * (1 + 2 * m[EVENTS])
    depth = m[DEPTH]
    for k in range(wheel + 1, wheel + 1 + 2 * m[U(wheel)], 2):
        channel = m[U(k)]
        word = m[U(k + 1)]
        if channel < 0:
            eject(m, c, flows, -1 - channel, word, now)
            continue
        fill = m[U(channel + C_FILL)]
        place = m[U(channel + C_HEAD)] + fill
        if place >= depth:
            place -= depth
        m[U(m[U(channel + C_BUFFER)] + place)] = word
        m[U(channel + C_FILL)] = fill + 1
        if fill > 0:
            continue
        router = m[U(channel + C_ROUTER)]
        if m[U(channel + C_STATUS)] == IDLE:
            enter(m, c, table, router, channel, word >> 2)
        elif m[U(channel + C_STATUS)] == ACTIVE:
            m[U(m[U(router + R_SWITCH_LIST)] + m[U(router + R_SWITCH_N)])] = channel
            m[U(router + R_SWITCH_N)] += 1
            m[U(channel + C_DUE)] = -1
    m[U(wheel)] = 0


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def take(m: Any, router: int, channel: int, own: int) -> None:
    """Give the out channel `own` to the packet at the head of `channel`, which then wants the switch."""
    m[U(channel + C_ASSIGNED)] = own
    m[U(own + W_OWNER)] = 1
    m[U(own + W_TAIL_SENT)] = 0
    port, part = m[U(own + W_PORT)], m[U(m[U(channel + C_PORT)] + I_PART)]
    m[U(channel + C_OUT_LOCAL)] = m[U(port + O_LOCAL)] * m[SPEED_OUT] + part
    m[U(channel + C_GRANT_AT)] = port + O_POINTERS + part
    m[U(channel + C_STATUS)] = ACTIVE
    m[U(channel + C_DUE)] = -1
    m[U(m[U(router + R_SWITCH_LIST)] + m[U(router + R_SWITCH_N)])] = channel
    m[U(router + R_SWITCH_N)] += 1


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def islip_vcs(m: Any, router: int, number: int, step: int) -> None:
    """Virtual-channel allocation by one iteration of iSLIP, as :func:`allocate` does it, with marks in the records."""
    waiting = m[U(router + R_VC_LIST)]
    inputs, outputs = m[U(router + R_INPUTS)] * m[VCS], m[U(router + R_OUTPUTS)] * m[VCS]
    full_is_busy = m[BUSY_WHEN_FULL]
    asked = m[AT_SCRATCH]
    last = asked
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        local = m[U(channel + C_LOCAL)]
        candidate = channel + C_FIRST_ROUTE
        for _ in range(m[U(channel + C_ROUTES)]):
            first = m[U(m[U(candidate)] + O_OWN)]
            own = first + m[U(candidate + 1)] * W_SIZE
            end = first + m[U(candidate + 2)] * W_SIZE
            while own <= end:
                if m[U(own + W_OWNER)] == 0 and not (full_is_busy and m[U(own + W_USED)] >= m[U(own + W_SLOTS)]):
                    far = local - m[U(own + W_GRANT)]
                    if far < 0:
                        far += inputs
                    if m[U(own + W_STAMP)] != step:
                        m[U(own + W_STAMP)] = step
                        m[U(own + W_BEST)] = far
                        m[U(own + W_PICK)] = channel
                        m[U(last)] = own
                        last += 1
                    elif far < m[U(own + W_BEST)]:
                        m[U(own + W_BEST)] = far
                        m[U(own + W_PICK)] = channel
                own += W_SIZE
            candidate += 4
    for k in range(asked, last):
        own = m[U(k)]
        channel = m[U(own + W_PICK)]
        far = m[U(own + W_LOCAL)] - m[U(channel + C_ACCEPT)]
        if far < 0:
            far += outputs
        if m[U(channel + C_STAMP)] != step or far < m[U(channel + C_BEST)]:
            m[U(channel + C_STAMP)] = step
            m[U(channel + C_BEST)] = far
            m[U(channel + C_PICK)] = own
    kept = waiting
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + C_STAMP)] == step:
            own = m[U(channel + C_PICK)]
            after = m[U(channel + C_LOCAL)] + 1
            m[U(own + W_GRANT)] = after if after < inputs else 0
            after = m[U(own + W_LOCAL)] + 1
            m[U(channel + C_ACCEPT)] = after if after < outputs else 0
            take(m, router, channel, own)
        else:
            m[U(kept)] = channel
            kept += 1
    m[U(router + R_VC_N)] = kept - waiting


@njit(cache=True, error_model="numpy", _nrt=False)
def allocate_vcs(m: Any, router: int, now: int) -> None:
    """Virtual-channel allocation with any allocator, iterations and delay."""
    vcs = m[VCS]
    delay = m[U(router + R_VC_DELAY)]
    number = m[U(router + R_VC_N)]
    waiting = m[U(router + R_VC_LIST)]
    requests = 0
    request = m[AT_SCRATCH]
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + C_DUE)] >= 0:
            continue
        m[U(channel + C_OUTCOME)] = -1
        m[U(channel + C_DUE)] = now + delay - 1
        candidate = channel + C_FIRST_ROUTE
        for _ in range(m[U(channel + C_ROUTES)]):
            first = m[U(m[U(candidate)] + O_OWN)]
            for vc in range(m[U(candidate + 1)], m[U(candidate + 2)] + 1):
                own = first + vc * W_SIZE
                if m[U(own + W_OWNER)] == 0 and not (
                    m[BUSY_WHEN_FULL] and m[U(own + W_USED)] >= m[U(own + W_SLOTS)]
                ):
                    m[U(request)] = m[U(channel + C_LOCAL)]
                    m[U(request + 1)] = m[U(own + W_LOCAL)]
                    m[U(request + 2)] = m[U(candidate + 3)]
                    request += REQUEST
                    requests += 1
            candidate += 4
    inputs, outputs = m[U(router + R_INPUTS)] * vcs, m[U(router + R_OUTPUTS)] * vcs
    first, first_own, size = m[U(router + R_CHANNEL)], m[U(router + R_OWN)], m[CHANNEL_SIZE]
    if requests > 0:
        allocate(m, m[VC_ALLOCATOR], m[ITERATIONS], requests, True, inputs, outputs, m[SIDES], first_own + W_GRANT,
                 W_SIZE, first + C_ACCEPT, size)  # fmt: skip
        for k in range(requests):
            if m[U(m[AT_GRANTED] + k)]:
                request = m[AT_SCRATCH] + k * REQUEST
                m[U(first + m[U(request)] * size + C_OUTCOME)] = first_own + m[U(request + 1)] * W_SIZE
    kept = waiting
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + C_DUE)] <= now:
            own = m[U(channel + C_OUTCOME)]
            if own >= 0 and m[U(own + W_OWNER)] == 0:
                if delay == 1 or not (m[BUSY_WHEN_FULL] and m[U(own + W_USED)] >= m[U(own + W_SLOTS)]):
                    take(m, router, channel, own)
                    continue
            m[U(channel + C_DUE)] = -1
        m[U(kept)] = channel
        kept += 1
    m[U(router + R_VC_N)] = kept - waiting


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def finish_routing(m: Any, c: Any, table: Any, router: int, now: int) -> None:
    """Route the packets whose routing delay has passed; they ask for a virtual channel in the next step."""
    waiting = m[U(router + R_ROUTING_LIST)]
    kept = waiting
    for k in range(waiting, waiting + m[U(router + R_ROUTING_N)]):
        channel = m[U(k)]
        if m[U(channel + C_DUE)] < 0:
            m[U(channel + C_DUE)] = now + m[U(router + R_ROUTING_DELAY)] - 1
        if m[U(channel + C_DUE)] <= now:
            route(m, c, table, channel, m[U(m[U(channel + C_BUFFER)] + m[U(channel + C_HEAD)])] >> 2)
            m[U(channel + C_STATUS)] = ALLOCATING
            m[U(channel + C_DUE)] = -1
            m[U(m[U(router + R_VC_LIST)] + m[U(router + R_VC_N)])] = channel
            m[U(router + R_VC_N)] += 1
        else:
            m[U(kept)] = channel
            kept += 1
    m[U(router + R_ROUTING_N)] = kept - waiting


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def send(m: Any, c: Any, table: Any, router: int, channel: int, now: int) -> Any:
    """Move the front flit of a channel through the crossbar; True while the channel still wants the switch."""
    own = m[U(channel + C_ASSIGNED)]
    port = m[U(own + W_PORT)]
    head = m[U(channel + C_HEAD)]
    word = m[U(m[U(channel + C_BUFFER)] + head)]
    head = head + 1 if head + 1 < m[DEPTH] else 0
    m[U(channel + C_HEAD)] = head
    fill = m[U(channel + C_FILL)] - 1
    m[U(channel + C_FILL)] = fill
    m[U(own + W_USED)] += 1
    m[U(own + W_FLITS)] += 1
    if word & 2:
        m[U(m[AT_PACKET] + (word >> 2) * P_RECORD + P_HOPS)] += 1
    # The flit: crossbar, then the output in turn, then the wire.
    when = now + m[U(router + R_CROSSBAR_DELAY)]
    if when < m[U(port + O_FREE)]:
        when = np.int64(m[U(port + O_FREE)])
    m[U(port + O_FREE)] = when + m[U(port + O_INTERVAL)]
    mask = m[HORIZON] - 1
    wheel = m[AT_WHEEL] + ((when + m[U(port + O_DELAY)]) & mask) * (1 + 2 * m[EVENTS])
    place = wheel + 1 + 2 * m[U(wheel)]
    m[U(wheel)] += 1
    vc = m[U(own + W_VC)]
    target = m[U(port + O_TARGET)]
    m[U(place)] = target + vc * m[CHANNEL_SIZE] if target >= 0 else target - vc
    m[U(place + 1)] = word
    # The credit: one message per input and allocation step, at most one a cycle.
    port = m[U(channel + C_PORT)]
    if m[U(port + I_STEP)] != c[STEP]:
        m[U(port + I_STEP)] = c[STEP]
        m[U(port + I_CREDIT_FREE)] = max(now, m[U(port + I_CREDIT_FREE)]) + 1
    wheel = m[AT_CREDITS] + ((m[U(port + I_CREDIT_FREE)] - 1 + m[U(port + I_CREDIT_DELAY)]) & mask) * (1 + m[CREDIT_EVENTS])
    m[U(wheel)] += 1
    m[U(wheel + m[U(wheel)])] = m[U(port + I_FEEDER)] + m[U(channel + C_VC)] * W_SIZE
    m[U(channel + C_DUE)] = -1
    if word & 1:
        if m[WAIT_FOR_TAIL]:
            m[U(own + W_TAIL_SENT)] = 1
        else:
            m[U(own + W_OWNER)] = 0
        m[U(channel + C_STATUS)] = IDLE
        if fill > 0:
            enter(m, c, table, router, channel, m[U(m[U(channel + C_BUFFER)] + head)] >> 2)
        return False
    return fill > 0


@njit(cache=True, error_model="numpy", _nrt=False)
def islip_switch(m: Any, c: Any, table: Any, router: int, number: int, now: int, step: int) -> None:
    """Switch allocation by one iteration of iSLIP among the first `number` waiting channels; winners are sent.

    Of an input's virtual channels that ask for one output, the first from the rotating offset counts.
    """
    vcs = m[VCS]
    inputs, outputs = m[U(router + R_INPUTS)] * m[SPEED_IN], m[U(router + R_OUTPUTS)] * m[SPEED_OUT]
    waiting = m[U(router + R_SWITCH_LIST)]
    sides = m[SIDES]
    out_stamp = m[AT_BEST]
    out_best = out_stamp + sides
    out_pick = out_best + sides
    in_stamp = out_pick + sides
    in_best = in_stamp + sides
    in_pick = in_best + sides
    asked = m[AT_SCRATCH]
    last = asked
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        own = m[U(channel + C_ASSIGNED)]
        if m[U(own + W_USED)] >= m[U(own + W_SLOTS)]:
            continue
        o = m[U(channel + C_OUT_LOCAL)]
        far = m[U(channel + C_IN_LOCAL)] - m[U(m[U(channel + C_GRANT_AT)])]
        if far < 0:
            far += inputs
        turn = m[U(channel + C_VC)] - m[U(m[U(channel + C_ROTATE_AT)])]
        if turn < 0:
            turn += vcs
        far = far * vcs + turn
        if m[U(out_stamp + o)] != step:
            m[U(out_stamp + o)] = step
            m[U(out_best + o)] = far
            m[U(out_pick + o)] = channel
            m[U(last)] = o
            last += 1
        elif far < m[U(out_best + o)]:
            m[U(out_best + o)] = far
            m[U(out_pick + o)] = channel
    if last == asked:
        return
    accepting = last
    end = last
    for k in range(asked, last):
        o = m[U(k)]
        channel = m[U(out_pick + o)]
        i = m[U(channel + C_IN_LOCAL)]
        far = o - m[U(m[U(channel + C_ACCEPT_AT)])]
        if far < 0:
            far += outputs
        if m[U(in_stamp + i)] != step:
            m[U(in_stamp + i)] = step
            m[U(in_best + i)] = far
            m[U(in_pick + i)] = o
            m[U(end)] = i
            end += 1
        elif far < m[U(in_best + i)]:
            m[U(in_best + i)] = far
            m[U(in_pick + i)] = o
    left = False
    for k in range(accepting, end):
        i = m[U(k)]
        o = m[U(in_pick + i)]
        channel = m[U(out_pick + o)]
        m[U(m[U(channel + C_GRANT_AT)])] = i + 1 if i + 1 < inputs else 0
        m[U(m[U(channel + C_ACCEPT_AT)])] = o + 1 if o + 1 < outputs else 0
        m[U(m[U(channel + C_ROTATE_AT)])] = m[U(channel + C_NEXT_VC)]
        if not send(m, c, table, router, channel, now):
            m[U(channel + C_STAMP)] = -step
            left = True
    if left:
        kept = waiting
        for k in range(waiting, waiting + m[U(router + R_SWITCH_N)]):
            channel = m[U(k)]
            if m[U(channel + C_STAMP)] != -step:
                m[U(kept)] = channel
                kept += 1
        m[U(router + R_SWITCH_N)] = kept - waiting


@njit(cache=True, error_model="numpy", _nrt=False)
def allocate_switch(m: Any, c: Any, table: Any, router: int, number: int, now: int) -> None:
    """Switch allocation with any allocator, iterations and delay."""
    vcs = m[VCS]
    inputs, outputs = m[U(router + R_INPUTS)] * m[SPEED_IN], m[U(router + R_OUTPUTS)] * m[SPEED_OUT]
    delay = m[U(router + R_SWITCH_DELAY)]
    waiting = m[U(router + R_SWITCH_LIST)]
    known = m[AT_REQUEST]
    requests = 0
    request = m[AT_SCRATCH]
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + C_DUE)] >= 0:
            continue
        m[U(channel + C_DUE)] = now + delay - 1
        m[U(channel + C_OUTCOME)] = 0
        own = m[U(channel + C_ASSIGNED)]
        if m[U(own + W_USED)] >= m[U(own + W_SLOTS)]:
            continue
        i, o = m[U(channel + C_IN_LOCAL)], m[U(channel + C_OUT_LOCAL)]
        other = m[U(known + i * outputs + o)]
        if other < 0:
            m[U(known + i * outputs + o)] = request
            m[U(request)] = i
            m[U(request + 1)] = o
            m[U(request + 2)] = channel
            request += REQUEST
            requests += 1
        else:
            vc, offset = m[U(channel + C_VC)], m[U(m[U(channel + C_ROTATE_AT)])]
            if (vc - offset + vcs) % vcs < (m[U(m[U(other + 2)] + C_VC)] - offset + vcs) % vcs:
                m[U(other + 2)] = channel
    if requests > 0:
        for k in range(requests):
            request = m[AT_SCRATCH] + k * REQUEST
            m[U(known + m[U(request)] * outputs + m[U(request + 1)])] = -1
        switch_requests(m, router, requests, inputs, outputs)
    kept = waiting
    for k in range(waiting, waiting + m[U(router + R_SWITCH_N)]):
        channel = m[U(k)]
        if k < waiting + number and m[U(channel + C_DUE)] <= now:
            m[U(channel + C_DUE)] = -1
            own = m[U(channel + C_ASSIGNED)]
            if m[U(channel + C_OUTCOME)] == 1 and (delay == 1 or m[U(own + W_USED)] < m[U(own + W_SLOTS)]):
                if not send(m, c, table, router, channel, now):
                    continue
        m[U(kept)] = channel
        kept += 1
    m[U(router + R_SWITCH_N)] = kept - waiting


@njit(cache=True, error_model="numpy", _nrt=False)
def switch_requests(m: Any, router: int, requests: int, inputs: int, outputs: int) -> None:
    """Run the switch allocator on the listed requests and mark the winning channels."""
    speed_in, vcs = m[SPEED_IN], m[VCS]
    # Pointers of ports with speedup stand side by side only without it: gather them, allocate, put them back.
    sides = m[SIDES]
    first_out = m[AT_OUT] + ((m[U(router + R_OWN)] - m[AT_OWN]) // (W_SIZE * vcs)) * m[OUT_SIZE] + O_POINTERS
    first_in = (
        m[AT_IN] + ((m[U(router + R_CHANNEL)] - m[AT_CHANNEL]) // (m[CHANNEL_SIZE] * vcs)) * m[IN_SIZE] + I_POINTERS + speed_in
    )
    if speed_in == 1 and m[SPEED_OUT] == 1:
        allocate(m, m[SWITCH_ALLOCATOR], m[ITERATIONS], requests, False, inputs, outputs, sides, first_out, m[OUT_SIZE],
                 first_in, m[IN_SIZE])  # fmt: skip
    else:
        speed_out = m[SPEED_OUT]
        grant, accept = m[AT_POINTERS], m[AT_POINTERS] + sides
        for o in range(outputs):
            m[U(grant + o)] = m[U(first_out + (o // speed_out) * m[OUT_SIZE] + o % speed_out)]
        for i in range(inputs):
            m[U(accept + i)] = m[U(first_in + (i // speed_in) * m[IN_SIZE] + i % speed_in)]
        allocate(m, m[SWITCH_ALLOCATOR], m[ITERATIONS], requests, False, inputs, outputs, sides, grant, 1, accept, 1)
        for o in range(outputs):
            m[U(first_out + (o // speed_out) * m[OUT_SIZE] + o % speed_out)] = m[U(grant + o)]
        for i in range(inputs):
            m[U(first_in + (i // speed_in) * m[IN_SIZE] + i % speed_in)] = m[U(accept + i)]
    for k in range(requests):
        if m[U(m[AT_GRANTED] + k)]:
            channel = m[U(m[AT_SCRATCH] + k * REQUEST + 2)]
            m[U(channel + C_OUTCOME)] = 1
            m[U(m[U(channel + C_ROTATE_AT)])] = m[U(channel + C_NEXT_VC)]


@njit(cache=True, error_model="numpy", _nrt=False)
def skip_to(m: Any, c: Any, flows: Any, now: int) -> Any:
    """When nothing moves, the cycle of the next release of a flow (credits still under way are taken at once)."""
    soon = FOREVER
    for flow in range(flows[FLOW_COUNT]):
        at = flows[AT_FLOWS] + flow * FLOW_SIZE
        if flows[at + F_RELEASE] >= 0 and flows[at + F_FINISHED] < 0 and flows[at + F_RELEASE] < soon:
            soon = flows[at + F_RELEASE]
    if soon == FOREVER or soon <= now:
        return now
    for slot in range(m[HORIZON]):
        take_credits(m, c, m[AT_CREDITS] + slot * (1 + m[CREDIT_EVENTS]))
    c[NOW] = soon
    return soon


@njit(cache=True, error_model="numpy", _nrt=False)
def forget_stamps(m: Any) -> Any:
    """Start the count of allocation steps anew before it outgrows a word."""
    for own in range(m[AT_OWN], m[AT_NODE], W_SIZE):
        m[U(own + W_STAMP)] = 0
    for channel in range(m[AT_CHANNEL], m[AT_OWN], m[CHANNEL_SIZE]):
        m[U(channel + C_STAMP)] = 0
    for port in range(m[AT_IN], m[AT_OUT], m[IN_SIZE]):
        m[U(port + I_STEP)] = -1
    for place in range(m[AT_BEST], m[AT_REQUEST]):
        m[U(place)] = 0
    return np.int64(0)


@njit(cache=True, error_model="numpy", _nrt=False)
def advance(m: Any, c: Any, table: Any, kind: int, rate: Any, sizes: Any, size_weights: Any, target: Any, weights: Any,
            burst: Any, flows: Any, cycles: int, speedup: float, partial: Any, generate: bool, mode: int) -> Any:  # fmt: skip
    """Run up to `cycles` cycles and return the number run.

    mode 0 runs them all; 1 stops when no measured packet is in flight and all sources have passed the drain start;
    2 stops when the network is empty; 3 stops when every flow has finished.
    """
    done = 0
    simple_vcs = m[VC_ALLOCATOR] == 0 and m[ITERATIONS] == 1
    simple_switch = m[SWITCH_ALLOCATOR] == 0 and m[ITERATIONS] == 1
    while done < cycles and c[ERROR] == 0:
        now = c[NOW]
        if mode == 3:
            if c[FLOWS_LEFT] == 0:
                break
            if c[IN_FLIGHT] == 0:
                now = skip_to(m, c, flows, now)
        elif mode == 2 and c[IN_FLIGHT] == 0:
            break
        elif mode == 1 and c[MEASURED_IN_FLIGHT] == 0 and now > c[DRAIN_FROM] + 1:
            behind = False
            for node in range(m[AT_NODE], m[AT_NODE] + m[NODES] * N_SIZE, N_SIZE):
                behind = behind or m[U(node + N_NEXT)] <= c[DRAIN_FROM]
            if not behind:
                break
        arrivals(m, c, table, flows, now)
        sources(m, c, now, kind, rate, sizes, size_weights, target, weights, burst, flows, generate)
        partial[0] += speedup
        first = m[AT_ROUTER]
        last = first + m[ROUTERS] * R_SIZE
        while partial[0] >= 1.0:
            partial[0] -= 1.0
            step = c[STEP]
            if step > 1 << 30:
                step = forget_stamps(m)
            for router in range(first, last, R_SIZE):
                step += 1
                c[STEP] = step
                number = m[U(router + R_SWITCH_N)]
                waiting = m[U(router + R_VC_N)]
                if waiting:
                    if simple_vcs and m[U(router + R_VC_DELAY)] == 1:
                        islip_vcs(m, router, waiting, step)
                    else:
                        allocate_vcs(m, router, now)
                if m[U(router + R_ROUTING_N)]:
                    finish_routing(m, c, table, router, now)
                if number:
                    if simple_switch and m[U(router + R_SWITCH_DELAY)] == 1:
                        islip_switch(m, c, table, router, number, now, step)
                    else:
                        allocate_switch(m, c, table, router, number, now)
        c[NOW] = now + 1
        done += 1
    return done
