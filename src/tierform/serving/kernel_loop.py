"""The loop over events, in compiled code: steps that end, requests that arrive, steps that are planned.

At one moment, steps that end come first, then arrivals, then every replica that can plans its next step.  A replica
with synchronous scheduling has one step in flight; with asynchronous scheduling it plans the next one before the tokens
of the last return, so two.  The loop comes back to Python to let a log grow, to ask an oracle or a router written in
Python, or to let a user interrupt; called again, it goes on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from numba import njit

from tierform.serving.kernel_ahead import catch_up, look_ahead
from tierform.serving.kernel_blocks import give_back, keep
from tierform.serving.kernel_drafts import come_back, draft_ns
from tierform.serving.kernel_heap import set_event
from tierform.serving.kernel_log import record
from tierform.serving.kernel_move import arrive, come_later, follow_up, mark, move_on, take_later
from tierform.serving.kernel_oracle import (
    F_PREFILLS,
    F_SEQUENCES,
    F_TOKENS,
    H_KIND,
    OUTSIDE,
    step_cost,
)
from tierform.serving.kernel_queue import remove
from tierform.serving.kernel_route import route
from tierform.serving.kernel_schedule import plan, settle
from tierform.serving.state import (
    AHEAD,
    ASK_ORACLE,
    ASK_ROUTER,
    AWAITED,
    BUSY_NS,
    C_END,
    C_ENTRIES_LOGGED,
    C_FINISHED,
    C_HOPE,
    C_LATER,
    C_MARKED,
    C_MOST_PIECES,
    C_NEXT_ARRIVAL,
    C_NOW,
    C_OUT,
    C_PAUSE_AFTER,
    C_PAUSE_AT,
    C_PHASE,
    C_PIECES_LEFT,
    C_PREEMPTED_LOGGED,
    C_RECORD,
    C_REQUEST,
    C_ROUTER,
    C_STEPS,
    C_STEPS_LOGGED,
    CELLS,
    CHIP_FREE,
    CLOSED,
    COMPUTED,
    CROSSING,
    DONE,
    E_ASYNC,
    E_BLOCK_SIZE,
    E_BLOCKS,
    E_BUDGET,
    E_CACHING,
    E_DEPTH,
    E_DRAFT_ORACLE,
    E_DRAFTS,
    E_FIRST_NS,
    E_HOST_TOKEN_PS,
    E_LORA_NS,
    E_SEQUENCES,
    E_STAGES,
    EVENT_AT,
    FINISHED,
    FIRST_SLOT,
    FREE,
    GROW_LOG,
    GROW_PIECES,
    HOST_FREE,
    HOST_TOKENS,
    IN_FLIGHT,
    LATER,
    LOAD_TOKENS,
    LOADING,
    N_RUNNING,
    N_WAITING,
    NEXT,
    NONE,
    ORACLE,
    OUTPUT,
    OUTSIDE_ROUTER,
    PAUSE,
    PEAK_BLOCKS,
    PEAK_RUNNING,
    PLANNED,
    POOL,
    PREFILLS,
    PROMPT,
    ROLE,
    RUNNING,
    STATE,
    STEPS,
    TOKENS,
    TOKENS_DONE,
    WINDOW,
)

ARRIVALS, PLANNING, COSTED = range(3)  # where the loop goes on


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _finish(run, requests, replicas, blocks, lists, replica, now):  # type: ignore[no-untyped-def]
    """The tokens of the replica's oldest step return."""
    rows, row = requests.rows, replicas.rows[replica]
    engine = run.engines[row[POOL]]
    caching, waits, size = engine[E_CACHING] != 0, engine[E_ASYNC] != 0, engine[E_BLOCK_SIZE]
    slot, prefills = row[FIRST_SLOT], row[ROLE] == PREFILLS
    ended, got = 0, 0
    for place in range(replicas.n_sampled[replica, slot]):
        request = replicas.sampled[replica, slot, place]
        if rows[request, STATE] == FINISHED:  # with drafts of a step before this one
            continue
        tokens, end = rows[request, TOKENS], rows[request, PROMPT] + rows[request, OUTPUT]
        if tokens < end:
            if tokens == rows[request, PROMPT]:
                requests.first[request] = now
            more = 1 if engine[E_DRAFTS] == 0 else come_back(run, requests, engine, slot, request, end)
            tokens += more
            rows[request, TOKENS] = tokens
            got += more
        if waits:
            rows[request, AWAITED] -= 1
        if engine[E_STAGES] > 1:
            requests.flying[request] -= 1
        if tokens >= end:
            if rows[request, STATE] == RUNNING:
                settle(requests, replicas, replica, request, False)
                ended += 1
                give_back(run.counters, rows, lists, blocks, row, replica, request, caching)
            else:
                remove(rows, requests.order, row, engine, request)
                row[HOST_TOKENS] += min(0, requests.given[request])
                requests.given[request] = 0
            requests.last[request] = now
            rows[request, STATE] = FINISHED
            lists.load[replica] -= 1
            row[LOAD_TOKENS] -= rows[request, PROMPT] + rows[request, OUTPUT]
            run.counters[C_FINISHED] += 1
            follow_up(run, requests, lists, request, now)
        elif prefills and rows[request, STATE] == RUNNING:
            move_on(run, requests, replicas, blocks, lists, replica, request, now)
            ended += 1
        elif waits and caching and rows[request, STATE] == RUNNING:
            full = (rows[request, COMPUTED] - rows[request, AWAITED]) // size
            keep(run.counters, requests, lists, blocks, row, replica, request, full)
    row[TOKENS_DONE] += got
    if ended > 0:
        kept = 0
        running = replicas.running[replica]
        for place in range(row[N_RUNNING]):
            if rows[running[place], STATE] == RUNNING:
                running[kept] = running[place]
                kept += 1
        row[N_RUNNING] = kept
    replicas.n_sampled[replica, slot] = 0
    row[IN_FLIGHT] -= 1
    row[FIRST_SLOT] = (slot + 1) % engine[E_DEPTH]
    ends = replicas.until[replica, row[FIRST_SLOT]] if row[IN_FLIGHT] > 0 else LATER
    set_event(replicas.rows, lists.heap, lists.place, replica, ends)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _room(run, replicas, lists, logs, replica):  # type: ignore[no-untyped-def]
    """What must grow before the replica can plan a step, or DONE."""
    counters, row = run.counters, replicas.rows[replica]
    engine = run.engines[row[POOL]]
    if counters[C_RECORD] != 0:
        sequences = engine[E_SEQUENCES]
        if (
            counters[C_STEPS_LOGGED] >= len(logs.steps)
            or counters[C_ENTRIES_LOGGED] + sequences > len(logs.entries)
            or counters[C_PREEMPTED_LOGGED] + sequences > len(logs.preempted)
        ):
            return GROW_LOG
    if engine[E_CACHING] != 0:
        coming = min(row[N_WAITING], engine[E_SEQUENCES] - row[N_RUNNING])
        most = row[N_RUNNING] + engine[E_BUDGET] // (engine[E_BLOCK_SIZE] * CELLS) + 1
        if counters[C_PIECES_LEFT] < most + coming * counters[C_MOST_PIECES]:
            return GROW_PIECES
    return DONE


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _piped(free, now, duration, stages):  # type: ignore[no-untyped-def]
    """(start, duration, time of a stage) of a step that goes through equal stages, each when the one before is done."""
    share = max(1, duration // stages)
    end = now
    start = max(now, free[0])
    for stage in range(stages):
        end = max(end, free[stage]) + share
        free[stage] = end
    return start, end - start, share


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _book(run, requests, replicas, lists, logs, replica, duration):  # type: ignore[no-untyped-def]
    """The planned step goes to the chip: its time, its energy, shared by its tokens."""
    rows, row, counters, features = requests.rows, replicas.rows[replica], run.counters, logs.features
    engine = run.engines[row[POOL]]
    slot = (row[FIRST_SLOT] + row[IN_FLIGHT]) % engine[E_DEPTH]
    start = max(counters[C_NOW], row[CHIP_FREE])
    if replicas.stretch[replica] != 1.0:
        duration = max(1, int(duration * replicas.stretch[replica] + 0.5))
    if row[STEPS] == 0:  # while kernels are loaded the host launches them, and plans nothing
        duration += engine[E_FIRST_NS]
        row[HOST_FREE] = counters[C_NOW] + engine[E_FIRST_NS]
    if row[CROSSING] > 0 or row[LOADING] > 0:  # before the step, on the host's link
        duration += row[CROSSING] * engine[E_HOST_TOKEN_PS] // 1000 + row[LOADING] * engine[E_LORA_NS]
        last = len(logs.cost) - 1
        if last > 0:
            logs.cost[last] += row[CROSSING] * run.host_J[row[POOL], 0] + row[LOADING] * run.host_J[row[POOL], 1]
        row[CROSSING] = 0
        row[LOADING] = 0
    busy = duration
    if engine[E_STAGES] > 1:
        start, duration, busy = _piped(replicas.stage_free[replica], counters[C_NOW], duration, engine[E_STAGES])
    row[CHIP_FREE] = start + duration
    replicas.until[replica, slot] = start + duration
    row[IN_FLIGHT] += 1
    row[BUSY_NS] += busy
    row[STEPS] += 1
    counters[C_STEPS] += 1
    counters[C_END] = max(counters[C_END], start + duration)
    row[PEAK_RUNNING] = max(row[PEAK_RUNNING], row[N_RUNNING])
    row[PEAK_BLOCKS] = max(row[PEAK_BLOCKS], engine[E_BLOCKS] - row[FREE])
    if row[IN_FLIGHT] == 1:
        set_event(replicas.rows, lists.heap, lists.place, replica, start + duration)
    components = len(logs.cost) - 1
    if components > 0:
        joules = 0.0
        for column in range(components):
            joules += logs.cost[1 + column]
            replicas.energy[replica, column] += logs.cost[1 + column]
        share = joules / features[F_TOKENS]
        for entry in range(features[F_PREFILLS]):
            requests.energy[logs.chunk[entry, 0]] += (logs.chunk[entry, 1] - 1) * share
        if features[F_SEQUENCES] < row[N_RUNNING]:
            for place in range(row[N_RUNNING]):
                if rows[replicas.running[replica, place], NEXT] == 0:
                    requests.energy[replicas.running[replica, place]] -= share
        replicas.share[replica] += share
    if counters[C_RECORD] != 0:
        record(run, replicas, logs, replica, start, duration)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _fill(run, requests, replicas, blocks, lists, logs, replica):  # type: ignore[no-untyped-def]
    """Plan steps of a replica until as many are in flight as its engine allows; why it stopped."""
    row, counters = replicas.rows[replica], run.counters
    engine = run.engines[row[POOL]]
    at = run.oracle_at[row[ORACLE]]
    alone = counters[C_RECORD] == 0 and counters[C_PAUSE_AT] == LATER and counters[C_ROUTER] != OUTSIDE_ROUTER
    while row[IN_FLIGHT] < engine[E_DEPTH]:
        if row[HOST_FREE] > counters[C_NOW]:
            set_event(replicas.rows, lists.heap, lists.place, replica, row[HOST_FREE])
            break
        reason = _room(run, replicas, lists, logs, replica)
        if reason != DONE:
            return reason
        slot = (row[FIRST_SLOT] + row[IN_FLIGHT]) % engine[E_DEPTH]
        now = counters[C_NOW]
        out = plan(run, requests, replicas, blocks, lists, logs, replica, row[POOL], slot, logs.features, now)
        counters[C_OUT] = out
        if logs.features[F_TOKENS] == 0:
            if out > 0 and row[IN_FLIGHT] == 0:
                continue
            break
        if run.oracle[at + H_KIND] == OUTSIDE:
            return ASK_ORACLE
        duration = step_cost(run.oracle, at, logs.features, logs.chunk, logs.part, logs.cost)
        if engine[E_DRAFTS] > 0 and engine[E_DRAFT_ORACLE] >= 0:
            duration += draft_ns(run, requests, replicas, logs, replica, engine, slot)
        _book(run, requests, replicas, lists, logs, replica, duration)
        if alone and row[IN_FLIGHT] == engine[E_DEPTH]:
            look_ahead(run, requests, replicas, lists, logs, replica)
    return DONE


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _advance(run, requests, replicas, blocks, lists, logs, answer):  # type: ignore[no-untyped-def]
    """Go on until all is done or something is needed; `answer` is what was asked for (a replica, nanoseconds)."""
    counters = run.counters
    pending = answer
    number = len(lists.coming)
    steps_before = counters[C_STEPS]
    while True:
        if counters[C_PHASE] == ARRIVALS:
            again = counters[C_LATER] > 0 and lists.later_at[0] <= counters[C_NOW]
            place = counters[C_NEXT_ARRIVAL]
            if again or (place < number and requests.arrival[lists.coming[place]] <= counters[C_NOW]):
                request = lists.later[0] if again else lists.coming[place]
                counters[C_REQUEST] = request
                replica = pending
                pending = -1
                if replica == NONE:
                    replica = route(run, requests, replicas, blocks, lists, logs, request)
                    if replica == NONE:
                        return ASK_ROUTER
                if again:
                    take_later(counters, lists)
                else:
                    counters[C_NEXT_ARRIVAL] += 1
                if replica == CLOSED and counters[C_HOPE] != 0:
                    if requests.arrival[request] == LATER:
                        requests.arrival[request] = counters[C_NOW]
                    come_later(counters, lists, request, counters[C_PAUSE_AT] + 1)
                else:
                    arrive(run, requests, replicas, blocks, lists, request, replica, counters[C_NOW])
                continue
            counters[C_PHASE] = PLANNING
        if counters[C_PHASE] == COSTED:
            replica = lists.marked[counters[C_MARKED] - 1]
            _book(run, requests, replicas, lists, logs, replica, pending)
            pending = -1
            counters[C_PHASE] = PLANNING
        while counters[C_MARKED] > 0:
            replica = lists.marked[counters[C_MARKED] - 1]
            reason = _fill(run, requests, replicas, blocks, lists, logs, replica)
            if reason == ASK_ORACLE:
                counters[C_PHASE] = COSTED
            if reason != DONE:
                return reason
            counters[C_MARKED] -= 1
            replicas.rows[replica, PLANNED] = 0
        if counters[C_STEPS] - steps_before > counters[C_PAUSE_AFTER]:
            return PAUSE
        # The next moment at which anything happens.
        first = lists.heap[0]
        now = replicas.rows[first, EVENT_AT]
        if counters[C_NEXT_ARRIVAL] < number:
            now = min(now, requests.arrival[lists.coming[counters[C_NEXT_ARRIVAL]]])
        if counters[C_LATER] > 0:
            now = min(now, lists.later_at[0])
        if now == LATER:
            return DONE
        if now > counters[C_PAUSE_AT]:
            return WINDOW
        counters[C_NOW] = now
        while replicas.rows[lists.heap[0], EVENT_AT] == now:
            replica = lists.heap[0]
            row = replicas.rows[replica]
            if row[AHEAD] > 0:
                catch_up(run, requests, replicas, blocks, lists, replica, LATER)
            ends = replicas.until[replica, row[FIRST_SLOT]]
            if ends > now:  # the host is free to plan
                set_event(replicas.rows, lists.heap, lists.place, replica, ends)
            else:
                _finish(run, requests, replicas, blocks, lists, replica, now)
            mark(run, replicas, lists, replica)
        counters[C_PHASE] = ARRIVALS


def _compiled(sources):  # type: ignore[no-untyped-def]
    """The loop, kept by Numba under a key of its free variables: a hash of all files that decide what it does."""

    @njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
    def advance(run, requests, replicas, blocks, lists, logs, answer):  # type: ignore[no-untyped-def]
        if sources == 0:
            return DONE
        return _advance(run, requests, replicas, blocks, lists, logs, answer)

    return advance


def _hash() -> int:
    """Of the files of the loop; never 0."""
    found = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.glob("kernel_*.py")), Path(__file__).with_name("state.py")]:
        found.update(path.read_bytes())
    return 1 + int.from_bytes(found.digest()[:6], "big")


advance = _compiled(_hash())  # type: ignore[no-untyped-call]
