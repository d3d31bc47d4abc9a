"""What a chip cannot do for a workload: hold weights nowhere, or compute in formats that it does not have."""

from __future__ import annotations

from collections.abc import Sequence

from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.mapping.plan import WeightPlacement, assignment_key
from tierform.units import format_quantity
from tierform.workload.graph import StageKind, Workload


def copies_of(chip: Chip, workload: Workload) -> int:
    """Copies of a weight in crossbars: 2 where the backward pass reads a transposed one of its own."""
    second = chip.backward_weights == "second-copy"
    return 2 if second and any(stage.kind is StageKind.BACKWARD for stage in workload.stages) else 1


def require_memory(chip: Chip, workload: Workload, placements: Sequence[WeightPlacement]) -> None:
    """TierformError when a chip without any memory needs weights that are not in crossbars."""
    if chip.memory or chip.can.memories:
        return
    held: dict[tuple[str, str], int] = {}
    for item in placements:
        if item.resident:
            held[item.block, item.weight] = held.get((item.block, item.weight), 0) + item.layers
    away = [
        (weight.size_B * (weight.layers - held.get((weight.block, weight.name), 0)) // weight.layers, weight)
        for weight in workload.weights
        if weight.matrix and held.get((weight.block, weight.name), 0) < weight.layers
    ]
    if away:
        size_B = sum(size for size, _ in away)
        largest = max(away, key=lambda item: item[0])[1]
        fail(
            f"{chip.name!r} has no memory, and {format_quantity(size_B, 'B')} of weights are in no crossbars "
            f"(the largest: {largest.block}/{largest.name})",
            key="memory",
            fix="Add a 'memory' section to the chip file, as in: memory: [{device: hbm2}]",
        )


def format_notes(chip: Chip, workload: Workload, assignments: dict[str, str]) -> tuple[str, ...]:
    """What components make of number formats that they do not have, each once."""
    found: dict[str, None] = {}
    for stage in workload.stages:
        for wave in stage.waves:
            for block in wave.blocks:
                for operator in block.operators:
                    part = chip.can.converters.get(assignments[assignment_key(stage, block, operator)])
                    if part is not None:
                        found[part.conversion(operator)] = None
    return tuple(text for text in found if text)
