# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Dependency-driven flows inside the cycle engine: what may be sent, and what a delivery releases.

All is in one array of 64-bit words: a header (flows, address of flow records, address of node records), a record per
flow, a record per node, then entries: one per (node, flow) that sends, grouped by node.  Compiled functions only; see
:mod:`tierform.network.flows` for the interface.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Words
from tierform.jit import compiled
from tierform.network.cycle.flow_records import (
    AT_ENTRY_BASE,
    AT_FLOWS,
    E_FLOW,
    E_LEFT,
    E_NODE,
    E_TREE,
    E_TURN,
    ENTRY_SIZE,
    F_COPIES,
    F_DELAY,
    F_FINISHED,
    F_FLITS_LEFT,
    F_GOAL_N,
    F_GOALS,
    F_NEXT,
    F_NEXT_N,
    F_PACKET_FLITS,
    F_RELEASE,
    F_SENDER_N,
    F_SENDERS,
    F_STACK,
    F_STARTED,
    F_WAITS_FOR,
    FLOW_SIZE,
    L_CYCLE,
    L_DONE,
    L_FLITS,
    L_GOAL,
    L_NEXT,
    L_NEXT_N,
    L_SENT,
    L_SOURCE,
    L_WAITS_FOR,
    LISTED_SIZE,
    NEVER,
)
from tierform.network.cycle.state import AT_NODE, FLOWS_LEFT, N_NEXT, N_READY, N_SIZE, N_TURN

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@compiled
def next_of_flow(
    m: Words, c: Ints, w: Ints, node: int, source: int, now: int
) -> tuple[np.int64, np.int64, np.int64, np.int64, np.int64]:
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


@compiled
def release_flow(m: Words, c: Ints, w: Ints, flow: int, when: int) -> None:
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


@compiled
def finish_flow(m: Words, c: Ints, w: Ints, flow: int, flits: int, now: int) -> None:
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


@compiled
def time_of_listed(m: Words, w: Ints, node: int, source: int, now: int) -> None:
    """Set the source's clock to when its next listed packet may be sent, NEVER while that waits for another."""
    first = w[U(w[AT_ENTRY_BASE] + source)] + m[U(node + N_TURN)]
    m[U(node + N_NEXT)] = NEVER
    if first < w[U(w[AT_ENTRY_BASE] + source + 1)]:
        at = w[AT_FLOWS] + first * LISTED_SIZE
        if w[U(at + L_WAITS_FOR)] == 0:
            m[U(node + N_NEXT)] = max(w[U(at + L_CYCLE)], now)


@compiled
def next_listed(m: Words, w: Ints, node: int, source: int) -> tuple[np.int64, np.int64, np.int64, np.int64]:
    """(packet, destination, flits, cycle) of the next listed packet of a source; its clock moves on."""
    packet = w[U(w[AT_ENTRY_BASE] + source)] + m[U(node + N_TURN)]
    at = w[AT_FLOWS] + packet * LISTED_SIZE
    created = np.int64(m[U(node + N_NEXT)])
    m[U(node + N_TURN)] += 1
    w[U(at + L_SENT)] = created
    time_of_listed(m, w, node, source, created)
    return packet, w[U(at + L_GOAL)], w[U(at + L_FLITS)], created


@compiled
def finish_listed(m: Words, c: Ints, w: Ints, packet: int, now: int) -> None:
    """A listed packet has been delivered: those that wait only for it may be sent."""
    at = w[AT_FLOWS] + packet * LISTED_SIZE
    w[U(at + L_DONE)] = now
    c[FLOWS_LEFT] -= 1
    for k in range(w[U(at + L_NEXT)], w[U(at + L_NEXT)] + w[U(at + L_NEXT_N)]):
        later = w[AT_FLOWS] + w[U(k)] * LISTED_SIZE
        w[U(later + L_WAITS_FOR)] -= 1
        source = w[U(later + L_SOURCE)]
        node = m[AT_NODE] + source * N_SIZE
        if w[U(later + L_WAITS_FOR)] == 0 and m[U(node + N_NEXT)] == NEVER:
            time_of_listed(m, w, node, source, now)
