"""The systolic-array component of a chip: cycles in closed form, energy by MACs and SRAM accesses, area and leakage.

Cycles and SRAM accesses are those of :mod:`tierform.chip.systolic.folds`, cut over the arrays as in
:mod:`tierform.chip.systolic.cores`; the best of the three dataflows is taken unless the data file names one.  Inputs
and weights are read at their own width, partial sums are written and read back at the accumulator's width.  N:M sparse
weights (`weight_sparsity`) pack k, save their MACs and SRAM bytes, and cost an index per kept weight.

Energies and area come from the data file, or from a process file (`process`, see :mod:`tierform.chip.process`) for
what the data file leaves out.  The memory behind the chip is not charged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from tierform.chip.component import WHOLE, Cost, Kelvin, Share, cmos_leakage_W
from tierform.chip.parameters import evidence, value_by_precision
from tierform.chip.systolic.cores import Cut, best_cut
from tierform.chip.systolic.folds import DATAFLOWS, DENSE, Overlap, Sparsity, accesses
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import Bits, Count, FileModel, quantity
from tierform.workload.operator import Kind, Operand, Operator, Role
from tierform.workload.precision import bits

_Energy = Annotated[Constant, quantity("J", minimum=0)]


class SparsityFile(FileModel):
    """N:M sparsity of static weights: `kept` of every `block` along k."""

    kept: Count
    block: Count


class SystolicParameters(FileModel):
    """The data file of a systolic array (one array with its SRAM)."""

    type: Literal["systolic"]
    description: str = ""
    rows: Count
    columns: Count
    dataflow: Literal["ws", "os", "is", "best"] = "best"
    overlap: Overlap = "double-buffered"
    accumulator_bits: Bits = 32
    weight_sparsity: SparsityFile | None = None
    process: str | None = None
    clock: Annotated[Constant, quantity("Hz", above=0)]
    mac_energy: dict[str, _Energy] = {}
    sram_energy: Annotated[Constant, quantity("J/B", minimum=0)] | None = None
    sram_capacity: Annotated[Constant, quantity("B", above=0)]
    array_area: Annotated[Constant, quantity("m^2", above=0)] | None = None
    leakage: Annotated[Constant, quantity("W", minimum=0)] | None = None
    idle_power: Annotated[Constant, quantity("W", minimum=0)] | None = None


@dataclass(frozen=True)
class SystolicArrays:
    """`units` equal systolic arrays that share an operator's products."""

    name: str
    units: int
    parameters: SystolicParameters

    schema = SystolicParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: SystolicParameters) -> SystolicArrays:
        """From the data file's parameters; what it leaves out is taken from its process."""
        p = parameters
        if p.rows < 1 or p.columns < 1:
            fail(
                "an array needs at least one row and one column",
                key=f"{name}.rows x columns",
                value=f"{p.rows} x {p.columns}",
            )
        if p.accumulator_bits < 1:
            fail("must be at least 1", key=f"{name}.accumulator_bits", value=p.accumulator_bits)
        if p.weight_sparsity and not 1 <= p.weight_sparsity.kept <= p.weight_sparsity.block:
            fail(
                "of a block, at least one weight and at most all are kept",
                key=f"{name}.weight_sparsity",
                value=f"{p.weight_sparsity.kept}:{p.weight_sparsity.block}",
            )
        left_out = [key for key in ("sram_energy", "array_area", "leakage") if getattr(p, key) is None]
        if not p.mac_energy:
            left_out.insert(0, "mac_energy")
        if left_out and p.process is None:
            fail("this key is missing, and no process gives it", key=f"{name}.{left_out[0]}", fix="Name a 'process'.")
        if left_out:
            from tierform.chip.process import load_process

            process = load_process(str(p.process))
            p = p.model_copy(update=process.systolic(p.rows, p.columns, p.sram_capacity.value, p.clock.value, left_out))
        return cls(name, units, p)

    def supports(self, operator: Operator) -> bool:
        """Any matmul in a number format that the array has a MAC energy for."""
        return operator.kind is Kind.MATMUL and self._mac_energy_J(operator) is not None

    @cached_property
    def _by_format(self) -> dict[str, float | None]:
        return {}

    def mac_energy_J(self, precision: str) -> float | None:
        """Energy of a multiply-accumulate in a number format (or the next wider one); None where there is none."""
        if precision not in self._by_format:
            self._by_format[precision] = value_by_precision(self.parameters.mac_energy, precision)
        return self._by_format[precision]

    def _mac_energy_J(self, operator: Operator) -> float | None:
        return self.mac_energy_J(max((operand.precision for operand in operator.inputs), key=bits))

    def _sparsity(self, operator: Operator) -> Sparsity:
        given = self.parameters.weight_sparsity
        if given is None or operator.static_operand is None or operator.transposed:
            return DENSE
        return Sparsity(given.kept, given.block)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Cycles of the best (or the given) dataflow on the arrays of the share; energy of MACs and SRAM."""
        mac_energy = self._mac_energy_J(operator) if operator.kind is Kind.MATMUL else None
        if mac_energy is None:
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, units = self.parameters, share.units or self.units
        sparsity = self._sparsity(operator)
        m, n, k = operator.m, operator.n, sparsity.depth(operator.k)
        products = operator.count * operator.batch
        cut, dataflow = self._cut(m, n, k, products, units)
        seconds = cut.cycles / p.clock.value
        assert p.sram_energy is not None
        sram_B = products * self._sram_B(operator, dataflow, cut, k, sparsity)
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={"mac": products * m * n * k * mac_energy, "sram": sram_B * p.sram_energy.value},
            operations=operator.operations,
            utilization=products * m * n * k / (units * p.rows * p.columns * cut.cycles),
        )

    def _cut(self, m: int, n: int, k: int, products: int, units: int) -> tuple[Cut, str]:
        p = self.parameters
        choices = DATAFLOWS if p.dataflow == "best" else (p.dataflow,)
        options = [best_cut(flow, m, n, k, products, units, p.rows, p.columns, p.overlap) for flow in choices]
        best = min(range(len(options)), key=lambda index: options[index].cycles)
        return options[best], choices[best]

    def _sram_B(self, operator: Operator, dataflow: str, cut: Cut, k: int, sparsity: Sparsity) -> float:
        """Bytes to and from SRAM of one product, all its parts together."""
        p = self.parameters
        m, n = -(-operator.m // cut.m_parts), -(-operator.n // cut.n_parts)
        parts = operator.m * operator.n / (m * n)
        counts = accesses(dataflow, m, n, k, p.rows, p.columns)
        first, second = _matrix_operands(operator)
        weight_bits = bits(second.precision) + sparsity.index_bits
        result_bits = bits(operator.outputs[0].precision) if operator.outputs else p.accumulator_bits
        partial = counts.output_writes - m * n + counts.partial_reads
        unpacked = operator.k / k if sparsity.kept < sparsity.block else 1.0
        total_bits = counts.inputs * unpacked * bits(first.precision) + counts.weights * weight_bits
        return parts * (total_bits + m * n * result_bits + partial * p.accumulator_bits) / 8

    @property
    def sram_capacity_B(self) -> float:
        """SRAM of all arrays."""
        return self.units * self.parameters.sram_capacity.value

    @property
    def peak_macs_per_s(self) -> float:
        """Multiply-accumulates of all arrays at full use."""
        return self.units * self.parameters.rows * self.parameters.columns * self.parameters.clock.value

    @property
    def area_m2(self) -> float:
        """Arrays with their SRAM."""
        assert self.parameters.array_area is not None
        return self.units * self.parameters.array_area.value

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Leakage with temperature, and idling.

        `idle_power` is what the clock draws whether the arrays work or not; it does not depend on temperature.
        """
        assert self.parameters.leakage is not None
        idle = self.parameters.idle_power.value if self.parameters.idle_power else 0.0
        return self.units * (cmos_leakage_W(self.parameters.leakage.value, temperature_K) + idle)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)


def _matrix_operands(operator: Operator) -> tuple[Operand, Operand]:
    """The streamed operand and the one that a weight-stationary array keeps."""
    weight = next((operand for operand in operator.inputs if operand.role is Role.WEIGHT), None)
    if weight is None:
        return operator.inputs[0], operator.inputs[-1]
    return next((operand for operand in operator.inputs if operand is not weight), weight), weight
