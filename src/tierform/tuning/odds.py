"""How likely is a window to meet a condition of HpT's rule when nothing but noise moves the series?

Model: the series (window means of the loss, or norms of the weights' change) is m_t = (1 - f)^t (1 + s z_t) with
independent standard normal z_t: a steady relative fall f per window and a relative fluctuation s.  The condition holds
for x1, x2, x3 when both relative falls are below the threshold and x1 + x3 > 2 x2 (the second fall is the smaller one).
Without a fall, by symmetry: s far below the threshold leaves only the last one, which holds in 1/2 of all windows;
s far above it leaves x1 < x2 < x3 (1/6 of the orders) with the larger rise last (1/2 of those): 1/12.  A fall above the
threshold is met only by noise.  Between the limits the share is computed from draws with a fixed seed.
Limits: successive windows share values, so their answers depend on each other, though the share of windows that meet
the condition is as computed; real fluctuations have longer tails than normal ones.
"""

from __future__ import annotations

import numpy as np

from tierform.errors import Problem, TierformError

DRAWS = 200_000


def odds(fluctuation: float, threshold: float, fall: float = 0.0, seed: int = 0) -> float:
    """Share of windows that meet one condition at a relative fluctuation and a steady relative fall per window.

    The standard error is below 0.0012.  TierformError for a fluctuation below 0 or a fall outside 0 to 1.
    """
    problems = []
    if not fluctuation >= 0:
        problems.append(Problem("must be at least 0", key="fluctuation", value=fluctuation))
    if not -1 < fall < 1:
        problems.append(Problem("must lie between -1 and 1", key="fall", value=fall))
    if problems:
        raise TierformError(problems)
    z = np.random.default_rng(seed).standard_normal((3, DRAWS))
    one, two, three = (1 + fluctuation * z) * (1 - fall) ** np.arange(3)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        met = ((one - two) / one < threshold) & ((two - three) / two < threshold) & (two - three < one - two)
    return float(met.mean())
