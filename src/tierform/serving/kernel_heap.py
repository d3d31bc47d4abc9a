"""A binary heap of replicas by their next event, in compiled code; of equal times the lower number first."""

from __future__ import annotations

from numba import njit

from tierform.serving.state import EVENT_AT


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _before(rows, one, other):  # type: ignore[no-untyped-def]
    first, second = rows[one, EVENT_AT], rows[other, EVENT_AT]
    return first < second or (first == second and one < other)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def set_event(rows, heap, place, replica, when):  # type: ignore[no-untyped-def]
    """The replica's next event is at `when`."""
    rows[replica, EVENT_AT] = when
    number = len(heap)
    at = place[replica]
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(rows, replica, heap[parent]):
            break
        heap[at] = heap[parent]
        place[heap[at]] = at
        at = parent
    while True:
        child = 2 * at + 1
        if child >= number:
            break
        if child + 1 < number and _before(rows, heap[child + 1], heap[child]):
            child += 1
        if not _before(rows, heap[child], replica):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at] = replica
    place[replica] = at
