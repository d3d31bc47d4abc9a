"""Steps of a replica that only goes on, taken together, in compiled code.

Between two moments at which something happens to it (a request comes or ends), a replica gives each of its running
requests one token a step.  Nothing of that is seen from outside, so the loop computes the times of
these steps at once and visits the replica when they are over.  Where a request comes to it earlier, the steps that have
ended by then are taken, and the rest is forgotten.  What comes out is the same, to the last bit, as step by step.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_blocks import take
from tierform.serving.kernel_heap import set_event
from tierform.serving.kernel_oracle import F_CONTEXTS, F_LONGEST, F_PREFILLS, F_SINGLES, step_cost
from tierform.serving.state import (
    AHEAD,
    AWAITED,
    BLOCKED_INSERTIONS,
    BLOCKED_RELEASES,
    BLOCKS,
    BUSY_NS,
    C_END,
    C_PIECES_LEFT,
    C_ROUTER,
    C_STEPS,
    CACHED,
    CELLS,
    CHIP_FREE,
    COMPUTED,
    E_ASYNC,
    E_BLOCK_SIZE,
    E_BLOCKS,
    E_BUDGET,
    E_CACHING,
    E_DRAFTS,
    E_POLICY,
    E_SEQUENCES,
    E_STAGES,
    FIRST_SLOT,
    FREE,
    HEAD,
    IN_FLIGHT,
    INSERTIONS,
    MOST_AHEAD,
    N_RUNNING,
    NONE,
    ORACLE,
    OUTPUT,
    PEAK_BLOCKS,
    PIECES_AHEAD,
    POOL,
    PREFILLS,
    PREFIX_AWARE,
    PRIORITY,
    PROMPT,
    RELEASES,
    ROLE,
    STEPS,
    TOKENS,
    TOKENS_DONE,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _steps_ahead(counters, requests, replicas, replica, engine):  # type: ignore[no-untyped-def]
    """How many further steps only give each running request a token for which it has, or finds, a place.

    Blocks whose content others may have are remembered as they fill up, and a router that looks into caches sees which
    content goes: then requests go on only as far as their blocks.  The pieces of lists for new blocks are set aside.
    """
    rows, row, running = requests.rows, replicas.rows[replica], replicas.running[replica]
    size, caching, waits = engine[E_BLOCK_SIZE], engine[E_CACHING] != 0, engine[E_ASYNC] != 0
    number, seen = row[N_RUNNING], caching and counters[C_ROUTER] == PREFIX_AWARE
    most, placed = MOST_AHEAD, MOST_AHEAD
    for place in range(number):
        request = running[place]
        computed, tokens, prompt = rows[request, COMPUTED], rows[request, TOKENS], rows[request, PROMPT]
        end = prompt + rows[request, OUTPUT]
        awaited = rows[request, AWAITED] - 1 if waits else 0
        if tokens <= prompt or computed < prompt or tokens + awaited != computed:
            return 0
        most = min(most, end - tokens - 1)
        if awaited > 0:
            most = min(most, end - computed - 2 + awaited)
        own = rows[request, BLOCKS] * size - computed
        if caching:
            own = min(own, (rows[request, CACHED] + 1) * size - tokens - 1)
            seen = seen or rows[request, CACHED] < requests.shared[request]
        placed = min(placed, own)
        if most < 2 or (seen and placed < 2):
            return 0
    if most <= placed:
        return most
    if seen:
        return placed
    taken, pieces = 0, 0
    for place in range(number):
        request = running[place]
        held = rows[request, BLOCKS]
        after = max(held, (rows[request, COMPUTED] + most + size - 1) // size)
        taken += after - held
        pieces += (after + CELLS - 1) // CELLS - (held + CELLS - 1) // CELLS
    if taken > row[FREE] or (caching and pieces > counters[C_PIECES_LEFT]):
        return placed
    if caching:
        counters[C_PIECES_LEFT] -= pieces
        row[PIECES_AHEAD] = pieces
    return most


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def look_ahead(run, requests, replicas, lists, logs, replica):  # type: ignore[no-untyped-def]
    """After a step was planned: compute those that only go on, and come back when they are over."""
    row, features = replicas.rows[replica], logs.features
    engine, number, depth = run.engines[row[POOL]], row[N_RUNNING], row[IN_FLIGHT]
    if features[F_PREFILLS] != 0 or features[F_SINGLES] != number or number >= engine[E_BUDGET]:
        return
    if engine[E_DRAFTS] > 0 or engine[E_STAGES] > 1 or engine[E_POLICY] == PRIORITY or row[ROLE] == PREFILLS:
        return
    blocked = row[BLOCKED_RELEASES] == row[RELEASES] and row[BLOCKED_INSERTIONS] == row[INSERTIONS]
    if row[HEAD] != NONE and number < engine[E_SEQUENCES] and not blocked:
        return
    sampled = replicas.sampled[replica]
    for slot in range(depth):
        if replicas.n_sampled[replica, slot] != number:
            return
    if depth == 2:
        for place in range(number):
            if sampled[0, place] != sampled[1, place]:
                return
    most = _steps_ahead(run.counters, requests, replicas, replica, engine)
    if most < 1:
        return
    at, components = run.oracle_at[row[ORACLE]], len(logs.cost) - 1
    stretch, end = replicas.stretch[replica], row[CHIP_FREE]
    visit = replicas.until[replica, row[FIRST_SLOT]] if depth == 1 else end
    for step in range(most):
        features[F_CONTEXTS] += number
        features[F_LONGEST] += 1
        duration = step_cost(run.oracle, at, features, logs.chunk, logs.part, logs.cost)
        if stretch != 1.0:
            duration = max(1, int(duration * stretch + 0.5))
        replicas.ahead[replica, step] = duration
        for column in range(components):
            replicas.ahead_J[replica, step, column] = logs.cost[1 + column]
        end += duration
        if step + depth <= most:
            visit = end
    row[AHEAD] = most
    set_event(replicas.rows, lists.heap, lists.place, replica, visit)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _go_on(counters, requests, replicas, blocks, lists, replica, engine, steps):  # type: ignore[no-untyped-def]
    """Each running request gets a token in each of so many steps, and the blocks for them in the steps' order."""
    rows, row, running = requests.rows, replicas.rows[replica], replicas.running[replica]
    size, caching, number, taken = engine[E_BLOCK_SIZE], engine[E_CACHING] != 0, row[N_RUNNING], 0
    for place in range(number):
        request = running[place]
        rows[request, TOKENS] += steps
        rows[request, COMPUTED] += steps
        taken += max(0, (rows[request, COMPUTED] + size - 1) // size - rows[request, BLOCKS])
    if caching:
        for step in range(steps if taken > 0 else 0):
            for place in range(number):
                request = running[place]
                if rows[request, COMPUTED] - steps + step >= rows[request, BLOCKS] * size:
                    take(counters, rows, lists, blocks, row, replica, request, 1)
        for place in range(number):
            request = running[place]
            full = min(rows[request, COMPUTED], rows[request, TOKENS]) // size
            rows[request, CACHED] = max(rows[request, CACHED], full)
        return
    row[FREE] -= taken
    for place in range(number if taken > 0 else 0):
        request = running[place]
        rows[request, BLOCKS] = max(rows[request, BLOCKS], (rows[request, COMPUTED] + size - 1) // size)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def catch_up(run, requests, replicas, blocks, lists, replica, before):  # type: ignore[no-untyped-def]
    """Take the steps ahead that end before this moment, and forget the others; LATER takes all."""
    row, counters = replicas.rows[replica], run.counters
    most, depth, first, number = row[AHEAD], row[IN_FLIGHT], row[FIRST_SLOT], row[N_RUNNING]
    row[AHEAD] = 0
    engine = run.engines[row[POOL]]
    components = replicas.ahead_J.shape[2]
    one, two = replicas.until[replica, first], row[CHIP_FREE]  # ends of the oldest step in flight and of the newest
    done = 0
    while done < most and one < before:
        duration = replicas.ahead[replica, done]
        row[BUSY_NS] += duration
        if components > 0:
            joules = 0.0
            for column in range(components):
                joules += replicas.ahead_J[replica, done, column]
                replicas.energy[replica, column] += replicas.ahead_J[replica, done, column]
            replicas.share[replica] += joules / number
        one = two if depth == 2 else two + duration
        two += duration
        done += 1
    counters[C_PIECES_LEFT] += row[PIECES_AHEAD]
    row[PIECES_AHEAD] = 0
    if done > 0:
        _go_on(counters, requests, replicas, blocks, lists, replica, engine, done)
    first = (first + done) % depth
    row[FIRST_SLOT], row[CHIP_FREE] = first, two
    replicas.until[replica, first] = one
    if depth == 2:
        replicas.until[replica, 1 - first] = two
    row[PEAK_BLOCKS] = max(row[PEAK_BLOCKS], engine[E_BLOCKS] - row[FREE])
    row[STEPS] += done
    row[TOKENS_DONE] += done * number
    counters[C_STEPS] += done
    counters[C_END] = max(counters[C_END], two)
    set_event(replicas.rows, lists.heap, lists.place, replica, one)


__all__ = ["catch_up", "look_ahead"]
