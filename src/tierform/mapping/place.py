"""Where weights sit: crossbar by crossbar, layer after layer, on every component that holds weights.

Each holder has its own size.  Weights that do not fit on the holder of choice go to another one with room; layers that
fit nowhere are streamed: written into a region of two layers for every pass, with time, energy and wear.  The output
head goes to crossbars only if it fits beside all layers, or if nothing else can run it.  Spare crossbars replicate the
slowest weights; weights that learn are not replicated: every copy would be rewritten, and wear, at every update.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierform.chip.component import Component, WeightHolder
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.mapping.fastest import fastest
from tierform.mapping.limits import copies_of
from tierform.mapping.plan import WeightPlacement, assignment_key
from tierform.workload.graph import Workload
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operator, Role

MAX_REPLICAS = 64


@dataclass(slots=True)
class HeldWeight:
    """One weight matrix of a block: crossbars of a copy, layers that have it, the time of a pass, its operators."""

    block: str
    name: str
    head: bool
    crossbars: int
    layers: int
    occupancy_s: float
    trainable: bool
    operators: list[tuple[str, Operator]]
    replicas: int = 1
    streamed: int = 0

    @property
    def all_layers(self) -> int:
        """Crossbars of one copy in every layer."""
        return self.crossbars * self.layers


def place_weights(
    chip: Chip, workload: Workload, assignments: dict[str, str], notes: list[str], *, refuse: bool, replicate: bool
) -> tuple[WeightPlacement, ...]:
    """Placements on all holders.  Moves operators in `assignments` whose weight does not fit; adds `notes`."""
    holders = chip.can.holders
    if not holders:
        return ()
    copies = copies_of(chip, workload)
    found = weights_on(workload, holders, assignments)
    _share_out(found, holders, copies, assignments)
    placements: list[WeightPlacement] = []
    for name, holder in holders.items():
        placements += _Placing(chip, name, holder, copies, found[name], notes).place(
            assignments, refuse=refuse, replicate=replicate
        )
    return tuple(placements)


def weights_on(
    workload: Workload, holders: dict[str, WeightHolder], assignments: dict[str, str]
) -> dict[str, list[HeldWeight]]:
    """The weights whose products run on each holder."""
    found: dict[tuple[str, str, str], HeldWeight] = {}
    described = {(weight.block, weight.name): weight for weight in workload.weights}
    costs: dict[tuple[str, object], float] = {}
    for stage in workload.stages:
        for wave in stage.waves:
            for block in wave.blocks:
                for operator in block.operators:
                    if operator.weight is None or operator.kind is not Kind.MATMUL:
                        continue
                    held = [operand for operand in operator.inputs if operand.role is Role.WEIGHT]
                    key = assignment_key(stage, block, operator)
                    holder = assignments[key]
                    if not held or holder not in holders:  # no weight among the inputs: its gradient is made
                        continue
                    cost_key = (holder, operator.shape_key)
                    if cost_key not in costs:
                        costs[cost_key] = holders[holder].cost(operator).occupancy_s  # type: ignore[attr-defined]
                    place = (holder, block.name, operator.weight)
                    if place not in found:
                        weight = described.get((block.name, operator.weight))
                        groups = weight.groups if weight is not None else operator.count
                        crossbars = holders[holder].crossbars_for(operator) // operator.count * groups
                        head = block.kind is BlockKind.HEAD
                        learns = any(operand.trainable for operand in held)
                        found[place] = HeldWeight(
                            block=block.name,
                            name=operator.weight,
                            head=head,
                            crossbars=crossbars,
                            layers=block.count,
                            occupancy_s=0.0,
                            trainable=learns,
                            operators=[],
                        )
                    made = found[place]
                    made.operators.append((key, operator))
                    made.occupancy_s = max(made.occupancy_s, costs[cost_key])
                    made.layers = max(made.layers, block.count)
    return {name: [weight for place, weight in found.items() if place[0] == name] for name in holders}


def _share_out(
    found: dict[str, list[HeldWeight]], holders: dict[str, WeightHolder], copies: int, assignments: dict[str, str]
) -> None:
    """Move weights that a full holder cannot take to another one that can run them and has room, last layers first."""
    room = {
        name: holder.crossbars - copies * sum(weight.all_layers for weight in found[name])
        for name, holder in holders.items()
    }
    for name in sorted(holders, key=lambda holder: room[holder]):
        for weight in reversed(list(found[name])):
            if room[name] >= 0:
                break
            for other in sorted(holders, key=lambda holder: -room[holder]):
                part = holders[other]
                if other == name or not all(part.supports(o) for _, o in weight.operators):  # type: ignore[attr-defined]
                    continue
                needed = part.crossbars_for(weight.operators[0][1]) * weight.layers * copies
                if needed <= room[other]:
                    room[name] += copies * weight.all_layers
                    room[other] -= needed
                    weight.crossbars = needed // (weight.layers * copies)
                    found[name].remove(weight)
                    found[other].append(weight)
                    assignments.update((key, other) for key, _ in weight.operators)
                    break


class _Placing:
    """The weights of one holder."""

    def __init__(
        self,
        chip: Chip,
        name: str,
        holder: WeightHolder,
        copies: int,
        weights: list[HeldWeight],
        notes: list[str],
    ) -> None:
        self.chip, self.name, self.holder, self.copies = chip, name, holder, copies
        self.weights, self.notes = weights, notes
        self.available = int(holder.crossbars)

    def place(self, assignments: dict[str, str], *, refuse: bool, replicate: bool) -> list[WeightPlacement]:
        """Resident layers first, then the head, then copies."""
        layers = [weight for weight in self.weights if not weight.head or not self._others(weight)]
        needed = self.copies * sum(weight.all_layers for weight in layers)
        if needed > self.available:
            if refuse:
                fail(
                    f"the model needs {needed:,} crossbars and {self.chip.name!r} has {self.available:,}",
                    key="weights",
                    fix="Use fewer weight bits, another chip, or let weights be streamed (--overflow stream).",
                )
            self._stream(layers)
        used = self.copies * sum(weight.crossbars * (weight.layers - weight.streamed) for weight in layers)
        kept = list(layers)
        streams = any(weight.streamed for weight in layers)
        for weight in self.weights:
            if weight in layers:
                continue
            extra = self.copies * weight.all_layers
            if not streams and used + extra <= self.available:
                kept.append(weight)
                used += extra
            else:
                self._elsewhere(weight, assignments)
        if replicate and not streams:
            self._replicate(kept, self.available - used)
        return self._tiles(kept)

    def _stream(self, layers: list[HeldWeight]) -> None:
        """Decide how many layers of each weight are streamed, when not all fit."""
        largest = max(weight.crossbars for weight in layers)
        if self.copies * largest > self.available:
            fail(
                f"one weight needs {self.copies * largest:,} crossbars and {self.chip.name!r} has {self.available:,}",
                key="weights",
                fix="Use fewer weight bits or another chip.",
            )
        blocks: dict[str, list[HeldWeight]] = {}
        for weight in layers:
            blocks.setdefault(weight.block, []).append(weight)
        size = {block: self.copies * sum(w.crossbars for w in items) for block, items in blocks.items()}
        room = self.available - min(2 * max(size.values()), self.available)
        for block, items in blocks.items():
            fit = min(items[0].layers, room // size[block])
            room -= fit * size[block]
            for weight in items:
                weight.streamed = weight.layers - min(fit, weight.layers)
            if fit < items[0].layers:
                self.notes.append(
                    f"{items[0].layers - fit} of {items[0].layers} {block!r} layers do not fit: their weights are "
                    f"written to crossbars again for every pass (a layer takes {size[block]:,} of {self.available:,} "
                    "crossbars)"
                )

    def _others(self, weight: HeldWeight) -> dict[str, Component]:
        """Components that hold no weights and can run all operators of a weight."""
        parts = self.chip.components.items()
        operators = [operator for _, operator in weight.operators]
        return {
            name: part
            for name, part in parts
            if name not in self.chip.can.holders and all(part.supports(operator) for operator in operators)
        }

    def _elsewhere(self, weight: HeldWeight, assignments: dict[str, str]) -> None:
        """Run a weight's operators on the fastest other component, with the weight read from memory."""
        moved = ""
        able = self._others(weight)
        for key, operator in weight.operators:
            moved = assignments[key] = fastest(able, operator)
        self.notes.append(
            f"{weight.block}/{weight.name} does not fit beside the layers and runs on {moved} with its weights read "
            "from memory"
        )

    def _replicate(self, weights: list[HeldWeight], spare: int) -> None:
        """Give spare crossbars to the slowest weight, again and again, while a copy in every layer fits."""
        fixed = [weight for weight in weights if not weight.trainable]
        if len(fixed) < len(weights) and spare > 0:
            self.notes.append("weights that learn have one copy each: every further one would be rewritten, and wear")
        queue = [(-weight.occupancy_s, index) for index, weight in enumerate(fixed)]
        heapq.heapify(queue)
        while queue:
            _, index = heapq.heappop(queue)
            weight = fixed[index]
            price = self.copies * weight.all_layers
            if price > spare or weight.replicas >= MAX_REPLICAS:
                continue
            spare -= price
            weight.replicas += 1
            heapq.heappush(queue, (-weight.occupancy_s / weight.replicas, index))

    def _tiles(self, weights: Sequence[HeldWeight]) -> list[WeightPlacement]:
        """Fill tiles one after the other, layer by layer; streamed layers share the region that is left."""
        tiles = self.chip.tiles_of(self.name)
        each = self.available / sum(self.chip.units_at(self.name))
        places: dict[int, list[tuple[int, ...]]] = {id(weight): [] for weight in weights}
        position = 0
        for block in dict.fromkeys(weight.block for weight in weights):
            members = [weight for weight in weights if weight.block == block]
            for layer in range(max(weight.layers for weight in members)):
                for weight in members:
                    if layer >= weight.layers - weight.streamed:
                        continue
                    first, position = position, position + self.copies * weight.crossbars * weight.replicas
                    last = max(first + 1, position)
                    places[id(weight)].append(self.chip.tiles_of_units(self.name, first / each, last / each))
        region = self.chip.tiles_of_units(self.name, position / each, math.inf) if position < self.available else ()
        region = region or tiles[-1:]
        result = []
        for weight in weights:
            for resident, layers, replicas, where in (
                (True, weight.layers - weight.streamed, weight.replicas, tuple(places[id(weight)])),
                (False, weight.streamed, 1, (region,)),
            ):
                if layers:
                    result.append(
                        WeightPlacement(
                            block=weight.block,
                            weight=weight.name,
                            component=self.name,
                            crossbars=weight.crossbars,
                            copies=self.copies,
                            layers=layers,
                            replicas=replicas,
                            resident=resident,
                            trainable=weight.trainable,
                            tiles=where,
                        )
                    )
        return result
