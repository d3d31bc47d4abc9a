"""Memory behind the chip: what waits there, what it costs to move, and what spills to the next tier.

Which bytes of an operator come from memory:

- weights that sit neither in crossbars nor in on-chip SRAM, for every pass; streamed crossbar weights, for every pass;
- rows of embedding tables; the KV cache, read for every step and appended to;
- optimizer states, master weights and gradients of the update;
- activations kept for the backward pass, written once and read once, spread evenly over the layers.

Intermediate results of a layer stay on the chip: attention is tiled by head and by query block.  A component
with memory of its own (a GPU, DRAM with arithmetic) includes that traffic in its cost.  What did not fit in the
nearest tier is moved from and to the tier where it waits, beside the computation: a stage takes at least that long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tierform.chip.description import Chip
from tierform.memory import load_memory
from tierform.provenance import Assumption
from tierform.simulation.cycle_fidelity import stream_bandwidth_B_per_s
from tierform.workload.graph import Footprint
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role


@dataclass(frozen=True, slots=True)
class _InsideMemory:
    """The memory inside a component (a GPU, DRAM with arithmetic), as a tier that holds a footprint."""

    name: str
    capacity_B: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one execution of an operator moves from and to memory."""

    read_B: float = 0.0
    write_B: float = 0.0


class OffChip:
    """The memory tiers of a chip, nearest first."""

    def __init__(self, chip: Chip, cycle: bool = False) -> None:
        """`cycle` takes bandwidths from the cycle-level controllers."""
        self.cycle = cycle
        self._bandwidths: dict[float, float] = {}
        self._away: dict[str, dict[int, float]] = {}
        self.devices: list[Any] = [load_memory(entry.device, stacks=entry.count) for entry in chip.memory]
        inside = {name: part for name, part in chip.components.items() if hasattr(part, "memory_capacity_B")}
        self.in_component = bool(inside)
        self.tiers: list[Any] = [_InsideMemory(name, getattr(p, "memory_capacity_B")) for name, p in inside.items()]
        self.tiers += self.devices
        sram = [getattr(part, "sram_capacity_B", 0.0) for part in chip.components.values()]
        self.on_chip_B = float(sum(sram))

    @property
    def nearest(self) -> Any | None:
        """The device that the chip's components read directly; None when a component has its own, or without any."""
        return None if self.in_component or not self.devices else self.devices[0]

    def read_s(self, size_B: float) -> float:
        """Time of streaming so many bytes in."""
        if self.nearest is None or size_B <= 0:
            return 0.0
        return size_B / self._bandwidth_B_per_s(1.0)

    def busy_s(self, read_B: float, write_B: float) -> float:
        """Time that the nearest device is busy with so much traffic in all."""
        total = read_B + write_B
        if self.nearest is None or total <= 0:
            return 0.0
        return total / self._bandwidth_B_per_s(round(read_B / total, 2))

    def _bandwidth_B_per_s(self, read_fraction: float) -> float:
        """Of the nearest device on a stream, found once for each mix."""
        if read_fraction not in self._bandwidths:
            device = self.nearest
            assert device is not None
            self._bandwidths[read_fraction] = (
                stream_bandwidth_B_per_s(device, read_fraction)
                if self.cycle
                else float(device.effective_bandwidth_B_per_s("stream", read_fraction))
            )
        return self._bandwidths[read_fraction]

    def energy_J(self, read_B: float, write_B: float) -> float:
        """Energy of moving so much traffic, background left out."""
        total = read_B + write_B
        if self.nearest is None or total <= 0:
            return 0.0
        return float(self.nearest.transfer(total, "stream", round(read_B / total, 2)).dynamic_energy_J)

    def background_J(self, total_s: float, busy_s: float) -> float:
        """Standby and refresh of all devices."""
        used = [busy_s] + [0.0] * len(self.devices)
        return sum(
            float(d.background_energy_J(total_s, min(b, total_s))) for d, b in zip(self.devices, used, strict=False)
        )

    def traffic(self, operator: Operator, in_crossbars: bool, weights_on_chip: bool) -> Traffic:
        """What of an operator's operands comes from and goes to memory."""
        if self.in_component or self.nearest is None:
            return Traffic()
        if operator.phase is Phase.UPDATE:
            moved = [o for o in operator.inputs if o.role in (Role.OPTIMIZER_STATE, Role.GRADIENT)]
            back = [o for o in operator.outputs if o.role is Role.OPTIMIZER_STATE]
            return Traffic(float(sum(o.size_B for o in moved)), float(sum(o.size_B for o in back)))
        if operator.kind is Kind.EMBEDDING:
            return Traffic(float(operator.output_B), 0.0)
        read = 0.0
        if operator.kind is Kind.MATMUL and not in_crossbars and not weights_on_chip:
            read += operator.weight_B
        read += operator.count * sum(o.size_B for o in operator.inputs if o.role is Role.KV_CACHE)
        write = operator.count * sum(o.size_B for o in operator.outputs if o.role is Role.KV_CACHE)
        return Traffic(float(read), float(write))

    def place(self, footprint: Footprint, held_on_chip_B: int) -> Any | None:
        """Where each part waits; None for a chip without memory.  Weights held in crossbars take no memory."""
        from tierform.memory.hierarchy import place_footprint

        parts = footprint.parts()
        parts["weights"] = max(0, parts["weights"] - held_on_chip_B)
        if not self.tiers:
            return None
        placement = place_footprint(parts, self.tiers)
        self._away = {
            part: {tier: fraction for tier, fraction in placement.fractions(part).items() if tier > 0}
            for part in placement.spilled
        }
        return placement

    def spilled(self, operator: Operator) -> dict[int, Traffic]:
        """Bytes of one execution that come from and go to each tier beyond the nearest, by tier number."""
        found: dict[int, Traffic] = {}
        if not self._away:
            return found
        for operands, is_read in ((operator.inputs, True), (operator.outputs, False)):
            for operand in operands:
                part = _part(operator, operand)
                for tier, fraction in self._away.get(part, {}).items():
                    moved = operator.count * operand.size_B * fraction
                    if operator.kind is Kind.EMBEDDING and operand.role is Role.WEIGHT:
                        moved = operator.output_B * fraction
                    before = found.get(tier, Traffic())
                    found[tier] = Traffic(before.read_B + moved * is_read, before.write_B + moved * (not is_read))
        return found

    def spilled_activations(self, size_B: float) -> dict[int, float]:
        """Of so many bytes of kept activations, those in each tier beyond the nearest."""
        return {tier: size_B * fraction for tier, fraction in self._away.get("activations", {}).items()}

    def spill_cost(self, tier: int, traffic: Traffic) -> tuple[str, float, float]:
        """Name of a tier beyond the nearest, and time and energy of so much traffic with it."""
        device = self.tiers[tier]
        total = traffic.read_B + traffic.write_B
        if total <= 0:
            return device.name, 0.0, 0.0
        reads = round(traffic.read_B / total, 2)
        seconds = total / float(device.effective_bandwidth_B_per_s("stream", reads))
        return device.name, seconds, float(device.transfer(total, "stream", reads).dynamic_energy_J)

    def assumptions(self) -> list[Assumption]:
        """The constants of the devices."""
        return [line for device in self.devices for line in device.assumptions]


def _part(operator: Operator, operand: Operand) -> str:
    """The part of the footprint that an operand belongs to; empty for what stays on the chip."""
    if operand.role is Role.WEIGHT:
        return "adapters" if operator.part == "adapter" else "weights"
    if operand.role is Role.KV_CACHE:
        return "kv_cache"
    if operand.role is Role.OPTIMIZER_STATE:
        return "master_weights" if operand.name.endswith(".master") else "optimizer_states"
    return "gradients" if operand.role is Role.GRADIENT and operator.phase is Phase.UPDATE else ""
