"""Who runs what by default.

- A product with a weight of the model goes to a component that holds weights in place, when the chip has one; weights
  that learn too (full fine-tuning) stay there and are rewritten at every step.  Adapters never do.
- A chip file's `place` overrides the rule for a class of operators (attention, ffn, head, static, dynamic, adapter,
  other), where the component named can run them.
- What is light stays where its input was made, if that component can run it.
- All else goes to the component that runs it fastest.

Nothing depends on the names of components or on their order in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Literal

from tierform.chip.component import Component, Explainer
from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.mapping.fastest import fastest
from tierform.mapping.limits import format_notes, require_memory
from tierform.mapping.place import place_weights
from tierform.mapping.plan import INTERCONNECT, Mapping, assignment_key, task_words
from tierform.workload.graph import Block, Stage, Workload
from tierform.workload.operator import Kind, Operator, Role
from tierform.workload.parallel import MicroBatches

Overflow = Literal["stream", "refuse"]
# Parts of a micro-batch's tokens on a pipelined chip: fine enough that filling the pipeline costs little.
CHUNKS = 8


def default_mapping(
    chip: Chip,
    workload: Workload,
    *,
    overflow: Overflow = "stream",
    micro_batches: MicroBatches | None = None,
    chunks: int | None = None,
    replicate: bool = True,
    beside: AbstractSet[tuple[str, str]] = frozenset(),
) -> Mapping:
    """The default rule applied; TierformError when an operator can run nowhere or, with `refuse`, does not fit.

    `replicate` fills spare crossbars with copies of the slowest weights.  Weights `beside` the crossbars, by block and
    name, are read from memory by another component, where one can run their products.
    """
    assignments = assign(chip, workload.stages, _without_crossbars(chip, workload, beside))
    notes: list[str] = []
    placements = place_weights(chip, workload, assignments, notes, refuse=overflow == "refuse", replicate=replicate)
    require_memory(chip, workload, placements)
    return Mapping(
        chip=chip.name,
        model=workload.model.name,
        task=task_words(workload.task),
        assignments=assignments,
        placements=placements,
        micro_batches=micro_batches or MicroBatches(),
        chunks=chunks or (CHUNKS if chip.pipelined else 1),
        notes=(*notes, *format_notes(chip, workload, assignments)),
    )


def weights_left_open(
    chip: Chip, workload: Workload, weights: AbstractSet[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Those of these weights, by block and name, whose products the chip leaves open and others can run."""
    return frozenset((block.name, operator.weight or "") for _, block, operator, _ in _open(chip, workload, weights))


def _without_crossbars(chip: Chip, workload: Workload, weights: AbstractSet[tuple[str, str]]) -> dict[str, str]:
    """The fastest component that holds no weights, for each product of these weights that the chip leaves open."""
    found: dict[str, str] = {}
    for stage, block, operator, able in _open(chip, workload, weights):
        found.setdefault(assignment_key(stage, block, operator), fastest(able, operator))
    return found


def _open(
    chip: Chip, workload: Workload, weights: AbstractSet[tuple[str, str]]
) -> Iterator[tuple[Stage, Block, Operator, dict[str, Component]]]:
    """The products of these weights for which the chip names no place, and components without cells that run them."""
    others = {name: part for name, part in chip.components.items() if name not in chip.can.holders}
    for stage in workload.stages if weights else ():
        for block, operator in ((b, o) for wave in stage.waves for b in wave.blocks for o in b.operators):
            if operator.kind is not Kind.MATMUL or (block.name, operator.weight) not in weights:
                continue
            if any(chip.place.get(place) in chip.components for place in _places(operator)):
                continue
            able = {name: part for name, part in others.items() if part.supports(operator)}
            if able:
                yield stage, block, operator, able


def completed(mapping: Mapping, chip: Chip, workload: Workload) -> Mapping:
    """The mapping for a workload of the same task in other micro-batches, which may have a few more operators."""
    found = assign(chip, workload.stages, mapping.assignments)
    return mapping if len(found) == len(mapping.assignments) else replace(mapping, assignments=found)


def assign(chip: Chip, stages: Iterable[Stage], given: dict[str, str]) -> dict[str, str]:
    """The component of every operator: as `given`, else by the rule; TierformError where one can run nowhere."""
    assignments = dict(given)
    problems: list[Problem] = []
    chosen: dict[object, str | None] = {}
    for stage in stages:
        for wave in stage.waves:
            for block in wave.blocks:
                made: dict[str, str] = {}
                for operator in block.operators:
                    key = assignment_key(stage, block, operator)
                    name = assignments.get(key) or _choose(chip, operator, made, chosen)
                    if name is None:
                        problems.append(_nowhere(chip, operator, key))
                        continue
                    made[operator.name] = assignments[key] = name
    if problems:
        raise TierformError(dict.fromkeys(problems))
    return assignments


def _choose(chip: Chip, operator: Operator, made: dict[str, str], known: dict[object, str | None]) -> str | None:
    if operator.kind is Kind.COLLECTIVE:
        return INTERCONNECT
    here = ""
    if operator.kind is not Kind.MATMUL:
        before = [made[name] for name in operator.after if name in made]
        here = next((name for name in before if name in chip.components), "")
    key = (operator.shape_key, operator.part, operator.weight is None, here)
    if key not in known:
        known[key] = _best(chip, operator, here)
    return known[key]


def _best(chip: Chip, operator: Operator, here: str) -> str | None:
    able = {name: part for name, part in chip.components.items() if part.supports(operator)}
    for place in _places(operator):
        if chip.place.get(place) in able:
            return chip.place[place]
    if here in able:
        return here
    if not able:
        return None
    if operator.kind is Kind.MATMUL and operator.part != "adapter" and _has_weight(operator):
        holders = {name: part for name, part in able.items() if name in chip.can.holders}
        able = holders or able
    return fastest(able, operator)


def _has_weight(operator: Operator) -> bool:
    return operator.weight is not None and any(operand.role is Role.WEIGHT for operand in operator.inputs)


def _places(operator: Operator) -> tuple[str, ...]:
    """The keys of a chip's `place` under which an operator falls, the most particular first."""
    if operator.kind is not Kind.MATMUL:
        return ("other",)
    if operator.part == "adapter":
        return ("adapter", "dynamic")
    if not any(operand.role is Role.WEIGHT for operand in operator.inputs):
        return ("dynamic",)
    return (operator.part, "static")


def _nowhere(chip: Chip, operator: Operator, key: str) -> Problem:
    told = [part.why_not(operator) for part in chip.components.values() if isinstance(part, Explainer)]
    reasons = [reason for reason in told if reason]
    return Problem(
        f"no component of the chip {chip.name!r} can run this operator",
        key=key,
        value=operator.kind.value,
        fix=" ".join([f"The chip has: {', '.join(chip.components)}.", *reasons]),
    )
