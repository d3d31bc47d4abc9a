"""How long cells that wear last under a load: writes of the replica that writes most, against their endurance.

A pass writes what it streams through crossbars, whatever its size, and what its tokens write: both are found from two
passes of ``simulate`` and go linearly.  Limits: the mean over a replica's cells as `simulate` spreads writes over them;
tokens that were computed twice (after a preemption) count once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import TierformError
from tierform.simulation.job import Job
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

Floats = NDArray[np.float64]
TOKENS = 64  # of the larger of the two passes


@dataclass(frozen=True)
class WearRate:
    """Writes of the most written cell: in a step, and in each of its tokens; and how many it endures."""

    step: float
    token: float
    endurance: float

    def figures(self, steps: Floats, tokens: Floats, seconds: float) -> dict[str, float | None]:
        """What a run of so many steps and tokens of each replica wrote, and the lifetime at that rate."""
        most = float((steps * self.step + tokens * self.token).max())
        lifetime = seconds * self.endurance / most if most > 0 and self.endurance else None
        return {"writes_per_cell": most, "endurance_writes": self.endurance, "lifetime_s": lifetime}


def wear_rate(
    model: Model,
    chip: Chip,
    parallelism: Parallelism,
    runtime: Runtime,
    precision: PrecisionPlan | None = None,
) -> WearRate | None:
    """The rate of a chip, or None where no part of it wears."""
    if not chip.can.wearing:
        return None

    def written(tokens: int) -> tuple[float, float]:
        task = Step((SequenceGroup(1, tokens, 0),), precision=precision)
        wear = Job(model, task, chip, parallelism, runtime, thermal="none", mapping="plain").simulate().wear
        return wear.writes_per_cell, wear.endurance_writes

    try:
        one, endurance = written(1)
        more, _ = written(TOKENS)
    except TierformError:
        return None
    token = max(0.0, (more - one) / (TOKENS - 1))
    return WearRate(max(0.0, one - token), token, endurance)
