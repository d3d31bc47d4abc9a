"""Queues of waiting requests in compiled code: first come first served with a front, or a heap by rank.

First come, first served is a linked list (preempted requests go to its front).  Under a priority policy it is a skew
heap by (rank, number), made of two links a request, so it needs no room of its own.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.state import BLOCKED_RELEASES, E_POLICY, FCFS, HEAD, LEFT, N_WAITING, NEXT, NONE, RIGHT, TAIL


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _earlier(order, first, second):  # type: ignore[no-untyped-def]
    return order[first] < order[second] or (order[first] == order[second] and first < second)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _merged(rows, order, one, other):  # type: ignore[no-untyped-def]
    """The root of two skew heaps as one."""
    root = NONE
    parent = NONE
    while one != NONE and other != NONE:
        if _earlier(order, other, one):
            one, other = other, one
        # `one` is the root of what follows: its right side is merged on, and becomes its left side.
        if parent == NONE:
            root = one
        else:
            rows[parent, LEFT] = one
        right = rows[one, RIGHT]
        rows[one, RIGHT] = rows[one, LEFT]
        rows[one, LEFT] = NONE
        parent = one
        one = right
    rest = one if one != NONE else other
    if parent == NONE:
        return rest
    rows[parent, LEFT] = rest
    return root


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def put(rows, order, replica_row, engine, request, front):  # type: ignore[no-untyped-def]
    """A request waits, at the end of the queue or at its front; under a priority policy in its place."""
    replica_row[N_WAITING] += 1
    rows[request, NEXT] = NONE
    if engine[E_POLICY] != FCFS:
        rows[request, LEFT] = NONE
        rows[request, RIGHT] = NONE
        replica_row[BLOCKED_RELEASES] = NONE  # the head may be another now
        replica_row[HEAD] = _merged(rows, order, replica_row[HEAD], request)
        return
    if replica_row[HEAD] == NONE:
        replica_row[HEAD] = request
        replica_row[TAIL] = request
    elif front:
        rows[request, NEXT] = replica_row[HEAD]
        replica_row[HEAD] = request
    else:
        rows[replica_row[TAIL], NEXT] = request
        replica_row[TAIL] = request


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def pop(rows, order, replica_row, engine):  # type: ignore[no-untyped-def]
    """The head of the queue leaves it."""
    head = replica_row[HEAD]
    replica_row[N_WAITING] -= 1
    if engine[E_POLICY] != FCFS:
        replica_row[HEAD] = _merged(rows, order, rows[head, LEFT], rows[head, RIGHT])
        return head
    replica_row[HEAD] = rows[head, NEXT]
    if replica_row[HEAD] == NONE:
        replica_row[TAIL] = NONE
    return head


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def remove(rows, order, replica_row, engine, request):  # type: ignore[no-untyped-def]
    """One request leaves the queue from wherever it stands (rare: it ended after it was preempted)."""
    if engine[E_POLICY] != FCFS:
        kept = NONE
        while replica_row[HEAD] != NONE:
            head = pop(rows, order, replica_row, engine)
            if head == request:
                break
            rows[head, NEXT] = kept
            kept = head
        while kept != NONE:
            following = rows[kept, NEXT]
            put(rows, order, replica_row, engine, kept, False)
            kept = following
        return
    if replica_row[HEAD] == request:
        pop(rows, order, replica_row, engine)
        return
    before = replica_row[HEAD]
    while rows[before, NEXT] != request:
        before = rows[before, NEXT]
    rows[before, NEXT] = rows[request, NEXT]
    if replica_row[TAIL] == request:
        replica_row[TAIL] = before
    replica_row[N_WAITING] -= 1
