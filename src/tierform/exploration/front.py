"""Which points no other beats, how much of the space of objectives they cover, and which one bends the front most.

All objectives are least at best.  Hypervolume is exact: the volume that the points dominate below a reference point,
by slicing along the last objective (as in While, Bradstreet and Barone, IEEE Trans. Evol. Comput. 16, 2012).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def front_of(values: Floats, violation: Floats | None = None) -> Ints:
    """Numbers of the points that are feasible (violation 0) and not dominated, in order; of equal ones the first.

    `values` is (points, objectives).  Points whose objectives are not all finite are never on the front.
    """
    values = np.asarray(values, dtype=np.float64)
    good = np.isfinite(values).all(axis=1)
    if violation is not None:
        good &= np.asarray(violation) <= 0
    left = np.flatnonzero(good)
    if len(left) == 0:
        return left
    if values.shape[1] == 1:
        return left[[int(np.argmin(values[left, 0]))]]
    # Sorted by the first objective (ties by the others), a point is dominated only by an earlier one.
    order = left[np.lexsort([left, *values[left].T[::-1]])]
    if values.shape[1] == 2:
        second = values[order, 1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        return np.sort(order[second < before])
    kept: list[int] = []
    rest = order
    while len(rest):
        head, rest = rest[0], rest[1:]
        kept.append(int(head))
        rest = rest[(values[rest] < values[head]).any(axis=1)]
    return np.sort(np.array(kept, np.int64))


def hypervolume(values: Floats, reference: Floats) -> float:
    """The volume that points (points, objectives) dominate below `reference` (objectives,)."""
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.ndim != 2 or values.shape[1] != len(reference):
        fail("one reference for each objective is needed", key="reference", value=len(reference))
    inside = values[(values < reference).all(axis=1)]
    return _volume(inside[front_of(inside)], reference) if len(inside) else 0.0


def _volume(points: Floats, reference: Floats) -> float:
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    if points.shape[1] == 2:
        ordered = points[np.argsort(points[:, 0], kind="stable")]
        floor = np.concatenate([[reference[1]], np.minimum.accumulate(ordered[:, 1])[:-1]])
        drop = np.maximum(floor - ordered[:, 1], 0.0)
        return float(((reference[0] - ordered[:, 0]) * drop).sum())
    ordered = points[np.argsort(points[:, -1], kind="stable")]
    ends = np.append(ordered[1:, -1], reference[-1])
    total = 0.0
    for index, end in enumerate(ends):
        if end > ordered[index, -1]:
            slice_ = ordered[: index + 1, :-1]
            total += (end - ordered[index, -1]) * _volume(slice_[front_of(slice_)], reference[:-1])
    return total


def knee_of(values: Floats) -> int:
    """The number of the point that lies farthest below the plane through the ends of the front.

    `values` is (points, objectives), all of them on a front; each objective is scaled to its range there.
    """
    values = np.asarray(values, np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
