"""Requests to a memory: when, where, read or write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """Requests in the order in which they are offered: `cycle` (not falling), byte `address`, `is_write`."""

    cycle: Int64
    address: Int64
    is_write: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.cycle.size)
