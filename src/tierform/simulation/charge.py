"""What a few operators are charged, by the very path that `simulate` takes: mapped, costed once, fused."""

from __future__ import annotations

from collections.abc import Sequence

from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.mapping import Mapping, assign
from tierform.simulation.choose import fabric_of
from tierform.simulation.costing import Costing
from tierform.simulation.runtime import IDEAL, Runtime
from tierform.simulation.traffic import MemoryBehind
from tierform.workload.graph import Block, Stage, StageKind, Wave
from tierform.workload.operator import Operator
from tierform.workload.parallel import Parallelism


def charge(chip: Chip, operators: Sequence[Operator], *, runtime: Runtime = IDEAL) -> tuple[Cost, ...]:
    """The cost of each operator of one block, in order.

    They are given to the components by the default rule, and fused where the component and the `runtime` do so.
    TierformError where one can run nowhere.
    """
    block = Block("operators", 1, tuple(operators))
    stage = Stage("operators", StageKind.PREFILL, (Wave((block,)),))
    mapping = Mapping(chip=chip.name, assignments=assign(chip, (stage,), {}), placements=())
    costing = Costing(
        chip,
        mapping,
        fabric_of(chip),
        MemoryBehind(chip),
        resident_B=0.0,
        runtime=runtime,
        split=Parallelism(),
    )
    (segment,) = costing.segments(stage, stage.waves[0])
    return tuple(execution.cost for execution in segment.executions)
