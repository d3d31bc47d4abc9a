# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Switch allocation of the general router: any allocator, delay, speedup and priority, with speculation or without."""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import compiled
from tierform.network.cycle import state as s
from tierform.network.cycle.allocators import REQUEST
from tierform.network.cycle.modes import ACTIVE
from tierform.network.cycle.requests import (
    SPECULATIVE_PRIORITY,
    forget_requests,
    list_request,
    match_switch,
    priority_of,
)
from tierform.network.cycle.router import send

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
# What C_DUE says of a channel that got its virtual channel and, speculating, the switch.
WON = -2


@compiled
def allocate_switch(m: Words, c: Ints, table: Shorts, router: int, number: int, notes: int, now: int) -> None:
    """Let the `number` channels that waited before this cycle, and `notes` speculations, ask for the switch."""
    inputs, outputs = m[U(router + s.R_INPUTS)] * m[s.SPEED_IN], m[U(router + s.R_OUTPUTS)] * m[s.SPEED_OUT]
    delay = m[U(router + s.R_SWITCH_DELAY)]
    waiting, first = m[U(router + s.R_SWITCH_LIST)], m[s.AT_SCRATCH]
    requests = 0
    for k in range(waiting, waiting + number):
        channel = m[U(k)]
        if m[U(channel + s.C_DUE)] >= 0:
            continue
        m[U(channel + s.C_DUE)] = now + delay - 1
        m[U(channel + s.C_OUTCOME)] = 0
        own = m[U(channel + s.C_ASSIGNED)]
        if m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]:
            o = m[U(channel + s.C_OUT_LOCAL)]
            requests = list_request(m, channel, o, outputs, first, requests, priority_of(m, channel))
    together = m[s.SPECULATIVE_ALLOCATOR] < 0
    if notes > 0 and together:
        requests = list_notes(m, outputs, first, requests, notes)
    if requests > 0:
        forget_requests(m, outputs, first, requests)
        if notes > 0:
            mark(m, inputs, outputs, first, requests, False)
        match_switch(m, c, router, requests, inputs, outputs, False)
        if notes > 0:
            mark(m, inputs, outputs, first, requests, True)
        take_winners(m, first, requests, inputs, outputs, False)
    elif notes > 0:
        mark(m, inputs, outputs, first, 0, False)
    if notes > 0 and not together:
        requests = list_notes(m, outputs, first, 0, notes)
        forget_requests(m, outputs, first, requests)
        match_switch(m, c, router, requests, inputs, outputs, True)
        take_winners(m, first, requests, inputs, outputs, True)
    kept = waiting
    for k in range(waiting, waiting + m[U(router + s.R_SWITCH_N)]):
        channel = m[U(k)]
        if k < waiting + number:
            if m[U(channel + s.C_DUE)] <= now:
                m[U(channel + s.C_DUE)] = -1
                own = m[U(channel + s.C_ASSIGNED)]
                won = m[U(channel + s.C_OUTCOME)] == 1 and (delay == 1 or m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)])
                if won and not send(m, c, table, router, channel, now):
                    continue
        elif m[U(channel + s.C_DUE)] == WON:
            m[U(channel + s.C_DUE)] = -1
            if not send(m, c, table, router, channel, now):
                continue
        m[U(kept)] = channel
        kept += 1
    m[U(router + s.R_SWITCH_N)] = kept - waiting


@compiled
def list_notes(m: Words, outputs: int, first: int, requests: int, notes: int) -> int:
    """Make requests of the notes; the number of requests then."""
    note = m[s.AT_SPECULATIONS]
    for k in range(note, note + 2 * notes, 2):
        requests = list_request(m, m[U(k)], m[U(k + 1)], outputs, first, requests, SPECULATIVE_PRIORITY)
    return requests


@compiled
def mark(m: Words, inputs: int, outputs: int, first: int, requests: int, matched: bool) -> None:
    """Note for each input and output whether the switch allocator matched it; before that, which outputs are asked."""
    taken = m[s.AT_MARKS]
    if not matched:
        for k in range(inputs + 2 * outputs):
            m[U(taken + k)] = 0
        for k in range(requests):
            m[U(taken + inputs + outputs + m[U(first + k * REQUEST + 1)])] = 1
        return
    for k in range(requests):
        if m[U(m[s.AT_GRANTED] + k)]:
            m[U(taken + m[U(first + k * REQUEST)])] = 1
            m[U(taken + inputs + m[U(first + k * REQUEST + 1)])] = 1


@compiled
def take_winners(m: Words, first: int, requests: int, inputs: int, outputs: int, speculative: bool) -> None:
    """Mark the winning channels and move their inputs' offsets; a speculation must have got its channel as well."""
    taken = m[s.AT_MARKS]
    for k in range(requests):
        if m[U(m[s.AT_GRANTED] + k)] == 0:
            continue
        request = first + k * REQUEST
        i, o, channel = m[U(request)], m[U(request + 1)], m[U(request + 2)]
        if speculative:
            behind = outputs if m[s.SPECULATE_UNASKED] else 0
            if m[U(taken + i)] or m[U(taken + inputs + behind + o)]:
                continue
        m[U(m[U(channel + s.C_ROTATE_AT)])] = m[U(channel + s.C_NEXT_VC)]
        if m[U(request + 3)] != SPECULATIVE_PRIORITY:
            m[U(channel + s.C_OUTCOME)] = 1
            continue
        own = m[U(channel + s.C_ASSIGNED)]
        if (
            m[U(channel + s.C_STATUS)] == ACTIVE
            and m[U(channel + s.C_OUT_LOCAL)] == o
            and m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]
        ):
            m[U(channel + s.C_DUE)] = WON
