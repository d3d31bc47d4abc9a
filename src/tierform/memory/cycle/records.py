# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Where a record begins in the array of :mod:`tierform.memory.cycle.state`; `m` is the array's address."""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.memory.cycle.state import (
    BANK_AREA,
    BANK_RECORD,
    BANKS,
    BUCKET_AREA,
    CHANNEL_AREA,
    CHANNEL_RECORD,
    FREE_PENDING,
    FRONT_AREA,
    FRONT_RECORD,
    GROUP_AREA,
    GROUP_RECORD,
    GROUP_SHIFT,
    GROUPS,
    HASH_SHIFT,
    NEXT_PENDING,
    PENDING_ADDRESS,
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
    WAITING_READ,
    WAITING_WRITE,
    WAKE_AREA,
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
    """Transactions waiting in channel `c`: side 0 reads (or all), 1 writes; a word each, see `QUEUE_SHIFT`."""
    return m[WAITING_AREA] + (c * 2 + side) * m[TRANSACTION_QUEUE]


@njit(forceinline=True)
def request_at(m, i):
    """The record of request `i`."""
    return m[REQUEST_AREA] + i * REQUEST


@njit(forceinline=True)
def wake_at(m, c):
    """Where the next cycle stands in which channel `c` has something to do."""
    return m[WAKE_AREA] + c


@njit(forceinline=True)
def _bucket(m, address):
    return m[BUCKET_AREA] + np.int64((np.uint64(address) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(m[HASH_SHIFT]))


@njit(forceinline=True)
def pending_at(m, address):
    """The record of what waits at an address, or -1."""
    at = m[_bucket(m, address)]
    while at >= 0 and m[at + PENDING_ADDRESS] != address:
        at = m[at + NEXT_PENDING]
    return at


@njit(forceinline=True)
def new_pending(m, address):
    """A record for an address at which nothing waits; there is one for each request that the queues can hold."""
    at, bucket = m[FREE_PENDING], _bucket(m, address)
    m[FREE_PENDING] = m[at + NEXT_PENDING]
    m[at + WAITING_READ] = -1
    m[at + WAITING_WRITE] = -1
    m[at + PENDING_ADDRESS] = address
    m[at + NEXT_PENDING] = m[bucket]
    m[bucket] = at
    return at


@njit(forceinline=True)
def release_pending(m, at):
    """Give a record back if nothing waits at its address any more."""
    if m[at + WAITING_READ] >= 0 or m[at + WAITING_WRITE] >= 0:
        return
    before = _bucket(m, m[at + PENDING_ADDRESS])
    while m[before] != at:
        before = m[before] + NEXT_PENDING
    m[before] = m[at + NEXT_PENDING]
    m[at + NEXT_PENDING] = m[FREE_PENDING]
    m[FREE_PENDING] = at


@njit(forceinline=True)
def front_at(m, f):
    """The record of a front."""
    return m[FRONT_AREA] + f * FRONT_RECORD
