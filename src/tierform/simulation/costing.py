"""From operators to executions and to a schedule's layers: each distinct operator is costed once on its component.

The weight of an operator on crossbars gives every layer a resource of its own; all else shares its component.  An
operator without a weight of its own runs where its input was made, if that is on the same component.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import ONCE, Cost, Refetch, Share
from tierform.chip.description import Chip
from tierform.mapping.plan import INTERCONNECT, Mapping, WeightPlacement
from tierform.simulation.collectives import Interconnect
from tierform.simulation.cycle_fidelity import with_measured_transfers
from tierform.simulation.execution import Execution, Move, Segment
from tierform.simulation.fabric import Fabric, Place
from tierform.simulation.facts import BLOCK_INPUT, Facts, facts_of
from tierform.simulation.package_network import ports_of
from tierform.simulation.prefetch import freed_by, pieces
from tierform.simulation.remember import Bounded, Remembered
from tierform.simulation.runtime import Runtime
from tierform.simulation.schedule_layers import Edge, Layer, ScheduledOperator
from tierform.simulation.software import Software, joined, share_of, shares_of
from tierform.simulation.token_parts import ALL_AT_ONCE, TokenParts
from tierform.simulation.traffic import NOTHING, MemoryBehind, Traffic
from tierform.workload.graph import Block, Stage, StageKind, Wave
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operator
from tierform.workload.parallel import Parallelism

Floats = NDArray[np.float64]
MEMORY = "memory"
PROGRAMMING = "programming"
_FREE = Cost(0.0, 0.0)
Fetch = tuple[str, float]
ONE_STEP: tuple[int | None, int] = (None, 1)

_costs = Remembered()  # component -> {(operator, share): cost}
_refetches = Remembered()  # component -> {operator: refetch}
_fused: Bounded = Bounded(4096)  # (component, operators) -> (kernels, component, operators)


class Costing:
    """Costs the operators of a mapped workload."""

    def __init__(
        self,
        chip: Chip,
        mapping: Mapping,
        fabric: Fabric,
        memory: MemoryBehind,
        *,
        resident_B: float,
        runtime: Runtime,
        split: Parallelism,
        cycle: bool = False,
    ) -> None:
        """`resident_B` of adapters are kept in the buffers if they take at most half of them.

        `cycle` simulates transfers cycle by cycle.
        """
        self.chip, self.mapping, self.fabric, self.memory = chip, mapping, fabric, memory
        self.cycle, self.runtime = cycle, runtime
        self.adapters_on_chip = resident_B <= 0.5 * memory.on_chip_B
        self.interconnect = Interconnect(chip, split, direct=runtime.direct_all_reduce)
        self._places = {
            name: fabric.place((chip.tiles_of(name),), units=chip.units_at(name)) for name in chip.components
        }
        self.software = Software(runtime)
        self._fusers = chip.can.fusers if runtime.fuses_operators or runtime.fuses_attention else {}
        self._floors = {name: float(board.active_W) for name, board in chip.can.boards.items()}
        self.floor_W = fsum(self._floors.values())
        self._buffer_B = fsum(part.sram_capacity_B for part in chip.can.buffers.values())
        self._second_copy = chip.backward_weights == "second-copy"
        self._known: dict[str, dict[object, Cost]] = {n: _costs.of(p, dict) for n, p in chip.components.items()}
        self._refetched: dict[str, dict[int, Refetch]] = {
            n: _refetches.of(p, dict) for n, p in chip.can.buffers.items()
        }
        self._placements: dict[tuple[str, str], list[WeightPlacement]] = {}
        for placement in mapping.placements:
            self._placements.setdefault((placement.block, placement.weight), []).append(placement)
        self._streamed_layers: dict[str, int] = {}
        for placement in mapping.placements:
            if not placement.resident:
                most = max(self._streamed_layers.get(placement.block, 0), placement.layers)
                self._streamed_layers[placement.block] = most
        self._placed: dict[int, Place] = {}
        ports = ports_of(chip, chip.memory[0].attached) if chip.memory and memory.nearest is not None else ()
        self.ports = fabric.place((ports,)) if ports else None

    def cost(self, component: str, facts: Facts, replicas: int = 1, come: tuple[int, int] = ALL_AT_ONCE) -> Cost:
        """The cost of an operator on a component whose tokens come so, computed once for each distinct shape."""
        known = self._known[component]
        key = (facts.key, replicas, self._second_copy, come)
        found = known.get(key)
        if found is None:
            share = Share(0, replicas, self._second_copy, *come)
            found = known[key] = self.chip.components[component].cost(facts.operator, share)
        return found

    # -- layers -------------------------------------------------------------------------------------------------
    def segments(self, stage: Stage, wave: Wave, whole: AbstractSet[str] = frozenset()) -> list[Segment]:
        """The layers of one wave: a block whose weights are partly streamed becomes two segments.

        The components `whole` take all tokens of a micro-batch together.
        """
        result: list[Segment] = []
        entry: Place | None = None
        update = stage.kind is StageKind.UPDATE
        coming = TokenParts(1 if update else self.mapping.chunks, wave.tokens, whole)
        for block in wave.blocks:
            if not block.operators:
                continue
            away = min(self._streamed_layers.get(block.name, 0), block.count)
            for count, streamed in ((block.count - away, False), (away, True)):
                if count:
                    segment = self._segment(stage, block, count, streamed, entry, coming)
                    entry = segment.executions[segment.layer.output].place
                    result.append(segment)
        return result

    def _segment(
        self, stage: Stage, block: Block, count: int, streamed: bool, entry: Place | None, coming: TokenParts
    ) -> Segment:
        facts = facts_of(block)
        executions: list[Execution] = []
        for fact in facts:
            executions.append(self._execute(stage, block, fact, streamed, executions, coming))
        if stage.kind in (StageKind.FORWARD, StageKind.BACKWARD):
            for index, size_B in block.saved:
                item = executions[max(index, 0)]
                if item.component not in self.chip.can.memories:
                    item.traffic += self.memory.of_saved(size_B, forward=stage.kind is StageKind.FORWARD)
        totals = self._group(executions)
        self._merge(executions, totals)
        self._fuse(stage, executions)
        output = block.output % len(executions)
        entry = entry or executions[output].place
        self._send(executions, facts, entry)
        fetches = [self._fetch(item) for item in executions]
        ahead = self._ahead(fetches, executions)
        steps = tuple(map(self._step, executions, facts, fetches, ahead))
        if self.cycle:
            steps = with_measured_transfers(self.fabric, executions, steps, entry)
        return Segment(block, count, Layer(block.name, steps, output), tuple(executions))

    def _execute(
        self, stage: Stage, block: Block, facts: Facts, streamed: bool, before: list[Execution], coming: TokenParts
    ) -> Execution:
        operator = facts.operator
        name = self.mapping.component(stage, block, operator)
        if name == INTERCONNECT:
            source = facts.sources[0][0]
            place = before[source].place if source >= 0 else next(iter(self._places.values()))
            cost = self.software.alone(operator, self.interconnect.cost(operator))
            # Beside computation the board's floor is that of the computation; what stays exposed is booked by stage.
            exchanged = operator.collective == "all_to_all"  # experts wait for it
            beside = operator.copies and block.kind is not BlockKind.GRADIENTS and not exchanged
            return Execution(operator, name, cost, place, floor_W=0.0 if beside else self.floor_W, beside=beside)
        held = self._placements.get((block.name, operator.weight or ""), [])
        if facts.dequantizes and held:
            # The tile applies the scale in its shift-and-add: nothing is unpacked.
            return Execution(operator, name, _FREE, self._places[name])
        placement = None
        if held and facts.matmul and facts.has_weight:
            placement = next((p for p in held if p.component == name and p.resident != streamed), None)
        place = self._place(name, placement, facts, before)
        traffic = NOTHING
        if name not in self.chip.can.memories:
            in_cells = placement is not None or (bool(held) and operator.kind is Kind.OPTIMIZER)
            on_chip = facts.adapter and self.adapters_on_chip
            refetch = self._refetch(name, facts)
            traffic = self.memory.of_operator(operator, held=in_cells, on_chip=on_chip, refetch=refetch)
        replicas = placement.replicas if placement is not None else 1
        cost, parted_s, once = self.cost(name, facts, replicas), 0.0, False
        come = coming.of(facts)
        if come[0] > 1:
            once = name in coming.whole
            if not once:
                whole_s, cost = cost.occupancy_s, self.cost(name, facts, replicas, come)
                parted_s = cost.occupancy_s - whole_s
        made = Execution(
            operator,
            name,
            self.software.alone(operator, cost),
            place,
            traffic,
            placement,
            floor_W=self._floors.get(name, 0.0),
            once=once,
            parted_s=parted_s,
        )
        if placement is not None and not placement.resident:
            made.programming = self.chip.can.holders[name].programming_cost(placement.crossbars * placement.copies)
            made.traffic += Traffic(operator.weight_B)
        return made

    def _refetch(self, name: str, facts: Facts) -> Refetch:
        known = self._refetched.get(name)
        if known is None:
            return ONCE
        found = known.get(facts.key)
        if found is None:
            found = known[facts.key] = self.chip.can.buffers[name].refetch(facts.operator)
        return found

    def _place(self, name: str, placement: WeightPlacement | None, facts: Facts, before: list[Execution]) -> Place:
        """The tiles of an execution."""
        if placement is not None:
            found = self._placed.get(id(placement))
            if found is None:
                found = self._placed[id(placement)] = self.fabric.place(placement.tiles, placement.resident)
            return found
        if not facts.matmul:
            for source, _, _ in facts.sources:
                if source != BLOCK_INPUT and before[source].component == name:
                    return before[source].place
        return self._places[name]

    def _group(self, executions: list[Execution]) -> dict[tuple[str, int], int]:
        """Products of experts with unequal rows are one kernel, as one grouped product; groups of each such kernel."""
        members: dict[tuple[str, int], list[Execution]] = {}
        for item in executions:
            if item.operator.together and item.operator.kind is Kind.MATMUL and item.placement is None:
                members.setdefault((item.component, item.operator.together), []).append(item)
        totals = {key: sum(item.operator.count for item in some) for key, some in members.items() if len(some) > 1}
        for (name, number), total in totals.items():
            if name in self._fusers:
                for item in members[name, number]:
                    item.cost = self.grouped(name, item.operator, total)
        return totals

    def grouped(self, name: str, operator: Operator, total: int) -> Cost:
        """The cost of an operator in one kernel with others of its kind, `total` groups in all: its share of these."""
        component = self.chip.components[name]
        if name not in self._fusers or total <= operator.count:
            return self.software.alone(operator, component.cost(operator))
        all_of_them = replace(operator, count=total)
        return share_of(self.software.alone(all_of_them, component.cost(all_of_them)), operator.count / total)

    def _merge(self, executions: list[Execution], totals: dict[tuple[str, int], int]) -> None:
        """Let products of one input run as one where the runtime does so and their weights are streamed."""
        for places in self.software.merged([item.operator for item in executions]):
            members = [executions[place] for place in places]
            name = members[0].component
            if name not in self._fusers or any(m.component != name or m.placement is not None for m in members):
                continue
            operators = [item.operator for item in members]
            one = joined(operators)
            cost = self.grouped(name, one, totals.get((name, one.together), one.count))
            for item, part in zip(members, shares_of(cost, operators), strict=True):
                item.cost, item.kernel = part, f"merged {'+'.join(o.weight or o.name for o in operators)}"

    def _fuse(self, stage: Stage, executions: list[Execution]) -> None:
        """Let each component that can fuse neighbouring operators into one kernel do so."""
        for name, fuser in self._fusers.items():
            own = [item for item in executions if item.component == name]
            if not own:
                continue
            operators = [item.operator for item in own]
            keeps = stage.kind is StageKind.FORWARD
            key = (id(fuser), keeps, tuple(map(id, operators)))
            if key not in _fused:
                # The objects are kept beside the result, so that their numbers are not given to others.
                _fused[key] = (fuser.fuse(operators, keeps), fuser, operators)
            for kernel in _fused[key][0]:
                members = [operators[place] for place in kernel.members]
                core = any(member.attention is not None for member in members)
                if not (self.runtime.fuses_attention if core else self.runtime.fuses_operators):
                    continue
                costs = self.software.fused(members, kernel.costs, kernel.generation)
                for place, cost in zip(kernel.members, costs, strict=True):
                    own[place].cost, own[place].kernel = cost, kernel.name

    # -- bytes over the network ---------------------------------------------------------------------------------
    def _send(self, executions: list[Execution], facts: Sequence[Facts], entry: Place) -> None:
        """What one operator sends to one place is sent once; the same bytes to several places are one multicast."""
        if self.fabric.network is None:
            return
        targets: dict[tuple[int, float], dict[Place, None]] = {}
        takers: dict[tuple[int, Place], list[Execution]] = {}
        for item, fact in zip(executions, facts, strict=True):
            if item.component == INTERCONNECT:
                continue
            for source, _, size_B in fact.sources:
                if source >= 0 and executions[source].operator.ahead:
                    continue
                start = executions[source].place if source != BLOCK_INPUT else entry
                if start is item.place or not self.fabric.apart(start, item.place):
                    continue
                key = (source, item.place)
                if key not in takers:
                    targets.setdefault((source, size_B), {})[item.place] = None
                    takers[key] = []
                takers[key].append(item)
        for (source, size_B), places in targets.items():
            start = executions[source].place if source != BLOCK_INPUT else entry
            move = Move(self.fabric.route(start, tuple(places)), size_B)
            for place in places:
                takers[source, place][0].moves.append(move)
                for item in takers[source, place]:
                    item.arriving[source] = move
        if self.ports is None:
            return
        for item in executions:
            for size_B, start, goal in (
                (item.traffic.read_B, self.ports, item.place),
                (item.traffic.write_B, item.place, self.ports),
            ):
                if size_B > 0 and self.fabric.apart(start, goal):
                    item.moves.append(Move(self.fabric.route(start, (goal,)), size_B))

    def _ahead(self, fetches: list[Fetch], executions: list[Execution]) -> Sequence[tuple[int | None, int]]:
        """(step whose end frees the room of a fetch, pieces in which it comes): as early as the buffers have room."""
        if not self._buffer_B:
            return [ONE_STEP] * len(fetches)
        read_B = [
            item.traffic.read_B if resource == MEMORY else 0.0
            for (resource, _), item in zip(fetches, executions, strict=True)
        ]
        if not any(read_B):
            return [ONE_STEP] * len(fetches)
        freed = freed_by(read_B, self._buffer_B)
        return [
            (by, pieces(size_B, self._buffer_B)) if size_B else ONE_STEP
            for by, size_B in zip(freed, read_B, strict=True)
        ]

    def _fetch(self, item: Execution) -> Fetch:
        """(resource that brings operands or writes cells first, seconds of it)."""
        resource, seconds = MEMORY, 0.0
        if item.traffic.read_B > 0:
            seconds = self.memory.busy_s(Traffic(item.traffic.read_B))
            if self.ports is not None and self.fabric.apart(self.ports, item.place):
                way = self.fabric.route(self.ports, (item.place,))
                seconds = max(seconds, item.traffic.read_B * way.seconds_per_B)
        if item.programming is not None and item.programming.occupancy_s > seconds:
            resource, seconds = PROGRAMMING, item.programming.occupancy_s
        return (resource, seconds) if seconds > 0 else ("", seconds)

    def _resource(self, item: Execution, own: bool) -> str:
        """Crossbars serve their weight alone; copies whose members are all in other nodes have links of their own."""
        if own:
            return f"{item.component}: {item.operator.weight}"
        apart = item.operator.copies and self.interconnect.copies_are_apart
        return f"{item.component}: copies" if apart else item.component

    def _step(self, item: Execution, facts: Facts, fetch: Fetch, ahead: tuple[int | None, int]) -> ScheduledOperator:
        cost = item.cost
        edges = []
        for source, whole, _ in facts.sources:
            move = item.arriving.get(source)
            if move is None:
                edges.append(Edge(source, whole))
            else:
                route = move.route
                held_s = move.size_B * route.seconds_per_B
                edges.append(Edge(source, whole, route.name, route.head_s, held_s, route.own))
        own = item.placement is not None and item.placement.resident
        return ScheduledOperator(
            name=item.operator.name,
            resource=self._resource(item, own),
            occupancy_s=cost.occupancy_s,
            tail_s=cost.latency_s - cost.occupancy_s,
            own=own,
            after=tuple(edges),
            fetch=fetch[0],
            fetch_s=fetch[1],
            freed_by=ahead[0],
            pieces=ahead[1],
            once=item.once,
        )
