"""What the cycle engine's kernels work on: one flat array of 64-bit integers, laid out in records.

The array starts with the setup and the run's counters; areas of equal records follow, for channels, ranks, bank groups,
banks, command queues, transaction queues, due refreshes, constraints, activation windows, requests, pending addresses,
the command log and fronts.  The kernels get the array's address alone, and find records by
:mod:`tierform.memory.cycle.records`.  Times are clock cycles.  A bank is numbered within
its channel: rank, then bank group, then bank.  Commands are numbered as in
:data:`tierform.memory.constraints.COMMANDS`.  Nothing here is seen outside the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

NEVER = 1 << 60
N_COMMANDS = 13
# Refresh policies: none, ranks in turn, all ranks at once, banks in turn, the same bank of all groups in turn.
SIMULTANEOUS, BY_BANK, SAME_BANK = 2, 3, 4

# ---- the head of the array: the setup (in the order of Setup's fields), areas, the run
(
    CHANNELS,
    RANKS,
    GROUPS,
    PER_GROUP,
    BANKS,
    QUEUES,
    PER_BANK,
    COMMAND_QUEUE,
    TRANSACTION_QUEUE,
    UNIFIED,
    READ_COMMAND,
    WRITE_COMMAND,
    HIT_LIMIT,
    DRAIN_LOW,
    DUAL,
    REFRESH,
    REFRESH_EVERY,
    REFRESH_UNITS,
    POWER_DOWN_AFTER,
    SELF_REFRESH_AFTER,
    READ_DELAY,
    WRITE_DELAY,
    ISSUE,
    RFM_THRESHOLD,
    PRAC_THRESHOLD,
    PRAC_RECOVERY,
    PRAC_DELAY,
    ALERT_CYCLES,
) = range(28)
(
    CHANNEL_AREA,
    RANK_AREA,
    GROUP_AREA,
    BANK_AREA,
    QUEUE_AREA,
    WAITING_AREA,
    DUE_AREA,
    RULE_AREA,
    RULE_LENGTH,
    WINDOW_AREA,
    N_WINDOWS,
    WINDOW_DEPTH,
    REQUEST_AREA,
    PENDING_AREA,
    LOG_AREA,
    LOG_SIZE,
    DUE_SIZE,
    QUEUE_RECORD,
    FRONT_AREA,
    FRONTS,
    ROW_NUMBER_AREA,
    ROW_COUNT_AREA,
    WAKE_AREA,
    BUCKET_AREA,
    ACCEPTED_AREA,
    COMPLETED_AREA,
) = range(28, 54)
OUTSTANDING, LAST_DONE, LOGGED, UNREAD, TURN_OF_FRONTS, LIMIT, FREE_PENDING = range(54, 61)
RANK_SHIFT, GROUP_SHIFT, HASH_SHIFT = 61, 62, 63  # bank >> shift: its rank, its bank group
FIELDS = 64  # position and width in the burst's number of ch, ra, bg, ba, ro, co
HEAD = 80
# Before a command's rules: how many of each scope (bank, group, rank, other ranks, channel), and two words a rule.
RULE_HEAD = 5
# `NEXT_COMMAND`: none of the channel's queues has a command before this cycle.  `RANKS_AT` to `WAITING_AT`: where the
# channel's ranks, groups, banks, queues and waiting transactions begin.
# ---- records; ranks, groups, banks and channels begin with the first allowed cycle of each command
(
    TURN,
    QUEUED,
    WAITING_READS,
    WAITING_WRITES,
    STUCK_READS,
    STUCK_WRITES,
    DRAINING,
    DIRTY,
    DUE_FROM,
    DUE_N,
    NEXT_REFRESH,
    NEXT_UNIT,
    HELD_RANK,
    HELD_BANK,
    BLOCKED_FRONTS,
    ALERT,
    ALERT_AT,
    ALERT_LEFT,
    NEXT_COMMAND,
    RANKS_AT,
    GROUPS_AT,
    BANKS_AT,
    QUEUES_AT,
    WAITING_AT,
) = range(N_COMMANDS, N_COMMANDS + 24)
(
    N_ACT,
    N_PRE,
    N_READ,
    N_WRITE,
    N_REF,
    N_REFB,
    READ_HITS,
    WRITE_HITS,
    N_SRE,
    N_PDE,
    N_DUAL,
    N_MOVED,
    N_RFM,
    N_ALERT,
) = range(WAITING_AT + 1, WAITING_AT + 15)
CHANNEL_RECORD = N_ALERT + 1
OPEN_BANKS, QUEUED_HERE, POWER, IDLE_SINCE, STATE_FROM, RFM_DUE = range(N_COMMANDS, N_COMMANDS + 6)
ACTIVE, PRECHARGED, PD_ACTIVE, PD_PRECHARGED, SELF_REFRESH = range(RFM_DUE + 1, RFM_DUE + 6)
# What the banks' queues want next: bit masks, and before which cycle none of them can have it.
OPEN_ROWS, READ_HIT, WRITE_HIT, CLOSE_ROW = range(SELF_REFRESH + 1, SELF_REFRESH + 5)
NOT_BEFORE = 4
RANK_RECORD = CLOSE_ROW + NOT_BEFORE + 1
GROUP_RECORD = N_COMMANDS
# The open row and its hits; activations since the last refresh management; the numbers of the rows that the trace asks
# for in this bank (from, end), and of those the one that was activated most; writes in the bank's own queue.
ROW, HITS, ACTIVATIONS, ROWS_FROM, ROWS_END, HOTTEST, WRITES_HERE = range(N_COMMANDS, N_COMMANDS + 7)
BANK_RECORD = N_COMMANDS + 7
# On the list of due refreshes, a rank's refresh management is its number and this.
MANAGEMENT = 1 << 32
ENTRY_REQUEST, ENTRY_BANK, ENTRY_ROW, ENTRY_BURST, ENTRY_WRITE = range(5)  # after the queue's count
ENTRY = 5
# A request's record is empty until it is accepted.  The cycles in which it was accepted and completed stand in areas of
# their own; zeros there say that neither has happened.
REQUEST_ROW, REQUEST_BANK, IS_WRITE, PENDING, SAME_BEFORE, BURST = range(6)
REQUEST = 6
# What waits at one address: the last read and the write, or -1; in a list of addresses of the same hash.
WAITING_READ, WAITING_WRITE, PENDING_ADDRESS, NEXT_PENDING = range(4)
PENDING_RECORD = 4
QUEUE_SHIFT = 32  # of a waiting transaction: where its command queue begins in the area; the request in the bits below
LOG_ENTRY = 6
# A front hands over its part of the trace in order: when next, which request, where it ends; the next of those that
# wait for the same channel, since when it waits, and for how long it has waited.
FRONT_AT, FRONT_NEXT, FRONT_END, WAITS_BEHIND, WAITS_SINCE, WAITED = range(6)
FRONT_RECORD = 6


@dataclass(frozen=True, slots=True)
class Setup:
    """Numbers that do not change during a run, in the order in which they head the array."""

    channels: int
    ranks: int
    groups: int
    per_group: int
    banks: int
    queues: int
    per_bank: int
    command_queue: int
    transaction_queue: int
    unified: int
    read_command: int
    write_command: int
    hit_limit: int
    drain_low: int
    dual: int
    refresh: int
    refresh_every: int
    refresh_units: int
    power_down_after: int
    self_refresh_after: int
    read_delay: int
    write_delay: int
    issue: int
    rfm_threshold: int
    prac_threshold: int
    prac_recovery: int
    prac_delay: int
    alert_cycles: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The different rows of a trace: `number` by request, numbered bank by bank; `ends` of each bank's numbers."""

    number: Int64
    ends: Int64


def allocate(
    setup: Setup,
    rules: list[list[tuple[int, int, int]]],
    windows: Int64,
    n_requests: int,
    fronts: Int64,
    bits: Int64,
    log: int,
    rows: Rows | None = None,
) -> Int64:
    """Fresh state for a run of `n_requests`.

    `fronts`: first request and end of each part of the trace that is handed over by itself.  `rows` where
    activations are counted row by row.
    `rules` by earlier command: (scope, later command, cycles); `windows`: (count, cycles) of activations in a rank;
    `bits`: position and width of the address fields.
    """
    g = setup
    all_ranks, longest = g.channels * g.ranks, max(1, max(map(len, rules)))
    depth = int(windows[:, 0].max()) if windows.shape[0] else 1
    due = max(64, 4 * g.ranks * g.banks)
    queue_record = 1 + ENTRY * g.command_queue
    in_flight = g.channels * (2 * g.transaction_queue + g.queues * g.command_queue)
    bucket_bits = in_flight.bit_length() + 1
    sizes = {
        CHANNEL_AREA: g.channels * CHANNEL_RECORD,
        RANK_AREA: all_ranks * RANK_RECORD,
        GROUP_AREA: all_ranks * g.groups * GROUP_RECORD,
        BANK_AREA: all_ranks * g.banks * BANK_RECORD,
        QUEUE_AREA: g.channels * g.queues * queue_record,
        WAITING_AREA: g.channels * 2 * g.transaction_queue,
        DUE_AREA: g.channels * due,
        RULE_AREA: N_COMMANDS * (RULE_HEAD + 2 * longest),
        WINDOW_AREA: windows.shape[0] * (2 + all_ranks * (depth + 1)),
        PENDING_AREA: in_flight * PENDING_RECORD,
        BUCKET_AREA: 1 << bucket_bits,
        WAKE_AREA: g.channels,
        LOG_AREA: log * LOG_ENTRY,
        FRONT_AREA: fronts.shape[0] * FRONT_RECORD,
        ROW_NUMBER_AREA: rows.number.size if rows else 0,
        ROW_COUNT_AREA: int(rows.ends[-1]) if rows else 0,
        REQUEST_AREA: n_requests * REQUEST,
        ACCEPTED_AREA: n_requests,
        COMPLETED_AREA: n_requests,
    }
    m = np.zeros(HEAD + sum(sizes.values()), np.int64)
    m[: len(fields(g))] = [getattr(g, field.name) for field in fields(g)]
    at = HEAD
    for area, size in sizes.items():
        m[area] = at
        at += size
    m[FIELDS : FIELDS + 12] = bits.reshape(-1)
    m[RULE_LENGTH], m[N_WINDOWS], m[WINDOW_DEPTH] = longest, windows.shape[0], depth
    m[RANK_SHIFT], m[GROUP_SHIFT] = g.banks.bit_length() - 1, g.per_group.bit_length() - 1
    m[LOG_SIZE], m[DUE_SIZE], m[QUEUE_RECORD], m[UNREAD] = log, due, queue_record, n_requests
    channels = view(m, CHANNEL_AREA, (g.channels, CHANNEL_RECORD))
    channels[:, NEXT_REFRESH] = g.refresh_every if g.refresh else NEVER
    at_once = bool(g.power_down_after or g.self_refresh_after)
    view(m, WAKE_AREA, (g.channels, 1))[:, 0] = 0 if at_once else channels[:, NEXT_REFRESH]
    channels[:, HELD_RANK] = channels[:, HELD_BANK] = channels[:, BLOCKED_FRONTS] = -1
    channel = np.arange(g.channels)
    for begin, area, each in (
        (RANKS_AT, RANK_AREA, g.ranks * RANK_RECORD),
        (GROUPS_AT, GROUP_AREA, g.ranks * g.groups * GROUP_RECORD),
        (BANKS_AT, BANK_AREA, g.ranks * g.banks * BANK_RECORD),
        (QUEUES_AT, QUEUE_AREA, g.queues * queue_record),
        (WAITING_AT, WAITING_AREA, 2 * g.transaction_queue),
    ):
        channels[:, begin] = m[area] + channel * each
    banks = view(m, BANK_AREA, (all_ranks * g.banks, BANK_RECORD))
    banks[:, ROW] = -1
    if rows:
        m[m[ROW_NUMBER_AREA] : m[ROW_NUMBER_AREA] + rows.number.size] = rows.number
        banks[:, ROWS_END] = rows.ends
        banks[1:, ROWS_FROM] = rows.ends[:-1]
        banks[:, HOTTEST] = banks[:, ROWS_FROM]
    table = view(m, RULE_AREA, (N_COMMANDS, RULE_HEAD + 2 * longest))
    for command, entries in enumerate(rules):
        for k, (scope, later, cycles) in enumerate(sorted(entries)):
            table[command, scope] += 1
            table[command, RULE_HEAD + 2 * k : RULE_HEAD + 2 * k + 2] = later, cycles
    for w in range(windows.shape[0]):
        base = int(m[WINDOW_AREA]) + w * (2 + all_ranks * (depth + 1))
        m[base : base + 2] = windows[w]
        m[base + 2 : base + 2 + all_ranks * (depth + 1)].reshape(all_ranks, depth + 1)[:, 1:] = -NEVER
    view(m, BUCKET_AREA, (1 << bucket_bits, 1))[:] = -1
    m[HASH_SHIFT] = 64 - bucket_bits
    pending = view(m, PENDING_AREA, (in_flight, PENDING_RECORD))
    pending[:-1, NEXT_PENDING] = np.arange(1, in_flight) * PENDING_RECORD + m[PENDING_AREA]
    pending[-1, NEXT_PENDING] = -1
    m[FREE_PENDING] = m[PENDING_AREA]
    m[FRONTS] = fronts.shape[0]
    records = view(m, FRONT_AREA, (fronts.shape[0], FRONT_RECORD))
    records[:, FRONT_NEXT : FRONT_END + 1] = fronts
    records[:, WAITS_BEHIND] = -1
    return m


def view(m: Int64, area: int, shape: tuple[int, int]) -> Int64:
    """One area of the array as a table."""
    at = int(m[area])
    return m[at : at + shape[0] * shape[1]].reshape(shape)
