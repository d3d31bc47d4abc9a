"""The default mapping: static weights to crossbars, dynamic products to arrays, the rest to vector units.

- A product with a weight of the model goes to a component that holds weights in place, when the chip has one; weights
  that learn too (full fine-tuning) stay there and are rewritten at every step.  Adapters never do.
- A chip file's `place` overrides the rule for a class of operators (attention, ffn, head, static, dynamic, adapter,
  other), where the component named can run them.
- Every other product goes to systolic arrays, everything else to vector units; on a homogeneous chip all of it
  goes where it can run.
- Weights are placed crossbar by crossbar, layer after layer.  Spare crossbars replicate the slowest stage.  Layers
  that do not fit are streamed: written into a region of two layers for every pass, with time, energy and wear.  The
  output head goes to crossbars only if it fits beside all layers.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Literal

from tierform.chip.component import Component
from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, fail
from tierform.mapping.plan import INTERCONNECT, Mapping, WeightPlacement, stage_key
from tierform.workload.graph import Workload
from tierform.workload.operator import Kind, Operator, Role

Overflow = Literal["stream", "refuse"]
_PREFERENCE = {"crossbar": 0, "gpu": 1, "systolic": 2, "vector": 3, "pim": 4}
_MAX_REPLICAS = 64
# Parts of a micro-batch's tokens on a pipelined chip: fine enough that filling the pipeline costs little.
CHUNKS = 8


@dataclass(slots=True)
class _Weight:
    """One weight matrix of a block: how many crossbars a copy takes, how many layers have it, how long a pass takes."""

    block: str
    name: str
    crossbars: int
    layers: int
    occupancy_s: float
    trainable: bool
    replicas: int = 1


def default_mapping(
    chip: Chip, workload: Workload, *, overflow: Overflow = "stream", chunks: int | None = None
) -> Mapping:
    """The default rule applied; TierformError when an operator can run nowhere or, with `refuse`, does not fit."""
    assignments: dict[str, str] = {}
    problems: list[Problem] = []
    holder = next((name for name, part in chip.components.items() if hasattr(part, "crossbars_for")), None)
    for stage, block, operator, _ in workload.occurrences():
        key = f"{stage_key(stage.name)}/{block.name}/{operator.name}"
        if key in assignments:
            continue
        name = _choose(chip, operator)
        if name is None:
            problems.append(
                Problem(
                    f"no component of the chip {chip.name!r} can run this operator",
                    key=key,
                    value=operator.kind.value,
                    fix=" ".join([f"The chip has: {', '.join(chip.components)}.", *_reasons(chip, operator)]),
                )
            )
        else:
            assignments[key] = name
    if problems:
        raise TierformError(problems)
    notes: list[str] = []
    placements: tuple[WeightPlacement, ...] = ()
    if holder is not None:
        placements = _place(chip, workload, holder, assignments, overflow, notes)
    return Mapping(
        chip=chip.name,
        assignments=assignments,
        placements=placements,
        micro_batches=workload.stages[0].micro_batches,
        chunks=chunks or (CHUNKS if chip.pipelined else 1),
        notes=tuple(notes),
    )


def _choose(chip: Chip, operator: Operator) -> str | None:
    if operator.kind is Kind.COLLECTIVE:
        return INTERCONNECT
    able = [name for name, part in chip.components.items() if part.supports(operator)]
    for key in _places(operator):
        if chip.place.get(key) in able:
            return chip.place[key]
    return min(able, key=lambda name: _PREFERENCE.get(chip.component_types[name], 9), default=None)


def _places(operator: Operator) -> tuple[str, ...]:
    """The keys of a chip's `place` under which an operator falls, the most particular first."""
    if operator.kind is not Kind.MATMUL:
        return ("other",)
    if operator.part == "adapter":
        return ("adapter", "dynamic")
    if not any(operand.role is Role.WEIGHT for operand in operator.inputs):
        return ("dynamic",)
    return (operator.part, "static")


def _place(
    chip: Chip, workload: Workload, holder: str, assignments: dict[str, str], overflow: Overflow, notes: list[str]
) -> tuple[WeightPlacement, ...]:
    component: Any = chip.components[holder]
    weights = _weights(chip, workload, holder, assignments)
    available = int(component.crossbars)
    copies = 2 if chip.backward_weights == "second-copy" and any(s.name == "backward" for s in workload.stages) else 1
    layers = [weight for weight in weights if not weight.block.startswith("head")]
    needed = copies * sum(weight.crossbars * weight.layers for weight in layers)
    streamed: dict[int, int] = {}
    if needed > available:
        if overflow == "refuse":
            fail(
                f"the model needs {needed:,} crossbars and {chip.name!r} has {available:,}",
                key="weights",
                fix="Use fewer weight bits, another chip, or let weights be streamed (--overflow stream).",
            )
        streamed = _stream(layers, copies, available, chip, assignments, workload, notes)
    kept = [weight for weight in layers if streamed.get(id(weight), 0) < weight.layers or id(weight) in streamed]
    used = copies * sum(w.crossbars * (w.layers - streamed.get(id(w), 0)) for w in layers)
    for weight in weights:
        if weight in layers:
            continue
        extra = copies * weight.crossbars * weight.layers
        if not streamed and used + extra <= available:
            kept.append(weight)
            used += extra
        else:
            notes.append(
                f"{weight.block}/{weight.name} does not fit beside the layers and runs on "
                f"{_elsewhere(chip, workload, holder, weight, assignments)} with its weights read from memory"
            )
    if not streamed:
        _replicate(kept, copies, available - used)
    return _tiles(chip, holder, kept, copies, streamed)


def _weights(chip: Chip, workload: Workload, holder: str, assignments: dict[str, str]) -> list[_Weight]:
    component: Any = chip.components[holder]
    found: dict[tuple[str, str], _Weight] = {}
    described = {(weight.block, weight.name): weight for weight in workload.weights}
    for stage, block, operator, _ in workload.occurrences():
        key = f"{stage_key(stage.name)}/{block.name}/{operator.name}"
        held = any(operand.role is Role.WEIGHT for operand in operator.inputs)  # not so where its gradient is made
        if operator.weight is None or not held or assignments[key] != holder:
            continue
        name = (block.name, operator.weight)
        occupancy = component.cost(operator).occupancy_s
        if name not in found:
            trainable = any(operand.trainable for operand in operator.inputs if operand.role is Role.WEIGHT)
            groups = described[name].groups if name in described else operator.count
            crossbars = component.crossbars_for(operator) // operator.count * groups
            found[name] = _Weight(block.name, operator.weight, crossbars, block.count, occupancy, trainable)
        found[name].occupancy_s = max(found[name].occupancy_s, occupancy)
        found[name].layers = max(found[name].layers, block.count)
    return list(found.values())


def _stream(
    layers: list[_Weight],
    copies: int,
    available: int,
    chip: Chip,
    assignments: dict[str, str],
    workload: Workload,
    notes: list[str],
) -> dict[int, int]:
    """How many layers of each weight are streamed, when not all fit."""
    largest = max(weight.crossbars for weight in layers)
    if copies * largest > available:
        fail(
            f"one weight needs {copies * largest:,} crossbars and {chip.name!r} has {available:,}",
            key="weights",
            fix="Use fewer weight bits or another chip.",
        )
    by_block: dict[str, list[_Weight]] = {}
    for weight in layers:
        by_block.setdefault(weight.block, []).append(weight)
    layer_size = {block: copies * sum(w.crossbars for w in items) for block, items in by_block.items()}
    room = available - min(2 * max(layer_size.values()), available)
    streamed: dict[int, int] = {}
    for block, items in by_block.items():
        fit = min(items[0].layers, room // layer_size[block])
        room -= fit * layer_size[block]
        streamed |= {id(weight): weight.layers - fit for weight in items}
        if fit < items[0].layers:
            notes.append(
                f"{items[0].layers - fit} of {items[0].layers} {block!r} layers do not fit: their weights are written "
                f"to crossbars again for every pass (a layer takes {layer_size[block]:,} of {available:,} crossbars)"
            )
    return streamed


def _elsewhere(chip: Chip, workload: Workload, holder: str, weight: _Weight, assignments: dict[str, str]) -> str:
    """Move a weight's operators to the next component that can run them."""
    moved = ""
    for stage, block, operator, _ in workload.occurrences():
        if block.name != weight.block or operator.weight != weight.name:
            continue
        able = [n for n, part in chip.components.items() if n != holder and part.supports(operator)]
        if not able:
            fail(
                f"the weight {weight.name!r} does not fit and no other component can run it",
                key=operator.name,
                fix="Use fewer weight bits or another chip.",
            )
        moved = min(able, key=lambda name: _PREFERENCE.get(chip.component_types[name], 9))
        key = f"{stage_key(stage.name)}/{block.name}/{operator.name}"
        if assignments[key] == holder:
            assignments[key] = moved
    return moved


def _replicate(weights: list[_Weight], copies: int, spare: int) -> None:
    """Give spare crossbars to the slowest weight, again and again, while a copy in every layer fits."""
    queue = [(-weight.occupancy_s, index) for index, weight in enumerate(weights)]
    heapq.heapify(queue)
    while queue:
        _, index = heapq.heappop(queue)
        weight = weights[index]
        price = copies * weight.crossbars * weight.layers
        if price > spare or weight.replicas >= _MAX_REPLICAS:
            continue
        spare -= price
        weight.replicas += 1
        heapq.heappush(queue, (-weight.occupancy_s / weight.replicas, index))


def _tiles(
    chip: Chip, holder: str, weights: list[_Weight], copies: int, streamed: dict[int, int]
) -> tuple[WeightPlacement, ...]:
    """Fill tiles one after the other, layer by layer; streamed layers share the region that is left."""
    component: Component = chip.components[holder]
    tiles = chip.tiles_of(holder)
    per_tile = int(getattr(component, "crossbars")) // len(tiles)
    places: dict[int, list[tuple[int, ...]]] = {id(weight): [] for weight in weights}
    position = 0
    blocks = list(dict.fromkeys(weight.block for weight in weights))
    for block in blocks:
        members = [weight for weight in weights if weight.block == block]
        for layer in range(max(weight.layers for weight in members)):
            for weight in members:
                if layer >= weight.layers - streamed.get(id(weight), 0):
                    continue
                first, position = position, position + copies * weight.crossbars * weight.replicas
                last = max(first, position - 1)
                places[id(weight)].append(tuple(tiles[i] for i in range(first // per_tile, last // per_tile + 1)))
    result = []
    region = tuple(tiles[position // per_tile :]) or tiles[-1:]
    for weight in weights:
        away = streamed.get(id(weight), 0)
        crossbars = copies * weight.crossbars
        if weight.layers > away:
            result.append(
                WeightPlacement(
                    weight.block,
                    weight.name,
                    holder,
                    crossbars,
                    weight.layers - away,
                    weight.replicas,
                    True,
                    weight.trainable,
                    tuple(places[id(weight)]),
                )
            )
        if away:
            result.append(
                WeightPlacement(
                    weight.block, weight.name, holder, crossbars, away, 1, False, weight.trainable, (region,)
                )
            )
    return tuple(result)


def _reasons(chip: Chip, operator: Operator) -> list[str]:
    """What components that can tell say of why they cannot run the operator."""
    told = [getattr(part, "why_not")(operator) for part in chip.components.values() if hasattr(part, "why_not")]
    return [reason for reason in told if reason]
