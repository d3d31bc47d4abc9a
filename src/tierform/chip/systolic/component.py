"""The systolic-array component of a chip: cycles in closed form, energy by MACs and SRAM accesses, area and leakage.

Cycles and SRAM accesses are those of :mod:`tierform.chip.systolic.folds`, cut over the arrays as in
:mod:`tierform.chip.systolic.cores`; the best of the three dataflows is taken unless the data file names one.  Products
that share their second operand (heads of queries that share keys) are one.  Inputs and weights are read at their own
width, partial sums are written and read back at the accumulator's width.  N:M sparse weights (`weight_sparsity`) pack
k, save their MACs and SRAM bytes, and cost an index per kept weight.

Energies and area come from the data file, or from a process file (`process`, see :mod:`tierform.chip.process`) for
what the data file leaves out.  The memory behind the chip is not charged here; `refetch` tells how often operands come
from it (:mod:`tierform.chip.systolic.refetch`).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tierform.chip.component import (
    ONCE,
    WHOLE,
    Cost,
    Costs,
    Kelvin,
    Refetch,
    Refetches,
    Share,
    cmos_leakage_W,
    remember,
)
from tierform.chip.laws import Scaled, Steps
from tierform.chip.parameters import evidence, value_by_precision
from tierform.chip.systolic.cores import Cut, best_cut
from tierform.chip.systolic.folds import DATAFLOWS, DENSE, Overlap, Sparsity, accesses, fold_count
from tierform.chip.systolic.token_parts import cost_of_parts
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import Bits, Count, FileModel, quantity
from tierform.workload.operator import Kind, Operand, Operator, Role
from tierform.workload.precision import bits

_Energy = Annotated[Constant, quantity("J", minimum=0)]


class SparsityFile(FileModel):
    """N:M sparsity of static weights: `kept` of every `block` along k."""

    kept: Count = Field(description="Weights kept of every block along k")
    block: Count = Field(description="Weights of a block along k")


class SystolicParameters(FileModel):
    """The data file of a systolic array (one array with its SRAM)."""

    type: Literal["systolic"] = Field(description="The kind of component; it decides which other keys there are")
    description: str = Field("", description="One line for people; changes no figure")
    rows: Count = Field(description="Rows of processing elements; changes cycles, peak and area of a process")
    columns: Count = Field(description="Columns of processing elements; changes cycles, peak and area of a process")
    dataflow: Literal["ws", "os", "is", "best"] = Field(
        "best",
        description="What stays in the elements: weights (ws), outputs (os), inputs (is), or the fastest (best)",
    )
    overlap: Overlap = Field(
        "double-buffered",
        description="What is hidden: nothing (serial, which uses all of its SRAM), loads, or wavefronts, too",
    )
    accumulator_bits: Bits = Field(
        32, description="Width of a partial sum; changes the energy of SRAM and the traffic of sums that do not fit"
    )
    weight_sparsity: SparsityFile | None = Field(None, description="N:M sparsity of static weights; none when left out")
    process: str | None = Field(
        None, description="Process node that gives the energies, area and leakage which this file leaves out"
    )
    node: str | None = Field(
        None, description="Process node at which the constants of this file hold; another one, by `set`, scales them"
    )
    clock: Annotated[Constant, quantity("Hz", above=0)] = Field(
        description="Clock of the array; changes every time, and by `set` the supply and with it energies and leakage"
    )
    mac_energy: dict[str, _Energy] = Field(
        {}, description="Energy of a multiply-accumulate by number format; a format without one uses the next wider"
    )
    sram_energy: Annotated[Constant, quantity("J/B", minimum=0)] | None = Field(
        None, description="Energy of a byte read from or written to the SRAM of the array"
    )
    sram_capacity: Annotated[Constant, quantity("B", above=0)] = Field(
        description="SRAM of one array; decides how often operands come from memory, and the area of a process"
    )
    sram_banks: Count = Field(1, description="Banks of the SRAM; by `set` they change the energy of a byte")
    sram_width: Count = Field(
        32,
        le=4096,
        description="Bytes of one access of the SRAM; by `set` they change the energy of a byte and the area",
    )
    array_area: Annotated[Constant, quantity("m^2", above=0)] | None = Field(
        None, description="Area of one array with its SRAM"
    )
    leakage: Annotated[Constant, quantity("W", minimum=0)] | None = Field(
        None, description="Static power of one array at 300 K; doubles every 30 K"
    )
    idle_power: Annotated[Constant, quantity("W", minimum=0)] | None = Field(
        None, description="Power of the clock of one array, whatever the temperature; none when left out"
    )


def _check_node(name: str, node: str | None) -> None:
    if node is not None:
        from tierform.chip.process import load_process

        load_process(node, f"{name}.node")


@dataclass(frozen=True)
class SystolicArrays:
    """`units` equal systolic arrays that share an operator's products."""

    name: str
    units: int
    parameters: SystolicParameters
    _costs: Costs = field(init=False, default_factory=dict, repr=False, compare=False)
    _refetches: Refetches = field(init=False, default_factory=dict, repr=False, compare=False)
    _cuts: dict[tuple[int, ...], tuple[Cut, str]] = field(init=False, default_factory=dict, repr=False, compare=False)

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
        _check_node(name, p.node)
        if left_out and p.process is None:
            fail("this key is missing, and no process gives it", key=f"{name}.{left_out[0]}", fix="Name a 'process'.")
        if left_out:
            from tierform.chip.process import load_process

            process = load_process(str(p.process))
            p = p.model_copy(update=process.systolic(p.rows, p.columns, p.sram_capacity.value, p.clock.value, left_out))
        return cls(name, units, p)

    @classmethod
    def scaled(cls, parameters: BaseModel, given: BaseModel, own: AbstractSet[Steps]) -> Scaled:
        """Constants scaled from the data file's array to another; see :mod:`tierform.chip.systolic.laws`."""
        from tierform.chip.systolic.laws import scaled

        assert isinstance(parameters, SystolicParameters) and isinstance(given, SystolicParameters)
        return scaled(parameters, given, own)

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
        return self.mac_energy_J(operator.widest)

    def conversion(self, operator: Operator) -> str:
        """A format without a MAC energy of its own is run as the next wider one."""
        if operator.kind is not Kind.MATMUL:
            return ""
        precision = operator.widest
        if precision in self.parameters.mac_energy:
            return ""
        energy = self.mac_energy_J(precision)
        taken = next((name for name, item in self.parameters.mac_energy.items() if item.value == energy), "")
        return f"{self.name}: no MAC in {precision}; run and charged as {taken}" if taken else ""

    def _sparsity(self, operator: Operator) -> Sparsity:
        given = self.parameters.weight_sparsity
        if given is None or operator.static_operand is None or operator.transposed:
            return DENSE
        return Sparsity(given.kept, given.block)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Cycles of the best (or the given) dataflow on the arrays of the share; energy of MACs and SRAM.

        Tokens that come in parts are computed part by part.
        """
        return remember(self._costs, operator, share, self._cost)

    def _cost(self, operator: Operator, share: Share) -> Cost:
        if share.parts > 1:
            whole = replace(share, parts=1, sequences=1)
            return cost_of_parts(operator, share, self.cost(operator, whole), lambda one: self.cost(one, whole))
        mac_energy = self._mac_energy_J(operator) if operator.kind is Kind.MATMUL else None
        if mac_energy is None:
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, units = self.parameters, share.units or self.units
        sparsity = self._sparsity(operator)
        m, products = _joined(operator)
        n, k = operator.n, sparsity.depth(operator.k)
        cut, dataflow = self._cut(m, n, k, products, units)
        seconds = cut.cycles / p.clock.value
        assert p.sram_energy is not None
        sram_B = products * self._sram_B(operator, m, dataflow, cut, k, sparsity)
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={"mac": products * m * n * k * mac_energy, "sram": sram_B * p.sram_energy.value},
            operations=operator.operations,
            utilization=products * m * n * k / (units * p.rows * p.columns * cut.cycles),
        )

    def _cut(self, m: int, n: int, k: int, products: int, units: int) -> tuple[Cut, str]:
        key = (m, n, k, products, units)
        found = self._cuts.get(key)
        if found is None:
            found = self._cuts[key] = self._best_cut(m, n, k, products, units)
        return found

    def _best_cut(self, m: int, n: int, k: int, products: int, units: int) -> tuple[Cut, str]:
        p = self.parameters
        choices = DATAFLOWS if p.dataflow == "best" else (p.dataflow,)
        options = [best_cut(flow, m, n, k, products, units, p.rows, p.columns, p.overlap) for flow in choices]
        best = min(range(len(options)), key=lambda index: options[index].cycles)
        return options[best], choices[best]

    def _sram_B(self, operator: Operator, rows: int, dataflow: str, cut: Cut, k: int, sparsity: Sparsity) -> float:
        """Bytes to and from SRAM of one product of so many rows, all its parts together."""
        p = self.parameters
        m, n = -(-rows // cut.m_parts), -(-operator.n // cut.n_parts)
        parts = rows * operator.n / (m * n)
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

    def refetch(self, operator: Operator, share: Share = WHOLE) -> Refetch:
        """How often operands cross to memory, by the SRAM of the arrays that work on one product.

        The rows of products that share their second operand (queries of one head of keys) follow each other.  Half of
        the SRAM holds what is in use; a `serial` array has nothing to hide and uses all of it.
        """
        return remember(self._refetches, operator, share, self._refetch)

    def _refetch(self, operator: Operator, share: Share) -> Refetch:
        from tierform.chip.systolic.refetch import Widths, best_refetch

        if not self.supports(operator):
            return ONCE
        p, units = self.parameters, share.units or self.units
        sparsity = self._sparsity(operator)
        m, products = _joined(operator)
        n, k = operator.n, sparsity.depth(operator.k)
        cut, dataflow = self._cut(m, n, k, products, units)
        first, second = _matrix_operands(operator)
        arrays = 1
        if cut.m_parts * cut.n_parts == 1:  # folds of one product may run on several arrays, which then share it
            arrays = min(max(1, units // products), fold_count(dataflow, m, n, k, p.rows, p.columns))
        room_B = arrays * p.sram_capacity.value / (1 if p.overlap == "serial" else 2)
        result_bits = bits(operator.outputs[0].precision) if operator.outputs else p.accumulator_bits
        widths = Widths(
            first=bits(first.precision) / 8,
            second=(bits(second.precision) + sparsity.index_bits) / 8,
            result=result_bits / 8,
            partial=p.accumulator_bits / 8,
        )
        m, n = -(-m // cut.m_parts), -(-n // cut.n_parts)
        return best_refetch(dataflow, m, n, k, p.rows, p.columns, room_B, widths)

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


def _joined(operator: Operator) -> tuple[int, int]:
    """(rows of a product, products): products that share their second operand are one, of all their rows.

    Heads of queries that share keys (grouped queries: Ainslie et al., EMNLP 2023) stream over the same stationary keys.
    """
    _, second = _matrix_operands(operator)
    shared = operator.batch * operator.k * operator.n / max(second.elements, 1)
    together = max(1, round(shared))
    if operator.batch % together or not operator.batch:
        together = 1
    return together * operator.m, operator.count * operator.batch // together


def _matrix_operands(operator: Operator) -> tuple[Operand, Operand]:
    """The streamed operand and the one that a weight-stationary array keeps."""
    weight = next((operand for operand in operator.inputs if operand.role is Role.WEIGHT), None)
    if weight is None:
        return operator.inputs[0], operator.inputs[-1]
    return next((operand for operand in operator.inputs if operand is not weight), weight), weight
