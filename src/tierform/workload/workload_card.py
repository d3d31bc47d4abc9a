"""A Workload for people at a Python prompt: one line, and a small card for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.card import Listed, card
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.workload.graph import Workload


def workload_line(workload: Workload) -> str:
    """Model, task, stages and operations."""
    task, stages = workload.task, len(workload.stages)
    return (
        f"<Workload: {workload.model.name}, {type(task).__name__}, batch {task.batch}, sequence {task.sequence}, "
        f"{stages} {'stage' if stages == 1 else 'stages'}, {format_quantity(workload.operations, 'OP')}>"
    )


def workload_card(workload: Workload) -> str:
    """The card as HTML: what each stage does, and what must be kept."""
    task, footprint = workload.task, workload.footprint
    figures = [
        ("parameters", format_quantity(workload.parameters, "")),
        ("learn", format_quantity(workload.trainable_parameters, "")),
        ("operations", format_quantity(workload.operations, "OP")),
        ("memory", format_quantity(footprint.total, "B")),
    ]
    if workload.parallelism.chips > 1:
        figures.append(("chips", str(workload.parallelism.chips)))
    stages = []
    for stage in workload.stages:
        distinct = sum(len(block.operators) for block in stage.blocks)
        layers = ", ".join(f"{block.count} x {block.name}" for block in stage.blocks)
        counts = (stage.repeat, stage.micro_batches, stage.tokens, distinct)
        stages.append((stage.name, *map(str, counts), layers))
    kept = [(name.replace("_", " "), format_quantity(size, "B")) for name, size in footprint.parts().items() if size]
    tables: list[Listed] = [
        (("stage", "passes", "micro-batches", "new tokens", "operators", "blocks"), stages),
        (("kept in memory", "size"), kept),
    ]
    subtitle = f"{type(task).__name__}, batch {task.batch}, sequence {task.sequence}"
    return card(workload.model.name, subtitle, figures, tables, workload.notes)
