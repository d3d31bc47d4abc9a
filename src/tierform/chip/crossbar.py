"""ReRAM crossbar tiles: bit-serial inputs, bit-sliced weights, one ADC read per column and input bit.

A (k, n) weight of b bits on crossbars of R rows and C columns with c bits a cell takes
ceil(k / R) * ceil(n * ceil(b / c) / C) crossbars.  One input vector takes ceil(input bits / DAC bits) crossbar cycles,
all crossbars of the weight at once, and vectors follow each other without gaps; `replicas` copies take turns
(Shafiee et al., ISAAC, ISCA 2016).  Products with the transposed weight read the same cells through their columns
and cost the same, or use a second copy: the chip's choice.  Writing goes row by row in every crossbar, a limited
number of crossbars at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tierform.chip.component import WHOLE, Cost, Share
from tierform.chip.parameters import evidence
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity
from tierform.workload.operator import Kind, Operator, Role
from tierform.workload.precision import bits


class CrossbarParameters(FileModel):
    """The data file of one crossbar tile."""

    type: Literal["crossbar"]
    description: str = ""
    crossbars: int
    rows: int
    columns: int
    cell_bits: int
    dac_bits: int
    cycle: Annotated[Constant, quantity("s", above=0)]
    pipeline_cycles: int
    crossbar_energy: Annotated[Constant, quantity("J", minimum=0)]
    adc_energy: Annotated[Constant, quantity("J", minimum=0)]
    dac_energy: Annotated[Constant, quantity("J", minimum=0)]
    sample_hold_energy: Annotated[Constant, quantity("J", minimum=0)]
    shift_add_energy: Annotated[Constant, quantity("J", minimum=0)]
    register_energy: Annotated[Constant, quantity("J", minimum=0)]
    edram_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    bus_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    activation_energy: Annotated[Constant, quantity("J", minimum=0)]
    activation_rate: Annotated[Constant, quantity("1/s", above=0)]
    area: Annotated[Constant, quantity("m^2", above=0)]
    leakage: Annotated[Constant, quantity("W", minimum=0)]
    write_pulse: Annotated[Constant, quantity("s", above=0)]
    write_pulses: Annotated[Constant, quantity("1", above=0)]
    write_energy: Annotated[Constant, quantity("J", minimum=0)]
    parallel_writes: Annotated[Constant, quantity("1", above=0)]
    endurance: Annotated[Constant, quantity("1", above=0)]


@dataclass(frozen=True)
class CrossbarTiles:
    """`units` equal tiles; holds static weights and multiplies by them in place."""

    name: str
    units: int
    parameters: CrossbarParameters

    schema = CrossbarParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: CrossbarParameters) -> CrossbarTiles:
        """From the data file's parameters."""
        for key in ("crossbars", "rows", "columns", "cell_bits", "dac_bits"):
            if getattr(parameters, key) < 1:
                fail("must be at least 1", key=f"{name}.{key}", value=getattr(parameters, key))
        return cls(name, units, parameters)

    def supports(self, operator: Operator) -> bool:
        """Products with a weight that may stay in cells, and activations between them; not adapters."""
        if operator.kind is Kind.MATMUL:
            return operator.weight is not None and operator.module != "adapter" and self._weight(operator) is not None
        return operator.kind is Kind.ACTIVATION

    @staticmethod
    def _weight(operator: Operator) -> tuple[int, int] | None:
        """Bits of the weight and of the input; None without a weight operand."""
        weight = [operand for operand in operator.inputs if operand.role is Role.WEIGHT]
        other = [operand for operand in operator.inputs if operand.role is not Role.WEIGHT]
        if not weight or not other:
            return None
        return bits(weight[0].precision), bits(other[0].precision)

    def slices(self, weight_bits: int) -> int:
        """Cells per weight."""
        return -(-weight_bits // self.parameters.cell_bits)

    @property
    def crossbars(self) -> int:
        """Crossbars of all tiles."""
        return self.units * self.parameters.crossbars

    def crossbars_for(self, operator: Operator) -> int:
        """Crossbars that one copy of the operator's weight takes (all `count` groups)."""
        found = self._weight(operator)
        if found is None:
            fail(f"the component {self.name!r} cannot hold a weight of this operator", value=operator.name)
        p = self.parameters
        rows, columns = (operator.n, operator.k) if operator.transposed else (operator.k, operator.n)
        return operator.count * -(-rows // p.rows) * -(-columns * self.slices(found[0]) // p.columns)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """One pass of all input vectors; see the module's text."""
        if not self.supports(operator):
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p = self.parameters
        if operator.kind is Kind.ACTIVATION:
            elements = operator.count * sum(operand.elements for operand in operator.outputs)
            seconds = elements / (p.activation_rate.value * (share.units or self.units))
            return Cost(seconds, seconds, {"activation": elements * p.activation_energy.value}, operator.operations)
        found = self._weight(operator)
        assert found is not None
        weight_bits, input_bits = found
        vectors = operator.batch * operator.m
        cycles = -(-input_bits // p.dac_bits)
        occupancy = -(-vectors // share.replicas) * cycles * p.cycle.value
        reads = self.crossbars_for(operator) * vectors * cycles
        moved_B = operator.input_B - operator.weight_B + operator.output_B
        return Cost(
            latency_s=occupancy + p.pipeline_cycles * p.cycle.value,
            occupancy_s=occupancy,
            energy_J={
                "crossbar": reads * p.crossbar_energy.value,
                "adc": reads * p.columns * p.adc_energy.value,
                "dac": reads * p.rows * p.dac_energy.value,
                "sample-hold": reads * p.columns * p.sample_hold_energy.value,
                "shift-add": reads * p.columns * p.shift_add_energy.value,
                "registers": reads * p.register_energy.value,
                "edram": moved_B * p.edram_energy.value,
                "bus": moved_B * p.bus_energy.value,
            },
            operations=operator.operations,
            utilization=operator.k
            * operator.n
            * self.slices(weight_bits)
            * operator.count
            / (self.crossbars_for(operator) * p.rows * p.columns),
        )

    def programming_cost(self, crossbars: int, writes_per_cell: float = 1.0) -> Cost:
        """Write every cell of so many crossbars: row after row, `parallel_writes` crossbars of a tile at a time."""
        p = self.parameters
        at_once = min(crossbars, int(p.parallel_writes.value) * self.units) or 1
        rounds = -(-crossbars // at_once)
        seconds = rounds * p.rows * p.write_pulse.value * p.write_pulses.value * writes_per_cell
        cells = crossbars * p.rows * p.columns
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={"programming": cells * p.write_energy.value * writes_per_cell},
            cell_writes=round(cells * writes_per_cell),
            writes_per_cell=writes_per_cell,
        )

    @property
    def endurance_writes(self) -> float:
        """Writes that a cell survives."""
        return self.parameters.endurance.value

    @property
    def area_m2(self) -> float:
        """All tiles."""
        return self.units * self.parameters.area.value

    def leakage_W(self, temperature_K: float) -> float:
        """Doubles every 30 K, from the parameter's value at 300 K (rule of thumb for bulk CMOS; assumed)."""
        return float(self.units * self.parameters.leakage.value * 2.0 ** ((temperature_K - 300.0) / 30.0))

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
