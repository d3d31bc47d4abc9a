"""Whether a way has room, and a floor under those that offload something: their bytes' time on the host's link.

A stage takes at least as long as its bytes on the link (:mod:`tierform.simulation.offload`): weights come for both
passes, saved tensors go in the forward pass and come back in the backward pass, gradients go where they are made and
come for the update, states come and go in it.  Of a pipeline the bytes are those of the mean group (the fullest one has
no fewer), without saved tensors.  Pages of a paged optimizer are what the mean group has no room for.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.chip.description import Chip
from tierform.simulation.aside import aside_of
from tierform.simulation.choose import workload_of
from tierform.simulation.job import Job
from tierform.simulation.offload import Host, host_of
from tierform.simulation.traffic import MemoryBehind
from tierform.workload.graph import Workload
from tierform.workload.offloaded import OFFLOADS, PAGED
from tierform.workload.parallel import MicroBatches
from tierform.workload.task import FineTuning, Inference

_OPTIMIZER = OFFLOADS[PAGED]


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
    states = {
        part: sum(getattr(block.states, part) * block.layers for block in workload.memory) / groups
        for part in ("weights", "adapters", "gradients", *_OPTIMIZER)
    }
    saved_B = float(workload.footprint.activations) if groups == 1 else 0.0
    near_B = min(saved_B, _used_B(workload)) if "activations" in away else saved_B
    gone = {part for name in away if name != PAGED for part in OFFLOADS[name]}
    weights_B, gradients_B = (states[part] if part in gone else 0.0 for part in ("weights", "gradients"))
    optimizer_B = sum(states[part] for part in _OPTIMIZER)
    if PAGED in away:
        kept_B = near_B + sum(size for part, size in states.items() if part not in gone and part not in _OPTIMIZER)
        optimizer_B = max(0.0, optimizer_B - max(0.0, capacity_B - kept_B))
    elif "optimizer" not in away:
        optimizer_B = 0.0
    comes, goes = host.file.read_bandwidth.value, host.file.write_bandwidth.value
    saved_B -= near_B
    forward_s = max(weights_B / comes, saved_B / goes)
    backward_s = max((weights_B + saved_B) / comes, gradients_B / goes)
    return forward_s + backward_s, max((gradients_B + optimizer_B) / comes, optimizer_B / goes)


def _used_B(workload: Workload) -> float:
    """What of the saved tensors stays: two layers of them, and the workspace."""
    workspace = max((block.workspace_B for block in workload.memory), default=0)
    return workspace + 2.0 * max((max(block.saved_B, default=0) for block in workload.memory), default=0)
