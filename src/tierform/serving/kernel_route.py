"""Which replica gets a request, in compiled code: the routers that need no Python."""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_blocks import look_up
from tierform.serving.state import (
    ADAPTER_AWARE,
    C_RANDOM,
    C_ROUND,
    C_ROUTER,
    CLOSED,
    E_BLOCK_SIZE,
    E_CACHING,
    LEAST_LOADED,
    NONE,
    POOL,
    PREFIX_AWARE,
    PROMPT,
    ROUND_ROBIN,
    TWO_CHOICES,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _random(counters, below):  # type: ignore[no-untyped-def]
    """A number below `below` (minimal standard generator, Park and Miller, CACM 31, 1988): it never overflows."""
    number = (counters[C_RANDOM] % 2147483646 + 1) * 48271 % 2147483647
    counters[C_RANDOM] = number
    return number % below


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _least(load, takes):  # type: ignore[no-untyped-def]
    best = CLOSED
    for replica in range(len(load)):
        if (best < 0 or load[replica] < load[best]) and takes[replica] != 0:
            best = replica
    return best


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _cached_tokens(run, requests, replicas, blocks, logs, request, replica):  # type: ignore[no-untyped-def]
    """Tokens of the prompt that the replica has in its cache."""
    engine = run.engines[replicas.rows[replica, POOL]]
    if engine[E_CACHING] == 0:
        return 0
    size = engine[E_BLOCK_SIZE]
    most = max(0, min((requests.rows[request, PROMPT] - 1) // size, requests.shared[request]))
    hits, _ = look_up(run.counters, requests, blocks, replica, request, most, logs.found)
    return hits * size


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def route(run, requests, replicas, blocks, lists, logs, request):  # type: ignore[no-untyped-def]
    """The replica of a request, NONE: ask Python, or CLOSED: there is none that takes it."""
    counters, load = run.counters, lists.load
    number = len(load)
    takes = lists.takes[1 if requests.given[request] > 0 else 0]
    least = _least(load, takes)
    if least < 0 or number == 1 or counters[C_ROUTER] == LEAST_LOADED:
        return least
    if counters[C_ROUTER] == ROUND_ROBIN:
        while True:
            chosen = counters[C_ROUND] % number
            counters[C_ROUND] += 1
            if takes[chosen] != 0:
                return chosen
    if counters[C_ROUTER] == TWO_CHOICES:
        one = _random(counters, number)
        other = _random(counters, number - 1)
        if other >= one:
            other = other + 1
        first, second = takes[one] != 0, takes[other] != 0
        if not first and not second:
            return least
        if not second:
            return one
        if not first or load[other] < load[one] or (load[other] == load[one] and other < one):
            return other
        return one
    if counters[C_ROUTER] == PREFIX_AWARE:
        # The most cached tokens among replicas that are not much busier than the least busy one.
        best, most = NONE, -1
        for replica in range(number):
            if load[replica] > 2 * load[least] + 4 or takes[replica] == 0:
                continue
            cached = _cached_tokens(run, requests, replicas, blocks, logs, request, replica)
            if cached > most or (cached == most and load[replica] < load[best]):
                best, most = replica, cached
        return best
    if counters[C_ROUTER] == ADAPTER_AWARE:
        # One that has the adapter in memory, if it is not much busier than the least busy one; else that one.
        best = NONE
        for replica in range(number):
            if load[replica] > 2 * load[least] + 4 or takes[replica] == 0:
                continue
            for slot in range(replicas.adapters.shape[1]):
                if replicas.adapters[replica, slot, 0] == requests.adapter[request] and (
                    best == NONE or load[replica] < load[best]
                ):
                    best = replica
        return best if best != NONE else least
    return NONE
