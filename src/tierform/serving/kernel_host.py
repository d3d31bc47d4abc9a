"""Adapters in a replica's memory, and keys and values that wait in its host, in compiled code."""

from __future__ import annotations

from numba import njit

from tierform.serving.state import (
    C_SWAPPED,
    COMPUTED,
    CROSSING,
    E_HOST_TOKENS,
    HOST_TOKENS,
    NONE,
    TOKENS,
)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def leave_adapter(adapters, replica, adapter):  # type: ignore[no-untyped-def]
    """A request that used an adapter leaves the batch; the adapter stays until its place is needed."""
    if adapter < 0:
        return
    for slot in range(adapters.shape[1]):
        if adapters[replica, slot, 0] == adapter:
            adapters[replica, slot, 1] -= 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def adapter_slot(adapters, replica, adapter, most):  # type: ignore[no-untyped-def]
    """The place of an adapter: where it is, else the one that nobody uses and that was used least recently, or NONE."""
    found = NONE
    for slot in range(most):
        if adapters[replica, slot, 0] == adapter:
            return slot
        if adapters[replica, slot, 1] == 0 and (
            found == NONE or adapters[replica, slot, 2] < adapters[replica, found, 2]
        ):
            found = slot
    return found


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def swap_out(counters, requests, row, engine, request):  # type: ignore[no-untyped-def]
    """The keys and values of a preempted request go to the host, if there is room, instead of being lost."""
    held = min(requests.rows[request, COMPUTED], requests.rows[request, TOKENS] - 1)
    if held > 0 and row[HOST_TOKENS] + held <= engine[E_HOST_TOKENS]:
        requests.given[request] = -held
        row[HOST_TOKENS] += held
        row[CROSSING] += held
        counters[C_SWAPPED] += held
