"""Which replica gets a request, in compiled code: the routers that need no Python."""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_blocks import find, key_of
from tierform.serving.state import C_RANDOM, C_ROUND, C_ROUTER, E_BLOCK_SIZE, E_CACHING, NONE, POOL, PROMPT

ROUND_ROBIN, LEAST_LOADED, TWO_CHOICES, PREFIX_AWARE, OUTSIDE_ROUTER = range(5)


@njit(cache=True, nogil=True)
def _random(counters, below):  # type: ignore[no-untyped-def]
    """A number below `below` (SplitMix64, Steele et al. 2014)."""
    counters[C_RANDOM] += -7046029254386353131
    mixed = counters[C_RANDOM]
    mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    mixed = mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)
    return (mixed & 0x7FFFFFFFFFFFFFFF) % below


@njit(cache=True, nogil=True)
def _least(load):  # type: ignore[no-untyped-def]
    best = 0
    for replica in range(1, len(load)):
        if load[replica] < load[best]:
            best = replica
    return best


@njit(cache=True, nogil=True)
def _cached_tokens(run, requests, replicas, blocks, request, replica):  # type: ignore[no-untyped-def]
    """Tokens of the prompt that the replica has in its cache."""
    engine = run.engines[replicas.rows[replica, POOL]]
    if engine[E_CACHING] == 0:
        return 0
    size = engine[E_BLOCK_SIZE]
    hits = 0
    for index in range((requests.rows[request, PROMPT] - 1) // size):
        key = key_of(run.counters, requests, request, index)
        if key < 0 or find(blocks.table_key[replica], blocks.table_block[replica], key) == NONE:
            break
        hits += 1
    return hits * size


@njit(cache=True, nogil=True)
def route(run, requests, replicas, blocks, lists, request):  # type: ignore[no-untyped-def]
    """The replica of a request, or -1: ask Python."""
    counters, load = run.counters, lists.load
    number = len(load)
    if number == 1:
        return 0
    if counters[C_ROUTER] == ROUND_ROBIN:
        chosen = counters[C_ROUND] % number
        counters[C_ROUND] += 1
        return chosen
    if counters[C_ROUTER] == LEAST_LOADED:
        return _least(load)
    if counters[C_ROUTER] == TWO_CHOICES:
        one = _random(counters, number)
        other = _random(counters, number - 1)
        other += other >= one
        return other if load[other] < load[one] or (load[other] == load[one] and other < one) else one
    if counters[C_ROUTER] == PREFIX_AWARE:
        # The most cached tokens among replicas that are not much busier than the least busy one.
        least = load[_least(load)]
        best, most = NONE, -1
        for replica in range(number):
            if load[replica] > 2 * least + 4:
                continue
            cached = _cached_tokens(run, requests, replicas, blocks, request, replica)
            if cached > most or (cached == most and load[replica] < load[best]):
                best, most = replica, cached
        return best
    return NONE
