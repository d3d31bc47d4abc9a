# mypy: disable-error-code="untyped-decorator"
"""What one router does in a cycle: virtual-channel allocation, routing, switch allocation, sending.

Requests are short lists per router, so an idle router costs one test.  A flit that wins the switch goes straight into
the wheel slot of the cycle in which it reaches the next input, as crossbar, output queue and wire delays are then
known.
The usual router (one iteration of iSLIP, one cycle) has its own path, with marks in the records instead of tables;
the general path serves every allocator, more iterations and longer stages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle_kernel import (
    ACTIVE,
    ALLOCATING,
    IDLE,
    LAST_ESCAPE,
    REQUEST,
    ROUTING,
    SHARED,
    allocate,
    route,
)
from tierform.network.cycle_state import (
    AT_BEST,
    AT_CHANNEL,
    AT_CREDITS,
    AT_GRANTED,
    AT_IN,
    AT_OUT,
    AT_OWN,
    AT_PACKET,
    AT_POINTERS,
    AT_REQUEST,
    AT_SCRATCH,
    AT_WHEEL,
    BUSY_WHEN_FULL,
    C_ACCEPT,
    C_ACCEPT_AT,
    C_ASSIGNED,
    C_BEST,
    C_BUFFER,
    C_DUE,
    C_FILL,
    C_FIRST_ROUTE,
    C_GRANT_AT,
    C_HEAD,
    C_IN_LOCAL,
    C_LOCAL,
    C_NEXT_VC,
    C_OUT_LOCAL,
    C_OUTCOME,
    C_PICK,
    C_PORT,
    C_ROTATE_AT,
    C_ROUTES,
    C_STAMP,
    C_STATUS,
    C_VC,
    CHANNEL_SIZE,
    CREDIT_EVENTS,
    DEPTH,
    EVENTS,
    HORIZON,
    I_CREDIT_DELAY,
    I_CREDIT_FREE,
    I_FEEDER,
    I_PART,
    I_POINTERS,
    I_STEP,
    IN_SIZE,
    ITERATIONS,
    O_DELAY,
    O_FREE,
    O_INTERVAL,
    O_LOCAL,
    O_OWN,
    O_POINTERS,
    O_TARGET,
    OUT_SIZE,
    P_HOPS,
    P_RECORD,
    R_CHANNEL,
    R_CROSSBAR_DELAY,
    R_INPUTS,
    R_OUTPUTS,
    R_OWN,
    R_ROUTING_DELAY,
    R_ROUTING_LIST,
    R_ROUTING_N,
    R_SWITCH_DELAY,
    R_SWITCH_LIST,
    R_SWITCH_N,
    R_VC_DELAY,
    R_VC_LIST,
    R_VC_N,
    SIDES,
    SPEED_IN,
    SPEED_OUT,
    STEP,
    SWITCH_ALLOCATOR,
    VC_ALLOCATOR,
    VCS,
    W_BEST,
    W_FLITS,
    W_GRANT,
    W_LOCAL,
    W_OWNER,
    W_PICK,
    W_PORT,
    W_SIZE,
    W_SLOTS,
    W_STAMP,
    W_TAIL_SENT,
    W_USED,
    W_VC,
    WAIT_FOR_TAIL,
)

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


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
        offered = False
        for _ in range(m[U(channel + C_ROUTES)]):
            kind = m[U(candidate + 3)]
            first = m[U(m[U(candidate)] + O_OWN)]
            own = first + m[U(candidate + 1)] * W_SIZE
            end = first + m[U(candidate + 2)] * W_SIZE
            if kind == LAST_ESCAPE and offered:
                end = own - 1
            while own <= end:
                if m[U(own + W_OWNER)] == 0 and (
                    m[U(own + W_USED)] < m[U(own + W_SLOTS)] or not (full_is_busy or kind == SHARED)
                ):
                    offered = True
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
        offered = False
        for _ in range(m[U(channel + C_ROUTES)]):
            kind = m[U(candidate + 3)]
            first = m[U(m[U(candidate)] + O_OWN)]
            end = m[U(candidate + 2)] + 1
            if kind == LAST_ESCAPE and offered:
                end = 0
            for vc in range(m[U(candidate + 1)], end):
                own = first + vc * W_SIZE
                if m[U(own + W_OWNER)] == 0 and (
                    m[U(own + W_USED)] < m[U(own + W_SLOTS)] or not (m[BUSY_WHEN_FULL] or kind == SHARED)
                ):
                    offered = True
                    m[U(request)] = m[U(channel + C_LOCAL)]
                    m[U(request + 1)] = m[U(own + W_LOCAL)]
                    m[U(request + 2)] = 1 if kind == SHARED else 0
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
            # A later grant may have filled the channel meanwhile: shared ones are taken only with room.
            strict = m[BUSY_WHEN_FULL] != 0 or m[U(channel + C_ROUTES)] > 1
            if (
                own >= 0
                and m[U(own + W_OWNER)] == 0
                and (delay == 1 or not strict or m[U(own + W_USED)] < m[U(own + W_SLOTS)])
            ):
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
    wheel = m[AT_CREDITS] + ((m[U(port + I_CREDIT_FREE)] - 1 + m[U(port + I_CREDIT_DELAY)]) & mask) * (
        1 + m[CREDIT_EVENTS]
    )
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
            won = m[U(channel + C_OUTCOME)] == 1 and (delay == 1 or m[U(own + W_USED)] < m[U(own + W_SLOTS)])
            if won and not send(m, c, table, router, channel, now):
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
        m[AT_IN]
        + ((m[U(router + R_CHANNEL)] - m[AT_CHANNEL]) // (m[CHANNEL_SIZE] * vcs)) * m[IN_SIZE]
        + I_POINTERS
        + speed_in
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
