# mypy: disable-error-code="untyped-decorator"
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
    DRAINING,
    FLOWS,
    IDLE,
    PERMUTATION,
    RUNNING,
    SHARED_WEIGHTS,
    UNIFORM,
    WARMING,
    below,
    fraction,
    geometric,
)
from tierform.network.cycle_router import (
    allocate_switch,
    allocate_vcs,
    enter,
    finish_routing,
    islip_switch,
    islip_vcs,
)
from tierform.network.cycle_state import (
    ACCEPTED,
    AT_BEST,
    AT_CHANNEL,
    AT_CREDITS,
    AT_FREE,
    AT_HISTOGRAM,
    AT_IN,
    AT_NODE,
    AT_OUT,
    AT_OWN,
    AT_PACKET,
    AT_REQUEST,
    AT_ROUTER,
    AT_WHEEL,
    BINS,
    C_BUFFER,
    C_DUE,
    C_FILL,
    C_HEAD,
    C_ROUTER,
    C_STAMP,
    C_STATUS,
    CHANNEL_SIZE,
    CREDIT_EVENTS,
    DEPTH,
    DRAIN_FROM,
    ERROR,
    EVENTS,
    FLIT_LATENCY,
    FLOWS_LEFT,
    FRAGMENTATION,
    FREE_TOP,
    HOPS,
    HORIZON,
    I_STEP,
    IN_FLIGHT,
    IN_FLIGHT_CREATED,
    IN_SIZE,
    ITERATIONS,
    MEASURED_IN_FLIGHT,
    N_ACCEPTED,
    N_CHANNEL,
    N_EJECT,
    N_LAST_VC,
    N_LEFT,
    N_NEXT,
    N_ON,
    N_OWN,
    N_PACKET,
    N_READY,
    N_ROUTER,
    N_SIZE,
    N_SLOTS,
    N_VC,
    NETWORK_LATENCY,
    NODES,
    NOW,
    O_OWN,
    P_CREATED,
    P_ENTERED,
    P_FLIT_TIMES,
    P_FLOW,
    P_GOAL,
    P_HEAD_AT,
    P_HOME,
    P_HOPS,
    P_MEASURED,
    P_NEXT_FLIT,
    P_RECORD,
    P_SIZE,
    P_SOURCE,
    PACKET_LATENCY,
    PACKETS,
    PHASE,
    R_CREDIT_DELAY,
    R_ROUTING_N,
    R_SIZE,
    R_SWITCH_DELAY,
    R_SWITCH_LIST,
    R_SWITCH_N,
    R_VC_DELAY,
    R_VC_N,
    ROUTERS,
    SAMPLED_FLITS,
    SAMPLED_PACKETS,
    SENT,
    STEP,
    SWITCH_ALLOCATOR,
    VC_ALLOCATOR,
    VCS,
    W_OWNER,
    W_SIZE,
    W_STAMP,
    W_TAIL_SENT,
    W_USED,
    WAIT_FOR_TAIL,
    WORST,
)

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
FOREVER = np.int64(2**31 - 1)


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
def next_packet_time(m: Any, c: Any, node: int, rate: float, inverse_log: float, start: float, stop: float) -> None:
    """Move a source's clock to its next packet; a bursty source (start > 0) changes state once a cycle."""
    if rate <= 0.0:
        m[U(node + N_NEXT)] = FOREVER
    elif start <= 0.0:
        m[U(node + N_NEXT)] = min(m[U(node + N_NEXT)] + geometric(c, inverse_log), FOREVER)
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
def sources(
    m: Any, c: Any, now: int, kind: int, rate: Any, sizes: Any, size_weights: Any, target: Any, weights: Any,
    burst: Any, flows: Any, generate: bool,
) -> None:  # fmt: skip
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
                next_packet_time(m, c, node, rate[0, source], rate[1, source], burst[0], burst[1])
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
    if (
        m[U(at + P_GOAL)] != port
        or (word & 2 != 0) != (left == m[U(at + P_SIZE)] - 1)
        or (word & 1 != 0) != (left == 0)
    ):
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
def advance(
    m: Any, c: Any, table: Any, kind: int, rate: Any, sizes: Any, size_weights: Any, target: Any, weights: Any,
    burst: Any, flows: Any, cycles: int, speedup: float, partial: Any, generate: bool, mode: int,
) -> Any:  # fmt: skip
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
