"""Speculative decoding, in compiled code: which drafts are accepted, what comes back, what the draft model takes.

As vLLM does it: a request that has sampled gets `E_DRAFTS` drafted tokens, which its next step computes beside its last
token.  Of k verified drafts those before the first rejected one are kept, and one token more; what was computed for the
others is taken back.  Each is accepted with the chance `E_ACCEPTANCE`, by a number made from the seed, the request and
the token's place, so that the same request meets the same luck whatever runs beside it.  The draft model goes through
all tokens of the target's step, and then once more for each further draft.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.serving.kernel_oracle import (
    F_CONTEXTS,
    F_LONGEST,
    F_SAMPLED,
    F_SEQUENCES,
    F_SINGLES,
    F_TOKENS,
    FEATURES,
    step_cost,
)
from tierform.serving.state import (
    AWAITED,
    C_ACCEPTED,
    C_DRAFTED,
    C_SEED,
    COMPUTED,
    E_ACCEPTANCE,
    E_ASYNC,
    E_DRAFT_ORACLE,
    E_DRAFTS,
    E_LENGTH,
    RUNNING,
    STATE,
    TOKENS,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def accepted(seed, request, tokens, drafts, acceptance):  # type: ignore[no-untyped-def]
    """How many of the drafts after so many tokens are accepted; by SplitMix64 (Steele, Lea and Flood, 2014)."""
    start = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(request) * np.uint64(0xD1B54A32D192ED03)
    found = 0
    for place in range(drafts):
        mixed = start + np.uint64(tokens + place + 1) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
        if np.int64(mixed >> np.uint64(11)) >= acceptance:
            break
        found += 1
    return found


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def come_back(run, requests, engine, slot, request, end):  # type: ignore[no-untyped-def]
    """The tokens of a request return, one or more; what was computed for rejected drafts is taken back."""
    rows, counters = requests.rows, run.counters
    checked = requests.checked[request, slot]
    kept = accepted(counters[C_SEED], request, rows[request, TOKENS], checked, engine[E_ACCEPTANCE])
    counters[C_DRAFTED] += checked
    counters[C_ACCEPTED] += kept
    if engine[E_ASYNC] != 0:
        rows[request, AWAITED] -= checked
    if rows[request, STATE] == RUNNING:
        rows[request, COMPUTED] -= checked - kept
        if engine[E_ASYNC] == 0:
            requests.drafts[request] = engine[E_DRAFTS]
    return min(1 + kept, end - rows[request, TOKENS])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def draft_ns(run, requests, replicas, logs, replica, engine, slot):  # type: ignore[no-untyped-def]
    """Nanoseconds of the draft model beside the step that was costed last; its joules are added to the step's."""
    rows, features, more, cost = requests.rows, logs.features, logs.draft_features, logs.draft_cost
    at = run.oracle_at[engine[E_DRAFT_ORACLE]]
    number = replicas.n_sampled[replica, slot]
    for feature in range(FEATURES):
        more[feature] = features[feature]
    more[F_SAMPLED] = number
    total = step_cost(run.oracle, at, more, logs.chunk, logs.part, cost)
    for column in range(1, len(cost)):
        logs.cost[column] += cost[column]
    again = engine[E_DRAFTS] - 1
    if number == 0 or again == 0:
        return total
    for feature in range(FEATURES):
        more[feature] = 0
    more[F_TOKENS] = more[F_SINGLES] = more[F_SAMPLED] = more[F_SEQUENCES] = number
    for place in range(number):
        context = min(rows[replicas.sampled[replica, slot, place], COMPUTED] + 1, engine[E_LENGTH])
        more[F_CONTEXTS] += context
        more[F_LONGEST] = max(more[F_LONGEST], context)
    total += again * step_cost(run.oracle, at, more, logs.chunk, logs.part, cost)
    for column in range(1, len(cost)):
        logs.cost[column] += again * cost[column]
    return total
