"""One step of the scheduler, in compiled code: who gets how many tokens, who is preempted, who is admitted.

vLLM's order (its first version of the engine's second generation, 0.19): running requests first, in the order of their
admission, each with what it lacks as far as the budget goes; where no block is free, the last running request (or the
one of the lowest priority) is preempted until there is one; then, if nobody was preempted, waiting requests while the
head of the queue fits.  ``sarathi`` serves decodes before chunks of prompts and reserves the whole prompt; ``orca``
reserves a block for every token that a request may ever have, and does not cut prompts.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_blocks import give_back, keep, keep_own, look_up, take, touch
from tierform.serving.kernel_host import adapter_slot, leave_adapter, swap_out
from tierform.serving.kernel_oracle import (
    F_CONTEXTS,
    F_LONGEST,
    F_PAIRS,
    F_PREFILLS,
    F_SAMPLED,
    F_SEQUENCES,
    F_SINGLES,
    F_TOKENS,
    FEATURES,
)
from tierform.serving.kernel_queue import pop, put
from tierform.serving.state import (
    ADAPTER_CLOCK,
    AWAITED,
    BLOCKED_INSERTIONS,
    BLOCKED_RELEASES,
    BLOCKS,
    C_HITS,
    C_LOADED,
    C_LOOKED_UP,
    C_PREEMPTIONS,
    CACHED,
    CHUNK_FIRST,
    CHUNK_LAST,
    COMPUTED,
    CROSSING,
    E_ASYNC,
    E_BLOCK_SIZE,
    E_BUDGET,
    E_CACHING,
    E_CHUNKED,
    E_DRAFTS,
    E_HOST_TOKENS,
    E_LENGTH,
    E_LOOKAHEAD,
    E_LORAS,
    E_POLICY,
    E_SCHEDULER,
    E_SEQUENCES,
    E_STAGES,
    E_THRESHOLD,
    E_WATERMARK,
    E_WHOLE,
    FREE,
    HEAD,
    HIT,
    HOST_TOKENS,
    INSERTIONS,
    LOADING,
    N_RUNNING,
    NEXT,
    NONE,
    ORCA,
    OUTPUT,
    PREEMPTED,
    PREEMPTIONS,
    PREFILLS,
    PRIORITY,
    PROMPT,
    RELEASES,
    ROLE,
    RUNNING,
    SARATHI,
    STATE,
    TOKENS,
    VLLM,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _choose(requests, request, new, features, chunk, sampled, n_sampled, slot, engine):  # type: ignore[no-untyped-def]
    """`new` tokens of the request are part of the step."""
    rows = requests.rows
    past = rows[request, COMPUTED]
    due = rows[request, TOKENS] + rows[request, AWAITED] - past
    drafts = max(0, new - due)
    rows[request, NEXT] = new
    features[F_TOKENS] += new
    features[F_SEQUENCES] += 1
    if new == 1:
        features[F_SINGLES] += 1
        features[F_CONTEXTS] += past + 1
        features[F_LONGEST] = max(features[F_LONGEST], past + 1)
    else:
        features[F_PAIRS] += new * past + new * (new + 1) // 2
    if new > 1 or past < rows[request, PROMPT]:
        entry = features[F_PREFILLS]
        chunk[entry, 0] = request
        chunk[entry, 1] = new
        chunk[entry, 2] = past
        chunk[entry, 3] = drafts
        features[F_PREFILLS] = entry + 1
    rows[request, COMPUTED] = past + new
    if new >= due:
        sampled[slot, n_sampled[slot]] = request
        n_sampled[slot] += 1
        features[F_SAMPLED] += 1 + drafts
        if engine[E_DRAFTS] > 0:
            requests.checked[request, slot] = drafts
            requests.drafts[request] = 0
        if engine[E_STAGES] > 1:
            requests.flying[request] += 1
        if engine[E_ASYNC] != 0:
            rows[request, AWAITED] += 1 + drafts
            if engine[E_DRAFTS] > 0:
                requests.drafts[request] = engine[E_DRAFTS]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _unchoose(requests, request, features, chunk, sampled, n_sampled, slot, engine):  # type: ignore[no-untyped-def]
    """A request that was part of the step is preempted after all (under a priority policy); gives its tokens back."""
    rows = requests.rows
    new = rows[request, NEXT]
    past = rows[request, COMPUTED] - new
    features[F_TOKENS] -= new
    features[F_SEQUENCES] -= 1
    if new == 1:
        features[F_SINGLES] -= 1
        features[F_CONTEXTS] -= past + 1
    else:
        features[F_PAIRS] -= new * past + new * (new + 1) // 2
    found = 0
    for entry in range(features[F_PREFILLS]):
        if chunk[entry, 0] != request:
            for column in range(4):
                chunk[found, column] = chunk[entry, column]
            found += 1
    features[F_PREFILLS] = found
    kept = 0
    for place in range(n_sampled[slot]):
        if sampled[slot, place] != request:
            sampled[slot, kept] = sampled[slot, place]
            kept += 1
    if kept < n_sampled[slot]:
        gone = 1 + (requests.checked[request, slot] if engine[E_DRAFTS] > 0 else 0)
        features[F_SAMPLED] -= gone
        if engine[E_STAGES] > 1:
            requests.flying[request] -= 1
        rows[request, AWAITED] = max(0, rows[request, AWAITED] - gone)
    n_sampled[slot] = kept
    return new


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _victim(order, arrival, running, number, policy):  # type: ignore[no-untyped-def]
    """The place of the request to preempt: the last admitted, or the last in rank."""
    if policy != PRIORITY:
        return number - 1
    worst = 0
    for place in range(1, number):
        one, other = running[place], running[worst]
        if order[one] > order[other] or (order[one] == order[other] and arrival[one] > arrival[other]):
            worst = place
    return worst


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def settle(requests, replicas, replica, request, entering):  # type: ignore[no-untyped-def]
    """A request enters or leaves the batch: its energy is the share of a token, summed over the steps in between."""
    share = replicas.share[replica]
    requests.energy[request] += -share if entering else share
    if not entering:
        leave_adapter(replicas.adapters, replica, requests.adapter[request])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _need(engine, request, rows):  # type: ignore[no-untyped-def]
    """Blocks that the request's tokens take."""
    tokens = rows[request, TOKENS]
    if engine[E_SCHEDULER] == ORCA:
        tokens = engine[E_LENGTH]
    return (tokens + engine[E_BLOCK_SIZE] - 1) // engine[E_BLOCK_SIZE]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def plan(run, requests, replicas, blocks, lists, logs, replica, pool, slot, features, now):  # type: ignore[no-untyped-def]
    """Plan one step into `slot`; `features` and the logs' scratch describe it.  Returns the number of preemptions."""
    rows, order = requests.rows, requests.order
    engine, row = run.engines[pool], replicas.rows[replica]
    running, sampled, n_sampled = replicas.running[replica], replicas.sampled[replica], replicas.n_sampled[replica]
    chunk, counters = logs.chunk, run.counters
    prefills = row[ROLE] == PREFILLS  # then a request leaves with its first token
    ranked = engine[E_POLICY] == PRIORITY  # then a request may have to leave a step again
    size, caching, waits = engine[E_BLOCK_SIZE], engine[E_CACHING] != 0, engine[E_ASYNC] != 0
    budget, threshold, policy = engine[E_BUDGET], engine[E_THRESHOLD], engine[E_POLICY]
    speculates = engine[E_DRAFTS] > 0
    for feature in range(FEATURES):
        features[feature] = 0
    n_sampled[slot] = 0
    out = 0
    stopped = False
    sampled_here, singles, contexts, longest = 0, 0, 0, 0  # of requests that only go on by one token
    for turn in range(2 if engine[E_SCHEDULER] == SARATHI else 1):
        place = 0
        while place < row[N_RUNNING] and not stopped:
            request = running[place]
            if engine[E_SCHEDULER] == SARATHI and (rows[request, COMPUTED] < rows[request, PROMPT]) != (turn == 1):
                place += 1
                continue
            if budget == 0:
                rows[request, NEXT] = 0
                place += 1
                continue
            computed, awaited = rows[request, COMPUTED], rows[request, AWAITED]
            new = rows[request, TOKENS] + awaited - computed
            if speculates:
                new += requests.drafts[request]
            if (
                new == 1
                and not speculates
                and computed < rows[request, BLOCKS] * size
                and (not caching or min(computed + 1, rows[request, TOKENS]) < (rows[request, CACHED] + 1) * size)
                and (
                    awaited == 0
                    or (not prefills and computed + 2 - awaited < rows[request, PROMPT] + rows[request, OUTPUT])
                )
                and computed >= rows[request, PROMPT]
                and not ranked
            ):
                # What nearly always happens: one more token, a place for it, and nothing else to do.
                rows[request, NEXT] = 1
                rows[request, COMPUTED] = computed + 1
                if waits:
                    rows[request, AWAITED] = awaited + 1
                singles += 1
                contexts += computed + 1
                longest = max(longest, computed + 1)
                sampled[slot, sampled_here] = request
                sampled_here += 1
                budget -= 1
                place += 1
                continue
            if awaited > 0 and (prefills or computed + 2 - awaited >= rows[request, PROMPT] + rows[request, OUTPUT]):
                new = 0
            if 0 < threshold < new:
                new = threshold
            new = min(new, budget, engine[E_LENGTH] - 1 - computed)
            if new <= 0:
                rows[request, NEXT] = 0
                place += 1
                continue
            n_sampled[slot] = sampled_here
            held = min(computed + new + engine[E_LOOKAHEAD], max(engine[E_LENGTH], computed + new))
            need = (held + size - 1) // size - rows[request, BLOCKS]
            while need > row[FREE]:
                at = _victim(order, requests.arrival, running, row[N_RUNNING], policy)
                victim = running[at]
                row[N_RUNNING] -= 1
                for later in range(at, row[N_RUNNING]):
                    running[later] = running[later + 1]
                if at < place and rows[victim, NEXT] > 0:  # one that was passed over does not move the place (as vLLM)
                    place -= 1
                    budget += _unchoose(requests, victim, features, chunk, sampled, n_sampled, slot, engine)
                if caching:
                    keep_own(counters, requests, lists, blocks, row, replica, victim)
                give_back(counters, rows, lists, blocks, row, replica, victim, caching)
                if engine[E_HOST_TOKENS] > 0:
                    swap_out(counters, requests, row, engine, victim)
                rows[victim, COMPUTED] = 0
                rows[victim, PREEMPTIONS] += 1
                rows[victim, STATE] = PREEMPTED
                settle(requests, replicas, replica, victim, False)
                put(rows, order, row, engine, victim, True)
                logs.out[out] = victim
                out += 1
                if victim == request:
                    stopped = True
                    break
            sampled_here = n_sampled[slot]
            if stopped:
                break
            if need > 0:
                if caching:
                    take(counters, rows, lists, blocks, row, replica, request, need)
                else:
                    rows[request, BLOCKS] += need
                    row[FREE] -= need
            if caching:
                full = min(computed + new, rows[request, TOKENS]) // size
                if full > rows[request, CACHED]:
                    keep(counters, requests, lists, blocks, row, replica, request, full)
            _choose(requests, request, new, features, chunk, sampled, n_sampled, slot, engine)
            sampled_here = n_sampled[slot]
            budget -= new
            place += 1
        for rest in range(place, row[N_RUNNING] if stopped else 0):
            rows[running[rest], NEXT] = 0
    n_sampled[slot] = sampled_here
    features[F_TOKENS] += singles
    features[F_SEQUENCES] += singles
    features[F_SINGLES] += singles
    features[F_SAMPLED] += singles
    features[F_CONTEXTS] += contexts
    features[F_LONGEST] = max(features[F_LONGEST], longest)
    counters[C_PREEMPTIONS] += out
    if out == 0:
        _admit(run, requests, replicas, blocks, lists, logs, replica, pool, slot, features, budget, now)
    return out


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _admit(run, requests, replicas, blocks, lists, logs, replica, pool, slot, features, budget, now):  # type: ignore[no-untyped-def]
    """Waiting requests enter the batch while the head of the queue fits."""
    rows, order = requests.rows, requests.order
    engine, row = run.engines[pool], replicas.rows[replica]
    size, caching, counters = engine[E_BLOCK_SIZE], engine[E_CACHING] != 0, run.counters
    spare = engine[E_WATERMARK]
    while row[HEAD] != NONE and budget > 0 and row[N_RUNNING] < engine[E_SEQUENCES]:
        request = row[HEAD]
        if row[BLOCKED_RELEASES] == row[RELEASES] and row[BLOCKED_INSERTIONS] == row[INSERTIONS]:
            break  # it did not fit before, and nothing that could help it happened since
        if engine[E_STAGES] > 1 and requests.flying[request] > 0:
            break  # it was preempted, and a step in flight still gives it a token
        tokens = rows[request, TOKENS]
        hits, unused = 0, 0
        swapped = max(0, -requests.given[request])
        given = min(abs(requests.given[request]), tokens - 1)
        adapter, slot_of = requests.adapter[request], NONE
        if adapter >= 0 and engine[E_LORAS] > 0:
            slot_of = adapter_slot(replicas.adapters, replica, adapter, engine[E_LORAS])
            if slot_of == NONE:
                break  # every place for adapters is in use
        if caching and given == 0:
            most = (tokens - 1) // size
            hits, unused = look_up(counters, requests, blocks, replica, request, most, logs.found)
        past = given if given > 0 else hits * size
        new = tokens - past
        if 0 < engine[E_THRESHOLD] < new:
            new = engine[E_THRESHOLD]
        if new > budget and engine[E_CHUNKED] == 0:
            break
        new = min(new, budget)
        at_once = _need(engine, request, rows)
        need = at_once - hits
        if (engine[E_WHOLE] != 0 or engine[E_SCHEDULER] != VLLM) and need + unused + spare > row[FREE]:
            row[BLOCKED_RELEASES] = row[RELEASES]
            row[BLOCKED_INSERTIONS] = row[INSERTIONS]
            break
        if engine[E_SCHEDULER] == VLLM:
            need = (past + new + size - 1) // size - hits
        if need + unused + spare > row[FREE]:
            break
        pop(rows, order, row, engine)
        if caching:
            rows[request, CHUNK_FIRST] = NONE
            rows[request, CHUNK_LAST] = NONE
            touch(counters, rows, lists, blocks, row, replica, request, logs.found, hits)
            rows[request, CACHED] = hits
            take(counters, rows, lists, blocks, row, replica, request, need)
        else:
            rows[request, BLOCKS] = need
            row[FREE] -= need
        rows[request, COMPUTED] = past
        rows[request, STATE] = RUNNING
        requests.given[request] = 0
        row[HOST_TOKENS] -= swapped
        row[CROSSING] += given if swapped > 0 else 0
        if slot_of != NONE:
            place = replicas.adapters[replica, slot_of]
            if place[0] != adapter:
                place[0] = adapter
                row[LOADING] += 1
                counters[C_LOADED] += 1
            row[ADAPTER_CLOCK] += 1
            place[1] += 1
            place[2] = row[ADAPTER_CLOCK]
        if rows[request, HIT] < 0:
            rows[request, HIT] = past
            requests.scheduled[request] = now
            counters[C_LOOKED_UP] += tokens
            counters[C_HITS] += past
        replicas.running[replica, row[N_RUNNING]] = request
        row[N_RUNNING] += 1
        settle(requests, replicas, replica, request, True)
        if caching:
            full = min(past + new, tokens) // size
            if full > hits:
                keep(counters, requests, lists, blocks, row, replica, request, full)
        if engine[E_DRAFTS] > 0:
            requests.drafts[request] = 0
        sampled, n_sampled = replicas.sampled[replica], replicas.n_sampled[replica]
        _choose(requests, request, new, features, logs.chunk, sampled, n_sampled, slot, engine)
        budget -= new
