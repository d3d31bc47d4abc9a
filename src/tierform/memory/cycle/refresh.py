# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Kernels of what a controller does of its own accord: refresh, power-down and self-refresh."""

from __future__ import annotations

from numba import njit

from tierform.memory.cycle.commands import calm, change_state, forbid, issue, put_due, ready_at
from tierform.memory.cycle.queues import classify
from tierform.memory.cycle.records import bank_at, channel_at, rank_at
from tierform.memory.cycle.state import (
    ALERT,
    ALERT_LEFT,
    BANKS,
    BY_BANK,
    DUE_AREA,
    DUE_FROM,
    DUE_N,
    DUE_SIZE,
    GROUPS,
    HELD_BANK,
    HELD_RANK,
    IDLE_SINCE,
    MANAGEMENT,
    N_PDE,
    N_SRE,
    NEVER,
    NEXT_REFRESH,
    NEXT_UNIT,
    PER_BANK,
    PER_GROUP,
    POWER,
    POWER_DOWN_AFTER,
    PRAC_RECOVERY,
    QUEUED_HERE,
    RANKS,
    REFRESH,
    REFRESH_EVERY,
    REFRESH_UNITS,
    ROW,
    SAME_BANK,
    SELF_REFRESH_AFTER,
    SIMULTANEOUS,
)

_PRE, _REF, _REFB, _SRE, _SRX, _PDE, _PDX, _RFM = 1, 6, 7, 8, 9, 10, 11, 12


@njit(forceinline=True)
def _due(m, c, k):
    """The `k`-th refresh on the channel's list: a rank, or the first bank."""
    return m[m[DUE_AREA] + c * m[DUE_SIZE] + (m[channel_at(m, c) + DUE_FROM] + k) % m[DUE_SIZE]]


@njit(forceinline=True)
def add_due_refreshes(m, c, t):
    """Put the refreshes that have become due at cycle `t` on the channel's list."""
    at = channel_at(m, c)
    while m[at + NEXT_REFRESH] <= t:
        unit = m[at + NEXT_UNIT]
        first, number = unit, 1
        if m[REFRESH] == SIMULTANEOUS:
            first, number = 0, m[RANKS]
        elif m[REFRESH] == BY_BANK:
            # Bank groups first, then the bank within the group, then the rank.
            inner = unit % m[BANKS]
            first = unit - inner + (inner % m[GROUPS]) * m[PER_GROUP] + inner // m[GROUPS]
        elif m[REFRESH] == SAME_BANK:
            first = (unit // m[PER_GROUP]) * m[BANKS] + unit % m[PER_GROUP]
        for k in range(number):
            flat = first + k
            rank = flat // m[BANKS] if m[REFRESH] >= BY_BANK else flat
            # A rank in self-refresh refreshes itself.
            if m[rank_at(m, c, rank) + POWER] != 2:
                put_due(m, c, flat)
        m[at + NEXT_UNIT] = (unit + 1) % m[REFRESH_UNITS]
        m[at + NEXT_REFRESH] += m[REFRESH_EVERY]


@njit(forceinline=True)
def answer_alert(m, c):
    """The alert's time is over: as much refresh management of every rank as a recovery takes."""
    at = channel_at(m, c)
    m[at + ALERT] = 2
    m[at + ALERT_LEFT] = m[PRAC_RECOVERY] * m[RANKS]
    for _ in range(m[PRAC_RECOVERY]):
        for rank in range(m[RANKS]):
            put_due(m, c, rank + MANAGEMENT)


@njit(forceinline=True)
def refresh_step(m, c, t):
    """Work on the refresh at the head of the list: (1 when a command was issued, cycle of its next chance).

    Open banks are closed one by one, then the refresh goes; the queues concerned are held back meanwhile.
    """
    at = channel_at(m, c)
    unit = _due(m, c, 0)
    management = unit >= MANAGEMENT
    unit &= MANAGEMENT - 1
    single = m[REFRESH] >= BY_BANK and not management
    rank = unit // m[BANKS] if single else unit
    m[at + HELD_RANK] = -1 if single else rank
    m[at + HELD_BANK] = unit if single else -1
    if m[rank_at(m, c, rank) + POWER] != 0:
        return 0, NEVER
    first = unit if single else rank * m[BANKS]
    step = m[PER_GROUP] if single and m[REFRESH] == SAME_BANK else 1
    number = m[BANKS]
    if single:
        number = m[GROUPS] if m[REFRESH] == SAME_BANK else 1
    kind = _REFB if single else _REF
    if management:
        kind = _RFM
    closed, soonest, latest = True, NEVER, 0
    for k in range(number):
        bank = first + k * step
        if m[bank_at(m, c, bank) + ROW] >= 0:
            closed = False
            when = ready_at(m, _PRE, c, bank)
            if when <= t:
                issue(m, _PRE, t, c, bank, -1, -1)
                if m[PER_BANK] == 1:
                    classify(m, c, bank)
                return 1, t + 1
            soonest = min(soonest, when)
        else:
            latest = max(latest, ready_at(m, kind, c, bank))
    if not closed:
        return 0, soonest
    if latest > t:
        return 0, latest
    issue(m, kind, t, c, first, -1, -1)
    if single and m[REFRESH] == SAME_BANK:
        for k in range(1, number):
            forbid(m, kind, t, c, first + k * step)
            calm(m, c, first + k * step, 1)
    m[at + DUE_FROM] = (m[at + DUE_FROM] + 1) % m[DUE_SIZE]
    m[at + DUE_N] -= 1
    m[at + HELD_RANK] = -1
    m[at + HELD_BANK] = -1
    return 1, t + 1


@njit(forceinline=True)
def _refresh_waits(m, c, rank):
    for k in range(m[channel_at(m, c) + DUE_N]):
        unit = _due(m, c, k)
        if unit >= MANAGEMENT:
            unit -= MANAGEMENT
        elif m[REFRESH] >= BY_BANK:
            unit //= m[BANKS]
        if unit == rank:
            return True
    return False


@njit(forceinline=True)
def _power_command(m, c, rank, t):
    """What the rank's idleness asks for: (command or -1, bank, cycle of the next look)."""
    at, bank = rank_at(m, c, rank), rank * m[BANKS]
    wanted = m[at + QUEUED_HERE] > 0
    refresh = _refresh_waits(m, c, rank)
    idle = m[at + IDLE_SINCE]
    sleep_at = idle + m[SELF_REFRESH_AFTER] if m[SELF_REFRESH_AFTER] > 0 else NEVER
    down_at = idle + m[POWER_DOWN_AFTER] if m[POWER_DOWN_AFTER] > 0 else NEVER
    if m[at + POWER] == 2:
        return (_SRX if wanted else -1), bank, NEVER
    if m[at + POWER] == 1:
        if wanted or refresh or t >= sleep_at:
            return _PDX, bank, NEVER
        return -1, bank, sleep_at
    if wanted or refresh:
        return -1, bank, NEVER
    if t >= sleep_at:
        for k in range(m[BANKS]):
            if m[bank_at(m, c, bank + k) + ROW] >= 0:
                return _PRE, bank + k, NEVER
        return _SRE, bank, NEVER
    if t >= down_at:
        return _PDE, bank, NEVER
    return -1, bank, min(sleep_at, down_at)


@njit(forceinline=True)
def power_step(m, c, t, busy):
    """Move idle ranks into and wanted ranks out of low-power states; returns the cycle of the next chance.

    At most one command a cycle, and none when the cycle already had one (`busy`).
    """
    soonest = NEVER
    for rank in range(m[RANKS]):
        command, bank, look = _power_command(m, c, rank, t)
        if command < 0:
            soonest = min(soonest, look)
            continue
        when = ready_at(m, command, c, bank)
        if busy or when > t:
            soonest = min(soonest, max(when, t + 1))
            continue
        at = rank_at(m, c, rank)
        idle = m[at + IDLE_SINCE]
        if command != _PRE:
            change_state(m, c, rank, t)
        issue(m, command, t, c, bank, -1, -1)
        # Going to sleep is not activity.
        m[at + IDLE_SINCE] = idle
        if command == _PDE:
            m[at + POWER] = 1
            m[channel_at(m, c) + N_PDE] += 1
        elif command == _SRE:
            m[at + POWER] = 2
            m[channel_at(m, c) + N_SRE] += 1
        elif command in (_PDX, _SRX):
            m[at + POWER] = 0
        busy = True
        soonest = t + 1
    return soonest
