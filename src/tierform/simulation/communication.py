"""How much of the communication between chips stays exposed: the time that would go away if it took none.

A stage is scheduled once more with collectives (and sends between groups) that take no time; the difference is what
nothing hides.  Idle time of a pipeline is no communication.  Of collectives that run beside computation only the
exposed part keeps boards busy that otherwise would be done; the floor of their power in that time is told here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tierform.mapping.plan import INTERCONNECT
from tierform.simulation.execution import Execution, Segment

if TYPE_CHECKING:
    from tierform.simulation.stages import Stages, Timed


def exposed_s(stages: Stages, made: Timed) -> float:
    """Seconds of one pass that communication adds."""
    if stages.workload.parallelism.chips == 1:
        return 0.0
    return _added_s(stages, made, beside_alone=False)


def beside_exposed_s(stages: Stages, made: Timed) -> float:
    """Seconds of one pass that collectives beside computation add: gathers, scatters of gradients, rounds of a ring."""
    split = stages.workload.parallelism
    if split.zero < 2 and not split.overlap and split.context == 1:
        return 0.0
    return _added_s(stages, made, beside_alone=True)


def _added_s(stages: Stages, made: Timed, *, beside_alone: bool) -> float:
    waves = [[_freed(segment, beside_alone) for segment in segments] for segments in made.waves]
    free = stages.schedule(made, waves, made.send_s if beside_alone else (0.0, 0.0)).makespan_s
    shared = stages.shared_s(made)
    return max(0.0, max(made.schedule.makespan_s, shared) - max(free, shared))


def _freed(segment: Segment, beside_alone: bool) -> Segment:
    steps = tuple(
        replace(step, occupancy_s=0.0, tail_s=0.0) if _is_free(item, beside_alone) else step
        for step, item in zip(segment.layer.steps, segment.executions, strict=True)
    )
    return replace(segment, layer=replace(segment.layer, steps=steps))


def _is_free(item: Execution, beside_alone: bool) -> bool:
    return item.component == INTERCONNECT and (item.beside or not beside_alone)
