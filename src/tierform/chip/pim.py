"""DRAM with arithmetic at its banks: each bank streams the rows it holds past its own multipliers.

The operand that stays (a weight, or keys and values) is spread over all banks.  An (m, k) x (k, n) product streams it
ceil(m / reuse) times, `reuse` being how many input vectors a bank's registers hold:

    time = max(bytes * passes / (banks * bank bandwidth), MACs / (banks * MAC rate)) + moved inputs and outputs / link

In-bank (row-parallel, bit-serial) designs are described by their MAC rate per bank, near-bank ones by bandwidth and
multipliers.  Softmax, normalization and the like run on the logic beside the banks at `vector_rate`.  The bandwidth
of a bank is one column access per tCCD_L, lowered to what the activation window or power allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tierform.chip.component import WHOLE, Cost, Share
from tierform.chip.parameters import evidence, value_by_precision
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity
from tierform.workload.operator import Kind, Operator
from tierform.workload.precision import bits


class PimParameters(FileModel):
    """The data file of one stack (or module) of DRAM with arithmetic."""

    type: Literal["pim"]
    description: str = ""
    banks: int
    capacity: Annotated[Constant, quantity("B", above=0)]
    bank_bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    mac_rate: dict[str, Annotated[Constant, quantity("1/s", above=0)]]
    reuse: Annotated[Constant, quantity("1", above=0)]
    vector_rate: Annotated[Constant, quantity("1/s", above=0)]
    link_bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    read_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    mac_energy: dict[str, Annotated[Constant, quantity("J", minimum=0)]]
    operation_energy: Annotated[Constant, quantity("J", minimum=0)]
    link_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    background: Annotated[Constant, quantity("W", minimum=0)]
    area: Annotated[Constant, quantity("m^2", above=0)]


@dataclass(frozen=True)
class DramPim:
    """`units` equal stacks that share every operator."""

    name: str
    units: int
    parameters: PimParameters

    schema = PimParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: PimParameters) -> DramPim:
        """From the data file's parameters."""
        if parameters.banks < 1:
            fail("at least one bank is needed", key=f"{name}.banks", value=parameters.banks)
        return cls(name, units, parameters)

    def supports(self, operator: Operator) -> bool:
        """Everything but collectives, in a format that the banks multiply (or a wider one)."""
        if operator.kind is Kind.COLLECTIVE:
            return False
        return operator.kind is not Kind.MATMUL or self._rate(operator) is not None

    def _format(self, operator: Operator) -> str:
        return max((operand.precision for operand in operator.inputs), key=bits)

    def _rate(self, operator: Operator) -> float | None:
        return value_by_precision(self.parameters.mac_rate, self._format(operator))

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """See the module's text; inputs and outputs cross the link between stacks once."""
        if not self.supports(operator):
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, stacks = self.parameters, share.units or self.units
        banks = p.banks * stacks
        bandwidth = banks * p.bank_bandwidth.value
        link = stacks * p.link_bandwidth.value
        if operator.kind is not Kind.MATMUL:
            touched_B = (
                2 * operator.output_B if operator.kind is Kind.EMBEDDING else operator.input_B + operator.output_B
            )
            seconds = max(operator.operations / (stacks * p.vector_rate.value), touched_B / bandwidth)
            energy = {
                "operations": operator.operations * p.operation_energy.value,
                "rows": touched_B * p.read_energy.value,
            }
            return Cost(seconds, seconds, energy, operator.operations, touched_B)
        rate = self._rate(operator)
        assert rate is not None
        held = operator.inputs[1] if len(operator.inputs) > 1 else operator.inputs[0]
        streamed_B = operator.count * held.size_B * -(-operator.m // max(1, int(p.reuse.value)))
        moved_B = operator.input_B - operator.count * held.size_B + operator.output_B
        work_s = max(streamed_B / bandwidth, operator.macs / (banks * rate))
        seconds = work_s + moved_B / link
        mac_energy = value_by_precision(p.mac_energy, self._format(operator)) or 0.0
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={
                "rows": streamed_B * p.read_energy.value,
                "mac": operator.macs * mac_energy,
                "link": moved_B * p.link_energy.value,
            },
            operations=operator.operations,
            memory_read_B=streamed_B,
            utilization=operator.macs / (banks * rate * seconds) if seconds else 0.0,
        )

    @property
    def memory_capacity_B(self) -> int:
        """Bytes of all stacks."""
        return int(self.units * self.parameters.capacity.value)

    @property
    def area_m2(self) -> float:
        """All stacks, as the file counts them."""
        return self.units * self.parameters.area.value

    def leakage_W(self, temperature_K: float) -> float:
        """Background and refresh; refresh doubles above 85 °C (358 K), which is charged to all of it."""
        return self.units * self.parameters.background.value * (2.0 if temperature_K > 358.15 else 1.0)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
