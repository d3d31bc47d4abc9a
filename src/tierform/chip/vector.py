"""Vector units: softmax, normalization, activation, elementwise work, losses and optimizer updates.

A unit has lanes that each finish one simple operation a cycle; transcendental functions are table look-ups of a few
operations, which the workload counts per element.  Small products (a low-rank matrix on a chip without systolic arrays)
are not run here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tierform.chip.component import WHOLE, Cost, Kelvin, Share, cmos_leakage_W
from tierform.chip.parameters import evidence
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import Count, FileModel, quantity
from tierform.workload.operator import Kind, Operator

_NOT_HERE = (Kind.MATMUL, Kind.COLLECTIVE)


class VectorParameters(FileModel):
    """The data file of one vector unit with its registers and buffer."""

    type: Literal["vector"]
    description: str = ""
    lanes: Count
    clock: Annotated[Constant, quantity("Hz", above=0)]
    operation_energy: Annotated[Constant, quantity("J", minimum=0)]
    buffer_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    buffer_capacity: Annotated[Constant, quantity("B", above=0)]
    area: Annotated[Constant, quantity("m^2", above=0)]
    leakage: Annotated[Constant, quantity("W", minimum=0)]


@dataclass(frozen=True)
class VectorUnits:
    """`units` equal vector units that share an operator's elements."""

    name: str
    units: int
    parameters: VectorParameters

    schema = VectorParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: VectorParameters) -> VectorUnits:
        """From the data file's parameters."""
        if parameters.lanes < 1:
            fail("a vector unit needs at least one lane", key=f"{name}.lanes", value=parameters.lanes)
        return cls(name, units, parameters)

    def supports(self, operator: Operator) -> bool:
        """Everything that is not a matmul or a collective."""
        return operator.kind not in _NOT_HERE

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Operations over lanes; energy of operations and of buffer accesses."""
        if not self.supports(operator):
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, units = self.parameters, share.units or self.units
        cycles = max(1.0, operator.operations / (units * p.lanes))
        seconds = cycles / p.clock.value
        moved_B = sum(operand.size_B for operand in (*operator.inputs, *operator.outputs)) * operator.count
        if operator.kind is Kind.EMBEDDING:
            moved_B = 2 * operator.output_B
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
    def area_m2(self) -> float:
        """All units."""
        return self.units * self.parameters.area.value

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Leakage with temperature."""
        return self.units * cmos_leakage_W(self.parameters.leakage.value, temperature_K)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
