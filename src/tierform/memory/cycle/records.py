# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Where a record begins in the array of :mod:`tierform.memory.cycle.state`; `m` is the array's address."""

from __future__ import annotations

from numba import njit

from tierform.memory.cycle.state import (
    BANK_AREA,
    BANK_RECORD,
    BANKS,
    CHANNEL_AREA,
    CHANNEL_RECORD,
    FRONT_AREA,
    FRONT_RECORD,
    GROUP_AREA,
    GROUP_RECORD,
    GROUP_SHIFT,
    GROUPS,
    PENDING_AREA,
    QUEUE_AREA,
    QUEUE_RECORD,
    QUEUES,
    RANK_AREA,
    RANK_RECORD,
    RANKS,
    REQUEST,
    REQUEST_AREA,
    TRANSACTION_QUEUE,
    WAITING_AREA,
)


@njit(forceinline=True)
def channel_at(m, c):
    """The record of channel `c`."""
    return m[CHANNEL_AREA] + c * CHANNEL_RECORD


@njit(forceinline=True)
def rank_at(m, c, rank):
    """The record of a rank."""
    return m[RANK_AREA] + (c * m[RANKS] + rank) * RANK_RECORD


@njit(forceinline=True)
def group_at(m, c, bank):
    """The record of the bank group of `bank`."""
    return m[GROUP_AREA] + (c * m[RANKS] * m[GROUPS] + (bank >> m[GROUP_SHIFT])) * GROUP_RECORD


@njit(forceinline=True)
def bank_at(m, c, bank):
    """The record of a bank."""
    return m[BANK_AREA] + (c * m[RANKS] * m[BANKS] + bank) * BANK_RECORD


@njit(forceinline=True)
def queue_at(m, c, q):
    """The record of a command queue: its count, then its entries."""
    return m[QUEUE_AREA] + (c * m[QUEUES] + q) * m[QUEUE_RECORD]


@njit(forceinline=True)
def waiting_at(m, c, side):
    """Transactions waiting in channel `c` (request, its command queue's record): side 0 reads (or all), 1 writes."""
    return m[WAITING_AREA] + (c * 2 + side) * 2 * m[TRANSACTION_QUEUE]


@njit(forceinline=True)
def request_at(m, i):
    """The record of request `i`."""
    return m[REQUEST_AREA] + i * REQUEST


@njit(forceinline=True)
def pending_at(m, address):
    """What waits at an address: the last read, the write."""
    return m[PENDING_AREA] + address * 2


@njit(forceinline=True)
def front_at(m, f):
    """The record of a front."""
    return m[FRONT_AREA] + f * FRONT_RECORD
