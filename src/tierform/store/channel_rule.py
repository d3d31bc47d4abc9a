"""Which input channels of a matrix are read at how many planes, for a token, under an exact budget.

The error that channel k adds to the outputs at p planes is x_k^2 E[k, p], where x_k is the channel's input, known
before the product, and E[k, p] the squared error of its weights at p planes, stored beside them.  A plane is worth what
it takes off that error.  The planes of greatest worth are taken, a channel's first plane before its second, until the
budget is spent, exactly.

Worth is compared by its logarithm in steps of 1/32 of an octave: halving finds the step above which the budget is not
yet spent; equal steps are taken in the order of the channels.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tierform.arrays import Bytes, Floats, Shorts, Singles, Unsigned
from tierform.errors import fail
from tierform.store.nested import PLANES

_SHIFT = 18  # the upper 14 bits of a positive float32: its exponent and five bits of its mantissa
_STEPS = 1 << (31 - _SHIFT)
_COUNTED = 1 << 14


def plane_worth(errors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each plane takes off a channel's error, [channel, plane], never more than the plane before it does.

    `errors` [channel, planes + 1] are at 0 to 8 planes.  Where a plane alone takes off less than the one after it (the
    first one often does), both count with their mean: the slopes of the convex hull of the error.
    """
    worth = np.empty((errors.shape[0], errors.shape[1] - 1), np.float32)
    _hull(np.ascontiguousarray(errors, np.float64), worth)
    return worth


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _hull(errors: Floats, worth: Singles) -> None:
    channels, planes = worth.shape
    total, size = np.empty(planes), np.empty(planes, np.int64)
    for k in range(channels):
        blocks = 0
        for p in range(planes):
            total[blocks], size[blocks] = errors[k, p] - errors[k, p + 1], 1
            blocks += 1
            while blocks > 1 and total[blocks - 1] * size[blocks - 2] > total[blocks - 2] * size[blocks - 1]:
                total[blocks - 2] += total[blocks - 1]
                size[blocks - 2] += size[blocks - 1]
                blocks -= 1
        at = 0
        for block in range(blocks):
            for _ in range(size[block]):
                worth[k, at] = max(total[block] / size[block], 0.0)
                at += 1


def budget_of(channels: int, average: float) -> int:
    """Planes to spend on `channels` channels at `average` planes each."""
    if not 0 < average <= PLANES:
        fail(f"an average of above 0 and at most {PLANES} planes is needed", key="planes", value=average)
    return round(channels * average)


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def spend(importance: Singles, worth: Singles, budget: int, planes: Bytes) -> None:
    """`planes` [token, channel] for `importance` [token, channel] (squared inputs), each token spending `budget`.

    `worth` is [plane, channel], so that channels stand side by side in vectors.
    """
    tokens, channels = importance.shape
    value = np.empty((PLANES, channels), np.float32)
    step = np.empty((PLANES, channels), np.int16)
    deeper, reached = np.empty(channels, np.int16), np.empty(channels, np.int16)
    for token in range(tokens):
        for p in range(PLANES):
            _times(importance[token], worth[p], value[p])
        _steps(value.reshape(-1).view(np.uint32), step.reshape(-1))
        edge, above = _edge(step.reshape(-1), budget)
        deeper[:] = 0
        reached[:] = 0
        for p in range(PLANES):
            _count(step[p], np.int16(edge), deeper)
            _count(step[p], np.int16(edge - 1), reached)
        left, cut = budget - above, -1
        for k in range(channels):
            depth = np.int64(deeper[k])
            planes[token, k] = depth
            if reached[k] == deeper[k]:
                continue
            equal = np.int64(reached[k]) - depth
            taken = min(equal, left)
            left -= taken
            depth += taken
            planes[token, k] = depth
            if cut < 0 and left == 0 and depth > 0 and (taken < equal or depth == PLANES):
                cut = k
        if cut >= 0:
            _mend(importance[token], worth, cut, planes[token])


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def depths_of(x: Singles, worth: Singles, budget: int) -> Bytes:
    """Planes of each channel for one token's inputs (channels,), in one call; see :func:`spend`."""
    planes = np.empty((1, x.size), np.uint8)
    spend((x * x).reshape(1, -1), worth, budget, planes)
    found: Bytes = planes[0]
    return found


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _times(one: Singles, other: Singles, found: Singles) -> None:
    for i in range(found.size):
        found[i] = one[i] * other[i]


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _count(step: Shorts, edge: np.int16, counts: Shorts) -> None:
    for i in range(counts.size):
        counts[i] += np.int16(1) if step[i] > edge else np.int16(0)


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _steps(bits: Unsigned, step: Shorts) -> None:
    for i in range(bits.size):
        step[i] = np.int16(bits[i] >> np.uint32(_SHIFT))


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _above(step: Shorts, middle: np.int16) -> np.int16:
    """How many steps are above one: counted in 16 bits, as many at once as there are steps in a vector."""
    count = np.int16(0)
    for i in range(step.size):
        count = np.int16(count + (np.int16(1) if step[i] > middle else np.int16(0)))
    return count


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _edge(step: Shorts, budget: int) -> tuple[int, int]:
    """The least step above which at most `budget` planes lie, and how many do."""
    low, high, found = -1, _STEPS - 1, 0  # above `high` there are few enough, above `low` too many
    while high - low > 1:
        middle, above = np.int16((low + high) // 2), 0
        for block in range(0, step.size, _COUNTED):
            above += _above(step[block : block + _COUNTED], middle)
        if above <= budget:
            high, found = int(middle), above
        else:
            low = int(middle)
    return high, found


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _mend(importance: Singles, worth: Singles, cut: int, planes: Bytes) -> None:
    """Where the budget ended between planes that count together, they go, and what that frees is spent elsewhere.

    A channel's first planes alone may leave more error than none.
    """
    deepest, depth, freed = worth.shape[0], planes[cut], 0
    while 0 < depth < deepest and worth[depth - 1, cut] == worth[depth, cut]:
        depth -= 1
        freed += 1
    for _ in range(freed):
        best, place = np.float32(-1), -1
        for k in range(planes.size):
            p = planes[k]
            if k == cut or p == deepest or (p + 1 < deepest and worth[p, k] == worth[p + 1, k]):
                continue
            value = importance[k] * worth[p, k]
            if value > best:
                best, place = value, k
        if place < 0:
            break
        planes[place] += 1
        planes[cut] -= 1


def allocate(
    importance: NDArray[np.float32], worth: NDArray[np.float32], average: float, *, together: int = 1
) -> NDArray[np.uint8]:
    """Planes [token, channel] for squared inputs [token, channel], `average` planes a channel for every token.

    `together` successive channels are read at one depth (a group that fills a burst); the last group may be shorter and
    then counts as a whole one.
    """
    tokens, channels = importance.shape
    if together == 1:
        planes = np.empty((tokens, channels), np.uint8)
        turned = np.ascontiguousarray(worth.T)
        spend(np.ascontiguousarray(importance, np.float32), turned, budget_of(channels, average), planes)
        return planes
    groups = -(-channels // together)
    missing = groups * together - channels
    inputs = np.pad(importance, ((0, 0), (0, missing))).reshape(tokens, groups, together)
    gains = np.pad(worth, ((0, missing), (0, 0))).reshape(groups, together, -1)
    value = np.ascontiguousarray(np.einsum("tgc,gcp->tpg", inputs, gains))
    planes = np.empty((tokens, groups), np.uint8)
    for token in range(tokens):  # a group's worth is a sum of products, so it is given whole
        spend(np.ones((1, groups), np.float32), value[token], budget_of(groups, average), planes[token : token + 1])
    return np.repeat(planes, together, axis=1)[:, :channels]
