# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Kernels of the controller's command queues: which command is next, and what serving it does.

With one command queue per bank, four bit masks per rank say which banks want to open a row, read or write in the open
row, or close it.  A cycle then asks only for the kinds that the rank's shared timing allows, and takes the first ready
bank in turn.  Within a queue, the first ready entry goes: row hits may overtake, a conflict closes the row only for the
oldest entry of its bank, when no hit waits or the row has had its share of hits.
"""

from __future__ import annotations

from numba import njit

from tierform.memory.cycle.bits import lowest_bit
from tierform.memory.cycle.commands import issue, ready_at
from tierform.memory.cycle.records import (
    bank_at,
    channel_at,
    completed_at,
    group_at,
    queue_at,
    rank_at,
    release_pending,
    request_at,
)
from tierform.memory.cycle.state import (
    BANK_RECORD,
    BANKS,
    CLOSE_ROW,
    DIRTY,
    ENTRY,
    ENTRY_BANK,
    ENTRY_BURST,
    ENTRY_REQUEST,
    ENTRY_ROW,
    ENTRY_WRITE,
    GROUP_RECORD,
    GROUP_SHIFT,
    HELD_BANK,
    HELD_RANK,
    HIT_LIMIT,
    HITS,
    LAST_DONE,
    LIMIT,
    N_MOVED,
    N_READ,
    N_WRITE,
    NEVER,
    NEXT_COMMAND,
    NOT_BEFORE,
    OPEN_ROWS,
    OUTSTANDING,
    PENDING,
    PER_BANK,
    PER_GROUP,
    POWER,
    QUEUED,
    QUEUED_HERE,
    QUEUES,
    RANK_SHIFT,
    RANKS,
    READ_COMMAND,
    READ_DELAY,
    READ_HIT,
    READ_HITS,
    REFRESH,
    ROW,
    SAME_BANK,
    SAME_BEFORE,
    STUCK_READS,
    STUCK_WRITES,
    TURN,
    WAITING_READ,
    WAITING_WRITE,
    WRITE_COMMAND,
    WRITE_DELAY,
    WRITE_HIT,
    WRITE_HITS,
    WRITES_HERE,
)

_ACT, _PRE, _RD, _RDA, _WR, _WRA = range(6)


@njit(forceinline=True)
def classify(m, c, bank):
    """Renew what `bank`'s own queue wants next."""
    rank = bank >> m[RANK_SHIFT]
    bit = 1 << (bank - rank * m[BANKS])
    at_rank, at_bank, queue = rank_at(m, c, rank), bank_at(m, c, bank), queue_at(m, c, bank)
    opens, reads, writes, closes = 0, 0, 0, 0
    count = m[queue]
    if count > 0:
        row = m[at_bank + ROW]
        if row < 0:
            opens = bit
        else:
            for e in range(count):
                entry = queue + 1 + e * ENTRY
                if m[entry + ENTRY_ROW] == row:
                    if m[entry + ENTRY_WRITE] == 0:
                        reads = bit
                        if m[at_bank + WRITES_HERE] == 0:
                            break
                    elif writes == 0 and not _waits_for_read(m, queue, e):
                        writes = bit
                        if m[at_bank + WRITES_HERE] == count:
                            break
            # A write that waits for a read of its burst is a hit beside that read.
            if m[queue + 1 + ENTRY_ROW] != row and ((reads == 0 and writes == 0) or m[at_bank + HITS] >= m[HIT_LIMIT]):
                closes = bit
    _want(m, at_rank + OPEN_ROWS, bit, opens, m[at_bank + _ACT])
    _want(m, at_rank + READ_HIT, bit, reads, m[at_bank + m[READ_COMMAND]])
    _want(m, at_rank + WRITE_HIT, bit, writes, m[at_bank + m[WRITE_COMMAND]])
    _want(m, at_rank + CLOSE_ROW, bit, closes, m[at_bank + _PRE])


@njit(forceinline=True)
def classify_last(m, c, bank, queue, entry):
    """Renew what `bank`'s own queue wants next, after `entry` was appended."""
    number, at_bank, at_channel = m[queue], bank_at(m, c, bank), channel_at(m, c)
    row = m[at_bank + ROW]
    hit = row == m[entry + ENTRY_ROW]
    if number == 1 or hit:
        command = _ACT if row < 0 else _PRE
        if hit:
            command = m[READ_COMMAND] if m[entry + ENTRY_WRITE] == 0 else m[WRITE_COMMAND]
        m[at_channel + NEXT_COMMAND] = min(m[at_channel + NEXT_COMMAND], ready_at(m, command, c, bank))
    if number == 1:
        classify(m, c, bank)
    elif hit:
        rank = bank >> m[RANK_SHIFT]
        bit, at_rank = 1 << (bank - rank * m[BANKS]), rank_at(m, c, rank)
        if m[entry + ENTRY_WRITE] == 0:
            _want(m, at_rank + READ_HIT, bit, bit, m[at_bank + m[READ_COMMAND]])
        elif not _waits_for_read(m, queue, number - 1):
            _want(m, at_rank + WRITE_HIT, bit, bit, m[at_bank + m[WRITE_COMMAND]])
        if m[at_bank + HITS] < m[HIT_LIMIT]:
            m[at_rank + CLOSE_ROW] &= ~bit  # a hit waits, so the row stays open for it


@njit(forceinline=True)
def _want(m, at, bit, wanted, when):
    """Set or clear a bank's bit in the mask at `at`; it cannot have its wish before `when`."""
    m[at] = (m[at] & ~bit) | wanted
    if wanted != 0:
        m[at + NOT_BEFORE] = min(m[at + NOT_BEFORE], when)


@njit(forceinline=True)
def _waits_for_read(m, queue, e):
    burst = m[queue + 1 + e * ENTRY + ENTRY_BURST]
    for k in range(e):
        entry = queue + 1 + k * ENTRY
        if m[entry + ENTRY_BURST] == burst and m[entry + ENTRY_WRITE] == 0:
            return True
    return False


@njit(forceinline=True)
def _first_ready(m, c, q, t):
    """The first ready entry of queue `q`: (entry, command, cycle); entry -1 when none is ready before `cycle`."""
    soonest = NEVER
    queue = queue_at(m, c, q)
    count = m[queue]
    for e in range(count):
        entry = queue + 1 + e * ENTRY
        bank = m[entry + ENTRY_BANK]
        at_bank = bank_at(m, c, bank)
        row = m[at_bank + ROW]
        if row < 0:
            command = _ACT
        elif row == m[entry + ENTRY_ROW]:
            command = m[READ_COMMAND]
            if m[entry + ENTRY_WRITE] == 1:
                command = m[WRITE_COMMAND]
                if _waits_for_read(m, queue, e):
                    continue
        else:
            command = _PRE
            blocked = False
            for k in range(e):
                if m[queue + 1 + k * ENTRY + ENTRY_BANK] == bank:
                    blocked = True
                    break
            if not blocked and m[at_bank + HITS] < m[HIT_LIMIT]:
                for k in range(e + 1, count):
                    other = queue + 1 + k * ENTRY
                    if m[other + ENTRY_ROW] == row and m[other + ENTRY_BANK] == bank:
                        blocked = True
                        break
            if blocked:
                continue
        when = ready_at(m, command, c, bank)
        if when <= t:
            return e, command, t
        soonest = min(soonest, when)
        if command == _ACT and m[PER_BANK] == 1:
            break
    return -1, -1, soonest


@njit(forceinline=True)
def _ready_kind(m, c, rank, at_rank, at_channel, kind, command, t, found, soonest):
    """Add the banks of `rank` that want `kind` and are ready to `found`; else move `soonest` to when one will be."""
    mask = m[at_rank + kind]
    if mask != 0:
        shared = max(m[at_rank + command], m[at_channel + command], m[at_rank + kind + NOT_BEFORE])
        if shared > t:
            soonest = min(soonest, shared)
        else:
            first = rank * m[BANKS]
            banks, groups = bank_at(m, c, first) + command, group_at(m, c, first) + command
            shift = m[GROUP_SHIFT]
            soonest_here, ready = NEVER, 0
            while mask != 0:
                number = lowest_bit(mask)
                when = max(m[banks + number * BANK_RECORD], m[groups + (number >> shift) * GROUP_RECORD])
                if when <= t:
                    ready |= 1 << number
                else:
                    soonest_here = min(soonest_here, when)
                mask &= mask - 1
            # Waiting only grows longer, so this holds until a bank's wish changes.
            m[at_rank + kind + NOT_BEFORE] = t if ready != 0 else soonest_here
            found |= ready
            soonest = min(soonest, soonest_here)
    return found, soonest


@njit(forceinline=True)
def _ready_banks(m, c, rank, t, soonest):
    """The banks of `rank` with a command that is ready, as a mask, and when the next will be."""
    found = 0
    at_rank, at_channel = rank_at(m, c, rank), channel_at(m, c)
    if m[at_channel + HELD_RANK] == rank or m[at_rank + POWER] != 0:
        return found, soonest
    found, soonest = _ready_kind(m, c, rank, at_rank, at_channel, READ_HIT, m[READ_COMMAND], t, found, soonest)
    found, soonest = _ready_kind(m, c, rank, at_rank, at_channel, WRITE_HIT, m[WRITE_COMMAND], t, found, soonest)
    found, soonest = _ready_kind(m, c, rank, at_rank, at_channel, OPEN_ROWS, _ACT, t, found, soonest)
    found, soonest = _ready_kind(m, c, rank, at_rank, at_channel, CLOSE_ROW, _PRE, t, found, soonest)
    held = m[at_channel + HELD_BANK]
    if held >= 0 and held >> m[RANK_SHIFT] == rank:
        step = m[PER_GROUP] if m[REFRESH] == SAME_BANK else m[BANKS]
        for number in range(held % m[BANKS], m[BANKS], step):
            found &= ~(1 << number)
    return found, soonest


@njit(forceinline=True)
def choose(m, c, t):
    """The next command of channel `c`: (queue, entry, command, cycle); queue -1 when none is ready before `cycle`.

    Queues are asked in turn from the one after the last served.
    """
    soonest = NEVER
    at_channel = channel_at(m, c)
    start = m[at_channel + TURN] + 1 if m[at_channel + TURN] + 1 < m[QUEUES] else 0
    if m[PER_BANK] == 1:
        first = start >> m[RANK_SHIFT]
        rank = first
        found, soonest = _ready_banks(m, c, rank, t, soonest)
        before = found & ((1 << (start - rank * m[BANKS])) - 1)
        found ^= before
        while found == 0:
            rank += 1
            if rank == m[RANKS]:
                rank = 0
            if rank == first:
                found = before
                break
            found, soonest = _ready_banks(m, c, rank, t, soonest)
        if found == 0:
            return -1, -1, -1, soonest
        q = rank * m[BANKS] + lowest_bit(found)
        entry, command, when = _first_ready(m, c, q, t)
        return q, entry, command, when
    q = start
    for _ in range(m[QUEUES]):
        held = m[at_channel + HELD_BANK]
        free = m[at_channel + HELD_RANK] != q and (held < 0 or held >> m[RANK_SHIFT] != q)
        if m[queue_at(m, c, q)] > 0 and free and m[rank_at(m, c, q) + POWER] == 0:
            entry, command, when = _first_ready(m, c, q, t)
            if entry >= 0:
                return q, entry, command, when
            soonest = min(soonest, when)
        q += 1
        if q == m[QUEUES]:
            q = 0
    return -1, -1, -1, soonest


@njit(forceinline=True)
def serve(m, c, q, e, command, t):
    """Issue the chosen command; a column command finishes its requests and frees the entry."""
    queue, at_channel = queue_at(m, c, q), channel_at(m, c)
    entry = queue + 1 + e * ENTRY
    bank = m[entry + ENTRY_BANK]
    hit = 1 if m[bank_at(m, c, bank) + HITS] > 0 else 0
    issue(m, command, t, c, bank, m[entry + ENTRY_ROW], m[entry + ENTRY_REQUEST])
    if command != _ACT and command != _PRE:
        pending = m[request_at(m, m[entry + ENTRY_REQUEST]) + PENDING]
        if m[entry + ENTRY_WRITE] == 1:
            done = t + m[WRITE_DELAY]
            m[at_channel + N_WRITE] += 1
            m[at_channel + WRITE_HITS] += hit
            m[pending + WAITING_WRITE] = -1
            m[OUTSTANDING] -= 1
        else:
            m[at_channel + N_READ] += 1
            m[at_channel + READ_HITS] += hit
            done = t + m[READ_DELAY]
            k = m[pending + WAITING_READ]
            while k >= 0:
                m[completed_at(m, k)] = done
                m[OUTSTANDING] -= 1
                k = m[request_at(m, k) + SAME_BEFORE]
            m[pending + WAITING_READ] = -1
        release_pending(m, pending)
        m[LAST_DONE] = max(m[LAST_DONE], done)
        if m[LIMIT] < 0 or done <= m[LIMIT]:
            m[at_channel + N_MOVED] += 1
        count = m[queue] - 1
        m[queue] = count
        m[at_channel + QUEUED] -= 1
        m[rank_at(m, c, bank >> m[RANK_SHIFT]) + QUEUED_HERE] -= 1
        m[bank_at(m, c, bank) + WRITES_HERE] -= m[entry + ENTRY_WRITE]
        for k in range(entry, queue + 1 + count * ENTRY):
            m[k] = m[k + ENTRY]
        m[at_channel + DIRTY] = 1
        m[at_channel + STUCK_READS] = 0
        m[at_channel + STUCK_WRITES] = 0
    if m[PER_BANK] == 1:
        classify(m, c, bank)
