# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Kernel of the transaction queues: how requests get from there into the command queues."""

from __future__ import annotations

from numba import njit

from tierform.memory.cycle.queues import classify_last
from tierform.memory.cycle.records import bank_at, channel_at, front_at, rank_at, request_at, waiting_at
from tierform.memory.cycle.state import (
    BLOCKED_FRONTS,
    BURST,
    COMMAND_QUEUE,
    DRAIN_LOW,
    DRAINING,
    ENTRY,
    ENTRY_BANK,
    ENTRY_BURST,
    ENTRY_REQUEST,
    ENTRY_ROW,
    ENTRY_WRITE,
    FRONT_AT,
    IS_WRITE,
    NEXT_COMMAND,
    PENDING,
    PER_BANK,
    QUEUE_AREA,
    QUEUE_SHIFT,
    QUEUED,
    QUEUED_HERE,
    RANK_SHIFT,
    REQUEST_BANK,
    REQUEST_ROW,
    STUCK_READS,
    TRANSACTION_QUEUE,
    UNIFIED,
    WAITED,
    WAITING_READ,
    WAITING_READS,
    WAITING_WRITES,
    WAITS_BEHIND,
    WAITS_SINCE,
    WRITES_HERE,
)


@njit(forceinline=True)
def move_transaction(m, c, t):
    """Move the oldest transaction whose command queue has room; 1 when the next cycle must look again.

    Writes wait until their buffer is full, or more than `drain_low` wait and no command is queued; then as many as wait
    are drained.  A write behind a read of the same address stops the draining.
    """
    at_channel = channel_at(m, c)
    if m[UNIFIED] == 0 and m[at_channel + DRAINING] == 0:
        writes = m[at_channel + WAITING_WRITES]
        if writes >= m[TRANSACTION_QUEUE] or (writes > m[DRAIN_LOW] and m[at_channel + QUEUED] == 0):
            m[at_channel + DRAINING] = writes
    side = 1 if m[UNIFIED] == 0 and m[at_channel + DRAINING] > 0 else 0
    waiting = waiting_at(m, c, side)
    count = m[at_channel + WAITING_READS + side]
    room = m[COMMAND_QUEUE]
    for k in range(m[at_channel + STUCK_READS + side], count):
        queue = m[QUEUE_AREA] + (m[waiting + k] >> QUEUE_SHIFT)
        at = m[queue]
        if at >= room:
            continue
        i = m[waiting + k] & ((1 << QUEUE_SHIFT) - 1)
        request = request_at(m, i)
        bank = m[request + REQUEST_BANK]
        if side == 1:
            if m[m[request + PENDING] + WAITING_READ] >= 0:
                m[at_channel + DRAINING] = 0
                return 1
            m[at_channel + DRAINING] -= 1
        entry = queue + 1 + at * ENTRY
        m[entry + ENTRY_REQUEST] = i
        m[entry + ENTRY_BANK] = bank
        m[entry + ENTRY_ROW] = m[request + REQUEST_ROW]
        m[entry + ENTRY_BURST] = m[request + BURST]
        m[entry + ENTRY_WRITE] = m[request + IS_WRITE]
        m[queue] = at + 1
        m[at_channel + QUEUED] += 1
        m[rank_at(m, c, bank >> m[RANK_SHIFT]) + QUEUED_HERE] += 1
        m[bank_at(m, c, bank) + WRITES_HERE] += m[entry + ENTRY_WRITE]
        if m[PER_BANK] == 1:
            classify_last(m, c, bank, queue, entry)
        else:
            m[at_channel + NEXT_COMMAND] = 0
        m[at_channel + WAITING_READS + side] = count - 1
        for later in range(waiting + k, waiting + count - 1):
            m[later] = m[later + 1]
        # Nothing before this entry can move until a queue has room again.
        m[at_channel + STUCK_READS + side] = k
        f = m[at_channel + BLOCKED_FRONTS]
        while f >= 0:
            front = front_at(m, f)
            m[front + FRONT_AT] = t
            m[front + WAITED] += t - m[front + WAITS_SINCE]
            f = m[front + WAITS_BEHIND]
        m[at_channel + BLOCKED_FRONTS] = -1
        # Those before this entry stay; are there others on the side that is next?
        following = 1 if m[at_channel + DRAINING] > 0 else 0
        return 1 if m[at_channel + WAITING_READS + following] > m[at_channel + STUCK_READS + following] else 0
    m[at_channel + STUCK_READS + side] = count
    return 0
