"""What limits a run, for a page: the critical path by resource, what each stage would gain, and it in a sentence."""

from __future__ import annotations

from dataclasses import asdict
from math import fsum
from typing import Any

from tierform.simulation.costing import MEMORY, PROGRAMMING
from tierform.simulation.limits import NETWORK, WRITING, limits
from tierform.simulation.run import Run
from tierform.simulation.schedule import schedule_stage
from tierform.simulation.stages import Timed
from tierform.workload.graph import StageKind

SOFTWARE, CLOCK = "software", "power limit"


def limits_view(run: Run) -> dict[str, Any] | None:
    """None for a pipeline of chips, which has several schedules."""
    if run.pipeline > 1:
        return None
    found = limits(run)
    path: dict[str, float] = {}
    for made in run.timed:
        for name, seconds in _path(run, made).items():
            path[name] = path.get(name, 0.0) + seconds * made.stage.repeat * run.steps
    gains: dict[str, float] = {}
    for limit in found:
        for name, seconds in limit.gains_s.items():
            gains[name] = gains.get(name, 0.0) + seconds
    return {
        "critical_path_s": dict(sorted(path.items(), key=lambda item: -item[1])),
        "stages": [asdict(limit) for limit in found],
        "sentence": _sentence(gains, fsum(limit.seconds for limit in found)),
    }


def _path(run: Run, made: Timed) -> dict[str, float]:
    """Seconds of one pass by what they were spent on; they sum to its time."""
    chunks = 1 if made.stage.kind is StageKind.UPDATE else run.mapping.chunks
    runs = [[(segment.layer, segment.count) for segment in wave] for wave in made.waves]
    micro = [wave.micro_batches for wave in made.stage.waves]
    found: dict[str, float] = {}
    scheduled = 0.0
    if any(runs):
        made_again = schedule_stage(runs, micro, chunks, record=True)
        scheduled = made_again.makespan_s
        found = {WRITING if name == PROGRAMMING else name: spent for name, spent in made_again.critical().items()}
    rest = made.seconds - scheduled
    shared = max(made.busy_s, made.link_s, made.spill_s)
    for name, seconds in (
        (WRITING, made.programming_s),
        (SOFTWARE, made.sampling_s + made.waiting_s),
        (MEMORY, made.fetch_s),
        (NETWORK if made.link_s == shared else MEMORY, max(0.0, shared - scheduled - made.fetch_s)),
    ):
        if seconds > 0:
            found[name] = found.get(name, 0.0) + seconds
            rest -= seconds
    if rest > 1e-12 * made.seconds:  # a board that lowered its clock
        found[CLOCK] = found.get(CLOCK, 0.0) + rest
    return found


def _sentence(gains: dict[str, float], seconds: float) -> str:
    """What would help most, in a sentence."""
    name, gain = max(gains.items(), key=lambda item: item[1], default=("", 0.0))
    if not seconds or gain < 0.02 * seconds:
        return "No single resource limits: what runs side by side is equally busy, or waits for each other."
    return f"Without the time of {name}, {gain / seconds:.0%} of the time would go away."
