"""Vector units: softmax, normalization, activation, elementwise work, losses and optimizer updates.

A unit has lanes that each finish one simple operation a cycle; transcendental functions are table look-ups of a few
operations, which the workload counts per element.  A row of a softmax or a normalization, and the values of a loss, are
passed over twice (maximum and sum, or mean and variance, then the result; M. Milakov, N. Gimelshein, Online normalizer
calculation for softmax, 2018): what of a row does not fit into the half of the buffer in use is fetched twice.  Small
products (a low-rank matrix on a chip without systolic arrays)
are not run here.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tierform.chip.component import ONCE, WHOLE, Cost, Costs, Kelvin, Refetch, Share, cmos_leakage_W, remember
from tierform.chip.laws import Scaled, Scaling, Steps, laws
from tierform.chip.parameters import evidence
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import Count, FileModel, quantity
from tierform.workload.operator import Kind, Operator

_NOT_HERE = (Kind.MATMUL, Kind.COLLECTIVE)
_TWO_PASSES = (Kind.SOFTMAX, Kind.NORMALIZATION, Kind.LOSS)


class VectorParameters(FileModel):
    """The data file of one vector unit with its registers and buffer."""

    type: Literal["vector"] = Field(description="The kind of component; it decides which other keys there are")
    description: str = Field("", description="One line for people; changes no figure")
    node: str | None = Field(
        None, description="Process node at which the constants of this file hold; another one, by `set`, scales them"
    )
    lanes: Count = Field(description="Simple operations that a unit finishes in a cycle")
    clock: Annotated[Constant, quantity("Hz", above=0)] = Field(description="Clock of the unit; changes every time")
    operation_energy: Annotated[Constant, quantity("J", minimum=0)] = Field(
        description="Energy of one simple operation"
    )
    buffer_energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of a byte read from or written to the buffer"
    )
    buffer_capacity: Annotated[Constant, quantity("B", above=0)] = Field(
        description="Buffer of one unit; a longer row of a softmax, normalization or loss is fetched from memory twice"
    )
    area: Annotated[Constant, quantity("m^2", above=0)] = Field(description="Area of one unit with its buffer")
    leakage: Annotated[Constant, quantity("W", minimum=0)] = Field(
        description="Static power of one unit at 300 K; doubles every 30 K"
    )


@dataclass(frozen=True)
class VectorUnits:
    """`units` equal vector units that share an operator's elements."""

    name: str
    units: int
    parameters: VectorParameters
    _costs: Costs = field(init=False, default_factory=dict, repr=False, compare=False)

    schema = VectorParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: VectorParameters) -> VectorUnits:
        """From the data file's parameters."""
        if parameters.lanes < 1:
            fail("a vector unit needs at least one lane", key=f"{name}.lanes", value=parameters.lanes)
        if parameters.node is not None:
            from tierform.chip.process import load_process

            load_process(parameters.node, f"{name}.node")
        return cls(name, units, parameters)

    @classmethod
    def scaled(cls, parameters: BaseModel, given: BaseModel, own: AbstractSet[Steps]) -> Scaled:
        """Constants scaled from the data file's unit to another.

        Area by lanes and buffer, a byte of the buffer by its capacity, energy and static power by the supply that the
        clock needs, all by the node.
        """
        from tierform.chip.process import load_process, node_ratios

        assert isinstance(parameters, VectorParameters) and isinstance(given, VectorParameters)
        p, found = parameters, Scaling(own)
        area, energy, why = node_ratios(given.node, p.node)
        supply, lane, sram = found.supply(p.clock, given.clock), laws().lane_area.value, laws().sram
        cell = load_process("45nm").file.sram_area.value
        size, old = p.buffer_capacity.value, given.buffer_capacity.value
        grown = area * (p.lanes * lane + size * cell) / (given.lanes * lane + old * cell)
        told = f"given for {given.lanes} lanes and {old / 1024:.4g} KiB{why}"
        if found.constant(("area",), p.area, grown, told):
            found.say(f"area {told}: x {grown:.3g}")
        found.constant(("leakage",), p.leakage, grown * supply, "static power goes with area and supply")
        found.constant(("operation_energy",), p.operation_energy, energy * supply**2, f"supply{why}")
        ratio = sram.energy(size) / sram.energy(old)
        kept = f"given for {old / 1024:.4g} KiB{sram.beyond(size)}{why}"
        if found.constant(("buffer_energy",), p.buffer_energy, ratio * energy * supply**2, kept) and ratio != 1.0:
            found.say(f"buffer energy {kept}: x {ratio:.3g}")
        return found.on(parameters)

    def supports(self, operator: Operator) -> bool:
        """Everything that is not a matmul or a collective."""
        return operator.kind not in _NOT_HERE

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Operations over lanes; energy of operations and of buffer accesses."""
        return remember(self._costs, operator, share, self._cost)

    def _cost(self, operator: Operator, share: Share) -> Cost:
        if not self.supports(operator):
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, units = self.parameters, share.units or self.units
        cycles = max(1.0, operator.operations / (units * p.lanes))
        seconds = cycles / p.clock.value
        moved_B = operator.read_B + operator.output_B
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={
                "operations": operator.operations * p.operation_energy.value,
                "buffer": moved_B * p.buffer_energy.value,
            },
            operations=operator.operations,
            utilization=operator.operations / (cycles * units * p.lanes),
        )

    @property
    def sram_capacity_B(self) -> float:
        """Buffers of all units."""
        return self.units * self.parameters.buffer_capacity.value

    def refetch(self, operator: Operator, share: Share = WHOLE) -> Refetch:
        """Rows that need two passes come twice as far as half of one unit's buffer does not hold them."""
        if operator.kind not in _TWO_PASSES or not operator.inputs:
            return ONCE
        widest = max(operator.inputs, key=lambda operand: operand.size_B)
        row_B = widest.size_B * (widest.shape[-1] if widest.shape else 1) / max(widest.elements, 1)
        kept = min(1.0, self.parameters.buffer_capacity.value / 2 / row_B)
        return Refetch(first=2.0 - kept)

    @property
    def area_m2(self) -> float:
        """All units."""
        return self.units * self.parameters.area.value

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Leakage with temperature."""
        return self.units * cmos_leakage_W(self.parameters.leakage.value, temperature_K)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
