"""From operators to a schedule's layers: each distinct operator is costed once on its component.

The weight of an operator on crossbars gives every layer a resource of its own; all else shares its component.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tierform.chip.component import Cost, Share
from tierform.chip.description import Chip
from tierform.mapping.plan import INTERCONNECT, Mapping, WeightPlacement
from tierform.simulation.cluster import collective_cost
from tierform.simulation.cycle_fidelity import with_measured_transfers
from tierform.simulation.fabric import Fabric, Place, Route
from tierform.simulation.offchip import OffChip, Traffic
from tierform.simulation.schedule import BLOCK_INPUT, Edge, Layer, Step
from tierform.workload.graph import Block, Stage, StageKind
from tierform.workload.operator import Kind, Operator, Role

MEMORY = "memory"
PROGRAMMING = "programming"
DEQUANTIZE = ".dequantize"
_SAMPLES = 4
_FOLLOWS_CHUNKS = (Kind.SOFTMAX, Kind.ELEMENTWISE)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes over a route, per execution of the layer."""

    route: Route
    size_B: float


@dataclass(slots=True)
class Executed:
    """An operator on its component in one segment of layers: its cost, traffic, and how its weight sits.

    `arriving` holds the transfer from each operator from which it takes, `transfers` those that nothing before it has
    brought to its place.  `kernel` names the fused kernel of which it is a part, if its component fused it with its
    neighbours.
    """

    operator: Operator
    component: str
    cost: Cost
    traffic: Traffic
    place: Place
    placement: WeightPlacement | None
    programming: Cost | None = None
    transfers: list[Transfer] = field(default_factory=list)
    arriving: dict[int, Transfer] = field(default_factory=dict)
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` layers that cost the same: the schedule's layer and the executed operators."""

    block: str
    count: int
    layer: Layer
    executed: tuple[Executed, ...]


class Costing:
    """Costs operators of a mapped workload; remembers every distinct one."""

    def __init__(
        self, chip: Chip, mapping: Mapping, fabric: Fabric, offchip: OffChip, resident_B: float, cycle: bool = False
    ) -> None:
        """`resident_B` of adapters are kept on the chip if they fit; `cycle` simulates transfers cycle by cycle."""
        self.cycle = cycle
        self.chip, self.mapping, self.fabric, self.offchip = chip, mapping, fabric, offchip
        self.adapters_on_chip = resident_B <= 0.5 * offchip.on_chip_B
        self._costs: dict[tuple[object, ...], Cost] = {}
        self._places = {
            name: Place(self._tile_group(name), (chip.tiles_of(name),), own=False) for name in chip.components
        }

    def _tile_group(self, component: str) -> str:
        """Components on the same tiles share a place, under the first one's name."""
        tiles = self.chip.tiles_of(component)
        return next(name for name in self.chip.components if self.chip.tiles_of(name) == tiles)

    def cost(self, component: str, operator: Operator, replicas: int = 1) -> Cost:
        """The cost of an operator on a component, computed once for each distinct shape."""
        key = (component, replicas, operator.shape_key)
        if key not in self._costs:
            share = Share(0, replicas, self.chip.backward_weights == "second-copy")
            self._costs[key] = self.chip.components[component].cost(operator, share)
        return self._costs[key]

    def segments(self, stage: Stage) -> list[Segment]:
        """The layers of a stage: a block whose weights are partly streamed becomes two segments."""
        result: list[Segment] = []
        entry: Place | None = None
        for block in stage.blocks:
            if not block.operators:
                continue
            for count, streamed in self._split(block):
                segment = self._segment(stage, block, count, streamed, entry)
                entry = segment.executed[segment.layer.output].place
                result.append(segment)
        return result

    def _split(self, block: Block) -> list[tuple[int, bool]]:
        away = max((p.layers for p in self.mapping.placements if p.block == block.name and not p.resident), default=0)
        away = min(away, block.count)
        return [(count, streamed) for count, streamed in ((block.count - away, False), (away, True)) if count]

    def _segment(self, stage: Stage, block: Block, count: int, streamed: bool, entry: Place | None) -> Segment:
        executed = [self._execute(stage, block, operator, streamed) for operator in block.operators]
        self._fuse(stage, executed)
        number = {item.operator.name: index for index, item in enumerate(executed)}
        output = block.output % len(block.operators)
        first = entry or executed[output].place
        self._send(executed, number, first)
        steps = tuple(self._step(item, executed, number) for item in executed)
        if self.cycle:
            steps = with_measured_transfers(self.fabric, executed, steps, first)
        return Segment(block.name, count, Layer(block.name, steps, output), tuple(executed))

    def _execute(self, stage: Stage, block: Block, operator: Operator, streamed: bool) -> Executed:
        name = self.mapping.component(stage, block.name, operator.name)
        if name == INTERCONNECT:
            place = next(iter(self._places.values()))
            return Executed(operator, name, collective_cost(self.chip, operator), Traffic(), place, None)
        component: Any = self.chip.components[name]
        placement = None
        for candidate in self.mapping.placements_of(block.name, operator.weight):
            if candidate.component == name and candidate.resident != streamed and operator.kind is Kind.MATMUL:
                placement = candidate
        place = self._places[name]
        if operator.name.endswith(DEQUANTIZE) and self._in_crossbars(stage, block, operator):
            # The tile applies the scale in its shift-and-add: nothing is unpacked.
            return Executed(operator, name, Cost(0.0, 0.0), Traffic(), place, None)
        replicas, programming = 1, None
        if placement is not None:
            replicas = placement.replicas
            place = _place(placement)
            if not placement.resident:
                programming = component.programming_cost(component.crossbars_for(operator))
        held = operator.part == "adapter" and self.adapters_on_chip
        traffic = self.offchip.traffic(operator, placement is not None, held)
        if programming is not None:
            traffic = Traffic(traffic.read_B + operator.weight_B, traffic.write_B)
        return Executed(operator, name, self.cost(name, operator, replicas), traffic, place, placement, programming)

    def _fuse(self, stage: Stage, executed: list[Executed]) -> None:
        """Let each component that can fuse neighbouring operators into one kernel do so."""
        for name, component in self.chip.components.items():
            own = [item for item in executed if item.component == name]
            if own and hasattr(component, "fuse"):
                for kernel in component.fuse([item.operator for item in own], stage.kind is StageKind.FORWARD):
                    for place, cost in zip(kernel.members, kernel.costs, strict=True):
                        own[place].cost, own[place].kernel = cost, kernel.name

    def _in_crossbars(self, stage: Stage, block: Block, operator: Operator) -> bool:
        """Whether the product that an unpacking of weights serves runs where the weights sit."""
        product = operator.name.removesuffix(DEQUANTIZE)
        served = next((o for o in block.operators if o.name == product), None)
        if served is None:
            return False
        runs_on = self.mapping.component(stage, block.name, product)
        return any(p.component == runs_on for p in self.mapping.placements_of(block.name, served.weight))

    def _send(self, executed: list[Executed], number: dict[str, int], entry: Place) -> None:
        """What one operator sends to one place is sent once; the same bytes to several places are one multicast."""
        targets: dict[tuple[int, float], dict[str, Place]] = {}
        takers: dict[tuple[int, str], list[Executed]] = {}
        for item in executed:
            for source in _sources(item, number):
                giver = executed[source] if source != BLOCK_INPUT else None
                if self.fabric.apart(giver.place if giver else entry, item.place):
                    if (source, item.place.name) not in takers:
                        size_B = float(giver.operator.output_B if giver else _entering_B(item.operator))
                        targets.setdefault((source, size_B), {})[item.place.name] = item.place
                    takers.setdefault((source, item.place.name), []).append(item)
        for (source, size_B), places in targets.items():
            start = executed[source].place if source != BLOCK_INPUT else entry
            transfer = Transfer(self.fabric.route(start, tuple(places.values())), size_B)
            for name in places:
                takers[source, name][0].transfers.append(transfer)
                for item in takers[source, name]:
                    item.arriving[source] = transfer

    def _step(self, item: Executed, executed: list[Executed], number: dict[str, int]) -> Step:
        operator, cost = item.operator, item.cost
        edges = []
        for source in _sources(item, number):
            whole = _needs_all(operator, executed[source].operator if source != BLOCK_INPUT else None)
            transfer = item.arriving.get(source)
            if transfer is None:
                edges.append(Edge(source, whole))
                continue
            route = transfer.route
            transfer_s = transfer.size_B * route.seconds_per_B
            edges.append(Edge(source, whole, route.name, route.head_s, transfer_s, route.own))
        fetch_s = self.offchip.read_s(item.traffic.read_B)
        fetch = MEMORY
        if item.programming is not None and item.programming.occupancy_s > fetch_s:
            fetch, fetch_s = PROGRAMMING, item.programming.occupancy_s
        own = item.placement is not None and item.placement.resident
        return Step(
            operator.name,
            f"{item.component}: {operator.weight}" if own else item.component,
            cost.occupancy_s,
            cost.latency_s - cost.occupancy_s,
            own,
            tuple(edges),
            fetch if fetch_s > 0 else "",
            fetch_s,
        )


def _sources(item: Executed, number: dict[str, int]) -> list[int]:
    """The operators from which an operator takes, by number."""
    return [number[name] for name in item.operator.after] or [BLOCK_INPUT]


def _place(placement: WeightPlacement) -> Place:
    """The tiles of up to four layers spread over the placement."""
    tiles = placement.tiles
    count = min(len(tiles), _SAMPLES)
    chosen = sorted({round(i * (len(tiles) - 1) / max(count - 1, 1)) for i in range(count)})
    name = f"{placement.block}/{placement.weight}" + ("" if placement.resident else " (streamed)")
    return Place(name, tuple(tiles[i] for i in chosen), own=placement.resident)


def _entering_B(operator: Operator) -> int:
    """Bytes of the layer's input that the operator reads."""
    first = next((o for o in operator.inputs if o.role not in (Role.WEIGHT, Role.INDEX)), None)
    return operator.count * first.size_B if first else 0


def _needs_all(operator: Operator, giver: Operator | None) -> bool:
    """Products of two activations and gradients of weights need all tokens of what they are given.

    The rows of a softmax, and what is done to it element by element, are used as they come.
    """
    if operator.kind is not Kind.MATMUL or any(o.role is Role.WEIGHT for o in operator.inputs):
        return False
    return giver is None or giver.kind not in _FOLLOWS_CHUNKS
