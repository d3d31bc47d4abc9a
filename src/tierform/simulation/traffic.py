"""Every byte between a chip and its memory, counted in this one place.

What moves, for operators on components without memory of their own:

- **weights** that sit neither in crossbars nor in a buffer, for every execution; streamed crossbar weights, for every
  pass; rows of embedding tables;
- **KV cache**: read by attention, appended to by the projections that make it;
- **saved tensors**: written once by the forward pass of every micro-batch, read once by its backward pass;
- **gradients** of weights: written by the operator that makes them, read again where they are added to earlier ones and
  by the update;
- **the update**: reads optimizer states and master weights (or the weights), writes them and the weights back; weights
  in crossbars are programmed there instead;
- **refetches**: what a component's buffer is too small to keep crosses again
  (:class:`~tierform.chip.component.Refetch`), and intermediate results of an operator that fit in no buffer at all.

A component with memory of its own (a GPU, DRAM with arithmetic) includes its traffic in its cost.  What did not fit in
the nearest tier is moved from and to the tier where it waits, beside the computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import fsum
from typing import TYPE_CHECKING, Any

from tierform.chip.component import ONCE, Refetch
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.memory import load_memory
from tierform.provenance import Assumption
from tierform.simulation.aside import NONE_ASIDE, Aside, ExpertsAside, Fetched
from tierform.simulation.offload import Host, place_apart, saved_share
from tierform.simulation.remember import Bounded
from tierform.workload import Workload
from tierform.workload.memory import Footprint
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role

if TYPE_CHECKING:
    from tierform.memory.cxl import CxlDevice
    from tierform.memory.device import MemoryDevice
    from tierform.memory.hierarchy import Placement


STATES = (Role.OPTIMIZER_STATE, Role.MASTER_WEIGHT)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes from and to memory."""

    read_B: float = 0.0
    write_B: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.read_B + other.read_B, self.write_B + other.write_B)

    def times(self, factor: float) -> Traffic:
        """So many of it."""
        return Traffic(self.read_B * factor, self.write_B * factor)

    @property
    def total_B(self) -> float:
        """Both directions."""
        return self.read_B + self.write_B


NOTHING = Traffic()


@dataclass(frozen=True, slots=True)
class _InsideMemory:
    """The memory inside a component (a GPU, DRAM with arithmetic), as a tier that holds a footprint."""

    name: str
    capacity_B: int


_of_operators: Bounded = Bounded(50_000)


@lru_cache(maxsize=64)
def _device(name: str, count: int, speed: float) -> MemoryDevice | CxlDevice:
    from tierform.memory.device import MemoryDevice

    device = load_memory(name, stacks=count)
    if speed == 1.0:
        return device
    if not isinstance(device, MemoryDevice):
        fail("only DRAM has another speed", key="memory.speed", value=name, fix="Take 'speed' away, or name a DRAM.")
    return replace(device, speed=speed)


class MemoryBehind:
    """The memory tiers of a chip, nearest first, and what moves from and to them."""

    def __init__(self, chip: Chip, cycle: bool = False, host: Host | None = None) -> None:
        """`cycle` takes bandwidths from the cycle-level controllers; a `host` holds what is offloaded."""
        self.host = host
        self.cycle = cycle
        self._bandwidths: dict[float, float] = {}
        self._energies: dict[float, float] = {}
        self._away: dict[str, dict[int, float]] = {}
        self._experts: ExpertsAside | None = None
        self._near = 0
        self._behind: dict[int, float] = {}
        self.devices = [_device(m.device, m.count, m.speed.value if m.speed else 1.0) for m in chip.memory]
        self.inside = chip.can.memories
        self.tiers: list[Any] = [_InsideMemory(name, part.memory_capacity_B) for name, part in self.inside.items()]
        self.tiers += [*self.devices, *([host] if host else [])]
        self._nearest = None if self.inside or not self.devices else self.devices[0]
        self.on_chip_B = float(fsum(part.sram_capacity_B for part in chip.can.buffers.values()))

    @property
    def nearest(self) -> MemoryDevice | CxlDevice | None:
        """The device that the chip's components read directly; None when a component has its own, or without any."""
        return self._nearest

    # -- what an operator moves ---------------------------------------------------------------------------------
    def of_operator(self, operator: Operator, *, held: bool, on_chip: bool, refetch: Refetch = ONCE) -> Traffic:
        """Bytes of one execution: `held` weights sit in crossbars, `on_chip` ones in a buffer."""
        if self.nearest is None or operator.kind is Kind.COLLECTIVE:
            return NOTHING
        key = (id(operator), held, on_chip, refetch, self.on_chip_B)
        found = _of_operators.get(key)
        if found is None:
            # The operator is kept beside the result, so that its number is not given to another.
            found = _of_operators[key] = (self._of_operator(operator, held, on_chip, refetch), operator)
        moved: Traffic = found[0]
        return moved

    def _of_operator(self, operator: Operator, held: bool, on_chip: bool, refetch: Refetch) -> Traffic:
        if operator.phase is Phase.UPDATE:
            return self._of_update(operator, held)
        if operator.looks_up:
            return Traffic(float(operator.read_B))
        kept = held or on_chip or operator.origin is Origin.DEQUANTIZE
        last = len(operator.inputs) - 1
        spilled = self._overflow_B(operator)
        if refetch == ONCE:
            read_B = write_B = 0
            for operand in operator.inputs:
                if not kept if operand.role is Role.WEIGHT else _stays(operand):
                    read_B += operand.size_B
            for operand in operator.outputs:
                if _stays(operand):
                    write_B += operand.size_B
            read, write = operator.count * read_B + spilled, operator.count * write_B + spilled
            return Traffic(float(read), float(write)) if read or write else NOTHING
        read = write = 0.0
        for place, operand in enumerate(operator.inputs):
            again = refetch.second if operator.kind is Kind.MATMUL and place == last else refetch.first
            if operand.role is Role.WEIGHT:
                if kept:
                    continue
                read += again * operand.size_B
            elif _stays(operand):
                read += again * operand.size_B
            elif operand.role is not Role.INDEX:
                read += (again - 1.0) * operand.size_B
        for operand in operator.outputs:
            write += (refetch.result_write - (0.0 if _stays(operand) else 1.0)) * operand.size_B
            read += refetch.result_read * operand.size_B
        return Traffic(operator.count * read + spilled, operator.count * write + spilled)

    def _of_update(self, operator: Operator, held: bool) -> Traffic:
        read = [o for o in operator.inputs if not (held and o.role is Role.WEIGHT)]
        write = [o for o in operator.outputs if o.role in STATES or (o.role is Role.WEIGHT and not held)]
        return Traffic(
            float(operator.count * sum(o.size_B for o in read)), float(operator.count * sum(o.size_B for o in write))
        )

    def _overflow_B(self, operator: Operator) -> float:
        """Bytes of intermediate results beyond all buffers together, which wait in memory; 0 on a chip without any."""
        if self.on_chip_B <= 0 or operator.input_B + operator.output_B <= self.on_chip_B:
            return 0.0
        passing = [o for o in (*operator.inputs, *operator.outputs) if o.role is Role.ACTIVATION and not o.static]
        return max(0.0, operator.count * sum(o.size_B for o in passing) - self.on_chip_B) / 2

    def of_saved(self, saved_B: float, *, forward: bool) -> Traffic:
        """Bytes of tensors kept for the backward pass: written by the forward pass, read by the backward pass."""
        if self.nearest is None:
            return NOTHING
        return Traffic(0.0, saved_B) if forward else Traffic(saved_B, 0.0)

    # -- time and energy ----------------------------------------------------------------------------------------
    def busy_s(self, moved: Traffic) -> float:
        """Time that the nearest device is busy with so much traffic."""
        if self.nearest is None or moved.total_B <= 0:
            return 0.0
        return moved.total_B / self._bandwidth_B_per_s(round(moved.read_B / moved.total_B, 2))

    def _bandwidth_B_per_s(self, read_fraction: float) -> float:
        """Of the nearest device on a stream, found once for each mix."""
        if read_fraction not in self._bandwidths:
            device = self.nearest
            assert device is not None
            if self.cycle:
                from tierform.simulation.cycle_fidelity import stream_bandwidth_B_per_s

                self._bandwidths[read_fraction] = stream_bandwidth_B_per_s(device, read_fraction)
            else:
                self._bandwidths[read_fraction] = float(device.effective_bandwidth_B_per_s("stream", read_fraction))
        return self._bandwidths[read_fraction]

    def energy_J(self, moved: Traffic) -> float:
        """Energy of moving so much traffic, background left out."""
        if self.nearest is None or moved.total_B <= 0:
            return 0.0
        reads = round(moved.read_B / moved.total_B, 2)
        return float(self.nearest.transfer(moved.total_B, "stream", reads).dynamic_energy_J)

    def background_J(self, total_s: float, busy_s: float) -> float:
        """Standby and refresh of all devices."""
        used = [busy_s] + [0.0] * len(self.devices)
        return float(
            fsum(d.background_energy_J(total_s, min(b, total_s)) for d, b in zip(self.devices, used, strict=False))
        )

    # -- what does not fit nearby -------------------------------------------------------------------------------
    def place(
        self, workload: Workload, footprint: Footprint, held_B: int, aside: Aside = NONE_ASIDE
    ) -> Placement | None:
        """Where each part waits; None for a chip without memory.  `held_B` of weights in crossbars take no memory."""
        from tierform.memory.hierarchy import place_footprint

        parts = footprint.parts()
        parts["weights"] = max(0, parts["weights"] - held_B)
        if not self.tiers:
            return None
        if self.host:
            placement = place_apart(workload, parts, self.tiers, aside.shares)
        else:
            placement = place_footprint(parts, self.tiers, aside.shares)
        self._away = {
            part: {tier: fraction for tier, fraction in placement.fractions(part).items() if tier > 0}
            for part in placement.spilled
        }
        if self.host and "activations" in self._away:
            share = saved_share(workload, parts)  # workspace stays
            self._away["activations"] = dict.fromkeys(self._away["activations"], share)
        self._experts = aside.experts
        if aside.experts is not None:
            self._set_experts(aside.experts, parts["weights"])
        return placement

    def _set_experts(self, experts: ExpertsAside, weights_B: int) -> None:
        """How many experts are near, where the others are, and the share of other weights that found no room."""
        fractions = self._away.get("weights", {})
        away = fsum(fractions.values())
        self._behind = {tier: fraction / away for tier, fraction in fractions.items()}
        size_B = min(experts.size_B, weights_B)  # of a pipeline a group's part
        self._near = experts.near(away * weights_B * experts.size_B / size_B)
        others_B = weights_B - size_B
        rest = max(0.0, away * weights_B - size_B) / others_B if others_B else 0.0
        self._away["weights"] = {tier: rest * share for tier, share in self._behind.items()} if rest else {}

    def fetched(self, operators: Sequence[Operator]) -> dict[str, Fetched]:
        """What the operators of a block fetch of experts that wait behind the memory, by matrix."""
        return self._experts.fetched(operators, self._near) if self._experts is not None else {}

    @property
    def has_spilled(self) -> bool:
        """Whether something waits beyond the nearest tier."""
        return bool(self._away or self._behind)

    def spilled(self, operator: Operator, fetched: Fetched | None = None) -> dict[int, Traffic]:
        """Bytes of one execution that come from and go to each tier beyond the nearest, by tier number.

        Of an expert's matrix what is `fetched` crosses.
        """
        found: dict[int, Traffic] = {}
        if not self.has_spilled:
            return found
        for operands, is_read in ((operator.inputs, True), (operator.outputs, False)):
            for operand in operands:
                part = part_of(operator, operand)
                if fetched is not None and part == "weights":
                    fractions = {tier: share * fetched.share for tier, share in self._behind.items()}
                else:
                    fractions = self._away.get(part, {})
                for tier, fraction in fractions.items():
                    moved = operator.count * operand.size_B * fraction
                    if operator.looks_up and operand.role is Role.WEIGHT:
                        moved = operator.read_B * fraction
                    before = found.get(tier, NOTHING)
                    found[tier] = before + Traffic(moved * is_read, moved * (not is_read))
        return found

    def late(self, operator: Operator, fetched: Fetched) -> dict[int, Traffic]:
        """Of what an expert's operator fetches, the bytes that nothing is computed beside."""
        return {
            tier: Traffic(operator.weight_B * share * fetched.late)
            for tier, share in self._behind.items()
            if fetched.late
        }

    def spilled_saved(self, moved: Traffic) -> dict[int, Traffic]:
        """Of so much traffic of saved tensors, that with each tier beyond the nearest."""
        return {tier: moved.times(fraction) for tier, fraction in self._away.get("activations", {}).items()}

    def spill_cost(self, tier: int, moved: Traffic) -> tuple[str, float, float]:
        """Name of a tier beyond the nearest, and time and energy of so much traffic with it."""
        device = self.tiers[tier]
        if moved.total_B <= 0:
            return device.name, 0.0, 0.0
        reads = round(moved.read_B / moved.total_B, 2)
        seconds = moved.total_B / float(device.effective_bandwidth_B_per_s("stream", reads))
        return device.name, seconds, float(device.transfer(moved.total_B, "stream", reads).dynamic_energy_J)

    def assumptions(self) -> list[Assumption]:
        """The constants of the devices."""
        own = [line for device in self.devices for line in device.assumptions]
        return [*own, *(self.host.assumptions if self.host else ())]


def _gradient_of_weight(operand: Operand) -> bool:
    return operand.role is Role.GRADIENT and operand.trainable


def _stays(operand: Operand) -> bool:
    """Whether it waits in memory between operators: the cache of keys and values, gradients of weights."""
    return operand.role is Role.KV_CACHE or _gradient_of_weight(operand)


def part_of(operator: Operator, operand: Operand) -> str:
    """The part of the footprint that an operand belongs to; empty for what stays on the chip."""
    if operand.role is Role.WEIGHT:
        return "adapters" if operator.part == "adapter" else "weights"
    if operand.role is Role.KV_CACHE:
        return "kv_cache"
    if operand.role is Role.OPTIMIZER_STATE:
        return "optimizer_states"
    if operand.role is Role.MASTER_WEIGHT:
        return "master_weights"
    return "gradients" if _gradient_of_weight(operand) or operator.phase is Phase.UPDATE else ""
