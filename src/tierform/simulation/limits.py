"""What limits each stage: how much time would go away if a resource took none, by exact schedules without it.

A resource is a component (with all its crossbars), the memory behind the chip, the network, or the writing of weights
(with the reads that hide behind it).  Freed, it takes no time and serves everything at once; all else stays.  Beside
them stand the boards' power limit, with what a lower clock adds to the pass, and software: waiting for the host and the
choice of tokens.  Gains do not add up: behind one limit stands the next.  What no single resource takes away is
dependencies, and resources that are busy side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.errors import fail
from tierform.simulation.costing import MEMORY, PROGRAMMING
from tierform.simulation.run import Run
from tierform.simulation.schedule import schedule_stage
from tierform.simulation.schedule_layers import Edge, Layer, ScheduledOperator
from tierform.simulation.stages import Timed
from tierform.workload.graph import StageKind

NETWORK = "network"
WRITING = "writing weights"
POWER = "power limit"
SOFTWARE = "software"
DEPENDENCIES = "dependencies"
_ROUNDING = 1e-12  # of a pass


@dataclass(frozen=True, slots=True)
class Limit:
    """A stage with all its repeats: its time, and what limits it most.

    `gains_s` are the seconds that each resource would take away if it were free, the largest first.
    """

    stage: str
    seconds: float
    bound_by: str
    gains_s: dict[str, float]


def limits(run: Run) -> list[Limit]:
    """What limits each stage of one step; TierformError for a pipeline of chips, which has several schedules."""
    if run.pipeline > 1:
        fail("limits are told for one pipeline group", value=run.pipeline, fix="Simulate without pipeline parallelism.")
    return [_limit(run, made) for made in run.timed]


def _limit(run: Run, made: Timed) -> Limit:
    chunks = 1 if made.stage.kind is StageKind.UPDATE else run.mapping.chunks
    steps = [step for wave in made.waves for segment in wave for step in segment.layer.steps]
    names = dict.fromkeys(_component(step) for step in steps)
    repeat = made.stage.repeat
    whole, software = _seconds(made, chunks, ""), made.sampling_s + made.waiting_s
    gains = {name: (whole - _seconds(made, chunks, name)) * repeat for name in (*names, MEMORY, NETWORK, WRITING)}
    gains |= {POWER: (made.seconds - software - whole) * repeat, SOFTWARE: software * repeat}
    least = _ROUNDING * made.seconds * repeat
    ordered = dict(sorted(((name, gain) for name, gain in gains.items() if gain > least), key=lambda item: -item[1]))
    bound_by = next(iter(ordered), DEPENDENCIES)
    return Limit(made.stage.name, made.seconds * repeat, bound_by, ordered)


def _seconds(made: Timed, chunks: int, free: str) -> float:
    """The time of one pass on the chip, at its clock, without the time of a resource (empty: with all)."""
    runs = [[(_freed(segment.layer, free), segment.count) for segment in wave] for wave in made.waves]
    micro = [wave.micro_batches for wave in made.stage.waves]
    seconds = schedule_stage(runs, micro, chunks).makespan_s if any(runs) else 0.0
    shared = {MEMORY: max(made.busy_s, made.spill_s), NETWORK: made.link_s}
    seconds += 0.0 if free == MEMORY else made.fetch_s
    seconds = max([seconds, *(value for name, value in shared.items() if name != free)])
    return seconds + (0.0 if free == WRITING else made.programming_s)


def _freed(layer: Layer, free: str) -> Layer:
    return replace(layer, steps=tuple(_freed_step(step, free) for step in layer.steps))


def _freed_step(step: ScheduledOperator, free: str) -> ScheduledOperator:
    if free == NETWORK:
        return replace(step, after=tuple(_freed_edge(edge) for edge in step.after))
    if step.fetch and free == (WRITING if step.fetch == PROGRAMMING else step.fetch):
        step = replace(step, fetch="", fetch_s=0.0)
    return replace(step, occupancy_s=0.0, tail_s=0.0) if _component(step) == free else step


def _freed_edge(edge: Edge) -> Edge:
    return Edge(edge.source, edge.whole)


def _component(step: ScheduledOperator) -> str:
    return step.resource.partition(": ")[0]
