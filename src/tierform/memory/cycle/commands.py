# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Kernels of the device: when a command may be issued, what it forbids until when, and what it does to the banks.

The records of banks, groups, ranks and channels hold the first cycle at which each command may come.  A command is
allowed when all four have passed.  Activation windows (nFAW) are folded into the rank's entry when an activation is
issued.
"""

from __future__ import annotations

from numba import njit

from tierform.memory.cycle.records import bank_at, channel_at, group_at, rank_at
from tierform.memory.cycle.state import (
    ACTIVATIONS,
    ACTIVE,
    ALERT,
    ALERT_AT,
    ALERT_CYCLES,
    ALERT_LEFT,
    BANKS,
    CHANNELS,
    DUE_AREA,
    DUE_FROM,
    DUE_N,
    DUE_SIZE,
    HITS,
    HOTTEST,
    IDLE_SINCE,
    LOG_AREA,
    LOG_ENTRY,
    LOG_SIZE,
    LOGGED,
    MANAGEMENT,
    N_ACT,
    N_ALERT,
    N_PRE,
    N_REF,
    N_REFB,
    N_RFM,
    N_WINDOWS,
    NEXT_COMMAND,
    OPEN_BANKS,
    PD_ACTIVE,
    PD_PRECHARGED,
    POWER,
    PRAC_DELAY,
    PRAC_THRESHOLD,
    PRECHARGED,
    RANK_SHIFT,
    RANKS,
    RFM_DUE,
    RFM_THRESHOLD,
    ROW,
    ROW_COUNT_AREA,
    ROW_NUMBER_AREA,
    ROWS_END,
    ROWS_FROM,
    RULE_AREA,
    RULE_HEAD,
    RULE_LENGTH,
    SELF_REFRESH,
    STATE_FROM,
    WINDOW_AREA,
    WINDOW_DEPTH,
)

_ACT, _PRE, _RD, _RDA, _WR, _WRA, _REF, _REFB, _RFM = 0, 1, 2, 3, 4, 5, 6, 7, 12


@njit(forceinline=True)
def ready_at(m, command, c, bank):
    """First cycle at which `command` may be issued to `bank` of channel `c`."""
    when = m[bank_at(m, c, bank) + command]
    when = max(when, m[group_at(m, c, bank) + command])
    when = max(when, m[rank_at(m, c, bank >> m[RANK_SHIFT]) + command])
    return max(when, m[channel_at(m, c) + command])


@njit(forceinline=True)
def _forbid_at(m, at, t, rule, number):
    """`number` rules for the record `at`; where the next rule stands."""
    for _ in range(number):
        later = at + m[rule]
        m[later] = max(m[later], t + m[rule + 1])
        rule += 2
    return rule


@njit(forceinline=True)
def forbid(m, command, t, c, bank):
    """`command` is issued to `bank` at cycle `t`: move the first allowed cycle of everything that must wait."""
    rank = bank >> m[RANK_SHIFT]
    at_bank, at_group = bank_at(m, c, bank), group_at(m, c, bank)
    at_rank, at_channel = rank_at(m, c, rank), channel_at(m, c)
    rules = m[RULE_AREA] + command * (RULE_HEAD + 2 * m[RULE_LENGTH])
    rule = rules + RULE_HEAD
    rule = _forbid_at(m, at_bank, t, rule, m[rules])
    rule = _forbid_at(m, at_group, t, rule, m[rules + 1])
    rule = _forbid_at(m, at_rank, t, rule, m[rules + 2])
    if m[rules + 3] > 0:
        for other in range(m[RANKS]):
            if other != rank:
                _forbid_at(m, rank_at(m, c, other), t, rule, m[rules + 3])
        rule += 2 * m[rules + 3]
    _forbid_at(m, at_channel, t, rule, m[rules + 4])
    if command == _ACT:
        depth = m[WINDOW_DEPTH]
        for w in range(m[N_WINDOWS]):
            window = m[WINDOW_AREA] + w * (2 + m[CHANNELS] * m[RANKS] * (depth + 1))
            ring = window + 2 + (c * m[RANKS] + rank) * (depth + 1)
            at = m[ring]
            m[ring + 1 + at] = t
            at += 1
            if at == m[window]:
                at = 0
            m[ring] = at
            # The oldest of the last activations that the window counts decides when the next may come.
            m[at_rank + _ACT] = max(m[at_rank + _ACT], m[ring + 1 + at] + m[window + 1])


@njit(forceinline=True)
def change_state(m, c, rank, t):
    """Count the time that `rank` has spent in the state it leaves at cycle `t`."""
    at = rank_at(m, c, rank)
    state = SELF_REFRESH
    if m[at + POWER] == 0:
        state = ACTIVE if m[at + OPEN_BANKS] > 0 else PRECHARGED
    elif m[at + POWER] == 1:
        state = PD_ACTIVE if m[at + OPEN_BANKS] > 0 else PD_PRECHARGED
    if t > m[at + STATE_FROM]:
        m[at + state] += t - m[at + STATE_FROM]
        m[at + STATE_FROM] = t


@njit(forceinline=True)
def put_due(m, c, unit):
    """Append to the channel's list of due refreshes; it is long enough for any that matter."""
    at = channel_at(m, c)
    if m[at + DUE_N] < m[DUE_SIZE]:
        m[m[DUE_AREA] + c * m[DUE_SIZE] + (m[at + DUE_FROM] + m[at + DUE_N]) % m[DUE_SIZE]] = unit
        m[at + DUE_N] += 1


@njit(forceinline=True)
def calm(m, c, first, number):
    """A refresh takes the threshold of refresh management off what its banks have counted."""
    if m[RFM_THRESHOLD] > 0:
        for bank in range(first, first + number):
            at = bank_at(m, c, bank) + ACTIVATIONS
            m[at] = max(0, m[at] - m[RFM_THRESHOLD])


@njit(forceinline=True)
def _count_row(m, c, at_bank, number, t):
    """One more activation of row `number`; beyond the threshold the device raises its alert."""
    at = channel_at(m, c)
    counts = m[ROW_COUNT_AREA]
    m[counts + number] += 1
    if m[counts + number] > m[counts + m[at_bank + HOTTEST]]:
        m[at_bank + HOTTEST] = number
    alert = False
    if m[at + ALERT] == 3:
        # So many activations must pass after a recovery before the next alert.
        m[at + ALERT_LEFT] -= 1
        if m[at + ALERT_LEFT] <= 0:
            m[at + ALERT] = 0
            for bank in range(m[RANKS] * m[BANKS]):
                record = bank_at(m, c, bank)
                if m[record + ROWS_END] > m[record + ROWS_FROM]:
                    alert = alert or m[counts + m[record + HOTTEST]] >= m[PRAC_THRESHOLD]
    elif m[at + ALERT] == 0:
        alert = m[counts + number] >= m[PRAC_THRESHOLD]
    if alert:
        m[at + ALERT] = 1
        m[at + ALERT_AT] = t + m[ALERT_CYCLES]
        m[at + N_ALERT] += 1


@njit(forceinline=True)
def _refresh_hottest(m, c, first):
    """Refresh management of a rank: each bank's most activated row starts anew."""
    at = channel_at(m, c)
    if m[PRAC_THRESHOLD] > 0:
        counts = m[ROW_COUNT_AREA]
        for bank in range(first, first + m[BANKS]):
            record = bank_at(m, c, bank)
            if m[record + ROWS_END] > m[record + ROWS_FROM]:
                m[counts + m[record + HOTTEST]] = 0
                for number in range(m[record + ROWS_FROM], m[record + ROWS_END]):
                    if m[counts + number] > m[counts + m[record + HOTTEST]]:
                        m[record + HOTTEST] = number
        if m[at + ALERT] == 2:
            m[at + ALERT_LEFT] -= 1
            if m[at + ALERT_LEFT] <= 0:
                m[at + ALERT] = 3
                m[at + ALERT_LEFT] = m[PRAC_DELAY]


@njit(forceinline=True)
def issue(m, command, t, c, bank, row, request):
    """Issue a command: timing, open rows, counters, log.  Column commands' requests are handled by the caller."""
    rank = bank >> m[RANK_SHIFT]
    forbid(m, command, t, c, bank)
    at_bank, at_rank, at_channel = bank_at(m, c, bank), rank_at(m, c, rank), channel_at(m, c)
    m[at_rank + IDLE_SINCE] = t
    m[at_channel + NEXT_COMMAND] = 0  # whatever waits must be asked anew
    if command == _ACT:
        if m[at_rank + OPEN_BANKS] == 0:
            change_state(m, c, rank, t)
        m[at_rank + OPEN_BANKS] += 1
        m[at_bank + ROW] = row
        m[at_channel + N_ACT] += 1
        if m[RFM_THRESHOLD] > 0:
            m[at_bank + ACTIVATIONS] += 1
            if m[at_bank + ACTIVATIONS] >= m[RFM_THRESHOLD] and m[at_rank + RFM_DUE] == 0:
                m[at_rank + RFM_DUE] = 1
                put_due(m, c, rank + MANAGEMENT)
        if m[PRAC_THRESHOLD] > 0:
            _count_row(m, c, at_bank, m[m[ROW_NUMBER_AREA] + request], t)
    elif command in (_PRE, _RDA, _WRA):
        if m[at_rank + OPEN_BANKS] == 1:
            change_state(m, c, rank, t)
        m[at_rank + OPEN_BANKS] -= 1
        m[at_bank + ROW] = -1
        m[at_bank + HITS] = 0
        if command == _PRE:
            m[at_channel + N_PRE] += 1
    elif command in (_RD, _WR):
        m[at_bank + HITS] += 1
    elif command == _REF:
        m[at_channel + N_REF] += 1
        calm(m, c, rank * m[BANKS], m[BANKS])
    elif command == _REFB:
        m[at_channel + N_REFB] += 1
        calm(m, c, bank, 1)
    elif command == _RFM:
        m[at_channel + N_RFM] += 1
        m[at_rank + RFM_DUE] = 0
        calm(m, c, rank * m[BANKS], m[BANKS])
        _refresh_hottest(m, c, rank * m[BANKS])
    logged = m[LOGGED]
    if logged < m[LOG_SIZE]:
        at = m[LOG_AREA] + logged * LOG_ENTRY
        m[at] = t
        m[at + 1] = c
        m[at + 2] = command
        m[at + 3] = bank
        m[at + 4] = row
        m[at + 5] = request
        m[LOGGED] = logged + 1
