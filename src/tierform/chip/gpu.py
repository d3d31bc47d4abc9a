"""A GPU as one component: every operator is a kernel, bound by arithmetic, by memory or by its launch.

latency = launch + max(operations / (peak of the format * compute efficiency), bytes / (bandwidth * memory efficiency)).
Energy is counted per operation and per byte; idle power is charged over the whole run as leakage.  A product of
quantized weights with wider activations runs at the activations' rate after dequantization, as weight-only kernels do.
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


class GpuParameters(FileModel):
    """The data file of a GPU: data-sheet figures and a few efficiency parameters."""

    type: Literal["gpu"]
    description: str = ""
    peak_rate: dict[str, Annotated[Constant, quantity("1/s", above=0)]]
    vector_rate: Annotated[Constant, quantity("1/s", above=0)]
    memory_bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    memory_capacity: Annotated[Constant, quantity("B", above=0)]
    compute_efficiency: Annotated[Constant, quantity("1", above=0)]
    memory_efficiency: Annotated[Constant, quantity("1", above=0)]
    launch: Annotated[Constant, quantity("s", minimum=0)]
    operation_energy: dict[str, Annotated[Constant, quantity("J", minimum=0)]]
    memory_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    idle_power: Annotated[Constant, quantity("W", minimum=0)]
    board_power: Annotated[Constant, quantity("W", above=0)]
    die_area: Annotated[Constant, quantity("m^2", above=0)]


@dataclass(frozen=True)
class Gpu:
    """One GPU (or `units` of them side by side, each with its own share of the work)."""

    name: str
    units: int
    parameters: GpuParameters

    schema = GpuParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: GpuParameters) -> Gpu:
        """From the data file's parameters."""
        return cls(name, units, parameters)

    def supports(self, operator: Operator) -> bool:
        """Everything but collectives, in a format that the GPU has a peak for (or a wider one)."""
        if operator.kind is Kind.COLLECTIVE:
            return False
        return operator.kind is not Kind.MATMUL or self._rate(operator) is not None

    def _rate(self, operator: Operator) -> float | None:
        return value_by_precision(self.parameters.peak_rate, self._format(operator))

    @staticmethod
    def _format(operator: Operator) -> str:
        return max((operand.precision for operand in operator.inputs), key=bits)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Launch and the longer of arithmetic and memory traffic; see the module's text."""
        if not self.supports(operator):
            fail(f"the GPU {self.name!r} has no peak rate for this operator's format", value=operator.name)
        p = self.parameters
        if operator.kind is Kind.MATMUL:
            rate = self._rate(operator)
            assert rate is not None
            energy_each = value_by_precision(p.operation_energy, self._format(operator)) or 0.0
        else:
            rate, energy_each = p.vector_rate.value, value_by_precision(p.operation_energy, "fp32") or 0.0
        read_B = operator.output_B if operator.kind is Kind.EMBEDDING else operator.input_B
        arithmetic_s = operator.operations / (rate * p.compute_efficiency.value * self.units)
        memory_s = (read_B + operator.output_B) / (p.memory_bandwidth.value * p.memory_efficiency.value * self.units)
        seconds = p.launch.value + max(arithmetic_s, memory_s)
        energy = {
            "arithmetic": operator.operations * energy_each,
            "memory": (read_B + operator.output_B) * p.memory_energy.value,
        }
        limit_J = (p.board_power.value - p.idle_power.value) * self.units * seconds
        spent_J = sum(energy.values())
        if spent_J > limit_J:  # the board lowers its clock to stay within its power limit
            seconds *= spent_J / limit_J
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J=energy,
            operations=operator.operations,
            memory_read_B=read_B,
            memory_write_B=operator.output_B,
            utilization=operator.operations / (rate * self.units * seconds),
        )

    @property
    def memory_capacity_B(self) -> int:
        """Bytes of the memory of all GPUs."""
        return int(self.units * self.parameters.memory_capacity.value)

    @property
    def area_m2(self) -> float:
        """The GPU die; its memory stacks are not counted."""
        return self.units * self.parameters.die_area.value

    def leakage_W(self, temperature_K: float) -> float:
        """Idle power of the board; its dependence on temperature is not published."""
        return self.units * self.parameters.idle_power.value

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
