# mypy: disable-error-code="untyped-decorator"
"""Dependency-driven flows inside the cycle engine: what may be sent, and what a delivery releases.

All is in one array of 64-bit words: a header (flows, address of flow records, address of node records), a record per
flow, a record per node, then entries: one per (node, flow) that sends, grouped by node.  Compiled functions only; see
:mod:`tierform.network.flows` for the interface.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle.state import AT_NODE, FLOWS_LEFT, N_READY, N_SIZE, N_TURN

# Flow record.
(
    F_WAITS_FOR,
    F_RELEASE,
    F_DELAY,
    F_STARTED,
    F_FINISHED,
    F_FLITS_LEFT,
    F_GOALS,
    F_GOAL_N,
    F_NEXT,
    F_NEXT_N,
    F_SENDERS,
    F_SENDER_N,
    F_STACK,
    F_PACKET_FLITS,
    F_COPIES,
) = range(15)
FLOW_SIZE = 15
# Entry record: the flow, flits still to send, the next destination, the sending node, its multicast tree (or 0).
E_FLOW, E_LEFT, E_TURN, E_NODE, E_TREE = range(5)
ENTRY_SIZE = 5
# Header.
FLOW_COUNT, AT_FLOWS, AT_ENTRY_BASE = range(3)
HEADER = 3

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@njit(cache=True, error_model="numpy", _nrt=False)
def next_of_flow(m: Any, c: Any, w: Any, node: int, source: int, now: int) -> Any:
    """(flow, destination, flits, tree, deliveries) of the next packet of a node's released flows, taken in turn.

    The flow is -1 if there is none.
    """
    first = w[U(w[AT_ENTRY_BASE] + source)]
    number = (w[U(w[AT_ENTRY_BASE] + source + 1)] - first) // ENTRY_SIZE
    for step in range(number):
        turn = (m[U(node + N_TURN)] + step) % number
        entry = first + turn * ENTRY_SIZE
        flow = w[U(entry + E_FLOW)]
        at = w[AT_FLOWS] + flow * FLOW_SIZE
        if w[U(entry + E_LEFT)] <= 0 or w[U(at + F_RELEASE)] < 0 or w[U(at + F_RELEASE)] > now:
            continue
        size = min(w[U(entry + E_LEFT)], w[U(at + F_PACKET_FLITS)])
        goal = w[U(w[U(at + F_GOALS)] + w[U(entry + E_TURN)] % w[U(at + F_GOAL_N)])]
        w[U(entry + E_TURN)] += 1
        w[U(entry + E_LEFT)] -= size
        if w[U(entry + E_LEFT)] == 0:
            m[U(node + N_READY)] -= 1
        m[U(node + N_TURN)] = (turn + 1) % number
        if w[U(at + F_STARTED)] < 0:
            w[U(at + F_STARTED)] = now
        return flow, goal, size, w[U(entry + E_TREE)], w[U(at + F_COPIES)]
    return np.int64(-1), np.int64(0), np.int64(0), np.int64(0), np.int64(0)


@njit(cache=True, error_model="numpy", _nrt=False)
def release_flow(m: Any, c: Any, w: Any, flow: int, when: int) -> None:
    """All that the flow waited for has happened: it may be sent from cycle `when` on.

    A flow without bytes is finished at that moment; what waits for it is released in turn (a chain is followed by a
    stack kept in the records of the flows themselves).
    """
    top = flow
    w[U(w[AT_FLOWS] + flow * FLOW_SIZE + F_STACK)] = -1
    w[U(w[AT_FLOWS] + flow * FLOW_SIZE + F_RELEASE)] = when
    while top >= 0:
        at = w[AT_FLOWS] + top * FLOW_SIZE
        top = w[U(at + F_STACK)]
        if w[U(at + F_FLITS_LEFT)] > 0:
            for k in range(w[U(at + F_SENDERS)], w[U(at + F_SENDERS)] + w[U(at + F_SENDER_N)]):
                entry = w[U(k)]
                m[U(m[AT_NODE] + w[U(entry + E_NODE)] * N_SIZE + N_READY)] += 1
            continue
        done = w[U(at + F_RELEASE)]
        w[U(at + F_STARTED)] = done
        w[U(at + F_FINISHED)] = done
        c[FLOWS_LEFT] -= 1
        for k in range(w[U(at + F_NEXT)], w[U(at + F_NEXT)] + w[U(at + F_NEXT_N)]):
            later = w[AT_FLOWS] + w[U(k)] * FLOW_SIZE
            w[U(later + F_WAITS_FOR)] -= 1
            if w[U(later + F_WAITS_FOR)] == 0:
                w[U(later + F_RELEASE)] = done + w[U(later + F_DELAY)]
                w[U(later + F_STACK)] = top
                top = w[U(k)]


@njit(cache=True, error_model="numpy", _nrt=False)
def finish_flow(m: Any, c: Any, w: Any, flow: int, flits: int, now: int) -> None:
    """Count delivered flits; when the last has come, release the flows that waited for this one."""
    at = w[AT_FLOWS] + flow * FLOW_SIZE
    w[U(at + F_FLITS_LEFT)] -= flits
    if w[U(at + F_FLITS_LEFT)] > 0:
        return
    w[U(at + F_FINISHED)] = now
    c[FLOWS_LEFT] -= 1
    for k in range(w[U(at + F_NEXT)], w[U(at + F_NEXT)] + w[U(at + F_NEXT_N)]):
        later = w[AT_FLOWS] + w[U(k)] * FLOW_SIZE
        w[U(later + F_WAITS_FOR)] -= 1
        if w[U(later + F_WAITS_FOR)] == 0:
            release_flow(m, c, w, w[U(k)], now + w[U(later + F_DELAY)])
