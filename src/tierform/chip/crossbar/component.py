"""Compute-in-memory tiles as a component: bit-sliced weights, one pass of input vectors, energy by part, writing.

A weight of b bits takes s = ceil(b / cell bits) cells (twice ceil((b - 1) / cell bits) with differential columns),
beside each other in a crossbar or one in each of s crossbars: :mod:`tierform.chip.crossbar.layout`.  All crossbars of a
weight are read at once, vectors follow each other without gaps, `replicas` copies take turns
(Shafiee et al., ISAAC, ISCA 2016).  Unused rows and columns are neither driven nor converted.

Products with the transposed weight drive the columns and read the rows of the same cells.  With slices beside each
other the slices of a row would add up with the same weight, so they are read one after the other: s times the cycles.
A second copy (`Share.second_copy`) or slices in separate crossbars avoid that.

Tiles whose cells may be rewritten freely (`dynamic_operands`, SRAM) also run products of two activations: the second
operand is written first, for every product, in waves over the crossbars there are.  A tile writes `parallel_writes`
crossbars at a time, and only those that the products take; a wave takes at least one round of writing.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum

from pydantic import BaseModel

from tierform.chip.component import WHOLE, Cost, Costs, Kelvin, Share, cmos_leakage_W, remember
from tierform.chip.crossbar.layout import CrossbarLayout
from tierform.chip.crossbar.parameters import CHARGES, CrossbarParameters
from tierform.chip.crossbar.readout import Reading, cycle_s, needed_adc_bits, read
from tierform.chip.laws import Scaled, Steps
from tierform.chip.parameters import evidence
from tierform.errors import Problem, TierformError, fail
from tierform.provenance import Assumption
from tierform.workload.formats import element
from tierform.workload.operator import Kind, Operand, Operator, Role
from tierform.workload.precision import bits


@dataclass(frozen=True)
class CrossbarTiles:
    """`units` equal tiles; holds static weights and multiplies by them in place."""

    name: str
    units: int
    parameters: CrossbarParameters
    _costs: Costs = field(init=False, default_factory=dict, repr=False, compare=False)

    schema = CrossbarParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: CrossbarParameters) -> CrossbarTiles:
        """From the data file's parameters; TierformError with everything that cannot be."""
        p, problems = parameters, list[Problem]()
        if p.parallel_writes.value < 1:
            problems.append(Problem("must be at least 1", key=f"{name}.parallel_writes", value=p.parallel_writes.value))
        if p.active_rows and p.active_rows > p.rows:
            problems.append(Problem(f"an array has {p.rows} rows", key=f"{name}.active_rows", value=p.active_rows))
        if (p.neuron is not None) != (p.adc_kind == "integrating"):
            problems.append(
                Problem("an integrating converter is described by 'neuron'", key=f"{name}.neuron", value=p.adc_kind)
            )
        if p.domain == "digital" and p.adc_kind != "none":
            problems.append(
                Problem("a digital array has no converter", key=f"{name}.adc_kind", value=p.adc_kind, fix="Use none.")
            )
        cells = 2 if p.encoding == "differential" else 1
        if p.columns < cells + p.guard_columns:
            problems.append(
                Problem(
                    f"a weight takes at least {cells + p.guard_columns} columns", key=f"{name}.columns", value=p.columns
                )
            )
        if problems:
            raise TierformError(problems)
        return cls(name, units, parameters)

    @classmethod
    def scaled(cls, parameters: BaseModel, given: BaseModel, own: AbstractSet[Steps]) -> Scaled:
        """Parts scaled to arrays other than the data file's; see :mod:`tierform.chip.crossbar.laws`."""
        from tierform.chip.crossbar.laws import scaled

        assert isinstance(parameters, CrossbarParameters) and isinstance(given, CrossbarParameters)
        return scaled(parameters, given, own)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know about the parameters: oversized converters, ADCs that slow the cycle."""
        p, found = self.parameters, []
        if p.adc_kind in ("sar", "flash"):
            needed = needed_adc_bits(p)
            if p.adc_bits > needed:
                found.append(f"{self.name}: the ADC has {p.adc_bits} bits; a column never needs more than {needed}")
            elif p.adc_bits < needed:
                found.append(
                    f"{self.name}: the ADC has {p.adc_bits} bits, and a full column of {p.active_rows or p.rows} rows "
                    f"needs {needed}: sums are clipped or rounded, which costs accuracy (`tierform accuracy`)"
                )
        if cycle_s(p) > p.cycle.value * (1 + 1e-9):
            found.append(
                f"{self.name}: an ADC serves {p.columns_per_adc or p.columns} columns and stretches the cycle to "
                f"{cycle_s(p) * 1e9:.3g} ns"
            )
        return tuple(found)

    def supports(self, operator: Operator) -> bool:
        """Products with a weight that may stay in cells, and activations between them; not adapters.

        Products of two activations only where cells may be rewritten for each of them.
        """
        if operator.kind is Kind.MATMUL:
            if not self._stays(operator) and not (self.parameters.dynamic_operands and len(operator.inputs) > 1):
                return False
            return self._fits(*self._bits(operator))
        return operator.kind is Kind.ACTIVATION and self._activation_J is not None

    def why_not(self, operator: Operator) -> str:
        """Why it cannot hold a weight that may stay in cells; empty otherwise."""
        if operator.kind is not Kind.MATMUL or not self._stays(operator) or self.supports(operator):
            return ""
        return f"{self.name}: {self._limits(operator)}"

    def conversion(self, operator: Operator) -> str:
        """Cells and drivers work on whole numbers: floats are taken as integers of as many bits."""
        if operator.kind is not Kind.MATMUL:
            return ""
        found = _operands(operator) or (operator.inputs[-1], operator.inputs[0])
        floats = [operand.precision for operand in found if not element(operand.precision).startswith("int")]
        if not floats:
            return ""
        wide = " and ".join(f"{name} as {bits(name)}-bit integers" for name in dict.fromkeys(floats))
        return f"{self.name}: crossbars take {wide}; scaling and alignment of floats are not charged"

    def _limits(self, operator: Operator) -> str:
        p = self.parameters
        weight_bits, input_bits = self._bits(operator)
        most = [
            f"{what} of at most {limit} bits"
            for what, limit in (("weights", p.max_weight_bits), ("inputs", p.max_input_bits))
            if limit is not None
        ]
        wide = self.layout(weight_bits).columns_per_weight
        here = f"here are weights of {weight_bits} bits ({wide} columns each) and inputs of {input_bits} bits"
        return f"its crossbars take {', '.join([*most, f'weights of at most {p.columns} columns'])}; {here}."

    @staticmethod
    def _stays(operator: Operator) -> bool:
        """Whether the product has a weight that may stay in cells."""
        return operator.weight is not None and operator.part != "adapter" and _operands(operator) is not None

    def _fits(self, weight_bits: int, input_bits: int) -> bool:
        p = self.parameters
        return (
            (p.max_weight_bits is None or weight_bits <= p.max_weight_bits)
            and (p.max_input_bits is None or input_bits <= p.max_input_bits)
            and self.layout(weight_bits).weights_per_row >= 1
        )

    @staticmethod
    def _bits(operator: Operator) -> tuple[int, int]:
        """Bits of what sits in the cells and of what is streamed."""
        found = _operands(operator) or (operator.inputs[-1], operator.inputs[0])
        return bits(found[0].precision), bits(found[1].precision)

    def slices(self, weight_bits: int) -> int:
        """Cells per weight."""
        p = self.parameters
        if p.encoding == "differential":
            return 2 * -(-max(1, weight_bits - 1) // p.cell_bits)
        return -(-weight_bits // p.cell_bits)

    @property
    def crossbars(self) -> int:
        """Crossbars of all tiles."""
        return self.units * self.parameters.crossbars

    def layout(self, weight_bits: int) -> CrossbarLayout:
        """How weights of so many bits lie in the crossbars."""
        p = self.parameters
        return CrossbarLayout(p.rows, p.columns, self.slices(weight_bits), p.slices, p.guard_columns)

    def crossbars_for(self, operator: Operator) -> int:
        """Crossbars that one copy of the operator's weight takes (all `count` groups)."""
        found = _operands(operator)
        if found is None:
            fail(f"the component {self.name!r} cannot hold a weight of this operator", value=operator.name)
        return self._crossbars_of(operator, bits(found[0].precision), bits(found[1].precision))

    def _crossbars_of(self, operator: Operator, weight_bits: int, input_bits: int) -> int:
        if not self._fits(weight_bits, input_bits):
            fail(
                f"the component {self.name!r} cannot hold this weight",
                key=operator.name,
                value=f"weights of {weight_bits}, inputs of {input_bits} bits",
                fix=self._limits(operator),
            )
        rows, columns = (operator.n, operator.k) if operator.transposed else (operator.k, operator.n)
        return operator.count * self.layout(weight_bits).crossbars(rows, columns)

    @cached_property
    def _charged(self) -> tuple[tuple[str, int, float], ...]:
        """Part, index of its charge, and energy of an action."""
        return tuple(
            (name, CHARGES.index(part.charge), part.energy.value)
            for name, part in self.parameters.parts.items()
            if part.energy is not None and part.charge not in ("none", "element")
        )

    @cached_property
    def _activation_J(self) -> float | None:
        parts = [part for part in self.parameters.parts.values() if part.charge == "element" and part.energy]
        if not parts or self.parameters.activation_rate is None:
            return None
        return fsum(part.energy.value for part in parts if part.energy)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """One pass of all input vectors; see the module's text."""
        return remember(self._costs, operator, share, self._cost)

    def _cost(self, operator: Operator, share: Share) -> Cost:
        p = self.parameters
        if operator.kind is not Kind.MATMUL or not self._stays(operator):
            return self._other(operator, share)
        weight_bits, input_bits = self._bits(operator)
        arrays = self._crossbars_of(operator, weight_bits, input_bits)
        layout = self.layout(weight_bits)
        vectors = operator.batch * operator.m
        reading = self._reading(input_bits, operator.n if operator.transposed else operator.k)
        slow = layout.cells if operator.transposed and p.slices == "columns" and not share.second_copy else 1
        occupancy = -(-vectors // share.replicas) * reading.seconds * slow
        stored = operator.count * operator.k * operator.n * layout.stacked * layout.columns_per_weight
        return Cost(
            latency_s=occupancy + p.pipeline_cycles * p.cycle.value,
            occupancy_s=occupancy,
            energy_J=self._energy(operator, reading, layout, arrays, vectors, slow),
            operations=operator.operations,
            utilization=stored / (arrays * p.rows * p.columns),
        )

    def _other(self, operator: Operator, share: Share) -> Cost:
        """Activations, and products whose operands are both computed."""
        if not self.supports(operator):
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        if operator.kind is Kind.MATMUL:
            weight_bits, input_bits = self._bits(operator)
            return self._dynamic(operator, share, self.layout(weight_bits), input_bits)
        assert self._activation_J is not None and self.parameters.activation_rate is not None
        elements = operator.count * sum(operand.elements for operand in operator.outputs)
        seconds = elements / (self.parameters.activation_rate.value * (share.units or self.units))
        return Cost(seconds, seconds, {"activation": elements * self._activation_J}, operator.operations)

    @cached_property
    def _readings(self) -> dict[tuple[int, int], Reading]:
        return {}

    def _reading(self, input_bits: int, rows: int) -> Reading:
        """The reading of one input vector, remembered."""
        key = (input_bits, min(rows, self.parameters.rows))
        if key not in self._readings:
            self._readings[key] = read(self.parameters, *key)
        return self._readings[key]

    def _energy(
        self, operator: Operator, reading: Reading, layout: CrossbarLayout, arrays: int, vectors: int, slow: int
    ) -> dict[str, float]:
        p = self.parameters
        rows, columns = (operator.n, operator.k) if operator.transposed else (operator.k, operator.n)
        along, across = -(-rows // p.rows), arrays / (operator.count * -(-rows // p.rows))
        driven = float(operator.count * vectors * slow) * (rows * across)
        read_columns = columns * layout.stacked * layout.columns_per_weight * along
        sampled = float(operator.count * vectors * slow) * read_columns
        if operator.transposed:  # columns are driven and rows are read
            driven, sampled = sampled / slow, float(driven)
        reads = arrays * vectors * slow * reading.cycles
        # Each array that adds up a part of a result gives one: those below each other, or transposed beside each other.
        parts = across / layout.stacked if operator.transposed else along
        results = operator.count * vectors * operator.n * parts
        into = float(operator.input_B - operator.weight_B)
        out = float(operator.output_B)
        counts = (
            reads,
            driven * reading.cycles,
            sampled * reading.cycles,
            sampled * reading.conversions,
            sampled * reading.steps,
            sampled * reading.phases,
            results,
            into,
            out,
            into + out,
        )
        return {name: counts[charge] * energy for name, charge, energy in self._charged}

    def _dynamic(self, operator: Operator, share: Share, layout: CrossbarLayout, input_bits: int) -> Cost:
        """Products whose second operand is written into the cells first; see the module's text."""
        p, units = self.parameters, share.units or self.units
        products = operator.count * operator.batch
        each = layout.crossbars(operator.k, operator.n)
        busiest = -(-products * each // units)  # crossbars that one tile writes in all
        waves = -(-busiest // p.crossbars)
        reading = self._reading(input_bits, operator.k)
        rounds = max(waves, -(-busiest // int(p.parallel_writes.value)))
        write_s = min(operator.k, p.rows) * p.write_pulse.value * p.write_pulses.value
        occupancy = rounds * write_s + waves * operator.m * reading.seconds
        vectors = operator.batch * operator.m
        energy = self._energy(operator, reading, layout, each * operator.count, vectors, 1)
        written = products * operator.k * operator.n * layout.cells
        energy["writing"] = written * self._write_J
        capacity = waves * units * p.crossbars * p.rows * p.columns
        return Cost(
            latency_s=occupancy + p.pipeline_cycles * p.cycle.value,
            occupancy_s=occupancy,
            energy_J=energy,
            operations=operator.operations,
            cell_writes=0 if p.technology == "sram" else written,
            writes_per_cell=0.0 if p.technology == "sram" else float(waves),
            utilization=min(1.0, written / capacity),
        )

    @property
    def _write_J(self) -> float:
        """Energy of writing a cell once, verify reads included."""
        p = self.parameters
        return p.write_energy.value + (p.verify_energy.value * p.write_pulses.value if p.verify_energy else 0.0)

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
            energy_J={"programming": cells * self._write_J * writes_per_cell},
            cell_writes=round(cells * writes_per_cell),
            writes_per_cell=writes_per_cell,
        )

    @property
    def endurance_writes(self) -> float:
        """Writes that a cell survives."""
        return self.parameters.endurance.value

    @property
    def cells_per_crossbar(self) -> int:
        """Cells of one crossbar."""
        return self.parameters.rows * self.parameters.columns

    def refreshes(self, seconds: float) -> int:
        """How often weights are written anew in so many seconds to stay within the retention; 0 without one."""
        retention = self.parameters.retention
        return int(seconds // retention.value) if retention else 0

    @property
    def area_m2(self) -> float:
        """All tiles, without what the network's area counts (`beside_tile`)."""
        from tierform.chip.crossbar.tile import area_by_part

        return self.units * fsum(area_by_part(self.parameters, beside=False).values())

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Leakage with temperature, and idling.

        `idle_power` is what clocks and biases draw whether the tile works or not; it does not depend on temperature.
        """
        idle = self.parameters.idle_power.value if self.parameters.idle_power else 0.0
        return self.units * (cmos_leakage_W(self.parameters.leakage.value, temperature_K) + idle)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)


def _operands(operator: Operator) -> tuple[Operand, Operand] | None:
    """The weight and the input; None without a weight operand."""
    weight = other = None
    for operand in operator.inputs:
        if operand.role is Role.WEIGHT:
            weight = weight or operand
        else:
            other = other or operand
    return None if weight is None or other is None else (weight, other)
