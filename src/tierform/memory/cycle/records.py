# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Where a record begins in the array of :mod:`tierform.memory.cycle.state`; `m` is the array's address."""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.memory.cycle.state import (
    ACCEPTED_AREA,
    BANK_RECORD,
    BANKS_AT,
    BUCKET_AREA,
    CHANNEL_RECORD,
    COMPLETED_AREA,
    FREE_PENDING,
    FRONT_AREA,
    FRONT_RECORD,
    GROUP_RECORD,
    GROUP_SHIFT,
    GROUPS_AT,
    HASH_SHIFT,
    HEAD,
    NEXT_PENDING,
    PENDING_ADDRESS,
    QUEUE_RECORD,
    QUEUES_AT,
    RANK_RECORD,
    RANKS_AT,
    REQUEST,
    REQUEST_AREA,
    TRANSACTION_QUEUE,
    WAITING_AT,
    WAITING_READ,
    WAITING_WRITE,
    WAKE_AREA,
)


@njit(forceinline=True)
def channel_at(m, c):
    """The record of channel `c`."""
    return HEAD + c * CHANNEL_RECORD  # the first area


@njit(forceinline=True)
def rank_at(m, c, rank):
    """The record of a rank."""
    return m[channel_at(m, c) + RANKS_AT] + rank * RANK_RECORD


@njit(forceinline=True)
def group_at(m, c, bank):
    """The record of the bank group of `bank`."""
    return m[channel_at(m, c) + GROUPS_AT] + (bank >> m[GROUP_SHIFT]) * GROUP_RECORD


@njit(forceinline=True)
def bank_at(m, c, bank):
    """The record of a bank."""
    return m[channel_at(m, c) + BANKS_AT] + bank * BANK_RECORD


@njit(forceinline=True)
def queue_at(m, c, q):
    """The record of a command queue: its count, then its entries."""
    return m[channel_at(m, c) + QUEUES_AT] + q * m[QUEUE_RECORD]


@njit(forceinline=True)
def waiting_at(m, c, side):
    """Transactions waiting in channel `c`: side 0 reads (or all), 1 writes; a word each, see `QUEUE_SHIFT`."""
    return m[channel_at(m, c) + WAITING_AT] + side * m[TRANSACTION_QUEUE]


@njit(forceinline=True)
def request_at(m, i):
    """The record of request `i`."""
    return m[REQUEST_AREA] + i * REQUEST


@njit(forceinline=True)
def accepted_at(m, i):
    """Where the cycle stands in which request `i` was accepted."""
    return m[ACCEPTED_AREA] + i


@njit(forceinline=True)
def completed_at(m, i):
    """Where the cycle stands in which request `i` is done."""
    return m[COMPLETED_AREA] + i


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
