"""How long each stage takes on a mapped chip, and what it moves: everything but the booking.

A stage takes as long as its schedule; where its traffic needs longer than that on the busiest link, on the memory or on
a tier beyond it, it takes that long.  Experts that are fetched once the router has chosen them are waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.mapping import Mapping
from tierform.simulation.costing import Costing
from tierform.simulation.execution import Segment
from tierform.simulation.pipeline import (
    Bounds,
    Run,
    cut_by_time,
    parts_of_run,
    schedule_groups,
    schedule_interleaved,
    side_by_side,
)
from tierform.simulation.power_cap import held_to_limit
from tierform.simulation.schedule import StageSchedule, schedule_stage
from tierform.simulation.traffic import NOTHING, Traffic
from tierform.workload.graph import Block, Stage, StageKind, Workload
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind
from tierform.workload.sharding import kept_numbers

Floats = NDArray[np.float64]
# Micro-batches, a mapping or a schedule are preferred to simpler ones only when they gain more than this share.
WORTHWHILE = 1e-3


@dataclass(slots=True)
class Timed:
    """One pass of a stage: its waves of segments, its schedule, its traffic by pass, and its time.

    `parted_s`: what components take more, all together, since tokens come to them in parts.
    """

    stage: Stage
    waves: list[list[Segment]]
    schedule: StageSchedule
    moved: Traffic = NOTHING
    spilled: dict[int, Traffic] = field(default_factory=dict)
    busy_s: float = 0.0
    seconds: float = 0.0
    send_B: float = 0.0
    sends: int = 0
    send_s: tuple[float, float] = (0.0, 0.0)
    programming_s: float = 0.0
    clock: float = 1.0
    sampling_s: float = 0.0
    waiting_s: float = 0.0
    gaps_s: float = 0.0
    issue_s: float = 0.0
    link_s: float = 0.0
    spill_s: float = 0.0
    fetch_s: float = 0.0
    parted_s: float = 0.0


class Stages:
    """The stages of a workload on a mapped chip."""

    def __init__(
        self,
        costing: Costing,
        workload: Workload,
        mapping: Mapping,
        *,
        record: bool = False,
        apart: set[StageKind] | None = None,
    ) -> None:
        """`apart` gathers the kinds of stages in which parts of tokens were faster than all of them together.

        Larger parts make that no other, so that it is asked once for the trials of a job, the first of which has the
        smallest parts.
        """
        self.costing, self.workload, self.mapping, self.record = costing, workload, mapping, record
        self.apart = set() if apart is None else apart
        self.groups = workload.parallelism.pipeline
        self.bounds: Bounds = ()
        self.overlaps = costing.chip.pipelined

    def all(self) -> list[Timed]:
        """Every stage, in order."""
        segmented = [self._segments(stage) for stage in self.workload.stages]
        if self.groups > 1:
            self.bounds = self._cut(segmented)
        return [self._best(stage, waves) for stage, waves in zip(self.workload.stages, segmented, strict=True)]

    def _segments(self, stage: Stage, whole: AbstractSet[str] = frozenset()) -> list[list[Segment]]:
        return [self.costing.segments(stage, wave, whole) for wave in stage.waves]

    def _best(self, stage: Stage, waves: list[list[Segment]]) -> Timed:
        """A stage with tokens in parts; where components pay for the parts, they take them together if that is faster.

        No schedule gets shorter by more than its steps do, so that little of it is not tried.
        """
        made = self._timed(stage, waves)
        paid: dict[str, float] = {}
        for wave, segments in zip(stage.waves, waves, strict=True):
            for segment in segments:
                for item in segment.executions:
                    if item.parted_s > 0:
                        more_s = item.parted_s * segment.count * wave.micro_batches
                        paid[item.component] = paid.get(item.component, 0.0) + more_s
        made.parted_s = fsum(paid.values())
        if made.parted_s <= WORTHWHILE * made.seconds or stage.kind in self.apart:
            return made
        together = self._timed(stage, self._segments(stage, paid.keys()))
        together.parted_s = made.parted_s
        if made.seconds <= together.seconds:
            self.apart.add(stage.kind)
            return made
        return together

    @property
    def cut(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each part of the pipeline its blocks and how many layers of each it has."""
        if not self.bounds:
            return (tuple((block.name, block.count) for block in self.workload.stages[0].blocks),)
        groups, first = [], 0
        for end in self.bounds:
            part, start = [], 0
            for block in self.workload.stages[0].blocks:
                inside = min(end, start + block.count) - max(first, start)
                if inside > 0:
                    part.append((block.name, inside))
                start += block.count
            groups.append(tuple(part))
            first = end
        return tuple(groups)

    def groups_with(self, block: Block) -> float:
        """How often a block is done over all pipeline groups: every group reduces the gradients of its layers."""
        if block.kind is not BlockKind.GRADIENTS or not self.bounds:
            return 1.0
        if block.operators[0].weight is not None:  # of copies of a tied weight
            return float(block.operators[0].participants)
        partial = not block.operators[0].copies
        split = self.workload.parallelism
        members = block.operators[0].participants
        learned = [
            w
            for w in self.workload.weights
            if w.trainable and (w.partial if partial else split.copies // w.spread == members)
        ]
        copies = (
            split.copies if split.zero > partial else 1
        )  # partial sums are added before states of stage 1 are shared
        numbers = sum(kept_numbers(w, copies) * w.layers for w in learned)
        reduced = sum(min(o.elements for o in (*op.inputs, *op.outputs)) for op in block.operators)
        return numbers / reduced if reduced else 1.0

    def _cut(self, segmented: list[list[list[Segment]]]) -> Bounds:
        """Cut the layers by the time that one takes, forward and backward together."""
        chunks = self.mapping.chunks
        seconds: dict[str, float] = {}
        for stage, waves in zip(self.workload.stages, segmented, strict=True):
            if stage.kind is StageKind.UPDATE:
                continue
            for segment in waves[0]:
                one = schedule_stage([[(segment.layer, 1)]], (1,), chunks).makespan_s
                seconds[segment.block.name] = seconds.get(segment.block.name, 0.0) + one * stage.repeat
        blocks = self.workload.stages[0].blocks
        return cut_by_time(
            [(seconds.get(b.name, 0.0), b.count, b.kind is BlockKind.LAYER) for b in blocks],
            self.workload.parallelism.parts,
        )

    def _timed(self, stage: Stage, waves: list[list[Segment]]) -> Timed:
        made = Timed(stage, waves, StageSchedule(0.0))
        if self.groups > 1 and stage.kind is not StageKind.UPDATE:
            made.send_B = float(_handed_on_B(waves[0]))
            made.sends = (self.workload.parallelism.parts - 1) * stage.micro_batches
            # Groups are as far apart as a tensor group and its copies.
            split = self.workload.parallelism
            made.send_s = self.costing.interconnect.send(made.send_B, split.tensor * split.copies)[:2]
        made.schedule = self.schedule(made, waves, made.send_s, record=self.record)
        self._traffic(made)
        return made

    def schedule(
        self, made: Timed, waves: list[list[Segment]], send_s: tuple[float, float], *, record: bool = False
    ) -> StageSchedule:
        """The schedule of a pass with the layers of `waves` and sends of (time on the link, latency)."""
        stage = made.stage
        update = stage.kind is StageKind.UPDATE
        chunks = 1 if update else self.mapping.chunks
        micro = [wave.micro_batches for wave in stage.waves]
        runs = [[(segment.layer, segment.count) for segment in segments] for segments in waves]
        if self.groups > 1 and update:
            parts = self._update_parts(waves[0])
            return side_by_side(parts, chunks) if any(parts) else StageSchedule(0.0)
        if self.groups > 1:
            return self._passed_on([self._grouped(stage, run) for run in runs], micro, chunks, send_s)
        return schedule_stage(runs, micro, chunks, record=record) if any(runs) else StageSchedule(0.0)

    def shared_s(self, made: Timed) -> float:
        """Seconds that a pass takes at least: on the memory, the busiest link, or a tier beyond the memory."""
        return max(made.busy_s, made.link_s, made.spill_s) / self.groups

    def _passed_on(
        self, grouped: list[list[Run]], micro: list[int], chunks: int, send: tuple[float, float]
    ) -> StageSchedule:
        if self.workload.parallelism.interleave > 1:
            return schedule_interleaved(grouped, micro, chunks, send, self.groups, overlap=self.overlaps)
        return schedule_groups(grouped, micro, chunks, send, overlap=self.overlaps)

    def _update_parts(self, segments: list[Segment]) -> list[Run]:
        """What each group does in the update: its layers, and the collectives of all groups, each of its own."""
        begin, at = {}, 0
        for block in self.workload.stages[0].blocks:
            begin[block.name] = at
            at += block.count
        parts: list[Run] = [[] for _ in range(self.groups)]
        edges = list(pairwise((0, *self.bounds)))
        for segment in segments:
            name = segment.block.name
            for number, (first, last) in enumerate(edges):
                if segment.block.kind is BlockKind.GRADIENTS:
                    inside = int(number < self.groups)
                else:
                    inside = min(last, begin[name] + segment.count) - max(first, begin[name])
                if inside > 0:
                    parts[number % self.groups].append((segment.layer, inside))
            if segment.block.kind is not BlockKind.GRADIENTS:
                begin[name] += segment.count
        return parts

    def _grouped(self, stage: Stage, run: list) -> list:  # type: ignore[type-arg]
        return parts_of_run(run, self.bounds, reverse=stage.kind is StageKind.BACKWARD)

    def _traffic(self, made: Timed) -> None:
        """Sum the traffic of a pass and lengthen the stage where it needs longer than the schedule."""
        memory, fabric = self.costing.memory, self.costing.fabric
        read = write = 0.0
        spilling, late = memory.has_spilled, dict[int, Traffic]()
        links = np.zeros(len(fabric.link_B_per_s))
        for wave, segments in zip(made.stage.waves, made.waves, strict=True):
            for segment in segments:
                times = segment.count * wave.micro_batches
                fetched = memory.fetched([item.operator for item in segment.executions])
                for item in segment.executions:
                    read += item.traffic.read_B * times
                    write += item.traffic.write_B * times
                    own = fetched.get(item.operator.weight or "")
                    for tier, moved in memory.spilled(item.operator, own).items() if spilling else ():
                        made.spilled[tier] = made.spilled.get(tier, NOTHING) + moved.times(times)
                    for tier, moved in memory.late(item.operator, own).items() if own is not None else ():
                        late[tier] = late.get(tier, NOTHING) + moved.times(times)
                    for move in item.moves:
                        links += move.route.link_share * (move.size_B * times)
        forward = made.stage.kind is StageKind.FORWARD
        for wave in made.stage.waves if forward or made.stage.kind is StageKind.BACKWARD else ():
            saved = sum(size * block.count for block in wave.blocks for _, size in block.saved) * wave.micro_batches
            moved = Traffic(0.0, saved) if forward else Traffic(saved, 0.0)
            for tier, away in memory.spilled_saved(moved).items():
                made.spilled[tier] = made.spilled.get(tier, NOTHING) + away
        moved = Traffic(read, write)
        if memory.nearest is not None:
            away = sum(made.spilled.values(), NOTHING)
            moved = Traffic(max(0.0, moved.read_B - away.read_B), max(0.0, moved.write_B - away.write_B))
        made.moved = moved
        made.busy_s = memory.busy_s(moved)
        made.spill_s = max((memory.spill_cost(tier, moved)[1] for tier, moved in made.spilled.items()), default=0.0)
        fetch_s = max((memory.spill_cost(tier, moved)[1] for tier, moved in late.items()), default=0.0)
        made.fetch_s = fetch_s / self.groups
        made.link_s = float((links / fabric.link_B_per_s).max()) if links.size else 0.0
        made.seconds = max(made.schedule.makespan_s + made.fetch_s, self.shared_s(made))
        if made.stage.kind is StageKind.UPDATE:
            made.programming_s = self._programming_s()
            made.seconds += made.programming_s
        self._hold_power(made)
        added = self.costing.software.pass_of(made.stage, made.waves, self.workload, made.seconds)
        made.sampling_s, made.waiting_s = added.sampling_s, added.waiting_s
        made.gaps_s, made.issue_s = added.gaps_s, added.issue_s
        made.seconds += added.sampling_s + added.waiting_s

    def _hold_power(self, made: Timed) -> None:
        """Lower the clock of boards that would exceed their limit over this pass."""
        executions = [
            (item, float(segment.count * wave.micro_batches * self.groups_with(segment.block)))
            for wave, segments in zip(made.stage.waves, made.waves, strict=True)
            for segment in segments
            for item in segment.executions
        ]
        for name, board in self.costing.chip.can.boards.items():
            clock, made.seconds = held_to_limit(name, board, executions, made.seconds, self.groups)
            made.clock = min(made.clock, clock)

    def _programming_s(self) -> float:
        """Time in which weights that learn and sit in crossbars are written anew; holders write side by side."""
        times = [0.0]
        for name, part in self.costing.chip.can.holders.items():
            crossbars = learning_crossbars(self.mapping, name)
            if crossbars:
                times.append(part.programming_cost(crossbars).latency_s)
        return max(times)


def learning_crossbars(mapping: Mapping, component: str) -> int:
    """Crossbars of a component whose weights learn."""
    learning = [p for p in mapping.placements if p.trainable and p.resident and p.component == component]
    return sum(placement.total_crossbars for placement in learning)


def held_B(workload: Workload, mapping: Mapping) -> int:
    """Bytes of weights that sit in crossbars and need no memory."""
    resident = {(item.block, item.weight): item.layers for item in mapping.placements if item.resident}
    seen: dict[tuple[str, str], int] = {}
    for stage in workload.stages:
        for block in stage.blocks:
            for operator in block.operators:
                key = (block.name, operator.weight or "")
                if operator.kind is Kind.MATMUL and key in resident and key not in seen and operator.weight_B:
                    seen[key] = operator.weight_B * resident[key]
    return sum(seen.values())


def _handed_on_B(segments: Sequence[Segment]) -> int:
    """Bytes that a layer hands to the next."""
    longest = max(segments, key=lambda segment: segment.count)
    return longest.executions[longest.layer.output].operator.output_B
