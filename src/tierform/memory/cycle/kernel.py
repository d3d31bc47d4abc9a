# mypy: ignore-errors
"""The cycle engine's main loop: controllers and devices of all channels, fed by one trace or several, each in order.

Each visited cycle, every channel that has something to do (1) starts a refresh that is due, (2) issues the first ready
command, (3) moves one transaction into a command queue; then each front hands over its next requests, at most as many
as it may in a cycle.  Cycles in which nothing can happen are skipped.  A request handed over in cycle t is moved to a
command queue in t + 1 and its first command may go in t + 2.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.memory.cycle.commands import change_state, forbid, ready_at
from tierform.memory.cycle.queues import choose, serve
from tierform.memory.cycle.records import (
    accepted_at,
    channel_at,
    completed_at,
    front_at,
    new_pending,
    pending_at,
    queue_at,
    request_at,
    waiting_at,
    wake_at,
)
from tierform.memory.cycle.refresh import add_due_refreshes, answer_alert, power_step, refresh_step
from tierform.memory.cycle.state import (
    ALERT,
    ALERT_AT,
    BANKS,
    BLOCKED_FRONTS,
    BURST,
    CHANNELS,
    DIRTY,
    DRAIN_LOW,
    DUAL,
    DUE_N,
    FIELDS,
    FRONT_AT,
    FRONT_END,
    FRONT_NEXT,
    FRONTS,
    IS_WRITE,
    ISSUE,
    LAST_DONE,
    LIMIT,
    N_DUAL,
    NEVER,
    NEXT_COMMAND,
    NEXT_REFRESH,
    OUTSTANDING,
    PENDING,
    PER_BANK,
    PER_GROUP,
    POWER_DOWN_AFTER,
    QUEUE_AREA,
    QUEUE_SHIFT,
    QUEUED,
    RANKS,
    REQUEST_BANK,
    REQUEST_ROW,
    SAME_BEFORE,
    SELF_REFRESH_AFTER,
    TRANSACTION_QUEUE,
    TURN,
    TURN_OF_FRONTS,
    UNIFIED,
    UNREAD,
    WAITING_READ,
    WAITING_READS,
    WAITING_WRITE,
    WAITS_BEHIND,
    WAITS_SINCE,
)
from tierform.memory.cycle.transactions import move_transaction

_FIRST_COLUMN, _LAST_COLUMN = 2, 5
SIGNATURES = {
    "run": "i8(CPointer(i8), CPointer(i8), CPointer(i8), CPointer(i8), CPointer(u1), i8)",
    "forbid_alone": "i8(CPointer(i8), i8, i8, i8)",
    "ready_alone": "i8(CPointer(i8), i8, i8)",
}


@njit(forceinline=True)
def _field(m, burst, field):
    return (burst >> m[FIELDS + 2 * field]) & ((1 << m[FIELDS + 2 * field + 1]) - 1)


@njit(forceinline=True)
def _tick(m, c, t):
    """Cycle `t` of channel `c`; returns the next cycle in which it has something to do."""
    at = channel_at(m, c)
    if m[at + NEXT_REFRESH] <= t:
        add_due_refreshes(m, c, t)
    soonest = m[at + NEXT_REFRESH]
    if m[at + ALERT] == 1:
        if m[at + ALERT_AT] <= t:
            answer_alert(m, c)
        else:
            soonest = min(soonest, m[at + ALERT_AT])
    issued, row_slot_used, column_slot_used = 0, False, False
    if m[at + DUE_N] > 0:
        issued, when = refresh_step(m, c, t)
        row_slot_used = issued > 0
        soonest = min(soonest, when)
    while m[at + QUEUED] > 0 and m[at + NEXT_COMMAND] <= t and (issued == 0 or (m[DUAL] == 1 and issued == 1)):
        q, entry, command, when = choose(m, c, t)
        if q < 0:
            m[at + NEXT_COMMAND] = when
            break
        m[at + TURN] = q
        column = _FIRST_COLUMN <= command <= _LAST_COLUMN
        # The second slot of a cycle takes only the other kind of command; the queue's turn has passed all the same.
        if (column and column_slot_used) or (not column and row_slot_used):
            break
        serve(m, c, q, entry, command, t)
        if issued == 1:
            m[at + N_DUAL] += 1
        issued += 1
        if column:
            column_slot_used = True
        else:
            row_slot_used = True
    if m[POWER_DOWN_AFTER] > 0 or m[SELF_REFRESH_AFTER] > 0:
        soonest = min(soonest, power_step(m, c, t, issued > 0))
        if issued > 0:
            soonest = t + 1
    if m[at + DIRTY] == 1:
        m[at + DIRTY] = move_transaction(m, c, t)
        if m[at + DIRTY] == 1:
            soonest = t + 1
    if m[at + QUEUED] > 0:
        soonest = min(soonest, max(m[at + NEXT_COMMAND], t + 1))
    return soonest


@njit(forceinline=True)
def _accept(m, c, i, address, burst, write, t):
    """Take request `i` into channel `c` at cycle `t`; False when its queue is full."""
    request, at = request_at(m, i), channel_at(m, c)
    side = 1 if write and m[UNIFIED] == 0 else 0
    count = m[at + WAITING_READS + side]
    if count >= m[TRANSACTION_QUEUE]:
        return False
    rank = _field(m, burst, 1)
    m[request + IS_WRITE] = write
    m[request + REQUEST_ROW] = _field(m, burst, 4)
    m[request + REQUEST_BANK] = rank * m[BANKS] + _field(m, burst, 2) * m[PER_GROUP] + _field(m, burst, 3)
    m[accepted_at(m, i)] = t + 1
    m[request + BURST] = burst
    same = pending_at(m, address)
    enqueue = False
    if write or (same >= 0 and m[same + WAITING_WRITE] >= 0):
        # A write is done when it is buffered; a read of a buffered write is answered from the buffer.
        m[completed_at(m, i)] = t + 2
        m[LAST_DONE] = max(m[LAST_DONE], t + 2)
        if write and (same < 0 or m[same + WAITING_WRITE] < 0):
            if same < 0:
                same = new_pending(m, address)
            m[same + WAITING_WRITE] = i
            enqueue = True
    else:
        # Reads of the same address are answered together.
        if same < 0:
            same = new_pending(m, address)
        enqueue = m[same + WAITING_READ] < 0
        m[request + SAME_BEFORE] = m[same + WAITING_READ]
        m[same + WAITING_READ] = i
        if not enqueue:
            m[OUTSTANDING] += 1
    if enqueue:
        m[request + PENDING] = same
        queue = queue_at(m, c, m[request + REQUEST_BANK] if m[PER_BANK] == 1 else rank) - m[QUEUE_AREA]
        m[waiting_at(m, c, side) + count] = (queue << QUEUE_SHIFT) + i
        m[at + WAITING_READS + side] = count + 1
        m[OUTSTANDING] += 1
        m[at + DIRTY] = 1
        wake = wake_at(m, c)
        m[wake] = min(m[wake], t + 1)
    return True


@njit(forceinline=True)
def _hand_over(m, f, arrival, address, bursts, is_write, t):
    """Front `f` hands over what is due at cycle `t` until its port or a queue is full; how many were taken."""
    front = front_at(m, f)
    i = m[front + FRONT_NEXT]
    taken = 0
    while taken < m[ISSUE] and i < m[front + FRONT_END] and arrival[i] <= t:
        c = _field(m, bursts[i], 0)
        if not _accept(m, c, i, address[i], bursts[i], is_write[i], t):
            at = channel_at(m, c) + BLOCKED_FRONTS
            m[front + WAITS_BEHIND] = m[at]
            m[at] = f
            m[front + WAITS_SINCE] = t
            m[front + FRONT_AT] = NEVER
            m[front + FRONT_NEXT] = i
            return taken
        taken += 1
        i += 1
    m[front + FRONT_NEXT] = i
    m[front + FRONT_AT] = max(t + 1, arrival[i]) if i < m[front + FRONT_END] else NEVER
    return taken


@njit(forceinline=True)
def _tick_all(m, t):
    """Cycle `t` of the channels that have something to do; the first cycle in which any has."""
    first = np.int64(NEVER)
    for c in range(m[CHANNELS]):
        wake = m[wake_at(m, c)]
        if wake <= t:
            wake = _tick(m, c, t)
            m[wake_at(m, c)] = wake
        first = min(first, wake)
    return first


def run(m, arrival, address, bursts, is_write, limit):
    """Run the trace for `limit` cycles (-1: until it is done); the number of cycles, or -1 - it where it stalled."""
    m[LIMIT] = limit
    offered = np.int64(NEVER)
    for f in range(m[FRONTS]):
        front = front_at(m, f)
        m[front + FRONT_AT] = arrival[m[front + FRONT_NEXT]] if m[front + FRONT_NEXT] < m[front + FRONT_END] else NEVER
        offered = min(offered, m[front + FRONT_AT])
    stalled = False
    wake = 0
    while True:
        if limit < 0 and m[UNREAD] == 0 and m[OUTSTANDING] == 0:
            break
        t = min(wake, offered)
        if limit >= 0 and t >= limit:
            break
        if t >= NEVER:
            stalled = m[OUTSTANDING] > 0 or m[UNREAD] > 0
            break
        if wake <= t:
            wake = _tick_all(m, t)
        # Fronts take turns; one that was blocked may have been let go in this cycle.
        f = m[TURN_OF_FRONTS]
        taken, offered = 0, np.int64(NEVER)
        for _ in range(m[FRONTS]):
            if m[front_at(m, f) + FRONT_AT] <= t:
                taken += _hand_over(m, f, arrival, address, bursts, is_write, t)
            offered = min(offered, m[front_at(m, f) + FRONT_AT])
            f = f + 1 if f + 1 < m[FRONTS] else 0
        if taken > 0:
            wake = min(wake, t + 1)
            m[TURN_OF_FRONTS] = f + 1 if f + 1 < m[FRONTS] else 0
            m[UNREAD] -= taken
            if m[UNREAD] == 0 and limit < 0:
                # No more will come to fill the write buffers: what is in them goes as soon as nothing is queued.
                m[DRAIN_LOW] = 0
                for k in range(m[CHANNELS]):
                    m[channel_at(m, k) + DIRTY] = 1
                    m[wake_at(m, k)] = min(m[wake_at(m, k)], t + 1)
    end = limit if limit >= 0 else m[LAST_DONE] + 1
    for c in range(m[CHANNELS]):
        for rank in range(m[RANKS]):
            change_state(m, c, rank, end)
    return -1 - end if stalled else end


def forbid_alone(m, command, t, bank):
    """One command issued by hand in channel 0."""
    forbid(m, command, t, 0, bank)
    return 0


def ready_alone(m, command, bank):
    """First cycle for a command by hand in channel 0."""
    return ready_at(m, command, 0, bank)
