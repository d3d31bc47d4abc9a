"""Whether a way has room, and a floor under those that offload something: their bytes' time on the host's link.

A stage takes at least as long as its bytes on the link (:mod:`tierform.simulation.offload`): weights come for every
pass of every micro-batch, saved tensors go in the forward pass and come back in the backward pass, gradients go where
they are made and come for the update, states come and go in it.  Of a pipeline the bytes are those of the mean group
(the fullest one has no fewer).  Two layers of saved tensors and the workspace stay; what stays of a pipeline's is taken
twice, as its layers are cut by time, not evenly.  Pages of a paged optimizer are what the mean group has no room for.
"""

from __future__ import annotations

from dataclasses import replace
from math import fsum

from tierform.chip.description import Chip
from tierform.simulation.aside import aside_of
from tierform.simulation.choose import workload_of
from tierform.simulation.job import Job
from tierform.simulation.offload import Host, host_of
from tierform.simulation.remember import Bounded
from tierform.simulation.traffic import MemoryBehind, part_of
from tierform.workload.graph import Stage, StageKind, Workload
from tierform.workload.offloaded import OFFLOADS, PAGED
from tierform.workload.operator import Role
from tierform.workload.parallel import MicroBatches
from tierform.workload.task import FineTuning, Inference

_OPTIMIZER = OFFLOADS[PAGED]
PASSES = (StageKind.FORWARD, StageKind.BACKWARD)
_moved: Bounded = Bounded(4096)  # number of a stage -> (the stage, what it moves)


def require_room(job: Job) -> None:
    """DoesNotFit where the bytes of one chip, layers shared evenly, find no place; nothing is timed."""
    assert isinstance(job.chip, Chip) and isinstance(job.task, FineTuning | Inference)
    workload = expanded(job)
    host = host_of(job.task, job.chip)
    MemoryBehind(job.chip, host=host).place(workload, workload.footprint, 0, aside_of(workload))


def expanded(job: Job) -> Workload:
    """The job's workload with layers shared evenly."""
    assert isinstance(job.task, FineTuning | Inference)
    number = job.micro_batches if isinstance(job.micro_batches, int) else 1
    # What is offloaded changes no operator: ways that differ in it share the expansion.
    workload = workload_of(replace(job, task=replace(job.task, offload=())), MicroBatches(number, number, number))
    assert isinstance(workload.task, FineTuning | Inference)
    return replace(workload, task=replace(workload.task, offload=job.task.offload))


def link_s(workload: Workload, away: tuple[str, ...], host: Host, capacity_B: float) -> tuple[float, float]:
    """Least seconds of (the forward and backward pass, the update) of training that offloads these parts."""
    groups = workload.parallelism.pipeline
    gone = {part for name in away if name != PAGED for part in OFFLOADS[name]}
    share = _saved_share(workload, groups) if "activations" in gone else 0.0
    passes_s = fsum(
        stage.repeat * _seconds(host, *_crossing(stage, gone, share)) / groups
        for stage in workload.stages
        if stage.kind in PASSES
    )
    states = {
        part: sum(getattr(block.states, part) * block.layers for block in workload.memory) / groups
        for part in ("weights", "adapters", "gradients", *_OPTIMIZER)
    }
    saved_B = float(workload.footprint.activations) if groups == 1 else 0.0
    near_B = min(saved_B, _used_B(workload)) if "activations" in away else saved_B
    optimizer_B = sum(states[part] for part in _OPTIMIZER)
    if PAGED in away:
        kept_B = near_B + sum(size for part, size in states.items() if part not in gone and part not in _OPTIMIZER)
        optimizer_B = max(0.0, optimizer_B - max(0.0, capacity_B - kept_B))
    elif "optimizer" not in away:
        optimizer_B = 0.0
    gradients_B = states["gradients"] if "gradients" in gone else 0.0
    comes, goes = host.file.read_bandwidth.value, host.file.write_bandwidth.value
    return passes_s, max((gradients_B + optimizer_B) / comes, optimizer_B / goes)


def _crossing(stage: Stage, gone: set[str], saved_share: float) -> tuple[float, float]:
    """Bytes that (come, go) over the link in one pass of a stage, all groups together."""
    known = _moved.get(id(stage))
    if known is None or known[0] is not stage:
        known = _moved[id(stage)] = (stage, _moved_B(stage))
    by_part, saved_B = known[1]
    comes = fsum(comes for part, (comes, _) in by_part.items() if part in gone)
    goes = fsum(goes for part, (_, goes) in by_part.items() if part in gone)
    back = stage.kind is StageKind.BACKWARD
    return comes + saved_share * saved_B * back, goes + saved_share * saved_B * (not back)


def _moved_B(stage: Stage) -> tuple[dict[str, tuple[float, float]], float]:
    """({part: bytes that (are read, are written)}, bytes of saved tensors) of one pass of a stage."""
    by_part: dict[str, tuple[float, float]] = {}
    saved_B = 0.0
    for wave in stage.waves:
        for block in wave.blocks:
            times = block.count * wave.micro_batches
            saved_B += times * sum(size_B for _, size_B in block.saved)
            for operator in block.operators:
                for operands, is_read in ((operator.inputs, True), (operator.outputs, False)):
                    for operand in operands:
                        part = part_of(operator, operand)
                        if part:
                            looked_up = operator.looks_up and operand.role is Role.WEIGHT
                            moved_B = times * (operator.read_B if looked_up else operator.count * operand.size_B)
                            read_B, written_B = by_part.get(part, (0.0, 0.0))
                            by_part[part] = (read_B + moved_B * is_read, written_B + moved_B * (not is_read))
    return by_part, saved_B


def _seconds(host: Host, comes_B: float, goes_B: float) -> float:
    """As a stage is charged: the share of reads to two places."""
    total_B = comes_B + goes_B
    if total_B <= 0:
        return 0.0
    return total_B / host.effective_bandwidth_B_per_s("stream", round(comes_B / total_B, 2))


def _saved_share(workload: Workload, groups: int) -> float:
    """The share of the saved tensors that leaves at least."""
    saved_B = float(workload.footprint.activations)
    used_B = _used_B(workload) * (2 if groups > 1 else 1)
    return max(0.0, saved_B - used_B) / max(1.0, saved_B)


def _used_B(workload: Workload) -> float:
    """What of the saved tensors stays: two layers of them, and the workspace."""
    workspace = max((block.workspace_B for block in workload.memory), default=0)
    return workspace + 2.0 * max((max(block.saved_B, default=0) for block in workload.memory), default=0)
