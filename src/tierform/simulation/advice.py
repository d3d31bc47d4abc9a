"""What would help where a task does not fit: single changes, each with the memory that it would need.

Every change is expanded as the task itself was and its footprint taken with layers shared evenly; nothing is timed.
Those that fit come first, the ones that change least before others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tierform.chip.description import Chip
from tierform.errors import TierformError
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.job import Job
from tierform.units import format_quantity
from tierform.workload import Model, Task, expand
from tierform.workload.autograd import NONE, Habits
from tierform.workload.expand import AttentionMemory
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.recomputation import RECOMPUTATIONS
from tierform.workload.task import FineTuning, Full, Inference, LoRA, QLoRA, resolved_precision

MOST = 6  # changes that are told


def advice(job: Job, task: Task | None, error: DoesNotFit, attention: AttentionMemory, habits: Habits = NONE) -> str:
    """One sentence for people; empty where no single change is smaller.  `task` is the job's in the chip's formats."""
    if not isinstance(job.model, Model) or task is None or not isinstance(job.chip, Chip):
        return ""
    split = job.micro_batches
    parts = split if isinstance(split, MicroBatches) else MicroBatches(split or 1, split or 1, split or 1)
    found: list[tuple[bool, str]] = []
    for text, changed, parallelism in changes(task, job.parallelism, job.chip):
        try:
            needed = _needed_B(job.model, changed, parts, parallelism, attention, habits)
        except TierformError:
            continue  # the model cannot be shared so, or the task has another mistake
        if needed >= error.needed_B:
            continue
        over = needed - error.available_B
        tail = f", still {format_quantity(over, 'B')} too much" if over > 0 else ""
        found.append((over > 0, f"{text} ({format_quantity(needed, 'B')}{tail})"))
    if not found:
        return ""
    fits = [text for short, text in found if not short]
    return f"What would help: {'; '.join((fits or [text for _, text in found])[:MOST])}."


def _needed_B(
    model: Model,
    task: Task,
    parts: MicroBatches,
    parallelism: Parallelism,
    attention: AttentionMemory,
    habits: Habits,
) -> int:
    batch = task.batch // parallelism.data
    few = MicroBatches(*(min(number, batch) for number in (parts.prefill, parts.decode, parts.training)))
    return expand(model, task, few, parallelism=parallelism, attention=attention, habits=habits).footprint.total


def changes(task: Task, split: Parallelism, chip: Chip) -> Iterator[tuple[str, Task, Parallelism]]:
    """(what to write, the task, the split) of every single change, those that cost least first."""
    if isinstance(task, FineTuning):
        done = task.recomputation.partition(":")[0]
        for mode in RECOMPUTATIONS[RECOMPUTATIONS.index(done) + (":" not in task.recomputation) :]:
            if mode != "none":
                yield f"recomputation={mode}", replace(task, recomputation=mode), split
        if not task.fused_update and task.gradient_accumulation == split.copies == split.pipeline == 1:
            yield "fused_update=true", replace(task, fused_update=True), split
        if not task.fused_loss:
            yield "fused_loss=true", replace(task, fused_loss=True), split
        if split.copies > 1:
            for zero in range(split.zero + 1, 4):
                yield f"zero={zero}", task, replace(split, zero=zero)
        if task.optimizer == "adamw":
            yield "optimizer=adamw-8bit", replace(task, optimizer="adamw-8bit"), split
        if task.batch % (2 * split.data) == 0:
            half = replace(task, batch=task.batch // 2, gradient_accumulation=task.gradient_accumulation * 2)
            yield f"batch={half.batch}, gradient_accumulation={half.gradient_accumulation}", half, split
    if isinstance(task, Inference):
        if task.batch % (2 * split.data) == 0:
            yield f"batch={task.batch // 2}", replace(task, batch=task.batch // 2), split
        plan = resolved_precision(task)
        for name, form in (("kv_cache", "fp8"), ("weights", "int4")):
            yield f"{name}={form}", replace(task, precision=replace(plan, **{name: form})), split
    if chip.cluster is not None:
        yield f"tensor={split.tensor * 2}", task, replace(split, tensor=split.tensor * 2)
        yield f"pipeline={split.pipeline * 2}", task, replace(split, pipeline=split.pipeline * 2)
    if isinstance(task, FineTuning):
        if split.data == 1 and chip.cluster is not None and task.batch % 8 == 0:
            yield "data=8, zero=3", task, replace(split, data=8, zero=3)
        if isinstance(task.method, Full):
            yield "method=lora", replace(task, method=LoRA()), split
            yield "method=qlora", replace(task, method=QLoRA()), split
        elif isinstance(task.method, LoRA):
            targets = task.method.targets
            yield "method=qlora", replace(task, method=QLoRA(task.method.rank, targets)), split
