"""How the planes that a token may read are shared over a model's matrices: once, from calibration text.

The error of a matrix' outputs costs the model more in some matrices than in others.  To second order the loss rises by
half the sum of g^2 e^2 over a matrix' outputs, g being the loss' gradient there and e the error (the diagonal of the
Fisher matrix).  With e^2 from the rule itself, run at a few averages on calibration tokens, every matrix has a curve
of cost over planes; planes go where they take off most for what they read, until the whole is spent (Shoham and
Gersho, IEEE Trans. ASSP 36, 1988, on the convex hull of each curve).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Floats
from tierform.errors import fail
from tierform.store.channel_rule import allocate
from tierform.store.nested import PLANES

STEP = 0.25  # of the averages that a matrix may have, in planes
LEAST = 1.0


def averages_to_try() -> Floats:
    """The averages at which a matrix' error is known, from one plane to all."""
    return np.arange(LEAST, PLANES + STEP / 2, STEP)


def error_curve(
    squares: NDArray[np.float32], worth: NDArray[np.float32], *, together: int = 1, static: bool = False
) -> Floats:
    """Mean squared error of a matrix' outputs, summed over outputs, at each of :func:`averages_to_try`.

    `squares` [token, channel] are squared inputs of calibration tokens, `worth` what each plane takes off a channel's
    error.  With `static` one choice, by the mean of the squares, holds for all tokens.
    """
    tail = np.zeros((worth.shape[0], worth.shape[1] + 1))
    tail[:, :-1] = np.cumsum(worth[:, ::-1].astype(np.float64), axis=1)[:, ::-1]
    seen = squares.mean(axis=0, keepdims=True) if static else squares
    channels = np.arange(worth.shape[0])
    found = []
    for average in averages_to_try():
        depth = allocate(seen, worth, float(average), together=together)
        found.append(float((seen * tail[channels[None], depth]).sum(axis=1).mean()))
    return np.array(found)


def share(costs: Sequence[Floats], weights: Sequence[int], average: float) -> Floats:
    """Average planes of each matrix, so that all of its `weights` together have at most `average` a weight.

    `costs` are each matrix' curves over :func:`averages_to_try`, in one unit.  TierformError below one plane.
    """
    tried = averages_to_try()
    if not LEAST <= average <= PLANES:
        fail(f"from {LEAST:g} to {PLANES} planes can be shared", key="planes", value=average)
    left = (average - LEAST) * sum(weights)
    found = np.full(len(weights), LEAST)
    waiting: list[tuple[float, int, int, int]] = []

    def offer(matrix: int, at: int) -> None:
        """The steepest way on from a point of a matrix' curve: the next corner of its convex hull."""
        curve = costs[matrix]
        gains = (curve[at] - curve[at + 1 :]) / ((tried[at + 1 :] - tried[at]) * weights[matrix])
        if gains.size and gains.max() > 0:
            step = int(np.flatnonzero(gains == gains.max())[-1]) + 1
            heapq.heappush(waiting, (-float(gains.max()), matrix, at, at + step))

    for matrix in range(len(weights)):
        offer(matrix, 0)
    while waiting:
        _, matrix, at, goal = heapq.heappop(waiting)
        asked = (tried[goal] - tried[at]) * weights[matrix]
        if asked > left:  # as far as it reaches: the last matrix ends inside a side of its hull
            goal = at + int(left / (STEP * weights[matrix]))
            asked = (tried[goal] - tried[at]) * weights[matrix]
            if goal == at:
                continue
        left -= asked
        found[matrix] = tried[goal]
        offer(matrix, goal)
    return found
