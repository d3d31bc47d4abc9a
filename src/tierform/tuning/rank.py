"""Which rank does a layer need?  Read from the spectrum of its recent weight change.

The rank of a matrix is the smallest r whose r largest singular values hold `share` of the squared Frobenius norm of the
change over the last window; it is kept between `least` and `most`.  A change of zero needs the least rank.
Limits: the recent change stands for the change to come; noise of the stochastic gradient has a flat spectrum and so
raises the rank, which is what `most` is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError


def rank_of(change: NDArray[np.floating], share: float = 0.9, least: int = 1, most: int = 64) -> int:
    """The rank for one matrix's change (rows x columns); TierformError for impossible settings."""
    problems = []
    if not 0 < share <= 1:
        problems.append(Problem("must be greater than 0 and at most 1", key="share", value=share))
    if not 1 <= least <= most:
        problems.append(Problem("must be at least 1 and at most the largest rank", key="least", value=least))
    if problems:
        raise TierformError(problems)
    values = np.linalg.svd(np.asarray(change, dtype=np.float64), compute_uv=False) ** 2
    most = min(most, len(values))
    total = values.sum()
    if total == 0:
        return min(least, most)
    held = np.cumsum(values) / total
    return int(np.clip(np.searchsorted(held, share - 1e-12) + 1, min(least, most), most))


def ranks_of(
    changes: Mapping[str, NDArray[np.floating]], share: float = 0.9, least: int = 1, most: int = 64
) -> dict[str, int]:
    """:func:`rank_of` for every named matrix."""
    return {name: rank_of(change, share, least, most) for name, change in changes.items()}
