"""Requests come, move and leave, in compiled code.

A request comes by itself, or *later*: after the one before it in its session and a time to think, after its keys and
values went to another replica, or again because its replica failed.  Those that come later stand in a heap by time
(of equal times the lower number first), at most once each.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_ahead import catch_up
from tierform.serving.kernel_blocks import give_back
from tierform.serving.kernel_heap import set_event
from tierform.serving.kernel_queue import pop, put
from tierform.serving.kernel_schedule import settle
from tierform.serving.state import (
    AHEAD,
    AWAITED,
    B_AFTER,
    B_BEFORE,
    B_GROUP_COUNT,
    B_GROUP_FREE,
    B_PLACE,
    B_TWIN_AFTER,
    B_TWIN_BEFORE,
    B_USES,
    BUSY_NS,
    C_LATER,
    C_MARKED,
    C_MOVE_NS,
    C_MOVE_TOKEN_PS,
    C_MOVES,
    C_REFUSED,
    CACHED,
    CHIP_FREE,
    COMING,
    COMPUTED,
    CROSSING,
    E_BLOCK_SIZE,
    E_BLOCKS,
    E_CACHING,
    E_DEPTH,
    E_DRAFTS,
    E_LENGTH,
    E_LOOKAHEAD,
    E_SCHEDULER,
    E_STAGES,
    E_WATERMARK,
    GROUPS_FREE,
    HEAD,
    HOST_TOKENS,
    IN_FLIGHT,
    INSERTIONS,
    LATER,
    LINK_FREE,
    LOAD_TOKENS,
    LOADING,
    N_RUNNING,
    NONE,
    ORCA,
    OUTPUT,
    PLANNED,
    POOL,
    PREEMPTIONS,
    PROMPT,
    REFUSED_BLOCKS,
    REFUSED_EMPTY,
    REFUSED_LENGTH,
    REFUSED_REPLICAS,
    RELEASES,
    REPLICA,
    STATE,
    TOKENS,
    VLLM,
    WAITING,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _sooner(lists, one, other):  # type: ignore[no-untyped-def]
    first, second = lists.later_at[one], lists.later_at[other]
    return first < second or (first == second and lists.later[one] < lists.later[other])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _swap(lists, one, other):  # type: ignore[no-untyped-def]
    when, request = lists.later_at[one], lists.later[one]
    lists.later_at[one], lists.later[one] = lists.later_at[other], lists.later[other]
    lists.later_at[other], lists.later[other] = when, request


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def come_later(counters, lists, request, when):  # type: ignore[no-untyped-def]
    """The request comes at `when`."""
    at = counters[C_LATER]
    counters[C_LATER] += 1
    lists.later[at] = request
    lists.later_at[at] = when
    while at > 0 and _sooner(lists, at, (at - 1) >> 1):
        _swap(lists, at, (at - 1) >> 1)
        at = (at - 1) >> 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def take_later(counters, lists):  # type: ignore[no-untyped-def]
    """The request that comes first leaves the heap."""
    request = lists.later[0]
    counters[C_LATER] -= 1
    number = counters[C_LATER]
    lists.later[0] = lists.later[number]
    lists.later_at[0] = lists.later_at[number]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= number:
            break
        if child + 1 < number and _sooner(lists, child + 1, child):
            child += 1
        if not _sooner(lists, child, at):
            break
        _swap(lists, child, at)
        at = child
    return request


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def follow_up(run, requests, lists, request, now):  # type: ignore[no-untyped-def]
    """A request is done: the next of its session comes after a time to think."""
    following = requests.follow[request]
    if following != NONE:
        come_later(run.counters, lists, following, now + requests.think[following])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def refusal(engine, prompt, output):  # type: ignore[no-untyped-def]
    """Why an engine can never serve a request of these lengths, or 0."""
    if prompt <= 0:
        return REFUSED_EMPTY
    if prompt + output > engine[E_LENGTH]:
        return REFUSED_LENGTH
    tokens = prompt + max(output - 1, 0)
    if engine[E_DRAFTS] > 0 and output > 1:  # places for drafts of the steps in flight
        tokens += engine[E_LOOKAHEAD] + engine[E_DEPTH] * engine[E_DRAFTS]
        tokens = min(tokens, engine[E_LENGTH])
    usable = engine[E_BLOCKS] - (1 if engine[E_SCHEDULER] == VLLM else 0)
    if engine[E_SCHEDULER] == ORCA:
        tokens = engine[E_LENGTH]
    if (tokens + engine[E_BLOCK_SIZE] - 1) // engine[E_BLOCK_SIZE] + engine[E_WATERMARK] > usable:
        return REFUSED_BLOCKS
    return 0


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def mark(run, replicas, lists, replica):  # type: ignore[no-untyped-def]
    """The replica plans a step at this moment."""
    if replicas.rows[replica, PLANNED] != 0:
        return
    replicas.rows[replica, PLANNED] = 1
    lists.marked[run.counters[C_MARKED]] = replica
    run.counters[C_MARKED] += 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def refuse(run, requests, lists, request, reason, now):  # type: ignore[no-untyped-def]
    """The request is not served; its session goes on."""
    requests.rows[request, STATE] = reason
    run.counters[C_REFUSED] += 1
    follow_up(run, requests, lists, request, now)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def arrive(run, requests, replicas, blocks, lists, request, replica, now):  # type: ignore[no-untyped-def]
    """A request reaches its replica, and waits there or is refused."""
    rows = requests.rows
    if requests.arrival[request] == LATER:
        requests.arrival[request] = now
    if replica < 0:
        refuse(run, requests, lists, request, REFUSED_REPLICAS, now)
        return
    row = replicas.rows[replica]
    engine = run.engines[row[POOL]]
    rows[request, REPLICA] = replica
    reason = refusal(engine, rows[request, PROMPT], rows[request, OUTPUT])
    if reason != 0:
        refuse(run, requests, lists, request, reason, now)
        return
    if row[AHEAD] > 0:
        catch_up(run, requests, replicas, blocks, lists, replica, now)
    rows[request, STATE] = WAITING
    if rows[request, TOKENS] == 0:
        rows[request, TOKENS] = rows[request, PROMPT]
    lists.load[replica] += 1
    row[LOAD_TOKENS] += rows[request, PROMPT] + rows[request, OUTPUT]
    put(rows, requests.order, row, engine, request, False)
    if row[IN_FLIGHT] == 0:
        mark(run, replicas, lists, replica)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def move_on(run, requests, replicas, blocks, lists, replica, request, now):  # type: ignore[no-untyped-def]
    """A request leaves its replica after its first token; its keys and values go over the replica's link, in turn."""
    rows, row, counters = requests.rows, replicas.rows[replica], run.counters
    engine = run.engines[row[POOL]]
    settle(requests, replicas, replica, request, False)
    give_back(counters, rows, lists, blocks, row, replica, request, engine[E_CACHING] != 0)
    held = rows[request, TOKENS] - 1
    requests.given[request] = held
    rows[request, COMPUTED] = 0
    rows[request, STATE] = COMING
    lists.load[replica] -= 1
    row[LOAD_TOKENS] -= rows[request, PROMPT] + rows[request, OUTPUT]
    start = max(now, row[LINK_FREE])
    row[LINK_FREE] = start + counters[C_MOVE_NS] + counters[C_MOVE_TOKEN_PS] * held // 1000
    counters[C_MOVES] += held
    come_later(counters, lists, request, row[LINK_FREE])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def abandon(run, requests, replicas, blocks, lists, replica, now):  # type: ignore[no-untyped-def]
    """A replica fails: the step in flight and all it holds is lost; its requests come again now, their tokens kept."""
    rows, row, counters = requests.rows, replicas.rows[replica], run.counters
    engine = run.engines[row[POOL]]
    caching = engine[E_CACHING] != 0
    running = replicas.running[replica]
    for place in range(row[N_RUNNING]):
        request = running[place]
        settle(requests, replicas, replica, request, False)
        give_back(counters, rows, lists, blocks, row, replica, request, caching)
        _again(counters, rows, requests, lists, request, now)
    row[N_RUNNING] = 0
    while row[HEAD] != NONE:
        _again(counters, rows, requests, lists, pop(rows, requests.order, row, engine), now)
    if row[CHIP_FREE] > now:
        row[BUSY_NS] -= row[CHIP_FREE] - now
    row[CHIP_FREE] = now
    row[IN_FLIGHT] = 0
    row[LOAD_TOKENS] = 0
    row[HOST_TOKENS] = 0
    row[CROSSING] = 0
    row[LOADING] = 0
    for slot in range(replicas.adapters.shape[1]):
        replicas.adapters[replica, slot, 0] = NONE
    lists.load[replica] = 0
    for slot in range(replicas.n_sampled.shape[1]):
        for place in range(replicas.n_sampled[replica, slot]):
            if engine[E_STAGES] > 1:
                requests.flying[replicas.sampled[replica, slot, place]] = 0
        replicas.n_sampled[replica, slot] = 0
    for stage in range(replicas.stage_free.shape[1]):
        replicas.stage_free[replica, stage] = min(replicas.stage_free[replica, stage], now)
    set_event(replicas.rows, lists.heap, lists.place, replica, LATER)
    if caching:
        forget_all(blocks, row, replica)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _again(counters, rows, requests, lists, request, now):  # type: ignore[no-untyped-def]
    rows[request, COMPUTED] = 0
    rows[request, AWAITED] = 0
    rows[request, CACHED] = 0
    rows[request, PREEMPTIONS] += 1
    rows[request, STATE] = COMING
    requests.given[request] = 0
    come_later(counters, lists, request, now)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def forget_all(blocks, row, replica):  # type: ignore[no-untyped-def]
    """No block holds anything any more, and all are free."""
    node = blocks.node[replica]
    number = len(node)
    for block in range(number):
        node[block, B_AFTER] = (block + 1) % number
        node[block, B_BEFORE] = (block - 1) % number
        node[block, B_USES] = 0
        node[block, B_PLACE] = NONE
        node[block, B_TWIN_AFTER] = NONE
        node[block, B_TWIN_BEFORE] = NONE
        node[block, B_GROUP_COUNT] = 0
        node[block, B_GROUP_FREE] = block
    row[GROUPS_FREE] = number
    row[RELEASES] += 1
    row[INSERTIONS] += 1
    for place in range(blocks.heads.shape[1]):
        blocks.heads[replica, place] = NONE
    for slot in range(blocks.table.shape[1]):
        blocks.table[replica, slot] = NONE
