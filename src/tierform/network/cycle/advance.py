# mypy: disable-error-code="untyped-decorator, no-any-return"
"""One cycle of the network, and many: the compiled loops of the cycle engine, one per kind of router.

Order within a cycle: credits and flits that are due, then sources, then routers; within a router: virtual-channel
allocation, routing, switch allocation, each on the requests that stood before.  Routers meet only through flits and
credits that arrive in later cycles, so their order is free.  :func:`advance_bitmask` runs the routers of
:mod:`tierform.network.cycle.bitmask_router`, :func:`advance_general` those of :mod:`tierform.network.cycle.router`.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types

from tierform.arrays import Address, Floats, Ints, Shorts, Words
from tierform.jit import compiled
from tierform.network.cycle import bitmask_router as bitmask
from tierform.network.cycle import state as s
from tierform.network.cycle.class_sources import sources_of_classes
from tierform.network.cycle.delay_lines import credit_line, due, flit_line
from tierform.network.cycle.endpoints import FOREVER, deliver, sources
from tierform.network.cycle.flow_records import AT_FLOWS, F_FINISHED, F_RELEASE, FLOW_COUNT, FLOW_SIZE
from tierform.network.cycle.modes import ACTIVE, IDLE
from tierform.network.cycle.requests import list_speculations
from tierform.network.cycle.router import allocate_vcs, enter, finish_routing
from tierform.network.cycle.switch import allocate_switch

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@compiled
def take_credits(m: Words, c: Ints, now: int) -> None:
    """Free the buffer places whose credits have come."""
    slot = due(credit_line(m), now)
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        own = m[U(k)]
        used = m[U(own + s.W_USED)] - 1
        m[U(own + s.W_USED)] = used
        if used < 0:
            c[s.ERROR] = 2
        if used == 0 and m[U(own + s.W_OWNER)] == s.TAIL_SENT:
            m[U(own + s.W_OWNER)] = s.FREE
    m[U(slot)] = 0


@compiled
def take_flits(m: Words, c: Ints, table: Shorts, now: int) -> None:
    """Count the flits that arrive at routers; the first in its channel is routed or wants the switch."""
    slot = due(flit_line(m, m[s.AT_FLITS]), now)
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        channel = m[U(k)]
        fill = m[U(channel + s.C_FILL)]
        m[U(channel + s.C_FILL)] = fill + 1
        # Flits of a multicast packet may wait here, sent into one branch already, for the next.
        if fill > m[U(channel + s.C_SENT)]:
            continue
        router = m[U(channel + s.C_ROUTER)]
        if m[U(channel + s.C_STATUS)] == IDLE:
            word = m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])]
            enter(m, c, table, router, channel, word >> 2)
        elif m[U(channel + s.C_STATUS)] == ACTIVE:
            m[U(m[U(router + s.R_SWITCH_LIST)] + m[U(router + s.R_SWITCH_N)])] = channel
            m[U(router + s.R_SWITCH_N)] += 1
            m[U(channel + s.C_DUE)] = -1
    m[U(slot)] = 0


@compiled
def next_release(flows: Ints, now: int) -> int | np.int64:
    """When nothing moves: the cycle of the next release of a flow, or `now` if none is to come."""
    soon = FOREVER
    for flow in range(flows[FLOW_COUNT]):
        at = flows[AT_FLOWS] + flow * FLOW_SIZE
        if flows[at + F_RELEASE] >= 0 and flows[at + F_FINISHED] < 0 and flows[at + F_RELEASE] < soon:
            soon = flows[at + F_RELEASE]
    return now if soon == FOREVER or soon <= now else soon


@compiled
def is_done(m: Words, c: Ints, mode: int, now: int) -> bool:
    """Whether to stop: mode 0 never; 1 when no measured packet is in flight and all sources have passed the drain
    start; 2 when the network is empty; 3 when every flow has finished.
    """
    if c[s.ERROR] != 0:
        return True
    if mode == 3:
        return c[s.FLOWS_LEFT] == 0
    if mode == 2:
        return c[s.IN_FLIGHT] == 0
    if mode == 1 and c[s.MEASURED_IN_FLIGHT] == 0 and now > c[s.DRAIN_FROM] + 1:
        first, number = m[s.AT_NODE], m[s.NODES]
        if m[s.CLASSES] > 1 or m[s.SUBNETS] > 1:
            first, number = m[s.AT_QUEUES], m[s.CLASSES] * (m[s.NODES] // m[s.SUBNETS])
        for node in range(first, first + number * s.N_SIZE, s.N_SIZE):
            if m[U(node + s.N_NEXT)] <= c[s.DRAIN_FROM]:
                return False
        return True
    return False


@compiled
def advance_bitmask(
    m: Words,
    b: Ints,
    c: Ints,
    table: Shorts,
    kinds: Ints,
    rate: Floats,
    sizes: Ints,
    size_weights: Floats,
    target: Ints,
    weights: Floats,
    burst: Floats,
    flows: Ints,
    cycles: int,
    generate: bool,
    mode: int,
) -> int:
    """Run up to `cycles` cycles of bitmask routers and return the number run; see :func:`is_done` for `mode`."""
    done = 0
    while done < cycles and not is_done(m, c, mode, c[s.NOW]):
        now = c[s.NOW]
        if mode == 3 and c[s.IN_FLIGHT] == 0:
            soon = next_release(flows, now)
            # Credits still under way are taken at once.
            for ahead in range(m[s.HORIZON] if soon > now else 0):
                bitmask.take_credits(m, b, c, ahead)
            now = soon
        bitmask.take_credits(m, b, c, now)
        bitmask.take_flits(m, b, now)
        deliver(m, c, flows, now)
        sources(m, c, now, kinds, rate, sizes, size_weights, target, weights, burst, flows, generate)
        granted = bitmask.grant_switch(m, b)
        bitmask.allocate_channels(m, b, c, table, now)
        bitmask.accept_grants(m, b, granted)
        bitmask.send(m, b, granted, now)
        c[s.NOW] = now + 1
        done += 1
    return done


@compiled
def advance_general(
    m: Words,
    c: Ints,
    table: Shorts,
    kinds: Ints,
    rate: Floats,
    sizes: Ints,
    size_weights: Floats,
    target: Ints,
    weights: Floats,
    burst: Floats,
    flows: Ints,
    cycles: int,
    generate: bool,
    mode: int,
    speedup: float,
    partial: Floats,
) -> int:
    """Run up to `cycles` cycles of any routers and return the number run; see :func:`is_done` for `mode`.

    `speedup` is the number of allocation steps per cycle, ``partial[0]`` what is left of one from the cycle before.
    """
    done = 0
    first = m[s.AT_ROUTER]
    last = first + m[s.ALL_ROUTERS] * s.R_SIZE
    while done < cycles and not is_done(m, c, mode, c[s.NOW]):
        now = c[s.NOW]
        if mode == 3 and c[s.IN_FLIGHT] == 0:
            soon = next_release(flows, now)
            for ahead in range(m[s.HORIZON] if soon > now else 0):
                take_credits(m, c, ahead)
            now = soon
        take_credits(m, c, now)
        take_flits(m, c, table, now)
        deliver(m, c, flows, now)
        if m[s.CLASSES] > 1 or m[s.SUBNETS] > 1:
            sources_of_classes(m, c, now, kinds, rate, sizes, size_weights, target, weights, burst, generate)
        else:
            sources(m, c, now, kinds, rate, sizes, size_weights, target, weights, burst, flows, generate)
        partial[0] += speedup
        while partial[0] >= 1.0:
            partial[0] -= 1.0
            c[s.STEP] += 1
            for router in range(first, last, s.R_SIZE):
                number, notes = m[U(router + s.R_SWITCH_N)], 0
                if m[U(router + s.R_VC_N)]:
                    if m[s.SPECULATIVE]:
                        notes = list_speculations(m, router)
                    allocate_vcs(m, c, router, now)
                if m[U(router + s.R_ROUTING_N)]:
                    finish_routing(m, c, table, router, now)
                if number or notes:
                    allocate_switch(m, c, table, router, number, notes, now)
        c[s.NOW] = now + 1
        done += 1
    return done


SIGNATURE = types.int64(
    types.CPointer(types.int32),
    types.CPointer(types.int64),
    types.int64,
    types.CPointer(types.int64),
    types.CPointer(types.int16),
    types.CPointer(types.int64),
    types.CPointer(types.int64),
    types.CPointer(types.float64),
    types.CPointer(types.int64),
    types.CPointer(types.float64),
    types.CPointer(types.int64),
    types.CPointer(types.float64),
    types.CPointer(types.float64),
    types.CPointer(types.int64),
    types.int64,
    types.int64,
    types.int64,
    types.float64,
    types.CPointer(types.float64),
)


def run_bitmask(
    words: Address,
    masks: Address,
    size: int,
    counters: Address,
    table: Address,
    shapes: Address,
    kinds: Address,
    rate: Address,
    sizes: Address,
    size_weights: Address,
    target: Address,
    weights: Address,
    burst: Address,
    flows: Address,
    cycles: int,
    generate: int,
    mode: int,
    speedup: float,
    partial: Address,
) -> int:
    """:func:`advance_bitmask` on addresses, for :mod:`tierform.network.cycle.compiled`; `shapes` as in `shapes_of`."""
    n = carray(shapes, 12)
    return advance_bitmask(
        carray(words, size),
        carray(masks, size // 2),
        carray(counters, n[0]),
        carray(table, (n[1], n[2], n[3])),
        carray(kinds, (n[4], 2)),
        carray(rate, (2 * n[4], n[5])),
        carray(sizes, (n[4], n[6])),
        carray(size_weights, (n[4], n[6])),
        carray(target, (n[4], n[7])),
        carray(weights, (n[8], n[9])),
        carray(burst, (n[4], 4)),
        carray(flows, n[10]),
        cycles,
        generate != 0,
        mode,
    )


def run_general(
    words: Address,
    masks: Address,
    size: int,
    counters: Address,
    table: Address,
    shapes: Address,
    kinds: Address,
    rate: Address,
    sizes: Address,
    size_weights: Address,
    target: Address,
    weights: Address,
    burst: Address,
    flows: Address,
    cycles: int,
    generate: int,
    mode: int,
    speedup: float,
    partial: Address,
) -> int:
    """:func:`advance_general` on addresses, for :mod:`tierform.network.cycle.compiled`; `shapes` as in `shapes_of`."""
    n = carray(shapes, 12)
    return advance_general(
        carray(words, size),
        carray(counters, n[0]),
        carray(table, (n[1], n[2], n[3])),
        carray(kinds, (n[4], 2)),
        carray(rate, (2 * n[4], n[5])),
        carray(sizes, (n[4], n[6])),
        carray(size_weights, (n[4], n[6])),
        carray(target, (n[4], n[7])),
        carray(weights, (n[8], n[9])),
        carray(burst, (n[4], 4)),
        carray(flows, n[10]),
        cycles,
        generate != 0,
        mode,
        speedup,
        carray(partial, 1),
    )
