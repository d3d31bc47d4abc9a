"""DRAM with arithmetic: beside each bank, or inside its rows.

The operand that stays (a weight, or keys and values) lies spread over all banks.  Times come from the DRAM's own:

- A row is opened, read column by column, closed: open + columns * tCCD_L + close.  It takes at least a row cycle, and
  at least `banks_per_channel` activations at the rate that the activation window allows, since all banks of a channel
  work in step.  Refresh takes its share of the time.
- **Near the bank**: ceil(rows held / banks) rows are streamed past the bank's multipliers, once for every `reuse`
  input vectors.  The slower of streaming and multiplying counts.
- **In the bank**: a row operation acts on every bit line of a row in `subarrays` of the bank at once.  A product of two
  numbers takes `row_operations` of them; its results are added by the `adder_rate` of the bank's adders, overlapped.

A unit is a stack, a layer of one or a part of a layer; `units_per_link` of them share a link.  Units share an operator
in one of two ways.  ``weights``: each holds its part of the standing operand, every link carries all input vectors, and
outputs are gathered.  ``tokens``: input vectors stay where they are, the standing operand goes round all links, and
units beyond the number of vectors idle.  `link_latency` is paid once an operator.

Softmax, normalization and the like run on the logic beside the banks at `vector_rate`.  Limits: no overlap of links and
banks; the transposition of rows that bit-serial designs need is not charged; faults and retention are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tierform.chip.component import WHOLE, Cost, Costs, Kelvin, Share, remember
from tierform.chip.parameters import evidence, value_by_precision
from tierform.errors import Problem, TierformError, fail
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, Whole, quantity
from tierform.workload.operator import Kind, Operator

_Time = Annotated[Constant, quantity("s", minimum=0)]
_Span = Annotated[Constant, quantity("s", above=0)]
_Size = Annotated[Constant, quantity("B", above=0)]
_Rate = Annotated[Constant, quantity("1/s", above=0)]
_Energy = Annotated[Constant, quantity("J", minimum=0)]
_Count = Annotated[Constant, quantity("1", above=0)]


class TimingFile(FileModel):
    """Times of the DRAM, as in its standard: see :meth:`row_s`."""

    row_bytes: _Size = Field(description="Bytes of an open row of one bank")
    column_bytes: _Size = Field(description="Bytes of one column access")
    column: _Span = Field(description="Time between two column accesses of one bank (tCCD_L)")
    open: _Span = Field(description="Time from opening a row to its first column (tRCD)")
    close: _Span = Field(description="Time of closing a row (tRP)")
    row_cycle: _Span = Field(description="Least time between two openings of a bank (tRC)")
    activation: _Span = Field(
        description="Mean time between two openings in one channel, as its activation window allows (tFAW / 4)"
    )
    banks_per_channel: Whole = Field(description="Banks that work in step in one channel")
    refresh: _Time = Field(description="Time of one refresh (tRFC); its share of the interval is lost")
    refresh_interval: _Span = Field(description="Time between two refreshes (tREFI)")

    @property
    def row_s(self) -> float:
        """Mean time of opening, reading and closing one row in every bank of a channel."""
        columns = -(-self.row_bytes.value // self.column_bytes.value)
        read_s = self.open.value + columns * self.column.value + self.close.value
        window_s = self.banks_per_channel * self.activation.value
        return max(read_s, self.row_cycle.value, window_s) / (1 - self.refresh.value / self.refresh_interval.value)


class NearBankFile(FileModel):
    """Multipliers beside a bank: products a second by format, vectors that a pass over the rows serves."""

    mac_rate: dict[str, _Rate] = Field(description="Multiply-accumulates a second beside one bank, by number format")
    mac_energy: dict[str, _Energy] = Field(description="Energy of a multiply-accumulate, by number format")
    reuse: _Count = Field(description="Input vectors that one pass over the rows serves; at least 1")


class InBankFile(FileModel):
    """Arithmetic in rows, bit by bit: row operations of one product by format, and adders for the results."""

    subarrays: Whole = Field(description="Subarrays of a bank that work at once")
    row_operation: _Span = Field(description="Time of one operation on all bit lines of a row")
    row_operations: dict[str, _Count] = Field(description="Row operations of one multiplication, by number format")
    row_energy: _Energy = Field(description="Energy of one row operation")
    adder_rate: _Rate = Field(description="Additions a second of the adders of one bank")
    adder_energy: _Energy = Field(description="Energy of one addition")


class PimParameters(FileModel):
    """The data file of one unit (a stack, a layer of one, or a part of a layer) of DRAM with arithmetic."""

    type: Literal["pim"] = Field(description="The kind of component; it decides which other keys there are")
    description: str = Field("", description="One line for people; changes no figure")
    banks: Whole = Field(description="Banks of one unit; changes bandwidth and rate")
    capacity: _Size = Field(description="Bytes of one unit; changes what fits")
    timing: TimingFile = Field(description="Times of the DRAM, as in its standard")
    near_bank: NearBankFile | None = Field(None, description="Multipliers beside each bank; this or in_bank")
    in_bank: InBankFile | None = Field(None, description="Arithmetic in the rows; this or near_bank")
    sharing: Literal["weights", "tokens"] = Field(
        "weights",
        description="What a unit has a part of: the standing operand (weights) or the input vectors (tokens)",
    )
    units_per_link: Whole = Field(1, description="Units that share a link")
    vector_rate: _Rate = Field(
        description="Simple operations a second of the logic of one unit; for softmax, normalization and the like"
    )
    link_bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(description="Bytes a second of a link")
    link_latency: _Time = Field(description="Time of a link that every product pays once")
    activation_energy: _Energy = Field(description="Energy of opening and closing a row")
    read_energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of reading a byte of an open row"
    )
    operation_energy: _Energy = Field(description="Energy of a simple operation of the logic")
    link_energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(description="Energy of a byte on a link")
    background: Annotated[Constant, quantity("W", minimum=0)] = Field(
        description="Standby and refresh power of one unit; doubled above 358.15 K (85 degC)"
    )
    area: Annotated[Constant, quantity("m^2", above=0)] = Field(
        description="Silicon of one unit, as the file counts it"
    )


@dataclass(frozen=True)
class DramPim:
    """`units` equal units that share every operator."""

    name: str
    units: int
    parameters: PimParameters
    _costs: Costs = field(init=False, default_factory=dict, repr=False, compare=False)

    schema = PimParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: PimParameters) -> DramPim:
        """From the data file's parameters; TierformError with everything wrong with them."""
        p, t = parameters, parameters.timing
        least = {"banks": p.banks, "units_per_link": p.units_per_link}
        least["timing.banks_per_channel"] = t.banks_per_channel
        if p.in_bank:
            least["in_bank.subarrays"] = p.in_bank.subarrays
        problems = [
            Problem("must be at least 1", key=f"{name}.{key}", value=value) for key, value in least.items() if value < 1
        ]
        if (p.near_bank is None) == (p.in_bank is None):
            problems.append(
                Problem("arithmetic is either near the bank or in it", key=name, fix="Give near_bank or in_bank.")
            )
        if t.refresh.value >= t.refresh_interval.value:
            problems.append(
                Problem(
                    "a refresh is longer than the time between two", key=f"{name}.timing.refresh", value=t.refresh.value
                )
            )
        if p.near_bank and p.near_bank.reuse.value < 1:
            reuse = p.near_bank.reuse.value
            problems.append(Problem("a pass serves at least one vector", key=f"{name}.near_bank.reuse", value=reuse))
        if problems:
            raise TierformError(problems)
        return cls(name, units, parameters)

    def supports(self, operator: Operator) -> bool:
        """Everything but collectives, in a format that the banks multiply (or a wider one)."""
        if operator.kind is Kind.COLLECTIVE:
            return False
        return operator.kind is not Kind.MATMUL or self.mac_rate(operator) is not None

    def mac_rate(self, operator: Operator) -> float | None:
        """Multiply-accumulates a second of one bank in the operator's widest format, however its rows are fed."""
        form, near, inside = operator.widest, self.parameters.near_bank, self.parameters.in_bank
        if near is not None:
            return value_by_precision(near.mac_rate, form)
        assert inside is not None
        steps = value_by_precision(inside.row_operations, form)
        return None if steps is None else self._lanes(inside) / (steps * inside.row_operation.value)

    def _lanes(self, inside: InBankFile) -> float:
        """Products of a bank that run at once: one on every bit line of the rows at work."""
        return 8 * self.parameters.timing.row_bytes.value * inside.subarrays

    @cached_property
    def bandwidth_B_per_s(self) -> float:
        """At which one bank's rows can be read."""
        return self.parameters.timing.row_bytes.value / self.parameters.timing.row_s

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """See the module's text."""
        return remember(self._costs, operator, share, self._cost)

    def _cost(self, operator: Operator, share: Share) -> Cost:
        if not self.supports(operator):
            known = self.parameters.near_bank.mac_rate if self.parameters.near_bank else {}
            known = known or (self.parameters.in_bank.row_operations if self.parameters.in_bank else {})
            fail(
                f"the component {self.name!r} cannot run this operator",
                key=operator.name,
                value=operator.widest if operator.kind is Kind.MATMUL else operator.kind.value,
                fix=f"Its banks multiply {', '.join(known)}.",
            )
        units = share.units or self.units
        if operator.kind is not Kind.MATMUL:
            return self._light(operator, units)
        if self.parameters.sharing == "weights":
            return self._product(operator, units)
        # The operand goes round all links in use: those that would cost more time than they save are left out.
        each = self.parameters.units_per_link
        choices = [*range(each, units, each), units]
        costs = [(self._product(operator, used), used) for used in choices]
        cost, used = min(costs, key=lambda item: item[0].occupancy_s)
        return replace(cost, utilization=cost.utilization * used / units)

    def _product(self, operator: Operator, units: int) -> Cost:
        held = operator.inputs[1] if len(operator.inputs) > 1 else operator.inputs[0]
        held_B = operator.count * held.size_B
        vectors = max(1, round(operator.batch * operator.m * operator.k * operator.n / held.elements))
        moved_s, moved_B = self._moved(operator, held_B, units)
        # Stacks that get whole vectors cannot all have the same number; those that share the weight can.
        several = operator.count * operator.batch * operator.m
        busiest = -(-several // units) * units / several if self.parameters.sharing == "tokens" else 1.0
        work_s, energy, read_B = (self._near if self.parameters.near_bank else self._inside)(
            operator, held_B, vectors, units, busiest
        )
        seconds = work_s + moved_s + self.parameters.link_latency.value
        energy["link"] = moved_B * self.parameters.link_energy.value
        # What is made is written into rows again.
        energy["rows"] += operator.output_B * self._row_J_per_B
        peak = (self.mac_rate(operator) or 0.0) * self.parameters.banks * units
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J=energy,
            operations=operator.operations,
            memory_read_B=read_B,
            memory_write_B=float(operator.output_B),
            utilization=min(1.0, operator.macs / (peak * seconds)),
        )

    def _near(
        self, operator: Operator, held_B: float, vectors: int, units: int, busiest: float
    ) -> tuple[float, dict[str, float], float]:
        p, near = self.parameters, self.parameters.near_bank
        assert near is not None
        banks = p.banks * units
        own = max(1, -(-vectors // units)) if p.sharing == "tokens" else vectors
        passes = -(-own // int(near.reuse.value))
        copies = units if p.sharing == "tokens" else 1  # every unit streams the whole operand
        rows = -(-held_B * copies // p.timing.row_bytes.value)
        stream_s = -(-rows // banks) * p.timing.row_s * passes
        multiply_s = operator.macs * busiest / (banks * (self.mac_rate(operator) or 1.0))
        read_B = float(held_B * copies * passes)
        energy = {
            "rows": rows * passes * p.activation_energy.value + read_B * p.read_energy.value,
            "mac": operator.macs * (value_by_precision(near.mac_energy, operator.widest) or 0.0),
        }
        return max(stream_s, multiply_s), energy, read_B

    def _inside(
        self, operator: Operator, held_B: float, vectors: int, units: int, busiest: float
    ) -> tuple[float, dict[str, float], float]:
        p, inside = self.parameters, self.parameters.in_bank
        assert inside is not None
        lanes, banks = self._lanes(inside), p.banks * units
        steps = value_by_precision(inside.row_operations, operator.widest) or 1.0
        rounds = -(-operator.macs * busiest // (lanes * banks))
        loss = 1 - p.timing.refresh.value / p.timing.refresh_interval.value
        multiply_s = rounds * steps * inside.row_operation.value / loss
        add_s = operator.macs * busiest / (banks * inside.adder_rate.value)
        row_bits = 8 * p.timing.row_bytes.value
        energy = {
            "rows": operator.macs / row_bits * steps * inside.row_energy.value,
            "adders": operator.macs * inside.adder_energy.value,
        }
        return max(multiply_s, add_s), energy, float(held_B)

    def _moved(self, operator: Operator, held_B: float, units: int) -> tuple[float, float]:
        """Time on the busiest link and bytes over all links."""
        inputs_B, outputs_B = operator.input_B - held_B, operator.output_B
        bandwidth, links = self.parameters.link_bandwidth.value, -(-units // self.parameters.units_per_link)
        if self.parameters.sharing == "weights":
            return (inputs_B + outputs_B / links) / bandwidth, inputs_B * links + outputs_B
        return held_B * (links - 1) / links / bandwidth, held_B * (links - 1)

    def _light(self, operator: Operator, units: int) -> Cost:
        """Kinds other than products: bound by the logic beside the banks or by reading the rows."""
        p = self.parameters
        read_B = operator.read_B
        touched_B = read_B + operator.output_B
        seconds = max(
            operator.operations / (units * p.vector_rate.value),
            touched_B / (units * p.banks * self.bandwidth_B_per_s),
        )
        energy = {
            "operations": operator.operations * p.operation_energy.value,
            "rows": touched_B * self._row_J_per_B,
        }
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J=energy,
            operations=operator.operations,
            memory_read_B=float(read_B),
            memory_write_B=float(operator.output_B),
        )

    @property
    def _row_J_per_B(self) -> float:
        """Energy of a byte of a row that is opened for all of its bytes."""
        p = self.parameters
        return p.read_energy.value + p.activation_energy.value / p.timing.row_bytes.value

    @property
    def memory_capacity_B(self) -> int:
        """Bytes of all units."""
        return int(self.units * self.parameters.capacity.value)

    @property
    def area_m2(self) -> float:
        """All units, as the file counts them."""
        return self.units * self.parameters.area.value

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Background and refresh; refresh doubles above 85 °C (358 K), which is charged to all of it."""
        power: Kelvin = (
            self.units * self.parameters.background.value * (1.0 + np.heaviside(temperature_K - 358.15, 0.0))
        )
        return power

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
