"""A teacher's forward pass beside a student's training step.

The teacher reads the same batch, keeps nothing for a backward pass and makes the logits of all tokens, which the loss
compares with the student's: the Kullback-Leibler divergence of two distributions is as many operations again as the
loss on targets (Hinton et al., 2015).  Its weights wait in memory with the student's states.
Limits: one group of pipeline stages; the teacher's logits are not kept for later steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.errors import Problem, TierformError
from tierform.workload.footprint import states_of
from tierform.workload.graph import Stage, StageKind, Wave, Weight
from tierform.workload.layers import Pass
from tierform.workload.layout import Plan, lay_out, weights_of
from tierform.workload.memory import BlockMemory
from tierform.workload.models import load_model
from tierform.workload.task import Distillation, FineTuning, Inference

PREFIX = "teacher."


@dataclass(frozen=True, slots=True)
class Taught:
    """The teacher's stage, its weights and what it keeps."""

    stage: Stage
    weights: tuple[Weight, ...]
    memory: tuple[BlockMemory, ...]


def teaching(plan: Plan, task: FineTuning, p: Pass, repeat: int) -> Taught | None:
    """The teacher's part of a distillation on the student's pass; None for other tasks."""
    if not isinstance(task, Distillation):
        return None
    teacher = load_model(task.teacher)
    problems = []
    if teacher.vocabulary != plan.model.vocabulary:
        what = (
            f"a teacher has its student's vocabulary: {teacher.name} has {teacher.vocabulary:,} tokens, "
            f"{plan.model.name} {plan.model.vocabulary:,}"
        )
        problems.append(Problem(what, key="teacher", value=task.teacher))
    if plan.parallelism.pipeline > 1:
        problems.append(
            Problem("a teacher is not cut into a pipeline", key="pipeline", value=plan.parallelism.pipeline)
        )
    if problems:
        raise TierformError(problems)
    precision = replace(plan.precision, master_weights=None)
    if task.teacher_weights:
        precision = precision.with_weights(task.teacher_weights)
    reads = Inference(task.batch, task.sequence, precision=precision)
    own = replace(plan, model=teacher, task=reads, precision=precision, accumulate=False)
    seen = replace(p, training=False, every_logit=True)
    segments = [replace(segment, name=f"{PREFIX}{segment.name}") for segment in lay_out(own, seen)]
    weights = weights_of(segments)
    memory = tuple(
        BlockMemory(
            segment.name,
            segment.kind,
            segment.count,
            states_of([w for w in weights if w.block == segment.name], reads, precision, 0, plan.parallelism),
            workspace_B=segment.workspace_B,
        )
        for segment in segments
    )
    blocks = tuple(segment.forward() for segment in segments if segment.layout.tape.operators)
    return Taught(Stage("teacher", StageKind.TEACHER, (Wave(blocks, 1, 0),), repeat), weights, memory)
