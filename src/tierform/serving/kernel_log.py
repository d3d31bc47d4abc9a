"""A step is written down, in compiled code."""

from __future__ import annotations

from numba import njit

from tierform.serving.kernel_oracle import F_CONTEXTS, F_PREFILLS, F_SINGLES, F_TOKENS
from tierform.serving.state import (
    C_ENTRIES_LOGGED,
    C_NOW,
    C_OUT,
    C_PREEMPTED_LOGGED,
    C_STEPS_LOGGED,
    FREE,
    L_CONTEXTS,
    L_DURATION,
    L_ENTRIES,
    L_FREE,
    L_PLANNED,
    L_PREEMPTED,
    L_REPLICA,
    L_RUNNING,
    L_SINGLES,
    L_START,
    L_TOKENS,
    L_WAITING,
    N_RUNNING,
    N_WAITING,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def record(run, replicas, logs, replica, start, duration):  # type: ignore[no-untyped-def]
    """The step that was planned last, with its entries, preemptions and joules."""
    counters, row, features = run.counters, replicas.rows[replica], logs.features
    line = logs.steps[counters[C_STEPS_LOGGED]]
    counters[C_STEPS_LOGGED] += 1
    line[L_REPLICA] = replica
    line[L_START] = start
    line[L_DURATION] = duration
    line[L_TOKENS] = features[F_TOKENS]
    line[L_SINGLES] = features[F_SINGLES]
    line[L_CONTEXTS] = features[F_CONTEXTS]
    line[L_FREE] = row[FREE]
    line[L_RUNNING] = row[N_RUNNING]
    line[L_WAITING] = row[N_WAITING]
    line[L_PLANNED] = counters[C_NOW]
    for entry in range(features[F_PREFILLS]):
        for column in range(3):
            logs.entries[counters[C_ENTRIES_LOGGED], column] = logs.chunk[entry, column]
        counters[C_ENTRIES_LOGGED] += 1
    for place in range(counters[C_OUT]):
        logs.preempted[counters[C_PREEMPTED_LOGGED]] = logs.out[place]
        counters[C_PREEMPTED_LOGGED] += 1
    line[L_ENTRIES] = counters[C_ENTRIES_LOGGED]
    line[L_PREEMPTED] = counters[C_PREEMPTED_LOGGED]
    for column in range(len(logs.cost) - 1):
        logs.joules[counters[C_STEPS_LOGGED] - 1, column] = logs.cost[1 + column]
